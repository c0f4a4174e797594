"""What smart-turn models that are run by us share: the model, and an analyzer that asks it."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from loguru import logger

from antiphon.audio.turn.smart_turn._audio import MODEL_RATE_HZ, Samples, for_model
from antiphon.audio.turn.smart_turn.base_smart_turn import BaseSmartTurn, SmartTurnTimeoutException
from antiphon.errors import AntiphonError, ConfigError, DeadlineExceededError, ServiceError
from antiphon.models.client import ModelClient
from antiphon.models.model import Item, Model, ModelSpec
from antiphon.models.provider import connect_model

_COMPLETE_ABOVE = 0.5

Judge = Callable[[list[Samples]], list[float]]
"""From pieces of float32 samples at 16 kHz to the probabilities that their turns are complete."""


class SmartTurnModel(Model):
    """Judges whether turns are complete, of several sessions in one call.

    A request is float32 samples at 16 kHz; a result is the probability that the turn is complete, and the
    seconds that its batch took.
    """

    def __init__(self, *, path: str) -> None:
        """Keeps the setting.

        Args:
            path: Folder of the model, or its name on Hugging Face.
        """
        self._path = path
        self._judge: Judge | None = None

    def load(self) -> None:
        """Loads the model and judges a second of silence.

        Raises:
            ServiceError: It cannot be loaded.
        """
        try:
            self._judge = self._load(self._path)
            self._judge([np.zeros(MODEL_RATE_HZ, np.float32)])
        except Exception as error:
            raise ServiceError(
                f"the model {self._path!r} cannot be loaded: {error}", provider=type(self).__name__
            ) from error

    @abstractmethod
    def _load(self, path: str) -> Judge:
        """Loads the model; the packages that it needs are imported here."""

    def run_batch(self, items: Sequence[Item]) -> Sequence[Any]:
        """Judges a batch."""
        assert self._judge is not None
        started = time.perf_counter()
        probabilities = self._judge([item.payload for item in items])
        secs = time.perf_counter() - started
        return [[probability, secs] for probability in probabilities]


class LocalModelSmartTurn(BaseSmartTurn):
    """Asks a model of ours, which sessions share; in this process, or where the operator has it run.

    It is loaded when the transport starts, beside everything else, so that it is there when the user
    first pauses; the constructor loads nothing. Who uses an analyzer without a transport has it loaded at the
    first pause, and calls `disconnect_model` at the end.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """What has to be installed."""

    model: ClassVar[type[SmartTurnModel]]
    """What judges."""

    def __init__(self, *, smart_turn_model_path: str, **kwargs: Any) -> None:
        """Keeps the settings.

        Args:
            smart_turn_model_path: Folder of the model, or its name on Hugging Face.
            **kwargs: ``sample_rate`` and ``params`` of ``BaseSmartTurn``.

        Raises:
            ConfigError: A package is not installed.
        """
        super().__init__(**kwargs)
        name = type(self).__name__
        if missing := [p for p in self.packages if importlib.util.find_spec(p) is None]:
            raise ConfigError(
                f"{name} needs {', '.join(missing)}: pip install 'antiphon[local-smart-turn]'"
            )
        self._model_path = smart_turn_model_path
        self._connecting: asyncio.Task[ModelClient] | None = None

    async def connect_model(self) -> None:
        """Begins to connect to the model, which is loaded if nobody uses it yet; does not wait for that."""
        self._connection()

    async def disconnect_model(self) -> None:
        """Ends the connection; the model is freed behind its last user. Idempotent."""
        connecting, self._connecting = self._connecting, None
        if connecting is None:
            return
        connecting.cancel()
        await asyncio.wait([connecting])
        if not connecting.cancelled() and connecting.exception() is None:
            await connecting.result().aclose()

    def _connection(self) -> asyncio.Task[ModelClient]:
        loop = asyncio.get_running_loop()
        if self._connecting is None or self._connecting.get_loop() is not loop:
            spec = ModelSpec(self.model, {"path": self._model_path})
            self._connecting = loop.create_task(connect_model(spec), name=f"connect {spec.name}")
            self._connecting.add_done_callback(_log_failure)
        return self._connecting

    async def _predict_endpoint(self, audio_array: Samples) -> dict[str, Any]:
        """Has the model judge the speech; loading it, if it still is, counts for the time.

        Raises:
            SmartTurnTimeoutException: No verdict within ``stop_secs``.
            ServiceError: The model could not be loaded, failed, or has too much to do.
        """
        stop_secs = self._params.stop_secs
        try:
            async with asyncio.timeout(stop_secs):
                client = await asyncio.shield(self._connection())
                audio = for_model(audio_array, self.sample_rate)
                started = time.perf_counter()
                probability, seconds = await client.request(audio, deadline_secs=stop_secs)
                total = time.perf_counter() - started
        except (TimeoutError, DeadlineExceededError) as error:
            raise SmartTurnTimeoutException(f"no verdict within {stop_secs:g} s") from error
        return {
            "prediction": int(probability > _COMPLETE_ABOVE),
            "probability": probability,
            "metrics": {"inference_time": seconds, "total_time": total},
        }


def _log_failure(connecting: asyncio.Task[ModelClient]) -> None:
    """Says beforehand what every pause will say too."""
    if not connecting.cancelled() and (error := connecting.exception()) is not None:
        reason = str(error) if isinstance(error, AntiphonError) else repr(error)
        logger.error("smart-turn model not loaded", reason=reason)
