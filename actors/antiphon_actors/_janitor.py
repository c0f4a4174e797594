"""The parent of a private cluster: leaves nothing behind, however its owner ends.

It runs as a script of its own (`python -I -S _janitor.py CONFIG`), in a session of its own, and
imports only the standard library: 9 MB, and no Ctrl-C of a terminal reaches it or its children.
Its standard input is a pipe whose other end the owner holds. When that pipe closes - the owner
stopped the cluster, was killed, or never got as far as knowing about this process - the janitor
kills every descendant, removes the directory, and exits.

Being a subreaper it inherits every orphan of the tree, so "every descendant" stays exact even for
processes whose parents are gone, and nothing of the cluster lingers as a zombie (Ray's workers do
not notice the death of a raylet that stays a zombie).

CONFIG is JSON: `directory` (created here, removed here), `command` (starts the cluster, prints
one JSON line about it on standard output, may exit or stay).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36
OWNER_CHECK_SECS = 0.5
KILL_DEADLINE_SECS = 10.0


def become_subreaper() -> bool:
    """Makes orphaned descendants children of this process; False where the system has no such call."""
    if not sys.platform.startswith("linux"):
        return False
    status: int = ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return status == 0


def descendants(root: int) -> list[int]:
    """Lists the processes below `root`, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        # A process may end while it is being looked at.
        with contextlib.suppress(OSError):
            stat = (Path(entry.path) / "stat").read_bytes()
            # The command may contain spaces and parentheses: the parent is the second field
            # after the last closing one.
            parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def reap() -> tuple[bool, dict[int, int]]:
    """Collects ended children; returns whether any child is left, and the exit status of each."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False, ended
        if pid == 0:
            return True, ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def kill_all(head: int) -> bool:
    """Kills every descendant; returns False if some would not die in time."""
    deadline = time.monotonic() + KILL_DEADLINE_SECS
    pause_secs = 0.005
    while True:
        if Path("/proc/self/stat").exists():
            victims = descendants(os.getpid())
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif head:
            # No /proc: what is known is the process group, which Ray's processes do not leave.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(head, signal.SIGKILL)
        left, _ = reap()
        if not left:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_secs)
        pause_secs = min(pause_secs * 2, 0.05)


def report(line: dict[str, object]) -> None:
    """Tells the owner, if there still is one."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(line).encode() + b"\n")


def watch(head: int, wakeup: int, owner: int) -> None:
    """Returns when the cluster must go: its owner closed the pipe, has died, or signalled us."""
    while True:
        readable, _, _ = select.select([0, wakeup], [], [], OWNER_CHECK_SECS)
        if wakeup in readable and any(number != signal.SIGCHLD for number in os.read(wakeup, 4096)):
            return
        if 0 in readable and not os.read(0, 4096):
            return
        # A forked child of the owner can hold the pipe open after the owner's death.
        if os.getppid() != owner:
            return
        _, ended = reap()
        if ended.get(head, 0) != 0:
            report({"error": f"the start command ended with status {ended[head]}"})


def ignore(number: int, frame: FrameType | None) -> None:
    """Lets a signal arrive at the wakeup pipe without its default effect."""


def main() -> int:
    """Runs the script; returns its exit status: 1 if something could not be removed."""
    owner = os.getppid()
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_read, False)
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, ignore)
    config = json.loads(sys.argv[1])
    directory = Path(config["directory"])
    become_subreaper()
    try:
        directory.mkdir(mode=0o700)
    except OSError as error:
        # Somebody else's directory is not ours to remove.
        report({"error": f"cannot create the directory: {error}"})
        return 1
    clean = True
    head_pid = 0
    try:
        with (directory / "head.log").open("wb") as log:
            head = subprocess.Popen(  # noqa: S603 - the owner's own command
                config["command"],
                stdin=subprocess.DEVNULL,
                stderr=log,
                process_group=0,
            )
        head_pid = head.pid
        watch(head_pid, wakeup_read, owner)
    except OSError as error:
        report({"error": f"{type(error).__name__}: {error}"})
    finally:
        clean = kill_all(head_pid)
        for _ in range(20):
            shutil.rmtree(directory, ignore_errors=True)
            if not directory.exists():
                break
            time.sleep(0.05)
        else:
            clean = False
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
