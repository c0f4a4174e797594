"""Branches side by side."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    StartFrame,
    StartInterruptionFrame,
    StopFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
)
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time


class Branch(FrameProcessor):
    """Passes frames on after a while; may drop one kind or add a text of its own."""

    def __init__(
        self,
        *,
        secs: float = 0.0,
        on: type[Frame] | None = None,
        drops: type[Frame] | None = None,
        adds: str | None = None,
    ) -> None:
        super().__init__()
        self._secs, self._on, self._drops, self._adds = secs, on, drops, adds
        self.seen: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.seen.append(frame)
        if self._secs and (self._on is None or isinstance(frame, self._on)):
            await asyncio.sleep(self._secs)
        if self._drops is not None and isinstance(frame, self._drops):
            return
        if self._adds is not None and isinstance(frame, (StartFrame, TextFrame)):
            if isinstance(frame, StartFrame):
                await self.push_frame(frame, direction)
            await self.push_frame(TextFrame(self._adds))
            if isinstance(frame, StartFrame):
                return
        await self.push_frame(frame, direction)


def test_there_must_be_a_branch() -> None:
    with pytest.raises(Exception, match="at least one"):
        ParallelPipeline()


async def test_a_branch_is_a_list() -> None:
    task = PipelineTask(Pipeline([ParallelPipeline([Branch()], Branch())]))
    with pytest.raises(TypeError):
        await task.run()


async def test_a_frame_that_all_branches_pass_leaves_once() -> None:
    text, user = TextFrame("a"), UserStartedSpeakingFrame()
    down, _ = await run_test(
        ParallelPipeline([Branch()], [Branch(secs=0.05)], [Branch()]),
        frames_to_send=[text, SleepFrame(), user, SleepFrame(), TextFrame("b")],
        expected_down_frames=[TextFrame, UserStartedSpeakingFrame, TextFrame],
        expected_up_frames=[],
    )
    assert down[0] is text
    assert down[1] is user


async def test_frames_that_branches_make_are_added() -> None:
    down, _ = await run_test(
        ParallelPipeline([Branch(drops=TranscriptionFrame)], [Branch(adds="new", on=TextFrame)]),
        frames_to_send=[TextFrame("a")],
        expected_down_frames=[TextFrame, TextFrame, TextFrame],
    )
    assert sorted(frame.text for frame in down if isinstance(frame, TextFrame)) == [
        "a",
        "new",
        "new",
    ]


@pytest.mark.parametrize("kind", [StartFrame, EndFrame, StopFrame])
async def test_what_begins_and_ends_a_pipeline_waits_for_all_branches(kind: type[Frame]) -> None:
    slow = Branch(secs=1.0, on=kind)
    quick, behind = Branch(), Branch()
    task = PipelineTask(Pipeline([ParallelPipeline([quick], [slow]), behind]))
    loop = asyncio.get_running_loop()
    times: dict[str, float] = {}

    for event in ("on_pipeline_started", "on_pipeline_ended", "on_pipeline_stopped"):
        task.add_event_handler(
            event, lambda task, frame: times.setdefault(type(frame).__name__, loop.time())
        )
    await task.queue_frames([TextFrame("a"), StopFrame() if kind is StopFrame else EndFrame()])
    await task.run()
    assert times[kind.__name__] == pytest.approx(1.0, abs=0.05)
    ending = StopFrame if kind is StopFrame else EndFrame
    assert [type(frame) for frame in behind.seen] == [StartFrame, TextFrame, ending]
    await task.pipeline.cleanup()


async def test_what_a_branch_says_before_all_have_started_waits_behind_the_start() -> None:
    behind = Branch()
    talkative = [Branch(adds="one"), Branch(adds="two")]
    task = PipelineTask(
        Pipeline([ParallelPipeline(talkative, [Branch(secs=1.0, on=StartFrame)]), behind])
    )
    await task.stop_when_done()
    await task.run()
    kinds = [type(frame) for frame in behind.seen]
    assert kinds[0] is StartFrame
    assert kinds[-1] is EndFrame
    texts = [frame.text for frame in behind.seen if isinstance(frame, TextFrame)]
    assert set(texts) == {"one", "two"}


async def test_early_frames_keep_their_place_before_later_ones() -> None:
    class Counting(Branch):
        """Counts aloud, from its start on, while the other branch is still starting."""

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, StartFrame):
                self.counting = self.create_task(self._count())

        async def _count(self) -> None:
            for n in range(20):
                await self.push_frame(TextFrame(str(n)))
                await asyncio.sleep(0.1)

        async def cleanup(self) -> None:
            await self.cancel_task(self.counting)
            await super().cleanup()

    class Slow(Branch):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)

    behind = Branch(secs=0.05, on=TextFrame)
    task = PipelineTask(
        Pipeline([ParallelPipeline([Counting()], [Slow(secs=1.0, on=StartFrame)]), behind])
    )
    run = asyncio.create_task(task.run())
    await asyncio.sleep(5.0)
    await task.stop_when_done()
    await run
    texts = [frame.text for frame in behind.seen if isinstance(frame, TextFrame)]
    assert texts == [str(n) for n in range(20)]


async def test_upstream_frames_enter_every_branch_and_leave_once() -> None:
    one, other, before = Branch(), Branch(), Branch()

    class Answering(Branch):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame) and direction is FrameDirection.DOWNSTREAM:
                await self.push_frame(TextFrame("up"), FrameDirection.UPSTREAM)

    _, up = await run_test(
        Pipeline([before, ParallelPipeline([one], [other]), Answering()]),
        frames_to_send=[TextFrame("down")],
        expected_down_frames=[TextFrame],
        expected_up_frames=[TextFrame],
    )
    for branch in (one, other, before):
        assert up[0] in branch.seen


async def test_branches_nest() -> None:
    down, _ = await run_test(
        ParallelPipeline(
            [ParallelPipeline([Branch()], [Pipeline([Branch(secs=0.05)])])],
            [Pipeline([Branch(), ParallelPipeline([Branch()])])],
        ),
        frames_to_send=[TextFrame("a"), TextFrame("b"), TextFrame("c")],
        expected_down_frames=[TextFrame, TextFrame, TextFrame],
    )
    assert [frame.text for frame in down if isinstance(frame, TextFrame)] == ["a", "b", "c"]


async def test_an_interruption_drops_what_waits_in_every_branch() -> None:
    one, other = Branch(secs=60.0, on=TextFrame), Branch(secs=60.0, on=TextFrame)
    await run_test(
        ParallelPipeline([one], [other]),
        frames_to_send=[
            TextFrame("a"),
            TextFrame("b"),
            SleepFrame(),
            StartInterruptionFrame(),
            SleepFrame(),
        ],
        expected_down_frames=[StartInterruptionFrame],
    )
    for branch in (one, other):
        assert [type(frame) for frame in branch.seen] == [
            StartFrame,
            TextFrame,
            StartInterruptionFrame,
            EndFrame,
        ]


async def test_an_end_that_waits_for_a_branch_outlives_an_interruption() -> None:
    slow = Branch(secs=2.0, on=EndFrame)
    task = PipelineTask(Pipeline([ParallelPipeline([slow], [Branch()])]))
    await task.stop_when_done()
    run = asyncio.create_task(task.run())
    await asyncio.sleep(0.5)
    await task.queue_frame(TextFrame("too late"))
    await slow.queue_frame(StartInterruptionFrame())
    async with asyncio.timeout(10.0):
        await run


async def test_system_frames_overtake_in_a_branch_too() -> None:
    slow = Branch(secs=1.0, on=TextFrame)
    down, _ = await run_test(
        ParallelPipeline([slow], [Branch(drops=TextFrame)]),
        frames_to_send=[TextFrame("a"), InputAudioRawFrame(b"", 16000, 1), SleepFrame(2.0)],
        expected_down_frames=[InputAudioRawFrame, TextFrame],
    )
    assert isinstance(down[0], InputAudioRawFrame)
