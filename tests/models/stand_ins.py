"""Models for the tests of what runs models."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from antiphon.errors import ConfigError
from antiphon.models.model import Item, Model

WAIT_SECS = 20.0
"""Far more than anything here needs; nothing waits for it when all is well."""


class Shouting(Model):
    """Gives texts back in capitals, and does what a text asks for."""

    max_batch = 4
    loads = 0
    """How often one was loaded in this process."""

    def __init__(self, *, mark: str = "", trouble: str = "") -> None:
        self.mark = mark
        self.trouble = trouble
        self.batches: list[list[Any]] = []
        self.threads: set[int] = set()
        # Set: goes on. Cleared: the next batch waits in the thread.
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def load(self) -> None:
        type(self).loads += 1
        self.threads.add(threading.get_ident())
        if self.trouble == "files":
            raise ConfigError("the file model.bin is missing: fetch it")
        if self.trouble:
            raise LookupError(self.trouble)

    def group(self, item: Item) -> Hashable:
        return isinstance(item.payload, bytes)

    def run_batch(self, items: Sequence[Item]) -> Sequence[Any]:
        self.threads.add(threading.get_ident())
        self.batches.append([item.payload for item in items])
        assert self.gate.wait(WAIT_SECS)
        return [self._answer(item) for item in items]

    def _answer(self, item: Item) -> Any:
        if isinstance(item.payload, float):
            time.sleep(item.payload)
        if not isinstance(item.payload, str):
            return item.payload
        match item.payload:
            case "fail":
                return LookupError("cannot shout that")
            case "fail all":
                raise LookupError("cannot shout at all")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "who":
                return os.getpid()
        return item.payload.upper() + self.mark

    def close(self) -> None:
        self.closed = True

    def statistics(self) -> Mapping[str, float]:
        return {"shouted": sum(map(len, self.batches))}


class Counting(Model):
    """Adds up the numbers of each session; its state is the list of them."""

    max_batch = 4
    checkpoint_every = 3

    def load(self) -> None:
        self.seen: list[tuple[Any, int]] = []

    def run_batch(self, items: Sequence[Item]) -> Sequence[Any]:
        results = []
        for item in items:
            assert item.session is not None
            if item.session.state is None:
                item.session.state = [item.session.options or 0]
            if item.payload == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            self.seen.append((item.session.options, item.payload))
            item.session.state.append(item.payload)
            results.append(sum(item.session.state))
        return results

    def export_state(self, state: Any) -> Any:
        return list(state)

    def statistics(self) -> Mapping[str, float]:
        return {"seen": len(self.seen)}


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that has no event of its own."""
    async with asyncio.timeout(WAIT_SECS):
        while not condition():  # noqa: ASYNC110 - for what tells nobody of itself
            await asyncio.sleep(0.001)
