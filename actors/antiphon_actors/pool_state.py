"""What `antiphon_actors.pools` knows about actors and who waits."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from antiphon_actors.pool_types import Place, PoolKey, StartClass, Want


class State(enum.StrEnum):
    """Where an actor is in its life."""

    STARTING = "starting"
    READY = "ready"


@dataclass(slots=True)
class PoolActor:
    """An actor and who uses it."""

    number: int
    start_class: StartClass
    state: State = State.STARTING
    key: PoolKey | None = None
    dedicated: bool = False
    slots: int = 1
    leases: dict[int, str] = field(default_factory=dict)
    # How many leases have been handed out, and not only been reserved.
    served: int = 0
    # When the last of them was.
    assigned_at: float | None = None
    # Why it gets no more leases; empty while it may.
    retiring: str = ""
    idle_since: float = 0.0

    @property
    def used(self) -> bool:
        """Whether anybody has ever used it."""
        return self.served > 0

    @property
    def spare(self) -> bool:
        """Whether it is ready and nobody's yet."""
        return self.state is State.READY and self.key is None

    @property
    def unused(self) -> bool:
        """Whether it is ready and serves nobody."""
        return self.state is State.READY and not self.leases

    def takes(self, key: PoolKey) -> bool:
        """Whether it has a free slot for this kind."""
        return (
            self.key == key
            and not self.dedicated
            and not self.retiring
            and self.state is State.READY
            and len(self.leases) < self.slots
        )


@dataclass(slots=True)
class Request:
    """A session that has asked for places."""

    number: int
    session: str
    wanted: tuple[Want, ...]
    deadline: float
    avoid: frozenset[int]
    # What is reserved for it already, by the index of what was wanted.
    places: dict[int, Place] = field(default_factory=dict)

    @property
    def missing(self) -> list[Want]:
        """What is not reserved for it yet."""
        return [want for index, want in enumerate(self.wanted) if index not in self.places]
