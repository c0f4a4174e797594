"""One actor a node: starts the processor and supervisor actors there, and looks after them.

Ray kills an actor's children when their owner dies. A supervisor that owned its processor actors
would take them along, so the agent owns both, and each outlives a restart of the other. The actors of a
detached agent are detached too: they outlive it, and when Ray has restarted it, it takes them over.

The agent holds no session state. Who gets which actor is decided in `antiphon_actors.pools`, which of them
have to go in `antiphon_actors.caretaker`; `antiphon_actors.fleet` starts and ends them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import ray
from loguru import logger

from antiphon_actors.agent_store import AgentState, AgentStore, KeptActor, KeptElsewhere
from antiphon_actors.agent_types import (
    ActorDeath,
    ActorLease,
    ActorPlace,
    ActorWanted,
    AgentSettings,
    Deaths,
    Introduction,
    Verdict,
)
from antiphon_actors.attaching import attach_all, check_labels
from antiphon_actors.caretaker import Caretaker
from antiphon_actors.channels import CredentialsError
from antiphon_actors.deaths import DeathLog
from antiphon_actors.drains import DrainProgress, DrainTarget, TargetKind
from antiphon_actors.errors import NoActorError
from antiphon_actors.evacuation import Evacuation
from antiphon_actors.fleet import Fleet, Member
from antiphon_actors.hub_directory import fixed_hub_dir, make_hub_dir
from antiphon_actors.models.agent_models import AgentModels
from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.models.specs import ModelWanted
from antiphon_actors.models.wire import Member as ModelMember
from antiphon_actors.pool_types import (
    Action,
    Grant,
    KillActor,
    Mode,
    PoolKey,
    Refuse,
    ReportDeath,
    Role,
    StartActor,
    Want,
)
from antiphon_actors.pools import NodePools
from antiphon_actors.processor_actor import ActorFacts, WatchedActor
from antiphon_actors.ray_internal import WorkerPrestarter
from antiphon_actors.takeover import Takeover
from antiphon_actors.warm_workers import KEEP_ALIVE_SECS, WarmWorkers

if TYPE_CHECKING:
    from antiphon_actors.issuer import Certified
    from antiphon_actors.node_network import NodeNetwork
    from antiphon_actors.session.network import Network

T = TypeVar("T")

_REFILL_DELAY_SECS = 0.25


class NodeAgent(WatchedActor):
    """Gives sessions places in actors of its node; see the module and `create_agent`.

    All methods but `start` and `shutdown` may be called any number of times at once.

    Args:
        settings: How to work.
    """

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__()
        self._settings = settings
        # Of actors, leases, requests and deaths: none of a restarted agent may be one of the agent before.
        first = time.time_ns() // 1_000_000 if settings.detached else 1
        self._pools = NodePools(settings.pools, first_number=first)
        self._fleet = Fleet(settings, self, self._spawn)
        self._attach_here = partial(attach_all, self._pools, self._fleet)
        self._evacuation = Evacuation(
            self._pools, self._fleet, perform=self._perform, elsewhere=lambda: self._across
        )
        self._models = AgentModels(settings.models, lambda: self._across)
        self._caretaker = Caretaker(
            settings,
            self._pools,
            self._fleet,
            self._evacuation,
            self._models,
            perform=self._perform,
            spawn=self._spawn,
            on_drains=self._save_soon,
        )
        self._takeover = Takeover(
            self._pools,
            self._fleet,
            perform=self._perform,
            joined=self._caretaker.joined,
            unused_secs=settings.unused_secs,
        )
        self._answers: dict[int, asyncio.Future[Grant]] = {}
        self._deaths = DeathLog(first - 1)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._clock_news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._open = asyncio.Event()
        self._workers = WarmWorkers(
            settings.warm_workers, WorkerPrestarter(keep_alive_secs=KEEP_ALIVE_SECS)
        )
        self._store: AgentStore | None = None
        self._saving = False
        self._across: NodeNetwork | None = None
        if settings.detached:
            # Ray may have restarted it, and nobody may call it for long: its actors wait.
            _ = self._spawn(self._ready(), "begin")

    async def start(self) -> ActorFacts:
        """Begins to fill the reserve; later calls only answer.

        Other methods start the agent themselves, so that one restarted by Ray goes on working.
        """
        await self._ready()
        return ActorFacts(uri="", pid=os.getpid(), prefix=0, node_id=self._fleet.node_id)

    async def acquire(
        self,
        session_id: str,
        kind: str,
        mode: Literal["dedicated", "pooled"] = "pooled",
        resources: Mapping[str, float] | None = None,
        avoid: Iterable[str] = (),
    ) -> ActorLease:
        """Gives a session a place in a processor actor; as `acquire_all` with one.

        Args:
            session_id: Whose place.
            kind: See `ActorWanted`, as for `mode` and `resources`.
            mode: As there.
            resources: As there.
            avoid: Ids of actors that must not be chosen.

        Raises:
            NoActorError: As `acquire_all`.
        """
        want = Want(PoolKey.of(Role.PROCESSOR, kind, resources), Mode(mode))
        return (await self._lease(session_id, [want], avoid))[0]

    async def acquire_all(
        self, session_id: str, wanted: Sequence[ActorWanted], avoid: Iterable[str] = ()
    ) -> list[ActorPlace]:
        """Gives a session places in processor actors: all it wants, or none.

        A caller that is cancelled gets no place: those that were found meanwhile are freed.

        Args:
            session_id: Whose places.
            wanted: What it wants.
            avoid: Ids of actors that must not be chosen.

        Returns:
            The places, in the same order. They hold no handles: `attach` carries specs there.

        Raises:
            NoActorError: Something of it is not free and cannot be had in time; what, and why.
        """
        await self._ready()
        if self._across is not None and self._across.neighbours is not None:
            return await self._across.neighbours.acquire_all(session_id, wanted, avoid)
        return await self._acquire_here(session_id, wanted, avoid)

    async def attach(
        self, specs: Sequence[tuple[int, Any]], call: str = ""
    ) -> list[BaseException | None]:
        """Passes specs on to the actors in which a session has its places, side by side.

        Args:
            specs: Each with the lease of a place in its actor.
            call: Names this call, so that it may be repeated when the answer was lost: what it has built
                already is not built again.

        Returns:
            For each, what went wrong, or None.
        """
        await self._ready()
        if self._across is not None and self._across.neighbours is not None:
            return await self._across.neighbours.attach(specs, call)
        return await self._attach_here(specs, call)

    async def start_supervisor(
        self,
        session_id: str,
        kind: str = "supervisor",
        mode: Literal["dedicated", "pooled"] = "pooled",
        resources: Mapping[str, float] | None = None,
        avoid: Iterable[str] = (),
    ) -> ActorLease:
        """Gives a session a supervisor: a place in one, or one of the reserve.

        Args:
            session_id: Whose supervisor.
            kind: Sessions of the same kind ("APP@VERSION", say) may share one.
            mode: A supervisor for this session alone, or one with free slots.
            resources: Ray resources it must reserve.
            avoid: Ids of actors that must not be chosen.

        Raises:
            NoActorError: As `acquire_all`.
        """
        want = Want(PoolKey.of(Role.SUPERVISOR, kind, resources), Mode(mode))
        return (await self._lease(session_id, [want], avoid))[0]

    async def acquire_model(
        self, wanted: ModelWanted, avoid: Sequence[str] = (), *, only_here: bool = False
    ) -> list[ModelMember]:
        """Gives a process the actors of a model, after the first of them is ready.

        Args:
            wanted: The model.
            avoid: Ids of actors that the process has lost.
            only_here: Whether it has to be on this node.

        Raises:
            NoActorError: There is none to be had, and why.
        """
        await self._ready()
        return await self._models.acquire(wanted, avoid, only_here=only_here)

    async def release(self, session_id: str, stuck: Sequence[str] = ()) -> None:
        """Frees all places of a session and of its parts ("ID/..."); unknown ones are ignored.

        Its dedicated actors are killed; pooled ones stay until they have been idle for a while.

        Args:
            session_id: The session.
            stuck: Ids of actors that have not answered it: its places there are free when it is known how
                they are (`suspect`).
        """
        await self._ready()
        self._caretaker.hold_places(session_id, stuck)
        self._perform(self._pools.release(session_id, time.monotonic()))
        if self._across is not None and self._across.neighbours is not None:
            await self._across.neighbours.release(session_id, stuck)

    async def release_lease(self, lease_id: int) -> None:
        """Frees one place; unknown ones are ignored."""
        await self._ready()
        if self._across is not None and self._across.neighbours is not None:
            self._across.neighbours.release_leases([lease_id])
        else:
            self._perform(self._pools.release_leases([lease_id], time.monotonic()))

    async def introduce(self) -> Introduction:
        """Tells a process of this node that the agent has not started how to take part.

        Raises:
            CredentialsError: It would have no certificate; why.
        """
        await self._ready()
        if self._across is None:
            return Introduction(self._fleet.hub_dir, None)
        await self._across.ready()
        return Introduction(self._fleet.hub_dir, self._across.network)

    async def suspect(self, actor_id: str, reason: str) -> Verdict:
        """Finds out how an actor is whose link was lost, or that is silent; within 3 s, a stopped one at once.

        One that is dead or frozen is killed for certain, and reported by `deaths`. One that is stuck gets no
        new sessions, and its sessions are moved off it.

        Args:
            actor_id: Ray's id, hexadecimal.
            reason: What was noticed, for people.
        """
        await self._ready()
        member = self._fleet.find(actor_id)
        if member is not None:
            return await self._caretaker.suspect(member, reason)
        if self._across is not None and self._across.neighbours is not None:
            return await self._across.neighbours.suspect(actor_id, reason)
        return Verdict("dead", "the actor is gone")

    async def evacuate(
        self, uris: Sequence[str], sessions: Sequence[str], reason: str, deadline_secs: float
    ) -> list[str]:
        """Has sessions that are supervised here moved off processes, of whatever node.

        Args:
            uris: Of the processes' hubs.
            sessions: Whose processors are to move.
            reason: Why, for people.
            deadline_secs: How long that may take.

        Returns:
            Those that could not be moved.
        """
        await self._ready()
        return await self._evacuation.evacuate(uris, sessions, reason, deadline_secs)

    async def drain(
        self,
        what: TargetKind,
        name: str = "",
        deadline_secs: float = 300.0,
        reason: str = "asked for",
    ) -> int:
        """Empties this node, a pool of it, or an app on it; returns at once.

        No new sessions come. Those that are there may end by themselves; after half of the time they are moved
        where that can be done, and what is left at the deadline is ended.

        Args:
            what: See `DrainTarget`; "node" is this one, whatever the name.
            name: As there.
            deadline_secs: How long sessions may take.
            reason: Why, for people.

        Returns:
            The number of the drain, in `drains`.
        """
        await self._ready()
        name = self._fleet.node_id if what == "node" else name
        return self._caretaker.drain(DrainTarget(what, name), deadline_secs, reason)

    async def drains(self) -> list[DrainProgress]:
        """How the drains of this node are getting on."""
        await self._ready()
        return self._caretaker.drain_progress()

    async def cancel_drain(self, number: int) -> None:
        """Calls a drain off, or lets in again what it has closed.

        Raises:
            LookupError: There is no such drain.
        """
        await self._ready()
        self._caretaker.cancel_drain(number)

    async def certify(self, node_id: str, host: str, public_key_pem: bytes) -> Certified:
        """Issues a certificate to a node of the cluster; only the first agent can.

        Raises:
            CredentialsError: This is not the first agent, or the request cannot be granted.
        """
        return self._several_nodes().certify(node_id, host, public_key_pem)

    async def renew_certificate(self) -> None:
        """Replaces the certificate of this node's processes before its time; links go on.

        The first agent has those of all nodes replaced.

        Raises:
            CredentialsError: One stays as it is; why.
        """
        await self._several_nodes().renew()

    async def deaths(self, since: int = 0, wait_secs: float = 30.0) -> Deaths:
        """Returns the deaths after `since`, waiting up to `wait_secs` for the first.

        Args:
            since: The cursor of the answer before; -1 for the present one at once.
            wait_secs: How long to wait when there are none.
        """
        await self._ready()
        return await self._deaths.after(since, wait_secs)

    async def status(self) -> dict[str, Any]:
        """Numbers for tables: capacity, actors by kind, and each actor with its health."""
        return {
            "node_id": self._fleet.node_id,
            "pid": os.getpid(),
            **self._pools.statistics(time.monotonic()),
            "prestart_refused": self._workers.refused,
            "deaths": self._deaths.count,
            "models": self._models.statistics(),
            "model_processes": self._models.processes(),
            "network": self._across.statistics() if self._across is not None else None,
            "drains": [progress.to_plain() for progress in self._caretaker.drain_progress()],
            "adoption": self._takeover.statistics(),
            "state_not_written": self._store.error if self._store is not None else "",
            "processes": [
                {
                    "actor_id": member.actor_id,
                    "pid": member.facts.pid,
                    "uri": member.facts.uri,
                    "used": self._pools.used_slots(member.number),
                    **self._caretaker.describe(member.number),
                }
                for member in self._fleet.ready()
                if member.facts is not None
            ],
        }

    async def shutdown(self, wait_secs: float = 2.0) -> None:
        """Kills all actors of the agent and waits for their end; the agent itself stays."""
        self._perform(self._pools.close("the node agent is shutting down"))
        elsewhere = asyncio.ensure_future(self._leave_network(wait_secs))
        models = asyncio.ensure_future(self._models.shutdown(wait_secs))
        ending = [task for task in self._tasks if task.get_name().startswith("end")]
        if ending:
            await asyncio.wait(ending, timeout=wait_secs)
        await self._fleet.wait_for_end(wait_secs)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=wait_secs)
        await asyncio.gather(elsewhere, models)
        self._caretaker.close()
        if self._store is not None:
            self._store.remove()
            self._store = None
        if self._fleet.hub_dir and not self._settings.hub_dir:
            await asyncio.to_thread(shutil.rmtree, self._fleet.hub_dir, ignore_errors=True)
        await self._workers.aclose()

    def statistics(self) -> dict[str, Any]:
        """Numbers for the health check."""
        return self._pools.statistics(time.monotonic())

    # --- requests -------------------------------------------------------------------------------

    async def _acquire_here(
        self, session_id: str, wanted: Sequence[ActorWanted], avoid: Iterable[str]
    ) -> list[ActorPlace]:
        check_labels(wanted)
        wants = [
            Want(PoolKey.of(Role.PROCESSOR, each.kind, each.resources), Mode(each.mode))
            for each in wanted
        ]
        leases = await self._lease(session_id, wants, avoid)
        return [ActorPlace(lease.lease_id, lease.actor_id, lease.facts) for lease in leases]

    async def _lease(
        self, session_id: str, wanted: Sequence[Want], avoid: Iterable[str]
    ) -> list[ActorLease]:
        await self._ready()
        unwanted = self._fleet.numbers_of(avoid)
        now = time.monotonic()
        request, actions = self._pools.acquire(session_id, wanted, now, avoid=unwanted)
        answer = self._answers[request] = asyncio.get_running_loop().create_future()
        self._perform(actions)
        if self._pools.hurried:
            self._hurry.set()
        try:
            # The state machine has a deadline for every request; this one is for its faults.
            grant = await asyncio.wait_for(answer, self._settings.pools.acquire_deadline_secs + 5.0)
        except (asyncio.CancelledError, TimeoutError):
            self._answers.pop(request, None)
            self._perform(self._pools.cancel(request, time.monotonic()))
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._free(answer.result())
            raise
        leases = []
        for place in grant.places:
            member = self._fleet.get(place.actor)
            if member is None or member.facts is None:
                self._free(grant)
                raise NoActorError("the actor died as it was given away", True, 0.0)
            leases.append(ActorLease(place.lease, member.actor_id, member.facts, member.handle))
        return leases

    def _free(self, grant: Grant) -> None:
        """Frees places that nobody has taken."""
        leases = [place.lease for place in grant.places]
        self._perform(self._pools.release_leases(leases, time.monotonic()))

    def _perform(self, actions: list[Action]) -> None:
        # Before the answers that are given here: who has a place has it after a restart, too.
        self._save_soon()
        for action in actions:
            match action:
                case StartActor():
                    _ = self._spawn(self._start_actor(action), f"start {action.actor}")
                case KillActor():
                    self._fleet.end(action.actor)
                case Grant():
                    answer = self._answers.pop(action.request, None)
                    if answer is None or answer.done():
                        self._free(action)
                    else:
                        answer.set_result(action)
                case Refuse():
                    answer = self._answers.pop(action.request, None)
                    if answer is not None and not answer.done():
                        answer.set_exception(
                            NoActorError(action.reason, action.overloaded, action.retry_after_secs)
                        )
                case ReportDeath():
                    self._report_death(action)
        # Whatever happened may have changed when the clock is due.
        self._clock_news.set()
        self._caretaker.changed()

    # --- actors: what the fleet tells -----------------------------------------------------------

    async def _start_actor(self, action: StartActor) -> None:
        if not self._pools.hurried:
            # A refill of the reserve leaves the machine to the session that has just been served.
            self._hurry.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_REFILL_DELAY_SECS):
                    await self._hurry.wait()
        await self._fleet.start(action)

    def actor_ready(self, member: Member) -> None:
        """See `fleet.Owner`, as for the others."""
        self._workers.used_one()
        self._caretaker.joined(member)
        self._perform(self._pools.started(member.number, time.monotonic()))

    def actor_not_started(self, number: int, reason: str) -> None:
        """It may be tried again, later."""
        self._perform(self._pools.start_failed(number, reason, time.monotonic()))

    def actor_died(self, number: int, reason: str) -> None:
        """Its sessions lose it."""
        self._perform(self._pools.died(number, reason, time.monotonic()))

    def actor_left(self, number: int) -> None:
        """Nobody looks after it any more."""
        self._caretaker.left(number)

    def wanted(self, number: int) -> bool:
        """Whether the pools still want it."""
        return self._pools.knows(number)

    async def process_arguments(self) -> Mapping[str, Any]:
        """The node's place among others, once its certificate is there, and how models run."""
        network = await self._ready_for_processes()
        arguments: dict[str, Any] = {"network": network} if network is not None else {}
        if self._settings.models != ModelSettings():
            arguments["models"] = self._settings.models
        return arguments

    def _report_death(self, action: ReportDeath) -> None:
        member = self._fleet.get(action.actor)
        actor_id = member.actor_id if member is not None else ""
        self._deaths.report(action, actor_id)
        if self._across is not None and self._across.neighbours is not None:
            for session_id in action.orphans:
                _ = self._spawn(self._across.neighbours.release(session_id), f"free {session_id}")

    def _lost_elsewhere(self, place: KeptElsewhere) -> None:
        reason = f"node {place.node_id} is lost"
        self._deaths.add(
            ActorDeath(place.actor_id, str(Role.PROCESSOR), "", (place.session_id,), reason)
        )

    # --- beginning ------------------------------------------------------------------------------

    async def _ready(self) -> None:
        """Waits until the agent works: until a restarted one has taken over what it finds."""
        self._ensure_started()
        await self._open.wait()

    def _ensure_started(self) -> None:
        if self._fleet.node_id:
            return
        self.adopt_loop()
        gc.freeze()
        node_id = ray.get_runtime_context().get_node_id()
        settings = self._settings
        parent = settings.network.scratch_dir if settings.network is not None else None
        if not self._fleet.hub_dir:
            make = fixed_hub_dir if settings.detached else make_hub_dir
            self._fleet.hub_dir = make(node_id, parent)
        if settings.network is not None:
            # Here, because what it imports takes megabytes that one node has no use for.
            from antiphon_actors.agents import create_agent
            from antiphon_actors.node_network import NodeNetwork

            self._across = NodeNetwork(
                node_id,
                self._fleet.hub_dir,
                settings,
                create=lambda others, other: create_agent(
                    others, node_id=other, detached=settings.detached
                ),
                acquire_here=self._acquire_here,
                attach_here=self._attach_here,
                release_here=lambda leases: self._perform(
                    self._pools.release_leases(list(leases), time.monotonic())
                ),
                changed=self._save_soon,
                lost=self._lost_elsewhere,
            )
        self._caretaker.start(node_id)
        self._fleet.node_id = node_id
        self._models.start(node_id, self._fleet.hub_dir, self._ready_for_processes)
        if settings.detached:
            self._store = AgentStore(Path(self._fleet.hub_dir))
            _ = self._spawn(self._take_over(self._store), "take over")
        else:
            self._begin()

    async def _take_over(self, store: AgentStore) -> None:
        """Goes on where an agent that died has left off."""
        try:
            state = store.read() or AgentState()
            await self._takeover.take_over(state)
            if self._across is not None and self._across.neighbours is not None:
                self._across.neighbours.take_over(state.elsewhere)
            self._caretaker.resume_drains(state.drains)
        finally:
            # Whatever went wrong, new sessions can be served.
            self._begin()
        await self._takeover.settle()

    def _begin(self) -> None:
        self._open.set()
        _ = self._spawn(self._keep_time(), "clock")
        _ = self._spawn(self._workers.keep(lambda: self._pools.starting > 0), "workers")

    def _save_soon(self) -> None:
        if self._store is not None and self._open.is_set() and not self._saving:
            self._saving = True
            asyncio.get_running_loop().call_soon(self._save)

    def _save(self) -> None:
        self._saving = False
        if self._store is None:
            return
        kept = []
        for actor in self._pools.ready():
            member = self._fleet.get(actor.number)
            if member is not None and member.facts is not None:
                kept.append(KeptActor(actor, member.actor_id, member.facts))
        neighbours = self._across.neighbours if self._across is not None else None
        elsewhere = neighbours.kept() if neighbours is not None else ()
        self._store.write(AgentState(tuple(kept), elsewhere, self._caretaker.kept_drains()))

    # --- time -----------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            now = time.monotonic()
            self._perform(self._pools.tick(now))
            # What `tick` did is not news to this task.
            self._clock_news.clear()
            # As of that time: what has come due since is due at once.
            due = self._pools.wake_at(now)
            pause = max(due - time.monotonic(), 0.001) if due is not None else None
            # Not `wait_for`, which can absorb a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._clock_news.wait()

    async def _ready_for_processes(self) -> Network | None:
        """Waits until processes that start now find what they need; the node's place among others."""
        if self._across is None:
            return None
        await self._across.ready()
        return self._across.network

    async def _leave_network(self, wait_secs: float) -> None:
        if self._across is not None:
            await self._across.shutdown(wait_secs)

    def _several_nodes(self) -> NodeNetwork:
        self._ensure_started()
        if self._across is None:
            raise CredentialsError("this agent has no part in a cluster of several nodes")
        return self._across

    def _spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error(
                "a task of the node agent failed", task=task.get_name()
            )
