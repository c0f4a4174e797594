"""Timing and usage of one processor, as frames."""

from __future__ import annotations

import time
from typing import Any

from loguru import logger

from antiphon.frames.frames import MetricsFrame
from antiphon.metrics.metrics import (
    LLMTokenUsage,
    LLMUsageMetricsData,
    MetricsData,
    ProcessingMetricsData,
    TTFBMetricsData,
    TTSUsageMetricsData,
)
from antiphon.utils.asyncio.task_manager import BaseTaskManager
from antiphon.utils.base_object import BaseObject


class FrameProcessorMetrics(BaseObject):
    """Turns the begin and end of a processor's work into MetricsFrames.

    A stop without a start gives None. Subclasses send the same figures elsewhere.
    """

    def __init__(self) -> None:
        """Makes metrics that belong to no processor yet."""
        super().__init__()
        self._task_manager: BaseTaskManager | None = None
        self._core_metrics_data = MetricsData(processor="")
        self._start_ttfb_time = 0.0
        self._start_processing_time = 0.0
        self._last_ttfb_time: float | None = None
        self._should_report_ttfb = True

    async def setup(self, task_manager: BaseTaskManager) -> None:
        """Takes the task manager of the pipeline."""
        self._task_manager = task_manager

    async def cleanup(self) -> None:
        """Waits for running event handlers."""
        await super().cleanup()

    @property
    def task_manager(self) -> BaseTaskManager:
        """The pipeline's task manager.

        Raises:
            RuntimeError: Before setup().
        """
        if self._task_manager is None:
            raise RuntimeError(f"{self} is not set up")
        return self._task_manager

    @property
    def ttfb(self) -> float | None:
        """The last time to first byte in seconds, the running one while it is measured."""
        if self._start_ttfb_time > 0:
            return time.monotonic() - self._start_ttfb_time
        return self._last_ttfb_time

    def _processor_name(self) -> str:
        return self._core_metrics_data.processor

    def _model_name(self) -> str | None:
        return self._core_metrics_data.model

    def set_core_metrics_data(self, data: MetricsData) -> None:
        """Sets the processor and model that every measurement names."""
        self._core_metrics_data = data

    def set_processor_name(self, name: str) -> None:
        """Sets the processor that every measurement names."""
        self._core_metrics_data = MetricsData(processor=name)

    async def start_ttfb_metrics(self, report_only_initial_ttfb: bool) -> None:
        """Begins a time to first byte; with the flag only the first one ever is measured."""
        if self._should_report_ttfb:
            self._start_ttfb_time = time.monotonic()
            self._last_ttfb_time = None
            self._should_report_ttfb = not report_only_initial_ttfb

    async def stop_ttfb_metrics(self) -> MetricsFrame | None:
        """Ends the measurement; None if none was running."""
        if self._start_ttfb_time == 0:
            return None
        self._last_ttfb_time = time.monotonic() - self._start_ttfb_time
        self._start_ttfb_time = 0.0
        return self._frame(TTFBMetricsData, self._last_ttfb_time, "{processor} TTFB: {value}")

    async def start_processing_metrics(self) -> None:
        """Begins a processing time."""
        self._start_processing_time = time.monotonic()

    async def stop_processing_metrics(self) -> MetricsFrame | None:
        """Ends the measurement; None if none was running."""
        if self._start_processing_time == 0:
            return None
        value = time.monotonic() - self._start_processing_time
        self._start_processing_time = 0.0
        return self._frame(ProcessingMetricsData, value, "{processor} processing time: {value}")

    async def start_llm_usage_metrics(self, tokens: LLMTokenUsage) -> MetricsFrame:
        """Reports the tokens of one completion."""
        return self._frame(
            LLMUsageMetricsData,
            tokens,
            "{processor} prompt tokens: {value.prompt_tokens}, "
            "completion tokens: {value.completion_tokens}",
        )

    async def start_tts_usage_metrics(self, text: str) -> MetricsFrame:
        """Reports the characters of one text to be spoken."""
        return self._frame(TTSUsageMetricsData, len(text), "{processor} usage characters: {value}")

    def _frame(self, kind: type[MetricsData], value: Any, line: str) -> MetricsFrame:
        # The lines are documented, so the figures are in their text as well as in fields.
        logger.debug(line, processor=self._processor_name(), value=value)
        data = kind(processor=self._processor_name(), model=self._model_name(), value=value)  # type: ignore[call-arg]
        return MetricsFrame(data=[data])
