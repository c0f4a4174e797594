"""The deaths of a node's actors, for those who want to know of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from loguru import logger

from antiphon_actors.agent_types import ActorDeath, Deaths
from antiphon_actors.pool_types import ReportDeath

KEPT_DEATHS = 1024


class DeathLog:
    """The last deaths, in order.

    Args:
        first: Number of deaths to begin with. A restarted agent begins with a larger one than the agent before
            it can have reached, so that who asks for what came after its last answer learns that it missed some.
    """

    def __init__(self, first: int = 0) -> None:
        self._deaths: deque[ActorDeath] = deque(maxlen=KEPT_DEATHS)
        self._news = asyncio.Event()
        self.count = first

    def add(self, death: ActorDeath) -> None:
        """Adds one, and tells those who wait."""
        self._deaths.append(death)
        self.count += 1
        self._news.set()
        self._news = asyncio.Event()

    def report(self, death: ReportDeath, actor_id: str) -> None:
        """Adds the death of an actor of this node, and logs it.

        Args:
            death: What the pools say.
            actor_id: Ray's id of the actor.
        """
        self.add(ActorDeath(actor_id, str(death.role), death.kind, death.sessions, death.reason))
        logger.warning(
            "an actor died",
            actor_id=actor_id,
            kind=death.kind,
            session_ids=death.sessions,
            error=death.reason,
        )

    async def after(self, since: int, wait_secs: float) -> Deaths:
        """Returns the deaths after a cursor, waiting for the first; see `NodeAgent.deaths`."""
        if since >= self.count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), wait_secs)
        fresh = self.count - since if since >= 0 else 0
        missed = fresh > len(self._deaths) or fresh < 0
        number = len(self._deaths) if missed else fresh
        return Deaths(self.count, tuple(self._deaths)[len(self._deaths) - number :], missed)
