"""The node agent's part in models: starts, watches and ends their actors, as `ModelPools` decides."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from loguru import logger
from ray.exceptions import RayError, RayTaskError

from antiphon_actors.errors import NoActorError, reason_of
from antiphon_actors.fleet import STOP_SECS, remove_socket
from antiphon_actors.models.actor import ModelActor
from antiphon_actors.models.pools import (
    Action,
    AnswerMembers,
    KillReplica,
    ModelKey,
    ModelPools,
    RefuseModel,
    StartReplica,
    TellMembers,
)
from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.models.specs import ModelWanted
from antiphon_actors.models.wire import Member
from antiphon_actors.processor_actor import ActorFacts, actor_options, remote_class, until_gone
from antiphon_actors.ray_internal import actor_id_of
from antiphon_actors.session.network import Network

if TYPE_CHECKING:
    from antiphon_actors.node_network import NodeNetwork

# For calls that only say something.
_CALL_SECS = 5.0


@dataclass(slots=True)
class _Running:
    handle: Any
    actor_id: str
    facts: ActorFacts | None = None


class AgentModels:
    """The actors with models of one node.

    Args:
        settings: How models run.
        across: The node's part in a cluster of several; None if there is but one, or not yet.
    """

    def __init__(self, settings: ModelSettings, across: Callable[[], NodeNetwork | None]) -> None:
        self._settings = settings
        self._across = across
        self._pools = ModelPools(settings)
        self._specs: dict[str, bytes] = {}
        self._running: dict[int, _Running] = {}
        self._answers: dict[int, asyncio.Future[tuple[int, ...]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock_news = asyncio.Event()
        self._node_id = ""
        self._hub_dir = ""
        self._ready: Callable[[], Awaitable[Network | None]] | None = None
        # Ray's class, made where it is first needed.
        self._class: Any = None
        # Larger than those of an agent before this one, by which users know what is newer.
        self._version = time.time_ns()

    def start(
        self, node_id: str, hub_dir: str, ready: Callable[[], Awaitable[Network | None]]
    ) -> None:
        """Begins to keep time, and to preload.

        Args:
            node_id: Where actors are started.
            hub_dir: Directory for their sockets.
            ready: Waits until the node's processes may start; the node's place among others.
        """
        self._node_id, self._hub_dir, self._ready = node_id, hub_dir, ready
        self._spawn(self._keep_time(), "models: clock")
        self._spawn(self._ask_how_they_are(), "models: reports")
        if self._settings.preload:
            self._spawn(self._preload(), "models: preload")

    async def _preload(self) -> None:
        # Here, because a node without such models has no use for it.
        from antiphon_actors.neighbours import could_have

        for spec in self._settings.preload:
            wanted = ModelWanted.of(spec, self._settings)
            if wanted.resources and not await could_have(self._node_id, wanted):
                logger.info("model is not preloaded: the node lacks resources", model=wanted.name)
                continue
            self._specs[wanted.key] = wanted.spec
            model = ModelKey(wanted.key, wanted.name)
            now = time.monotonic()
            self._perform(self._pools.keep(model, wanted.resources, wanted.scaling, now))

    async def acquire(
        self, wanted: ModelWanted, avoid: Sequence[str], *, only_here: bool = False
    ) -> list[Member]:
        """Waits until a model has an actor that takes requests.

        Args:
            wanted: The model.
            avoid: Ids of actors that the process has lost.
            only_here: Whether it has to be on this node; else one is asked for on another, if this one
                could never have it, or is being drained.

        Raises:
            NoActorError: There is none to be had, and why.
        """
        across, drained = self._across(), self._pools.drained
        if across is not None and not only_here and (wanted.resources or drained):
            found = await across.acquire_model(wanted, avoid, drained=drained)
            if found is not None:
                return found
        self._specs.setdefault(wanted.key, wanted.spec)
        lost = [number for number, each in self._running.items() if each.actor_id in avoid]
        request, actions = self._pools.ask(
            ModelKey(wanted.key, wanted.name),
            wanted.resources,
            wanted.scaling,
            time.monotonic(),
            avoid=lost,
        )
        answer = self._answers[request] = asyncio.get_running_loop().create_future()
        self._perform(actions)
        try:
            # The state machine has a deadline for every request.
            numbers = await answer
        finally:
            if self._answers.pop(request, None) is not None:
                self._pools.cancel(request)
        return self._members(numbers)

    def drain(self) -> None:
        """Has all actors leave: their users go on elsewhere, and none is started any more."""
        self._perform(self._pools.drain(time.monotonic()))

    def reopen(self) -> None:
        """Has actors started again, after `drain`."""
        self._perform(self._pools.reopen(time.monotonic()))

    def statistics(self) -> list[dict[str, object]]:
        """Numbers for tables, a line for each model."""
        return self._pools.statistics(time.monotonic())

    def processes(self) -> list[dict[str, object]]:
        """The actors that are ready: id, process, address."""
        return [
            {"actor_id": each.actor_id, "pid": each.facts.pid, "uri": each.facts.uri}
            for each in self._running.values()
            if each.facts is not None
        ]

    async def shutdown(self, wait_secs: float) -> None:
        """Kills all actors and waits for their end."""
        self._perform(self._pools.close("the node agent is shutting down"))
        ending = [task for task in self._tasks if task.get_name().startswith("models: end")]
        if ending:
            await asyncio.wait(ending, timeout=wait_secs)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=wait_secs)
        for number in list(self._running):
            self._forget(number, kill=True)

    # --- actions --------------------------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case StartReplica():
                    self._spawn(self._start_actor(action), f"models: start {action.actor}")
                case KillReplica():
                    running = self._running.get(action.actor)
                    if running is not None:
                        logger.debug("actor of a model ends", reason=action.reason)
                        work = self._stop_and_kill(action.actor, running)
                        self._spawn(work, f"models: end {action.actor}")
                case TellMembers():
                    self._tell(action)
                case AnswerMembers():
                    answer = self._answers.get(action.request)
                    if answer is not None and not answer.done():
                        answer.set_result(action.members)
                case RefuseModel():
                    answer = self._answers.get(action.request)
                    if answer is not None and not answer.done():
                        answer.set_exception(
                            NoActorError(action.reason, action.overloaded, action.retry_after_secs)
                        )
        # Whatever happened may have changed when the clock is due.
        self._clock_news.set()

    def _members(self, numbers: Sequence[int]) -> list[Member]:
        found = (self._running.get(number) for number in numbers)
        return [
            Member(each.actor_id, each.facts.uri)
            for each in found
            if each is not None and each.facts is not None
        ]

    def _tell(self, action: TellMembers) -> None:
        self._version += 1
        members = self._members(action.members)
        for number in (*action.members, *action.leaving):
            running = self._running.get(number)
            if running is not None and running.facts is not None:
                leaving = number in action.leaving
                call = running.handle.set_members.remote(self._version, members, leaving)
                self._spawn(_told(call), f"models: tell {number}")

    async def _start_actor(self, action: StartReplica) -> None:
        assert self._ready is not None
        name = action.model.name
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.load_secs):
                network = await self._ready()
                if self._class is None:
                    self._class = remote_class(ModelActor)
                options = actor_options(self._node_id, dict(action.resources))
                handle = self._class.options(**options).remote(
                    self._hub_dir, self._specs[action.model.key], network
                )
                running = self._running[action.actor] = _Running(handle, actor_id_of(handle))
                running.facts = await handle.start.remote()
                await handle.settle.remote()
        except Exception as error:  # noqa: BLE001 - whatever a model raises is a failed start
            self._forget(action.actor, kill=True)
            if not self._pools.knows(action.actor):
                return  # given up meanwhile
            reason = _reason(error)
            if isinstance(error, TimeoutError):
                reason = f"not ready after {self._settings.load_secs:g} s"
            logger.warning("an actor did not load its model", model=name, error=reason)
            self._perform(self._pools.start_failed(action.actor, reason, time.monotonic()))
            return
        self._spawn(self._watch(action.actor, running), f"models: watch {action.actor}")
        logger.info("model is ready", model=name, secs=round(time.monotonic() - started, 3))
        self._perform(self._pools.started(action.actor, time.monotonic()))

    async def _watch(self, number: int, running: _Running) -> None:
        reason = await until_gone(running.handle)
        if self._pools.knows(number):
            logger.warning("actor of a model died", actor_id=running.actor_id, error=reason)
        self._forget(number, kill=False)
        self._perform(self._pools.died(number, reason, time.monotonic()))

    async def _stop_and_kill(self, number: int, running: _Running) -> None:
        if running.facts is not None:
            with contextlib.suppress(RayError, TimeoutError):
                # So that its sockets do not stay behind; a stuck one is killed all the same.
                await asyncio.wait_for(running.handle.stop.remote(), STOP_SECS)
        self._forget(number, kill=True)

    def _forget(self, number: int, *, kill: bool) -> None:
        running = self._running.pop(number, None)
        if running is None:
            return
        if kill:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(running.handle)
        if running.facts is not None:
            remove_socket(running.facts.uri)

    # --- time -----------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            self._perform(self._pools.tick(time.monotonic()))
            # What `tick` did is not news to this task.
            self._clock_news.clear()
            due = self._pools.wake_at(time.monotonic())
            pause = max(due - time.monotonic(), 0.001) if due is not None else None
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`, which can absorb a cancellation.
                async with asyncio.timeout(pause):
                    await self._clock_news.wait()

    async def _ask_how_they_are(self) -> None:
        while True:
            await asyncio.sleep(self._settings.report_secs)
            ready = [(n, each) for n, each in self._running.items() if each.facts is not None]
            await asyncio.gather(*(self._ask(number, each) for number, each in ready))

    async def _ask(self, number: int, running: _Running) -> None:
        try:
            report = await asyncio.wait_for(running.handle.report.remote(), _CALL_SECS)
        except (RayError, TimeoutError) as error:
            # If it is dead, its watch knows better; if it is stuck, its users have noticed.
            logger.debug("no report of a model's actor", error=_reason(error))
            return
        self._perform(self._pools.reported(number, report, time.monotonic()))

    def _spawn(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("a task for models failed", task=task.get_name())


async def _told(call: Any) -> None:
    with contextlib.suppress(RayError, TimeoutError):  # its watch notices its death
        await asyncio.wait_for(call, _CALL_SECS)


def _reason(error: BaseException) -> str:
    """What went wrong in an actor, or with it, in one line."""
    return reason_of(error.cause if isinstance(error, RayTaskError) else error)
