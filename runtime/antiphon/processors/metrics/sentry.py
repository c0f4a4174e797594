"""Timings of processors as transactions of Sentry."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from loguru import logger

from antiphon.frames.frames import MetricsFrame
from antiphon.processors.metrics.frame_processor_metrics import FrameProcessorMetrics
from antiphon.utils.asyncio.task_manager import BaseTaskManager

_FLUSH_TIMEOUT_SECS = 5.0


class SentryMetrics(FrameProcessorMetrics):
    """Reports times to first byte and processing times to Sentry, beside the MetricsFrames.

    The bot initialises Sentry itself, with ``sentry_sdk.init``. Where that did not happen, or the
    package ``sentry-sdk`` is missing, there is a warning, and the MetricsFrames are all there is.
    """

    def __init__(self) -> None:
        """Makes metrics that belong to no processor yet; Sentry is looked for at the setup."""
        super().__init__()
        self._sentry: Any = None
        self._ttfb_transaction: Any = None
        self._processing_transaction: Any = None

    async def setup(self, task_manager: BaseTaskManager) -> None:
        """Finds Sentry."""
        await super().setup(task_manager)
        try:
            sentry = await asyncio.to_thread(importlib.import_module, "sentry_sdk")
        except ImportError:
            logger.warning(
                "nothing is reported to Sentry, its package is missing: "
                "pip install 'antiphon[sentry]'",
                processor=self._processor_name(),
            )
            return
        if not sentry.is_initialized():
            logger.warning(
                "nothing is reported to Sentry, it is not initialised",
                processor=self._processor_name(),
            )
            return
        self._sentry = sentry

    async def cleanup(self) -> None:
        """Ends what is open and sends what was reported."""
        await self._finish(self._ttfb_transaction)
        await self._finish(self._processing_transaction)
        self._ttfb_transaction = self._processing_transaction = None
        if self._sentry is not None:
            await asyncio.to_thread(self._sentry.flush, timeout=_FLUSH_TIMEOUT_SECS)
        await super().cleanup()

    async def start_ttfb_metrics(self, report_only_initial_ttfb: bool) -> None:
        """Begins a time to first byte; with the flag only the first one ever is measured."""
        measured = self._should_report_ttfb
        await super().start_ttfb_metrics(report_only_initial_ttfb)
        if measured and self._sentry is not None:
            await self._finish(self._ttfb_transaction)
            self._ttfb_transaction = self._begin("ttfb", "TTFB")

    async def stop_ttfb_metrics(self) -> MetricsFrame | None:
        """Ends the measurement; None if none was running."""
        frame = await super().stop_ttfb_metrics()
        transaction, self._ttfb_transaction = self._ttfb_transaction, None
        await self._finish(transaction)
        return frame

    async def start_processing_metrics(self) -> None:
        """Begins a processing time."""
        await super().start_processing_metrics()
        if self._sentry is not None:
            await self._finish(self._processing_transaction)
            self._processing_transaction = self._begin("processing", "Processing")

    async def stop_processing_metrics(self) -> MetricsFrame | None:
        """Ends the measurement; None if none was running."""
        frame = await super().stop_processing_metrics()
        transaction, self._processing_transaction = self._processing_transaction, None
        await self._finish(transaction)
        return frame

    def _begin(self, operation: str, what: str) -> Any:
        return self._sentry.start_transaction(
            op=operation, name=f"{what} for {self._processor_name()}"
        )

    async def _finish(self, transaction: Any) -> None:
        if transaction is not None:
            # Sentry only queues it, but its hooks are the bot's and may block.
            await asyncio.to_thread(transaction.finish)
