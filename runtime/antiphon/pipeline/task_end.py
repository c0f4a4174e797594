"""What the end of a pipeline task consists of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.frames.frames import CancelFrame
from antiphon.pipeline.base_pipeline import walk
from antiphon.processors.frame_processor import FrameProcessor

if TYPE_CHECKING:
    from antiphon.pipeline.task import PipelineTask

_DRIVE_SECS = 0.1
"""How long cleaning up waits for what drives the pipeline, which may resist its cancellation."""


class TaskEnd:
    """Carries out the steps of a task's end (an `antiphon.pipeline.ender.Session`).

    Args:
        task: The task; this is a part of it.
    """

    def __init__(self, task: PipelineTask) -> None:
        self._task = task

    def push_cancel(self) -> None:
        """Lets a CancelFrame in, ahead of what is queued."""
        task = self._task
        logger.debug("task is being cancelled", task=task.name)
        frame = task._cancel_frame = CancelFrame()
        task._task_manager.create_task(task._source.queue_frame(frame), f"{task}::cancel")

    def tasks(self) -> list[asyncio.Task[Any]]:
        """What runs for the task, but for what ends it."""
        task = self._task
        # After a StopFrame the processors stay ready for another task.
        processors = list(walk(task._pipeline)) if task._cleanup_wanted else []
        found: set[asyncio.Task[Any]] = set(task._task_manager.current_tasks())
        if not task._owns_manager or not task._cleanup_wanted:
            # It may be that of other pipelines too.
            names = {each.name for each in (*processors, *task._observer.observers, task)}
            found = {each for each in found if names.intersection(each.get_name().split("::"))}
        if task._drive_task is not None:
            found.add(task._drive_task)
        if task._executor is not None:
            found.update(task._executor.tasks())
        return list(found.union(task._emissions, *(each._event_tasks for each in processors)))

    def hurry(self, secs: float) -> None:
        """Has what runs elsewhere end sooner."""
        if self._task._executor is not None:
            self._task._executor.hurry(secs)

    async def abort(self, secs: float) -> None:
        """Gives up what runs elsewhere."""
        if self._task._executor is not None:
            await self._task._executor.abort(secs)

    async def clean_up(self, *, crossed: bool) -> None:
        """Ends everything in good order."""
        task = self._task
        if not crossed and task._cancel_frame is not None:
            logger.warning("CancelFrame did not cross the pipeline in time", task=task.name)
            await task._ended("on_pipeline_cancelled", task._cancel_frame)
        task._flowing = False
        if task._drive_task is not None and not task._drive_task.done():
            task._drive_task.cancel()
            await asyncio.wait({task._drive_task}, timeout=_DRIVE_SECS)
        if task._going_on is not None:
            await task._task_manager.cancel_task(task._going_on, _DRIVE_SECS)
        task._idle.stop()
        if task._heartbeats is not None:
            task._heartbeats.stop()
        try:
            if task._executor is not None:
                await task._executor.stop(cleanup=task._cleanup_wanted)
        finally:
            await task._observer.stop()
            if task._turn_trace_observer is not None:
                task._turn_trace_observer.end_conversation_tracing()
        if not task._cleanup_wanted:
            # The bot's pipeline stays ready for another task; the frame around it is
            # this task's own.
            await task._source.cleanup()
            await task._sink.cleanup()
            await FrameProcessor.cleanup(task._pipeline)
        await task.cleanup()
        while task._ender.is_cancelled and task._emissions:
            # Also those of objects that are no processors, as transports are.
            await asyncio.wait(list(task._emissions))
        if task._cleanup_wanted and task._check_dangling_tasks:
            left = [each.get_name() for each in task._task_manager.current_tasks()]
            if left:
                logger.warning("tasks left at the end", task=task.name, tasks=left)
