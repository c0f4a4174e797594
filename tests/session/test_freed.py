"""What is left in memory of a session that is over: nothing that waits for a garbage collection."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from tests.session.conftest import Actors, Mover, Stay, pipeline_of, started, texts, until

from antiphon.errors import PlacementError
from antiphon.processors.frame_processor import FrameProcessor
from antiphon_actors.session.edge import EdgeInbox, RemoteProcessor
from antiphon_actors.session.home import SessionRecord
from antiphon_actors.session.node import SessionNode


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Refuser(Mover):
    """Cannot be built in an actor."""

    movable = True
    builds = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        Refuser.builds += 1
        if Refuser.builds > 1:
            raise ValueError("not twice")


def alive() -> list[str]:
    """What there is of sessions' machinery."""
    return [
        type(found).__name__
        for found in gc.get_objects()
        if isinstance(found, (EdgeInbox, RemoteProcessor, SessionNode))
    ]


async def run(actors: Actors, twins: list[Mover]) -> list[weakref.ref[Any]]:
    """Runs a session; returns what it had in actors."""
    end = Stay()
    task = pipeline_of(Stay(), *twins, end)

    async def on_text(processor: Mover, text: str) -> None:
        pass

    twins[0].add_event_handler("on_text", on_text)
    session = asyncio.create_task(actors.run(task))
    await started(task)
    found: list[weakref.ref[Any]] = []
    for twin in twins:
        host = actors.by_processor[twin.name].host
        found.append(weakref.ref(await actors.remote(twin)))
        found += [weakref.ref(hosted.node) for hosted in host._sessions.values()]
    await task.queue_frames(texts("a", "b"))
    await session
    assert end.texts == ["a", "b"]
    return found


async def test_hosted_processors_are_freed_with_their_session(actors: Actors) -> None:
    before = len(alive())
    twins = [Mover(name="one"), Mover(name="two")]
    found = await run(actors, twins)
    assert len(found) == 4
    # The streams of home end a moment after it.
    await until(lambda: [ref() for ref in found] == [None] * 4)
    await until(lambda: len(alive()) == before)


async def test_a_twin_keeps_what_a_bot_may_read(actors: Actors) -> None:
    twins = [Mover(name="one"), Mover(name="two")]
    await run(actors, twins)
    assert [twin.name for twin in twins] == ["one", "two"]
    assert [twin.statistics.errors for twin in twins] == [0, 0]
    # And it may be given to another task, which runs it wherever it likes.
    end = Stay()
    task = pipeline_of(Stay(), *twins, end)
    await task.queue_frames(texts("c"))
    await actors.run(task)
    assert end.texts == ["c"]


async def test_processors_that_were_never_set_up_are_freed_too(actors: Actors) -> None:
    before = {id(found) for found in gc.get_objects() if isinstance(found, FrameProcessor)}
    Refuser.builds = 0
    task = pipeline_of(Stay(), Mover(name="one"), Refuser(name="two"))
    own = {id(found) for found in gc.get_objects() if isinstance(found, FrameProcessor)}
    with pytest.raises(PlacementError, match="not twice"):
        await actors.run(task, record=SessionRecord())
    await until(
        lambda: (
            not [
                found
                for found in gc.get_objects()
                if isinstance(found, (Mover, RemoteProcessor))
                and id(found) not in before
                and id(found) not in own
                and not isinstance(found, Refuser)
            ]
        )
    )
