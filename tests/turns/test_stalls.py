"""A stall names its stage: in the log, as a metric and as an event, wherever the processor runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger
from tests.turns.conftest import Run

from antiphon.frames.frames import EndFrame, Frame, TextFrame
from antiphon.metrics.metrics import StallMetricsData
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.filters.identity_filter import IdentityFilter
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor

pytestmark = pytest.mark.virtual_time


class Stuck(FrameProcessor):
    """Takes 24 seconds for a text."""

    movable = True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            await asyncio.sleep(24.0)
        await self.push_frame(frame, direction)


class Metrics(BaseObserver):
    def __init__(self) -> None:
        super().__init__()
        self.stalls: dict[int, StallMetricsData] = {}

    async def on_push_frame(self, data: FramePushed) -> None:
        for metrics in getattr(data.frame, "data", []):
            if isinstance(metrics, StallMetricsData):
                self.stalls[data.frame.id] = metrics


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    found: list[Any] = []

    def sink(line: Any) -> None:
        if line.record["message"] == "processor holds a frame up":
            found.append(line.record["extra"])

    handler = logger.add(sink, level="WARNING")
    yield found
    logger.remove(handler)


async def stall(
    run: Run, processors: list[FrameProcessor], **options: Any
) -> tuple[list[tuple[str, float]], Metrics]:
    metrics = Metrics()
    task = PipelineTask(
        Pipeline(processors), observers=[metrics], idle_timeout_secs=None, **options
    )
    events: list[tuple[str, float]] = []

    @task.event_handler("on_stall")
    async def on_stall(task: PipelineTask, processor: str, secs: float) -> None:
        events.append((processor, secs))

    async def bot() -> None:
        await asyncio.sleep(5.0)
        await task.queue_frame(TextFrame("stay"))
        await asyncio.sleep(30.0)
        await task.queue_frame(EndFrame())

    await asyncio.gather(run(task), bot())
    return events, metrics


async def test_heartbeats_name_the_processor(run: Run, lines: list[Any]) -> None:
    events, metrics = await stall(
        run,
        [IdentityFilter(), Stuck(name="stuck"), IdentityFilter()],
        params=PipelineParams(enable_heartbeats=True),
    )
    assert [name for name, _ in events] == ["stuck", "stuck"]
    assert [secs for _, secs in events] == [
        pytest.approx(10.0, abs=1.5),
        pytest.approx(20.0, abs=1.5),
    ]
    assert [data.processor for data in metrics.stalls.values()] == ["stuck", "stuck"]
    assert [line["processor"] for line in lines] == ["stuck", "stuck"]


async def test_a_watchdog_names_the_processor(run: Run, lines: list[Any]) -> None:
    events, metrics = await stall(
        run, [IdentityFilter(), Stuck(name="stuck")], enable_watchdog_timers=True
    )
    assert {name for name, _ in events} == {"stuck"}
    assert len(events) == len(metrics.stalls) == len(lines) == 4
    assert lines[0]["held_by"] == "stuck::process"
    assert lines[0]["seconds"] == pytest.approx(5.0, abs=0.5)


async def test_branches_that_are_all_stuck_are_named(run: Run) -> None:
    branches = ParallelPipeline([Stuck(name="one")], [Stuck(name="two")])
    events, _ = await stall(
        run, [branches, IdentityFilter()], params=PipelineParams(enable_heartbeats=True)
    )
    assert {name for name, _ in events} == {"one", "two"}


async def test_nothing_is_reported_where_nothing_is_held_up(run: Run, lines: list[Any]) -> None:
    events, metrics = await stall(
        run,
        [IdentityFilter(), IdentityFilter()],
        params=PipelineParams(enable_heartbeats=True),
        enable_watchdog_timers=True,
    )
    assert events == []
    assert metrics.stalls == {}
    assert lines == []
