"""One actor a node: owns the processor and supervisor actors there.

Ray kills an actor's children when their owner dies. A supervisor that owned its processor actors
would take them along, so the agent owns both, and each outlives a restart of the other. The agent
does little and holds no session state; its decisions are those of `antiphon_actors.pools`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import shutil
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ray
from loguru import logger
from ray.exceptions import RayActorError, RayError, RayTaskError

from antiphon.errors import AntiphonError, PlacementError
from antiphon_actors.agent_types import (
    ActorDeath,
    ActorLease,
    ActorPlace,
    ActorWanted,
    AgentSettings,
    Deaths,
    Introduction,
)
from antiphon_actors.channels import CredentialsError
from antiphon_actors.errors import NoActorError
from antiphon_actors.models.agent_models import AgentModels
from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.models.specs import ModelWanted
from antiphon_actors.models.wire import Member
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
from antiphon_actors.processor_actor import (
    ActorFacts,
    ProcessorActor,
    WatchedActor,
    actor_options,
    reason_of,
    remote_class,
    until_gone,
)
from antiphon_actors.ray_internal import WorkerPrestarter, actor_id_of
from antiphon_actors.warm_workers import KEEP_ALIVE_SECS, WarmWorkers

if TYPE_CHECKING:
    from antiphon_actors.issuer import Certified
    from antiphon_actors.node_network import NodeNetwork
    from antiphon_actors.session.network import Network

KEPT_DEATHS = 1024
# How long an actor may take to close its sockets before it is killed anyway.
_STOP_SECS = 0.5
_REFILL_DELAY_SECS = 0.25


@dataclass(slots=True)
class _Running:
    handle: Any
    actor_id: str
    facts: ActorFacts | None = None
    watch: asyncio.Task[None] | None = None


class NodeAgent(WatchedActor):
    """Gives sessions places in actors of its node; see the module and `create_agent`.

    All methods but `start` and `shutdown` may be called any number of times at once.

    Args:
        settings: How to work.
    """

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__()
        self._settings = settings
        self._pools = NodePools(settings.pools)
        self._running: dict[int, _Running] = {}
        self._answers: dict[int, asyncio.Future[Grant]] = {}
        self._deaths: deque[ActorDeath] = deque(maxlen=KEPT_DEATHS)
        self._death_count = 0
        self._death_news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock_news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._workers = WarmWorkers(
            settings.warm_workers, WorkerPrestarter(keep_alive_secs=KEEP_ALIVE_SECS)
        )
        self._node_id = ""
        self._hub_dir = settings.hub_dir
        self._across: NodeNetwork | None = None
        self._classes: dict[Role, Any] = {}
        self._models = AgentModels(settings.models, self._models_elsewhere)

    async def start(self) -> ActorFacts:
        """Begins to fill the reserve; later calls only answer.

        Other methods start the agent themselves, so that one restarted by Ray goes on working.
        """
        self._ensure_started()
        return ActorFacts(uri="", pid=os.getpid(), prefix=0, node_id=self._node_id)

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
        self._ensure_started()
        if self._across is not None and self._across.neighbours is not None:
            return await self._across.neighbours.acquire_all(session_id, wanted, avoid)
        return await self._acquire_here(session_id, wanted, avoid)

    async def attach(self, specs: Sequence[tuple[int, Any]]) -> list[BaseException | None]:
        """Passes specs on to the actors in which a session has its places, side by side.

        Args:
            specs: Each with the lease of a place in its actor.

        Returns:
            For each, what went wrong, or None.
        """
        if self._across is not None and self._across.neighbours is not None:
            return await self._across.neighbours.attach(specs)
        return await self._attach_here(specs)

    async def _attach_here(self, specs: Sequence[tuple[int, Any]]) -> list[BaseException | None]:
        async def one(lease_id: int, spec: Any) -> None:
            number = self._pools.actor_of(lease_id)
            running = self._running.get(number) if number is not None else None
            if running is None:
                raise NoActorError("the actor has died")
            await running.handle.attach.remote(spec)

        found = await asyncio.gather(*(one(*item) for item in specs), return_exceptions=True)
        return [_portable(error) for error in found]

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
            kind: Sessions of the same kind (a bot and its version, say) may share one.
            mode: A supervisor for this session alone, or one with free slots.
            resources: Ray resources it must reserve.
            avoid: Ids of actors that must not be chosen.

        Raises:
            NoActorError: As `acquire_all`.
        """
        want = Want(PoolKey.of(Role.SUPERVISOR, kind, resources), Mode(mode))
        return (await self._lease(session_id, [want], avoid))[0]

    async def acquire_model(self, wanted: ModelWanted, avoid: Sequence[str] = ()) -> list[Member]:
        """Gives a process the actors of a model, after the first of them is ready.

        Args:
            wanted: The model.
            avoid: Ids of actors that the process has lost.

        Raises:
            NoActorError: There is none to be had, and why.
        """
        self._ensure_started()
        return await self._models.acquire(wanted, avoid)

    async def release(self, session_id: str) -> None:
        """Frees all places of a session and of its parts ("ID/..."); unknown ones are ignored.

        Its dedicated actors are killed; pooled ones stay until they have been idle for a while.
        """
        self._ensure_started()
        self._perform(self._pools.release(session_id, time.monotonic()))
        if self._across is not None and self._across.neighbours is not None:
            await self._across.neighbours.release(session_id)

    async def release_lease(self, lease_id: int) -> None:
        """Frees one place; unknown ones are ignored."""
        self._ensure_started()
        if self._across is not None and self._across.neighbours is not None:
            self._across.neighbours.release_leases([lease_id])
        else:
            self._perform(self._pools.release_leases([lease_id], time.monotonic()))

    async def introduce(self) -> Introduction:
        """Tells a process of this node that the agent has not started how to take part.

        Raises:
            CredentialsError: It would have no certificate; why.
        """
        self._ensure_started()
        if self._across is None:
            return Introduction(self._hub_dir, None)
        await self._across.ready()
        return Introduction(self._hub_dir, self._across.network)

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
        self._ensure_started()
        if since >= self._death_count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._death_news.wait(), wait_secs)
        fresh = self._death_count - since if since >= 0 else 0
        # A cursor from before a restart of this agent is ahead of its count: all is new then.
        missed = fresh > len(self._deaths) or fresh < 0
        count = len(self._deaths) if missed else fresh
        deaths = tuple(self._deaths)[len(self._deaths) - count :]
        return Deaths(self._death_count, deaths, missed)

    async def status(self) -> dict[str, Any]:
        """Numbers for tables: capacity, actors by kind, and each actor."""
        return {
            "node_id": self._node_id,
            "pid": os.getpid(),
            **self._pools.statistics(time.monotonic()),
            "prestart_refused": self._workers.refused,
            "deaths": self._death_count,
            "models": self._models.statistics(),
            "model_processes": self._models.processes(),
            "network": self._across.statistics() if self._across is not None else None,
            "processes": [
                {
                    "actor_id": running.actor_id,
                    "pid": running.facts.pid,
                    "uri": running.facts.uri,
                    "used": self._pools.used_slots(number),
                }
                for number, running in self._running.items()
                if running.facts is not None
            ],
        }

    async def shutdown(self, wait_secs: float = 2.0) -> None:
        """Kills all actors of the agent and waits for their end; the agent itself stays."""
        self._perform(self._pools.close("the node agent is shutting down"))
        elsewhere = asyncio.ensure_future(self._leave_network(wait_secs))
        models = asyncio.ensure_future(self._models.shutdown(wait_secs))
        ending = [task for task in self._tasks if task.get_name().startswith("end")]
        watches = [entry.watch for entry in self._running.values() if entry.watch is not None]
        if ending or watches:
            await asyncio.wait([*ending, *watches], timeout=wait_secs)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=wait_secs)
        for number in list(self._running):
            self._forget(number, kill=True)
        await asyncio.gather(elsewhere, models)
        if self._hub_dir and not self._settings.hub_dir:
            await asyncio.to_thread(shutil.rmtree, self._hub_dir, ignore_errors=True)
        await self._workers.aclose()

    def statistics(self) -> dict[str, Any]:
        """Numbers for the health check."""
        return self._pools.statistics(time.monotonic())

    # --- requests -------------------------------------------------------------------------------

    async def _acquire_here(
        self, session_id: str, wanted: Sequence[ActorWanted], avoid: Iterable[str]
    ) -> list[ActorPlace]:
        _check_labels(wanted)
        wants = [
            Want(PoolKey.of(Role.PROCESSOR, each.kind, each.resources), Mode(each.mode))
            for each in wanted
        ]
        leases = await self._lease(session_id, wants, avoid)
        return [ActorPlace(lease.lease_id, lease.actor_id, lease.facts) for lease in leases]

    async def _lease(
        self, session_id: str, wanted: Sequence[Want], avoid: Iterable[str]
    ) -> list[ActorLease]:
        self._ensure_started()
        unwanted = set(avoid)
        numbers = [n for n, entry in self._running.items() if entry.actor_id in unwanted]
        now = time.monotonic()
        request, actions = self._pools.acquire(session_id, wanted, now, avoid=numbers)
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
            running = self._running.get(place.actor)
            if running is None or running.facts is None:
                self._free(grant)
                raise NoActorError("the actor died as it was given away", True, 0.0)
            leases.append(ActorLease(place.lease, running.actor_id, running.facts, running.handle))
        return leases

    def _free(self, grant: Grant) -> None:
        """Frees places that nobody has taken."""
        leases = [place.lease for place in grant.places]
        self._perform(self._pools.release_leases(leases, time.monotonic()))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case StartActor():
                    _ = self._spawn(self._start_actor(action), f"start {action.actor}")
                case KillActor():
                    self._end_actor(action)
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

    # --- actors ---------------------------------------------------------------------------------

    async def _start_actor(self, action: StartActor) -> None:
        if not self._pools.hurried:
            # A refill of the reserve leaves the machine to the session that has just been served.
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), _REFILL_DELAY_SECS)
        started = time.monotonic()
        running: _Running | None = None
        try:
            async with asyncio.timeout(self._settings.start_deadline_secs):
                if self._across is not None:
                    await self._across.ready()
                handle = self._create(action)
                running = _Running(handle, actor_id_of(handle))
                self._running[action.actor] = running
                running.facts = await handle.start.remote()
                await handle.settle.remote()
        except Exception as error:  # noqa: BLE001 - whatever a constructor raises is a failed start
            self._forget(action.actor, kill=True)
            if not self._pools.knows(action.actor):
                # Given up meanwhile.
                return
            reason = reason_of(error) or f"not ready after {self._settings.start_deadline_secs:g} s"
            logger.warning("an actor did not start", role=str(action.role), error=reason)
            self._perform(self._pools.start_failed(action.actor, reason, time.monotonic()))
            return
        self._workers.used_one()
        running.watch = self._spawn(self._watch(action.actor, running), f"watch {action.actor}")
        logger.debug("actor started", role=str(action.role), secs=time.monotonic() - started)
        self._perform(self._pools.started(action.actor, time.monotonic()))

    def _create(self, action: StartActor) -> Any:
        options = actor_options(self._node_id, dict(action.resources))
        settings = self._settings
        me = ray.get_runtime_context().current_actor
        network: dict[str, Any] = {}
        if self._across is not None:
            network["network"] = self._across.network
        if settings.models != ModelSettings():
            network["models"] = settings.models
        if action.role is Role.PROCESSOR:
            return (
                self._class_of(action.role)
                .options(**options)
                .remote(self._hub_dir, settings.host, agent=me, **network)
            )
        return (
            self._class_of(action.role)
            .options(**options)
            .remote(self._hub_dir, me, **settings.supervisor_arguments, **network)
        )

    def _class_of(self, role: Role) -> Any:
        if role not in self._classes:
            plain: Any = ProcessorActor
            if role is Role.SUPERVISOR:
                module, _, name = self._settings.supervisor.partition(":")
                plain = getattr(importlib.import_module(module), name)
            self._classes[role] = remote_class(plain)
        return self._classes[role]

    async def _watch(self, number: int, running: _Running) -> None:
        """Waits for an actor's death; the pending call fails within about 10 ms of it."""
        reason = await until_gone(running.handle)
        self._perform(self._pools.died(number, reason, time.monotonic()))
        self._forget(number, kill=False)

    def _end_actor(self, action: KillActor) -> None:
        running = self._running.get(action.actor)
        if running is not None:
            _ = self._spawn(self._stop_and_kill(action.actor, running), f"end {action.actor}")

    async def _stop_and_kill(self, number: int, running: _Running) -> None:
        if running.facts is not None and hasattr(running.handle, "stop"):
            with contextlib.suppress(RayError, TimeoutError):
                # So that its sockets do not stay behind; a stuck one is killed all the same.
                await asyncio.wait_for(running.handle.stop.remote(), _STOP_SECS)
        self._forget(number, kill=True)

    def _forget(self, number: int, *, kill: bool) -> None:
        running = self._running.pop(number, None)
        if running is not None and kill:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(running.handle)

    def _report_death(self, action: ReportDeath) -> None:
        actor_id = self._running[action.actor].actor_id
        self._deaths.append(
            ActorDeath(actor_id, str(action.role), action.kind, action.sessions, action.reason)
        )
        self._death_count += 1
        self._death_news.set()
        self._death_news = asyncio.Event()
        logger.warning(
            "an actor died",
            actor_id=actor_id,
            kind=action.kind,
            session_ids=action.sessions,
            error=action.reason,
        )
        if self._across is not None and self._across.neighbours is not None:
            for session_id in action.orphans:
                _ = self._spawn(self._across.neighbours.release(session_id), f"free {session_id}")

    # --- time -----------------------------------------------------------------------------------

    def _ensure_started(self) -> None:
        if self._node_id:
            return
        self.adopt_loop()
        gc.freeze()
        node_id = ray.get_runtime_context().get_node_id()
        if self._settings.network is not None:
            # Here, because what it imports takes megabytes that one node has no use for.
            from antiphon_actors.agents import create_agent
            from antiphon_actors.node_network import NodeNetwork, make_hub_dir

            self._hub_dir = self._hub_dir or make_hub_dir(self._settings.network)
            self._across = NodeNetwork(
                node_id,
                self._hub_dir,
                self._settings,
                create=lambda settings, other: create_agent(
                    settings, node_id=other, detached=self._settings.detached
                ),
                acquire_here=self._acquire_here,
                attach_here=self._attach_here,
                release_here=lambda leases: self._perform(
                    self._pools.release_leases(list(leases), time.monotonic())
                ),
            )
        self._node_id = node_id
        self._models.start(node_id, self._hub_dir, self._ready_for_processes)
        _ = self._spawn(self._keep_time(), "clock")
        _ = self._spawn(self._workers.keep(lambda: self._pools.starting > 0), "workers")

    async def _keep_time(self) -> None:
        while True:
            now = time.monotonic()
            self._perform(self._pools.tick(now))
            # What `tick` did is not news to this task.
            self._clock_news.clear()
            due = self._pools.wake_at(time.monotonic())
            pause = max(due - time.monotonic(), 0.001) if due is not None else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._clock_news.wait(), pause)

    async def _ready_for_processes(self) -> Network | None:
        """Waits until processes that start now find what they need; the node's place among others."""
        if self._across is None:
            return None
        await self._across.ready()
        return self._across.network

    async def _models_elsewhere(
        self, wanted: ModelWanted, avoid: Sequence[str]
    ) -> list[Member] | None:
        if self._across is None or not wanted.resources:
            return None
        return await self._across.acquire_model(wanted, avoid)

    async def _leave_network(self, wait_secs: float) -> None:
        if self._across is not None:
            await self._across.shutdown(wait_secs)

    def _several_nodes(self) -> NodeNetwork:
        self._ensure_started()
        if self._across is None:
            raise CredentialsError("this agent has no part in a cluster of several nodes")
        return self._across

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error(
                "a task of the node agent failed", task=task.get_name()
            )


def _check_labels(wanted: Sequence[ActorWanted]) -> None:
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
    if isinstance(error, RayError):
        what = "is gone" if isinstance(error, RayActorError) else "failed"
        return PlacementError(f"the actor {what}: {reason_of(error)}")
    return error
