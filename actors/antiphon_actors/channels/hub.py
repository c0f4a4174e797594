"""The one place of a process where links begin, are found again, and end."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from loguru import logger

from antiphon_actors.channels.credentials import TlsCredentials
from antiphon_actors.channels.errors import (
    ChannelBroken,
    ChannelBusy,
    ChannelClosed,
    ChannelError,
    ChannelRefused,
    CredentialsError,
    DuplicateLink,
    HandshakeError,
    ProtocolViolation,
    again,
)
from antiphon_actors.channels.framing import Kind, pack_record
from antiphon_actors.channels.handshake import PeerFacts
from antiphon_actors.channels.hub_statistics import HubStatistics
from antiphon_actors.channels.in_stream import Acceptance, StreamReceiver
from antiphon_actors.channels.inproc import InprocTransport
from antiphon_actors.channels.limits import DEFAULT_LIMITS, Limits
from antiphon_actors.channels.link import CloseCode, Link, LinkState
from antiphon_actors.channels.shared_memory import SharedMemory
from antiphon_actors.channels.tls import TlsTransport
from antiphon_actors.channels.unix import UnixTransport
from antiphon_actors.channels.uris import Address, parse_uri
from antiphon_actors.channels.wire import Listener, Transport, Wire, WireOwner

OnStream = Callable[[Link, bytes], StreamReceiver | Acceptance]
OnCall = Callable[[Link, str, bytes], Awaitable[bytes]]
OnNotify = Callable[[Link, str, bytes], None]

# Between attempts while the peer still knows a link of ours that we know to be gone.
_REDIAL_SECS = 0.01

# Refusals logged in full a heartbeat period; the rest of a flood is logged as a number.
_REFUSALS_LOGGED = 8


class _DialExpired(ChannelBroken):
    """The deadline of a shared attempt has passed; the waiting caller's own may not have."""


class _TurnedAway:
    """Says why and hangs up, before any HELLO (a `WireOwner`)."""

    def __init__(self, wire: Wire, reason: str) -> None:
        wire.write(pack_record(Kind.CLOSE, CloseCode.REFUSED.value, reason))
        wire.close()

    def wire_bytes(self, data: bytes | memoryview) -> None:
        """Nothing is listened to."""

    def wire_paused(self) -> None:
        """Nothing more is written."""

    def wire_resumed(self) -> None:
        """Nothing more is written."""

    def wire_ended(self, error: Exception | None) -> None:
        """That was the aim."""


