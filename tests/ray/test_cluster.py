"""Starting and ending private clusters, gently and otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from antiphon_actors.cluster import LocalCluster, join_cluster
from antiphon_actors.errors import ClusterError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]

PROGRAM = """
import asyncio, sys, threading
from pathlib import Path
from antiphon_actors.cluster import ClusterSettings, LocalCluster

def run():
    cluster = LocalCluster(ClusterSettings(num_cpus=1, temp_root=Path(sys.argv[1])))
    with cluster:
        print("ready", flush=True)
        threading.Event().wait(60)

async def run_async():
    async with LocalCluster(ClusterSettings(num_cpus=1, temp_root=Path(sys.argv[1]))):
        print("ready", flush=True)
        await asyncio.sleep(60)

print("begin", flush=True)
try:
    asyncio.run(run_async()) if sys.argv[2:] else run()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def run_program(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


class Program:
    """A process of ours with a cluster, in a process group of its own like a terminal's."""

    def __init__(self, root: Path, *options: str) -> None:
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(root), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def await_line(self, expected: str) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if line != expected:
            self.process.kill()
            pytest.fail(f"{line!r} instead of {expected!r}: {self.process.communicate()[1]}")

    def cluster_processes(self) -> list[psutil.Process]:
        """Lists the processes whose environment or command names the cluster's directory."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != self.process.pid and str(self.root) in " ".join(
                    [*process.cmdline(), process.environ().get("ANTIPHON_TEST_ROOT", "")]
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def await_nothing_left(self, secs: float) -> None:
        deadline = time.monotonic() + secs
        while time.monotonic() < deadline:
            if not self.cluster_processes() and not list(self.root.iterdir()):
                return
            time.sleep(0.02)
        pytest.fail(f"left: {self.cluster_processes()}, {list(self.root.iterdir())}")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Program]:
    root = Path(f"/tmp/a{os.getpid()}")
    root.mkdir()
    # Inherited by every process of the cluster: the mark by which they are found.
    monkeypatch.setenv("ANTIPHON_TEST_ROOT", str(root))
    running = Program(root, *getattr(request, "param", ()))
    yield running
    if running.process.poll() is None:
        running.process.kill()
    running.process.communicate()
    running.await_nothing_left(5)
    root.rmdir()


def test_ctrl_c_ends_everything_quietly(program: Program) -> None:
    program.await_line("begin")
    program.await_line("ready")
    assert len(program.cluster_processes()) > 3
    started = time.monotonic()
    os.killpg(program.process.pid, signal.SIGINT)
    output, errors = program.process.communicate(timeout=5)
    assert time.monotonic() - started < 3
    # The cluster is gone before the program is.
    program.await_nothing_left(0.1)
    assert output == "interrupted\n"
    assert [line for line in errors.splitlines() if "DEBUG" not in line] == []


def test_nothing_outlives_a_killed_program(program: Program) -> None:
    program.await_line("begin")
    program.await_line("ready")
    program.process.kill()
    program.process.wait(5)
    program.await_nothing_left(5)


@pytest.mark.parametrize(
    ("program", "delay_secs"),
    [((), 0.02), ((), 0.3), ((), 1.5), (("async",), 0.3), (("async",), 2.0)],
    indirect=["program"],
)
def test_an_interrupted_start_leaves_nothing(program: Program, delay_secs: float) -> None:
    program.await_line("begin")
    time.sleep(delay_secs)
    os.killpg(program.process.pid, signal.SIGINT)
    output, _ = program.process.communicate(timeout=5)
    assert output.endswith("interrupted\n")
    program.await_nothing_left(0.1)


def test_a_program_has_one_cluster_at_a_time(cluster: LocalCluster) -> None:
    with pytest.raises(ClusterError, match="connected"):
        LocalCluster().start()


def test_joining_uses_and_keeps_the_present_connection(cluster: LocalCluster) -> None:
    import ray

    with join_cluster(cluster.address) as joined:
        assert joined.address == cluster.address
        assert joined.dashboard_url == cluster.dashboard_url
        assert joined.token == cluster.token
    assert ray.is_initialized()


def test_another_process_joins_and_leaves_it_alone(cluster: LocalCluster) -> None:
    code = (
        "import ray\n"
        "from antiphon_actors.cluster import join_cluster\n"
        "with join_cluster() as joined:\n"
        "    print(joined.address, len(ray.nodes()))\n"
        "assert not ray.is_initialized()\n"
    )
    done = run_program(code, RAY_ADDRESS=cluster.address)
    assert done.stdout == f"{cluster.address} 2\n", done.stderr
    assert cluster.directory.exists()


def test_a_failed_start_says_where_its_log_is() -> None:
    code = (
        "from antiphon_actors.cluster import ClusterSettings, start_local_cluster\n"
        "from antiphon_actors.errors import ClusterError\n"
        "try:\n"
        "    start_local_cluster(ClusterSettings(num_cpus=-1))\n"
        "except ClusterError as error:\n"
        "    print(error)\n"
        "    print(error.log_path)\n"
    )
    done = run_program(code)
    assert "the Ray cluster did not start" in done.stdout, done.stderr
    log = Path(done.stdout.splitlines()[-1])
    assert "nonnegative" in log.read_text()
    log.unlink()
