"""A caller's session at the gateway: performs what `session_state` decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from starlette.websockets import WebSocket

from antiphon_actors.channels import ChannelError, Delivery
from antiphon_actors.errors import NoActorError, SupervisorLostError
from antiphon_actors.gateway.access import without_credentials
from antiphon_actors.gateway.caller import CallerConnection, deny
from antiphon_actors.gateway.caller_log import CallerLog
from antiphon_actors.gateway.refusal import Refusal
from antiphon_actors.gateway.session_events import (
    BUSY,
    GOING_AWAY,
    Accept,
    Action,
    BotHungUp,
    CallerLeft,
    Cancel,
    CloseCaller,
    Deny,
    Event,
    Fence,
    Granted,
    HandedOver,
    HangUp,
    LineLost,
    LineOpened,
    Refused,
    Release,
    Report,
    Reserve,
    Run,
    RunEnded,
    RunFailed,
    State,
    TellBot,
    Tick,
    Withdraw,
)
from antiphon_actors.gateway.session_state import SessionMachine
from antiphon_actors.gateway.settings import AppSpec, GatewaySettings
from antiphon_actors.gateway.supervisors import Supervisor, Supervisors
from antiphon_actors.report import SessionReport
from antiphon_actors.session.caller_websocket import CallerRequest
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.line import Kind, Line, Message
from antiphon_actors.supervisor import Failure, Output, SessionSpec, run_id

FENCE_DEADLINE_SECS = 5.0
"""How long a supervisor may take to answer that it has ended a session; then it is killed."""

RELEASE_DEADLINE_SECS = 5.0
"""How long an agent may take to take a place back."""

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


@dataclass(frozen=True)
class Surroundings:
    """What a gateway lends its sessions.

    Attributes:
        settings: Of the gateway.
        endpoint: Its hub.
        supervisors: Where supervisors come from.
        spawn: Runs what outlives a session, in bounded time.
        on_output: Takes what bots print, and what fails in sessions.
    """

    settings: GatewaySettings
    endpoint: Endpoint
    supervisors: Supervisors
    spawn: Spawn
    on_output: Callable[[str, Output | Failure], None]


@dataclass(eq=False)
class _Attempt:
    """A supervisor of the session: asked for, or had."""

    number: int
    supervisor: Supervisor | None = None
    line: Line | None = None
    farewell: Message | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class CallerSession:
    """One caller, from the wish to connect to the end of everything that was done for it.

    Attributes:
        session_id: Its name.
        app: The bot.
        began_at: When it began, on the event loop's clock.
        reason: Why it ended, for people; empty before.
    """

    def __init__(
        self,
        session_id: str,
        app: AppSpec,
        websocket: WebSocket,
        body: Mapping[str, Any],
        surroundings: Surroundings,
    ) -> None:
        """Makes a session; `serve` runs it.

        Args:
            session_id: Its name.
            app: The bot.
            websocket: The caller's, not accepted yet.
            body: Data of the request.
            surroundings: What the gateway lends.
        """
        self.session_id = session_id
        self.app = app
        self.reason = ""
        self._log_to = logger.bind(session_id=session_id, app=app.name)
        self._around = surroundings
        settings = surroundings.settings
        self._websocket = websocket
        self._body = body
        self._loop = asyncio.get_running_loop()
        self.began_at = self._active_at = self._loop.time()
        self._machine = SessionMachine(settings.patience, self.began_at)
        self._log = CallerLog(settings.kept_bytes, settings.kept_secs)
        self._log_news = asyncio.Event()
        self._caller = CallerConnection(websocket, self, send_secs=settings.send_secs)
        self._admission: asyncio.Future[Deny | None] = self._loop.create_future()
        self._attempts: dict[int, _Attempt] = {}
        self._actors: dict[int, str] = {}  # by attempt; bounded by whom the machine avoids
        self._clock_news = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._machine.state

    @property
    def resumed(self) -> int:
        """How often it went on with another supervisor."""
        return self._machine.resumed

    def status(self) -> dict[str, Any]:
        """Numbers for tables."""
        attempt = self._attempts.get(self._machine.attempt)
        supervisor = attempt.supervisor if attempt is not None else None
        return {
            "session_id": self.session_id,
            "app": self.app.name,
            "version": self.app.version,
            "state": str(self.state),
            "secs": round(self._loop.time() - self.began_at, 1),
            "supervisor": supervisor.where if supervisor is not None else "",
            "resumed": self.resumed,
            "received": self._log.last,
            "kept_bytes": self._log.kept_bytes,
            "forgotten": self._log.forgotten,
            "dropped": self._log.dropped,
        }

    def hang_up(self, code: int, reason: str) -> None:
        """Ends the session, and tells the caller."""
        self._feed(HangUp(code, reason))

    async def serve(self) -> None:
        """Runs the session to its end.

        Cancelling ends it at once; the supervisor is told in the background.
        """
        clock = self._loop.create_task(self._keep_time(), name=f"clock {self.session_id}")
        try:
            # Before anything is awaited: from here on the session can be told to end.
            self._perform(self._machine.start())
            await self._caller.begin()
            denial = await self._admission
            if denial is not None:
                await deny(self._websocket, _refusal(denial).response())
            elif not self.state.final:
                await self._caller.accept()
                await self._over.wait()
                await self._flush()
        finally:
            clock.cancel()
            for attempt in list(self._attempts.values()):  # none, unless this is cancelled
                self._drop(attempt)
                if attempt.supervisor is not None:
                    fencing = _fence(attempt, self._run_id(attempt), goes_on=False)
                    self._around.spawn(fencing, "fence")
            await self._caller.aclose()
            await asyncio.wait({clock})

    async def _flush(self) -> None:
        """Waits until what the bot has said to the end has reached the caller."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._around.settings.send_secs):
                await self._caller.closed()

    # What the caller does (`CallerOwner`).

    def caller_said(self, kind: Kind, data: bytes) -> None:
        """Takes a message of the caller."""
        now = self._active_at = self._loop.time()
        if self.state.final or self.state is State.ENDING:
            return
        # While no supervisor takes anything, what is new matters more than what is old.
        if self._log.add(kind, data, now, lossy=self._machine.resuming):
            self._log_news.set()
        else:
            self._log_to.warning("a bot does not take what its caller sends")
            self._feed(HangUp(BUSY, "the bot does not keep up"))

    def caller_took(self) -> None:
        """Notes that something happens."""
        self._active_at = self._loop.time()

    def caller_left(self, code: int, reason: str) -> None:
        """Takes note of the caller's end."""
        self._feed(CallerLeft(code, reason))

    # What a supervisor says.

    def from_bot(self, number: int, message: Message, delivery: Delivery) -> None:
        """Takes a message of the bot."""
        if message.kind in (Kind.TEXT, Kind.BYTES):
            self._caller.put(message.kind, message.data, delivery)
            return
        delivery.done()
        if message.kind is Kind.COMMITTED:
            self._log.commit(message.number)
        elif message.kind is Kind.PROLOGUE:
            self._log.end_prologue(message.number)
        else:
            if message.kind is Kind.CLOSED:
                self._caller.close(*message.code_and_reason)
            self._feed(BotHungUp(number))

    def line_opened(self, number: int) -> None:
        """A supervisor has connected."""
        attempt = self._attempts[number]
        attempt.tasks.append(self._spawn(self._pump(attempt), f"pump {number}"))
        self._feed(LineOpened(number))

    def line_lost(self, number: int, error: Exception) -> None:
        """The line to a supervisor broke."""
        self._feed(LineLost(number, str(error)))

    # --- the machine ----------------------------------------------------------------------------

    def _feed(self, event: Event) -> None:
        self._perform(self._machine.handle(event, self._loop.time()))
        self._clock_news.set()

    async def _keep_time(self) -> None:
        idle_secs = self._around.settings.idle_secs
        while True:
            now = self._loop.time()
            if now >= self._active_at + idle_secs:
                self._active_at = now
                self._feed(HangUp(GOING_AWAY, "nobody said anything"))
            self._feed(Tick())
            self._clock_news.clear()
            due = self._active_at + idle_secs
            if (wake_at := self._machine.wake_at()) is not None:
                due = min(due, wake_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._clock_news.wait()

    def _perform(self, actions: list[Action]) -> None:
        """Does what the machine wants, without waiting and without giving it events."""
        for action in actions:
            match action:
                case Reserve():
                    attempt = self._attempts[action.attempt] = _Attempt(action.attempt)
                    known = self._actors
                    self._actors = {n: known[n] for n in action.avoid if n in known}
                    avoid = set(self._actors.values())
                    attempt.tasks.append(self._spawn(self._reserve(attempt, avoid), "reserve"))
                case Withdraw():
                    self._drop(self._attempts.pop(action.attempt))
                case Accept():
                    self._admission.set_result(None)
                case Deny():
                    self._admission.set_result(action)
                case Run():
                    self._run(self._attempts[action.attempt], resume=action.resume)
                case TellBot():
                    attempt = self._attempts[action.attempt]
                    attempt.farewell = Message.closed(action.code, action.reason)
                    self._log_news.set()
                case CloseCaller():
                    self._caller.close(action.code, action.reason)
                case Cancel():
                    self._around.spawn(self._cancel(self._attempts[action.attempt]), "cancel")
                case Release():
                    attempt = self._attempts.pop(action.attempt)
                    self._drop(attempt)
                    self._around.spawn(_release(attempt), "release")
                case Fence():
                    attempt = self._attempts.pop(action.attempt)
                    self._drop(attempt)
                    fencing = _fence(attempt, self._run_id(attempt), goes_on=action.goes_on)
                    self._around.spawn(fencing, "fence")
                case Report():
                    self._report(action)

    def _report(self, report: Report) -> None:
        self.reason = report.reason
        if report.state is State.LOST:
            self._log_to.error("session lost", reason=report.reason)
        else:
            self._log_to.info(
                "session over",
                state=str(report.state),
                reason=report.reason,
                secs=round(self._loop.time() - self.began_at, 1),
            )
        if not self._admission.done():
            self._admission.set_result(None)  # the caller has left before it was decided
        self._over.set()

    # --- supervisors ----------------------------------------------------------------------------

    async def _reserve(self, attempt: _Attempt, avoid: set[str]) -> None:
        try:
            attempt.supervisor = await self._around.supervisors.reserve(
                self._run_id(attempt), self.app, avoid
            )
        except NoActorError as error:
            retry_after_secs = error.retry_after_secs if error.overloaded else None
            self._feed(Refused(attempt.number, str(error), retry_after_secs))
        else:
            self._actors[attempt.number] = attempt.supervisor.actor_id
            self._feed(Granted(attempt.number))

    def _run(self, attempt: _Attempt, *, resume: bool) -> None:
        assert attempt.supervisor is not None
        name = f"{self._run_id(attempt)}/caller"
        attempt.line = Line(name, self._around.endpoint, _LineEnd(self, attempt.number))
        attempt.line.listen()
        if attempt.number:
            self._log_to.warning(
                "another supervisor goes on with a session",
                attempt=attempt.number,
                supervisor=attempt.supervisor.where,
            )
            self._log.rewind()
        query, headers = without_credentials(self._websocket)
        scope = self._websocket.scope
        request = CallerRequest(
            line=name,
            gateway_uri=self._around.endpoint.uri,
            path=scope["path"],
            path_params=dict(scope.get("path_params", {})),
            query=query,
            headers=headers,
            client=scope.get("client"),
            server=scope.get("server"),
            scheme=scope.get("scheme", "ws"),
        )
        spec = SessionSpec(
            session_id=self.session_id,
            bot_file=self.app.bot_file,
            placement=self.app.make_placement(),
            body=self._body,
            log_level=self.app.log_level,
            checkpoints=True,
            resume=resume,
            caller=request,
            attempt=attempt.number,
        )
        attempt.tasks.append(self._spawn(self._follow(attempt, spec), f"run {attempt.number}"))

    async def _follow(self, attempt: _Attempt, spec: SessionSpec) -> None:
        assert attempt.supervisor is not None
        number = attempt.number
        try:
            async with contextlib.aclosing(attempt.supervisor.run(spec)) as items:
                async for item in items:
                    if isinstance(item, SessionReport):
                        self._feed(_end_of(number, item))
                        return
                    self._around.on_output(self.session_id, item)
            self._feed(RunFailed(number, "the supervisor ended without a report"))
        except SupervisorLostError as error:
            self._feed(RunFailed(number, str(error)))

    async def _pump(self, attempt: _Attempt) -> None:
        """Passes on what the caller sends, and at last that the caller has left."""
        assert attempt.line is not None
        try:
            while True:
                message = self._log.next()
                if message is not None:
                    await attempt.line.send(message)
                elif attempt.farewell is not None:
                    await attempt.line.send(attempt.farewell.pack())
                    return
                else:
                    self._log_news.clear()
                    await self._log_news.wait()
        except ChannelError as error:
            # The receiving side of the line tells whether that is a loss.
            self._log_to.debug("line to the bot closed", error=str(error))

    async def _cancel(self, attempt: _Attempt) -> None:
        assert attempt.supervisor is not None
        try:
            async with asyncio.timeout(FENCE_DEADLINE_SECS):
                await attempt.supervisor.cancel(self._run_id(attempt))
        except (TimeoutError, SupervisorLostError) as error:
            # The machine has a deadline, after which the supervisor is fenced.
            self._log_to.debug("session not cancelled", error=str(error))

    def _drop(self, attempt: _Attempt) -> None:
        """Ends what the session itself does for an attempt."""
        if attempt.line is not None:
            attempt.line.abort()
        me = asyncio.current_task()
        for task in attempt.tasks:
            if task is not me:
                task.cancel()

    def _run_id(self, attempt: _Attempt) -> str:
        return run_id(self.session_id, attempt.number)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._around.spawn(work, f"{self.session_id}: {name}")


class _LineEnd:
    """The gateway's end of the line to one supervisor (`LineOwner`)."""

    def __init__(self, session: CallerSession, number: int) -> None:
        self._session = session
        self._number = number

    def line_opened(self) -> None:
        """Passes it on."""
        self._session.line_opened(self._number)

    def line_message(self, message: Message, delivery: Delivery) -> None:
        """Passes it on."""
        self._session.from_bot(self._number, message, delivery)

    def line_lost(self, error: Exception) -> None:
        """Passes it on."""
        self._session.line_lost(self._number, error)


async def _release(attempt: _Attempt) -> None:
    assert attempt.supervisor is not None
    try:
        async with asyncio.timeout(RELEASE_DEADLINE_SECS):
            await attempt.supervisor.release()
    except TimeoutError:
        logger.error("a place was not given back in time", supervisor=attempt.supervisor.where)


async def _fence(attempt: _Attempt, name: str, *, goes_on: bool) -> None:
    """Ends a session in a supervisor that may still be at work.

    It ends the session by itself when its line is gone; one that does not is stuck, and with it every
    session it has.
    """
    assert attempt.supervisor is not None
    end = attempt.supervisor.abandon if goes_on else attempt.supervisor.cancel
    try:
        async with asyncio.timeout(FENCE_DEADLINE_SECS):
            await end(name)
    except TimeoutError:
        logger.warning("a supervisor is stuck and is killed", supervisor=attempt.supervisor.where)
        attempt.supervisor.kill()
    except SupervisorLostError as error:
        logger.debug("a fenced supervisor is dead", error=str(error))
    finally:
        await _release(attempt)


def _end_of(number: int, report: SessionReport) -> Event:
    if report.handed_over:
        return HandedOver(number)
    if report.lost and report.exit_code:
        return RunFailed(number, report.lost, final=True)
    return RunEnded(number, report.exit_code)


def _refusal(denial: Deny) -> Refusal:
    if denial.retry_after_secs is not None:
        detail = f"all supervisors are busy: {denial.reason}"
        return Refusal(503, "overloaded", detail, denial.retry_after_secs)
    return Refusal(503, "no session", denial.reason)
