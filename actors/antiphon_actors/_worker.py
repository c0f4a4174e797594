"""What a raylet of a private cluster starts in place of Ray's worker.

Has the node's fork server (`fork_server.py`) fork the worker, and ends. The raylet does not mind: it
knows a worker by the id in its arguments and by the process id with which it registers.

A script (`python _worker.py ARGUMENTS`) that imports nothing but the standard library. Where there
can be no fork it becomes Ray's own worker, which then starts as it would without this script: for
a worker with a runtime environment, for one that is none of Python's usual ones, and where the fork
server does not run.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from array import array
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

# Set for a private cluster by `ray_internal`: a directory that is nobody else's, and Ray's script.
DIRECTORY_VARIABLE = "ANTIPHON_FORK_DIRECTORY"
SCRIPT_VARIABLE = "ANTIPHON_RAY_WORKER"
RAYLET_VARIABLE = "RAY_RAYLET_PID"
# It imports for one or two seconds; on a busy machine for ten.
START_DEADLINE_SECS = 60.0
REPLY_DEADLINE_SECS = 10.0
# Ray's id of no job: such a worker may be given to any.
_NO_JOB = "ffffffff"


def can_be_forked(arguments: list[str]) -> bool:
    """Tells whether a worker with these arguments is one like any other."""
    options = dict(argument.partition("=")[::2] for argument in arguments)
    return (
        options.get("--runtime-env-hash", "0") == "0"
        and options.get("--worker-type", "WORKER") == "WORKER"
        and DIRECTORY_VARIABLE in os.environ
        and RAYLET_VARIABLE in os.environ
    )


def server_path() -> Path:
    """Where the fork server of this process's raylet listens."""
    return Path(os.environ[DIRECTORY_VARIABLE], f"fork-{os.environ[RAYLET_VARIABLE]}")


def connect(path: Path) -> socket.socket | None:
    """Connects to the fork server; None where none listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(REPLY_DEADLINE_SECS)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def connect_or_start(path: Path) -> socket.socket | None:
    """Connects to the fork server, which the first to ask starts; None where it does not start."""
    connection = connect(path)
    if connection is not None:
        return connection
    with path.with_suffix(".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection = connect(path)
        lock.seek(0)
        if connection is None and not lock.read():
            start(path)
            connection = connect(path)
            if connection is None:
                # So that the next ones do not try in vain: each would wait as long.
                lock.write("refused")
        return connection


def start(path: Path) -> None:
    """Starts the fork server and waits until it listens, or will not."""
    # One thread: a process of several cannot be forked safely. Ray reads the job's id when it is
    # imported, before it is known.
    environment = {**os.environ, "RAY_JOB_ID": _NO_JOB, "OPENBLAS_NUM_THREADS": "1"}
    with path.with_suffix(".log").open("wb") as log:
        server = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", "antiphon_actors.fork_server", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            # The raylet ends a worker with all of its process group.
            process_group=0,
        )
    assert server.stdout is not None
    # Ends with its first line, or with the server.
    server.stdout.readline()
    server.stdout.close()
    # It goes on without this process.
    server.returncode = 0


def hand_over(connection: socket.socket, arguments: list[str]) -> int:
    """Has a worker forked; returns its process id, 0 if that is not known."""
    request = json.dumps({"arguments": arguments, "environment": dict(os.environ)}).encode()
    streams = array("i", [0, 1, 2]).tobytes()
    connection.sendmsg(
        [len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)]
    )
    connection.sendall(request)
    with suppress(OSError, ValueError):
        return int(connection.recv(32))
    return 0


def become_worker(arguments: list[str]) -> NoReturn:
    """Makes this process Ray's own worker."""
    command = [sys.executable, os.environ[SCRIPT_VARIABLE], *arguments]
    os.execv(command[0], command)  # noqa: S606 - what the raylet would have run itself


def main() -> int:
    """Runs the script; returns its exit status."""
    arguments = sys.argv[1:]
    connection = connect_or_start(server_path()) if can_be_forked(arguments) else None
    if connection is None:
        become_worker(arguments)
    with connection:
        # Without an answer there may be a worker or none. The raylet notices one that is missing.
        return 0 if hand_over(connection, arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
