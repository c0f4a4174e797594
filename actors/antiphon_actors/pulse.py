"""Signs of life from the actors of a node to its agent.

A thread of each actor, which does not depend on the actor's event loops, looks four times a second how
late the main loop is and sends the agent a datagram. That costs some 50 us; a Ray call that asks the same
costs 1.5 ms of a processor at each end. So the agent knows a stuck actor as soon as it is stuck, and a frozen
one by its silence. The other way round an actor sees by its datagrams whether its agent is there.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgpack
from loguru import logger

from antiphon.processors.frame_processor import FrameProcessor
from antiphon.utils.places import file_of
from antiphon_actors import termination
from antiphon_actors.processes import ProcessId, resident_bytes, waited_for_processor_secs

PERIOD_SECS = 0.25
UNREAD_SECS = 10.0
"""How long an agent that is there may not read what its actors send; then they kill it, and Ray restarts it."""

SOCKET_NAME = "pulse"

_VERSION = 1
_MAX_BYTES = 1024
_MAX_DOING = 200
# A loop that is so late is looked at: what keeps it?
_LATE_MS = 100.0
# A module that is imported at its first use, a vendor's SDK for one, may keep a loop for so long.
_IMPORT_MS = 15_000.0
_IMPORTER = "<frozen importlib._bootstrap>"


@dataclass(frozen=True, slots=True)
class Pulse:
    """A sign of life.

    Attributes:
        pid: Of the actor's process.
        lag_ms: How long its main loop took to do something new, or has not done so yet, beyond what it had to
            wait for a processor, or for an import.
        memory_bytes: Resident memory of the process.
        leaving: It was told to end (SIGTERM).
        doing: What the main loop was busy with when it was late: a processor and a line of code, no data.
    """

    pid: int
    lag_ms: float
    memory_bytes: int
    leaving: bool = False
    doing: str = ""

    def encode(self) -> bytes:
        """Its form on the way to the agent."""
        packed: bytes = msgpack.packb(
            [_VERSION, self.pid, self.lag_ms, self.memory_bytes, self.leaving, self.doing]
        )
        return packed

    @classmethod
    def decode(cls, data: bytes) -> Pulse:
        """Reads one.

        Raises:
            ValueError: It is none.
        """
        try:
            version, pid, lag_ms, memory_bytes, leaving, doing = msgpack.unpackb(data)
            if version != _VERSION:
                raise ValueError(f"version {version}")
            return cls(int(pid), float(lag_ms), int(memory_bytes), bool(leaving), str(doing))
        except (TypeError, ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"no pulse: {error}") from error


@dataclass(frozen=True, slots=True)
class PulseAddress:
    """Where signs of life go.

    Attributes:
        path: The agent's socket; empty for nowhere.
        restartable: The agent's process, if Ray starts it anew when it dies.
        orphaned_secs: How long an actor waits for the return of an agent that is gone, before it ends.
    """

    path: str
    restartable: ProcessId | None = None
    orphaned_secs: float = 60.0


class LoopProbe:
    """Measures, from another thread, how late an event loop is.

    Args:
        loop: The loop; `post` may be called in any thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted = 0.0
        self._waited = 0.0
        self._answered: float | None = 0.0
        self._thread = 0
        self._thread_ident = 0

    def lag_ms(self, now: float) -> float:
        """How late it is: of the last probe, or so far of one that is not answered."""
        if self._posted == 0.0:
            return 0.0
        until = self._answered if self._answered is not None else now
        # A machine without time for this thread is no fault of what runs in it.
        starved = waited_for_processor_secs(self._thread) - self._waited if self._thread else 0.0
        return max((until - self._posted - max(starved, 0.0)) * 1000, 0.0)

    def post(self, now: float) -> None:
        """Asks the loop for a sign, unless it owes one; nothing if it is closed."""
        if self._answered is None:
            return
        self._posted, self._answered = now, None
        self._waited = waited_for_processor_secs(self._thread) if self._thread else 0.0
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._answer)

    def frame(self) -> FrameType | None:
        """Where the loop's thread is right now."""
        return sys._current_frames().get(self._thread_ident)

    def _answer(self) -> None:
        self._thread = threading.get_native_id()
        self._thread_ident = threading.get_ident()
        self._answered = time.monotonic()


def is_importing(frame: FrameType) -> bool:
    """Whether a stack is in an import."""
    outer: FrameType | None = frame
    while outer is not None:
        if outer.f_code.co_filename == _IMPORTER:
            return True
        outer = outer.f_back
    return False


