"""Places on other nodes, for sessions of a node that is full or lacks what they ask for.

The first node agent of a cluster has the `Neighbours`. It starts an agent on another node when that
is first needed, and stays whom its supervisors ask: places elsewhere have leases of negative numbers,
behind which are the other agents' own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import ray
from loguru import logger
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from antiphon_actors import ray_internal
from antiphon_actors.agent_client import end_agent
from antiphon_actors.agent_store import KeptElsewhere
from antiphon_actors.agent_types import ActorPlace, ActorWanted, Verdict
from antiphon_actors.channels.errors import CredentialsError
from antiphon_actors.errors import ActorGoneError, NoActorError, reason_of
from antiphon_actors.models.specs import ModelWanted
from antiphon_actors.models.wire import Member
from antiphon_actors.node_watch import ASK_SECS, SILENT_SECS, NodeWatch
from antiphon_actors.pool_types import is_part

T = TypeVar("T")

START_DEADLINE_SECS = 30.0
SUSPECT_DEADLINE_SECS = 4.0
LEAVE_DEADLINE_SECS = 4.0


@dataclass(frozen=True, slots=True)
class Node:
    """A living node of the cluster.

    Attributes:
        node_id: Ray's id of it, hexadecimal.
        resources: All of its Ray resources, whether or not they are taken.
        labels: Its Ray labels.
    """

    node_id: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def could_serve(self, want: ActorWanted) -> bool:
        """Whether it could ever give what an actor is to reserve, and is where that has to be."""
        names = {"num_cpus": "CPU", "num_gpus": "GPU"}
        return want.labels.items() <= self.labels.items() and all(
            self.resources.get(names.get(name, name), 0.0) >= amount
            for name, amount in want.resources.items()
        )


@dataclass(slots=True, eq=False)
class _Question:
    """A request for places under way to another node.

    Attributes:
        session_id: Who asks.
        node_id: Who is asked.
        released: Nobody wants the answer any more.
    """

    session_id: str
    node_id: str
    released: bool = False


AcquireHere = Callable[[str, Sequence[ActorWanted], Iterable[str]], Awaitable[list[ActorPlace]]]
AttachHere = Callable[[Sequence[tuple[int, Any]], str], Awaitable[list[BaseException | None]]]


class Neighbours:
    """The agents of other nodes, and what sessions of this one have there.

    Args:
        here: Id of this node.
        nodes: Lists the nodes that take actors now, this one too.
        make: Makes the agent of another node and returns its handle.
        acquire_here: Gives a session places on this node: all it wants, or none.
        attach_here: Passes specs on to actors of this node.
        release_here: Frees leases of this node.
        changed: Told when there are other places elsewhere than before.
        lost: Told of each place on a node that is lost.
    """

    def __init__(
        self,
        here: str,
        *,
        nodes: Callable[[], list[Node]],
        make: Callable[[str], Any],
        acquire_here: AcquireHere,
        attach_here: AttachHere,
        release_here: Callable[[Iterable[int]], None],
        changed: Callable[[], None],
        lost: Callable[[KeptElsewhere], None],
    ) -> None:
        self._here = here
        self._nodes = nodes
        self._make = make
        self._acquire_here = acquire_here
        self._attach_here = attach_here
        self._release_here = release_here
        self._changed = changed
        self._report_lost = lost
        self._agents: dict[str, asyncio.Task[Any]] = {}
        # As many as sessions have places elsewhere.
        self._places: dict[int, KeptElsewhere] = {}
        # Bounded by the requests that wait here.
        self._asking: list[_Question] = []
        self._numbers = itertools.count(-1, -1)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watch = NodeWatch()
        self._watching: asyncio.Task[None] | None = None
        # Nodes whose answer is awaited.
        self._asked: set[str] = set()
        # Sessions with places on nodes that were lost: what is to be freed there if they come back.
        self._owed: dict[str, set[str]] = {}

    @property
    def node_ids(self) -> list[str]:
        """The nodes on which agents were started."""
        return list(self._agents)

    def kept(self) -> tuple[KeptElsewhere, ...]:
        """The places elsewhere, for a restarted agent."""
        return tuple(self._places.values())

    def take_over(self, kept: Iterable[KeptElsewhere]) -> None:
        """Goes on with the places that the agent before had elsewhere."""
        for place in kept:
            self._places[place.number] = place
        self._numbers = itertools.count(min(self._places, default=0) - 1, -1)
        for node_id in {place.node_id for place in self._places.values()}:
            self._spawn(self._reach(node_id))

    async def acquire_all(
        self, session_id: str, wanted: Sequence[ActorWanted], avoid: Iterable[str]
    ) -> list[ActorPlace]:
        """Gives a session places near it: on this node, or, where that cannot be, on another.

        What this node could never give (a resource it does not have) goes to a node that could. If
        this node has no room for the rest, all of that goes to one other node.

        Raises:
            NoActorError: As `NodeAgent.acquire_all`; nothing is taken then.
        """
        foreign = await self._foreign(wanted)
        near = [number for number in range(len(wanted)) if number not in foreign]
        places: dict[int, ActorPlace] = {}
        try:
            if near:
                group = [wanted[number] for number in near]
                try:
                    found = await self._acquire_here(session_id, group, avoid)
                except NoActorError as error:
                    if not error.overloaded:
                        raise
                    found = await self._from_others(session_id, group, avoid, error)
                places |= zip(near, found, strict=True)
            for number in foreign:
                want = wanted[number]
                asked = [f"{name}={amount:g}" for name, amount in want.resources.items()]
                asked += [f"the label {key}={value}" for key, value in want.labels.items()]
                missing = NoActorError(f"no node of the cluster has {' and '.join(asked)}")
                found = await self._from_others(session_id, [want], avoid, missing)
                places[number] = found[0]
        except BaseException:
            self.release_leases([place.lease_id for place in places.values()])
            raise
        return [places[number] for number in range(len(wanted))]

    async def acquire_model(
        self, wanted: ModelWanted, avoid: Sequence[str], *, drained: bool
    ) -> list[Member] | None:
        """The actors of a model on another node, if this one could never have them; None if it could.

        Args:
            wanted: The model.
            avoid: Ids of actors that the process has lost.
            drained: Whether this node takes no models any more, whatever it could have.

        Raises:
            NoActorError: No node could, or none of those has one.
        """
        want = ActorWanted(wanted.name, resources=dict(wanted.resources))
        if not drained and not await self._foreign([want]):
            return None
        asked = ", ".join(f"{name}={amount:g}" for name, amount in wanted.resources)
        lacks = f"no node of the cluster has {asked}"
        if drained:
            lacks = "the node is being drained, and no other can have the model"
        refusal = NoActorError(lacks, drained, 1.0 if drained else 0.0)
        for node in await self._others([want]):
            try:
                agent = await self._agent(node.node_id)
                found: list[Member] = await agent.acquire_model.remote(
                    wanted, avoid, only_here=True
                )
            except (RayError, NoActorError) as error:
                cause = _cause(error)
                if isinstance(cause, NoActorError):
                    refusal = cause
                    continue
                self._agents.pop(node.node_id, None)
                logger.warning("no model on a node", node_id=node.node_id, error=str(error))
            else:
                return found
        raise refusal

    async def attach(
        self, specs: Sequence[tuple[int, Any]], call: str
    ) -> list[BaseException | None]:
        """Passes specs on to the actors in which a session has its places, on whatever node."""
        by_node: dict[str, list[int]] = {}
        for number, (lease_id, _) in enumerate(specs):
            place = self._places.get(lease_id)
            node_id = place.node_id if place is not None else self._here
            by_node.setdefault(node_id, []).append(number)
        results: dict[int, BaseException | None] = {}

        async def one(node_id: str, numbers: list[int]) -> None:
            group = [specs[number] for number in numbers]
            if node_id == self._here:
                found = await self._attach_here(group, call)
            else:
                theirs = [(self._places[lease_id].lease_id, spec) for lease_id, spec in group]
                try:
                    agent = await self._agent(node_id)
                    found = await agent.attach.remote(theirs, call)
                except RayActorError as error:
                    gone = ActorGoneError(f"its node agent is gone: {reason_of(error)}")
                    found = [gone] * len(group)
                except RayError as error:
                    found = [_cause(error)] * len(group)
            results.update(zip(numbers, found, strict=True))

        await asyncio.gather(*(one(*item) for item in by_node.items()))
        return [results[number] for number in range(len(specs))]

    async def release(self, session_id: str, stuck: Sequence[str] = ()) -> None:
        """Frees all places that a session and its parts ("ID/...") have elsewhere, or ask for.

        Args:
            session_id: The session.
            stuck: Ids of actors; see `NodeAgent.release`.
        """
        node_ids = set()
        for lease_id, place in list(self._places.items()):
            if is_part(place.session_id, session_id):
                self._forget(lease_id)
                node_ids.add(place.node_id)
        for question in self._asking:
            if is_part(question.session_id, session_id):
                question.released = True
                node_ids.add(question.node_id)
        for node_id in node_ids:
            with contextlib.suppress(RayError, NoActorError):  # gone, and its places with it
                agent = await self._agent(node_id)
                await agent.release.remote(session_id, *([stuck] if stuck else []))

    def release_leases(self, lease_ids: Iterable[int]) -> None:
        """Frees places of whatever node; unknown ones are ignored."""
        near = []
        for lease_id in lease_ids:
            place = self._forget(lease_id)
            if place is not None:
                self._spawn(self._release_there(place.node_id, [place.lease_id]))
            elif lease_id > 0:
                near.append(lease_id)
        self._release_here(near)

    async def suspect(self, actor_id: str, reason: str) -> Verdict:
        """Has the agent of its node find out how an actor is; see `NodeAgent.suspect`."""
        place = next((p for p in self._places.values() if p.actor_id == actor_id), None)
        if place is None:
            return Verdict("dead", "the actor is gone")
        try:
            async with asyncio.timeout(SUSPECT_DEADLINE_SECS):
                agent = await self._agent(place.node_id)
                verdict: Verdict = await agent.suspect.remote(actor_id, reason)
        except (RayError, NoActorError, TimeoutError) as error:
            return Verdict("dead", f"its node does not answer: {error!r}")
        return verdict

    async def renew_certificates(self) -> None:
        """Has the certificates of the other nodes replaced.

        Raises:
            CredentialsError: One of them was not; why.
        """
        for node_id in self.node_ids:
            try:
                await (await self._agent(node_id)).renew_certificate.remote()
            except RayError as error:
                raise CredentialsError(f"node {node_id}: {_cause(error)}") from error

    def close(self) -> None:
        """Asks and watches no more; the other agents stay."""
        for task in [*self._tasks, *filter(None, [self._watching])]:
            task.cancel()

    async def shutdown(self, wait_secs: float) -> None:
        """Ends the agents of the other nodes and all their actors."""
        self.close()
        agents = [_started(task) for task in self._agents.values()]
        ends = [
            asyncio.ensure_future(end_agent(agent, 2 * wait_secs))
            for agent in agents
            if agent is not None
        ]
        if ends:
            await asyncio.wait(ends)

    async def _foreign(self, wanted: Sequence[ActorWanted]) -> list[int]:
        """Which of the wishes this node could never fulfil."""
        asking = [n for n, want in enumerate(wanted) if want.resources or want.labels]
        if not asking:
            return []
        nodes = await asyncio.to_thread(self._nodes)
        me = next((node for node in nodes if node.node_id == self._here), None)
        return [number for number in asking if me and not me.could_serve(wanted[number])]

    async def _others(self, wanted: Sequence[ActorWanted]) -> list[Node]:
        """Other nodes that could fulfil all wishes, those that are in use first."""
        others = [
            node
            for node in await asyncio.to_thread(self._nodes)
            if node.node_id != self._here and all(node.could_serve(want) for want in wanted)
        ]
        return sorted(others, key=lambda node: node.node_id not in self._agents)

    async def _from_others(
        self,
        session_id: str,
        wanted: Sequence[ActorWanted],
        avoid: Iterable[str],
        refusal: NoActorError,
    ) -> list[ActorPlace]:
        """Asks other nodes, those that are in use first; the last refusal counts."""
        for node in await self._others(wanted):
            asking = self._spawn(self._acquire_there(node.node_id, session_id, wanted, avoid))
            try:
                found: list[ActorPlace] = await asyncio.shield(asking)
            except asyncio.CancelledError:
                asking.add_done_callback(self._give_back)
                raise
            except NoActorError as error:
                refusal = error
            except RayError as error:
                # It begins anew when it is asked again, if the node still lives.
                self._agents.pop(node.node_id, None)
                logger.warning("no places on a node", node_id=node.node_id, error=str(error))
            else:
                logger.info("places on another node", session_id=session_id, node_id=node.node_id)
                return found
        raise refusal

    async def _acquire_there(
        self, node_id: str, session_id: str, wanted: Sequence[ActorWanted], avoid: Iterable[str]
    ) -> list[ActorPlace]:
        question = _Question(session_id, node_id)
        self._asking.append(question)
        self._watch.used(node_id, _now())
        try:
            agent = await self._agent(node_id)
            found = await agent.acquire_all.remote(session_id, list(wanted), list(avoid))
        except RayTaskError as error:
            cause = _cause(error)
            if isinstance(cause, NoActorError):
                raise cause from None
            raise
        finally:
            self._asking.remove(question)
        if question.released:
            await self._release_there(node_id, [place.lease_id for place in found])
            raise NoActorError("the session was released")
        places = []
        for place in found:
            number = next(self._numbers)
            self._places[number] = KeptElsewhere(
                number, session_id, node_id, place.lease_id, place.actor_id
            )
            places.append(replace(place, lease_id=number))
        self._changed()
        return places

    async def _release_there(self, node_id: str, lease_ids: Sequence[int]) -> None:
        agent = await self._agent(node_id)
        for lease_id in lease_ids:
            with contextlib.suppress(RayError):
                await agent.release_lease.remote(lease_id)

    async def _agent(self, node_id: str) -> Any:
        task = self._agents.get(node_id)
        if task is None or (task.done() and _started(task) is None):
            task = asyncio.get_running_loop().create_task(self._start(node_id))
            self._agents[node_id] = task
        return await asyncio.shield(task)

    async def _start(self, node_id: str) -> Any:
        agent = self._make(node_id)
        try:
            async with asyncio.timeout(START_DEADLINE_SECS):
                await agent.start.remote()
                for session_id in list(self._owed.get(node_id, ())):
                    await agent.release.remote(session_id)
        except TimeoutError:
            raise NoActorError(
                f"the agent of node {node_id} did not start within {START_DEADLINE_SECS:g} s", True
            ) from None
        self._owed.pop(node_id, None)
        self._watch.joined(node_id, _now())
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._keep_watch())
        return agent

    async def _reach(self, node_id: str) -> None:
        try:
            await self._agent(node_id)
        except (RayError, NoActorError) as error:
            logger.warning("a node cannot be reached", node_id=node_id, error=str(error))
            self._lose(node_id)

    async def _keep_watch(self) -> None:
        """Asks each node for signs of life, and gives up those that are silent or not needed."""
        while True:
            for node_id in self._watch.nodes:
                if node_id not in self._asked:
                    self._spawn(self._ask_for_life(node_id))
            await asyncio.sleep(ASK_SECS)
            now = _now()
            for place in self._places.values():
                self._watch.used(place.node_id, now)
            for node_id in self._watch.lost(now):
                self._lose(node_id)
            for node_id in self._watch.idle(now):
                logger.info("a node is given up, as nobody uses it", node_id=node_id)
                self._spawn(self._leave(node_id))

    async def _ask_for_life(self, node_id: str) -> None:
        agent = _started(self._agents.get(node_id))
        if agent is None:
            return
        self._asked.add(node_id)
        try:
            async with asyncio.timeout(SILENT_SECS):
                await agent.ctl_pid.remote()
            self._watch.heard(node_id, _now())
        except (ActorUnavailableError, TimeoutError):
            # It is asked again, until it has been silent for too long.
            pass
        except RayError as error:
            logger.warning("the agent of a node is gone", node_id=node_id, error=str(error))
            self._lose(node_id)
        finally:
            self._asked.discard(node_id)

    async def _leave(self, node_id: str) -> None:
        """Ends the agent of a node that nobody uses; who asks for the node now gets a new one."""
        agent = _started(self._agents.pop(node_id, None))
        if agent is not None:
            await end_agent(agent, LEAVE_DEADLINE_SECS)

    def _lose(self, node_id: str) -> None:
        """Gives up a node and the places there: its sessions find by their links what they lack."""
        logger.error("a node is lost", node_id=node_id)
        self._agents.pop(node_id, None)
        self._watch.left(node_id)
        for number, place in list(self._places.items()):
            if place.node_id == node_id:
                self._forget(number)
                self._owed.setdefault(node_id, set()).add(place.session_id)
                self._report_lost(place)

    def _forget(self, number: int) -> KeptElsewhere | None:
        place = self._places.pop(number, None)
        if place is not None:
            self._changed()
        return place

    def _give_back(self, asking: asyncio.Task[list[ActorPlace]]) -> None:
        """Frees what was granted to who does not wait any more."""
        if not asking.cancelled() and asking.exception() is None:
            self.release_leases([place.lease_id for place in asking.result()])

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _started(task: asyncio.Task[Any] | None) -> Any | None:
    """The agent that a task has started; None if it has not."""
    if task is None or not task.done() or task.cancelled() or task.exception():
        return None
    return task.result()


async def could_have(node_id: str, wanted: ModelWanted) -> bool:
    """Whether a node has what an actor of a model reserves, be it in use or not."""
    want = ActorWanted(wanted.name, resources=dict(wanted.resources))
    nodes = await asyncio.to_thread(living_nodes)
    return any(node.node_id == node_id and node.could_serve(want) for node in nodes)


def living_nodes() -> list[Node]:
    """Lists the nodes of the cluster that are alive and stay so."""
    leaving = ray_internal.draining_nodes()
    return [
        Node(str(node["NodeID"]), dict(node.get("Resources", {})), dict(node.get("Labels", {})))
        for node in ray.nodes()
        if node.get("Alive") and node["NodeID"] not in leaving
    ]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _cause(error: RayError | NoActorError) -> BaseException:
    """What went wrong there: Ray wraps errors of other processes in ones that travel badly."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    return cause if isinstance(cause, BaseException) else error
