"""What every service has in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from loguru import logger

from antiphon.frames.frames import CancelFrame, EndFrame, ErrorFrame, Frame, StartFrame
from antiphon.metrics.metrics import MetricsData
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.relay import relayed


class AIService(FrameProcessor):
    """A processor that works with a model: speech to text, language model, text to speech, ...

    Subclasses keep their constructors cheap (no connection, no model, no SDK) and open what they
    need in ``start()``.
    """

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        """Makes a service.

        Args:
            **kwargs: Passed on to ``FrameProcessor``.
        """
        super().__init__(**kwargs)
        self._model_name = ""
        self._settings: dict[str, Any] = {}

    @property
    def model_name(self) -> str:
        """Name of the model in use; empty if the service has none."""
        return self._model_name

    @relayed
    def set_model_name(self, model: str) -> None:
        """Sets the model to use from the next request on; metrics name it too."""
        self._model_name = model
        self.set_core_metrics_data(MetricsData(processor=self.name, model=model))

    async def start(self, frame: StartFrame) -> None:
        """Opens what the service needs. Called before the StartFrame is passed on."""

    async def stop(self, frame: EndFrame) -> None:
        """Closes it in good order. Called before the EndFrame is passed on."""

    async def cancel(self, frame: CancelFrame) -> None:
        """Closes it at once. Called before the CancelFrame is passed on."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Calls start(), stop() or cancel(); subclasses push the frame on."""
        await super().process_frame(frame, direction)

        if isinstance(frame, StartFrame):
            await self.start(frame)
        elif isinstance(frame, EndFrame):
            await self.stop(frame)
        elif isinstance(frame, CancelFrame):
            await self.cancel(frame)

    async def process_generator(self, generator: AsyncGenerator[Frame | None, None]) -> None:
        """Pushes what a generator yields: errors upstream, other frames downstream.

        If this is cancelled the generator is closed before the cancellation goes on.
        """
        try:
            async for frame in generator:
                if isinstance(frame, ErrorFrame):
                    await self.push_error(frame)
                elif frame is not None:
                    await self.push_frame(frame)
        finally:
            await generator.aclose()

    async def _update_settings(self, settings: Mapping[str, Any]) -> None:
        """Takes over changed settings; one this service does not have is only a warning."""
        for key, value in settings.items():
            if key == "model":
                self.set_model_name(value)
            elif key in self._settings:
                self._settings[key] = value
            else:
                logger.warning("unknown setting ignored", processor=self.name, setting=key)
