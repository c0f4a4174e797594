"""Supervisors of a Ray cluster: those of the gateway's own node first, then of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Any

import ray
from loguru import logger
from ray.exceptions import RayError, RayTaskError

from antiphon_actors.agent_types import ActorLease
from antiphon_actors.errors import NoActorError, SupervisorLostError, reason_of
from antiphon_actors.gateway.settings import AppSpec
from antiphon_actors.gateway.supervisors import Supervisor
from antiphon_actors.report import SessionReport
from antiphon_actors.supervisor import Failure, Output, SessionSpec

STATUS_DEADLINE_SECS = 2.0
"""How long another node's agent may take to say how busy it is."""

_RETRY_AFTER_SECS = 1.0


class ClusterSupervisors:
    """Asks node agents for supervisors (`Supervisors`)."""

    def __init__(self, agent: Any, others: Callable[[], Sequence[Any]] | None = None) -> None:
        """Makes it.

        Args:
            agent: The agent of this node.
            others: Lists those of other nodes that live; None if there are none. It may block.
        """
        self._agent = agent
        self._others = others

    async def reserve(self, run_id: str, app: AppSpec, avoid: Collection[str]) -> Supervisor:
        """Gives a session a place on this node, or on the least busy of the others."""
        try:
            return await _reserve(self._agent, run_id, app, avoid)
        except NoActorError as refusal:
            for other in await self._others_by_load():
                try:
                    return await _reserve(other, run_id, app, avoid)
                except NoActorError as error:
                    logger.debug("another node has no supervisor either", error=str(error))
            raise refusal

    async def _others_by_load(self) -> list[Any]:
        if self._others is None:
            return []
        others = await asyncio.to_thread(self._others)
        loads = await asyncio.gather(*(_load(other) for other in others))
        answering = [(load, i) for i, load in enumerate(loads) if load is not None]
        return [others[i] for _, i in sorted(answering)]


class _Place:
    """A place in a supervisor actor (`Supervisor`)."""

    def __init__(self, agent: Any, run_id: str, lease: ActorLease) -> None:
        self._agent = agent
        self._run_id = run_id
        self._handle = lease.handle
        self.actor_id = lease.actor_id
        facts = lease.facts
        self.where = f"actor {lease.actor_id[:8]}, pid {facts.pid}, node {facts.node_id[:8]}"

    async def run(self, spec: SessionSpec) -> AsyncGenerator[Output | Failure | SessionReport]:
        """Runs the session; see `Supervisor`."""
        stream = self._handle.run_session.options(num_returns="streaming").remote(spec)
        try:
            async for reference in stream:
                yield await reference
        except RayError as error:
            raise _translated(error) from error

    async def cancel(self, run_id: str) -> None:
        """Ends the session; see `Supervisor`."""
        await self._end(run_id, self._handle.cancel_session)

    async def abandon(self, run_id: str) -> None:
        """Ends the session there; see `Supervisor`."""
        await self._end(run_id, self._handle.abandon_session)

    async def _end(self, run_id: str, method: Any) -> None:
        try:
            ended = await method.remote(run_id)
        except RayError as error:
            raise _translated(error) from error
        if not ended:
            # Its caller's line is gone, so nobody hears it; the supervisor's other sessions go on.
            logger.error("a bot does not end when it is cancelled", run_id=run_id, actor=self.where)

    def kill(self) -> None:
        """Ends the supervisor; its agent notices."""
        ray.kill(self._handle)

    async def release(self) -> None:
        """Gives back the place, and what the session has in processor actors."""
        try:
            await self._agent.release.remote(self._run_id)
        except RayError as error:
            logger.debug("place not given back: the agent is gone", error=reason_of(error))


async def _reserve(agent: Any, run_id: str, app: AppSpec, avoid: Collection[str]) -> Supervisor:
    asking = agent.start_supervisor.remote(run_id, kind=app.kind, avoid=list(avoid))
    try:
        return _Place(agent, run_id, await asking)
    except RayTaskError as error:
        if isinstance(error.cause, NoActorError):
            raise error.cause from None
        raise NoActorError(f"the node agent failed: {error.cause}") from error
    except RayError as error:
        # Ray is restarting it, or the node is gone.
        raise NoActorError(reason_of(error), True, _RETRY_AFTER_SECS) from error
    except asyncio.CancelledError:
        # Whether it waits or was granted just now: it is given up.
        agent.release.remote(run_id)
        raise


async def _load(agent: Any) -> int | None:
    """How many sessions a node has; None if it does not say."""
    try:
        async with asyncio.timeout(STATUS_DEADLINE_SECS):
            status = await agent.status.remote()
    except (RayError, TimeoutError) as error:
        logger.debug("a node agent does not answer", error=repr(error))
        return None
    kinds: dict[str, dict[str, int]] = status["kinds"]
    return sum(each["used"] for kind, each in kinds.items() if kind.startswith("supervisor:"))


def _translated(error: RayError) -> SupervisorLostError:
    if isinstance(error, RayTaskError):
        return SupervisorLostError(f"the supervisor did not run the session: {error.cause}")
    return SupervisorLostError(reason_of(error))