class Hub:
    """Links of one process; an async context manager, bound to the event loop it is entered in.

    All callbacks run in that loop. `on_stream`, `on_notify` and a receiver's methods are called
    straight from the receiving of bytes and must not block.
    """

    def __init__(
        self,
        *,
        name: str,
        on_stream: OnStream,
        on_call: OnCall,
        on_notify: OnNotify | None = None,
        limits: Limits = DEFAULT_LIMITS,
        prefix: int = 0,
        credentials: TlsCredentials | None = None,
    ) -> None:
        """Opens nothing and reads no file.

        Args:
            name: For peers' logs and metrics.
            on_stream: Decides about a stream that a peer opens, by its key: returns the receiver
                (in an `Acceptance` if more is to be said) or raises, which the peer sees as
                `ChannelRefused` with the message.
            on_call: Runs a call of a peer; what it raises travels as `RemoteCallError`. It is
                cancelled when the caller gives up or the link is lost.
            on_notify: Takes a peer's notification.
            limits: Bounds offered to every peer.
            prefix: The process prefix of this process's frame ids, told to peers.
            credentials: Where this process's certificate is and whom it talks to over `tls://`;
                without them such addresses are refused.
        """
        self.limits = limits
        self.facts = PeerFacts(name, os.getpid(), secrets.token_bytes(16), prefix)
        self.shared = SharedMemory(limits, self.facts.hub_id)
        self._on_stream = on_stream
        self._on_call = on_call
        self._on_notify = on_notify
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tls = TlsTransport(credentials) if credentials is not None else None
        self._transports: dict[str, Transport] = {
            "unix": UnixTransport(),
            "inproc": InprocTransport(),
        }
        if self._tls is not None:
            self._transports["tls"] = self._tls
        self._listeners: list[Listener] = []
        self._links: set[Link] = set()  # bounded by max_links
        self._leaving: set[Link] = set()  # ended, but their connection is not gone yet
        self._by_peer: dict[bytes, Link] = {}
        self._by_uri: dict[str, Link] = {}
        self._dials: dict[str, asyncio.Task[Link]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # bounded by max_calls a link
        self._ticker: asyncio.TimerHandle | None = None
        self._closed = False
        self._opened = 0
        self._refused = 0
        self._refused_before = 0
        self._handshakes_failed = 0
        self._duplicates = 0
        self._violations = 0
        self._broken = 0
        self._overflows = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._schedule_tick()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def links(self) -> tuple[Link, ...]:
        """Links that are established."""
        return tuple(link for link in self._links if link.state is LinkState.OPEN)

    async def listen(self, uri: str) -> str:
        """Accepts links at an address and returns it as bound; peers learn it in the handshake.

        For `unix:///dir/x.sock` the directory is made with mode 0700 if needed, the socket file
        of a dead process is replaced, and processes of other users are turned away.

        For `tls://host:port` the host is one of this machine's addresses (127.0.0.1 if left out),
        port 0 takes a free one, and processes without a valid certificate are turned away.

        Raises:
            UnsupportedAddress: The URI is malformed or its scheme has no transport.
            ChannelBusy: Somebody else listens there.
            ChannelRefused: The place is not safe: open to other users, not a socket, or every
                address of the machine at once.
            CredentialsError: A `tls://` address, and this process's certificate cannot be used.
            ChannelClosed: The hub is closed.
        """
        self._check_usable()
        address = parse_uri(uri)
        transport = self._transport(address)
        listener = await transport.listen(address, self._accept, self._turned_away, self.limits)
        if self._closed:
            listener.close()
            raise ChannelClosed("the hub was closed")
        self._listeners.append(listener)
        self.facts = replace(self.facts, uris=(*self.facts.uris, listener.uri))
        return listener.uri

    async def connect(self, uri: str, *, deadline_secs: float) -> Link:
        """Returns the link to the process that listens at `uri`, making it if there is none.

        One link joins two processes, whichever side asked for it first and however many ask.
        Cancelling leaves an attempt running, at most until its deadline, for others to use.

        Raises:
            UnsupportedAddress: The URI is malformed or its scheme has no transport.
            ChannelBroken: Nobody listens there, or there was no link within the deadline.
            ChannelRefused: The process there belongs to another user, has no valid certificate of
                this cluster, or has too many links.
            CredentialsError: A `tls://` address, and this process's certificate cannot be used.
            HandshakeError: The two sides could not agree.
            ChannelBusy: This hub has too many links.
            ChannelClosed: The hub is closed.
        """
        self._check_usable()
        address = parse_uri(uri)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_secs
        self._transport(address)
        link = self._by_uri.get(address.uri)
        if link is not None and link.state is LinkState.OPEN:
            return link
        if len(self._links) >= self.limits.max_links:
            raise ChannelBusy(f"{len(self._links)} links exist already")
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    dial = self._dialling(address, deadline)
                    try:
                        return await asyncio.shield(dial)
                    except _DialExpired:
                        # Somebody in more of a hurry began that attempt.
                        await asyncio.sleep(0)
        except TimeoutError as error:
            raise ChannelBroken(f"no link to {uri} within {deadline_secs} s") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise ChannelClosed("the hub was closed") from None
            raise
        except ChannelError as error:
            raise again(error) from error

    def _dialling(self, address: Address, deadline: float) -> asyncio.Task[Link]:
        dial = self._dials.get(address.uri)
        if dial is None:
            dial = asyncio.get_running_loop().create_task(
                self._dial(address, deadline), name=f"{self.facts.name}: dial {address.uri}"
            )
            self._dials[address.uri] = dial
            dial.add_done_callback(partial(self._dial_done, address.uri))
        return dial

    async def _dial(self, address: Address, deadline: float) -> Link:
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    link = await self._dial_once(address)
                    try:
                        await link.established()
                    except DuplicateLink:
                        known = self._by_peer.get(link.peer.hub_id)
                        if known is not None and known.state is LinkState.OPEN:
                            link = known
                        else:
                            await asyncio.sleep(_REDIAL_SECS)
                            continue
                    except asyncio.CancelledError:
                        link.abort("nobody waits for it any more")
                        raise
                    self._by_uri[address.uri] = link
                    return link
        except TimeoutError as error:
            raise _DialExpired(f"no link to {address.uri} within its deadline") from error

    async def _dial_once(self, address: Address) -> Link:
        made: list[Link] = []
        transport = self._transport(address)
        try:
            await transport.dial(address, partial(self._begin, made), self.limits)
        except ChannelRefused as error:
            self._turned_away(str(error))
            raise
        except HandshakeError as error:
            self._handshake_failed(error)
            raise
        return made[0]

    def _dial_done(self, uri: str, dial: asyncio.Task[Link]) -> None:
        if self._dials.get(uri) is dial:
            del self._dials[uri]
        if not dial.cancelled():
            dial.exception()  # whoever still waits gets it; perhaps nobody does

    async def aclose(self) -> None:
        """Stops listening, says goodbye on every link, cancels what runs. Idempotent.

        Takes at most about twice `close_secs`; cancelling aborts the rest.
        """
        listeners = self._shut()
        for dial in list(self._dials.values()):
            dial.cancel()
        try:
            for listener in listeners:
                await listener.gone()
            closing = [asyncio.ensure_future(link.aclose()) for link in self._links]
            try:
                if closing:
                    await asyncio.wait(closing)
            finally:
                for task in closing:
                    task.cancel()
            leaving = [asyncio.ensure_future(link.gone()) for link in self._leaving]
            if leaving:
                await asyncio.wait(leaving)
            rest: set[asyncio.Task[Any]] = {*self._tasks, *self._dials.values()}
            for task in rest:
                task.cancel()
            if rest:
                _, stuck = await asyncio.wait(rest, timeout=self.limits.close_secs)
                for task in stuck:
                    logger.error("task does not end", task=task.get_name())
        finally:
            self.abort()

    def abort(self) -> None:
        """Ends everything at once, without waiting. Idempotent."""
        self._shut()
        for link in list(self._links):
            link.abort("the hub was aborted")
        for task in self._tasks:
            task.cancel()
        for dial in self._dials.values():
            dial.cancel()
        self.shared.close()

    def _shut(self) -> list[Listener]:
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        return listeners

    def rotate_credentials(self) -> None:
        """Reads this process's key and certificates again, for the links made from now on.

        That happens by itself when the files have changed and the next link is made; this says at
        once whether they are good. Established links go on as they are.

        Raises:
            CredentialsError: They cannot be used, and the old ones stay in use; or the hub has none.
        """
        if self._tls is None:
            raise CredentialsError("the hub was made without `credentials`")
        self._tls.reload()

    def statistics(self) -> HubStatistics:
        """Returns the counters as they are now."""
        return HubStatistics(
            links=tuple(link.statistics() for link in self._links),
            opened=self._opened,
            refused=self._refused,
            handshaking=sum(listener.pending for listener in self._listeners),
            handshakes_failed=self._handshakes_failed,
            duplicates=self._duplicates,
            violations=self._violations,
            broken=self._broken,
            overflows=self._overflows,
            shared_payloads=self.shared.in_use,
            shared_bytes=self.shared.held_bytes,
            tasks=len(self._tasks) + len(self._dials),
            certificate_expires=self._tls.expires if self._tls is not None else None,
        )

    def _transport(self, address: Address) -> Transport:
        transport = self._transports.get(address.scheme)
        if transport is None:
            raise CredentialsError(
                f"{address.uri} needs a certificate: give the Hub `credentials=TlsCredentials(...)`"
            )
        return transport

    def _check_usable(self) -> None:
        if self._closed:
            raise ChannelClosed("the hub is closed")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "a hub is used in the event loop it was entered in: `async with hub`"
            )

    # New connections.

    def _accept(self, wire: Wire) -> WireOwner:
        if self._closed or len(self._links) >= self.limits.max_links:
            reason = "the hub is closed" if self._closed else "the hub has too many links"
            self._turned_away(reason)
            return _TurnedAway(wire, f"{self.facts.name}: {reason}")
        link = Link(self, wire, dialled=False)
        self._links.add(link)
        return link

    def _begin(self, made: list[Link], wire: Wire) -> Link:
        link = Link(self, wire, dialled=True)
        self._links.add(link)
        made.append(link)
        return link

    def _turned_away(self, reason: str) -> None:
        self._refused += 1
        if self._refused - self._refused_before <= _REFUSALS_LOGGED:
            logger.warning("connection refused", hub=self.facts.name, reason=reason)

    def _handshake_failed(self, error: HandshakeError) -> None:
        self._handshakes_failed += 1
        logger.warning("handshake failed", hub=self.facts.name, error=str(error))

    # What links ask (`LinkOwner`).

    def link_wanted(self, link: Link) -> bool:
        """Tells whether no other link with that peer lives."""
        known = self._by_peer.get(link.peer.hub_id)
        return known is None or known.state is not LinkState.OPEN

    def link_open(self, link: Link) -> None:
        """Makes the link findable."""
        self._opened += 1
        peer = link.peer
        if peer.hub_id == self.facts.hub_id and not link.dialled:
            return  # the far end of a link to ourselves; the near end is the one to find
        known = self._by_peer.get(peer.hub_id)
        self._by_peer[peer.hub_id] = link
        for uri in peer.uris:
            # A path on another machine is not the path of that name here.
            if link.wire.local or uri.startswith("tls://"):
                self._by_uri[uri] = link
        if known is not None and known.state is not LinkState.ENDED:
            # The peer decided for this one because the old is gone on its side.
            known.abort("replaced by a newer link of the same process")

    def link_ended(self, link: Link, error: ChannelError) -> None:
        """Forgets the link and counts why it ended."""
        self._links.discard(link)
        self._leaving.add(link)
        if self._by_peer.get(link.peer.hub_id) is link:
            del self._by_peer[link.peer.hub_id]
        for uri in [uri for uri, known in self._by_uri.items() if known is link]:
            del self._by_uri[uri]
        if isinstance(error, DuplicateLink):
            self._duplicates += 1
        elif isinstance(error, HandshakeError):
            self._handshake_failed(error)
        elif isinstance(error, ProtocolViolation):
            self._violations += 1
        elif isinstance(error, ChannelBroken):
            self._broken += 1
        elif isinstance(error, ChannelBusy):
            self._overflows += 1

    def link_gone(self, link: Link) -> None:
        """Lets go of the link."""
        self._leaving.discard(link)

    def stream_opened(self, link: Link, key: bytes) -> StreamReceiver | Acceptance:
        """Asks the application about a new stream."""
        if self._closed or link.state is not LinkState.OPEN:
            raise ChannelRefused(f"{self.facts.name} is closing")
        return self._on_stream(link, key)

    def call_received(self, link: Link, method: str, body: bytes) -> Awaitable[bytes]:
        """Gives a call to the application."""
        return self._on_call(link, method, body)

    def notified(self, link: Link, method: str, body: bytes) -> None:
        """Gives a notification to the application."""
        if self._on_notify is None:
            logger.warning("notification dropped: nobody takes them", method=method)
            return
        try:
            self._on_notify(link, method, body)
        except Exception:  # noqa: BLE001 - it has no caller to go to
            logger.exception("notification handler failed", method=method)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Starts a task that ends with the hub at the latest."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self.facts.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # One timer for the heartbeats of all links.

    def _schedule_tick(self) -> None:
        assert self._loop is not None
        self._ticker = self._loop.call_later(self.limits.heartbeat_period_secs, self._tick)

    def _tick(self) -> None:
        self._schedule_tick()
        assert self._loop is not None
        unlogged = self._refused - self._refused_before - _REFUSALS_LOGGED
        if unlogged > 0:
            logger.warning("more connections refused", hub=self.facts.name, count=unlogged)
        self._refused_before = self._refused
        now = self._loop.time()
        for link in list(self._links):
            link.tick(now)
