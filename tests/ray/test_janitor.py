"""The janitor without Ray: a tree of ordinary processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import antiphon_actors

JANITOR = Path(antiphon_actors.__file__).with_name("_janitor.py")
# A child that goes away at once, and a grandchild in a session of its own that ignores signals.
TREE = """
import os, signal, subprocess, sys
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
print('{"grandchild": %d}' % child.pid, flush=True)
os._exit(0)
"""


class Owned:
    """A janitor and the leash that keeps it."""

    def __init__(self, directory: Path, code: str) -> None:
        self.directory = directory
        config = {"directory": str(directory), "command": [sys.executable, "-c", code]}
        leash, self.leash = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(JANITOR), json.dumps(config)],
            stdin=leash,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(leash)

    def line(self) -> dict[str, int | str]:
        assert self.process.stdout is not None
        answer: dict[str, int | str] = json.loads(self.process.stdout.readline())
        return answer

    def let_go(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.leash)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[[str], Owned]]:
    owned: list[Owned] = []

    def start(code: str) -> Owned:
        owned.append(Owned(tmp_path / "cluster", code))
        return owned[-1]

    yield start
    for janitor in owned:
        janitor.let_go()
        janitor.process.wait(10)
        assert janitor.process.stdout is not None
        janitor.process.stdout.close()


def test_removes_orphans_and_the_directory_when_let_go(own: Callable[[str], Owned]) -> None:
    janitor = own(TREE)
    grandchild = int(janitor.line()["grandchild"])
    assert janitor.directory.stat().st_mode & 0o777 == 0o700
    assert psutil.pid_exists(grandchild)
    started = time.monotonic()
    janitor.let_go()
    assert janitor.process.wait(5) == 0
    assert time.monotonic() - started < 2.0
    assert not psutil.pid_exists(grandchild)
    assert not janitor.directory.exists()


def test_adopts_and_reaps_orphans(own: Callable[[str], Owned]) -> None:
    janitor = own(TREE)
    grandchild = psutil.Process(int(janitor.line()["grandchild"]))
    deadline = time.monotonic() + 5
    while grandchild.ppid() != janitor.process.pid and time.monotonic() < deadline:
        time.sleep(0.01)
    assert grandchild.ppid() == janitor.process.pid
    grandchild.kill()
    grandchild.wait(5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_cleanly(own: Callable[[str], Owned], number: int) -> None:
    janitor = own(TREE)
    grandchild = int(janitor.line()["grandchild"])
    janitor.process.send_signal(number)
    assert janitor.process.wait(5) == 0
    assert not psutil.pid_exists(grandchild)


def test_reports_a_command_that_fails_and_keeps_its_log(own: Callable[[str], Owned]) -> None:
    janitor = own("import sys; sys.exit('no ports left')")
    assert janitor.line() == {"error": "the start command ended with status 1"}
    assert "no ports left" in (janitor.directory / "head.log").read_text()


def test_leaves_a_directory_alone_that_is_not_its_own(
    own: Callable[[str], Owned], tmp_path: Path
) -> None:
    (tmp_path / "cluster").mkdir()
    janitor = own(TREE)
    assert "cannot create" in str(janitor.line()["error"])
    assert janitor.process.wait(5) == 1
    assert (tmp_path / "cluster").exists()
