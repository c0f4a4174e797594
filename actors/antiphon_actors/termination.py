"""Tells a Ray worker process that it was asked to end (SIGTERM), so that its sessions can move first.

Ray's own handler of SIGTERM is written in Python and its main thread is not: nothing happens until the next
call arrives, which then ends the process in the middle of whatever it does. `install` adds a descriptor that
becomes readable at once. That can only be done in the main thread and when Ray sets its handler, so workers
import a module ahead which sees to it (`_worker_setup`). Without that, or where Ray has changed, SIGTERM ends an
actor as Ray would.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

from antiphon_actors import ray_internal

_descriptor: int | None = None
_watched = False


def descriptor() -> int | None:
    """A descriptor that becomes readable with a signal; None where there is none.

    Who asks for it sees to the end of the process: Ray's own way to end does not happen any more.
    """
    global _watched
    _watched = _descriptor is not None
    return _descriptor


def was_told(readable: int) -> bool:
    """Whether SIGTERM is among the signals that have come; takes them off the descriptor."""
    with suppress(BlockingIOError):
        return signal.SIGTERM in os.read(readable, 64)
    return False


def install() -> None:
    """Prepares this process, if it becomes a worker."""
    ray_internal.when_worker_handles_sigterm(_take_over)


def _take_over(handler: ray_internal.SignalHandler) -> None:
    global _descriptor
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def handle(number: int, frame: FrameType | None) -> None:
        if not _watched:
            handler(number, frame)

    signal.signal(signal.SIGTERM, handle)
    _descriptor = reading
