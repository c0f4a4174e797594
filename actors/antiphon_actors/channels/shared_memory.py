"""Large payloads between two processes of one machine, past the socket.

The sender copies a payload into an anonymous file in memory (a memfd) and sends a small record that
says which one. The receiver opens it through /proc/<sender>/fd, which the kernel allows to the same
user, and reads it once, into bytes of its own. No file has a name and the receiver keeps none, so
whatever dies, and when, the kernel frees everything at once: there is nothing to sweep.

A file is in use from its record to the acknowledgement of that record, and is then used again:
copying into pages that exist takes a fifth of the time that new pages take.

Whether it works between two processes (containers may share a socket and not their /proc) is tried
once a link: HELLO names a file that holds the hub's id, and the end that can read it says so when a
stream is opened. A peer that says nothing gets its payloads through the socket.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from typing import TYPE_CHECKING, Final

from loguru import logger

from antiphon_actors.channels.errors import ChannelBroken, ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from antiphon_actors.channels.limits import Limits
    from antiphon_actors.channels.wire import Credentials

# A descriptor each; more payloads than that at once go through their sockets.
_MAX_SEGMENTS: Final = 64
# What idle files of one hub may hold together, for payloads to come; and the largest payload.
_KEPT_BYTES: Final = 8 << 20

# A peer that names something else than a file must not make us wait for it.
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Segment:
    """One file in memory.

    Attributes:
        fd: Its descriptor in this process.
        inode: Its inode, by which a receiver knows that it opened the right one.
        size: How far it has ever been written, which is the memory it takes.
    """

    __slots__ = ("fd", "inode", "size")

    def __init__(self) -> None:
        """Makes an empty one.

        Raises:
            OSError: No descriptor is free, or the system has no such files.
        """
        self.fd = os.memfd_create("antiphon", os.MFD_CLOEXEC)
        self.inode = os.fstat(self.fd).st_ino
        self.size = 0

    def write(self, payload: bytes) -> None:
        """Puts a payload at its beginning.

        Raises:
            OSError: There is no memory left.
        """
        self.size = max(self.size, len(payload))
        if os.pwrite(self.fd, payload, 0) != len(payload):
            raise OSError("short write into shared memory")


class SharedMemory:
    """The files of one hub: those in use, those kept for later, and the one that peers try.

    Attributes:
        in_use: Files whose payloads are not acknowledged yet.
        held_bytes: Memory of all files.
    """

    def __init__(self, limits: Limits, hub_id: bytes) -> None:
        """Opens nothing."""
        self._max_bytes = limits.max_shared_bytes
        self._hub_id = hub_id
        self._probe: Segment | None = None
        self._idle: list[Segment] = []  # bounded by _MAX_SEGMENTS and _KEPT_BYTES
        self._closed = False
        self.in_use = 0
        self.held_bytes = 0

    def probe(self) -> tuple[int, ...]:
        """Returns what HELLO says about the file with this hub's id, made at the first call.

        That is nothing where the system has no such files.
        """
        if self._probe is None and not self._closed:
            try:
                self._probe = Segment()
                self._probe.write(self._hub_id)
            except (OSError, AttributeError) as error:  # not Linux: no memfd_create
                logger.info("no shared memory for large payloads", error=str(error))
        return (self._probe.fd, self._probe.inode) if self._probe is not None else ()

    def take(self, payload: bytes) -> Segment | None:
        """Returns a file that holds `payload`; None when it has to go through the socket.

        That is when as much is in use as may be, when the system has no room, or when the
        payload is too large to be worth it.
        """
        if self._closed or (self.in_use >= _MAX_SEGMENTS and not self._idle):
            return None
        if len(payload) > _KEPT_BYTES:
            return None  # in new pages each time it would be slower than the socket
        before = self._idle[-1].size if self._idle else 0
        if self.held_bytes - before + max(before, len(payload)) > self._max_bytes:
            return None
        try:
            segment = self._idle.pop() if self._idle else Segment()
        except OSError:
            return None
        self.held_bytes -= before
        try:
            segment.write(payload)
        except OSError:
            os.close(segment.fd)
            return None
        self.held_bytes += segment.size
        self.in_use += 1
        return segment

    def give_back(self, segment: Segment) -> None:
        """Takes a file whose payload the peer has processed."""
        self.in_use -= 1
        if self._closed or sum(idle.size for idle in self._idle) + segment.size > _KEPT_BYTES:
            self.held_bytes -= segment.size
            os.close(segment.fd)
        else:
            self._idle.append(segment)

    def close(self) -> None:
        """Frees what is not in use; the rest is freed as it comes back. Idempotent."""
        self._closed = True
        idle, self._idle = self._idle, []
        for segment in idle:
            self.held_bytes -= segment.size
            os.close(segment.fd)
        probe, self._probe = self._probe, None
        if probe is not None:
            os.close(probe.fd)


class SharedSender:
    """The payloads of one stream that are in shared memory."""

    __slots__ = ("_lanes", "_memory")

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        # Sequence number and file, ordered and urgent; bounded by _MAX_SEGMENTS.
        self._lanes: tuple[deque[tuple[int, Segment]], deque[tuple[int, Segment]]] = (
            deque(),
            deque(),
        )

    def put(self, seq: int, payload: bytes, *, urgent: bool) -> list[int] | None:
        """Puts a payload into shared memory until its frame is acknowledged.

        Args:
            seq: The frame's number on its lane.
            payload: What to put there.
            urgent: Which lane.

        Returns:
            What the record carries in the payload's stead; None if the payload itself has to travel.
        """
        segment = self._memory.take(payload)
        if segment is None:
            return None
        self._lanes[urgent].append((seq, segment))
        return [segment.fd, segment.inode, len(payload)]

    def acknowledged(self, ordered: int, urgent: int) -> None:
        """Frees what the peer has processed, by the cumulative counts of its acknowledgement."""
        for lane, count in zip(self._lanes, (ordered, urgent), strict=True):
            while lane and lane[0][0] <= count:
                self._memory.give_back(lane.popleft()[1])

    def close(self) -> None:
        """Frees everything: the stream is over. Idempotent."""
        for lane in self._lanes:
            while lane:
                self._memory.give_back(lane.popleft()[1])


class SharedReceiver:
    """Reads payloads out of the shared memory of one peer."""

    __slots__ = ("_directory", "_max_bytes")

    def __init__(self, pid: int, max_bytes: int) -> None:
        """Takes the peer's process id, as the kernel tells it here, and the largest payload."""
        self._directory = f"/proc/{pid}/fd"
        self._max_bytes = max_bytes

    @classmethod
    def of(
        cls, credentials: Credentials | None, hub_id: bytes, probe: Sequence[int], max_bytes: int
    ) -> SharedReceiver | None:
        """Returns what reads the payloads of a peer; None if they cannot be read here.

        Args:
            credentials: Who the kernel says the peer is.
            hub_id: The id it states.
            probe: What its HELLO says about the file that holds that id.
            max_bytes: Largest payload.
        """
        if credentials is None or not credentials.pid or len(probe) != 2:
            return None
        receiver = cls(credentials.pid, max_bytes)
        try:
            if receiver.read([*probe, len(hub_id)]) != hub_id:
                return None
        except (ChannelBroken, ProtocolViolation):
            return None
        return receiver

    def read(self, where: object) -> bytes:
        """Returns the payload that a record speaks of.

        Raises:
            ProtocolViolation: The record's words make no sense.
            ChannelBroken: The payload is not there (its sender died, above all).
        """
        if (
            type(where) is not list
            or len(where) < 3
            or any(type(value) is not int or value < 0 for value in where[:3])
        ):
            raise ProtocolViolation("a record speaks of shared memory in a malformed way")
        number, inode, size = where[:3]
        if size > self._max_bytes:
            raise ProtocolViolation(
                f"a payload of {size} bytes exceeds the limit of {self._max_bytes}"
            )
        try:
            fd = os.open(f"{self._directory}/{number}", _OPEN_FLAGS)
            try:
                fcntl.fcntl(fd, fcntl.F_GET_SEALS)  # fails for what is no file in memory
                found = os.fstat(fd).st_ino == inode
                payload = os.pread(fd, size, 0) if found else b""
            finally:
                os.close(fd)
        except OSError as error:
            raise ChannelBroken(f"a payload in shared memory cannot be read: {error}") from error
        if not found or len(payload) != size:
            raise ChannelBroken("a payload is not in shared memory any more")
        return payload
