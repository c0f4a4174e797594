"""A user's way to one of a model's actors: its two streams, and what is under way on them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any, Protocol

from antiphon.models.batching import Request
from antiphon_actors.channels import (
    ChannelClosed,
    ChannelError,
    ChannelRefused,
    Delivery,
    Link,
    OutStream,
    StreamReceiver,
)
from antiphon_actors.models import wire
from antiphon_actors.models.wire import Kind, Load, Malformed, Member, Members
from antiphon_actors.session.endpoint import Endpoint

HELLO_SECS = 5.0
"""How long an actor may take to open its stream of answers."""


class Owner(Protocol):
    """What a connection tells, and to whom."""

    def answered(self, connection: Connection, answers: Iterable[Any]) -> None:
        """Takes the answers of a batch."""

    def told(self, connection: Connection, said: Members) -> None:
        """Takes an actor's word about itself and the others."""

    def lost(self, connection: Connection, why: str) -> None:
        """The actor cannot be reached any more."""


class AnswerStreams:
    """The streams of answers that a process expects, by their numbers.

    Args:
        endpoint: The process's hub.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._numbers = itertools.count(1)
        self._expected: dict[int, Connection] = {}
        endpoint.serve(wire.ANSWERS, self._came)

    def expect(self, connection: Connection) -> int:
        """Expects a stream for a connection; returns its number."""
        number = next(self._numbers)
        self._expected[number] = connection
        return number

    def give_up(self, number: int) -> None:
        """Lets the stream of that number in no more."""
        self._expected.pop(number, None)

    def _came(self, link: Link, number: int) -> StreamReceiver:
        connection = self._expected.get(number)
        if connection is None or connection.link is not link:
            raise ChannelRefused("nobody expects these answers")
        return connection


class Connection:
    """One process's connection to one of a model's actors.

    Attributes:
        member: The actor.
        link: To its process.
        leaving: Whether the actor takes nothing new, and only answers what it has.
        load: How busy the actor was when it last said.
        sent_since: Requests sent to it since.
        full_until: Before that it refuses requests.
        asked: What it has not answered, by number; bounded by what the actor lets wait.
        sessions: Those that it has.
        opening: Its `open`, or what the owner makes of that.
    """

    def __init__(self, owner: Owner, member: Member, streams: AnswerStreams) -> None:
        self.member = member
        self.link: Link | None = None
        self.leaving = False
        self.load = Load(0.0, 0.0, 0)
        self.sent_since = 0
        self.full_until = 0.0
        self._limit = 0
        self.asked: dict[int, Request] = {}
        self.sessions: set[Any] = set()
        self.opening: asyncio.Task[str] | None = None
        self._owner = owner
        self._streams = streams
        self._number = streams.expect(self)
        self._numbers = itertools.count(1)
        self._stream: OutStream | None = None
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self._greeted.done() and not self._closed and not self.leaving

    @property
    def busy(self) -> tuple[float, int]:
        """What is compared to find the least busy one."""
        return self.load.wait_secs + self.load.each_secs * self.sent_since, len(self.asked)

    def takes(self, now: float) -> bool:
        """Whether it would not refuse a request, as far as is known."""
        return self.full_until <= now and len(self.asked) < self._limit

    def next_number(self) -> int:
        """A number for a request or a session."""
        return next(self._numbers)

    async def open(self, endpoint: Endpoint) -> None:
        """Joins the actor, and waits until it has said how it is.

        Raises:
            ChannelError: It cannot be reached.
            TimeoutError: It does not answer.
        """
        self.link = await endpoint.link(self.member.uri)
        self._stream = await self.link.open_stream(wire.stream_key(wire.REQUESTS, self._number))
        async with asyncio.timeout(HELLO_SECS):
            await asyncio.shield(self._greeted)

    def send(self, record: bytes) -> bool:
        """Writes a record; False if the actor is lost, which the owner has been told then."""
        if self._stream is None or self._closed:
            return False
        try:
            # Urgent frames never wait; an actor that leaves thousands of them unread counts as lost.
            self._stream.send_nowait(record, urgent=True)
        except ChannelError as error:
            self._owner.lost(self, str(error))
            return False
        return True

    def close(self) -> None:
        """Ends both streams. Idempotent."""
        self._closed = True
        self._streams.give_up(self._number)
        if self._stream is not None:
            self._stream.abort()
        if not self._greeted.done():
            self._greeted.set_exception(ChannelClosed("the connection was closed"))
            self._greeted.exception()  # perhaps nobody waits

    # --- the stream of answers ------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Takes a record of the actor."""
        payload = delivery.payload
        delivery.done()
        if self._closed:
            return  # it crossed the end of this side
        record = wire.read_record(payload)
        if record[0] == Kind.ANSWERS:
            wait, each, sessions, answers = wire.fields(record, float, float, int, list)[:4]
            self.load, self.sent_since = Load(wait, each, sessions), 0
            self._owner.answered(self, answers)
        elif record[0] == Kind.MEMBERS:
            said = wire.read_members(record)
            self._limit = said.limit
            if not self._greeted.done():
                self._greeted.set_result(None)
            self._owner.told(self, said)
        else:
            raise Malformed(f"a record of kind {record[0]} among answers")

    def closed(self, reason: Exception | None) -> None:
        """The actor has ended, or its process is gone."""
        if not self._closed:
            self._owner.lost(self, str(reason or "it has ended"))
