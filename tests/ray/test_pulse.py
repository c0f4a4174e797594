"""Signs of life, over a real socket."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from antiphon.processors.filters.identity_filter import IdentityFilter
from antiphon_actors import pulse as pulse_module
from antiphon_actors import termination
from antiphon_actors.processes import ProcessId
from antiphon_actors.pulse import (
    LoopProbe,
    Pulse,
    PulseAddress,
    PulseReceiver,
    PulseSender,
    describe,
)


class Inbox:
    """Pulses that have arrived."""

    def __init__(self, path: Path) -> None:
        self.pulses: list[Pulse] = []
        self._news = asyncio.Event()
        self.receiver = PulseReceiver(path, self._take)

    def _take(self, pulse: Pulse) -> None:
        self.pulses.append(pulse)
        self._news.set()

    async def until(self, condition: Callable[[Pulse], bool]) -> Pulse:
        async with asyncio.timeout(10):
            while True:
                found = next((each for each in self.pulses if condition(each)), None)
                if found is not None:
                    return found
                self._news.clear()
                await self._news.wait()


class OtherLoop:
    """An event loop in a thread of its own, as the main loop of an actor."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def other() -> Iterator[OtherLoop]:
    made = OtherLoop()
    yield made
    made.close()


def unused() -> None:
    raise AssertionError("the agent is there")


def test_a_pulse_travels() -> None:
    pulse = Pulse(7, 12.5, 1 << 33, True, "Slow#0 in slow.py:7 (run)")
    assert Pulse.decode(pulse.encode()) == pulse


@pytest.mark.parametrize("data", [b"", b"\x93\x01\x02\x03", b"\x01", b"\xc1", b"x" * 900])
def test_what_is_no_pulse_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no pulse"):
        Pulse.decode(data)


async def test_a_sender_tells_of_a_loop_that_is_blocked(tmp_path: Path, other: OtherLoop) -> None:
    path = tmp_path / "pulse"
    inbox = Inbox(path)
    sender = PulseSender(PulseAddress(str(path)), other.loop, on_orphaned=unused)
    sender.start()
    try:
        calm = await inbox.until(lambda pulse: True)
        assert calm.pid == os.getpid()
        assert calm.memory_bytes > 10_000_000
        assert not calm.leaving
        freed = threading.Event()

        def block_the_loop() -> None:
            freed.wait(10)

        other.loop.call_soon_threadsafe(block_the_loop)
        late = await inbox.until(lambda pulse: pulse.lag_ms >= 400)
        assert "threading.py" in late.doing
        freed.set()
        inbox.pulses.clear()
        await inbox.until(lambda pulse: pulse.lag_ms < 100)
    finally:
        sender.close()
        inbox.receiver.close()
    assert not path.exists()


async def test_strangers_are_ignored(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "pulse")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"hello", str(tmp_path / "pulse"))
        stranger.sendto(Pulse(1, 0.0, 0).encode(), str(tmp_path / "pulse"))
    await inbox.until(lambda pulse: True)
    assert len(inbox.pulses) == 1
    inbox.receiver.close()


class Sent:
    """A sender without its thread, and a clock that is set by hand."""

    def __init__(self, address: PulseAddress, **options: float) -> None:
        self.orphaned = 0
        self.began = time.monotonic()
        self.loop = asyncio.new_event_loop()
        self.sender = PulseSender(address, self.loop, on_orphaned=self._orphan, **options)

    def _orphan(self) -> None:
        self.orphaned += 1

    def beat(self, after_secs: float) -> Pulse:
        return self.sender.beat(self.began + after_secs)

    def close(self) -> None:
        self.sender.start()
        self.sender.close()
        self.loop.close()


def test_an_actor_whose_agent_is_gone_for_good_is_told_once(tmp_path: Path) -> None:
    sent = Sent(PulseAddress(str(tmp_path / "nobody"), orphaned_secs=60.0))
    sent.beat(1.0)
    sent.beat(60.0)
    assert sent.orphaned == 0
    sent.beat(61.0)
    sent.beat(200.0)
    assert sent.orphaned == 1
    sent.close()


