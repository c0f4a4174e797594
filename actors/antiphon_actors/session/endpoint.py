"""A process's way to the other processes of its sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from antiphon_actors.channels import ChannelError, ChannelRefused, Hub, Link, StreamReceiver
from antiphon_actors.session import wire_types  # noqa: F401 - so that every process knows them

if TYPE_CHECKING:
    from antiphon_actors.session.node import SessionNode

CONNECT_DEADLINE_SECS = 5.0


class Endpoint:
    """One hub, shared by all sessions of this process, and the sessions themselves."""

    def __init__(self, name: str) -> None:
        """Makes an endpoint; start() opens it.

        Args:
            name: Name of the process, for logs and peers.
        """
        self._hub = Hub(
            name=name,
            on_stream=self._on_stream,
            on_call=self._on_call,
            on_notify=self._on_notify,
        )
        self._sessions: dict[str, SessionNode] = {}
        self.uri = ""

    async def start(self, uri: str) -> None:
        """Listens at a URI such as ``unix:///run/x.sock``."""
        await self._hub.__aenter__()
        self.uri = await self._hub.listen(uri)

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

    async def link(self, uri: str) -> Link:
        """The link to a process.

        Raises:
            ChannelError: If it cannot be reached.
        """
        return await self._hub.connect(uri, deadline_secs=CONNECT_DEADLINE_SECS)

    def _on_stream(self, link: Link, key: bytes) -> StreamReceiver:
        session_id, kind, pid, direction = _unpack(key, 4)
        return self._session(session_id).receiver(kind, pid, direction)

    async def _on_call(self, link: Link, method: str, body: bytes) -> bytes:
        session_id, payload = _unpack(body, 2)
        return await self._session(session_id).serve(method, payload)

    def _on_notify(self, link: Link, method: str, body: bytes) -> None:
        session_id, payload = _unpack(body, 2)
        node = self._sessions.get(session_id)
        if node is not None:  # a notice may cross the end of its session
            node.context.copy().run(node.noticed, method, payload)

    def _session(self, session_id: str) -> SessionNode:
        node = self._sessions.get(session_id)
        if node is None:
            raise ChannelRefused(f"session {session_id} is not here")
        return node


def pack(*parts: Any) -> bytes:
    """The form of stream keys and call bodies."""
    packed: bytes = msgpack.packb(parts)
    return packed


def _unpack(data: bytes, count: int) -> list[Any]:
    parts = msgpack.unpackb(data)
    if not isinstance(parts, list) or len(parts) != count or not isinstance(parts[0], str):
        raise ChannelError("malformed session key")
    return parts
