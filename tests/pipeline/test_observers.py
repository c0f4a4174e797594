"""What observers of a task see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.frames.frames import BotStartedSpeakingFrame, EndFrame, Frame, StartFrame, TextFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.observers.turn_tracking_observer import TurnTrackingObserver
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.pipeline.task_observer import TaskObserver
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.tests.utils import run_test
from antiphon.utils.asyncio.task_manager import TaskManager, TaskManagerParams

pytestmark = pytest.mark.virtual_time


class Passing(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Watching(BaseObserver):
    def __init__(self, secs: float = 0.0) -> None:
        super().__init__()
        self.seen: list[FramePushed] = []
        self._secs = secs

    async def on_push_frame(self, data: FramePushed) -> None:
        if self._secs:
            await asyncio.sleep(self._secs)
        self.seen.append(data)

    def pushes(self, source: FrameProcessor) -> list[Frame]:
        return [data.frame for data in self.seen if data.source == source]


async def test_one_push_a_hop_in_order_with_the_bots_own_objects() -> None:
    first, second = Passing(), Passing()
    watching = Watching()
    frames = [TextFrame(str(n)) for n in range(5)]
    await run_test(
        Pipeline([first, second]),
        frames_to_send=frames,
        expected_down_frames=[TextFrame] * 5,
        observers=[watching],
    )
    for processor in (first, second):
        pushed = [frame for frame in watching.pushes(processor) if isinstance(frame, TextFrame)]
        assert pushed == frames
        assert len([f for f in watching.pushes(processor) if isinstance(f, StartFrame)]) == 1
        assert len([f for f in watching.pushes(processor) if isinstance(f, EndFrame)]) == 1
    hop = next(data for data in watching.seen if data.source is first and data.frame is frames[0])
    assert hop.destination is second
    assert hop.direction is FrameDirection.DOWNSTREAM
    timestamps = [data.timestamp for data in watching.seen]
    assert timestamps == sorted(timestamps)


async def test_the_older_form_of_an_observer() -> None:
    seen: list[tuple[Any, ...]] = []

    class Older(BaseObserver):
        async def on_push_frame(  # type: ignore[override]
            self,
            src: FrameProcessor,
            dst: FrameProcessor,
            frame: Frame,
            direction: FrameDirection,
            timestamp: int,
        ) -> None:
            seen.append((src, dst, frame, direction, timestamp))

    passing, text = Passing(), TextFrame("a")
    await run_test(
        passing, frames_to_send=[text], expected_down_frames=[TextFrame], observers=[Older()]
    )
    (hop,) = [entry for entry in seen if entry[0] is passing and entry[2] is text]
    assert hop[3] is FrameDirection.DOWNSTREAM
    assert isinstance(hop[4], int)


async def test_a_slow_observer_holds_nothing_up_and_sees_everything() -> None:
    passing, slow = Passing(), Watching(secs=0.1)
    loop = asyncio.get_running_loop()
    ended: list[float] = []
    task = PipelineTask(Pipeline([passing]), observers=[slow])
    task.add_event_handler("on_pipeline_ended", lambda *_: ended.append(loop.time()))
    await task.queue_frames([TextFrame("a"), TextFrame("b"), EndFrame()])
    await task.run()
    assert ended[0] < 0.1
    assert len(slow.pushes(passing)) == 4


async def test_an_observer_that_fails_goes_on_seeing() -> None:
    class Failing(Watching):
        async def on_push_frame(self, data: FramePushed) -> None:
            await super().on_push_frame(data)
            raise ValueError("no good")

    passing, failing, other = Passing(), Failing(), Watching()
    await run_test(
        passing,
        frames_to_send=[TextFrame("a")],
        expected_down_frames=[TextFrame],
        observers=[failing, other],
    )
    assert len(failing.seen) == len(other.seen) > 3


async def test_observers_come_and_go_during_the_run() -> None:
    passing, early, late = Passing(), Watching(), Watching()
    task = PipelineTask(Pipeline([passing]), enable_turn_tracking=False)
    task.add_observer(early)
    run = asyncio.create_task(task.run())
    await asyncio.sleep(0.1)
    await task.queue_frame(TextFrame("one"))
    await asyncio.sleep(0.1)
    await task.remove_observer(early)
    task.add_observer(late)
    task.add_observer(late)  # it is one observer
    await task.queue_frame(TextFrame("two"))
    await task.stop_when_done()
    await run
    texts = [f.text for f in early.pushes(passing) if isinstance(f, TextFrame)]
    assert texts == ["one"]
    texts = [f.text for f in late.pushes(passing) if isinstance(f, TextFrame)]
    assert texts == ["two"]
    await task.remove_observer(early)  # it has gone already


async def test_removal_takes_effect_at_once() -> None:
    passing, watching = Passing(), Watching(secs=1.0)
    task = PipelineTask(Pipeline([passing]), observers=[watching])
    run = asyncio.create_task(task.run())
    await task.queue_frames([TextFrame(str(n)) for n in range(5)])
    await asyncio.sleep(2.5)
    await task.remove_observer(watching)
    seen = len(watching.seen)
    assert 0 < seen < 5
    await asyncio.sleep(10.0)
    await task.stop_when_done()
    await run
    assert len(watching.seen) == seen


async def test_an_observer_may_remove_itself() -> None:
    class Once(Watching):
        async def on_push_frame(self, data: FramePushed) -> None:
            await super().on_push_frame(data)
            await task.remove_observer(self)

    once = Once()
    task = PipelineTask(Pipeline([Passing()]), observers=[once])
    await task.queue_frames([TextFrame("a"), EndFrame()])
    await task.run()
    assert len(once.seen) == 1


async def test_events_of_the_frame_that_ends_the_pipeline_are_delivered() -> None:
    task = PipelineTask(Pipeline([Passing()]))
    observer = task.turn_tracking_observer
    assert observer is not None
    turns: list[tuple[object, ...]] = []
    observer.add_event_handler("on_turn_started", lambda _, n: turns.append(("started", n)))
    observer.add_event_handler(
        "on_turn_ended", lambda _, n, secs, interrupted: turns.append(("ended", n, interrupted))
    )
    await task.queue_frames([BotStartedSpeakingFrame(), EndFrame()])
    await task.run()
    assert turns == [("started", 1), ("ended", 1, True)]


async def test_turn_tracking_is_on_unless_switched_off() -> None:
    assert isinstance(PipelineTask(Pipeline([])).turn_tracking_observer, TurnTrackingObserver)
    off = PipelineTask(Pipeline([]), enable_turn_tracking=False)
    assert off.turn_tracking_observer is None


async def test_an_observer_far_behind_loses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.pipeline.task_observer.QUEUE_LIMIT", 3)
    manager = TaskManager()
    manager.setup(TaskManagerParams(loop=asyncio.get_running_loop()))
    watching, passing = Watching(), Passing()
    observer = TaskObserver(observers=[watching], task_manager=manager)
    await observer.start()
    for n in range(10):
        observer.observe(
            FramePushed(passing, passing, TextFrame(str(n)), FrameDirection.DOWNSTREAM, n)
        )
    await observer.stop()
    # The end of the session takes a place in the queue as well.
    assert [data.timestamp for data in watching.seen] == [8, 9]
