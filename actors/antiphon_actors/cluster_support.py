"""What `antiphon_actors.cluster` needs beside Ray: a directory, a report, quiet calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from loguru import logger

from antiphon_actors.cluster_environment import generate_token, import_ahead
from antiphon_actors.errors import ClusterError

# A Unix socket's path has at most 107 bytes, and Ray appends
# "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.sock".
_MAX_DIRECTORY_LENGTH = 34
_LOG_LINES = 12
_LOGS_WORTH_READING = (
    "gcs_server.out",
    "gcs_server.err",
    "raylet.out",
    "raylet.err",
    "dashboard.log",
    "dashboard_agent.log",
    "runtime_env_agent.log",
)


def import_ray() -> None:
    """Imports Ray in a thread: Ctrl-C interrupts this call, but never the import itself.

    A compiled module swallows a KeyboardInterrupt that arrives while it is imported.
    """
    done: Future[None] = Future()

    def work() -> None:
        try:
            import_ahead()
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=work, name="import ray", daemon=True).start()
    done.result()


def choose_directory(root: Path | None) -> Path:
    """Returns a fresh path below `root`, or below the system's temporary directory.

    Raises:
        ClusterError: It would be too long for the Unix sockets in it.
    """
    candidates = [root] if root is not None else [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108
    for candidate in candidates:
        directory = candidate.resolve() / f"antiphon-{generate_token()[:8]}"
        if len(os.fsencode(directory)) <= _MAX_DIRECTORY_LENGTH:
            return directory
    raise ClusterError(
        f"the path {candidates[0]} is too long for the Unix sockets of a Ray cluster: at most"
        f" {_MAX_DIRECTORY_LENGTH} bytes with a name of 17 below it"
    )


def ray_directory(directory: Path) -> Path:
    """Returns where Ray keeps its files in a cluster's directory.

    Not in that itself: Ray opens what it is given to every user of the machine.
    """
    return directory / "r"


def write_report(directory: Path, what: str) -> tuple[Path | None, list[str]]:
    """Saves the logs of a failed start outside its directory; returns the file and its gist."""
    sections: list[tuple[str, list[str]]] = []
    logs = [directory / "head.log"]
    logs += [
        ray_directory(directory) / "session_latest" / "logs" / name for name in _LOGS_WORTH_READING
    ]
    for log in logs:
        with contextlib.suppress(OSError):
            lines = log.read_text(errors="replace").splitlines()
            if lines:
                sections.append((log.name, lines))
    if not sections:
        return None, []
    handle, name = tempfile.mkstemp(prefix="antiphon-ray-start-", suffix=".log")
    with os.fdopen(handle, "w") as report:
        report.write(f"{what}\n")
        for title, lines in sections:
            report.write(f"\n--- {title}\n" + "\n".join(lines) + "\n")
    return Path(name), sections[0][1][-_LOG_LINES:]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps `ray.init` from what it does to the program beside connecting.

    In the main thread it replaces the SIGTERM handler by one that raises anywhere; in others it
    warns that it did not.
    """
    ray_log = logging.getLogger("ray")
    level = ray_log.level
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    ray_log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray_log.setLevel(level)
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)


async def in_thread(
    function: Callable[[], None], on_cancel: Callable[[], None] | None = None
) -> None:
    """Runs a function in a thread and waits for its end even if cancelled meanwhile.

    Args:
        function: What to run.
        on_cancel: Called on cancellation, to make the function end early.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        await asyncio.wait([work])
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.debug("work ended after its cancellation", error=str(error))
        raise
