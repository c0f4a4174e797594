"""The order in which a processor works on what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.frames.frames import (
    CancelFrame,
    DataFrame,
    EndFrame,
    Frame,
    FrameProcessorPauseFrame,
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeUrgentFrame,
    StartFrame,
    StartInterruptionFrame,
    StopFrame,
    SystemFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.testing import virtual_time

pytestmark = pytest.mark.virtual_time

_DOWN = FrameDirection.DOWNSTREAM


@dataclass
class Note(DataFrame):
    n: int = 0
    work_secs: float = 0.0


@dataclass
class Bell(SystemFrame):
    n: int = 0
    work_secs: float = 0.0


class Slow(FrameProcessor):
    """Works as long as the frame says and writes down what happens."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)
        self.log: list[str] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, (Note, Bell)):
            label = f"{type(frame).__name__.lower()}{frame.n}"
            self.log.append(f"+{label}")
            try:
                if frame.work_secs:
                    await asyncio.sleep(frame.work_secs)
            except asyncio.CancelledError:
                self.log.append(f"x{label}")
                raise
            self.log.append(f"-{label}")
        elif not isinstance(frame, StartFrame):
            self.log.append(type(frame).__name__)
        await self.push_frame(frame, direction)


class Running:
    """A task with one processor, running."""

    def __init__(self, *processors: FrameProcessor) -> None:
        self.task = PipelineTask(
            Pipeline(list(processors)), idle_timeout_secs=None, enable_turn_tracking=False
        )

    async def __aenter__(self) -> Running:
        self._run = asyncio.create_task(self.task.run())
        started = asyncio.Event()
        self.task.add_event_handler("on_pipeline_started", lambda *_: started.set())
        await started.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.task.cancel()
        await self._run

    async def end(self) -> None:
        await self.task.queue_frame(EndFrame())
        await self._run


async def _give(processor: FrameProcessor, frames: Sequence[Frame]) -> None:
    for frame in frames:
        await processor.queue_frame(frame)


async def test_ordinary_frames_are_processed_one_at_a_time_in_order() -> None:
    slow = Slow()
    async with Running(slow) as running:
        await _give(slow, [Note(1, 0.5), Note(2), Note(3, 0.1)])
        await running.end()
    assert slow.log == ["+note1", "-note1", "+note2", "-note2", "+note3", "-note3", "EndFrame"]


async def test_a_system_frame_overtakes_and_runs_beside_the_frame_in_progress() -> None:
    slow = Slow()
    async with Running(slow) as running:
        await _give(slow, [Note(1, 0.5), Note(2), Bell(1, 0.1)])
        await running.end()
    assert slow.log == [
        "+note1",
        "+bell1",
        "-bell1",
        "-note1",
        "+note2",
        "-note2",
        "EndFrame",
    ]


async def test_system_frames_keep_their_order_among_themselves() -> None:
    slow = Slow()
    async with Running(slow):
        await _give(slow, [Bell(1, 0.3), Bell(2), Bell(3, 0.1)])
        await asyncio.sleep(1.0)
    assert slow.log[:6] == ["+bell1", "-bell1", "+bell2", "-bell2", "+bell3", "-bell3"]


async def test_an_ordinary_frame_does_not_overtake_a_system_frame() -> None:
    slow = Slow()
    async with Running(slow):
        await _give(slow, [Bell(1, 0.5), Note(1)])
        await asyncio.sleep(1.0)
    assert slow.log[:4] == ["+bell1", "-bell1", "+note1", "-note1"]


async def test_frames_of_both_directions_share_one_order() -> None:
    slow = Slow()
    async with Running(slow):
        await slow.queue_frame(Note(1, 0.2), FrameDirection.DOWNSTREAM)
        await slow.queue_frame(Note(2), FrameDirection.UPSTREAM)
        await slow.queue_frame(Note(3), FrameDirection.DOWNSTREAM)
        await asyncio.sleep(1.0)
    assert [entry for entry in slow.log if entry.startswith("+")] == ["+note1", "+note2", "+note3"]


async def test_frames_queued_before_the_start_wait_for_it() -> None:
    slow = Slow()
    await slow.queue_frame(Note(1))
    async with Running(slow) as running:
        await running.end()
    assert slow.log == ["+note1", "-note1", "EndFrame"]


