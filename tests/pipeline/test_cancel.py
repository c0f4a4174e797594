"""Cancelling ends a session in time, whatever state it is in."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    StartFrame,
    StartInterruptionFrame,
    TextFrame,
)
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import CANCEL_TIMEOUT_SECS, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.processors.inbox import CLOSED_INBOX
from antiphon.testing import virtual_time
from antiphon.utils.asyncio.task_manager import TaskManager

pytestmark = pytest.mark.virtual_time


class Blocking(FrameProcessor):
    """Takes very long on frames of one kind."""

    def __init__(self, kind: type[Frame] | None = None, secs: float = 3600.0) -> None:
        super().__init__()
        self._kind = kind
        self._secs = secs

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if self._kind is not None and isinstance(frame, self._kind):
            await asyncio.sleep(self._secs)
        await self.push_frame(frame, direction)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def test_cancel_before_the_run() -> None:
    task = PipelineTask(Pipeline([Blocking()]))
    await task.cancel()
    await task.run()
    assert task.has_finished()
    assert _now() < 0.1


async def test_cancel_while_processors_are_set_up() -> None:
    class SlowSetup(Blocking):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            await super().setup(setup)
            await asyncio.sleep(3600.0)

    task = PipelineTask(Pipeline([SlowSetup()]))
    run = asyncio.create_task(task.run())
    await asyncio.sleep(1.0)
    await task.cancel()
    await run
    assert _now() < 1.0 + CANCEL_TIMEOUT_SECS


@pytest.mark.parametrize("kind", [StartFrame, TextFrame, EndFrame, CancelFrame])
@pytest.mark.parametrize("parallel", [False, True])
async def test_cancel_while_a_processor_blocks(kind: type[Frame], parallel: bool) -> None:
    blocking: FrameProcessor = Blocking(kind)
    if parallel:
        blocking = ParallelPipeline([Blocking()], [blocking])
    task = PipelineTask(Pipeline([Blocking(), blocking, Blocking()]))
    cancelled: list[Frame] = []
    task.add_event_handler("on_pipeline_cancelled", lambda _, frame: cancelled.append(frame))
    await task.queue_frame(TextFrame("a"))
    await task.queue_frame(EndFrame())
    if kind is CancelFrame:
        await task.queue_frame(CancelFrame())
    run = asyncio.create_task(task.run())
    await asyncio.sleep(1.0)
    await task.cancel()
    await run
    assert _now() < 1.0 + CANCEL_TIMEOUT_SECS
    if kind in (StartFrame, TextFrame):
        assert len(cancelled) == 1
    if kind is TextFrame:  # it is the frame in progress that is cancelled: no time is lost
        assert _now() < 1.5


async def test_a_second_cancel_waits_for_the_first() -> None:
    task = PipelineTask(Pipeline([Blocking(StartFrame)]))
    run = asyncio.create_task(task.run())
    await asyncio.sleep(0.1)
    await asyncio.gather(task.cancel(), task.cancel())
    await run
    before = _now()
    await task.cancel()
    assert _now() == before


async def test_a_cancel_that_arrives_late_is_told_once() -> None:
    task = PipelineTask(
        Pipeline([Blocking(StartFrame, CANCEL_TIMEOUT_SECS + 0.5)]), cancel_timeout_secs=1.0
    )
    cancelled: list[Frame] = []

    @task.event_handler("on_pipeline_cancelled")
    async def on_cancelled(task: PipelineTask, frame: Frame) -> None:
        cancelled.append(frame)
        await asyncio.sleep(5.0)

    run = asyncio.create_task(task.run())
    await asyncio.sleep(0.1)
    await task.cancel()
    await run
    assert len(cancelled) == 1


class Hanging(Blocking):
    """Absorbs every cancellation, wherever it is told to hang."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        if self._where == "setup":
            await _hang()

    async def cleanup(self) -> None:
        if self._where == "cleanup":
            await _hang()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame) and self._where == "frame":
            await _hang()
        if isinstance(frame, TextFrame) and self._where == "task":
            self.create_task(_hang())


async def _hang(*_: object) -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600.0)


