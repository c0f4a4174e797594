"""The deadline that news moves on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from antiphon.processors.aggregators._quiet_timer import QuietTimer

pytestmark = pytest.mark.virtual_time


class Rig:
    def __init__(self) -> None:
        self.fired: list[float] = []
        self.hold: asyncio.Event | None = None
        self.timer = QuietTimer(self._fire)

    async def _fire(self) -> None:
        self.fired.append(round(asyncio.get_running_loop().time(), 3))
        if self.hold is not None:
            await self.hold.wait()
            self.fired.append(-1)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    task = asyncio.create_task(rig.timer.run())
    await asyncio.sleep(0)
    yield rig
    task.cancel()
    await asyncio.wait({task})


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_it_fires_once(rig: Rig) -> None:
    start = now()
    rig.timer.restart(0.5)
    assert rig.timer.armed
    await asyncio.sleep(3)
    assert rig.fired == [pytest.approx(start + 0.5, abs=0.01)]
    assert not rig.timer.armed


async def test_news_move_it_on_and_a_shorter_time_moves_it_back(rig: Rig) -> None:
    start = now()
    rig.timer.restart(0.5)
    await asyncio.sleep(0.4)
    rig.timer.restart(0.5)
    await asyncio.sleep(0.3)
    assert rig.fired == []
    rig.timer.restart(0.1)
    await asyncio.sleep(1)
    assert rig.fired == [pytest.approx(start + 0.8, abs=0.01)]


async def test_stopped_it_does_not_fire(rig: Rig) -> None:
    rig.timer.restart(0.5)
    await asyncio.sleep(0.1)
    rig.timer.stop()
    await asyncio.sleep(1)
    assert rig.fired == []


async def test_restarting_does_not_interrupt_the_function(rig: Rig) -> None:
    rig.hold = asyncio.Event()
    rig.timer.restart(0.1)
    await asyncio.sleep(0.2)
    rig.timer.restart(0.1)
    rig.hold.set()
    await asyncio.sleep(1)
    assert len(rig.fired) == 4
    assert rig.fired[1] == rig.fired[3] == -1
