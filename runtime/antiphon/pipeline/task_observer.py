"""Gives every observer a queue and a task of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger

from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.utils.asyncio.task_manager import BaseTaskManager
from antiphon.utils.asyncio.watchdog_queue import WatchdogQueue

QUEUE_LIMIT = 20_000
"""Pushes an observer may be behind before the oldest are dropped (and counted in the log)."""

STOP_DEADLINE_SECS = 5.0
"""How long an observer may take for what it has not seen yet when the pipeline ends."""


@dataclass
class _Proxy:
    observer: BaseObserver
    queue: WatchdogQueue[FramePushed | None]
    task: asyncio.Task[Any]
    dropped: int = 0


class TaskObserver(BaseObserver):
    """Hands pushes on to the observers of a task without making the pipeline wait."""

    def __init__(
        self,
        *,
        observers: Sequence[BaseObserver] | None = None,
        task_manager: BaseTaskManager,
        **kwargs: Any,
    ) -> None:
        """Makes the observer of a task.

        Args:
            observers: The observers to serve from the start.
            task_manager: Owner of their tasks.
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        self._observers = list(observers or [])
        self._task_manager = task_manager
        self._proxies: dict[BaseObserver, _Proxy] = {}
        self._started = False
        self.watching = bool(self._observers)

    @property
    def observers(self) -> Sequence[BaseObserver]:
        """The observers that are served."""
        return self._observers

    def add_observer(self, observer: BaseObserver) -> None:
        """Adds an observer; it sees what is pushed from now on."""
        if observer in self._observers:
            return
        self._observers.append(observer)
        self.watching = True
        if self._started:
            self._proxies[observer] = self._proxy(observer)

    async def remove_observer(self, observer: BaseObserver) -> None:
        """Removes an observer; it sees nothing more."""
        if observer in self._observers:
            self._observers.remove(observer)
            self.watching = bool(self._observers)
        proxy = self._proxies.pop(observer, None)
        if proxy is None:
            return
        # An observer that removes itself while it is shown a push ends after that push.
        while not proxy.queue.empty():
            proxy.queue.get_nowait()
        self._put(proxy, None)
        await self._task_manager.cancel_task(proxy.task, STOP_DEADLINE_SECS)

    async def start(self) -> None:
        """Starts the observers' tasks."""
        self._started = True
        for observer in self._observers:
            if observer not in self._proxies:
                self._proxies[observer] = self._proxy(observer)

    async def stop(self) -> None:
        """Lets the observers see what they have not seen yet, then ends their tasks."""
        self._started = False
        proxies, self._proxies = list(self._proxies.values()), {}
        for proxy in proxies:
            self._put(proxy, None)
        if proxies:
            await asyncio.wait([proxy.task for proxy in proxies], timeout=STOP_DEADLINE_SECS)
        for proxy in proxies:
            if not proxy.task.done():
                logger.warning("observer did not keep up", observer=proxy.observer.name)
                await self._task_manager.cancel_task(proxy.task, STOP_DEADLINE_SECS)

    async def on_push_frame(self, data: FramePushed) -> None:
        """Notes a push for every observer."""
        self.observe(data)

    def observe(self, data: FramePushed) -> None:
        """Notes a push for every observer, from outside a coroutine."""
        for proxy in self._proxies.values():
            self._put(proxy, data)

    def _put(self, proxy: _Proxy, data: FramePushed | None) -> None:
        if proxy.queue.full():
            proxy.queue.get_nowait()
            proxy.dropped += 1
            if proxy.dropped in (1, 100) or proxy.dropped % 10_000 == 0:
                logger.warning(
                    "observer too slow: pushes dropped",
                    observer=proxy.observer.name,
                    dropped=proxy.dropped,
                )
        proxy.queue.put_nowait(data)

    def _proxy(self, observer: BaseObserver) -> _Proxy:
        queue: WatchdogQueue[FramePushed | None] = WatchdogQueue(
            self._task_manager, maxsize=QUEUE_LIMIT
        )
        task = self._task_manager.create_task(
            self._serve(observer, queue), f"TaskObserver::{observer}"
        )
        return _Proxy(observer, queue, task)

    async def _serve(
        self, observer: BaseObserver, queue: WatchdogQueue[FramePushed | None]
    ) -> None:
        notify = _notifier(observer)
        while (data := await queue.get()) is not None:
            try:
                await notify(data)
            except Exception as error:  # noqa: BLE001 - observers are code of bots
                logger.opt(exception=error).error("observer failed", observer=observer.name)
        await observer.cleanup()


def _notifier(observer: BaseObserver) -> Callable[[FramePushed], Awaitable[None]]:
    """The observer's on_push_frame, whichever of its two documented forms it has."""
    method: Callable[..., Awaitable[None]] = observer.on_push_frame
    if len(inspect.signature(method).parameters) == 1:
        return method

    async def notify(data: FramePushed) -> None:
        await method(data.source, data.destination, data.frame, data.direction, data.timestamp)

    return notify
