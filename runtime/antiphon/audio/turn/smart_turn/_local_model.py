"""What smart-turn models that run in this process share: loading, threads, deadlines."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from loguru import logger

from antiphon.audio.turn.smart_turn._audio import Samples, for_model
from antiphon.audio.turn.smart_turn.base_smart_turn import BaseSmartTurn, SmartTurnTimeoutException
from antiphon.errors import ConfigError, ServiceError

_COMPLETE_ABOVE = 0.5


class LocalModelSmartTurn(BaseSmartTurn):
    """Runs a model in a thread of this process.

    The model is loaded when the transport gives the sample rate, in a thread, so that it is there
    when the user first pauses; the constructor loads nothing.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """What has to be installed."""

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
        self._lock = threading.Lock()
        self._judge: Callable[[Samples], float] | None = None
        self._broken: Exception | None = None

    def set_sample_rate(self, sample_rate: int) -> None:
        """Sets the sample rate, and begins to load the model if an event loop runs.

        Args:
            sample_rate: Rate of the input in Hz; a rate given to the constructor goes before it.
        """
        super().set_sample_rate(sample_rate)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # loaded at the first pause
        # The loop's own executor, which the end of the loop waits for.
        loop.run_in_executor(None, self._load_and_log)

    def _load_and_log(self) -> None:
        """Loads the model beforehand; what goes wrong is said when it is needed too."""
        try:
            self._loaded()
        except ServiceError as error:
            logger.error("smart-turn model not loaded", reason=str(error))

    def _loaded(self) -> Callable[[Samples], float]:
        with self._lock:
            if self._broken is not None:
                raise ServiceError(str(self._broken), provider=type(self).__name__)
            if self._judge is None:
                try:
                    self._judge = self._load()
                except Exception as error:
                    self._broken = ServiceError(
                        f"the model {self._model_path!r} cannot be loaded: {error}",
                        provider=type(self).__name__,
                    )
                    raise self._broken from error
            return self._judge

    @abstractmethod
    def _load(self) -> Callable[[Samples], float]:
        """Loads the model, in a thread.

        Returns:
            A function from float32 samples at 16 kHz to the probability that the turn is complete.
        """

    def _run(self, audio: Samples) -> tuple[float, float]:
        judge = self._loaded()
        # One at a time: an earlier one that took too long may still be at work.
        with self._lock:
            started = time.perf_counter()
            probability = judge(for_model(audio, self.sample_rate))
            return probability, time.perf_counter() - started

    async def _predict_endpoint(self, audio_array: Samples) -> dict[str, Any]:
        """Has the model judge the speech; loading it, if it still is, counts for the time.

        Raises:
            SmartTurnTimeoutException: No verdict within ``stop_secs``; the thread goes on.
            ServiceError: The model could not be loaded.
        """
        try:
            async with asyncio.timeout(self._params.stop_secs):
                probability, seconds = await asyncio.to_thread(self._run, audio_array)
        except TimeoutError as error:
            raise SmartTurnTimeoutException(
                f"no verdict within {self._params.stop_secs:g} s"
            ) from error
        return {
            "prediction": int(probability > _COMPLETE_ABOVE),
            "probability": probability,
            "metrics": {"inference_time": seconds, "total_time": seconds},
        }
