"""Looks at processes of this machine, and ends them for certain."""

from __future__ import annotations

import enum
import os
import signal
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/PID/stat (proc(5)), counted from the one after the command's name.
_STATE, _START_TIME = 0, 19


class Look(enum.StrEnum):
    """What a process looks like from outside."""

    RUNS = "runs"
    STOPPED = "stopped"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for another one which got its number later.

    Attributes:
        pid: Its number.
        start_time: When it started, in clock ticks since the machine did; None where that is not told.
    """

    pid: int
    start_time: int | None

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Notes a process that runs now."""
        stat = _stat(pid)
        return cls(pid, int(stat[_START_TIME]) if stat is not None else None)

    def look(self) -> Look:
        """Looks at the process; `UNKNOWN` on a system without /proc."""
        if self.start_time is None:
            return Look.UNKNOWN
        stat = _stat(self.pid)
        if stat is None or int(stat[_START_TIME]) != self.start_time or stat[_STATE] in "ZX":
            return Look.GONE
        return Look.STOPPED if stat[_STATE] in "Tt" else Look.RUNS

    def kill(self) -> bool:
        """Sends SIGKILL to the process, and to no other; returns whether it was there."""
        if self.look() in (Look.GONE, Look.UNKNOWN):
            return False
        try:
            os.kill(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def resident_bytes() -> int:
    """The memory of this process that is in RAM; 0 where that is not told."""
    try:
        return int((_PROC / "self/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def waited_for_processor_secs(thread: int) -> float:
    """How long a thread of this process was ready to run and did not; 0 where that is not told.

    Args:
        thread: Its native id.
    """
    try:
        waited = (_PROC / f"self/task/{thread}/schedstat").read_bytes().split()[1]
    except OSError:
        return 0.0
    return int(waited) / 1e9


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The command's name is in parentheses, and may contain any.
    return text.rpartition(")")[2].split()
