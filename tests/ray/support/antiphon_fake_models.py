"""Stand-ins for models; workers import this module by its directory on PYTHONPATH."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from antiphon.errors import ConfigError
from antiphon.models.model import Item, Model


class Shout(Model):
    """Gives texts back in capitals; says where it runs if asked."""

    def __init__(self, *, mark: str = "") -> None:
        self._mark = mark

    def load(self) -> None:
        if self._mark == "broken":
            raise ConfigError("the file shout.bin is missing: fetch it")

    def run_batch(self, items: Sequence[Item]) -> Sequence[Any]:
        return [self._answer(item.payload) for item in items]

    def _answer(self, payload: str) -> Any:
        if payload == "who":
            return [
                os.getpid(),
                threading.current_thread().name,
                os.environ.get("CUDA_VISIBLE_DEVICES"),
            ]
        if payload == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if payload.startswith("work "):
            time.sleep(float(payload.removeprefix("work ")))
        return payload.upper() + self._mark


class Adder(Model):
    """Adds up the numbers of each session."""

    in_actor: ClassVar[bool] = True

    def load(self) -> None:
        """Nothing to load."""

    def run_batch(self, items: Sequence[Item]) -> Sequence[Any]:
        results = []
        for item in items:
            assert item.session is not None
            item.session.state = (item.session.state or 0) + item.payload
            time.sleep(0.001)
            results.append(item.session.state)
        return results
