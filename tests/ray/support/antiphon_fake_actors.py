"""Stand-ins for what runs in actors; workers import this module by its directory on PYTHONPATH."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import ray

from antiphon.errors import PlacementError
from antiphon_actors.agent_client import AgentClient
from antiphon_actors.processor_actor import ActorFacts, WatchedActor


class Unportable(Exception):
    """An exception that cannot be built again from its text."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class FakeHost:
    """A `ProcessorHost` that remembers what it was asked."""

    prefix = 7

    def __init__(self, name: str, hub_dir: str) -> None:
        self.name = name
        self.socket = Path(hub_dir) / f"{name}.sock"
        self.attached: list[Any] = []

    @property
    def session_ids(self) -> list[str]:
        """Of what is attached: those who give a spec "session NAME" have a session."""
        return [spec[8:] for spec in self.attached if str(spec).startswith("session ")]

    async def start(self) -> str:
        await asyncio.to_thread(self.socket.touch)
        return f"unix://{self.socket}"

    async def attach(self, spec: Any) -> Any:
        if spec == "block":
            time.sleep(2.0)  # noqa: ASYNC251 - a stuck processor is what is wanted
        if spec == "refuse":
            raise PlacementError("not here")
        if spec == "break":
            raise Unportable("twice", "two")
        self.attached.append(spec)
        return len(self.attached)

    async def detach(self, session_id: str) -> None:
        self.attached.clear()

    def statistics(self) -> dict[str, Any]:
        return {"attached": len(self.attached)}

    async def aclose(self) -> None:
        await asyncio.to_thread(self.socket.unlink)


class BrokenHost(FakeHost):
    """A host whose sockets cannot be opened."""

    async def start(self) -> str:
        raise OSError("no sockets today")


class FakeSupervisor(WatchedActor):
    """The least a supervisor actor must be, and sessions that are but names."""

    role = "supervisor"

    def __init__(self, hub_dir: str, agent: Any, greeting: str = "") -> None:
        super().__init__()
        self._agent = AgentClient(agent)
        self._greeting = greeting
        self._names: list[str] = []
        self.evacuated: list[str] = []

    async def start(self) -> ActorFacts:
        self.adopt_loop()
        node_id = ray.get_runtime_context().get_node_id()
        self._facts = ActorFacts(uri="unix:///nowhere", pid=os.getpid(), prefix=9, node_id=node_id)
        return self._facts

    async def greeting(self) -> str:
        return self._greeting

    async def run(self, session_id: str) -> None:
        self._names.append(session_id)

    async def borrow(self, session_id: str) -> int:
        lease = await self._agent.call("acquire", session_id, "Echo", deadline_secs=20.0)
        pid: int = lease.facts.pid
        return pid

    async def borrow_often(self, session_id: str, secs: float) -> tuple[int, float]:
        """Asks for places one after another; how many it got, and the longest it waited, in seconds."""
        ends, longest, count = time.monotonic() + secs, 0.0, 0
        while (began := time.monotonic()) < ends:
            await self.borrow(session_id)
            await self._agent.call("release", session_id, deadline_secs=20.0)
            longest = max(longest, time.monotonic() - began)
            count += 1
        return count, longest

    async def evacuate(self, uris: list[str], reason: str, deadline_secs: float) -> list[str]:
        self.evacuated += uris
        return [name for name in self._names if name.startswith("stay")]

    async def evacuations(self) -> list[str]:
        return self.evacuated

    async def hand_over(self, session_id: str, deadline_secs: float) -> bool:
        if session_id.startswith("stay"):
            return False
        await self.cancel_session(session_id)
        return True

    async def cancel_session(self, session_id: str) -> bool:
        if session_id in self._names:
            self._names.remove(session_id)
            await self._agent.call("release", f"{session_id}/{session_id}", deadline_secs=20.0)
        return True

    def session_names(self) -> list[str]:
        return self._names

    def agent_returned(self) -> None:
        self._agent.returned()
