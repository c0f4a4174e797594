"""A program that starts when it is first needed. No Ray cluster is needed here."""

from __future__ import annotations

import socket
import subprocess
import sys

import psutil
import pytest

from antiphon_actors import _on_demand

PROGRAM = "import os, sys; print(os.getpid(), *sys.argv[1:])"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", _on_demand.__file__, str(port)]
    return subprocess.Popen(
        [*command, sys.executable, "-c", PROGRAM, "an argument"], stdout=subprocess.PIPE, text=True
    )


def await_listening(process: subprocess.Popen[str]) -> None:
    while not psutil.Process(process.pid).net_connections("inet"):
        assert process.poll() is None


@pytest.mark.timeout(30)
def test_who_connects_starts_it_in_the_same_process() -> None:
    port = free_port()
    with start(port) as process:
        await_listening(process)
        assert process.poll() is None
        with socket.create_connection(("127.0.0.1", port)):
            said, _ = process.communicate()
        assert said == f"{process.pid} an argument\n"


def test_it_starts_at_once_where_the_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with start(taken.getsockname()[1]) as process:
            said, _ = process.communicate(timeout=30)
        assert said == f"{process.pid} an argument\n"
