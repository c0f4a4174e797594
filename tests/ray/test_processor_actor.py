"""The shell of a processor actor as a plain class."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import ray

from antiphon.errors import PlacementError
from antiphon_actors.processor_actor import ProcessorActor
from antiphon_actors.pulse import Pulse, PulseAddress, PulseReceiver

FAKE = "antiphon_fake_actors:FakeHost"


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def get_node_id(self) -> str:
            return "node"

    monkeypatch.setattr(ray, "get_runtime_context", Context)


async def test_starts_its_host_once(tmp_path: Path) -> None:
    actor = ProcessorActor(str(tmp_path), FAKE)
    first, second = await asyncio.gather(actor.start(), actor.start())
    assert first == second
    assert (first.pid, first.prefix, first.node_id) == (os.getpid(), 7, "node")
    assert first.uri.startswith(f"unix://{tmp_path}")
    assert await actor.attach("spec") == 1
    assert actor.statistics() == {"attached": 1}
    await actor.detach("s")
    assert actor.statistics() == {"attached": 0}
    await actor.stop()
    assert not Path(first.uri.removeprefix("unix://")).exists()  # noqa: ASYNC240


async def test_refuses_work_before_its_start_and_after_its_end(tmp_path: Path) -> None:
    actor = ProcessorActor(str(tmp_path), FAKE)
    with pytest.raises(RuntimeError, match="not been started"):
        await actor.attach("spec")
    await actor.start()
    await actor.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        await actor.attach("spec")


async def test_a_call_that_is_repeated_builds_nothing_twice(tmp_path: Path) -> None:
    actor = ProcessorActor(str(tmp_path), FAKE)
    await actor.start()
    first, again = await asyncio.gather(actor.attach("spec", "call"), actor.attach("spec", "call"))
    assert first == again == await actor.attach("spec", "call") == 1
    assert await actor.attach("spec", "another") == 2
    # What went wrong is told again, too.
    for _ in range(2):
        with pytest.raises(PlacementError, match="not here"):
            await actor.attach("refuse", "third")
    for number in range(200):
        await actor.attach("spec", f"more {number}")
    assert len(actor._attachments) <= 64
    await actor.stop()


async def test_says_what_it_is_and_whom_it_serves(tmp_path: Path) -> None:
    actor = ProcessorActor(str(tmp_path), FAKE)
    identity: Any = actor.ctl_identity
    assert await identity() == ("processor", None)
    facts = await actor.start()
    assert await identity() == ("processor", facts)
    assert actor.session_names() == []
    await actor.attach("session a")
    assert actor.session_names() == ["a"]
    await actor.stop()
    assert actor.session_names() == []


async def test_gives_signs_of_life_once_it_has_settled(tmp_path: Path) -> None:
    actor = ProcessorActor(str(tmp_path), FAKE)
    await actor.start()
    came: asyncio.Queue[Pulse] = asyncio.Queue(16)
    receiver = PulseReceiver(tmp_path / "first", came.put_nowait)
    await actor.settle(PulseAddress(str(tmp_path / "first")))
    await actor.settle(PulseAddress(str(tmp_path / "first")))
    assert (await came.get()).pid == os.getpid()
    # Its agent has died; the next one tells where it is.
    receiver.close()
    receiver = PulseReceiver(tmp_path / "second", came.put_nowait)
    returned: Any = actor.ctl_agent_returned
    await returned(PulseAddress(str(tmp_path / "second")))
    while not came.empty():
        came.get_nowait()
    assert (await came.get()).pid == os.getpid()
    assert actor._pulse is not None
    actor._pulse.close()
    receiver.close()
    await actor.stop()


async def test_a_host_that_does_not_start_can_be_tried_again(tmp_path: Path) -> None:
    actor = ProcessorActor(str(tmp_path), "antiphon_fake_actors:BrokenHost")
    for _ in range(2):
        with pytest.raises(OSError, match="no sockets today"):
            await actor.start()


async def test_health_tells_the_lag_of_the_main_loop(tmp_path: Path) -> None:
    actor = ProcessorActor(str(tmp_path), FAKE)
    await actor.start()
    check: Any = actor.ctl_health  # Ray types it as a remote method
    health = await check()
    assert not health.stuck
    assert health.statistics == {"attached": 0}
    await actor.stop()
