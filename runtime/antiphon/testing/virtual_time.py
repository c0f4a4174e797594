"""An event loop on which waiting takes no time.

``VirtualTimeLoop`` is an asyncio event loop whose ``time()`` stands still while something can run
and jumps to the next timer when nothing can. A program that sleeps for an hour ends at once, and
with the same order of events each time. Sockets, pipes and threads work: time does not jump while
a thread of the loop's executor is at work.

With pytest-asyncio, in ``conftest.py``::

    def pytest_asyncio_loop_factories(config, item):
        if item.get_closest_marker("virtual_time"):
            return {"virtual": VirtualTimeLoop}
        return {"asyncio": asyncio.new_event_loop}
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar

from antiphon.clocks.base_clock import BaseClock

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_T = TypeVar("_T")
_NANOSECONDS = 1_000_000_000

# Real seconds an idle loop without any timer waits for a socket, pipe or thread before it says
# that nothing will ever happen.
_STALL_SECS = 10.0


class VirtualTimeStalledError(RuntimeError):
    """Nothing is scheduled and nothing arrived: the program waits for what never comes."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps over every wait.

    Example::

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())
    """

    _clock_resolution: float

    def __init__(self, *, start_secs: float = 0.0) -> None:
        """Makes a loop.

        Args:
            start_secs: What ``time()`` reads at first, in seconds.
        """
        self._now_secs = start_secs
        self._threads_at_work = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """The virtual time in seconds."""
        return self._now_secs

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., _T], *args: Any
    ) -> asyncio.Future[_T]:
        """Runs a function in a thread; time does not jump until it has returned."""
        future = super().run_in_executor(executor, func, *args)
        self._threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._threads_at_work -= 1

    def _jump(self, secs: float) -> None:
        # Rounding must not leave the clock just before a timer: the loop would spin.
        self._now_secs += max(secs, self._clock_resolution)


class _JumpingSelector(selectors.BaseSelector):
    """A selector that moves its loop's clock on instead of waiting."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._selector = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._selector.select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if self._loop._threads_at_work:
            # A thread that returns wakes the selector through the loop's own pipe.
            events = self._selector.select(_STALL_SECS)
            if not events and timeout is None:
                raise VirtualTimeStalledError("a thread of the loop's executor does not return")
            return events
        if timeout is None:
            events = self._selector.select(_STALL_SECS)
            if not events:
                raise VirtualTimeStalledError(
                    f"nothing is scheduled and nothing arrived for {_STALL_SECS:.0f} real seconds"
                )
            return events
        self._loop._jump(timeout)
        return []

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        return self._selector.modify(fileobj, events, data)

    def get_key(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._selector.get_key(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._selector.get_map()

    def close(self) -> None:
        self._selector.close()


class VirtualClock(BaseClock):
    """A pipeline clock that follows the running loop's ``time()``, virtual or not."""

    def __init__(self) -> None:
        """Makes a clock that has not started."""
        self._started_secs: float | None = None

    def get_time(self) -> int:
        """Nanoseconds since start(); 0 before it."""
        if self._started_secs is None:
            return 0
        elapsed_secs = asyncio.get_running_loop().time() - self._started_secs
        return round(elapsed_secs * _NANOSECONDS)

    def start(self) -> None:
        """Begins counting."""
        self._started_secs = asyncio.get_running_loop().time()


def run(main: Coroutine[Any, Any, _T], *, start_secs: float = 0.0) -> _T:
    """Runs a coroutine to its end on a virtual-time loop of its own.

    Args:
        main: What to run.
        start_secs: What the loop's ``time()`` reads at first.

    Returns:
        What the coroutine returns.

    Raises:
        VirtualTimeStalledError: The coroutine waits for something that never happens.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start_secs=start_secs)) as runner:
        return runner.run(main)
