"""Models in this process: the provider where there is no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.errors import DeadlineExceededError, ServiceError
from antiphon.models.batching import Request
from antiphon.models.client import ModelClient, ModelSession
from antiphon.models.model import ModelSpec, SessionState
from antiphon.models.provider import ModelProvider
from antiphon.models.runner import ModelRunner


@dataclass(slots=True)
class _Shared:
    """A model that users of one event loop share, and how many they are."""

    runner: ModelRunner
    users: int = 0


class LocalModels(ModelProvider):
    """Runs each model in a thread of this process, once for all its users in one event loop.

    It is loaded for the first user and freed behind the last one.
    """

    def __init__(self) -> None:
        # By the model and the loop: a runner belongs to one.
        self._shared: dict[tuple[str, int], _Shared] = {}

    def in_process(self, spec: ModelSpec) -> bool:
        """Always."""
        return True

    async def connect(self, spec: ModelSpec) -> ModelClient:
        """Loads the model, or shares it; see `connect_model`."""
        key = spec.key, id(asyncio.get_running_loop())
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _Shared(ModelRunner(spec, _deliver))
        shared.users += 1
        try:
            await shared.runner.start()
        except BaseException:
            self._leave(key, shared)
            raise
        return _LocalClient(self, key, shared)

    def _leave(self, key: tuple[str, int], shared: _Shared) -> None:
        """Counts a user out."""
        shared.users -= 1
        if not shared.users:
            shared.runner.close()
            if self._shared.get(key) is shared:
                del self._shared[key]


def _deliver(requests: Sequence[Request]) -> None:
    for request in requests:
        answer: asyncio.Future[Any] = request.key
        if not answer.done():
            if isinstance(request.result, Exception):
                answer.set_exception(request.result)
            else:
                answer.set_result(request.result)


class _LocalClient(ModelClient):
    """A user of a model in this process."""

    def __init__(self, owner: LocalModels, key: tuple[str, int], shared: _Shared) -> None:
        self._owner = owner
        self._key = key
        self._shared = shared
        self._runner = shared.runner
        # As many as the user asks at once.
        self._asked: set[Request] = set()
        self._sessions: set[_LocalSession] = set()
        self._closed = False

    async def request(self, payload: Any, *, deadline_secs: float) -> Any:
        """Asks the model; see `ModelClient`."""
        return await self.ask(payload, deadline_secs, None)

    async def ask(self, payload: Any, deadline_secs: float, session: SessionState | None) -> Any:
        """Asks the model, for a session if it keeps state."""
        name = self._runner.name
        if self._closed:
            raise ServiceError(f"the connection to {name} is closed", provider=name)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request = Request(payload, time.monotonic() + deadline_secs, answer, session)
        self._asked.add(request)
        deadline = asyncio.timeout(deadline_secs)
        try:
            self._runner.submit(request)
            async with deadline:
                return await answer
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise DeadlineExceededError(
                f"{name}: no answer within {deadline_secs:g} s", provider=name
            ) from error
        finally:
            self._asked.discard(request)
            if not answer.done() or answer.cancelled():  # cancelled with the task that waits for it
                self._runner.cancel(request)

    def open_session(self, options: Any = None) -> ModelSession:
        """Opens a session; see `ModelClient`."""
        session = _LocalSession(self, SessionState(options))
        self._sessions.add(session)
        self._runner.counts.sessions += 1
        return session

    def left(self, session: _LocalSession) -> None:
        """Notes that a session was closed."""
        if session in self._sessions:
            self._sessions.discard(session)
            self._runner.counts.sessions -= 1

    def drop(self, session: SessionState | None = None) -> None:
        """Fails what is asked for a session, or at all."""
        name = self._runner.name
        for request in list(self._asked):
            if (session is None or request.session is session) and not request.key.done():
                self._runner.cancel(request)
                request.key.set_exception(ServiceError(f"{name} was closed", provider=name))

    async def aclose(self) -> None:
        """Counts this user out; see `ModelClient`."""
        if self._closed:
            return
        self._closed = True
        for session in list(self._sessions):
            session.close()
        self.drop()
        self._owner._leave(self._key, self._shared)

    def statistics(self) -> Mapping[str, Any]:
        """Counters of the model, of all its users together."""
        return self._runner.statistics()


class _LocalSession(ModelSession):
    """A session of a model in this process."""

    def __init__(self, client: _LocalClient, state: SessionState) -> None:
        self._client = client
        self._state = state
        self._closed = False

    async def request(self, payload: Any, *, deadline_secs: float) -> Any:
        """Asks the model; see `ModelSession`."""
        if self._closed:
            raise ServiceError("the session of the model is closed")
        return await self._client.ask(payload, deadline_secs, self._state)

    def close(self) -> None:
        """Ends it; see `ModelSession`."""
        self._closed = True
        self._client.drop(self._state)
        self._client.left(self)
