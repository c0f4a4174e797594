"""What the tests of `antiphon_actors.pools` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from antiphon_actors.pool_state import State
from antiphon_actors.pool_types import (
    Action,
    Grant,
    Mode,
    Place,
    PoolKey,
    PoolSettings,
    Role,
    StartActor,
    Want,
)
from antiphon_actors.pools import NodePools

T = TypeVar("T")

ECHO = PoolKey.of(Role.PROCESSOR, "Echo")
OTHER = PoolKey.of(Role.PROCESSOR, "Other")
GPU = PoolKey.of(Role.PROCESSOR, "Big", {"num_gpus": 1, "num_cpus": 0})
SUPERVISOR = PoolKey.of(Role.SUPERVISOR, "bot")
SETTINGS = PoolSettings(
    reserve=2,
    supervisor_reserve=0,
    slots_per_actor=2,
    supervisor_slots=1,
    max_starts=2,
    max_actors=6,
    max_waiting=4,
    acquire_deadline_secs=10.0,
    idle_secs=30.0,
    failures_to_open=3,
    backoff_first_secs=1.0,
    backoff_limit_secs=3.0,
)


def of(kind: type[T], actions: Sequence[Action]) -> list[T]:
    return [action for action in actions if isinstance(action, kind)]


def filled(settings: PoolSettings = SETTINGS) -> NodePools:
    """Returns pools whose reserve is ready, at time 0."""
    pools = NodePools(settings)
    ready(pools, pools.tick(0.0))
    return pools


def grant(pools: NodePools, session: str, key: PoolKey, mode: Mode, now: float = 0.0) -> Place:
    (granted,) = of(Grant, pools.acquire(session, [Want(key, mode)], now)[1])
    (place,) = granted.places
    return place


def ready(pools: NodePools, actions: Sequence[Action], now: float = 0.0) -> list[Action]:
    """Lets every start of these actions, and those that follow, succeed."""
    done: list[Action] = []
    pending = of(StartActor, actions)
    while pending:
        following = pools.started(pending.pop(0).actor, now)
        pending += of(StartActor, following)
        done += following
    return done


def all_ready(pools: NodePools, now: float = 0.0) -> list[Action]:
    """Lets every start that is under way succeed, and those that follow."""
    done = list(pools.tick(now))
    while starting := [a.number for a in pools._actors.values() if a.state is State.STARTING]:
        for number in starting:
            done += pools.started(number, now)
    return done


def placed(pools: NodePools, session: str, key: PoolKey) -> Place:
    """Gives a session a place, in an actor that is started if there is none."""
    _, actions = pools.acquire(session, [Want(key)], 0.0)
    (granted,) = of(Grant, [*actions, *all_ready(pools)])
    (place,) = granted.places
    return place


def breakers(pools: NodePools, now: float) -> list[dict[str, Any]]:
    """Returns what the statistics say of actors that do not start."""
    found: Any = pools.statistics(now)["breakers"]
    return list(found)
