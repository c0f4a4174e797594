"""Sessions over actors that are cancelled are over within 2 s, and leave nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from benchmarks.chaos import cancel as chaos_cancel
from tests.session.conftest import Actors, Mover, Stay, pipeline_of, started, until

from antiphon.frames.frames import TextFrame
from antiphon.pipeline.task import CANCEL_TIMEOUT_SECS
from antiphon_actors.placement.policy import Placement
from antiphon_actors.supervisor import CANCEL_DEADLINE_SECS


@pytest.mark.timeout(90)
@pytest.mark.parametrize("seed", [0, 100_000])
async def test_at_random_moments(seed: int) -> None:
    found = await chaos_cancel.run(60, seed)
    # How long each took is a figure of the chaos suite.
    assert found.left_over == []
    assert found.count == 60


@pytest.mark.parametrize("where", ["dedicated", "pooled"])
async def test_an_actor_that_does_not_answer(actors: Actors, where: Any) -> None:
    movers, end = [Mover("a"), Mover("b")], Stay()
    task = pipeline_of(Stay(), *movers, end)
    running = asyncio.create_task(actors.run(task, Placement(where)))
    await started(task)
    host = actors.by_processor[movers[0].name]
    host.freeze()
    async with asyncio.timeout(2 * CANCEL_TIMEOUT_SECS):
        await task.cancel()
        await running
    # It is the agent's to look after; the others have been left in good order.
    assert actors.stuck == [host.description]
    assert actors.left_over() == []
    assert host.host.session_ids
    host.thaw()
    await until(lambda: not host.host.session_ids)


async def test_actors_that_are_asked_in_vain_find_out(actors: Actors) -> None:
    """What was asked of an actor cannot be taken back: it builds its part, and ends it again."""
    actors.may_attach = False
    mover = Mover("a")
    task = pipeline_of(mover, Stay())
    running = asyncio.create_task(actors.run(task))
    await until(lambda: mover.name in actors.by_processor)
    host = actors.by_processor[mover.name]
    await until(lambda: host.attaching)
    async with asyncio.timeout(2 * CANCEL_TIMEOUT_SECS):
        await task.cancel()
        await running
    host.may_attach.set()
    await until(lambda: not host.attaching)
    await until(lambda: not host.host.session_ids)


async def test_the_record_is_made_all_the_same(actors: Actors) -> None:
    mover, end = Mover("a"), Stay()
    task = pipeline_of(mover, end)
    running = asyncio.create_task(actors.run(task))
    await started(task)
    await task.queue_frame(TextFrame("1"))
    await until(lambda: end.texts)
    actors.by_processor[mover.name].freeze()
    await task.cancel()
    record = await running
    assert [each.name for each in record.processors] == [mover.name, end.name]
    actors.by_processor[mover.name].thaw()


def test_a_supervisor_gives_a_session_the_time_of_its_pipeline() -> None:
    assert CANCEL_DEADLINE_SECS == CANCEL_TIMEOUT_SECS
