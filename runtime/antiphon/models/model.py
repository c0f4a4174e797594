"""What a shared model is."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from antiphon.errors import ConfigError


class SessionState:
    """What a model keeps of one session between its requests.

    Attributes:
        options: What the session was opened with; plain data, None if nothing.
        state: The model's own; None before its first request.
        exported: The exported state that it goes on from, if it was in another process before.
    """

    __slots__ = ("exported", "options", "state")

    def __init__(self, options: Any = None, exported: Any = None) -> None:
        self.options = options
        self.state: Any = None
        self.exported = exported


class Item:
    """One request as the model sees it.

    Attributes:
        payload: What was asked; not to be changed.
        session: Of a session that keeps state, else None.
        cancelled: Whether nobody waits for the result any more. It may become true at any time: a model
            that works long can look between two steps and give anything as the result.
    """

    __slots__ = ("cancelled", "payload", "session")

    def __init__(self, payload: Any, session: SessionState | None = None) -> None:
        self.payload = payload
        self.session = session
        self.cancelled = False


class Model(ABC):
    """A model that answers requests in batches.

    The constructor takes plain keyword arguments, keeps them, and loads nothing. All other methods are
    called one after the other, by one thread that belongs to the model (unless it is `quick`), so they may
    take long and need no locks. Payloads, results and exported states are what the codec of frames carries: plain data, bytes,
    numpy arrays and registered types.

    Attributes:
        max_batch: Requests in one batch at most.
        max_queued: Requests that wait beyond those being worked on; more are refused. Four full batches
            if None.
        longest_wait_secs: How long a request may be held back for others to share its batch. Less is
            waited where that pays no more; 0 never waits.
        batch_secs: A batch gets no larger than what is expected to take this long, so that those who come
            next do not wait longer; None for no such limit. (A request's deadline has the same effect.)
        quick: Whether a whole batch takes less than handing it to a thread would. It is then worked on in
            the event loop, which stands still for that long.
        in_actor: Whether it runs in an actor of its own where there is a cluster, unless the operator says
            otherwise.
    """

    max_batch: int = 8
    max_queued: int | None = None
    longest_wait_secs: float = 0.0
    batch_secs: float | None = None
    quick: ClassVar[bool] = False
    in_actor: ClassVar[bool] = True

    @abstractmethod
    def load(self) -> None:
        """Loads the weights and does a first inference, so that the first request is as quick as the rest.

        Called once, before anything else.

        Raises:
            AntiphonError: It cannot be loaded; the message says what lacks and what to do. Other
                exceptions are taken for faults of the model.
        """

    def group(self, item: Item) -> Hashable:
        """What requests must agree in to share a batch; all may share one if it is always None.

        Called in the event loop, for every request, before it waits; it must be quick.
        """
        return None

    @abstractmethod
    def run_batch(self, items: Sequence[Item]) -> Sequence[Any]:
        """Answers a batch.

        No two items are of the same session, and the items of a session come in the order of its
        requests.

        Args:
            items: One to `max_batch` requests of one group.

        Returns:
            The results, in the same order. One that is an exception fails its request and no other.

        Raises:
            Exception: All requests of the batch fail with it.
        """

    def export_state(self, state: Any) -> Any:
        """A session's state in a form that travels and does not change any more.

        Where the model runs in an actor, this goes to the session's process with every answer, so that
        the session can go on in another actor when this one is lost.
        """
        return state

    def import_state(self, exported: Any) -> Any:
        """The state that `export_state` gave, where the session goes on."""
        return exported

    def close(self) -> None:  # noqa: B027 - most have no use for it
        """Frees what garbage collection would not. Nothing is called after it."""

    def statistics(self) -> Mapping[str, float]:
        """Counters of its own (use of caches, ...), beside those that every model has.

        Called in the event loop, at any time after `load`.
        """
        return {}


@dataclass(frozen=True)
class ModelSpec:
    """Which model, with which settings: what two users must agree in to share one.

    Attributes:
        model: Its class.
        options: Keyword arguments of the class: None, booleans, numbers, texts, and lists and maps
            of these.

    Raises:
        ConfigError: An option is something else.
    """

    model: type[Model]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            json.dumps(self.options, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"the options of a {self.name} must be plain data: {error}"
            ) from error

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def name(self) -> str:
        """The name of the class, for people and for the operator's rules."""
        return self.model.__qualname__

    @property
    def key(self) -> str:
        """Tells specs apart, in every process alike."""
        options = json.dumps(self.options, sort_keys=True)
        return f"{self.model.__module__}:{self.model.__qualname__}:{options}"

    def build(self) -> Model:
        """Makes the model; it loads nothing yet."""
        return self.model(**self.options)
