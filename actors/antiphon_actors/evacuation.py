"""Moves sessions off actors, with the help of the supervisors that carry them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from loguru import logger
from ray.exceptions import RayError

from antiphon_actors.fleet import Fleet, Member
from antiphon_actors.pool_types import Action, Role
from antiphon_actors.pools import NodePools

ANSWER_SECS = 1.0
"""How long the answer of a supervisor may take, beyond what it has for its work."""

END_DEADLINE_SECS = 6.0
"""How long a supervisor may take to end a session."""


class Elsewhere(Protocol):
    """Asks the agents of other nodes."""

    async def evacuate(
        self, uris: Sequence[str], sessions: Sequence[str], reason: str, deadline_secs: float
    ) -> list[str]:
        """Has sessions that other nodes supervise moved off processes; returns those that stay there."""


class Evacuation:
    """The ways in which sessions leave the actors of a node.

    Args:
        pools: Who uses them.
        fleet: The actors.
        perform: Carries out what the pools want done.
        elsewhere: The other nodes; None if there are none.
    """

    def __init__(
        self,
        pools: NodePools,
        fleet: Fleet,
        *,
        perform: Callable[[list[Action]], None],
        elsewhere: Callable[[], Elsewhere | None],
    ) -> None:
        self._pools = pools
        self._fleet = fleet
        self._perform = perform
        self._elsewhere = elsewhere

    async def move(self, member: Member, reason: str, deadline_secs: float) -> int:
        """Has all sessions moved off an actor, as far as they can be; returns how many have.

        Their places are freed. On a node that is drained, processors of its own sessions stay, as they go
        with their supervisor.
        """
        leases = self._pools.leases_of(member.number)
        if member.role is Role.SUPERVISOR:
            gone = await self._hand_over(member, set(leases.values()), deadline_secs)
            freed = [lease for lease, owner in leases.items() if owner in gone]
        else:
            by_session: dict[str, list[int]] = {}
            for lease, owner in leases.items():
                by_session.setdefault(owner.partition("/")[0], []).append(lease)
            assert member.facts is not None
            uris = [member.facts.uri]
            left = await self.evacuate(uris, list(by_session), reason, deadline_secs)
            gone = set(by_session) - set(left)
            freed = [lease for session in gone for lease in by_session[session]]
        if freed:
            self._perform(self._pools.release_leases(freed, time.monotonic()))
        return len(gone)

    async def evacuate(
        self, uris: Sequence[str], sessions: Iterable[str], reason: str, deadline_secs: float
    ) -> list[str]:
        """Has the supervisors of sessions move these off processes.

        Args:
            uris: Of the processes' hubs.
            sessions: Whose; those that this node does not supervise are asked for elsewhere.
            reason: Why, for people.
            deadline_secs: How long that may take.

        Returns:
            The sessions that could not be moved.
        """
        by_supervisor: dict[int, list[str]] = {}
        foreign = []
        stay = []
        for session in sessions:
            number = self._pools.carrier_of(session)
            if number is None:
                foreign.append(session)
            elif self._pools.admission.closed:
                stay.append(session)
            else:
                by_supervisor.setdefault(number, []).append(session)
        elsewhere = self._elsewhere()
        asked = [
            self._ask(number, uris, names, reason, deadline_secs)
            for number, names in by_supervisor.items()
        ]
        if foreign and elsewhere is not None:
            asked.append(elsewhere.evacuate(uris, foreign, reason, deadline_secs))
        else:
            stay += foreign
        for left in await asyncio.gather(*asked):
            stay += left
        return stay

    async def end(self, member: Member) -> None:
        """Ends the sessions that a supervisor carries."""
        if member.role is not Role.SUPERVISOR:
            # They end with their supervisors, or find that the actor is gone.
            return

        async def one(lease: int, session: str) -> None:
            try:
                async with asyncio.timeout(END_DEADLINE_SECS):
                    ended = await member.handle.cancel_session.remote(session)
            except (RayError, TimeoutError) as error:
                logger.warning("a session did not end", session_id=session, error=repr(error))
                return
            if ended:
                self._perform(self._pools.release_leases([lease], time.monotonic()))

        leases = self._pools.leases_of(member.number)
        await asyncio.gather(*(one(*item) for item in leases.items()))

    async def _ask(
        self,
        number: int,
        uris: Sequence[str],
        sessions: Sequence[str],
        reason: str,
        deadline_secs: float,
    ) -> list[str]:
        member = self._fleet.get(number)
        if member is None:
            return list(sessions)
        call = member.handle.evacuate.remote(list(uris), reason, deadline_secs)
        left = await _answer(call, deadline_secs, "sessions could not be moved", sessions)
        return list(sessions) if left is None else [s for s in sessions if s in left]

    async def _hand_over(
        self, member: Member, sessions: Iterable[str], deadline_secs: float
    ) -> set[str]:
        async def one(session: str) -> str | None:
            call = member.handle.hand_over.remote(session, deadline_secs)
            done = await _answer(call, deadline_secs, "a session was not handed over", [session])
            return session if done else None

        return {name for name in await asyncio.gather(*map(one, sessions)) if name is not None}


async def _answer(call: Any, deadline_secs: float, trouble: str, sessions: Sequence[str]) -> Any:
    """What an actor answers; None, and a line in the log, if it does not."""
    try:
        async with asyncio.timeout(deadline_secs + ANSWER_SECS):
            return await call
    except (RayError, TimeoutError) as error:
        logger.warning(trouble, session_ids=list(sessions), error=repr(error))
        return None
