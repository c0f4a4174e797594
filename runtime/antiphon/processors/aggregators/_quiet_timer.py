"""A deadline that news moves on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class QuietTimer:
    """Calls a function once nothing has happened for a while.

    Restarting the timer never interrupts the function when it already runs, so what it pushes is
    not lost to news that arrive meanwhile.
    """

    def __init__(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Makes a timer that is off; ``run()`` has to run as a task for it to do anything.

        Args:
            callback: Awaited in that task each time the quiet lasted long enough.
        """
        self._callback = callback
        self._deadline: float | None = None
        self._moved = asyncio.Event()

    @property
    def armed(self) -> bool:
        """Whether a deadline is set."""
        return self._deadline is not None

    def restart(self, secs: float) -> None:
        """Sets the deadline to that many seconds from now, replacing the one set before."""
        self._deadline = asyncio.get_running_loop().time() + secs
        self._moved.set()

    def stop(self) -> None:
        """Takes the deadline away."""
        self._deadline = None
        self._moved.set()

    async def run(self) -> None:
        """Waits for deadlines and calls the function; ends only by cancellation."""
        loop = asyncio.get_running_loop()
        while True:
            self._moved.clear()
            if self._deadline is None:
                # Without a deadline there is nothing to wait for but a new one; the owner's
                # cancellation bounds the wait.
                await self._moved.wait()
                continue
            remaining = self._deadline - loop.time()
            if remaining > 0:
                try:
                    async with asyncio.timeout(remaining):
                        await self._moved.wait()
                except TimeoutError:
                    pass
                continue
            self._deadline = None
            await self._callback()
