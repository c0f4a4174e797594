"""What happens when a processor fails on a frame."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    StopFrame,
    SystemFrame,
    TextFrame,
)
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.tests.utils import run_test

pytestmark = pytest.mark.virtual_time


class Failing(FrameProcessor):
    """Fails on frames of one kind, at once or after a while, before or after passing them on."""

    def __init__(
        self, kind: type[Frame], *, after_secs: float = 0.0, passes_on: bool = False
    ) -> None:
        super().__init__(name="failing")
        self._kind = kind
        self._after_secs = after_secs
        self._passes_on = passes_on

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, self._kind):
            if self._passes_on:
                await self.push_frame(frame, direction)
            if self._after_secs:
                await asyncio.sleep(self._after_secs)
            raise ValueError("no good")
        await self.push_frame(frame, direction)


class Keeping(FrameProcessor):
    """Keeps what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.kept.append(frame)
        await self.push_frame(frame, direction)


@pytest.mark.parametrize("after_secs", [0.0, 0.1])
async def test_an_exception_becomes_an_error_upstream_and_the_pipeline_goes_on(
    after_secs: float,
) -> None:
    failing = Failing(TextFrame, after_secs=after_secs)
    _, up = await run_test(
        Pipeline([Passing(), failing]),
        frames_to_send=[TextFrame("a"), TextFrame("b")],
        expected_down_frames=[],
        expected_up_frames=[ErrorFrame, ErrorFrame],
    )
    for error in up:
        assert isinstance(error, ErrorFrame)
        assert error.error == "no good"
        assert error.processor is failing
        assert not error.fatal
        assert error.metadata["cause"]["type"] == "ValueError"
        assert error.metadata["cause"]["processor"] == "failing"
    assert failing.statistics.errors == 2


class Passing(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


async def test_push_error_keeps_a_processor_that_is_named_already() -> None:
    other = Passing()

    class Reporting(Passing):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await self.push_error(ErrorFrame("mine"))
                await self.push_error(ErrorFrame("another's", processor=other))

    reporting = Reporting()
    _, up = await run_test(
        reporting,
        frames_to_send=[TextFrame("a")],
        expected_up_frames=[ErrorFrame, ErrorFrame],
    )
    assert [error.processor for error in up if isinstance(error, ErrorFrame)] == [reporting, other]


@pytest.mark.parametrize(("passes_on", "after_secs"), [(False, 0.0), (False, 0.1), (True, 0.0)])
@pytest.mark.parametrize("ending", [EndFrame, StopFrame])
async def test_a_failure_on_an_end_does_not_keep_the_pipeline_from_ending(
    ending: type[Frame], passes_on: bool, after_secs: float
) -> None:
    keeping = Keeping()
    task = PipelineTask(
        Pipeline([Failing(ending, passes_on=passes_on, after_secs=after_secs), keeping])
    )
    frame = ending()
    await task.queue_frame(frame)
    await task.run()
    assert task.has_finished()
    assert keeping.kept[-1] is frame
    assert keeping.kept.count(frame) == 1
    assert [error.error for error in task.errors] == ["no good"]
    await task.pipeline.cleanup()


async def test_a_failure_on_a_cancel_does_not_keep_it_from_arriving() -> None:
    keeping = Keeping()
    task = PipelineTask(Pipeline([Failing(CancelFrame), keeping]))
    task.add_event_handler("on_pipeline_started", lambda task, _: task.cancel())
    loop = asyncio.get_running_loop()
    before = loop.time()
    await task.run()
    assert loop.time() - before < 0.5
    assert isinstance(keeping.kept[-1], CancelFrame)


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_processor_that_cannot_start_ends_the_session(parallel: bool) -> None:
    failing = Failing(StartFrame)
    inside: FrameProcessor = ParallelPipeline([Passing()], [failing]) if parallel else failing
    task = PipelineTask(Pipeline([Passing(), inside]))
    cancelled: list[Frame] = []
    task.add_event_handler("on_pipeline_cancelled", lambda _, frame: cancelled.append(frame))
    async with asyncio.timeout(30.0):
        await task.run()
    assert [error.fatal for error in task.errors] == [True]
    assert task.errors[0].processor is failing
    assert len(cancelled) == 1


async def _cancelled_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def _cancelled_task() -> None:
    task = asyncio.create_task(asyncio.sleep(10.0))
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    await task


@pytest.mark.parametrize("wait", [_cancelled_future, _cancelled_task])
@pytest.mark.parametrize("kind", [TextFrame, SystemFrame])
async def test_waiting_for_what_somebody_cancels_is_a_failure_of_the_frame_alone(
    wait: Callable[[], Awaitable[None]], kind: type[Frame]
) -> None:
    class Waiting(Passing):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if type(frame) is kind or (kind is TextFrame and isinstance(frame, TextFrame)):
                await wait()
            await super().process_frame(frame, direction)

    frames = [TextFrame("a"), TextFrame("b")] if kind is TextFrame else [kind(), kind()]
    await run_test(
        Waiting(),
        frames_to_send=frames,
        expected_down_frames=[],
        expected_up_frames=[ErrorFrame, ErrorFrame],
    )


async def test_a_time_limit_of_the_processor_is_its_own_affair() -> None:
    class Limited(Passing):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, TextFrame):
                for secs in (0, 0.1):
                    try:
                        async with asyncio.timeout(secs):
                            await asyncio.sleep(10.0)
                    except TimeoutError:
                        continue
            await super().process_frame(frame, direction)

    await run_test(
        Limited(),
        frames_to_send=[TextFrame("a"), TextFrame("b")],
        expected_down_frames=[TextFrame, TextFrame],
        expected_up_frames=[],
    )


async def test_a_failing_callback_is_a_failure_of_the_processor() -> None:
    async def callback(*_: object) -> None:
        raise ValueError("no good")

    plain = Passing()
    task = PipelineTask(Pipeline([plain]))

    @task.event_handler("on_pipeline_started")
    async def started(task: PipelineTask, frame: Frame) -> None:
        await plain.queue_frame(TextFrame("a"), callback=callback)
        await task.stop_when_done()

    await task.run()
    assert [error.processor for error in task.errors] == [plain]


async def test_one_cleanup_that_fails_stops_no_other() -> None:
    cleaned: list[str] = []

    class Untidy(Passing):
        async def cleanup(self) -> None:
            await super().cleanup()
            cleaned.append(self.name)
            raise ValueError("no good")

    task = PipelineTask(
        Pipeline([Untidy(name="a"), ParallelPipeline([Untidy(name="b")]), Untidy(name="c")])
    )
    await task.queue_frame(EndFrame())
    await task.run()
    assert cleaned == ["a", "b", "c"]
