"""A model in actors, as a process that uses it sees it: which of them gets what, and what if one is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from loguru import logger

from antiphon.errors import AntiphonError, DeadlineExceededError, OverloadedError, ServiceError
from antiphon.frames.codec import CodecError
from antiphon.models.batching import Request
from antiphon.models.measures import Durations
from antiphon.models.model import ModelSpec, SessionState
from antiphon_actors.channels import ChannelError
from antiphon_actors.models import wire
from antiphon_actors.models.connection import AnswerStreams, Connection
from antiphon_actors.models.wire import Member, Members, Status
from antiphon_actors.session.endpoint import Endpoint

MAX_WAITING = 1024
"""Requests of one process that may wait for an actor of their model; more are refused."""

MAX_ATTEMPTS = 3
"""So many actors may be lost while they have a request. Whether it has killed them is not known."""

# After a search in vain the next one begins no sooner.
_PAUSE_SECS = 1.0


class Source(Protocol):
    """Where a model's actors are."""

    async def members(self, spec: ModelSpec, avoid: Sequence[str]) -> Sequence[Member]:
        """Those that take requests; waits until there is one.

        Args:
            spec: The model.
            avoid: Ids of actors that were lost.

        Raises:
            AntiphonError: There is none to be had, and why.
        """


class _Session:
    """A session, as it is in the process of its user.

    Attributes:
        connection: To the actor that has it; None while none does.
        number: With that actor.
        state: After its last answer, written; what an actor that takes it on begins with.
        asked: What has no answer yet, in order.
    """

    __slots__ = ("asked", "connection", "number", "options", "state")

    def __init__(self, options: Any) -> None:
        self.options = options
        self.connection: Connection | None = None
        self.number = 0
        self.state: tuple[int, Any] = wire.write_value(None)
        self.asked: dict[Request, None] = {}


