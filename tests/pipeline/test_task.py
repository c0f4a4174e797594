"""A task from its StartFrame to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from antiphon.frames.frames import (
    CancelFrame,
    CancelTaskFrame,
    DataFrame,
    EndFrame,
    EndTaskFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    StopFrame,
    StopTaskFrame,
    TextFrame,
)
from antiphon.pipeline import Pipeline
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup

pytestmark = pytest.mark.virtual_time

_ENDS = ("on_pipeline_ended", "on_pipeline_stopped", "on_pipeline_cancelled")


class Keeping(FrameProcessor):
    """Keeps what passes, and what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Frame] = []
        self.life: list[str] = []

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        self.life.append("setup")

    async def cleanup(self) -> None:
        await super().cleanup()
        self.life.append("cleanup")

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.kept.append(frame)
        await self.push_frame(frame, direction)


def _heard(task: PipelineTask) -> list[tuple[str, Frame]]:
    heard: list[tuple[str, Frame]] = []
    for event in ("on_pipeline_started", *_ENDS):
        task.add_event_handler(event, lambda task, frame, event=event: heard.append((event, frame)))
    return heard


async def test_start_frames_end() -> None:
    keeping = Keeping()
    metadata = {"caller": "x"}
    task = PipelineTask(
        Pipeline([keeping]),
        params=PipelineParams(
            start_metadata=metadata, audio_in_sample_rate=8000, audio_out_sample_rate=22050
        ),
    )
    heard = _heard(task)
    text, end = TextFrame("queued before the run"), EndFrame()
    await task.queue_frames([text, end])
    assert not task.has_finished()
    await task.run()
    assert task.has_finished()
    start = keeping.kept[0]
    assert isinstance(start, StartFrame)
    # The very frames: nothing is copied on the way.
    assert keeping.kept == [start, text, end]
    assert keeping.kept[1] is text
    assert start.metadata == metadata
    assert start.audio_in_sample_rate == 8000
    assert start.audio_out_sample_rate == 22050
    assert start.allow_interruptions
    assert heard == [("on_pipeline_started", start), ("on_pipeline_ended", end)]
    assert keeping.life == ["setup", "cleanup"]
    await task.run()  # returns at once
    await task.cancel()
    assert len(heard) == 2


async def test_frames_from_an_async_iterator() -> None:
    async def words() -> AsyncIterator[Frame]:
        for word in ("a", "b"):
            await asyncio.sleep(1.0)
            yield TextFrame(word)

    keeping = Keeping()
    task = PipelineTask(Pipeline([keeping]))
    run = asyncio.create_task(task.run())
    await task.queue_frames(words())
    await task.stop_when_done()
    await run
    assert [frame.text for frame in keeping.kept if isinstance(frame, TextFrame)] == ["a", "b"]


async def test_a_task_runs_anything_that_is_a_pipeline() -> None:
    keeping = Keeping()
    task = PipelineTask(ParallelPipeline([keeping], [Keeping()]))
    await task.stop_when_done()
    await task.run()
    assert [type(frame) for frame in keeping.kept] == [StartFrame, EndFrame]


@dataclass
class Word(DataFrame):
    n: int = 0


class Slow(Keeping):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, Word):
            await asyncio.sleep(1.0)
        await super().process_frame(frame, direction)


async def test_an_end_waits_its_turn_and_a_cancel_does_not() -> None:
    for cancel in (False, True):
        slow = Slow()
        task = PipelineTask(Pipeline([slow]))
        heard = _heard(task)
        await task.queue_frames([Word(1), Word(2), Word(3)])
        run = asyncio.create_task(task.run())
        await asyncio.sleep(1.5)
        before = asyncio.get_running_loop().time()
        if cancel:
            await task.cancel()
        else:
            await task.stop_when_done()
        await run
        kinds = [type(frame) for frame in slow.kept[1:]]
        if cancel:
            assert kinds == [Word, CancelFrame]
            assert asyncio.get_running_loop().time() - before < 0.1
            assert heard[-1][0] == "on_pipeline_cancelled"
        else:
            assert kinds == [Word, Word, Word, EndFrame]
            assert heard[-1][0] == "on_pipeline_ended"
        assert slow.life == ["setup", "cleanup"]


@pytest.mark.parametrize("make", [lambda inner: inner, lambda inner: ParallelPipeline([inner])])
async def test_a_stopped_pipeline_runs_again_in_a_new_task(make: object) -> None:
    assert callable(make)
    keeping = Keeping()
    pipeline = Pipeline([make(keeping)])
    for number in range(3):
        last = number == 2
        task = PipelineTask(pipeline)
        heard = _heard(task)
        await task.queue_frames([TextFrame(str(number)), EndFrame() if last else StopFrame()])
        await task.run()
        assert heard[-1][0] == ("on_pipeline_ended" if last else "on_pipeline_stopped")
        assert keeping.life[-1] == ("cleanup" if last else "setup")
    assert [str(type(frame).__name__) for frame in keeping.kept] == [
        "StartFrame",
        "TextFrame",
        "StopFrame",
    ] * 2 + ["StartFrame", "TextFrame", "EndFrame"]


