"""Timings and usage of a processor."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.frames.frames import Frame, MetricsFrame, StartInterruptionFrame, TextFrame
from antiphon.metrics.metrics import (
    LLMTokenUsage,
    LLMUsageMetricsData,
    MetricsData,
    ProcessingMetricsData,
    TTFBMetricsData,
    TTSUsageMetricsData,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.metrics.frame_processor_metrics import FrameProcessorMetrics

pytestmark = pytest.mark.virtual_time


class Measured(FrameProcessor):
    def __init__(self, *, measures: bool = True) -> None:
        super().__init__(name="measured")
        self._measures = measures

    def can_generate_metrics(self) -> bool:
        return self._measures

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            if frame.text == "begin":
                await self.start_ttfb_metrics()
                await self.start_processing_metrics()
            elif frame.text == "end":
                await self.stop_all_metrics()
            elif frame.text == "usage":
                await self.start_llm_usage_metrics(
                    LLMTokenUsage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
                )
                await self.start_tts_usage_metrics("four")
        await self.push_frame(frame, direction)


async def _run(processor: FrameProcessor, params: PipelineParams, *frames: Frame) -> list[Frame]:
    task = PipelineTask(Pipeline([processor]), params)
    seen: list[Frame] = []
    task.set_reached_downstream_filter((MetricsFrame,))
    task.add_event_handler("on_frame_reached_downstream", lambda _, frame: seen.append(frame))
    await task.queue_frames(frames)
    await task.stop_when_done()
    await task.run()
    return seen


def _data(frames: list[Frame]) -> list[MetricsData]:
    return [data for frame in frames if isinstance(frame, MetricsFrame) for data in frame.data]


async def test_the_session_begins_with_zero_metrics_of_everybody_who_measures() -> None:
    inner = Pipeline([Measured(measures=False), Measured()])
    (frame,) = await _run(inner, PipelineParams(enable_metrics=True))
    assert _data([frame]) == [
        TTFBMetricsData(processor="measured", value=0.0),
        ProcessingMetricsData(processor="measured", value=0.0),
    ]


@pytest.mark.parametrize(
    "params",
    [
        PipelineParams(),
        PipelineParams(enable_metrics=True, send_initial_empty_metrics=False),
    ],
)
async def test_there_are_none_where_they_are_switched_off(params: PipelineParams) -> None:
    assert await _run(Measured(), params) == []


async def test_timings_and_usage() -> None:
    params = PipelineParams(
        enable_metrics=True, enable_usage_metrics=True, send_initial_empty_metrics=False
    )
    words = ("end", "begin", "end", "end", "usage")
    data = _data(await _run(Measured(), params, *(TextFrame(word) for word in words)))
    assert [type(one) for one in data] == [
        TTFBMetricsData,
        ProcessingMetricsData,
        LLMUsageMetricsData,
        TTSUsageMetricsData,
    ]
    assert isinstance(data[3], TTSUsageMetricsData)
    assert data[3].value == 4


@pytest.mark.parametrize(
    ("params", "measures"),
    [(PipelineParams(), True), (PipelineParams(enable_metrics=True), False)],
)
async def test_nothing_is_measured_unless_both_sides_want_it(
    params: PipelineParams, measures: bool
) -> None:
    frames = [TextFrame("begin"), TextFrame("end"), TextFrame("usage")]
    seen = await _run(Measured(measures=measures), params, *frames)
    assert _data(seen) == []


async def test_only_the_first_time_to_first_byte_where_that_is_asked_for() -> None:
    params = PipelineParams(
        enable_metrics=True, report_only_initial_ttfb=True, send_initial_empty_metrics=False
    )
    frames = [TextFrame(word) for word in ("begin", "end", "begin", "end")]
    data = _data(await _run(Measured(), params, *frames))
    assert [type(one) for one in data] == [
        TTFBMetricsData,
        ProcessingMetricsData,
        ProcessingMetricsData,
    ]


async def test_an_interruption_ends_every_measurement() -> None:
    measured = Measured()
    task = PipelineTask(
        Pipeline([measured]),
        PipelineParams(enable_metrics=True, send_initial_empty_metrics=False),
    )
    task.set_reached_downstream_filter((MetricsFrame,))
    seen: list[Frame] = []
    task.add_event_handler("on_frame_reached_downstream", lambda _, frame: seen.append(frame))

    @task.event_handler("on_pipeline_started")
    async def started(task: PipelineTask, frame: Frame) -> None:
        await task.queue_frame(TextFrame("begin"))
        await asyncio.sleep(0.1)
        await task.queue_frame(StartInterruptionFrame())
        await asyncio.sleep(0.1)
        await task.stop_when_done()

    await task.run()
    assert [type(one) for one in _data(seen)] == [TTFBMetricsData, ProcessingMetricsData]


async def test_measurements_name_the_processor_and_the_model() -> None:
    metrics = FrameProcessorMetrics()
    metrics.set_core_metrics_data(MetricsData(processor="p", model="m"))
    assert await metrics.stop_ttfb_metrics() is None
    await metrics.start_ttfb_metrics(report_only_initial_ttfb=False)
    assert metrics.ttfb is not None
    frame = await metrics.stop_ttfb_metrics()
    assert frame is not None
    (data,) = frame.data
    assert (data.processor, data.model) == ("p", "m")
    assert isinstance(data, TTFBMetricsData)
    assert data.value == metrics.ttfb >= 0.0
