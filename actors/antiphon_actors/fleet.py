"""The actors of one node as processes: starts, watches, stops and kills them for its agent."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import ray
from loguru import logger
from ray.exceptions import RayError

from antiphon_actors.adoption import actor_name, number_in
from antiphon_actors.agent_types import NAMESPACE, AgentSettings
from antiphon_actors.channels.uris import ProcessAddress, parse_uri
from antiphon_actors.errors import reason_of
from antiphon_actors.pool_types import Role, StartActor
from antiphon_actors.processes import ProcessId
from antiphon_actors.processor_actor import (
    ActorFacts,
    ProcessorActor,
    actor_options,
    remote_class,
    until_gone,
)
from antiphon_actors.pulse import PulseAddress
from antiphon_actors.ray_internal import actor_id_of

STOP_SECS = 0.5
"""How long an actor may take to close its sockets before it is killed anyway."""

T = TypeVar("T")


class Spawn(Protocol):
    """Runs something in a task of the agent."""

    def __call__(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Begins it."""


@dataclass(slots=True)
class Member:
    """An actor.

    Attributes:
        number: Its number.
        role: What runs in it.
        handle: To call it with.
        actor_id: Ray's id, hexadecimal.
        facts: Where it is; None until it is ready.
        process: Its process; None until it is ready.
        watch: What waits for its death.
    """

    number: int
    role: Role
    handle: Any
    actor_id: str
    facts: ActorFacts | None = None
    process: ProcessId | None = None
    watch: asyncio.Task[None] | None = None


class Owner(Protocol):
    """What a fleet tells its agent."""

    def actor_ready(self, member: Member) -> None:
        """A new actor is ready to work."""

    def actor_not_started(self, number: int, reason: str) -> None:
        """A new actor has failed."""

    def actor_died(self, number: int, reason: str) -> None:
        """A ready actor is gone, without our doing; it is still a member."""

    def actor_left(self, number: int) -> None:
        """An actor is no member any more, whatever the cause."""

    def wanted(self, number: int) -> bool:
        """Whether an actor that is being started is still wanted."""

    async def process_arguments(self) -> Mapping[str, Any]:
        """What actors are told about other nodes and models; raises what keeps them from being started."""


