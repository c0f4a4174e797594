"""How a restarted node agent goes on with the actors of the agent before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from loguru import logger
from ray.exceptions import RayError

from antiphon_actors.adoption import Inventory, abandoned, compare, from_inventory
from antiphon_actors.agent_store import AgentState
from antiphon_actors.fleet import Fleet, Member
from antiphon_actors.pool_types import Action, Role
from antiphon_actors.pools import NodePools
from antiphon_actors.processor_actor import ActorFacts
from antiphon_actors.ray_internal import actor_id_of

ANSWER_SECS = 2.0
"""How long an actor may take to say what it is."""

_LOOK_AGAIN_SECS = 2.0


class Takeover:
    """Takes over what another agent of the node has left; see `antiphon_actors.adoption`.

    Args:
        pools: Who uses the actors.
        fleet: The actors.
        perform: Carries out what the pools want done.
        joined: Told of each actor that is taken over.
        unused_secs: After how long places are freed that nobody uses.
    """

    def __init__(
        self,
        pools: NodePools,
        fleet: Fleet,
        *,
        perform: Callable[[list[Action]], None],
        joined: Callable[[Member], None],
        unused_secs: float,
    ) -> None:
        self._pools = pools
        self._fleet = fleet
        self._perform = perform
        self._joined = joined
        self._unused_secs = unused_secs
        self._adopted = self._lost = self._ended = self._freed = 0
        self._took_secs = 0.0

    def statistics(self) -> dict[str, object]:
        """What was found when this agent began, for tables."""
        return {
            "adopted": self._adopted,
            "lost": self._lost,
            "ended": self._ended,
            "freed": self._freed,
            "took_secs": self._took_secs,
        }

    async def take_over(self, state: AgentState) -> None:
        """Takes over the actors that live, and reports those that have died."""
        began = time.monotonic()
        living = await self._fleet.living()
        found = compare(state.actors, {n: actor_id_of(handle) for n, handle in living.items()})
        self._pools.adopt([kept.actor for kept in (*found.adopted, *found.lost)], began)
        for kept in found.adopted:
            number = kept.actor.number
            role = kept.actor.start_class[0]
            self._joined(self._fleet.adopt(number, role, living[number], kept.facts))
        for kept in found.lost:
            self._fleet.note_lost(kept.actor.number, kept.actor.start_class[0], kept.actor_id)
        self._adopted, self._lost = len(found.adopted), len(found.lost)
        if found.unknown:
            await asyncio.gather(*(self._ask(number, living[number]) for number in found.unknown))
        self._took_secs = time.monotonic() - began
        if living or found.lost:
            logger.warning("a node agent has taken over", **self.statistics())

    async def settle(self) -> None:
        """Frees, after a while, the places that nobody uses."""
        if not self._adopted:
            return
        await asyncio.sleep(self._unused_secs)
        unused = set(await self._unused())
        await asyncio.sleep(_LOOK_AGAIN_SECS)
        # Twice, as a session may just have come or gone.
        unused &= set(await self._unused())
        if unused:
            self._freed = len(unused)
            logger.warning("places are freed that nobody uses", count=self._freed)
            self._perform(self._pools.release_leases(unused, time.monotonic()))

    async def _unused(self) -> list[int]:
        members = self._fleet.ready()
        answers = await asyncio.gather(*(_sessions(member.handle) for member in members))
        actors = self._pools.ready()
        sessions = {member.number: answer for member, answer in zip(members, answers, strict=True)}
        return abandoned(actors, sessions)

    async def _ask(self, number: int, handle: Any) -> None:
        """Finds out what an actor is that nobody has written down; ends it if nobody uses it."""
        actor = None
        facts: ActorFacts | None = None
        try:
            async with asyncio.timeout(ANSWER_SECS):
                role, facts = await handle.ctl_identity.remote()
                health = await handle.ctl_health.remote()
        except (RayError, TimeoutError) as error:
            logger.warning("an actor does not say what it is", error=repr(error))
        else:
            inventory = Inventory(Role(role), tuple(health.sessions or ()))
            actor = from_inventory(number, inventory, self._pools.numbers)
        if actor is None or facts is None:
            self._ended += 1
            self._fleet.end_stranger(handle, facts)
            return
        self._pools.adopt([actor], time.monotonic())
        self._adopted += 1
        self._joined(self._fleet.adopt(number, actor.start_class[0], handle, facts))


async def _sessions(handle: Any) -> tuple[str, ...] | None:
    try:
        async with asyncio.timeout(ANSWER_SECS):
            health = await handle.ctl_health.remote()
    except (RayError, TimeoutError):
        return None
    return tuple(health.sessions) if health.sessions is not None else None
