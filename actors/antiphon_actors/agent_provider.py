"""Where the actors of a session's processors come from: the node's agent."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import ray
from loguru import logger
from ray.exceptions import RayError, RayTaskError

from antiphon.errors import PlacementError
from antiphon_actors.agent_client import AgentClient
from antiphon_actors.agent_types import ActorPlace, ActorWanted
from antiphon_actors.errors import ActorGoneError, NoActorError
from antiphon_actors.placement.places import PlacedProcessor, demands
from antiphon_actors.session.home import Host
from antiphon_actors.session.spec import AttachSpec

ACQUIRE_DEADLINE_SECS = 30.0
ATTACH_DEADLINE_SECS = 30.0
RELEASE_DEADLINE_SECS = 10.0


class _Attachments:
    """What a session tells its actors at its start, in one call for all of them.

    The call goes by way of the agent, which is connected to each: a first call of ours to an actor
    would cost several milliseconds.
    """

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent
        # As many as the session has processors.
        self._waiting: list[tuple[int, AttachSpec]] = []
        self._call: asyncio.Task[dict[int, BaseException | None]] | None = None
        # Those under way: they go on when who asked does not wait any more.
        self._calls: set[asyncio.Task[dict[int, BaseException | None]]] = set()

    async def attach(self, lease_id: int, spec: AttachSpec) -> BaseException | None:
        """Passes a spec on, with all others of this turn of the loop; returns what went wrong."""
        self._waiting.append((lease_id, spec))
        call = self._call
        if call is None:
            call = self._call = asyncio.get_running_loop().create_task(self._send())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return (await asyncio.shield(call))[lease_id]

    async def _send(self) -> dict[int, BaseException | None]:
        await asyncio.sleep(0)  # the others' turn
        specs, self._waiting, self._call = self._waiting, [], None
        leases = [lease_id for lease_id, _ in specs]
        try:
            # It may be repeated: what it has built is not built again.
            found = await self._agent.call(
                "attach", specs, uuid.uuid4().hex, deadline_secs=ATTACH_DEADLINE_SECS
            )
        except (RayError, TimeoutError) as error:
            return dict.fromkeys(leases, error)
        return dict(zip(leases, found, strict=True))


class _LeasedHost:
    """A processor actor, as the session's executor sees it."""

    def __init__(self, place: ActorPlace, attachments: _Attachments) -> None:
        self._place = place
        self._attachments = attachments
        self.uri = place.facts.uri
        self.actor_id = place.actor_id
        self.lease_id = place.lease_id
        self.description = f"actor {place.actor_id[:8]}, pid {place.facts.pid}"
        if place.facts.node_id != ray.get_runtime_context().get_node_id():
            self.description += f", node {place.facts.node_id[:8]}"

    async def attach(self, spec: AttachSpec) -> None:
        error = await self._attachments.attach(self._place.lease_id, spec)
        if isinstance(error, (RayError, TimeoutError)):
            why = str(error) or "no answer in time"
            raise PlacementError(f"the node agent is gone: {why}") from error
        if isinstance(error, ActorGoneError):
            raise ActorGoneError(f"{error} ({self.description})") from error
        if error is not None:
            raise PlacementError(f"{error} ({self.description})") from error


def _leased(hosts: Sequence[Host]) -> list[_LeasedHost]:
    return [host for host in hosts if isinstance(host, _LeasedHost)]


class AgentProvider:
    """Gets processor actors from the node's agent, for one pipeline.

    Args:
        agent: The node agent.
        owner: The session; what it has not given back itself ends with its own place.
    """

    def __init__(self, agent: AgentClient, owner: str) -> None:
        self._agent = agent
        self._owner = owner
        self._attachments = _Attachments(agent)

    async def acquire(
        self, session_id: str, moved: Sequence[PlacedProcessor], avoid: Sequence[Host] = ()
    ) -> list[Host]:
        """Processor actors for all processors of a session, or for none.

        Args:
            session_id: The session.
            moved: The processors.
            avoid: Actors that must not be chosen.

        Raises:
            NoActorError: If the agent has none; it says what is short.
            PlacementError: If it does not answer.
        """
        needed = demands(moved)
        wanted = [ActorWanted(each.kind, each.mode, each.resources, each.labels) for each in needed]
        try:
            places = await self._agent.call(
                "acquire_all",
                self._name(session_id),
                wanted,
                [each.actor_id for each in _leased(avoid)],
                deadline_secs=ACQUIRE_DEADLINE_SECS,
            )
        except (RayError, TimeoutError) as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, NoActorError):
                raise NoActorError(
                    f"no actors for the session: {cause}", cause.overloaded, cause.retry_after_secs
                ) from error
            why = cause if isinstance(error, RayError) else "no answer in time"
            raise PlacementError(f"no actors for the session: {why}") from error
        hosts: dict[int, Host] = {}
        for each, place in zip(needed, places, strict=True):
            hosts |= dict.fromkeys(each.pids, _LeasedHost(place, self._attachments))
        return [hosts[placed.pid] for placed in moved]

    async def give_back(self, session_id: str, hosts: Sequence[Host]) -> None:
        """Gives back some of a session's actors."""
        for lease_id in {each.lease_id for each in _leased(hosts)}:
            await self._tell("release_lease", lease_id)

    async def release(self, session_id: str, stuck: Sequence[Host] = ()) -> None:
        """Gives back every actor of a session; the agent looks at those that are stuck first."""
        actor_ids = sorted({each.actor_id for each in _leased(stuck)})
        await self._tell("release", self._name(session_id), *([actor_ids] if actor_ids else []))

    async def _tell(self, method: str, what: object, *more: object) -> None:
        try:
            await self._agent.call(method, what, *more, deadline_secs=RELEASE_DEADLINE_SECS)
        except TimeoutError:
            # An agent that comes back finds by itself what nobody uses.
            logger.warning("actors were not given back", place=what)

    def _name(self, session_id: str) -> str:
        """The pipeline's name with the agent, apart from that of its supervisor's place."""
        return f"{self._owner}/{session_id}"
