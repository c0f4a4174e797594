"""What a task keeps an eye on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from loguru import logger

from antiphon.frames.frames import (
    BotSpeakingFrame,
    EndFrame,
    Frame,
    HeartbeatFrame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    StartFrame,
    TextFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.testing.virtual_time import VirtualClock
from antiphon.tests.utils import HeartbeatsObserver

pytestmark = pytest.mark.virtual_time


class Passing(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Swallowing(FrameProcessor):
    """Lets heartbeats in and not out."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, HeartbeatFrame):
            await self.push_frame(frame, direction)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    messages: list[str] = []
    sink = logger.add(lambda line: messages.append(line.record["message"]), level="WARNING")
    yield messages
    logger.remove(sink)


def _now() -> float:
    return asyncio.get_running_loop().time()


# -- heartbeats --------------------------------------------------------------------------------


async def test_five_heartbeats_in_the_first_second_at_a_fifth_of_a_second() -> None:
    passing = Passing()
    seen: list[HeartbeatFrame] = []

    async def heartbeat(processor: FrameProcessor, frame: HeartbeatFrame) -> None:
        assert processor is passing
        seen.append(frame)

    task = PipelineTask(
        Pipeline([passing]),
        params=PipelineParams(enable_heartbeats=True, heartbeats_period_secs=0.2),
        observers=[HeartbeatsObserver(target=passing, heartbeat_callback=heartbeat)],
        cancel_on_idle_timeout=False,
        clock=VirtualClock(),
    )
    await task.queue_frame(TextFrame("Hello!"))
    run = asyncio.create_task(task.run())
    await asyncio.wait({run}, timeout=1.0)
    assert len(seen) == 5
    assert [frame.timestamp // 200_000_000 for frame in seen] == [0, 1, 2, 3, 4]
    await task.cancel()
    await run


async def test_no_heartbeats_unless_asked_for(warnings: list[str]) -> None:
    task = PipelineTask(Pipeline([Passing()]), idle_timeout_secs=None)
    task.set_reached_downstream_filter((HeartbeatFrame,))
    seen: list[Frame] = []
    task.add_event_handler("on_frame_reached_downstream", lambda _, frame: seen.append(frame))
    run = asyncio.create_task(task.run())
    await asyncio.sleep(30.0)
    await task.cancel()
    await run
    assert seen == []
    assert warnings == []


@pytest.mark.parametrize(("processor", "expected"), [(Passing, 0), (Swallowing, 3)])
async def test_heartbeats_that_do_not_arrive_are_only_a_warning(
    processor: type[FrameProcessor], expected: int, warnings: list[str]
) -> None:
    task = PipelineTask(
        Pipeline([processor()]),
        params=PipelineParams(enable_heartbeats=True),
        idle_timeout_secs=None,
    )
    run = asyncio.create_task(task.run())
    await asyncio.sleep(35.0)
    assert not run.done()
    await task.cancel()
    await run
    assert warnings.count("heartbeat frame not received") == expected


# -- idling ------------------------------------------------------------------------------------


async def _feed(task: PipelineTask, kind: type[Frame], every_secs: float, for_secs: float) -> None:
    for _ in range(round(for_secs / every_secs)):
        frame = kind(b"", 16000, 1) if kind is InputAudioRawFrame else kind()
        await task.queue_frame(frame)
        await asyncio.sleep(every_secs)


async def test_an_idle_pipeline_is_cancelled() -> None:
    task = PipelineTask(Pipeline([Passing()]), idle_timeout_secs=0.2)
    heard: list[tuple[str, float]] = []
    task.add_event_handler("on_idle_timeout", lambda _: heard.append(("idle", _now())))
    task.add_event_handler("on_pipeline_cancelled", lambda *_: heard.append(("cancelled", _now())))
    await task.run()
    assert [what for what, _ in heard] == ["idle", "cancelled"]
    assert heard[0][1] == pytest.approx(0.2, abs=0.05)


async def test_five_minutes_is_the_default() -> None:
    await PipelineTask(Pipeline([Passing()])).run()
    assert _now() == pytest.approx(300.0, abs=0.5)


async def test_never_if_there_is_no_timeout() -> None:
    task = PipelineTask(Pipeline([Passing()]), idle_timeout_secs=None)
    run = asyncio.create_task(task.run())
    await asyncio.sleep(100_000.0)
    assert not run.done()
    await task.cancel()
    await run


@pytest.mark.parametrize("kind", [BotSpeakingFrame, LLMFullResponseEndFrame])
async def test_activity_keeps_the_pipeline_alive(kind: type[Frame]) -> None:
    task = PipelineTask(Pipeline([Passing()]), idle_timeout_secs=1.0)
    run = asyncio.create_task(task.run())
    await _feed(task, kind, 0.5, 10.0)
    assert not run.done()
    await run
    assert _now() == pytest.approx(10.5, abs=0.1)


@pytest.mark.parametrize("heartbeats", [False, True])
async def test_other_frames_do_not(heartbeats: bool) -> None:
    task = PipelineTask(
        Pipeline([Passing()]),
        idle_timeout_secs=1.0,
        params=PipelineParams(enable_heartbeats=heartbeats, heartbeats_period_secs=0.1),
    )
    feed = asyncio.create_task(_feed(task, InputAudioRawFrame, 0.02, 3.0))
    await task.run()
    assert _now() == pytest.approx(1.0, abs=0.1)
    await feed


async def test_a_bot_says_what_activity_is() -> None:
    task = PipelineTask(
        Pipeline([Passing()]), idle_timeout_secs=1.0, idle_timeout_frames=(TextFrame,)
    )
    feed = asyncio.create_task(_feed(task, LLMFullResponseEndFrame, 0.5, 3.0))
    await task.queue_frame(TextFrame("a"))
    await task.run()
    assert _now() == pytest.approx(1.0, abs=0.1)
    await feed


async def test_activity_that_does_not_reach_the_end_does_not_count() -> None:
    class Nothing(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if not isinstance(frame, BotSpeakingFrame):
                await self.push_frame(frame, direction)

    task = PipelineTask(Pipeline([Nothing()]), idle_timeout_secs=1.0)
    feed = asyncio.create_task(_feed(task, BotSpeakingFrame, 0.5, 3.0))
    await task.run()
    assert _now() == pytest.approx(1.0, abs=0.1)
    await feed


async def test_being_told_only_comes_once_a_period_under_a_stream_of_audio() -> None:
    task = PipelineTask(Pipeline([Passing()]), idle_timeout_secs=1.0, cancel_on_idle_timeout=False)
    heard: list[float] = []
    task.add_event_handler("on_idle_timeout", lambda _: heard.append(_now()))
    feed = asyncio.create_task(_feed(task, InputAudioRawFrame, 0.02, 3.5))
    run = asyncio.create_task(task.run())
    await feed
    await task.queue_frame(EndFrame())
    await run
    assert heard == pytest.approx([1.0, 2.0, 3.0], abs=0.1)


async def test_the_handler_has_run_before_the_pipeline_is_cancelled() -> None:
    task = PipelineTask(Pipeline([Passing()]), idle_timeout_secs=1.0)
    heard: list[str] = []

    @task.event_handler("on_idle_timeout")
    async def idle(task: PipelineTask) -> None:
        await asyncio.sleep(0.5)
        heard.append("idle")

    task.add_event_handler("on_pipeline_cancelled", lambda *_: heard.append("cancelled"))
    await task.run()
    assert heard == ["idle", "cancelled"]


async def test_the_handler_may_end_the_pipeline_itself() -> None:
    keeping: list[Frame] = []
    task = PipelineTask(Pipeline([Passing()]), idle_timeout_secs=1.0, cancel_on_idle_timeout=False)
    task.set_reached_downstream_filter((TextFrame, StartFrame, EndFrame))
    task.add_event_handler("on_frame_reached_downstream", lambda _, frame: keeping.append(frame))

    @task.event_handler("on_idle_timeout")
    async def idle(task: PipelineTask) -> None:
        await task.queue_frame(TextFrame("Goodbye!"))
        await task.stop_when_done()

    await task.run()
    assert [type(frame) for frame in keeping] == [StartFrame, TextFrame, EndFrame]


async def test_a_blocked_end_is_ended_by_the_idle_timeout() -> None:
    class Blocking(Passing):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, EndFrame):
                await asyncio.sleep(10_000.0)
            await super().process_frame(frame, direction)

    task = PipelineTask(Pipeline([Blocking()]), idle_timeout_secs=5.0)
    await task.queue_frame(EndFrame())
    await task.run()
    assert _now() < 10.0
