"""How a processor or analyzer uses a shared model, wherever that runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self


class ModelSession(ABC):
    """A session of a model that keeps state from request to request.

    It goes on, with its state, when the process that the model runs in is lost or drained.
    """

    @abstractmethod
    async def request(self, payload: Any, *, deadline_secs: float) -> Any:
        """Asks the model; as `ModelClient.request`.

        Requests are answered in the order of the calls. When cancelled, or failed by its deadline, the
        request may or may not have had its effect on the state.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends it and frees its state; what is still asked fails. Idempotent."""


class ModelClient(ABC):
    """A user's connection to a model. `provider.connect_model` gives it; who got it closes it."""

    @abstractmethod
    async def request(self, payload: Any, *, deadline_secs: float) -> Any:
        """Asks the model.

        When cancelled, the request leaves the queue or its batch; the model's work on a batch that has
        begun is not undone.

        Args:
            payload: What to ask; it must not be changed before the answer.
            deadline_secs: For the answer. A request whose time is over is not worked on.

        Returns:
            The result.

        Raises:
            OverloadedError: There is too much to do; `retry_after` says when to try again.
            DeadlineExceededError: No answer in time.
            ServiceError: The model failed, or there is none to be had; `retryable` tells whether the same
                request may succeed later.
        """

    @abstractmethod
    def open_session(self, options: Any = None) -> ModelSession:
        """Opens a session of a model that keeps state; waits for nothing.

        Args:
            options: What the model is to know of the session (`SessionState.options`); plain data.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Ends all requests and sessions of this user; behind the last user the model is freed. Idempotent."""

    @abstractmethod
    def statistics(self) -> Mapping[str, Any]:
        """Counters, for tables and metrics."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
