"""Runs a command so that a signal ends it, once, and leaves nothing behind.

The first SIGINT, SIGTERM or SIGHUP cancels the command, whose context managers then clean up.
Further signals change nothing: an impatient second Ctrl-C does not break the clean-up. If the
clean-up hangs, in a call that cannot be cancelled for instance, the process ends all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLEAN_UP_DEADLINE_SECS = 4.0
"""How long the clean-up after a signal may take before the process ends without it."""

_REMOVE_PAUSES_SECS = (0.02, 0.05, 0.1, 0.1)

_scratch: set[Path] = set()


class Interrupted(Exception):
    """A signal has ended the command.

    Attributes:
        exit_code: 128 and the signal's number, as shells report it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextlib.contextmanager
def scratch_directory(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A directory of this process alone, removed at the end, also if the clean-up hangs.

    Args:
        prefix: What its name begins with.
        parent: Where it is made; None for the system's temporary directory.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _scratch.add(path)
    try:
        yield path
    finally:
        _remove(path)


def run_command(main: Coroutine[Any, Any, T]) -> T:
    """Runs a command on an event loop of its own.

    Raises:
        Interrupted: A signal ended it, whatever it returned or raised then.
    """
    import uvloop

    stopper = _Stopper()
    with _signals(stopper.stop):
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(stopper.stoppable(main))
        except BaseException as error:
            if stopper.number is not None and isinstance(
                error, (Exception, asyncio.CancelledError)
            ):
                raise Interrupted(stopper.number) from error
            raise
        if stopper.number is not None:
            raise Interrupted(stopper.number)
        return result


class _Stopper:
    """Ends one command at the first signal."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    async def stoppable(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs the command; from here on a signal cancels it."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.number is not None:
            main.close()
            raise asyncio.CancelledError
        return await main

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Takes a signal."""
        if self.number is not None:
            return
        self.number = number
        threading.Thread(target=self._last_resort, name="last resort", daemon=True).start()
        if self._loop is not None and self._task is not None:
            # The loop is closed when the signal comes at the very end.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _last_resort(self) -> None:
        """Ends the process if it has not ended by itself in time.

        A private cluster needs no word of goodbye: its janitor removes it when this process is gone.
        """
        threading.Event().wait(CLEAN_UP_DEADLINE_SECS)
        assert self.number is not None
        for path in list(_scratch):
            _remove(path)
        with contextlib.suppress(OSError):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"error: ended by force\n")
        os._exit(128 + self.number)


def renew_signal_handlers() -> None:
    """Puts the handlers of the running command in place again; in the main thread.

    To be called after connecting to Ray, whose own handler of SIGTERM prints a stack trace.
    """
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if callable(handler):
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # A signal that is ignored (nohup, a background job of a script) stays so.
    numbers = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in former.items():
            signal.signal(number, handler_before)


def _remove(path: Path) -> None:
    # A process that is just being killed may make a file there once more.
    for pause_secs in _REMOVE_PAUSES_SECS:
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            break
        time.sleep(pause_secs)
    _scratch.discard(path)
