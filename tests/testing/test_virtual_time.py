from __future__ import annotations

import asyncio
import socket
import time

import pytest

from antiphon.testing import virtual_time
from antiphon.testing.virtual_time import VirtualClock, VirtualTimeLoop, VirtualTimeStalledError

_HOUR_SECS = 3600.0


def test_an_hour_of_sleep_takes_no_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(_HOUR_SECS)
        return loop.time() - before

    began = time.monotonic()
    assert virtual_time.run(main()) == pytest.approx(_HOUR_SECS)
    assert time.monotonic() - began < 5.0


def test_timers_fire_in_order_of_their_times() -> None:
    async def main() -> list[str]:
        order: list[str] = []

        async def note(after_secs: float, name: str) -> None:
            await asyncio.sleep(after_secs)
            order.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(note(30.0, "c"))
            group.create_task(note(0.001, "a"))
            group.create_task(note(20.0, "b"))
        return order

    assert virtual_time.run(main()) == ["a", "b", "c"]


def test_timeouts_end_at_their_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(90.0):
                await asyncio.Event().wait()
        return loop.time()

    assert virtual_time.run(main(), start_secs=10.0) == pytest.approx(100.0)


def test_time_waits_for_threads() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        alarm = asyncio.create_task(asyncio.sleep(1000.0))
        await asyncio.to_thread(time.sleep, 0.02)
        elapsed = loop.time()
        assert not alarm.done()
        await alarm
        return elapsed

    assert virtual_time.run(main()) == 0.0


def test_sockets_work() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            theirs.sendall(b"hello\n")
            async with asyncio.timeout(5.0):
                line = await reader.readline()
            writer.close()
            await writer.wait_closed()
        return line

    assert virtual_time.run(main()) == b"hello\n"


def test_a_program_that_waits_for_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "_STALL_SECS", 0.01)

    async def main() -> None:
        await asyncio.Event().wait()

    loop = VirtualTimeLoop()
    task = loop.create_task(main())
    with pytest.raises(VirtualTimeStalledError):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


@pytest.mark.virtual_time
async def test_the_marker_chooses_the_loop_and_the_clock_follows_it() -> None:
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    clock = VirtualClock()
    assert clock.get_time() == 0
    await asyncio.sleep(5.0)
    clock.start()
    await asyncio.sleep(2.5)
    assert clock.get_time() == 2_500_000_000
