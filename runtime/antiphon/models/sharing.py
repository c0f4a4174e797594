"""One model for all its users in an event loop, wherever it runs."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from antiphon.errors import DeadlineExceededError, ServiceError
from antiphon.models.batching import Request
from antiphon.models.client import ModelClient, ModelSession
from antiphon.models.model import ModelSpec, SessionState
from antiphon.models.provider import ModelProvider


class ModelBackend(Protocol):
    """What works on the requests of a model. It belongs to one event loop.

    It gives requests back, with their `result`, by `deliver`.
    """

    name: str

    async def start(self) -> None:
        """Waits until requests are worked on; several may wait.

        Raises:
            AntiphonError: They will not be; the backend is of no use then.
        """

    def submit(self, request: Request) -> None:
        """Takes a request; it may be given back before this returns."""

    def cancel(self, request: Request) -> None:
        """Takes a request back; it may still be given back."""

    def open(self, session: SessionState) -> None:
        """A session of a user begins."""

    def forget(self, session: SessionState) -> None:
        """A session is over, and all its requests with it."""

    def statistics(self) -> dict[str, Any]:
        """Counters, for tables and metrics."""

    def close(self) -> None:
        """There are no users left. Idempotent."""


def deliver(requests: Sequence[Request]) -> None:
    """Tells users the results of their requests."""
    for request in requests:
        answer: asyncio.Future[Any] = request.key
        if not answer.done():
            if isinstance(request.result, Exception):
                answer.set_exception(request.result)
            else:
                answer.set_result(request.result)


@dataclass(slots=True)
class _Shared:
    """A backend and how many use it."""

    backend: ModelBackend
    users: int = 0


class SharedModels(ModelProvider):
    """Gives all users of a model in one event loop the same backend, from the first to the last."""

    def __init__(self) -> None:
        # By the model and the loop: a backend belongs to one.
        self._shared: dict[tuple[str, int], _Shared] = {}

    @abstractmethod
    def _make(self, spec: ModelSpec) -> ModelBackend:
        """Makes the backend of a model, which gives requests back to `deliver`."""

    async def connect(self, spec: ModelSpec) -> ModelClient:
        """Connects a user; see `connect_model`."""
        key = spec.key, id(asyncio.get_running_loop())
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _Shared(self._make(spec))
        shared.users += 1
        try:
            await shared.backend.start()
        except BaseException:
            self._leave(key, shared)
            raise
        return _Client(self, key, shared)

    def _leave(self, key: tuple[str, int], shared: _Shared) -> None:
        """Counts a user out."""
        shared.users -= 1
        if not shared.users:
            if self._shared.get(key) is shared:
                del self._shared[key]
            shared.backend.close()


class _Client(ModelClient):
    """A user of a shared model."""

    def __init__(self, owner: SharedModels, key: tuple[str, int], shared: _Shared) -> None:
        self._owner = owner
        self._key = key
        self._shared = shared
        self.backend = shared.backend
        # As many as the user asks at once.
        self._asked: set[Request] = set()
        self._sessions: set[_Session] = set()
        self._closed = False

    async def request(self, payload: Any, *, deadline_secs: float) -> Any:
        """Asks the model; see `ModelClient`."""
        return await self.ask(payload, deadline_secs, None)

    async def ask(self, payload: Any, deadline_secs: float, session: SessionState | None) -> Any:
        """Asks the model, for a session if it keeps state."""
        name = self.backend.name
        if self._closed:
            raise ServiceError(f"the connection to {name} is closed", provider=name)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request = Request(payload, time.monotonic() + deadline_secs, answer, session)
        self._asked.add(request)
        deadline = asyncio.timeout(deadline_secs)
        try:
            self.backend.submit(request)
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
                self.backend.cancel(request)

    def open_session(self, options: Any = None) -> ModelSession:
        """Opens a session; see `ModelClient`."""
        session = _Session(self, SessionState(options))
        self._sessions.add(session)
        self.backend.open(session.state)
        return session

    def end_session(self, session: _Session) -> None:
        """Fails what is asked for a session, and forgets it."""
        if session in self._sessions:
            self._sessions.discard(session)
            self._drop(session.state)
            self.backend.forget(session.state)

    def _drop(self, session: SessionState | None = None) -> None:
        """Fails what is asked for a session, or at all."""
        name = self.backend.name
        for request in list(self._asked):
            if (session is None or request.session is session) and not request.key.done():
                self.backend.cancel(request)
                request.key.set_exception(ServiceError(f"{name} was closed", provider=name))

    async def aclose(self) -> None:
        """Counts this user out; see `ModelClient`."""
        if self._closed:
            return
        self._closed = True
        for session in list(self._sessions):
            session.close()
        self._drop()
        self._owner._leave(self._key, self._shared)

    def statistics(self) -> Mapping[str, Any]:
        """Counters of all users of the model in this process."""
        return self.backend.statistics()


class _Session(ModelSession):
    """A session of a shared model."""

    def __init__(self, client: _Client, state: SessionState) -> None:
        self._client = client
        self.state = state
        self._closed = False

    async def request(self, payload: Any, *, deadline_secs: float) -> Any:
        """Asks the model; see `ModelSession`."""
        if self._closed:
            raise ServiceError("the session of the model is closed")
        return await self._client.ask(payload, deadline_secs, self.state)

    def close(self) -> None:
        """Ends it; see `ModelSession`."""
        self._closed = True
        self._client.end_session(self)
