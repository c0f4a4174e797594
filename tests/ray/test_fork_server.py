"""Workers are forked from one process that has imported everything. No Ray cluster is needed here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from antiphon_actors import _worker, fork_server

# Stands for Ray's worker: tells what it finds, and ends when its standard input does.
WORKER = """
import json, os, signal, sys
print(json.dumps({
    "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "arguments": sys.argv[1:],
    "job": os.environ.get("RAY_JOB_ID"), "secret": os.environ.get("SECRET"),
    "imported": "ray" in sys.modules,
    "children": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
}), flush=True)
sys.stdin.read()
"""
THREADED = (
    "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
)


class Raylet:
    """Starts workers as a raylet does; a process of its own has its id."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "ray_worker.py"
        self.script.write_text(WORKER)
        self.process = subprocess.Popen(["sleep", "600"])
        self.environment = {
            **os.environ,
            _worker.DIRECTORY_VARIABLE: str(directory),
            _worker.SCRIPT_VARIABLE: str(self.script),
            _worker.RAYLET_VARIABLE: str(self.process.pid),
            "RAY_preload_python_modules": "",
        }
        self.shims: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """Starts a worker and returns what it found."""
        shim = subprocess.Popen(
            [sys.executable, _worker.__file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**self.environment, **environment},
        )
        self.shims.append(shim)
        assert shim.stdout is not None
        found: dict[str, Any] = json.loads(shim.stdout.readline())
        return found

    @property
    def server(self) -> psutil.Process:
        """The fork server."""
        path = str(self.directory / f"fork-{self.process.pid}")
        return next(p for p in psutil.process_iter() if path in _command(p))

    def end(self) -> None:
        """Ends it, and with it the fork server and the workers."""
        self.process.kill()
        self.process.wait()
        for shim in self.shims:
            shim.communicate()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def raylet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raylet]:
    raylet = Raylet(tmp_path_factory.mktemp("f"))
    try:
        yield raylet
    finally:
        raylet.end()


def test_workers_are_forked_from_one_server(raylet: Raylet) -> None:
    first = raylet.start("--worker-id=1", "--runtime-env-hash=0", RAY_JOB_ID="01", SECRET="one")
    second = raylet.start("--worker-id=2", RAY_JOB_ID="02", SECRET="two")
    assert first["imported"]
    assert first["pid"] != second["pid"]
    for worker in (first, second):
        assert worker["parent"] == raylet.server.pid
        # The raylet ends a worker with its group.
        assert worker["group"] == worker["pid"]
        assert worker["children"]
    assert first["arguments"] == ["--worker-id=1", "--runtime-env-hash=0"]
    assert (first["job"], first["secret"]) == ("01", "one")
    assert (second["job"], second["secret"]) == ("02", "two")
    # Who was asked to start them has nothing left to do.
    assert [shim.wait(10) for shim in raylet.shims] == [0, 0]


def test_the_server_ends_with_its_raylet(raylet: Raylet) -> None:
    raylet.start()
    server = raylet.server
    raylet.process.kill()
    raylet.process.wait()
    server.wait(10)


def test_what_is_no_request_does_not_harm_the_server(raylet: Raylet) -> None:
    raylet.start()
    for garbage in (b"", b"\0\0", b"\0\0\0\2{}", b"\xff\xff\xff\xff"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(raylet.directory / f"fork-{raylet.process.pid}"))
            stranger.sendall(garbage)
    assert raylet.start()["parent"] == raylet.server.pid


def test_a_server_with_threads_does_not_serve_and_workers_start_all_the_same(
    raylet: Raylet,
) -> None:
    (raylet.directory / "threaded.py").write_text(THREADED)
    raylet.environment["PYTHONPATH"] = os.pathsep.join(
        [str(raylet.directory), os.environ.get("PYTHONPATH", "")]
    )
    raylet.environment["RAY_preload_python_modules"] = "threaded"
    for number in ("1", "2"):
        worker = raylet.start(f"--worker-id={number}")
        assert worker["pid"] == raylet.shims[-1].pid
        assert not worker["imported"]
    refused = (raylet.directory / f"fork-{raylet.process.pid}.lock").read_text()
    assert refused == "refused"


@pytest.mark.parametrize(
    "argument", ["--runtime-env-hash=-1234", "--worker-type=SPILL_WORKER", "--worker-type=DRIVER"]
)
def test_a_worker_unlike_the_others_is_not_forked(raylet: Raylet, argument: str) -> None:
    worker = raylet.start("--worker-id=1", argument)
    assert worker["pid"] == raylet.shims[0].pid
    assert worker["arguments"] == ["--worker-id=1", argument]


def test_nothing_is_forked_outside_a_private_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_worker.RAYLET_VARIABLE, "1")
    monkeypatch.delenv(_worker.DIRECTORY_VARIABLE, raising=False)
    assert not _worker.can_be_forked([])


def test_a_request_without_streams_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\0\0\0\2{}")
        with pytest.raises(fork_server.RequestError, match="malformed"):
            fork_server.receive(theirs)