class Fleet:
    """The actors of one node.

    Args:
        settings: Of the agent.
        owner: Its agent.
        spawn: Runs something in a task of the agent.
    """

    def __init__(self, settings: AgentSettings, owner: Owner, spawn: Spawn) -> None:
        self._settings = settings
        self._owner = owner
        self._spawn = spawn
        self._members: dict[int, Member] = {}
        self._by_pid: dict[int, Member] = {}
        self._classes: dict[Role, Any] = {}
        self.node_id = ""
        self.hub_dir = settings.hub_dir
        self.pulse = PulseAddress("")

    # --- who is there ---------------------------------------------------------------------------

    def get(self, number: int) -> Member | None:
        """A member by its number."""
        return self._members.get(number)

    def of_process(self, pid: int) -> Member | None:
        """A ready member by its process."""
        return self._by_pid.get(pid)

    def find(self, actor_id: str) -> Member | None:
        """A member by Ray's id."""
        return next((m for m in self._members.values() if m.actor_id == actor_id), None)

    def numbers_of(self, actor_ids: Iterable[str]) -> list[int]:
        """The numbers of members; unknown ids are left out."""
        wanted = set(actor_ids)
        return [m.number for m in self._members.values() if m.actor_id in wanted]

    def ready(self) -> list[Member]:
        """Those that are ready."""
        return [member for member in self._members.values() if member.facts is not None]

    # --- starting -------------------------------------------------------------------------------

    async def start(self, action: StartActor) -> None:
        """Starts an actor and tells the owner how that went; never raises what an actor may."""
        started = time.monotonic()
        number = action.actor
        try:
            async with asyncio.timeout(self._settings.start_deadline_secs):
                handle = self._create(action, await self._owner.process_arguments())
                member = Member(number, action.role, handle, actor_id_of(handle))
                self._members[number] = member
                facts = await handle.start.remote()
                await handle.settle.remote(self.pulse)
        except Exception as error:  # noqa: BLE001 - whatever a constructor raises is a failed start
            self.forget(number, kill=True)
            if not self._owner.wanted(number):
                # Given up meanwhile.
                return
            reason = reason_of(error)
            if isinstance(error, TimeoutError):
                reason = f"not ready after {self._settings.start_deadline_secs:g} s"
            logger.warning("an actor did not start", role=str(action.role), error=reason)
            self._owner.actor_not_started(number, reason)
            return
        if number not in self._members:
            # Killed as it became ready.
            return
        self._join(member, facts)
        logger.debug("actor started", role=str(action.role), secs=time.monotonic() - started)
        self._owner.actor_ready(member)

    async def living(self) -> dict[int, Any]:
        """Finds the actors that an agent of this node has started before; handles by their numbers.

        One may be dead as soon as it is found.
        """
        return await asyncio.to_thread(_named_actors, self.node_id)

    def adopt(self, number: int, role: Role, handle: Any, facts: ActorFacts) -> Member:
        """Takes an actor over that another agent of the node has started."""
        member = self._members[number] = Member(number, role, handle, actor_id_of(handle))
        self._join(member, facts)
        # It may have calls under way to the agent that died.
        handle.ctl_agent_returned.remote(self.pulse)
        return member

    def note_lost(self, number: int, role: Role, actor_id: str) -> None:
        """Takes note of an actor of the agent before that has died since."""
        self._members[number] = Member(number, role, None, actor_id)
        self._owner.actor_died(number, "it died while the node agent was away")
        self.forget(number, kill=False)

    def _join(self, member: Member, facts: ActorFacts) -> None:
        member.facts = facts
        member.process = ProcessId.of(facts.pid)
        self._by_pid[facts.pid] = member
        member.watch = self._spawn(self._watch(member), f"watch {member.number}")

    def _create(self, action: StartActor, further: Mapping[str, Any]) -> Any:
        options = actor_options(self.node_id, dict(action.resources))
        if self._settings.detached:
            options |= {
                "name": actor_name(self.node_id, action.actor),
                "namespace": NAMESPACE,
                "lifetime": "detached",
            }
        actor_class = self._class_of(action.role).options(**options)
        me = ray.get_runtime_context().current_actor
        if action.role is Role.PROCESSOR:
            return actor_class.remote(self.hub_dir, self._settings.host, agent=me, **further)
        arguments = self._settings.supervisor_arguments
        return actor_class.remote(self.hub_dir, me, **arguments, **further)

    def _class_of(self, role: Role) -> Any:
        if role not in self._classes:
            plain: Any = ProcessorActor
            if role is Role.SUPERVISOR:
                module, _, name = self._settings.supervisor.partition(":")
                plain = getattr(importlib.import_module(module), name)
            self._classes[role] = remote_class(plain)
        return self._classes[role]

    @staticmethod
    def end_stranger(handle: Any, facts: ActorFacts | None) -> None:
        """Kills an actor that another agent of the node has left, and that is of no use."""
        with contextlib.suppress(RayError, ValueError):
            ray.kill(handle)
        if facts is not None:
            ProcessId.of(facts.pid).kill()

    # --- ending ---------------------------------------------------------------------------------

    async def _watch(self, member: Member) -> None:
        """Waits for an actor's death; the pending call fails within about 10 ms of it."""
        reason = await until_gone(member.handle)
        if self._members.get(member.number) is member:
            self._owner.actor_died(member.number, reason)
            self.forget(member.number, kill=False)

    def end(self, number: int) -> None:
        """Ends an actor: lets it close what it has open, and kills it."""
        member = self._members.get(number)
        if member is not None:
            _ = self._spawn(self._stop_and_kill(member), f"end {number}")

    async def _stop_and_kill(self, member: Member) -> None:
        if member.facts is not None:
            with contextlib.suppress(RayError, TimeoutError):
                # So that its sockets do not stay behind; a stuck one is killed all the same.
                await asyncio.wait_for(member.handle.stop.remote(), STOP_SECS)
        self.forget(member.number, kill=True)

    def destroy(self, number: int, reason: str) -> None:
        """Kills an actor that may not be able to end, and takes it for one that died."""
        member = self._members.get(number)
        if member is None:
            return
        if member.process is not None:
            # A stopped process does not carry out what Ray asks it to.
            member.process.kill()
        self._owner.actor_died(number, reason)
        self.forget(number, kill=True)

    def forget(self, number: int, *, kill: bool) -> None:
        """Takes an actor off the list; kills it if asked to."""
        member = self._members.pop(number, None)
        if member is None:
            return
        if kill:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(member.handle)
            if member.process is not None:
                member.process.kill()
        if member.facts is not None:
            self._by_pid.pop(member.facts.pid, None)
            remove_socket(member.facts.uri)
        self._owner.actor_left(number)

    async def wait_for_end(self, deadline_secs: float) -> None:
        """Waits until the actors are gone that are being ended, then kills whatever is left."""
        watches = [m.watch for m in self._members.values() if m.watch is not None]
        if watches:
            await asyncio.wait(watches, timeout=deadline_secs)
        for number in list(self._members):
            self.forget(number, kill=True)


def remove_socket(uri: str) -> None:
    """Removes the socket of a process that could not do so itself."""
    if uri:
        address = parse_uri(ProcessAddress.parse(uri).local)
        if address.scheme == "unix":
            with contextlib.suppress(OSError):
                Path(address.target).unlink(missing_ok=True)


def _named_actors(node_id: str) -> dict[int, Any]:
    found = {}
    for entry in ray.util.list_named_actors(all_namespaces=True):
        number = number_in(entry["name"], node_id)
        if entry["namespace"] == NAMESPACE and number is not None:
            # It may be gone by now.
            with contextlib.suppress(ValueError):
                found[number] = ray.get_actor(entry["name"], namespace=NAMESPACE)
    return found
