"""How a node agent looks after its actors: has the sick ones found out, emptied and replaced, and drains.

The shell of three state machines without I/O: `health` says which actors have to go, `retirement` when their
sessions are moved, `drains` what is emptied on whose order.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from loguru import logger
from ray.exceptions import ActorUnavailableError, RayError

from antiphon_actors import ray_internal
from antiphon_actors.agent_store import KeptDrain
from antiphon_actors.agent_types import AgentSettings, Verdict
from antiphon_actors.drains import (
    END_SECS,
    CloseAdmission,
    DrainAction,
    DrainModels,
    DrainProgress,
    Drains,
    DrainTarget,
    EndSessions,
    OpenAdmission,
    RetireActors,
    Sessions,
)
from antiphon_actors.evacuation import Evacuation
from antiphon_actors.fleet import Fleet, Member, Spawn
from antiphon_actors.health import (
    Destroy,
    Examine,
    Finding,
    HealthAction,
    Isolate,
    NodeHealth,
    Reason,
)
from antiphon_actors.models.agent_models import AgentModels
from antiphon_actors.pool_types import Action, Role, is_of_pool, is_version
from antiphon_actors.pools import NodePools
from antiphon_actors.processes import Look, ProcessId
from antiphon_actors.processor_actor import LAG_PROBE_SECS
from antiphon_actors.pulse import SOCKET_NAME, Pulse, PulseAddress, PulseReceiver
from antiphon_actors.retirement import (
    MOVE_SECS,
    Move,
    Plan,
    RetirementAction,
    Retirements,
    Stop,
    plan_for,
)

ANSWER_SECS = 0.5
"""How long the answer of an actor's control thread may take, beyond its look at the main loop."""

LEAVE_SECS = 300.0
"""How long the sessions of a node may take that the cluster takes away without a deadline."""

_LOOK_SECS = 1.0

# Before the name of a session that is over: owner of its places in actors that did not answer it.
_HELD = "~"

GRACE_SECS = 1.5
"""How much longer one may take that runs: something native may keep all of its threads from running."""