async def test_the_callback_comes_after_the_frame() -> None:
    slow = Slow()
    calls: list[tuple[FrameProcessor, Frame, FrameDirection]] = []

    async def callback(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> None:
        slow.log.append("callback")
        calls.append((processor, frame, direction))

    async with Running(slow) as running:
        first, second = Note(1, 0.1), Bell(1)
        await slow.queue_frame(first, callback=callback)
        await slow.queue_frame(second, FrameDirection.UPSTREAM, callback)
        await running.end()
    assert slow.log == [
        "+note1",
        "+bell1",
        "-bell1",
        "callback",
        "-note1",
        "callback",
        "EndFrame",
    ]
    assert calls == [
        (slow, second, FrameDirection.UPSTREAM),
        (slow, first, FrameDirection.DOWNSTREAM),
    ]


# -- interruptions -----------------------------------------------------------------------------


async def test_an_interruption_ends_the_frame_in_progress_and_drops_those_that_wait() -> None:
    slow = Slow()
    async with Running(slow) as running:
        await _give(slow, [Note(1, 5.0), Note(2), Note(3)])
        await _give(slow, [StartInterruptionFrame(), Note(4)])
        await running.end()
    assert slow.log == [
        "+note1",
        "x" + "note1",
        "StartInterruptionFrame",
        "+note4",
        "-note4",
        "EndFrame",
    ]
    assert slow.statistics.frames_dropped == 2


async def test_system_frames_outlive_an_interruption() -> None:
    slow = Slow()
    async with Running(slow):
        await _give(slow, [Bell(1, 0.2), StartInterruptionFrame(), Bell(2)])
        await asyncio.sleep(1.0)
    assert slow.log[:5] == ["+bell1", "-bell1", "StartInterruptionFrame", "+bell2", "-bell2"]


@pytest.mark.parametrize("ending", [EndFrame, StopFrame])
async def test_a_waiting_end_outlives_an_interruption(ending: type[Frame]) -> None:
    slow = Slow()
    running = Running(slow)
    async with running:
        await _give(slow, [Note(1, 5.0), Note(2)])
        await running.task.queue_frame(ending())
        await asyncio.sleep(0.1)
        await slow.queue_frame(StartInterruptionFrame())
        await running._run
    assert slow.log == ["+note1", "xnote1", "StartInterruptionFrame", ending.__name__]
    await slow.cleanup()
    for processor in running.task.pipeline.processors:
        await processor.cleanup()


async def test_an_end_in_progress_goes_on_through_an_interruption() -> None:
    class SlowEnd(Slow):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, EndFrame):
                self.log.append("last words")
                await asyncio.sleep(1.0)
                self.log.append("spoken")
            await super().process_frame(frame, direction)

    slow = SlowEnd()
    running = Running(slow)
    async with running:
        await running.task.queue_frame(EndFrame())
        await asyncio.sleep(0.2)
        await slow.queue_frame(StartInterruptionFrame())
        await running._run
    assert slow.log == ["last words", "StartInterruptionFrame", "spoken", "EndFrame"]


async def test_a_frame_that_keeps_its_cancellation_to_itself_does_not_break_the_order() -> None:
    """It may go on, but nothing else may be processed by the task it has kept."""

    class Stubborn(Slow):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, Note) and frame.n == 1:
                await FrameProcessor.process_frame(self, frame, direction)
                try:
                    await asyncio.sleep(60.0)
                except asyncio.CancelledError:
                    await asyncio.sleep(10.0)
                self.log.append("stubborn")
                return
            await super().process_frame(frame, direction)

    slow = Stubborn()
    async with Running(slow) as running:
        await _give(slow, [Note(1), StartInterruptionFrame(), Note(2, 20.0), Note(3), Note(4)])
        await asyncio.sleep(50.0)
        await running.end()
    assert slow.log == [
        "StartInterruptionFrame",
        "+note2",
        "stubborn",
        "-note2",
        "+note3",
        "-note3",
        "+note4",
        "-note4",
        "EndFrame",
    ]


async def test_a_swallowed_cancellation_costs_no_time() -> None:
    class Swallowing(Slow):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            try:
                await super().process_frame(frame, direction)
            except asyncio.CancelledError:
                self.log.append("swallowed")

    slow = Swallowing()
    async with Running(slow):
        await _give(slow, [Note(1, 60.0), StartInterruptionFrame(), Note(2)])
        before = asyncio.get_running_loop().time()
        for _ in range(100):
            if "-note2" in slow.log:
                break
            await asyncio.sleep(0.001)
        assert "-note2" in slow.log
        assert asyncio.get_running_loop().time() - before < 0.1


# -- pauses ------------------------------------------------------------------------------------


async def test_a_pause_holds_ordinary_frames_back_and_lets_system_frames_go_on() -> None:
    slow = Slow()
    async with Running(slow) as running:
        await slow.pause_processing_frames()
        await _give(slow, [Note(1), Note(2), Bell(1)])
        await asyncio.sleep(1.0)
        assert slow.log == ["+bell1", "-bell1"]
        await slow.resume_processing_frames()
        await running.end()
    assert slow.log[2:] == ["+note1", "-note1", "+note2", "-note2", "EndFrame"]


