"""Links within one event loop: the same records, no socket. For tests and co-located hubs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from antiphon_actors.channels.errors import ChannelBroken, ChannelBusy
from antiphon_actors.channels.limits import Limits
from antiphon_actors.channels.uris import Address
from antiphon_actors.channels.wire import Accept, Listener, Refused, Wire, WireOwner

# What a socket's kernel buffer would hold; beyond it the sender's own buffer fills.
_PIPE_BYTES = 208 << 10

_listeners: dict[str, InprocListener] = {}


class InprocWire(Wire):
    """One end of a pair. Bytes arrive in a later turn of the loop, all of one turn together."""

    gathers_writes = True

    def __init__(self, name: str, high_bytes: int) -> None:
        self.remote = f"inproc://{name}"
        self._loop = asyncio.get_running_loop()
        self._capacity = _PIPE_BYTES + high_bytes
        self._low_bytes = _PIPE_BYTES + high_bytes // 4
        self._other: InprocWire | None = None
        self._owner: WireOwner | None = None
        self._arrived: list[bytes] = []  # bounded like a socket: its writer is paused
        self._arrived_bytes = 0
        self._wake: asyncio.Handle | None = None
        self._reading = True
        self._peer_closed = False
        self._closing = False
        self._ended = False
        self._writer_paused = False

    def join(self, other: InprocWire) -> None:
        """Names the other end."""
        self._other = other

    def start(self, accept: Accept) -> None:
        """Gives this end to its link."""
        self._owner = accept(self)

    @property
    def unsent_bytes(self) -> int:
        """Nothing: what is written is with the other end already."""
        return 0

    def write(self, data: bytes) -> None:
        """Passes bytes to the other end; see `Wire`."""
        if not self._closing and self._other is not None:
            self._other._arrive(data)

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Passes several chunks; see `Wire`."""
        self.write(b"".join(chunks))

    def _arrive(self, data: bytes) -> None:
        if self._ended:
            return
        self._arrived.append(data)
        self._arrived_bytes += len(data)
        self._schedule()
        other = self._other
        if self._arrived_bytes > self._capacity and not self._writer_paused and other is not None:
            self._writer_paused = True
            if other._owner is not None:
                other._owner.wire_paused()

    def _schedule(self) -> None:
        if self._wake is None and not self._ended:
            self._wake = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._wake = None
        if self._reading and self._arrived and self._owner is not None:
            arrived, self._arrived = self._arrived, []
            self._arrived_bytes = 0
            self._owner.wire_bytes(arrived[0] if len(arrived) == 1 else b"".join(arrived))
            if self._writer_paused:
                self._writer_paused = False
                if self._other is not None and self._other._owner is not None:
                    self._other._owner.wire_resumed()
        if self._closing or (self._peer_closed and not self._arrived):
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._arrived.clear()
        if self._wake is not None:
            self._wake.cancel()
        owner, self._owner = self._owner, None
        other = self._other
        if other is not None and not other._ended:
            other._peer_closed = True
            other._schedule()
        if owner is not None:
            owner.wire_ended(error)

    def close(self) -> None:
        """Closes; what was written is with the other end already."""
        self._closing = True
        self._schedule()

    def abort(self) -> None:
        """Closes; see `Wire`."""
        self.close()

    def pause_reading(self) -> None:
        """Stops taking bytes; see `Wire`."""
        self._reading = False

    def resume_reading(self) -> None:
        """Takes bytes again; see `Wire`."""
        self._reading = True
        self._schedule()


class InprocListener(Listener):
    """A name that can be dialled."""

    def __init__(self, name: str, accept: Accept) -> None:
        self.uri = f"inproc://{name}"
        self.name = name
        self.accept = accept
        self.loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Frees the name."""
        if _listeners.get(self.name) is self:
            del _listeners[self.name]


class InprocTransport:
    """Transport of `inproc://` addresses."""

    async def listen(
        self, address: Address, accept: Accept, refused: Refused, limits: Limits
    ) -> Listener:
        """Takes the name; see `Transport`."""
        if address.target in _listeners:
            raise ChannelBusy(f"another hub listens at {address.uri}")
        listener = InprocListener(address.target, accept)
        _listeners[address.target] = listener
        return listener

    async def dial(self, address: Address, accept: Accept, limits: Limits) -> None:
        """Makes a pair; see `Transport`."""
        listener = _listeners.get(address.target)
        if listener is None or listener.loop is not asyncio.get_running_loop():
            raise ChannelBroken(f"nobody listens at {address.uri} in this event loop")
        near = InprocWire(address.target, limits.write_high_bytes)
        far = InprocWire(address.target, limits.write_high_bytes)
        near.join(far)
        far.join(near)
        far.start(listener.accept)
        near.start(accept)
