"""The shell of a processor actor as a plain class."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import ray

from antiphon_actors.processor_actor import ProcessorActor

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
