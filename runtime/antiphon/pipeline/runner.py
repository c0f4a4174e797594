"""Runs pipeline tasks and ends them on signals."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from typing import Any

from loguru import logger

from antiphon.pipeline.base_task import BasePipelineTask, PipelineTaskParams
from antiphon.utils.base_object import BaseObject
from antiphon.utils.checks import check_instance


class PipelineRunner(BaseObject):
    """Runs tasks to their end; a signal cancels those that run."""

    def __init__(
        self,
        *,
        name: str | None = None,
        handle_sigint: bool = True,
        handle_sigterm: bool = False,
        force_gc: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Makes a runner; needs a running event loop.

        Signals are handled only where the interpreter lets it: in the main thread. Where a
        session runs in an actor, its supervisor cancels it instead.

        Args:
            name: Name of the runner.
            handle_sigint: Whether SIGINT cancels the tasks.
            handle_sigterm: Whether SIGTERM does.
            force_gc: Whether garbage is collected when a task has ended.
            loop: The loop to run on; the running one when left out.
        """
        super().__init__(name=name)
        self._loop = loop or asyncio.get_running_loop()
        self._tasks: dict[str, BasePipelineTask] = {}
        self._force_gc = force_gc
        self._signals = [
            number
            for number, wanted in ((signal.SIGINT, handle_sigint), (signal.SIGTERM, handle_sigterm))
            if wanted
        ]
        # The signals handled now, and what happened on them before.
        self._handled: dict[signal.Signals, Any] = {}
        self._signal_task: asyncio.Task[None] | None = None
        self._handle_signals()

    async def run(self, task: BasePipelineTask) -> None:
        """Runs a task until it has finished.

        Raises:
            TypeError: If it is no task.
        """
        check_instance("PipelineRunner.run(task)", task, BasePipelineTask)
        logger.debug("runner starts a task", runner=self.name, task=task.name)
        self._handle_signals()
        self._tasks[task.name] = task
        try:
            await task.run(PipelineTaskParams(loop=self._loop))
        finally:
            self._tasks.pop(task.name, None)
            if not self._tasks:
                self._release_signals()
        await self.cleanup()
        if self._signal_task is not None:
            await self._signal_task
        if self._force_gc:
            logger.debug("garbage collected", objects=gc.collect())
        logger.debug("runner finished a task", runner=self.name, task=task.name)

    async def stop_when_done(self) -> None:
        """Ends every task after what is queued in it."""
        for task in list(self._tasks.values()):
            await task.stop_when_done()

    async def cancel(self) -> None:
        """Ends every task now."""
        await asyncio.gather(*(task.cancel() for task in list(self._tasks.values())))

    def _handle_signals(self) -> None:
        if self._handled or threading.current_thread() is not threading.main_thread():
            return
        for number in self._signals:
            self._handled[number] = signal.getsignal(number)
            self._loop.add_signal_handler(number, self._signalled, number)

    def _release_signals(self) -> None:
        for number, before in self._handled.items():
            self._loop.remove_signal_handler(number)
            if before is not None:  # else it was not Python that had set it
                signal.signal(number, before)
        self._handled.clear()

    def _signalled(self, number: signal.Signals) -> None:
        logger.warning("signal: cancelling the running tasks", signal=number.name)
        if self._signal_task is None or self._signal_task.done():
            self._signal_task = self._loop.create_task(self.cancel(), name=f"{self}::signal")
