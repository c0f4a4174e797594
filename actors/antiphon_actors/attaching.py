"""Passes what sessions want built on to the actors of a node in which they have their places."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from antiphon.errors import AntiphonError, PlacementError
from antiphon_actors.agent_types import ActorWanted
from antiphon_actors.errors import ActorGoneError, NoActorError, reason_of
from antiphon_actors.fleet import Fleet
from antiphon_actors.pools import NodePools


async def attach_all(
    pools: NodePools, fleet: Fleet, specs: Sequence[tuple[int, Any]], call: str
) -> list[BaseException | None]:
    """Passes specs on, side by side; see `NodeAgent.attach`.

    Args:
        pools: Knows which lease is a place in which actor.
        fleet: The node's actors.
        specs: Each with the lease of a place in its actor.
        call: Names this call, for actors that are asked again.

    Returns:
        For each, what went wrong, or None.
    """

    async def one(index: int, lease_id: int, spec: Any) -> None:
        number = pools.actor_of(lease_id)
        member = fleet.get(number) if number is not None else None
        if member is None:
            raise ActorGoneError("the actor has died")
        await member.handle.attach.remote(spec, f"{call}/{lease_id}/{index}" if call else "")

    found = await asyncio.gather(
        *(one(index, *item) for index, item in enumerate(specs)), return_exceptions=True
    )
    return [_portable(error) for error in found]


def check_labels(wanted: Sequence[ActorWanted]) -> None:
    """Refuses what has to be on a node with other labels than this one."""
    for each in wanted:
        if each.labels:
            here = ray.get_runtime_context().get_node_labels()
            missing = [f"{k}={v}" for k, v in each.labels.items() if here.get(k) != v]
            if missing:
                raise NoActorError(f"this node does not have the label {', '.join(missing)}")


def _portable(error: BaseException | None) -> BaseException | None:
    """Tells an error of an actor in words: those of bots, and Ray's own, travel badly."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, AntiphonError):
            return PlacementError(str(cause))
        return PlacementError(f"the actor failed: {type(cause).__name__}: {cause}")
    if isinstance(error, RayActorError):
        return ActorGoneError(f"the actor is gone: {reason_of(error)}")
    if isinstance(error, RayError):
        return PlacementError(f"the actor failed: {reason_of(error)}")
    return error
