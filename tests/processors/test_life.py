"""A processor's life: before its start, its tasks, its end; names bots may use themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from antiphon.clocks.system_clock import SystemClock
from antiphon.frames.frames import EndFrame, ErrorFrame, Frame, StartFrame, TextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.tests.utils import run_test
from antiphon.utils.asyncio.task_manager import TaskManager, TaskManagerParams

pytestmark = pytest.mark.virtual_time


class Passing(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


async def _set_up(processor: FrameProcessor) -> TaskManager:
    manager = TaskManager()
    manager.setup(TaskManagerParams(loop=asyncio.get_running_loop()))
    await processor.setup(FrameProcessorSetup(clock=SystemClock(), task_manager=manager))
    return manager


async def test_services_of_the_task_are_there_from_setup_on() -> None:
    processor = Passing()
    for ask in (
        processor.get_clock,
        processor.get_event_loop,
        lambda: processor.task_manager,
    ):
        with pytest.raises(RuntimeError):
            ask()
    with pytest.raises(RuntimeError):
        processor.create_task(asyncio.sleep(0))
    manager = await _set_up(processor)
    assert processor.task_manager is manager
    assert processor.get_event_loop() is asyncio.get_running_loop()
    assert processor.get_clock().get_time() == 0
    await processor.cleanup()
    assert not manager.current_tasks()


async def test_what_is_pushed_before_the_start_is_dropped() -> None:
    first, second = Passing(), Passing()
    first.link(second)
    await _set_up(first)
    await _set_up(second)
    await first.push_frame(TextFrame("early"))
    assert second.statistics.frames_in == 0
    await first.push_frame(ErrorFrame("an error may always be told"))
    await asyncio.sleep(0)
    assert second.statistics.frames_in == 1
    await first.cleanup()
    await second.cleanup()


async def test_a_push_without_a_neighbour_is_nothing() -> None:
    alone = Passing()
    await _set_up(alone)
    await alone.queue_frame(StartFrame())
    await alone.queue_frame(TextFrame("a"), FrameDirection.UPSTREAM)
    await asyncio.sleep(0)
    assert alone.statistics.frames_out == 0
    await alone.cleanup()


async def test_the_start_frame_says_how_to_work() -> None:
    processor = Passing()
    task = PipelineTask(
        Pipeline([processor]),
        PipelineParams(
            enable_metrics=True, enable_usage_metrics=True, report_only_initial_ttfb=True
        ),
    )
    seen: list[tuple[bool, ...]] = []

    @task.event_handler("on_pipeline_started")
    async def started(task: PipelineTask, frame: StartFrame) -> None:
        seen.append(
            (
                processor.interruptions_allowed,
                processor.metrics_enabled,
                processor.usage_metrics_enabled,
                processor.report_only_initial_ttfb,
            )
        )

    await task.queue_frame(EndFrame())
    await task.run()
    assert seen == [(True, True, True, True)]
    assert processor.interruption_strategies == []


async def test_a_custom_processor_may_use_the_names_it_likes() -> None:
    class Custom(FrameProcessor):
        """Has its own idea of what these methods are."""

        def _start(self, frame: Frame) -> None:  # type: ignore[override,unused-ignore]
            raise AssertionError("not for the framework to call")

        _on_start = _on_cancel = _on_pause = _on_resume = _on_interruption = _start  # type: ignore[assignment]

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)

    await run_test(Custom(), frames_to_send=[TextFrame("a")], expected_down_frames=[TextFrame])


async def test_tasks_have_the_processors_name_and_failures_stay_in_them() -> None:
    processor = Passing(name="p")
    manager = await _set_up(processor)

    async def fails() -> None:
        raise ValueError("no good")

    async def waits() -> None:
        await asyncio.sleep(60.0)

    failing = processor.create_task(fails())
    waiting = processor.create_task(waits(), "named")
    assert (failing.get_name(), waiting.get_name()) == ("p::fails", "p::named")
    await processor.wait_for_task(failing)
    assert failing not in manager.current_tasks()

    loop = asyncio.get_running_loop()
    before = loop.time()
    await processor.wait_for_task(waiting, timeout=0.5)
    assert loop.time() - before == pytest.approx(0.5, abs=0.01)
    assert not waiting.done()

    await processor.cancel_task(waiting)
    assert waiting.cancelled()
    await processor.cancel_task(waiting)  # nothing left to do
    await processor.cleanup()


async def test_cancel_task_gives_a_task_up_that_resists() -> None:
    processor = Passing()
    await _set_up(processor)
    release = asyncio.Event()

    async def resists() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = processor.create_task(resists())
    await asyncio.sleep(0)
    await processor.cancel_task(task, timeout=0.5)
    assert not task.done()
    release.set()
    await asyncio.wait({task})
    await processor.cleanup()


async def test_cancelling_the_canceller_goes_on() -> None:
    processor = Passing()
    await _set_up(processor)

    async def lingers() -> None:
        try:
            await asyncio.sleep(60.0)
        finally:
            await asyncio.sleep(1.0)

    task = processor.create_task(lingers())
    await asyncio.sleep(0)
    canceller = asyncio.create_task(processor.cancel_task(task))
    await asyncio.sleep(0.1)
    canceller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await canceller
    await asyncio.wait({task})
    assert task.cancelled()
    await processor.cleanup()


async def test_cleanup_waits_for_event_handlers() -> None:
    class Emitting(Passing):
        def __init__(self) -> None:
            super().__init__()
            self._register_event_handler("on_text")

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await self._call_event_handler("on_text", frame.text)

    heard: list[str] = []
    emitting = Emitting()

    @emitting.event_handler("on_text")
    async def on_text(processor: Emitting, text: str) -> None:
        assert processor is emitting
        await asyncio.sleep(3.0)
        heard.append(text)

    await run_test(emitting, frames_to_send=[TextFrame("a")], expected_down_frames=[TextFrame])
    assert heard == ["a"]


async def test_links_and_parents() -> None:
    inner = Passing()
    inside = Pipeline([inner])
    outside = Pipeline([inside])
    assert inner.get_parent() is inside
    assert inside.get_parent() is outside
    assert outside.get_parent() is None
    with pytest.raises(TypeError):
        Pipeline([[inner]])  # type: ignore[list-item]


@pytest.mark.parametrize("make", [lambda: Passing(), lambda: Pipeline([Passing()])])
async def test_every_processor_has_a_name_of_its_own(make: Callable[[], FrameProcessor]) -> None:
    one, other = make(), make()
    assert one.id != other.id
    assert one.name != other.name
    assert one.name.startswith(type(one).__name__ + "#")
    assert str(one) == one.name
    assert Passing(name="mine").name == "mine"