class RemoteModel:
    """A model in actors: a `ModelBackend`.

    A request goes to the least busy actor. A session stays with one, which keeps its state; a copy comes
    back with every answer. When an actor is lost, what it has not answered is repeated elsewhere, and its
    sessions go on from their last answer. So every request is answered once, and is once in the state of
    its session.

    Args:
        spec: The model.
        deliver: Takes the requests that are over; see `ModelRunner`.
        endpoint: The process's hub.
        streams: Where its streams of answers are found.
        source: Where actors come from.
    """

    def __init__(
        self,
        spec: ModelSpec,
        deliver: Callable[[Sequence[Request]], None],
        endpoint: Endpoint,
        streams: AnswerStreams,
        source: Source,
    ) -> None:
        self.name = spec.name
        self._spec = spec
        self._deliver = deliver
        self._endpoint = endpoint
        self._streams = streams
        self._source = source
        # By the id of the actor.
        self._connections: dict[str, Connection] = {}
        self._version = 0
        self._sessions: dict[SessionState, _Session] = {}
        # Which connection has it, and as what number.
        self._sent: dict[Request, tuple[Connection, int]] = {}
        # Wait for a connection; bounded by MAX_WAITING.
        self._waiting: dict[Request, None] = {}
        self._search: asyncio.Task[None] | None = None
        self._failure: AntiphonError | None = None
        self._pause_until = 0.0
        # Actors lost since the last search; as many as there were.
        self._lost: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._round_trips = Durations()
        self._losses = self._repeats = self._moves = self._refusals = 0

    # --- a backend ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Waits until an actor of the model takes requests.

        Raises:
            AntiphonError: There is none to be had, and why.
        """
        while not self._ready():
            await asyncio.shield(self._look_for_actors())
            if self._failure is not None:
                raise self._failure

    def submit(self, request: Request) -> None:
        """Sends a request to an actor, or has it wait for one."""
        if self._closed:
            self._end(request, ServiceError(f"{self.name} is closed", provider=self.name))
            return
        request.arrived = time.monotonic()
        if request.session is not None:
            session = self._sessions[request.session]
            session.asked[request] = None
            if session.connection is not None and session.connection.leaving:
                return  # it follows when the actor has answered what it has
        self._send(request)

    def cancel(self, request: Request) -> None:
        """Takes a request back, wherever it is."""
        request.cancelled = True
        self._waiting.pop(request, None)
        sent = self._sent.get(request)
        self._over(request)
        if sent is not None:
            connection, number = sent
            connection.send(wire.write_cancel(number))

    def open(self, session: SessionState) -> None:
        """Takes note of a session; an actor is told with its first request."""
        self._sessions[session] = _Session(session.options)

    def forget(self, session: SessionState) -> None:
        """Tells the session's actor that it is over."""
        self._leave(self._sessions.pop(session))

    def statistics(self) -> dict[str, Any]:
        """Counters of this process; the actors have theirs."""
        return {
            "actors": len(self._ready()),
            "sessions": len(self._sessions),
            "queued": len(self._waiting),
            "unanswered": len(self._sent),
            "round_trip": self._round_trips.to_plain(),
            "refused": self._refusals,
            "actors_lost": self._losses,
            "repeated": self._repeats,
            "moved": self._moves,
        }

    def close(self) -> None:
        """Tells the actors that this process does not use the model any more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()

    # --- requests -------------------------------------------------------------------------------

    def _send(self, request: Request) -> None:
        """Gives a request to the actor of its session, or to the least busy one."""
        session = self._sessions.get(request.session) if request.session is not None else None
        connection = session.connection if session is not None else None
        if connection is None:
            connection = self._choose(request)
            if connection is None:
                return
            if session is not None and not self._enter(session, connection):
                return  # all of the session was sent elsewhere
        now = time.monotonic()
        if not connection.takes(now):
            self._refuse_for(request, [connection], now)
            return
        if request.deadline <= now:
            late = DeadlineExceededError(f"{self.name}: no answer in time", provider=self.name)
            self._end(request, late)
            return
        number = connection.next_number()
        try:
            payload = wire.write_value(request.payload)
        except CodecError as error:
            self._end(request, ServiceError(f"{self.name}: {error}", provider=self.name))
            return
        self._sent[request] = connection, number
        connection.asked[number] = request
        connection.sent_since += 1
        at = session.number if session is not None else 0
        connection.send(wire.write_request(number, at, request.deadline - now, payload))

    def _choose(self, request: Request) -> Connection | None:
        """The connection for a request that could go to any; None if it waits, or is over."""
        ready = self._ready()
        now = time.monotonic()
        if not ready:
            self._wait(request, now)
            return None
        willing = [connection for connection in ready if connection.takes(now)]
        if not willing:
            self._refuse_for(request, ready, now)
            return None
        if request.session is not None:
            return min(willing, key=lambda each: (each.load.sessions, *each.busy))
        return min(willing, key=lambda each: each.busy)

    def _wait(self, request: Request, now: float) -> None:
        """Has a request wait for an actor."""
        if self._search is None and self._failure is not None and now < self._pause_until:
            self._end(request, self._failure)
        elif len(self._waiting) >= MAX_WAITING:
            self._refuse(request, f"{MAX_WAITING} requests wait for {self.name}", _PAUSE_SECS)
        else:
            self._waiting[request] = None
            self._look_for_actors()

    def _refuse_for(self, request: Request, full: Iterable[Connection], now: float) -> None:
        """Refuses what actors would refuse."""
        retry_after = min(max(each.full_until - now, each.load.wait_secs / 2) for each in full)
        self._refuse(request, f"{self.name} has too much to do", max(retry_after, 0.001))

    def _refuse(self, request: Request, why: str, retry_after: float) -> None:
        self._refusals += 1
        self._end(request, OverloadedError(why, retry_after=retry_after, provider=self.name))

    def _end(self, request: Request, result: Any) -> None:
        """Gives a request back."""
        request.result = result
        self._over(request)
        self._deliver([request])

    def _over(self, request: Request) -> None:
        """Forgets a request; its session may now go on elsewhere."""
        sent = self._sent.pop(request, None)
        if sent is not None:
            connection, number = sent
            connection.asked.pop(number, None)
            self._let_go(connection)
        session = self._sessions.get(request.session) if request.session is not None else None
        if session is not None:
            session.asked.pop(request, None)
            self._move_on(session)

    # --- sessions -------------------------------------------------------------------------------

    def _enter(self, session: _Session, connection: Connection) -> bool:
        """Opens a session in an actor; False if that was lost meanwhile."""
        session.connection = connection
        session.number = connection.next_number()
        connection.sessions.add(session)
        return connection.send(wire.write_open(session.number, session.options, session.state))

    def _leave(self, session: _Session) -> None:
        """Takes a session out of its actor."""
        connection = session.connection
        if connection is not None:
            session.connection = None
            connection.sessions.discard(session)
            connection.send(wire.write_close(session.number))
            self._let_go(connection)

    def _let_go(self, connection: Connection) -> None:
        """Ends the connection to an actor that is leaving, once nothing of this process is there."""
        if connection.leaving and not connection.asked and not connection.sessions:
            self._connections.pop(connection.member.actor_id, None)
            connection.close()

    def _move_on(self, session: _Session) -> None:
        """Moves a session off an actor that is leaving, once that has answered what it has."""
        connection = session.connection
        if connection is None or not connection.leaving:
            return
        if any(request in self._sent for request in session.asked):
            return
        self._moves += 1
        self._leave(session)
        for request in list(session.asked):
            self._send(request)

    # --- what connections tell ------------------------------------------------------------------

    def answered(self, connection: Connection, answers: Iterable[Any]) -> None:
        """Takes the answers of a batch."""
        now = time.monotonic()
        over: list[Request] = []
        again: list[Request] = []
        for answer in answers:
            number, status, *rest = wire.check_answer(answer)
            request = connection.asked.get(number)
            if request is None:
                continue  # it was taken back
            if status == Status.OK:
                request.result = wire.read_value(rest[0], rest[1])
                if request.session is not None and len(rest) > 3:
                    self._sessions[request.session].state = rest[2], rest[3]
                self._round_trips.add(now - request.arrived)
            else:
                error = request.result = wire.read_error(self.name, status, rest)
                if isinstance(error, OverloadedError):
                    self._refusals += 1
                    connection.full_until = now + (error.retry_after or 0.0)
                    if request.session is None and self._has_willing(now):
                        again.append(request)
                        continue
            over.append(request)
        for request in over:
            self._over(request)
        for request in again:
            self._over(request)
            self._send(request)
        if over:
            self._deliver(over)

    def told(self, connection: Connection, said: Members) -> None:
        """Takes an actor's word about itself and the others."""
        if said.leaving and not connection.leaving:
            connection.leaving = True
            for session in list(connection.sessions):
                self._move_on(session)
            self._let_go(connection)
            if not self._ready():
                self._look_for_actors()
        self._send_waiting()
        if said.version > self._version and not self._closed:
            self._version = said.version
            for member in said.members:
                self._connecting(member)

    def lost(self, connection: Connection, why: str) -> None:
        """An actor cannot be reached any more: what it has goes elsewhere."""
        known = self._connections.get(connection.member.actor_id)
        if known is not connection or self._closed:
            return
        del self._connections[connection.member.actor_id]
        connection.close()
        self._lost.append(connection.member.actor_id)
        self._losses += 1
        logger.warning(
            "actor of a model lost",
            model=self.name,
            actor_id=connection.member.actor_id,
            reason=why,
            unanswered=len(connection.asked),
            sessions=len(connection.sessions),
        )
        sessions, connection.sessions = connection.sessions, set()
        asked, connection.asked = list(connection.asked.values()), {}
        for request in asked:
            del self._sent[request]
            request.attempts += 1
        for session in sessions:
            session.connection = None
        for request in asked:
            if request.attempts >= MAX_ATTEMPTS:
                failure = ServiceError(
                    f"{self.name}: {MAX_ATTEMPTS} actors were lost that had the request ({why})",
                    provider=self.name,
                )
                self._end(request, failure)
            elif request.session is None:
                self._repeats += 1
                self._send(request)
        for session in sessions:
            # In order, with those that were not sent yet.
            for request in list(session.asked):
                self._repeats += 1
                self._send(request)
        if not self._ready():
            self._look_for_actors()

    # --- connections ----------------------------------------------------------------------------

    def _ready(self) -> list[Connection]:
        return [each for each in self._connections.values() if each.ready]

    def _has_willing(self, now: float) -> bool:
        return any(each.takes(now) for each in self._ready())

    def _look_for_actors(self) -> asyncio.Task[None]:
        """Begins to look for actors, if that is not under way."""
        if self._search is None:
            self._search = self._spawn(self._find_actors())
            self._search.add_done_callback(self._search_over)
        return self._search

    async def _find_actors(self) -> None:
        try:
            errors = await self._join()
            if not self._ready():
                # They may have ended since they were named: nobody used them.
                errors = await self._join()
            if not self._ready():
                why = "; ".join(filter(None, errors)) or "there is none"
                raise ServiceError(
                    f"no actor of {self.name} can be reached: {why}",
                    retryable=True,
                    provider=self.name,
                )
            self._failure = None
        except AntiphonError as error:
            self._failure = error
            self._pause_until = time.monotonic() + _PAUSE_SECS

    async def _join(self) -> list[str]:
        """Joins the actors that there are; returns why some could not be."""
        lost, self._lost = self._lost, []
        members = await self._source.members(self._spec, lost)
        return await asyncio.gather(*(self._connect(member) for member in members))

    def _search_over(self, search: asyncio.Task[None]) -> None:
        self._search = None
        if not self._closed and not search.cancelled():
            self._send_waiting()

    def _send_waiting(self) -> None:
        """Sends what waits for an actor; before anything else of the same sessions."""
        waiting, self._waiting = list(self._waiting), {}
        for request in waiting:
            self._send(request)

    async def _connect(self, member: Member) -> str:
        """Joins an actor, or waits until that is done; returns why it is not possible."""
        return await asyncio.shield(self._connecting(member))

    def _connecting(self, member: Member) -> asyncio.Task[str]:
        """The task that joins an actor, begun if this is the first to ask."""
        connection = self._connections.get(member.actor_id)
        if connection is None or connection.opening is None:
            connection = Connection(self, member, self._streams)
            self._connections[member.actor_id] = connection
            connection.opening = self._spawn(self._open(connection))
        return connection.opening

    async def _open(self, connection: Connection) -> str:
        try:
            await connection.open(self._endpoint)
        except (ChannelError, TimeoutError) as error:
            why = str(error) or "it did not answer in time"
            self.lost(connection, why)
            return f"{connection.member.actor_id[:8]}: {why}"
        return ""

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=f"model {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("a task of a model failed", model=self.name)
