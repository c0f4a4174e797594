"""Admits callers, keeps their sessions, and knows the bots they may call."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from loguru import logger
from starlette.websockets import WebSocket

from antiphon_actors.gateway.access import Access
from antiphon_actors.gateway.caller import deny
from antiphon_actors.gateway.refusal import Refusal
from antiphon_actors.gateway.session import CallerSession, Surroundings
from antiphon_actors.gateway.session_events import GOING_AWAY, State
from antiphon_actors.gateway.settings import AppSpec, GatewaySettings
from antiphon_actors.gateway.supervisors import Supervisors
from antiphon_actors.run import new_session_id
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.supervisor import Failure, Output

LOSSES_KEPT = 100
"""Lost sessions that the status names, the newest ones."""

END_DEADLINE_SECS = 4.0
"""How long a gateway may take to end."""

CANCEL_SECS = 0.5
"""How long is waited beyond that for what is cancelled then."""


class Gateway:
    """The sessions of one process, whatever way their callers come.

    Attributes:
        settings: How it works.
        access: Who may come in.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        endpoint: Endpoint,
        supervisors: Supervisors,
        on_output: Callable[[str, Output | Failure], None],
    ) -> None:
        """Makes a gateway without bots.

        Args:
            settings: How it works.
            endpoint: The process's hub, started.
            supervisors: Where supervisors come from.
            on_output: Takes what bots print and what fails in sessions, with the session's name.
        """
        self.settings = settings
        self.access = Access(settings.key_hash, settings.secret)
        self._around = Surroundings(settings, endpoint, supervisors, self._spawn, on_output)
        self._apps: dict[str, AppSpec] = {}
        self._sessions: dict[str, CallerSession] = {}  # bounded by max_sessions
        self._serving: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # a few a session, each with a deadline
        self._draining = ""
        self._counts: Counter[str] = Counter()
        self._losses: deque[dict[str, str]] = deque(maxlen=LOSSES_KEPT)

    # -- bots ------------------------------------------------------------------------------------

    @property
    def apps(self) -> Mapping[str, AppSpec]:
        """The bots, by name."""
        return self._apps

    def set_apps(self, apps: Iterable[AppSpec]) -> None:
        """Says which bots there are; sessions that run go on as they began."""
        self._apps = {app.name: app for app in apps}

    def app(self, name: str) -> AppSpec:
        """The bot of a name; of no name, the only one.

        Raises:
            Refusal: There is none, or more than one.
        """
        if not name and len(self._apps) == 1:
            return next(iter(self._apps.values()))
        found = self._apps.get(name)
        if found is None:
            names = ", ".join(sorted(self._apps)) or "none"
            raise Refusal(404, "no such bot", f"deployed here: {names}")
        return found

    # -- callers ---------------------------------------------------------------------------------

    async def serve(self, websocket: WebSocket, app_name: str) -> None:
        """Serves a caller's WebSocket, not accepted yet, until the session is over."""
        try:
            body = self.access.admit(websocket, app_name)
            app = self.app(app_name)
            self._check_room()
        except Refusal as refusal:
            self._counts["refused"] += 1
            await deny(websocket, refusal.response())
            return
        session = CallerSession(new_session_id(), app, websocket, body, self._around)
        task = asyncio.current_task()
        assert task is not None
        self._sessions[session.session_id] = session
        self._serving.add(task)
        try:
            await session.serve()
        finally:
            self._serving.discard(task)
            del self._sessions[session.session_id]
            self._count(session)

    def drain(self, reason: str = "the gateway is being drained") -> int:
        """Lets no more sessions begin; returns how many there are."""
        self._draining = reason
        return len(self._sessions)

    @property
    def draining(self) -> bool:
        """Whether no more sessions begin."""
        return bool(self._draining)

    def status(self) -> dict[str, Any]:
        """Numbers for tables; they hold nothing that callers say, and no address of theirs."""
        return {
            "draining": self._draining,
            "apps": [{"name": app.name, "version": app.version} for app in self._apps.values()],
            "counts": dict(self._counts),
            "losses": list(self._losses),
            "sessions": [session.status() for session in self._sessions.values()],
        }

    async def aclose(self, deadline_secs: float = END_DEADLINE_SECS) -> None:
        """Ends every session: callers are told, bots too, and what resists is cancelled.

        Args:
            deadline_secs: How long all of that may take.
        """
        self.drain("the gateway is shutting down")
        for session in list(self._sessions.values()):
            session.hang_up(GOING_AWAY, "the gateway is shutting down")
        until = asyncio.get_running_loop().time() + deadline_secs
        await _end(self._serving, deadline_secs / 2)
        await _end(self._tasks, until - asyncio.get_running_loop().time())

    def _check_room(self) -> None:
        if self._draining:
            raise Refusal(503, "draining", self._draining, 5.0)
        if len(self._sessions) >= self.settings.max_sessions:
            raise Refusal(503, "overloaded", "this gateway has all the sessions it takes", 5.0)

    def _count(self, session: CallerSession) -> None:
        self._counts[str(session.state)] += 1
        self._counts["resumed"] += session.resumed
        if session.state is State.LOST:
            self._losses.append(
                {
                    "session_id": session.session_id,
                    "app": session.app.name,
                    "reason": session.reason,
                }
            )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("a task of the gateway failed", task=task.get_name())


async def _end(tasks: set[asyncio.Task[Any]] | set[asyncio.Task[None]], wait_secs: float) -> None:
    """Waits for the end of tasks that are about to end, and cancels those that do not."""
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, wait_secs))
    for late in tasks:
        late.cancel()
    if tasks:
        # Who has something to give back does so within a deadline of its own; nobody waits for that.
        await asyncio.wait(tasks, timeout=CANCEL_SECS)