def test_an_agent_that_comes_back_in_time_is_found_again(tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    sent = Sent(PulseAddress(str(tmp_path / "nobody"), orphaned_secs=60.0))
    sent.beat(50.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
        agent.bind(path)
        sent.sender.move(PulseAddress(path, orphaned_secs=60.0))
        sent.beat(70.0)
        assert Pulse.decode(agent.recv(1000)).pid == os.getpid()
    sent.beat(129.0)
    assert sent.orphaned == 0
    sent.beat(131.0)
    assert sent.orphaned == 1
    sent.close()


class Victim(ProcessId):
    """Counts how often it is killed."""

    killed = 0

    def kill(self) -> bool:
        type(self).killed += 1
        return True


def test_an_agent_that_reads_nothing_is_killed_so_that_it_is_restarted(tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    Victim.killed = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as frozen:
        frozen.bind(path)
        sent = Sent(PulseAddress(path, Victim(1, 1)), unread_secs=10.0)
        filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        filler.setblocking(False)
        with filler, suppress(BlockingIOError):
            while True:
                filler.sendto(b"x", path)
        sent.beat(5.0)
        assert Victim.killed == 0
        sent.beat(10.5)
        assert Victim.killed == 1
        # It has time to start again.
        sent.beat(12.0)
        assert Victim.killed == 1
        sent.close()


def test_time_that_the_machine_did_not_have_is_not_the_loops_fault(
    monkeypatch: pytest.MonkeyPatch, other: OtherLoop
) -> None:
    waited = iter([0.0, 0.9])
    monkeypatch.setattr(pulse_module, "waited_for_processor_secs", lambda thread: next(waited, 0.9))
    probe = LoopProbe(other.loop)
    answered = threading.Event()
    probe.post(time.monotonic())
    other.loop.call_soon_threadsafe(answered.set)
    assert answered.wait(5)
    freed = threading.Event()
    other.loop.call_soon_threadsafe(freed.wait, 10)
    began = time.monotonic()
    probe.post(began)
    # One second late, of which it was kept from running for 0.9 s.
    assert probe.lag_ms(began + 1.0) == pytest.approx(100.0, abs=1.0)
    freed.set()


def test_a_line_of_a_processor_is_named_without_its_data() -> None:
    found: list[str] = []

    class Spy(IdentityFilter):
        def work(self, secret: str) -> None:
            found.append(describe(helper()))

    def helper() -> FrameType:
        return sys._getframe()

    Spy(name="Spy#0").work("what somebody said")
    assert found[0].startswith("Spy#0 in ")
    assert __file__ in found[0]
    assert "(work)" in found[0]
    assert "somebody" not in found[0]


async def test_a_loop_that_waits_for_an_import_is_not_stuck(
    tmp_path: Path, other: OtherLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "antiphon_slow_module.py").write_text(
        "import antiphon_gate\nantiphon_gate.entered.set()\nantiphon_gate.leave.wait(10)\n"
    )
    gate: Any = type(sys)("antiphon_gate")
    gate.entered, gate.leave = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "antiphon_gate", gate)
    monkeypatch.syspath_prepend(str(tmp_path))
    sender = PulseSender(PulseAddress(str(tmp_path / "nobody")), other.loop, on_orphaned=unused)
    seen = threading.Event()
    sender._probe.post(time.monotonic())
    other.loop.call_soon_threadsafe(seen.set)
    assert seen.wait(5)
    other.loop.call_soon_threadsafe(importlib.import_module, "antiphon_slow_module")
    assert gate.entered.wait(5)
    began = time.monotonic()
    sender.beat(began)
    pulse = sender.beat(began + 2.0)
    assert pulse.lag_ms == 0.0
    assert "antiphon_slow_module" in pulse.doing or "threading.py" in pulse.doing
    assert sender.beat(began + 20.0).lag_ms > 15_000
    gate.leave.set()
    sender.start()
    sender.close()


def test_a_process_that_is_no_worker_of_ray_has_no_descriptor() -> None:
    assert termination.descriptor() is None
