"""Forks the Ray workers of one node of a private cluster.

Every Ray worker imports the same thousand modules: a second of processor time, and 60 MB that no
two processes share. This process imports them once and is then forked: a worker starts in a tenth
of a second, and the memory is there once for all of them, as long as nobody writes to it.

`_worker.py` starts it with the first worker, and asks it for each. It ends with its raylet. It has one
thread and never connects to Ray: a copy of a process with threads or connections could not be used.

    python -m antiphon_actors.fork_server PATH

PATH is the Unix socket to listen at, in a directory that is nobody else's: who connects may run
anything. One line on standard output says that it listens.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from loguru import logger

from antiphon_actors._worker import RAYLET_VARIABLE, REPLY_DEADLINE_SECS, SCRIPT_VARIABLE

_RAYLET_CHECK_SECS = 1.0
_BACKLOG = 128
_REQUEST_LIMIT_BYTES = 1 << 20
_STREAMS = 3
# What the kernel ends first when memory is short; Ray gives it to the process that it starts.
_OOM_SCORE_ADJUSTMENT = "1000"


@dataclass(frozen=True)
class Request:
    """A worker that is wanted.

    Attributes:
        arguments: Of its command line.
        environment: All of its environment variables.
        streams: Descriptors of its standard streams.
    """

    arguments: list[str]
    environment: dict[str, str]
    streams: list[int]


class RequestError(Exception):
    """What arrived is no request."""


def import_all() -> None:
    """Imports what Ray's workers import, and what the cluster wants them to."""
    ahead = os.environ.get("RAY_preload_python_modules", "")  # noqa: SIM112 - Ray's name
    for module in ("ray", *filter(None, ahead.split(","))):
        try:
            importlib.import_module(module)
        except ImportError as error:
            logger.debug("module not imported ahead", module=module, error=str(error))


def thread_count() -> int:
    """How many threads this process has, of Python or not."""
    return len(list(Path("/proc/self/task").iterdir()))


def receive(connection: socket.socket) -> Request:
    """Receives a request.

    Raises:
        RequestError: It is malformed; OSError if it does not come in time.
    """
    head, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(_STREAMS * 4))
    streams = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            streams.frombytes(data[: len(data) // streams.itemsize * streams.itemsize])
    size = int.from_bytes(head, "big")
    try:
        if len(head) != 4 or size > _REQUEST_LIMIT_BYTES or len(streams) != _STREAMS:
            raise RequestError("malformed head")
        body = b""
        while len(body) < size:
            chunk = connection.recv(size - len(body))
            if not chunk:
                raise RequestError("incomplete")
            body += chunk
        said = json.loads(body)
        return Request(said["arguments"], said["environment"], list(streams))
    except (ValueError, KeyError, TypeError, OSError, RequestError) as error:
        for stream in streams:
            os.close(stream)
        raise RequestError(str(error)) from error


def serve(listener: socket.socket, raylet: int) -> Request | None:
    """Forks a process for each request, until the raylet has gone.

    Returns:
        In each forked process its request; in the server None, at its end.
    """
    while _is_alive(raylet):
        if not select.select([listener], [], [], _RAYLET_CHECK_SECS)[0]:
            continue
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(REPLY_DEADLINE_SECS)
            try:
                request = receive(connection)
            except (RequestError, OSError) as error:
                logger.warning("no worker forked", error=str(error))
                continue
            pid = os.fork()
            if pid == 0:
                return request
            for stream in request.streams:
                os.close(stream)
            # Who asked may have been ended; the worker lives all the same.
            with suppress(OSError):
                connection.sendall(str(pid).encode())
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def become_worker(request: Request) -> NoReturn:
    """Makes a forked process the worker that was asked for."""
    # The raylet ends a worker with all of its process group.
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
    for stream in request.streams:
        if stream >= _STREAMS:
            os.close(stream)
    os.environ.clear()
    os.environ.update(request.environment)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE_ADJUSTMENT)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:  # Python's own generator is seeded anew by the fork
        numpy_random.seed()
    script = os.environ[SCRIPT_VARIABLE]
    sys.argv = [script, *request.arguments]
    runpy.run_path(script, run_name="__main__")
    sys.exit(0)


def main(path: str) -> int:
    """Runs the server; returns its exit status."""
    raylet = int(os.environ[RAYLET_VARIABLE])
    import_all()
    if thread_count() > 1:
        logger.warning("workers are not forked: an imported module has started threads")
        return 1
    # Nothing waits for the workers: they are the raylet's, which sees them go by their connections.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What is here stays. Without this the first collection of each worker would write to all of it,
    # and with that copy it.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        Path(path).unlink(missing_ok=True)
        listener.bind(path)
        listener.listen(_BACKLOG)
        os.write(1, b"ready\n")
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.close(devnull)
        request = serve(listener, raylet)
    if request is not None:
        become_worker(request)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
