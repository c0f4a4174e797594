"""The leak checks of conftest.py catch what they are there for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Run by a pytest of its own, so that what it leaves behind goes with that process.
_INNER = """
import asyncio, socket, subprocess, sys, threading
import pytest

stop = threading.Event()
kept = []

def start_child():
    kept.append(subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE))

async def test_leaves_tasks():
    kept.append(asyncio.create_task(asyncio.sleep(30), name="forgotten"))

def test_leaves_threads():
    threading.Thread(target=stop.wait, name="forgotten", daemon=True).start()

def test_leaves_children():
    start_child()

def test_leaves_fds():
    kept.append(socket.socketpair())

@pytest.mark.leaks("tasks", reason="to see that it works")
async def test_allowed_tasks():
    kept.append(asyncio.create_task(asyncio.sleep(30), name="forgotten"))

@pytest.mark.leaks("threads", reason="to see that it works")
def test_allowed_threads():
    threading.Thread(target=stop.wait, name="forgotten", daemon=True).start()

@pytest.mark.leaks("children", "fds", reason="to see that it works")
def test_allowed_children():
    start_child()

@pytest.mark.leaks("fds", reason="to see that it works")
def test_allowed_fds():
    kept.append(socket.socketpair())

@pytest.mark.leaks("fds")
def test_without_a_reason():
    pass

async def test_clean():
    asyncio.create_task(asyncio.sleep(30)).cancel()
    await asyncio.to_thread(int)
    thread = threading.Thread(target=int)
    thread.start()
    for end in socket.socketpair():
        end.close()
    subprocess.run([sys.executable, "-c", "pass"], check=True)

def teardown_module():
    stop.set()
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inner")
    conftest = (Path(__file__).parent / "conftest.py").read_text()
    (folder / "conftest.py").write_text(conftest.replace("_GRACE_SECS = 2.0", "_GRACE_SECS = 0.1"))
    (folder / "test_inner.py").write_text(_INNER)
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nmarkers =\n  leaks\n  ray\n  virtual_time\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-rA", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    found: dict[str, str] = {}
    # A leak is an error of the teardown, after the test itself has passed.
    for outcome, name in re.findall(
        r"^(PASSED|FAILED|ERROR) .*::(test_\w+)", result.stdout, re.MULTILINE
    ):
        if found.get(name) != "ERROR":
            found[name] = outcome
    assert found, result.stdout + result.stderr
    return found


@pytest.mark.parametrize("kind", ["tasks", "threads", "children", "fds"])
def test_a_leak_is_an_error(kind: str, outcomes: dict[str, str]) -> None:
    assert outcomes[f"test_leaves_{kind}"] == "ERROR"


@pytest.mark.parametrize("kind", ["tasks", "threads", "children", "fds"])
def test_a_marker_with_a_reason_allows_a_leak(kind: str, outcomes: dict[str, str]) -> None:
    assert outcomes[f"test_allowed_{kind}"] == "PASSED"


def test_a_marker_without_a_reason_is_an_error(outcomes: dict[str, str]) -> None:
    assert outcomes["test_without_a_reason"] == "ERROR"


def test_what_a_test_ends_itself_is_no_leak(outcomes: dict[str, str]) -> None:
    assert outcomes["test_clean"] == "PASSED"
