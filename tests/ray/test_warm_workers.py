"""How many blank workers are started, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from antiphon_actors.warm_workers import WarmWorkers


class FakePrestarter:
    """Takes every request until it has had enough."""

    def __init__(self) -> None:
        self.refused = ""
        self.started = 0
        self.news = asyncio.Event()

    async def start(self, count: int) -> bool:
        self.started += count
        self.news.set()
        return True

    async def aclose(self) -> None:
        pass


@asynccontextmanager
async def kept(workers: WarmWorkers, busy: asyncio.Event) -> AsyncIterator[None]:
    task = asyncio.create_task(workers.keep(busy.is_set))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_none_are_wanted_however_many_actors_are_started() -> None:
    prestarter = FakePrestarter()
    workers = WarmWorkers(0, prestarter, interval_secs=0)
    async with kept(workers, asyncio.Event()):
        for _ in range(6):
            workers.used_one()
            await asyncio.sleep(0)
        assert workers.missing == 0
    assert prestarter.started == 0


async def test_never_more_are_missing_than_are_wanted() -> None:
    prestarter = FakePrestarter()
    workers = WarmWorkers(1, prestarter, interval_secs=0)
    busy = asyncio.Event()
    busy.set()
    async with kept(workers, busy):
        for _ in range(6):
            workers.used_one()
            await asyncio.sleep(0)
        assert workers.missing == 1
        assert prestarter.started == 0  # actors come first
        busy.clear()
        await prestarter.news.wait()
        await asyncio.sleep(0)
        assert prestarter.started == 1
        assert workers.missing == 0


async def test_gives_up_when_there_can_be_none() -> None:
    prestarter = FakePrestarter()
    prestarter.refused = "not here"
    workers = WarmWorkers(2, prestarter, interval_secs=0)
    await workers.keep(lambda: False)
    assert workers.refused == "not here"
    assert prestarter.started == 0
