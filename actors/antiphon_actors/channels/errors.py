"""What can go wrong with a link, a stream or a call, as one family under `ChannelError`."""

from __future__ import annotations

from typing import TypeVar

from antiphon.errors import ChannelError

__all__ = [
    "CallDeadlineExceeded",
    "ChannelBroken",
    "ChannelBusy",
    "ChannelClosed",
    "ChannelError",
    "ChannelRefused",
    "CredentialsError",
    "DuplicateLink",
    "EndOfChannel",
    "HandshakeError",
    "ProtocolViolation",
    "RemoteCallError",
    "UnsupportedAddress",
    "again",
]

PlainValue = None | bool | int | float | str

_E = TypeVar("_E", bound=BaseException)


class ChannelClosed(ChannelError):
    """This side closed the link or the stream; nothing more can be sent on it."""


class EndOfChannel(ChannelError):
    """The peer closed the link or the stream in good order."""


class ChannelBroken(ChannelError):
    """The link ended without a goodbye: the peer died, stalled or could not be reached."""


class ProtocolViolation(ChannelBroken):
    """The peer sent something malformed, oversized, unknown or out of sequence."""


class ChannelBusy(ChannelError):
    """A bound of the channel is reached: too many calls or streams, or a peer that stopped reading."""


class ChannelRefused(ChannelError):
    """The other side (or this one, for an unsafe address) declined a link or a stream."""


class UnsupportedAddress(ChannelError):
    """The URI is malformed, or no transport exists for its scheme."""


class CredentialsError(ChannelError):
    """This process's own key or certificates cannot be used; the message names file and cause."""


class HandshakeError(ChannelError):
    """The two ends of a new link could not agree (magic, version, facts, deadline)."""


class DuplicateLink(HandshakeError):
    """A link to that process exists already; the handshake kept the older one."""


class CallDeadlineExceeded(ChannelError, TimeoutError):
    """A call had no answer within its deadline; its handler at the peer is cancelled."""


class RemoteCallError(ChannelError):
    """The handler of a call raised at the peer.

    Attributes:
        type_name: Name of the exception's class at the peer.
        message: Its text.
        data: Its plain attributes (`retryable`, `retry_after`, `status`, ...).
    """

    def __init__(
        self, type_name: str, message: str, data: dict[str, PlainValue] | None = None
    ) -> None:
        super().__init__(type_name, message, data or {})
        self.type_name = type_name
        self.message = message
        self.data: dict[str, PlainValue] = data or {}

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"


def again(error: _E) -> _E:
    """Returns a new exception equal to `error`, so that raising it does not grow its traceback."""
    fresh = type(error)(*error.args)
    fresh.__cause__ = error.__cause__
    return fresh