class Caretaker:
    """The health of one node's actors, their replacement, and drains.

    Args:
        settings: Of the agent.
        pools: Who uses them.
        fleet: The actors.
        evacuation: Moves sessions.
        models: The node's.
        perform: Carries out what the pools want done.
        spawn: Runs something in a task of the agent.
        on_drains: Told when there are other drains than before.
    """

    def __init__(
        self,
        settings: AgentSettings,
        pools: NodePools,
        fleet: Fleet,
        evacuation: Evacuation,
        models: AgentModels,
        *,
        perform: Callable[[list[Action]], None],
        spawn: Spawn,
        on_drains: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._pools = pools
        self._fleet = fleet
        self._evacuation = evacuation
        self._models = models
        self._perform = perform
        self._spawn = spawn
        self._on_drains = on_drains
        self._health = NodeHealth(settings.pools, pools)
        self._retirements = Retirements()
        self._drains = Drains()
        # Those who look at an actor, by its number.
        self._looks: dict[int, asyncio.Task[Verdict]] = {}
        self._receiver: PulseReceiver | None = None
        self._news = asyncio.Event()

    def start(self, node_id: str) -> None:
        """Begins to take signs of life.

        Args:
            node_id: Ray's id of the node.
        """
        # A restarted agent is where the one before was.
        name = SOCKET_NAME if self._settings.detached else f"{SOCKET_NAME}-{os.getpid()}"
        path = Path(self._fleet.hub_dir) / name
        self._receiver = PulseReceiver(path, self._pulse)
        me = ProcessId.of(os.getpid()) if self._settings.detached else None
        self._fleet.pulse = PulseAddress(str(path), me, self._settings.orphaned_secs)
        _ = self._spawn(self._keep_time(), "caretaker")
        if self._settings.detached or self._settings.network is not None:
            _ = self._spawn(self._watch_node(node_id), "watch the node")

    def close(self) -> None:
        """Takes no more signs of life."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()

    # --- what the agent tells -------------------------------------------------------------------

    def joined(self, member: Member) -> None:
        """An actor is ready, or was taken over."""
        self._health.joined(member.number, member.role, _now())
        self._news.set()

    def left(self, number: int) -> None:
        """An actor is gone."""
        self._health.left(number)
        self._retirements.gone(number)
        self._news.set()

    def changed(self) -> None:
        """Sessions have come or gone."""
        if self._drains.active:
            self._news.set()

    # --- health ---------------------------------------------------------------------------------

    async def suspect(self, member: Member, why: str) -> Verdict:
        """Finds out how an actor is that somebody finds silent, and sees to the rest."""
        record = self._health.record(member.number)
        if record is None:
            return Verdict("dead", "the actor is gone")
        if record.reason is Reason.STUCK:
            return Verdict("stuck", record.text)
        self._act(self._health.suspected(member.number, why, _now()))
        # Whoever else looks at it now shares the answer.
        return await asyncio.shield(self._looks[member.number])

    def hold_places(self, session_id: str, actor_ids: Iterable[str]) -> None:
        """Has nobody get a session's places in some pooled actors before it is known how these are.

        Args:
            session_id: The session, which is over.
            actor_ids: Actors that have not answered it; those of other nodes are ignored.
        """
        for member in filter(None, map(self._fleet.find, actor_ids)):
            holder = f"{_HELD}{session_id}/{member.number}"
            if self._pools.hold(session_id, [member.number], holder):
                _ = self._spawn(self._release_when_known(member, holder), f"look for {session_id}")

    async def _release_when_known(self, member: Member, holder: str) -> None:
        try:
            await self.suspect(member, "it did not answer a session that was cancelled")
        finally:
            self._perform(self._pools.release(holder, time.monotonic()))

    def describe(self, number: int) -> dict[str, object]:
        """What is known about the health of an actor, for tables."""
        record = self._health.record(number)
        if record is None:
            return {}
        return {
            "condition": str(record.condition),
            "trouble": record.text,
            "served": self._pools.served(number),
            "lag_ms": record.lag_ms,
            "memory_bytes": record.memory_bytes,
            "growth_bytes": record.growth_bytes,
            "silent_secs": _now() - record.heard_at,
        }

    def _pulse(self, pulse: Pulse) -> None:
        member = self._fleet.of_process(pulse.pid)
        if member is not None:
            self._act(self._health.pulse(member.number, pulse, _now()))

    def _act(self, actions: Sequence[HealthAction]) -> None:
        for action in actions:
            match action:
                case Examine():
                    look = self._spawn(self._look_at(action.actor), f"look at {action.actor}")
                    self._looks[action.actor] = look
                case Isolate():
                    self._isolate(action)
                case Destroy():
                    self._destroy(action.actor, action.text)
        if actions:
            self._news.set()

    async def _look_at(self, number: int) -> Verdict:
        try:
            member = self._fleet.get(number)
            if member is None:
                return Verdict("dead", "the actor is gone")
            finding, text = await examine(member)
            self._act(self._health.examined(number, finding, text, _now()))
            return Verdict(finding.value, text)
        finally:
            self._looks.pop(number, None)

    def _isolate(self, action: Isolate) -> None:
        member = self._fleet.get(action.actor)
        if member is None:
            return
        log = logger.info if action.reason.planned else logger.warning
        log(
            "an actor is isolated",
            actor_id=member.actor_id,
            role=str(member.role),
            reason=str(action.reason),
            trouble=action.text,
            session_ids=list(self._pools.leases_of(action.actor).values()),
        )
        plan = plan_for(
            action.reason, member.role, self._settings.pools, resumable=self._settings.detached
        )
        self._retire(action.actor, f"{action.reason}: {action.text}", plan)

    def _retire(self, number: int, text: str, plan: Plan) -> None:
        now = _now()
        self._perform(self._pools.retire(number, text, now))
        if self._pools.knows(number):
            self._follow(self._retirements.begin(number, text, plan, now))

    def _destroy(self, number: int, text: str) -> None:
        logger.warning("an actor is killed", actor=number, error=text)
        self._fleet.destroy(number, text)

    # --- moving sessions ------------------------------------------------------------------------

    def _follow(self, actions: Sequence[RetirementAction]) -> None:
        for action in actions:
            match action:
                case Move():
                    _ = self._spawn(self._move(action), f"move off {action.actor}")
                case Stop():
                    self._destroy(action.actor, action.text)
        self._news.set()

    async def _move(self, action: Move) -> None:
        member = self._fleet.get(action.actor)
        if member is not None:
            moved = await self._evacuation.move(member, action.text, action.deadline_secs)
            self._drains.moved(action.actor, moved)
            logger.debug("sessions moved", actor_id=member.actor_id, count=moved)
        self._follow(self._retirements.moved(action.actor, _now()))

    # --- drains ---------------------------------------------------------------------------------

    def drain(self, target: DrainTarget, deadline_secs: float, reason: str) -> int:
        """Begins a drain; returns its number."""
        number, actions = self._drains.begin(
            target,
            self._concerned(target),
            deadline_secs=deadline_secs,
            reason=reason,
            now=_now(),
        )
        logger.info("drain", target=str(target), deadline_secs=deadline_secs, reason=reason)
        self._carry_out(actions)
        self._on_drains()
        return number

    def cancel_drain(self, number: int) -> None:
        """Calls a drain off, or lets in again what it has closed.

        Raises:
            LookupError: There is no such drain.
        """
        self._carry_out(self._drains.cancel(number))
        self._on_drains()

    def drain_progress(self) -> list[DrainProgress]:
        """How the drains are getting on."""
        return self._drains.progress(_now())

    def kept_drains(self) -> tuple[KeptDrain, ...]:
        """The drains that a restarted agent has to go on with."""
        ahead = time.time() - _now()
        return tuple(
            # Rounded, as the two clocks are not read at once: what is the same is not written again.
            KeptDrain(target.what, target.name, reason, round(ahead + until, 1))
            for target, reason, until in self._drains.kept()
        )

    def resume_drains(self, kept: Iterable[KeptDrain]) -> None:
        """Goes on with the drains of the agent before."""
        for drain in kept:
            target = DrainTarget(drain.what, drain.name)
            self.drain(target, max(drain.until - time.time(), 0.0), drain.reason)

    async def _watch_node(self, node_id: str) -> None:
        """Drains the node when the cluster takes it away: nobody asks the actors of such a node."""
        told = False
        while True:
            leaving = await asyncio.to_thread(ray_internal.draining_nodes)
            if node_id in leaving and not told:
                deadline = leaving[node_id] / 1000 or time.time() + LEAVE_SECS
                left = max(deadline - time.time() - END_SECS, 0.0)
                self.drain(DrainTarget("node", node_id), left, "the cluster takes it away")
            told = node_id in leaving
            await asyncio.sleep(_LOOK_SECS)

    def _concerned(self, target: DrainTarget) -> Sessions:
        def concerns(role: Role, kind: str) -> bool:
            match target.what:
                case "node":
                    return True
                case "pool":
                    return role is Role.PROCESSOR and is_of_pool(kind, target.name)
                case "app":
                    return role is Role.SUPERVISOR and is_version(kind, target.name)

        return {
            actor.number: actor.leases.values()
            for actor in self._pools.ready()
            if concerns(actor.start_class[0], actor.key.kind if actor.key is not None else "")
        }

    def _carry_out(self, actions: Sequence[DrainAction]) -> None:
        for action in actions:
            match action:
                case CloseAdmission():
                    self._pools.admission.close(
                        action.target.what, action.target.name, action.reason
                    )
                case OpenAdmission():
                    self._pools.admission.open(action.target.what, action.target.name)
                    if action.target.what == "node":
                        self._models.reopen()
                case RetireActors():
                    plan = Plan(action.move_after_secs, MOVE_SECS, action.stop_after_secs)
                    for number in action.actors:
                        self._health.isolated(number, Reason.DRAINED, action.reason)
                        self._retire(number, action.reason, plan)
                case EndSessions():
                    for number in action.actors:
                        member = self._fleet.get(number)
                        if member is not None:
                            _ = self._spawn(self._evacuation.end(member), f"end all of {number}")
                case DrainModels():
                    self._models.drain()
        self._news.set()

    # --- time -----------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            now = _now()
            if self._receiver is not None:
                # What this process was too busy to read is no silence of theirs.
                self._receiver.drain()
            self._act(self._health.tick(now))
            self._follow(self._retirements.tick(now))
            if self._drains.active:
                everybody = {actor.number: actor.leases.values() for actor in self._pools.ready()}
                self._carry_out(self._drains.counted(everybody, now))
            # What has just been done is not news to this task.
            self._news.clear()
            due = [self._health.wake_at(), self._retirements.wake_at(), self._drains.wake_at()]
            pause = min((at - _now() for at in due if at is not None), default=None)
            # Not `wait_for`, which can absorb a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, 0.001) if pause is not None else None):
                    await self._news.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def examine(member: Member) -> tuple[Finding, str]:
    """Finds out how an actor is: looks at its process and asks its control thread."""
    assert member.process is not None
    look = member.process.look()
    if look is Look.RUNS or look is Look.UNKNOWN:
        asking = asyncio.ensure_future(_ask(member))
        try:
            for patience in (LAG_PROBE_SECS + ANSWER_SECS, GRACE_SECS):
                await asyncio.wait([asking], timeout=patience)
                look = member.process.look()
                if asking.done() or look in (Look.STOPPED, Look.GONE):
                    break
            if asking.done():
                return asking.result()
        finally:
            asking.cancel()
    if look is Look.GONE:
        return Finding.DEAD, "its process is gone"
    if look is Look.STOPPED:
        return Finding.FROZEN, "its process is stopped"
    patience = LAG_PROBE_SECS + ANSWER_SECS + GRACE_SECS
    return Finding.FROZEN, f"no thread of its process does anything for {patience:g} s"


async def _ask(member: Member) -> tuple[Finding, str]:
    while True:
        try:
            health = await member.handle.ctl_health.remote()
        except ActorUnavailableError:
            # Its process says whether it is there.
            await asyncio.sleep(ANSWER_SECS)
        except RayError:
            return Finding.DEAD, "its process is gone"
        else:
            if health.stuck:
                return Finding.STUCK, f"its event loop does nothing for {health.lag_ms:.0f} ms"
            return Finding.ALIVE, "it answers"
