"""Watchdogs warn of tasks that are stuck, and of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from loguru import logger

from antiphon.frames.frames import Frame, TextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.utils.asyncio.task_manager import TaskManager, TaskManagerParams
from antiphon.utils.asyncio.watchdog_async_iterator import WatchdogAsyncIterator
from antiphon.utils.asyncio.watchdog_coroutine import WatchdogCoroutine, watchdog_coroutine
from antiphon.utils.asyncio.watchdog_event import WatchdogEvent
from antiphon.utils.asyncio.watchdog_priority_queue import WatchdogPriorityQueue
from antiphon.utils.asyncio.watchdog_queue import WatchdogQueue

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def late() -> Iterator[list[str]]:
    """Names of the tasks that were warned of."""
    names: list[str] = []

    def sink(line: Any) -> None:
        if line.record["message"] == "task has not reset its watchdog":
            names.append(line.record["extra"]["task"])

    handler = logger.add(sink, level="WARNING")
    yield names
    logger.remove(handler)


class Working(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            for _ in range(4):
                await asyncio.sleep(3.0)
                if frame.text == "resets":
                    self.reset_watchdog()
        await self.push_frame(frame, direction)


async def _run(processor: Working, text: str, **options: Any) -> None:
    task = PipelineTask(Pipeline([processor]), idle_timeout_secs=None, **options)
    run = asyncio.create_task(task.run())
    await asyncio.sleep(30.0)  # nobody is late who has nothing to do
    await task.queue_frame(TextFrame(text))
    await asyncio.sleep(30.0)
    await task.stop_when_done()
    await run


@pytest.mark.parametrize(
    ("options", "text", "warnings"),
    [
        ({}, "stuck", 0),
        ({"enable_watchdog_timers": True}, "resets", 0),
        ({"enable_watchdog_timers": True}, "stuck", 2),
        ({"enable_watchdog_timers": True, "watchdog_timeout_secs": 2.5}, "stuck", 4),
        ({"enable_watchdog_timers": True, "watchdog_timeout_secs": 20.0}, "stuck", 0),
    ],
)
async def test_a_task_turns_watchdogs_on(
    options: dict[str, Any], text: str, warnings: int, late: list[str]
) -> None:
    await _run(Working(name="p"), text, **options)
    assert late == ["p::process"] * warnings


async def test_a_processor_has_its_own_settings(late: list[str]) -> None:
    await _run(Working(name="on", enable_watchdog_timers=True), "stuck")
    assert late == ["on::process"] * 2
    late.clear()
    await _run(
        Working(name="off", enable_watchdog_timers=False), "stuck", enable_watchdog_timers=True
    )
    assert late == []
    await _run(
        Working(name="patient", watchdog_timeout_secs=10.0), "stuck", enable_watchdog_timers=True
    )
    assert late == ["patient::process"]


async def test_a_paused_processor_is_not_late(late: list[str]) -> None:
    working = Working()
    task = PipelineTask(Pipeline([working]), idle_timeout_secs=None, enable_watchdog_timers=True)
    run = asyncio.create_task(task.run())
    await asyncio.sleep(0.1)
    await working.pause_processing_frames()
    await task.queue_frame(TextFrame("resets"))
    await asyncio.sleep(60.0)
    await working.resume_processing_frames()
    await task.stop_when_done()
    await run
    assert late == []


async def test_every_task_may_have_its_own(late: list[str]) -> None:
    manager = _manager()
    watched = manager.create_task(asyncio.sleep(5.5), "watched", watchdog_timeout=1.0)
    unwatched = manager.create_task(asyncio.sleep(5.5), "unwatched", enable_watchdog_timers=False)
    await asyncio.wait({watched, unwatched})
    assert late == ["watched"] * 5


async def test_the_time_of_each_step_is_logged_where_wanted() -> None:
    steps: list[float] = []

    def sink(line: Any) -> None:
        if line.record["message"] == "task step":
            steps.append(line.record["extra"]["seconds"])

    handler = logger.add(sink, level="DEBUG")
    manager = _manager(watched=False)

    async def two_steps() -> None:
        for secs in (1.0, 2.0):
            await asyncio.sleep(secs)
            manager.task_reset_watchdog()

    await asyncio.wait({manager.create_task(two_steps(), "t", enable_watchdog_logging=True)})
    logger.remove(handler)
    assert steps == pytest.approx([1.0, 2.0], abs=0.01)


def _manager(*, watched: bool = True) -> TaskManager:
    manager = TaskManager()
    manager.setup(
        TaskManagerParams(loop=asyncio.get_running_loop(), enable_watchdog_timers=watched)
    )
    return manager


# -- waiting without being late ------------------------------------------------------------------


async def _event(manager: TaskManager) -> None:
    event = WatchdogEvent(manager, timeout=2.0)
    asyncio.get_running_loop().call_later(20.0, event.set)
    assert await event.wait()
    assert await event.wait()
    event.clear()
    assert not event.is_set()


async def _queue(manager: TaskManager) -> None:
    queue: WatchdogQueue[str] = WatchdogQueue(manager, maxsize=2)
    asyncio.get_running_loop().call_later(20.0, queue.put_nowait, "a")
    assert await queue.get() == "a"
    queue.task_done()
    queue.put_nowait("b")
    queue.cancel()
    assert await queue.get() == "b"
    queue.task_done()
    with pytest.raises(asyncio.CancelledError):
        await queue.get()
    await queue.join()


async def _priority_queue(manager: TaskManager) -> None:
    queue: WatchdogPriorityQueue[tuple[int, str]] = WatchdogPriorityQueue(manager)
    asyncio.get_running_loop().call_later(20.0, queue.put_nowait, (1, "a"))
    assert await queue.get() == (1, "a")
    queue.task_done()
    for item in ((3, "c"), (1, "a"), (2, "b")):
        queue.put_nowait(item)
    queue.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queue.get()
    assert [await queue.get() for _ in range(3)] == [(1, "a"), (2, "b"), (3, "c")]


async def _coroutine(manager: TaskManager) -> None:
    assert await watchdog_coroutine(asyncio.sleep(20.0, "done"), manager=manager) == "done"
    assert await WatchdogCoroutine(asyncio.sleep(20.0, "done"), manager=manager)() == "done"


async def _numbers() -> AsyncIterator[int]:
    for n in range(3):
        await asyncio.sleep(20.0)
        yield n


async def _iterator(manager: TaskManager) -> None:
    assert [n async for n in WatchdogAsyncIterator(_numbers(), manager=manager)] == [0, 1, 2]

    async def later() -> AsyncIterator[int]:
        await asyncio.sleep(20.0)
        return _numbers()

    assert [n async for n in WatchdogAsyncIterator(later(), manager=manager)] == [0, 1, 2]


@pytest.mark.parametrize("wait", [_event, _queue, _priority_queue, _coroutine, _iterator])
async def test_waiting_is_not_being_late(
    wait: Callable[[TaskManager], Coroutine[Any, Any, None]], late: list[str]
) -> None:
    manager = _manager()

    async def wait_then_work() -> None:
        await wait(manager)
        assert late == []
        await asyncio.sleep(6.0)  # the watchdog counts again

    task = manager.create_task(wait_then_work(), "waiting")
    await asyncio.wait({task})
    assert task.exception() is None
    assert late == ["waiting"]
