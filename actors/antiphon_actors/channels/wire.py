"""What a link needs from a transport, and what a transport tells its link."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from antiphon_actors.channels.credentials import Identity
from antiphon_actors.channels.limits import Limits
from antiphon_actors.channels.uris import Address


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the kernel says about the process at the other end.

    Attributes:
        pid: Its process id, as seen from here.
        uid: Its user.
        gid: Its group.
    """

    pid: int
    uid: int
    gid: int


class WireOwner(Protocol):
    """The side of a link that a transport calls, always from the event loop."""

    def wire_bytes(self, data: bytes | memoryview) -> None:
        """Some bytes arrived; a view is valid during the call only."""

    def wire_paused(self) -> None:
        """The transport's buffer is above its high-water mark; write no more for now."""

    def wire_resumed(self) -> None:
        """The transport can be written again."""

    def wire_ended(self, error: Exception | None) -> None:
        """The connection is gone; called exactly once, and nothing after it."""


class Wire(ABC):
    """One connected byte stream.

    Attributes:
        remote: The address at the other end, for messages.
        credentials: Who is at the other end, where the kernel tells.
        identity: Who is at the other end, where a certificate tells.
        local: Whether both ends are surely on one machine, so that an address of it (a path, a
            name) means the same at both.
        gathers_writes: Whether the transport itself turns the writes of one turn of the event loop
            into one system call.
    """

    remote: str = ""
    credentials: Credentials | None = None
    identity: Identity | None = None
    local: bool = True
    gathers_writes: bool = False

    @property
    @abstractmethod
    def unsent_bytes(self) -> int:
        """What was handed over and would be lost with this process."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Hands over bytes; they must not change afterwards."""

    @abstractmethod
    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Hands over several chunks at once."""

    @abstractmethod
    def close(self) -> None:
        """Closes once everything handed over has been written."""

    @abstractmethod
    def abort(self) -> None:
        """Closes now and drops what has not been written."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Stops taking bytes from the peer, which will feel it."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Takes bytes again."""


class Listener(ABC):
    """Accepts connections until closed.

    Attributes:
        uri: The bound address.
        pending: Connections taken that may not talk to us yet.
    """

    uri: str
    pending: int = 0

    @abstractmethod
    def close(self) -> None:
        """Stops accepting and removes what the address left behind; idempotent."""

    async def gone(self) -> None:  # noqa: B027 - most have nothing to wait for
        """Waits until nothing runs for it any more, once it is closed."""


Accept = Callable[[Wire], WireOwner]
Refused = Callable[[str], None]


class Transport(Protocol):
    """How to listen and to dial for one URI scheme."""

    async def listen(
        self, address: Address, accept: Accept, refused: Refused, limits: Limits
    ) -> Listener:
        """Binds the address.

        Args:
            address: Where.
            accept: Called with each new connection whose other end may talk to us.
            refused: Called with the reason for each connection turned away.
            limits: Bounds of the hub.

        Raises:
            ChannelBusy: Somebody else listens there.
            ChannelRefused: The place is not safe to listen at.
        """

    async def dial(self, address: Address, accept: Accept, limits: Limits) -> None:
        """Connects, and gives the wire to `accept` before it returns.

        Raises:
            ChannelBroken: Nobody listens there.
            ChannelRefused: Somebody listens who must not be talked to.
        """
