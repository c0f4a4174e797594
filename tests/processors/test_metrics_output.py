"""The documented log lines of metrics, and Sentry."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from antiphon.metrics.metrics import LLMTokenUsage, MetricsData, TTFBMetricsData
from antiphon.processors.metrics.frame_processor_metrics import FrameProcessorMetrics
from antiphon.processors.metrics.sentry import SentryMetrics
from antiphon.utils.asyncio.task_manager import TaskManager


@pytest.fixture
def lines() -> Iterator[list[str]]:
    written: list[str] = []
    sink = logger.add(lambda line: written.append(line.strip()), format="{message}", level="DEBUG")
    yield written
    logger.remove(sink)


async def test_metrics_are_logged_in_the_documented_form(lines: list[str]) -> None:
    metrics = FrameProcessorMetrics()
    metrics.set_processor_name("FakeLLMService#0")
    await metrics.start_ttfb_metrics(report_only_initial_ttfb=False)
    await metrics.start_processing_metrics()
    ttfb = await metrics.stop_ttfb_metrics()
    await metrics.stop_processing_metrics()
    await metrics.start_llm_usage_metrics(
        LLMTokenUsage(prompt_tokens=104, completion_tokens=53, total_tokens=157)
    )
    await metrics.start_tts_usage_metrics("x" * 65)

    assert ttfb is not None
    (data,) = ttfb.data
    assert isinstance(data, TTFBMetricsData)
    assert lines[0] == f"FakeLLMService#0 TTFB: {data.value}"
    assert 0 < float(lines[1].removeprefix("FakeLLMService#0 processing time: ")) < 1
    assert lines[2:] == [
        "FakeLLMService#0 prompt tokens: 104, completion tokens: 53",
        "FakeLLMService#0 usage characters: 65",
    ]


class FakeSentry(types.ModuleType):
    """Keeps the transactions it is given."""

    def __init__(self, *, initialised: bool = True) -> None:
        super().__init__("sentry_sdk")
        self.initialised = initialised
        self.log: list[Any] = []

    def is_initialized(self) -> bool:
        return self.initialised

    def start_transaction(self, *, op: str, name: str) -> Any:
        self.log.append(("start", op, name))
        return types.SimpleNamespace(finish=lambda: self.log.append(("finish", op)))

    def flush(self, timeout: float) -> None:
        self.log.append(("flush", timeout))


async def measured(metrics: SentryMetrics) -> None:
    metrics.set_core_metrics_data(MetricsData(processor="tts"))
    await metrics.setup(TaskManager())
    for _ in range(2):
        await metrics.start_ttfb_metrics(report_only_initial_ttfb=True)
        await metrics.start_processing_metrics()
        await metrics.stop_ttfb_metrics()
        assert await metrics.stop_processing_metrics() is not None
    await metrics.start_processing_metrics()
    await metrics.cleanup()


async def test_sentry_gets_a_transaction_for_each_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sentry = FakeSentry()
    monkeypatch.setitem(sys.modules, "sentry_sdk", sentry)
    await measured(SentryMetrics())
    processing = [("start", "processing", "Processing for tts"), ("finish", "processing")]
    assert sentry.log == [
        ("start", "ttfb", "TTFB for tts"),
        processing[0],
        ("finish", "ttfb"),
        processing[1],
        *processing,
        # What was open is ended at the end of the session.
        *processing,
        ("flush", 5.0),
    ]


@pytest.mark.parametrize(
    ("module", "reason"), [(FakeSentry(initialised=False), "not initialised"), (None, "missing")]
)
async def test_without_sentry_there_is_a_warning_and_the_rest_works(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], module: Any, reason: str
) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", module)
    await measured(SentryMetrics())
    assert any("nothing is reported to Sentry" in line and reason in line for line in lines)
    assert module is None or module.log == []
