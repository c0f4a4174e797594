"""A process's way to the other processes of its sessions."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from time import monotonic_ns
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgpack
from loguru import logger

from antiphon_actors.channels import (
    Acceptance,
    ChannelError,
    ChannelRefused,
    Delivery,
    Hub,
    Link,
    StreamReceiver,
)
from antiphon_actors.channels.uris import ProcessAddress
from antiphon_actors.session import wire_types  # noqa: F401 - so that every process knows them

if TYPE_CHECKING:
    from antiphon_actors.session.network import Network
    from antiphon_actors.session.node import SessionNode

CONNECT_DEADLINE_SECS = 5.0

LINE = "line"
"""Kind of the streams of callers' lines (`antiphon_actors.session.line`)."""
Service = Callable[[Link, int], StreamReceiver]

_CLOCK, _CLOCK_OFFSET = "clock", "clock_offset"
# The quickest of so many questions says best what another node's clock shows.
_CLOCK_QUESTIONS = 4
# A difference that small is the measurement's: one machine that plays several nodes.
_SAME_CLOCK_NS = 1_000_000
_NANOSECONDS = struct.Struct(">q")


class Endpoint:
    """One hub, shared by all sessions of this process, and the sessions themselves.

    A process is known by its `uri`. Who connects to it chooses: from the same node its Unix socket,
    from another one TLS, and then the certificate must be that of the node it is said to be on.
    """

    def __init__(self, name: str, network: Network | None = None) -> None:
        """Makes an endpoint; start() opens it.

        Args:
            name: Name of the process, for logs and peers.
            network: This node's place among others; None for a process that talks to none.
        """
        self._network = network
        self._hub = Hub(
            name=name,
            on_stream=self._on_stream,
            on_call=self._on_call,
            on_notify=self._on_notify,
            credentials=network.credentials if network is not None else None,
        )
        self._sessions: dict[str, SessionNode] = {}
        self._lines: dict[str, Callable[[Link], StreamReceiver]] = {}
        # What takes streams that belong to no session, by their kind.
        self._services: dict[str, Service] = {}
        # How far this node's CLOCK_MONOTONIC is ahead of the peer's, for links between nodes.
        self._offsets_ns: WeakKeyDictionary[Link, int] = WeakKeyDictionary()
        self._refused = 0
        self.uri = ""

    async def start(self, uri: str) -> None:
        """Listens at a URI such as ``unix:///run/x.sock``, and for other nodes if there are any.

        Raises:
            ChannelError: It cannot listen there, or its certificate cannot be used.
        """
        await self._hub.__aenter__()
        local = await self._hub.listen(uri)
        if self._network is None:
            self.uri = local
            return
        remote = await self._hub.listen(self._network.listen_uri)
        self.uri = ProcessAddress(local, remote, self._network.node).text

    async def aclose(self) -> None:
        """Closes every link."""
        await self._hub.aclose()

    def abort(self) -> None:
        """Ends every link at once, as if the process had died."""
        self._hub.abort()

    @property
    def sessions(self) -> dict[str, SessionNode]:
        """The sessions this process takes part in."""
        return self._sessions

    def statistics(self) -> dict[str, object]:
        """Counters of the process's links, for tables and metrics.

        `refused` counts connections of processes without a valid certificate, or with that of
        another node than they were taken for; `certificate_expires` is in seconds since 1970.
        """
        counted = self._hub.statistics()
        return {
            "links": len(counted.links),
            "opened": counted.opened,
            "broken": counted.broken,
            "refused": counted.refused + self._refused,
            "handshakes_failed": counted.handshakes_failed,
            "violations": counted.violations,
            "certificate_expires": counted.certificate_expires,
        }

    def join(self, node: SessionNode) -> None:
        """Lets frames and calls of a session in.

        Raises:
            ChannelError: If the session takes part already.
        """
        if node.session_id in self._sessions:
            raise ChannelError(f"session {node.session_id} is already here")
        self._sessions[node.session_id] = node

    def leave(self, node: SessionNode) -> None:
        """Lets nothing of the session in any more."""
        if self._sessions.get(node.session_id) is node:
            del self._sessions[node.session_id]

    def join_line(self, name: str, accept: Callable[[Link], StreamReceiver]) -> None:
        """Lets the other end of a caller's line in.

        Raises:
            ChannelError: If the line is here already.
        """
        if name in self._lines:
            raise ChannelError(f"line {name} is already here")
        self._lines[name] = accept

    def leave_line(self, name: str, accept: Callable[[Link], StreamReceiver]) -> None:
        """Lets nobody into the line any more; does nothing where it is another's."""
        if self._lines.get(name) == accept:
            del self._lines[name]

    def serve(self, kind: str, service: Service) -> None:
        """Lets streams in that belong to no session: those with a key of `pack("", kind, number, 0, None)`.

        Args:
            kind: What they are.
            service: Decides about each, by its number: returns the receiver or raises ChannelRefused.
        """
        self._services[kind] = service

    async def link(self, uri: str) -> Link:
        """The link to a process, known by its `uri`.

        Raises:
            ChannelError: If it cannot be reached, or is not of the node it is said to be on.
        """
        address = ProcessAddress.parse(uri)
        if not address.remote or (self._network and self._network.node == address.node):
            return await self._hub.connect(address.local, deadline_secs=CONNECT_DEADLINE_SECS)
        link = await self._hub.connect(address.remote, deadline_secs=CONNECT_DEADLINE_SECS)
        if link.identity is None or link.identity.name != address.node:
            self._refused += 1
            found = link.identity.uri if link.identity is not None else "a process of this node"
            logger.warning("process of another node than expected", uri=uri, found=found)
            raise ChannelRefused(f"at {address.remote} is {found}, not node {address.node}")
        if link not in self._offsets_ns:
            self._offsets_ns[link] = await self._ask_clock(link)
        return link

    def clock_offset_ns(self, link: Link) -> int:
        """What to add to a time of the peer's CLOCK_MONOTONIC to get this machine's."""
        return self._offsets_ns.get(link, 0)

    async def _ask_clock(self, link: Link) -> int:
        """Asks another node for its time, and tells it what this one makes of it."""
        best: tuple[int, int] | None = None
        for _ in range(_CLOCK_QUESTIONS):
            asked = monotonic_ns()
            answer = await link.call(_CLOCK, b"", deadline_secs=CONNECT_DEADLINE_SECS)
            answered = monotonic_ns()
            if len(answer) != _NANOSECONDS.size:
                raise ChannelError(f"malformed time from {link.peer.name}")
            (theirs,) = _NANOSECONDS.unpack(answer)
            # The answer was given about half-way.
            found = (answered - asked, (asked + answered) // 2 - theirs)
            best = min(best, found) if best is not None else found
        assert best is not None
        offset_ns = best[1] if abs(best[1]) > _SAME_CLOCK_NS else 0
        # Streams that are opened from here on arrive after it.
        link.notify(_CLOCK_OFFSET, _NANOSECONDS.pack(-offset_ns))
        return offset_ns

    def _on_stream(self, link: Link, key: bytes) -> StreamReceiver | Acceptance:
        session_id, kind, pid, direction, extra = _unpack(key, 5)
        if kind == LINE:
            if session_id not in self._lines:
                raise ChannelRefused(f"line {session_id} is not here")
            return self._lines[session_id](link)
        if not session_id:
            if kind not in self._services:
                raise ChannelRefused(f"nothing here takes streams of kind {kind!r}")
            return self._services[kind](link, pid)
        accepted = self._session(session_id).receiver(link, kind, pid, direction, extra)
        offset_ns = self.clock_offset_ns(link)
        if not offset_ns:
            return accepted
        if isinstance(accepted, Acceptance):
            return replace(accepted, receiver=_FromAnotherNode(accepted.receiver, offset_ns))
        return _FromAnotherNode(accepted, offset_ns)

    async def _on_call(self, link: Link, method: str, body: bytes) -> bytes:
        if method == _CLOCK:
            return _NANOSECONDS.pack(monotonic_ns())
        session_id, payload = _unpack(body, 2)
        return await self._session(session_id).serve(method, payload)

    def _on_notify(self, link: Link, method: str, body: bytes) -> None:
        if method == _CLOCK_OFFSET:
            if len(body) != _NANOSECONDS.size:
                raise ChannelError("malformed time")
            self._offsets_ns[link] = _NANOSECONDS.unpack(body)[0]
            return
        session_id, payload = _unpack(body, 2)
        node = self._sessions.get(session_id)
        if node is not None:  # a notice may cross the end of its session
            node.context.copy().run(node.noticed, method, payload)

    def _session(self, session_id: str) -> SessionNode:
        node = self._sessions.get(session_id)
        if node is None:
            raise ChannelRefused(f"session {session_id} is not here")
        return node


class _FromAnotherNode:
    """Puts the times of another machine's clock on this one's."""

    def __init__(self, receiver: StreamReceiver, offset_ns: int) -> None:
        self._receiver = receiver
        self._offset_ns = offset_ns

    def deliver(self, delivery: Delivery) -> None:
        """Takes a record of the stream."""
        delivery.sent_ns += self._offset_ns
        self._receiver.deliver(delivery)

    def closed(self, reason: Exception | None) -> None:
        """Passes the end on."""
        self._receiver.closed(reason)


def pack(*parts: Any) -> bytes:
    """The form of stream keys and call bodies."""
    packed: bytes = msgpack.packb(parts)
    return packed


def _unpack(data: bytes, count: int) -> list[Any]:
    parts = msgpack.unpackb(data)
    if not isinstance(parts, list) or len(parts) != count or not isinstance(parts[0], str):
        raise ChannelError("malformed session key")
    return parts