async def test_an_ended_and_a_cancelled_pipeline_run_again_too() -> None:
    keeping = Keeping()
    pipeline = Pipeline([keeping])
    for cancel in (False, True, False):
        task = PipelineTask(pipeline)
        keeping.kept.clear()
        await task.queue_frame(CancelFrame() if cancel else EndFrame())
        await task.run()
        kinds = [type(frame) for frame in keeping.kept]
        assert kinds == [StartFrame, CancelFrame if cancel else EndFrame]


@pytest.mark.parametrize(
    ("request_frame", "event"),
    [
        (EndTaskFrame, "on_pipeline_ended"),
        (StopTaskFrame, "on_pipeline_stopped"),
        (CancelTaskFrame, "on_pipeline_cancelled"),
    ],
)
async def test_a_processor_asks_for_the_end_upstream(
    request_frame: type[Frame], event: str
) -> None:
    class Asking(Keeping):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame) and frame.text == "down":
                await self.push_frame(request_frame())  # means nothing
            elif isinstance(frame, TextFrame) and frame.text == "up":
                await self.push_frame(request_frame(), FrameDirection.UPSTREAM)

    asking, keeping = Asking(), Keeping()
    task = PipelineTask(Pipeline([asking, keeping]))
    heard = _heard(task)
    run = asyncio.create_task(task.run())
    await task.queue_frame(TextFrame("down"))
    await asyncio.sleep(1.0)
    assert not run.done()
    await task.queue_frames([TextFrame("up"), TextFrame("queued before it")])
    await run
    assert [name for name, _ in heard] == ["on_pipeline_started", event]
    texts = [frame.text for frame in keeping.kept if isinstance(frame, TextFrame)]
    assert texts == ["down", "up", "queued before it"]
    await task.pipeline.cleanup()


async def test_a_fatal_error_cancels_and_another_does_not() -> None:
    class Breaking(Keeping):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await self.push_error(ErrorFrame(frame.text, fatal=frame.text == "fatal"))

    task = PipelineTask(Pipeline([Breaking()]))
    heard = _heard(task)
    run = asyncio.create_task(task.run())
    await task.queue_frame(TextFrame("small"))
    await asyncio.sleep(1.0)
    assert not run.done()
    await task.queue_frame(TextFrame("fatal"))
    await run
    assert [error.error for error in task.errors] == ["small", "fatal"]
    assert [name for name, _ in heard] == ["on_pipeline_started", "on_pipeline_cancelled"]


async def test_reached_events_come_for_the_types_asked_for() -> None:
    class Answering(Keeping):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await self.push_frame(Word(1), FrameDirection.UPSTREAM)

    reached: list[tuple[str, Frame]] = []
    for chosen in (False, True):
        reached.clear()
        task = PipelineTask(Pipeline([Answering()]))
        if chosen:
            task.set_reached_upstream_filter((Word,))
            task.set_reached_downstream_filter((TextFrame,))
        for event in ("on_frame_reached_upstream", "on_frame_reached_downstream"):
            task.add_event_handler(
                event, lambda task, frame, event=event: reached.append((event[17:], frame))
            )
        await task.queue_frame(TextFrame("a"))
        await asyncio.wait_for(_run_and_end(task), 5.0)
        if not chosen:
            assert reached == []
        else:
            assert {(where, type(frame)) for where, frame in reached} == {
                ("upstream", Word),
                ("downstream", TextFrame),
            }
            assert len(reached) == 2


async def _run_and_end(task: PipelineTask) -> None:
    run = asyncio.create_task(task.run())
    await asyncio.sleep(0.1)
    await task.stop_when_done()
    await run


async def test_handlers_may_queue_frames_and_end_the_task() -> None:
    keeping = Keeping()
    task = PipelineTask(Pipeline([keeping]))

    @task.event_handler("on_pipeline_started")
    async def started(task: PipelineTask, frame: Frame) -> None:
        await task.queue_frame(TextFrame("hello"))
        await asyncio.sleep(1.0)
        await keeping.push_frame(TextFrame("from outside"))
        await task.stop_when_done()

    done: list[bool] = []

    @task.event_handler("on_pipeline_ended")
    async def ended(task: PipelineTask, frame: Frame) -> None:
        await asyncio.sleep(1.0)
        await task.cancel()
        done.append(True)

    await task.run()
    assert done == [True]  # run() has waited for it


async def test_nothing_is_left_of_a_session() -> None:
    before = asyncio.all_tasks()
    task = PipelineTask(
        Pipeline([Keeping(), ParallelPipeline([Keeping()], [Keeping()])]),
        params=PipelineParams(enable_heartbeats=True),
    )
    await _run_and_end(task)
    assert asyncio.all_tasks() == before


def test_the_package_offers_the_pipeline() -> None:
    import antiphon.pipeline
    from antiphon.pipeline.pipeline import Pipeline as TheClass

    assert antiphon.pipeline.Pipeline is TheClass
    with pytest.raises(AttributeError):
        _ = antiphon.pipeline.Nothing
