"""The symmetric greeting of a new link: both ends state facts and derive the same settings.

Both send HELLO at once. The end whose hub has the smaller id then decides whether this link is
the one to keep: it answers READY, or CLOSE with the code `duplicate`. Because one end decides for
both, two processes that dial each other at the same time keep the same link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from antiphon_actors.channels.errors import HandshakeError, ProtocolViolation
from antiphon_actors.channels.framing import Kind, Record, expect, pack_record
from antiphon_actors.channels.limits import Limits

MAGIC: Final = b"antiphon-channel"
VERSION: Final = 1
LOWEST_VERSION: Final = 1

# Before its facts are known a stranger may not make us hold more than this.
HELLO_MAX_BYTES: Final = 64 << 10

_ID_BYTES: Final = 16
_MAX_URIS: Final = 16
_MAX_SHARED: Final = 8


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """What a hub says about itself.

    Attributes:
        name: Its name, for logs and metrics.
        pid: Its process id, as it sees it.
        hub_id: 16 random bytes; a restarted process has another.
        prefix: The process prefix of the frame ids it makes.
        uris: Where it listens.
        version: The protocol version used on this link.
        shared: Where to try whether its shared memory can be read, if it has any
            (`antiphon_actors.channels.shared_memory`).
    """

    name: str
    pid: int
    hub_id: bytes
    prefix: int = 0
    uris: tuple[str, ...] = ()
    version: int = VERSION
    shared: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Greeting:
    """An accepted HELLO: who is there, and what holds on the link."""

    peer: PeerFacts
    limits: Limits


def pack_hello(facts: PeerFacts, limits: Limits, shared: Sequence[int] = ()) -> bytes:
    """Returns the HELLO record that states `facts`, and offers `limits` and shared memory."""
    return pack_record(
        Kind.HELLO,
        MAGIC,
        LOWEST_VERSION,
        VERSION,
        {
            "name": facts.name,
            "pid": facts.pid,
            "id": facts.hub_id,
            "prefix": facts.prefix,
            "uris": list(facts.uris),
            "shared": list(shared),
        },
        limits.offer(),
    )


def read_hello(record: Record, own: Limits) -> Greeting:
    """Returns what the peer's HELLO amounts to.

    Raises:
        HandshakeError: It is no HELLO of this protocol, or no version is common to both.
    """
    if record[0] != Kind.HELLO:
        raise HandshakeError("the peer did not begin with HELLO")
    try:
        _, magic, lowest, highest, facts, offered = expect(record, bytes, int, int, dict, dict)[:6]
    except ProtocolViolation as error:
        raise HandshakeError(f"the peer's HELLO is malformed: {error}") from error
    if magic != MAGIC:
        raise HandshakeError("the peer does not speak this protocol")
    version = min(VERSION, highest)
    if version < max(LOWEST_VERSION, lowest):
        raise HandshakeError(
            f"no common protocol version: here {LOWEST_VERSION}-{VERSION}, peer {lowest}-{highest}"
        )
    name, pid, hub_id = facts.get("name"), facts.get("pid"), facts.get("id")
    prefix, uris = facts.get("prefix", 0), facts.get("uris", [])
    shared = facts.get("shared", [])
    if (
        type(name) is not str
        or type(pid) is not int
        or type(prefix) is not int
        or type(hub_id) is not bytes
        or len(hub_id) != _ID_BYTES
        or type(uris) is not list
        or len(uris) > _MAX_URIS
        or not all(type(uri) is str for uri in uris)
        or type(shared) is not list
        or len(shared) > _MAX_SHARED
        or not all(type(number) is int for number in shared)
    ):
        raise HandshakeError("the peer's HELLO states malformed facts")
    peer = PeerFacts(name, pid, hub_id, prefix, tuple(uris), version, tuple(shared))
    return Greeting(peer, own.agreed_with(offered))


def is_arbiter(own_id: bytes, peer_id: bytes, *, dialled: bool) -> bool:
    """Tells whether this end decides about duplicates (a hub that dials itself: its dialling end)."""
    return dialled if own_id == peer_id else own_id < peer_id
