from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
from tests.cli.support import MARK, CommandLine

_SERVE = """
import sys
from antiphon_actors.cluster import ClusterSettings, LocalCluster

with LocalCluster(ClusterSettings(num_cpus=2, dashboard=True)) as cluster:
    print(cluster.address, cluster.token, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class SharedCluster:
    """A cluster that belongs to no command, as commands are told of it."""

    environment: dict[str, str]
    mark: str

    def actors(self) -> list[str]:
        """Processes of actors that run on it."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            title = (process.info["cmdline"] or [""])[0]
            environment = process.info["environ"] or {}
            if environment.get(MARK) == self.mark and title.startswith("ray::"):
                if "IDLE" not in title and "JobSupervisor" not in title:
                    found.append(title)
        return found


@pytest.fixture
def antiphon() -> Iterator[CommandLine]:
    """The command; at the end nothing of it may be left."""
    line = CommandLine()
    yield line
    left = line.left_behind()
    line.close()
    assert not left


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[SharedCluster]:
    """A cluster that many commands join, in a process of its own."""
    line = CommandLine()
    server = subprocess.Popen(
        [sys.executable, "-P", "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=line.environment,
        start_new_session=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        address, token = server.stdout.readline().split()
        environment = {
            "RAY_ADDRESS": address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            # It listens on the loopback address alone; without this Ray looks elsewhere.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        yield SharedCluster(environment, line.mark)
    finally:
        server.stdin.close()
        server.wait(30)
        server.stdout.close()
        line.close()