def describe(frame: FrameType) -> str:
    """Names the innermost processor that a stack is in, and the line that runs."""
    innermost: FrameType | None = frame
    name = ""
    while innermost is not None:
        owner = innermost.f_locals.get("self")
        if isinstance(owner, FrameProcessor):
            name = f"{owner.name} in "
            break
        innermost = innermost.f_back
    there = innermost or frame
    file = file_of(there.f_code, there.f_globals)
    return f"{name}{file}:{there.f_lineno} ({there.f_code.co_name})"[-_MAX_DOING:]


class PulseSender:
    """Sends the signs of life of this process.

    Args:
        address: Where they go; `move` changes it.
        loop: The main loop.
        on_orphaned: Called in the sender's thread, once, when the agent has been gone for too long.
        unread_secs: How long an agent may be there without reading.
    """

    def __init__(
        self,
        address: PulseAddress,
        loop: asyncio.AbstractEventLoop,
        *,
        on_orphaned: Callable[[], None],
        unread_secs: float = UNREAD_SECS,
    ) -> None:
        self._address = address
        self._probe = LoopProbe(loop)
        self._on_orphaned = on_orphaned
        self._unread_secs = unread_secs
        # When one was last taken, and when the agent was last seen to be there.
        self._taken_at = self._there_at = time.monotonic()
        self._leaving = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begins."""
        # At once, so that the loop's thread is known when it gets stuck.
        self._probe.post(time.monotonic())
        self._thread.start()

    def move(self, address: PulseAddress) -> None:
        """Sends to a restarted agent from now on."""
        self._address = address

    def close(self) -> None:
        """Ends the thread; waits for it unless it is the caller's own."""
        with suppress(OSError):
            os.write(self._waker, b"x")
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join()

    def beat(self, now: float) -> Pulse:
        """Looks at the loop, sends a pulse and returns it."""
        lag_ms = self._probe.lag_ms(now)
        frame = self._probe.frame() if lag_ms >= _LATE_MS else None
        doing = describe(frame) if frame is not None else ""
        if frame is not None and lag_ms < _IMPORT_MS and is_importing(frame):
            # It happens once in a process; to begin again elsewhere would only repeat it.
            lag_ms = 0.0
        self._probe.post(now)
        pulse = Pulse(os.getpid(), lag_ms, resident_bytes(), self._leaving, doing)
        try:
            self._socket.sendto(pulse.encode(), self._address.path)
        except BlockingIOError:
            # It has as many waiting as the kernel keeps.
            self._there_at = now
            if now - self._taken_at >= self._unread_secs:
                self._wake_agent(now)
        except OSError:
            self._taken_at = now
            if now - self._there_at >= self._address.orphaned_secs:
                self._there_at = math.inf
                self._on_orphaned()
        else:
            self._taken_at = self._there_at = now
        return pulse

    def _wake_agent(self, now: float) -> None:
        """Kills an agent that does nothing, so that Ray starts it anew."""
        self._taken_at = now
        if self._address.restartable is not None and self._address.restartable.kill():
            logger.error("the node agent did nothing and was killed; Ray restarts it")

    def _run(self) -> None:
        told = termination.descriptor()
        watched = [self._wake] if told is None else [self._wake, told]
        while True:
            ready, _, _ = select.select(watched, [], [], PERIOD_SECS)
            if self._wake in ready:
                break
            if told is not None and told in ready and termination.was_told(told):
                self._leaving = True
            self.beat(time.monotonic())
        self._socket.close()
        os.close(self._wake)
        os.close(self._waker)


class PulseReceiver:
    """The agent's end: a socket on which pulses arrive.

    Args:
        path: Where; whatever is there is replaced.
        on_pulse: Told of each, on the running loop.
    """

    def __init__(self, path: Path, on_pulse: Callable[[Pulse], Any]) -> None:
        self._path = path
        self._on_pulse = on_pulse
        self._loop = asyncio.get_running_loop()
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        self._loop.add_reader(self._socket.fileno(), self.drain)

    def drain(self) -> None:
        """Takes all that have arrived."""
        while True:
            try:
                data = self._socket.recv(_MAX_BYTES)
            except BlockingIOError:
                return
            try:
                pulse = Pulse.decode(data)
            except ValueError as error:
                logger.warning("not a sign of life", error=str(error))
                continue
            self._on_pulse(pulse)

    def close(self) -> None:
        """Takes no more; its actors take the agent for gone then."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._path.unlink(missing_ok=True)
