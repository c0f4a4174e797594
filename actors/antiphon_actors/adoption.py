"""What a restarted node agent makes of what it finds: pure decisions, and their vocabulary.

Ray restarts a detached agent some 20 ms after its death, with nothing. Its actors are detached, too, and live
on; their names say whose they are. What they were for is in the agent's file (`antiphon_actors.agent_store`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from antiphon_actors.agent_store import KeptActor
from antiphon_actors.pool_state import PoolActor, State
from antiphon_actors.pool_types import PoolKey, Role, is_part

NAME_PREFIX = "antiphon-actor"

# What a supervisor adds to a session's name for the processors of its further pipelines.
_PIPELINE = re.compile(r"(~\d+)?(\.\d+)?$")

UNKNOWN_KIND = "unknown"
"""Kind of an actor that serves sessions, and of which nobody knows for what it was started."""


def actor_name(node_id: str, number: int) -> str:
    """Returns the name of an actor of a detached agent, in the namespace "antiphon"."""
    return f"{NAME_PREFIX}-{node_id}-{number}"


def number_in(name: str, node_id: str) -> int | None:
    """The number in the name of an actor of a node's agent; None if it is no such name."""
    prefix, _, number = name.rpartition("-")
    if prefix != f"{NAME_PREFIX}-{node_id}" or not number.isdigit():
        return None
    return int(number)


@dataclass(frozen=True, slots=True)
class Adoption:
    """What to do with the actors of the agent before.

    Attributes:
        adopted: Those that live and are known.
        lost: Those that were known and are gone.
        unknown: Numbers of those that live and are not known: they were being started, or the file is lost.
    """

    adopted: tuple[KeptActor, ...] = ()
    lost: tuple[KeptActor, ...] = ()
    unknown: tuple[int, ...] = ()


def compare(kept: Sequence[KeptActor], living: Mapping[int, str]) -> Adoption:
    """Compares what was written down with what lives.

    Args:
        kept: What was written down.
        living: Ray's ids of the living actors, by their numbers.
    """
    known = {entry.actor.number: entry for entry in kept}
    here = {n for n, entry in known.items() if living.get(n) == entry.actor_id}
    return Adoption(
        adopted=tuple(known[number] for number in sorted(here)),
        lost=tuple(entry for number, entry in known.items() if number not in here),
        unknown=tuple(sorted(set(living) - here)),
    )


@dataclass(frozen=True, slots=True)
class Inventory:
    """What an actor says about itself.

    Attributes:
        role: What it is.
        sessions: The sessions in it, by the names under which it runs them.
    """

    role: Role
    sessions: tuple[str, ...]


def from_inventory(number: int, inventory: Inventory, leases: Iterable[int]) -> PoolActor | None:
    """Makes an entry for an actor that is not written down; None if it serves nobody.

    Nobody else gets a place in it.

    Args:
        number: Its number.
        inventory: What it says.
        leases: Where to take the numbers of its leases from.
    """
    if not inventory.sessions:
        return None
    key = PoolKey(inventory.role, UNKNOWN_KIND)
    processor = inventory.role is Role.PROCESSOR
    return PoolActor(
        number=number,
        start_class=key.start_class,
        state=State.READY,
        key=key,
        slots=len(inventory.sessions),
        leases={
            # The name that `AgentProvider` gives a session's pipeline.
            lease: f"{_PIPELINE.sub('', name)}/{name}" if processor else name
            for lease, name in zip(leases, inventory.sessions, strict=False)
        },
        served=len(inventory.sessions),
        retiring="nobody knows what it was started for",
    )


def abandoned(
    actors: Iterable[PoolActor], sessions: Mapping[int, Sequence[str] | None]
) -> list[int]:
    """Lists the leases of sessions that their actor does not have, and that no supervisor here carries.

    Args:
        actors: All of the node.
        sessions: By actor, the sessions in it, by the names under which it runs them; None, or nothing, for
            one that did not say: it keeps what it has.
    """
    found = []
    carried: set[str] = set()
    everybody = list(actors)
    for actor in everybody:
        if actor.start_class[0] is Role.SUPERVISOR:
            present = sessions.get(actor.number)
            carried.update(actor.leases.values() if present is None else present)
    for actor in everybody:
        present = sessions.get(actor.number)
        if present is None:
            continue
        supervisor = actor.start_class[0] is Role.SUPERVISOR
        for lease, owner in actor.leases.items():
            here = owner in present or owner.rpartition("/")[2] in present
            if not here and (supervisor or not any(is_part(owner, name) for name in carried)):
                found.append(lease)
    return found
