from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from antiphon_actors.processes import Look, ProcessId, resident_bytes, waited_for_processor_secs


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def state_of(pid: int, wanted: str) -> None:
    while psutil.Process(pid).status() != wanted:
        pass


def test_a_process_is_looked_at_and_killed(sleeper: subprocess.Popen[bytes]) -> None:
    process = ProcessId.of(sleeper.pid)
    assert process.look() is Look.RUNS
    os.kill(sleeper.pid, signal.SIGSTOP)
    state_of(sleeper.pid, psutil.STATUS_STOPPED)
    assert process.look() is Look.STOPPED
    # A stopped one ends all the same.
    assert process.kill()
    state_of(sleeper.pid, psutil.STATUS_ZOMBIE)
    assert process.look() is Look.GONE
    sleeper.wait(5)
    assert process.look() is Look.GONE
    assert not process.kill()


def test_another_process_with_its_number_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    process = ProcessId.of(sleeper.pid)
    assert process.start_time is not None
    earlier = replace(process, start_time=process.start_time - 1)
    assert earlier.look() is Look.GONE
    assert not earlier.kill()
    assert sleeper.poll() is None


def test_without_proc_nothing_is_known_and_nothing_killed(sleeper: subprocess.Popen[bytes]) -> None:
    unknown = ProcessId(sleeper.pid, None)
    assert unknown.look() is Look.UNKNOWN
    assert not unknown.kill()
    assert sleeper.poll() is None


def test_numbers_of_this_process() -> None:
    assert resident_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert waited_for_processor_secs(threading.get_native_id()) >= 0.0
    assert waited_for_processor_secs(1 << 30) == 0.0