async def test_a_pause_lets_the_frame_in_progress_go_on() -> None:
    slow = Slow()
    async with Running(slow):
        await _give(slow, [Note(1, 1.0), Note(2)])
        await asyncio.sleep(0.5)
        await slow.pause_processing_frames()
        await asyncio.sleep(2.0)
        assert slow.log == ["+note1", "-note1"]
        await slow.resume_processing_frames()
        await asyncio.sleep(0.1)
        assert slow.log[2:] == ["+note2", "-note2"]


async def test_an_interruption_ends_a_pause() -> None:
    slow = Slow()
    async with Running(slow) as running:
        await slow.pause_processing_frames()
        await _give(slow, [Note(1), StartInterruptionFrame(), Note(2)])
        await running.end()
    assert slow.log == ["StartInterruptionFrame", "+note2", "-note2", "EndFrame"]


async def test_pause_frames_reach_the_processor_they_name_and_travel_on() -> None:
    first, second, third = Slow("first"), Slow("second"), Slow("third")
    async with Running(first, second, third) as running:
        # Another object with the name will do: the frame may come from another process.
        await running.task.queue_frame(FrameProcessorPauseFrame(processor=Slow("second")))
        await running.task.queue_frame(Note(1))
        await asyncio.sleep(0.5)
        assert "+note1" in first.log
        assert second.log == ["FrameProcessorPauseFrame"]
        assert third.log == ["FrameProcessorPauseFrame"]
        await running.task.queue_frame(FrameProcessorResumeUrgentFrame(processor=second))
        await asyncio.sleep(0.5)
        assert third.log[1:] == ["FrameProcessorResumeUrgentFrame", "+note1", "-note1"]


async def test_an_urgent_pause_holds_even_the_next_frame_back() -> None:
    slow = Slow()
    async with Running(slow) as running:
        await running.task.queue_frame(FrameProcessorPauseUrgentFrame(processor=slow))
        await asyncio.sleep(0.1)
        await running.task.queue_frame(Note(1))
        await asyncio.sleep(0.5)
        assert slow.log == ["FrameProcessorPauseUrgentFrame"]


async def test_a_paused_processor_is_not_paused_in_its_next_life() -> None:
    slow = Slow()
    async with Running(slow):
        await slow.pause_processing_frames()
    slow.log.clear()
    async with Running(slow) as running:
        await running.task.queue_frame(Note(1))
        await running.end()
    assert slow.log == ["+note1", "-note1", "EndFrame"]


async def test_a_cancelled_processor_takes_nothing_more() -> None:
    slow = Slow()
    async with Running(slow):
        await _give(slow, [Note(1, 60.0), Note(2)])
        await asyncio.sleep(0.1)
        await _give(slow, [CancelFrame()])
        await asyncio.sleep(0.1)
        await _give(slow, [Note(3), Bell(3)])
        await asyncio.sleep(0.1)
        assert slow.log == ["+note1", "xnote1", "CancelFrame"]


# -- properties --------------------------------------------------------------------------------

_frames = st.lists(
    st.tuples(
        st.sampled_from(["note", "bell"]),
        st.sampled_from([0.0, 0.001, 0.01]),  # work
        st.sampled_from([0.0, 0.0, 0.005]),  # wait before the next
        st.booleans(),  # straight to the second processor
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(script=_frames)
def test_whatever_the_interleaving_frames_keep_their_order(
    script: list[tuple[str, float, float, bool]],
) -> None:
    """Those of one family, and those that take the same way."""

    async def main() -> list[Slow]:
        first, second = Slow(), Slow()
        async with Running(first, second) as running:
            for n, (kind, work, wait, skip) in enumerate(script):
                frame: Frame = Note(n, work) if kind == "note" else Bell(n, work)
                await (second if skip else first).queue_frame(frame)
                if wait:
                    await asyncio.sleep(wait)
            await asyncio.sleep(5.0)
            await running.end()
        return [first, second]

    processors = virtual_time.run(main())
    for processor in processors:
        for kind in ("note", "bell"):
            for skipped in (False, True):
                numbers = [
                    int(entry[5:])
                    for entry in processor.log
                    if entry.startswith(f"+{kind}") and script[int(entry[5:])][3] is skipped
                ]
                assert numbers == sorted(numbers)
        entered = [e for e in processor.log if e.startswith("+")]
        left = [e for e in processor.log if e.startswith("-")]
        expected = [n for n, step in enumerate(script) if processor is processors[1] or not step[3]]
        assert sorted(int(e[5:]) for e in entered) == expected
        assert sorted(int(e[5:]) for e in left) == expected
        # Never two of one family at the same time.
        for kind in ("note", "bell"):
            open_now = 0
            for entry in processor.log:
                if entry[1:].startswith(kind):
                    open_now += 1 if entry[0] == "+" else -1
                    assert open_now in (0, 1)
