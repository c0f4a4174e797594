"""Runs one model for the processes that link to this one."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from time import monotonic_ns
from typing import Any

from loguru import logger

from antiphon.models.batching import Request
from antiphon.models.model import ModelSpec, SessionState
from antiphon.models.runner import ModelRunner
from antiphon_actors.channels import ChannelError, Delivery, Link, OutStream
from antiphon_actors.models import wire
from antiphon_actors.models.pools import Report
from antiphon_actors.models.wire import Kind, Load, Malformed, Member, Members
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.network import Network

# How long the thread of the loop, or that of the model, may keep the interpreter while the other one waits
# for it. At Python's own 5 ms a batch that is done is noticed that much later.
_SWITCH_SECS = 0.0005


class _User:
    """A process that uses the model: its requests come here, its answers leave here."""

    def __init__(self, host: ModelHost, link: Link) -> None:
        self._host = host
        self.link = link
        self.answers: OutStream | None = None
        self.gone = False
        self.sessions: dict[int, SessionState] = {}  # bounded by the host's max_sessions
        # Those that are not answered; bounded by the model's queue and batch.
        self.asked: dict[int, Request] = {}
        # Answers to leave with the next record; as many.
        self.waiting: list[Any] = []

    def deliver(self, delivery: Delivery) -> None:
        """Takes a record of the stream of requests."""
        # The model's queue is what is bounded, and by refusals: a record is processed when it is read.
        payload, sent_ns = delivery.payload, delivery.sent_ns
        delivery.done()
        if self.gone:
            return  # the end of its answers has told it
        record = wire.read_record(payload)
        match record[0]:
            case Kind.REQUEST:
                self._request(record, sent_ns)
            case Kind.CANCEL:
                (number,) = wire.fields(record, int)[:1]
                request = self.asked.pop(number, None)
                if request is not None:
                    self._host.runner.cancel(request)
            case Kind.OPEN:
                self._open(record)
            case Kind.CLOSE:
                (number,) = wire.fields(record, int)[:1]
                session = self.sessions.pop(number, None)
                if session is not None:
                    self._host.runner.forget(session)
            case kind:
                raise Malformed(f"a record of kind {kind} among requests")

    def closed(self, reason: Exception | None) -> None:
        """The process does not use the model any more, or is gone."""
        self._host.user_left(self)

    def leave(self) -> None:
        """Frees what the process has here."""
        self.gone = True
        for request in self.asked.values():
            self._host.runner.cancel(request)
        self.asked.clear()
        for session in self.sessions.values():
            self._host.runner.forget(session)
        self.sessions.clear()
        self.waiting.clear()
        if self.answers is not None:
            self.answers.abort()

    def _request(self, record: list[Any], sent_ns: int) -> None:
        number, session_number, remaining_secs, how, what = wire.fields(
            record, int, int, float, int
        )[:5]
        runner = self._host.runner
        runner.counts.transport.add((monotonic_ns() - sent_ns) / 1e9)
        session = None
        if session_number:
            session = self.sessions.get(session_number)
            if session is None:
                raise Malformed(f"a request of session {session_number}, which is not open")
        if number in self.asked:
            raise Malformed(f"request {number} comes twice")
        request = Request(
            wire.read_value(how, what), time.monotonic() + remaining_secs, (self, number), session
        )
        self.asked[number] = request
        runner.submit(request)

    def _open(self, record: list[Any]) -> None:
        number, how, options, state_how, state = (*wire.fields(record, int), None)[:5]
        if number in self.sessions or number <= 0:
            raise Malformed(f"session {number} is open already")
        session = SessionState(wire.read_value(how, options), wire.read_value(state_how, state))
        self.sessions[number] = session
        self._host.runner.open(session)


class ModelHost:
    """One model, its queue and its users.

    Args:
        spec: The model.
        hub_dir: Directory for the socket of the process's hub.
        network: The node's place among others; None if sessions stay on one node.
    """

    def __init__(self, spec: ModelSpec, hub_dir: str, network: Network | None = None) -> None:
        name = f"model-{os.getpid()}"
        self.spec = spec
        self.runner = ModelRunner(spec, self._deliver, export=True)
        self._endpoint = Endpoint(name, network)
        self._socket = Path(hub_dir) / f"{name}.sock"
        self._users: set[_User] = set()  # bounded by the hub's links and streams
        self._tasks: set[asyncio.Task[None]] = set()
        self._said = Members(0, False, self.runner.limits.most, ())
        # What the last report went up to: the time, and the counters of which it tells the growth.
        self._reported: tuple[float, ...] = (time.monotonic(), 0, 0.0, 0.0, 0)

    @property
    def uri(self) -> str:
        """Where other processes reach this one."""
        return self._endpoint.uri

    async def start(self) -> str:
        """Loads the model, lets users in when it is warm, and returns the hub's URI.

        Raises:
            AntiphonError: It cannot be loaded.
        """
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECS))
        await self.runner.start()
        self._endpoint.serve(wire.REQUESTS, self._user_came)
        await self._endpoint.start(f"unix://{self._socket}")
        return self.uri

    def set_members(self, version: int, members: Sequence[Member], *, leaving: bool) -> None:
        """Tells users which actors have this model.

        Args:
            version: Higher than the one before; others are ignored.
            members: All that take requests.
            leaving: Whether this one does no longer, so that its users go on elsewhere.
        """
        if version > self._said.version:
            self._said = Members(version, leaving, self._said.limit, tuple(members))
            for user in self._users:
                self._send(user, wire.write_members(self._said))

    def load(self) -> Load:
        """How busy it is."""
        runner, size = self.runner, self.runner.model.max_batch
        return Load(runner.expected_wait_secs, runner.times.of(size) / size, runner.counts.sessions)

    def report(self) -> Report:
        """How it was since this was last asked, for the agent."""
        counts, now = self.runner.counts, time.monotonic()
        present = (
            now,
            counts.queue.count,
            counts.queue.total,
            counts.compute.total,
            counts.refused,
        )
        secs, requests, queue_secs, compute_secs, refused = (
            new - old for new, old in zip(present, self._reported, strict=True)
        )
        self._reported = present
        return Report(
            queue_secs=max(
                queue_secs / requests if requests else 0.0, self.runner.longest_wait_secs
            ),
            busy=min(compute_secs / secs, 1.0) if secs > 0 else 0.0,
            refused=int(refused),
            users=len(self._users),
            sessions=counts.sessions,
            unanswered=self.runner.unanswered,
            batch_secs=self.runner.batch_secs,
        )

    def statistics(self) -> dict[str, Any]:
        """Numbers for tables and metrics."""
        return {
            "pid": os.getpid(),
            "model": self.spec.name,
            "users": len(self._users),
            **self.runner.statistics(),
            "links": self._endpoint.statistics(),
        }

    async def aclose(self) -> None:
        """Ends every link, so that users go elsewhere with what is not answered, and frees the model."""
        await self._endpoint.aclose()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.runner.aclose()

    def abort(self) -> None:
        """Ends every link at once, as if the process had died."""
        self._endpoint.abort()
        self.runner.close()

    # --- users ----------------------------------------------------------------------------------

    def _user_came(self, link: Link, number: int) -> _User:
        user = _User(self, link)
        self._users.add(user)
        task = asyncio.get_running_loop().create_task(
            self._open_answers(user, number), name=f"answers {number}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return user

    async def _open_answers(self, user: _User, number: int) -> None:
        try:
            stream = await user.link.open_stream(wire.stream_key(wire.ANSWERS, number))
        except ChannelError as error:
            logger.warning(
                "user of a model not reached", peer=user.link.peer.name, error=str(error)
            )
            self.user_left(user)
            return
        if user.gone:
            stream.abort()
            return
        user.answers = stream
        self._send(user, wire.write_members(self._said))
        self._flush(user)

    def user_left(self, user: _User) -> None:
        """Frees what a user has here."""
        if user in self._users:
            self._users.discard(user)
            user.leave()

    def _deliver(self, requests: Sequence[Request]) -> None:
        users = set()
        for request in requests:
            user, number = request.key
            if user.asked.pop(number, None) is None:
                continue  # cancelled, or its user has left
            user.waiting.append(self._answer(number, request))
            users.add(user)
        for user in users:
            self._flush(user)

    def _answer(self, number: int, request: Request) -> tuple[Any, ...]:
        state = None
        try:
            if request.session is not None and not isinstance(request.result, Exception):
                state = wire.write_value(request.exported)
            return wire.write_answer(number, request.result, state)
        except Exception as error:  # noqa: BLE001 - of the model's own values
            logger.opt(exception=error).error("result cannot travel", model=self.spec.name)
            return wire.write_answer(number, error, None)

    def _flush(self, user: _User) -> None:
        if user.answers is not None and user.waiting:
            answers, user.waiting = user.waiting, []
            self._send(user, wire.write_answers(self.load(), answers))

    def _send(self, user: _User, record: bytes) -> None:
        if user.answers is None:
            return
        try:
            # Urgent frames never wait. A user that leaves thousands unread loses its stream.
            user.answers.send_nowait(record, urgent=True)
        except ChannelError as error:
            logger.warning("user of a model lost", peer=user.link.peer.name, error=str(error))
            self.user_left(user)