@pytest.mark.parametrize("where", ["setup", "cleanup", "frame", "task", "handler", "last handler"])
@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("ending", [False, True])
async def test_what_absorbs_every_cancellation(where: str, times: int, ending: bool) -> None:
    """However it is cancelled, and though an end is under way, nothing of it is left in time."""
    # A pipeline ends whatever its processors leave running, and is over before it can be cancelled.
    ending = ending and where != "task"
    quiet = Blocking()
    task = PipelineTask(Pipeline([Hanging(where), quiet]))
    if where == "handler":
        task.add_event_handler("on_pipeline_started", _hang)
    elif where == "last handler":
        task.add_event_handler("on_pipeline_cancelled", _hang)
    await task.queue_frame(TextFrame("a"))
    if ending:
        await task.queue_frame(EndFrame())
    run = asyncio.create_task(task.run())
    await asyncio.sleep(1.0)
    for _ in range(times):
        run.cancel()
        await asyncio.sleep(0.1)
    await task.cancel()
    await run
    assert _now() < 1.0 + CANCEL_TIMEOUT_SECS
    assert task.has_finished()
    # Its neighbour was cleaned up in good order.
    assert quiet._inbox is CLOSED_INBOX
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_task_manager_of_others_keeps_their_tasks() -> None:
    manager = TaskManager()
    tasks = [
        PipelineTask(Pipeline([Hanging("task")]), task_manager=manager),
        PipelineTask(Pipeline([Blocking()]), task_manager=manager),
    ]
    await tasks[0].queue_frame(TextFrame("a"))
    runs = [asyncio.create_task(task.run()) for task in tasks]
    await asyncio.sleep(1.0)
    await tasks[0].cancel()
    await runs[0]
    assert _now() < 1.0 + CANCEL_TIMEOUT_SECS
    await tasks[1].stop_when_done()
    await runs[1]
    assert _now() < 1.0 + CANCEL_TIMEOUT_SECS
    assert manager.current_tasks() == []


@pytest.mark.parametrize("secs", [0.0, 0.5, 10.0])
async def test_the_time_of_a_cancellation_is_the_bots_to_choose(secs: float) -> None:
    task = PipelineTask(Pipeline([Hanging("frame")]), cancel_timeout_secs=secs)
    await task.queue_frame(TextFrame("a"))
    run = asyncio.create_task(task.run())
    await asyncio.sleep(1.0)
    await task.cancel()
    await run
    assert 1.0 + 0.5 * secs < _now() < 1.0 + max(secs, 0.3)


async def test_cancelling_the_one_who_runs_it_ends_the_session() -> None:
    blocking = Blocking(TextFrame)
    task = PipelineTask(Pipeline([blocking]))
    cancelled: list[Frame] = []
    task.add_event_handler("on_pipeline_cancelled", lambda _, frame: cancelled.append(frame))
    await task.queue_frame(TextFrame("a"))
    run = asyncio.create_task(task.run())
    await asyncio.sleep(1.0)
    run.cancel()
    await run  # returns normally
    assert task.has_finished()
    assert len(cancelled) == 1


async def test_a_time_limit_around_the_run() -> None:
    task = PipelineTask(Pipeline([Blocking()]))
    async with asyncio.timeout(5.0):
        await task.run()
    assert task.has_finished()
    assert 5.0 <= _now() < 5.1


async def test_a_setup_that_fails_is_the_runs_failure() -> None:
    class Broken(Blocking):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            await super().setup(setup)
            raise ValueError("no good")

    task = PipelineTask(Pipeline([Blocking(), Broken(), Blocking()]))
    with pytest.raises(ValueError, match="no good"):
        await task.run()
    assert task.has_finished()


_pipelines = st.recursive(
    st.sampled_from(["plain", "start", "text", "end", "cancel", "stubborn"]),
    lambda inner: st.one_of(
        st.tuples(st.just("chain"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("branches"), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


class Stubborn(Blocking):
    """Resists its first cancellation for a while."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await FrameProcessor.process_frame(self, frame, direction)
        if isinstance(frame, TextFrame):
            try:
                await asyncio.sleep(3600.0)
            except asyncio.CancelledError:
                await asyncio.sleep(10.0)
        await self.push_frame(frame, direction)


def _build(shape: object) -> FrameProcessor:
    if isinstance(shape, str):
        kinds: dict[str, type[Frame]] = {
            "start": StartFrame,
            "text": TextFrame,
            "end": EndFrame,
            "cancel": CancelFrame,
        }
        return Stubborn() if shape == "stubborn" else Blocking(kinds.get(shape))
    assert isinstance(shape, tuple)
    kind, parts = shape
    processors = [_build(part) for part in parts]
    if kind == "chain":
        return Pipeline(processors)
    return ParallelPipeline(*([processor] for processor in processors))


@settings(max_examples=60, deadline=None)
@given(
    shape=_pipelines,
    steps=st.integers(0, 60),
    secs=st.sampled_from([0.0, 0.0, 0.5]),
    frames=st.lists(
        st.sampled_from([TextFrame, EndFrame, StartInterruptionFrame, CancelFrame]), max_size=4
    ),
    from_outside=st.booleans(),
)
def test_cancel_at_any_step_ends_in_time(
    shape: object, steps: int, secs: float, frames: list[type[Frame]], from_outside: bool
) -> None:
    async def main() -> None:
        task = PipelineTask(Pipeline([_build(shape)]))
        for kind in frames:
            await task.queue_frame(kind("a") if kind is TextFrame else kind())
        run = asyncio.create_task(task.run())
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.sleep(secs)
        before = _now()
        if from_outside:
            run.cancel()
        else:
            await task.cancel()
        # A task that is cancelled before its first turn never runs at all.
        await asyncio.wait({run}, timeout=60.0)
        assert run.done()
        assert _now() - before < CANCEL_TIMEOUT_SECS
        await asyncio.sleep(0.01)
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        assert left == []

    virtual_time.run(main())
