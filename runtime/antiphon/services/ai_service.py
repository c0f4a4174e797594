"""What every service has in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    MetricsFrame,
    StartFrame,
)
from antiphon.metrics.metrics import MetricsData, TTFBMetricsData
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.relay import relayed
from antiphon.utils.tracing import trace_state
from antiphon.utils.tracing.service_decorators import end_span
from antiphon.utils.tracing.service_span import ServiceSpan


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
        # For tracing: where finished spans go (None: nothing is traced), the operation under way,
        # the one that only waits for its first audio, and the time to first byte in it.
        self.report_span: Callable[[ServiceSpan], None] | None = None
        self.open_span: ServiceSpan | None = None
        self.late_span: ServiceSpan | None = None
        self.measured_ttfb: float | None = None

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
            self.report_span = trace_state.current().report if frame.enable_tracing else None
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

    async def _push_metrics(self, frame: Frame | None) -> None:
        await super()._push_metrics(frame)
        if self.report_span is None or not isinstance(frame, MetricsFrame):
            return
        for data in frame.data:
            if isinstance(data, TTFBMetricsData):
                self.measured_ttfb = data.value
                self._end_late_span()

    def _end_late_span(self) -> None:
        """Ends the span that has been kept open until its first audio."""
        span, self.late_span = self.late_span, None
        if span is not None:
            end_span(self, span)

    async def _update_settings(self, settings: Mapping[str, Any]) -> None:
        """Takes over changed settings; one this service does not have is only a warning."""
        for key, value in settings.items():
            if key == "model":
                self.set_model_name(value)
            elif key in self._settings:
                self._settings[key] = value
            else:
                logger.warning("unknown setting ignored", processor=self.name, setting=key)
