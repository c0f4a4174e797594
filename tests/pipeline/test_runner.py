"""Running tasks, and signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import antiphon
from antiphon.frames.frames import EndFrame, Frame, TextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


class Passing(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


def _task() -> PipelineTask:
    return PipelineTask(Pipeline([Passing()]))


def test_a_runner_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError):
        PipelineRunner()


async def test_a_runner_runs_tasks_one_after_the_other_and_at_a_time() -> None:
    runner = PipelineRunner(force_gc=True)
    tasks = [_task() for _ in range(3)]
    for task in tasks:
        await task.queue_frame(EndFrame())
    await runner.run(tasks[0])
    await asyncio.gather(*(runner.run(task) for task in tasks[1:]))
    assert all(task.has_finished() for task in tasks)


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_runner_ends_all_its_tasks(cancel: bool) -> None:
    runner = PipelineRunner(handle_sigint=False)
    tasks = [_task(), _task()]
    heard: list[str] = []
    started = asyncio.Semaphore(0)
    for task in tasks:
        task.add_event_handler("on_pipeline_started", lambda *_: started.release())
        for event in ("on_pipeline_ended", "on_pipeline_cancelled"):
            task.add_event_handler(event, lambda *_, event=event: heard.append(event))
    runs = asyncio.gather(*(runner.run(task) for task in tasks))
    for _ in tasks:
        await started.acquire()
    await (runner.cancel() if cancel else runner.stop_when_done())
    await runs
    assert heard == ["on_pipeline_cancelled" if cancel else "on_pipeline_ended"] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_cancels_the_tasks_and_run_returns(number: signal.Signals) -> None:
    runner = PipelineRunner(handle_sigint=True, handle_sigterm=True)
    for _ in range(2):  # the second run of a runner is protected as well
        task = _task()
        cancelled: list[Frame] = []
        task.add_event_handler("on_pipeline_started", lambda *_: os.kill(os.getpid(), number))
        task.add_event_handler(
            "on_pipeline_cancelled", lambda _, frame, seen=cancelled: seen.append(frame)
        )
        await runner.run(task)
        assert task.has_finished()
        assert len(cancelled) == 1


async def test_signal_handlers_go_with_the_last_task() -> None:
    before = signal.getsignal(signal.SIGINT)
    runner = PipelineRunner()
    assert signal.getsignal(signal.SIGINT) is not before
    task = _task()
    await task.queue_frames([TextFrame("a"), EndFrame()])
    await runner.run(task)
    assert signal.getsignal(signal.SIGINT) is before


_BOT = """
import asyncio
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor

class Passing(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)

async def main():
    task = PipelineTask(Pipeline([Passing()]))

    @task.event_handler("on_pipeline_started")
    async def started(task, frame):
        print("started", flush=True)

    @task.event_handler("on_pipeline_cancelled")
    async def cancelled(task, frame):
        print("cancelled", flush=True)

    await PipelineRunner().run(task)
    print("finished", flush=True)

asyncio.run(main())
"""


def test_interrupting_a_bot_from_the_keyboard() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(antiphon.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_BOT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as bot:
        assert bot.stdout is not None
        try:
            assert bot.stdout.readline() == "started\n"
            bot.send_signal(signal.SIGINT)
            rest, _ = bot.communicate(timeout=20.0)
        finally:
            bot.kill()
    assert rest == "cancelled\nfinished\n"
    assert bot.returncode == 0
