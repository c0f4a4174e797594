"""What is known of a session when it has ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loguru import logger

from antiphon_actors.interruption import scratch_directory
from antiphon_actors.session.home import ProcessorRecord
from antiphon_actors.session.replacement import RecoveryRecord

MAX_FILES_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class SessionReport:
    """How a session ended.

    Attributes:
        session_id: The session.
        exit_code: 0 if all went well.
        failures: What did not, for people; each names file or processor and cause.
        processors: Every processor: where it ran, why, its traffic.
        files: Files the bot wrote to its output directory, by name.
        conversations: What was said and how long it took, for each task of the bot: the plain form
            of ``antiphon.observers.session_report.SessionReport``.
        recoveries: Processors that were lost with their actors and replaced.
        lost: Why an earlier conversation could not be resumed; empty if it was, or there was none.
        handed_over: Whether the session goes on elsewhere: it has ended here, and not for the
            caller.
    """

    session_id: str
    exit_code: int
    failures: list[str] = field(default_factory=list)
    processors: list[ProcessorRecord] = field(default_factory=list)
    files: Mapping[str, bytes] = field(default_factory=dict)
    conversations: list[dict[str, Any]] = field(default_factory=list)
    recoveries: list[RecoveryRecord] = field(default_factory=list)
    lost: str = ""
    handed_over: bool = False

    def save(self, path: Path) -> None:
        """Writes the session to a JSON file, with what people said.

        Raises:
            OSError: If the file cannot be written.
        """
        plain = {
            "session_id": self.session_id,
            "exit_code": self.exit_code,
            "failures": self.failures,
            "recoveries": [asdict(each) for each in self.recoveries],
            "conversations": self.conversations,
        }
        path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def output_directory(
    body: Mapping[str, Any],
    files: dict[str, bytes],
    *,
    collect: bool,
    parent: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """The body of a session's request, with a directory to write to if files are collected.

    Args:
        body: The request's own data.
        files: Gets the files written there, however the block ends.
        collect: Whether there is such a directory; it is removed at the end.
        parent: Where it is made; None for the system's temporary directory.
    """
    if not collect:
        yield dict(body)
        return
    with scratch_directory("antiphon-out-", parent) as directory:
        try:
            yield {**body, "output_dir": str(directory)}
        finally:
            _collect(directory, files)


def _collect(directory: Path, files: dict[str, bytes]) -> None:
    total = 0
    for path in sorted(directory.iterdir()):
        if not path.is_file():
            continue
        total += path.stat().st_size
        if total > MAX_FILES_BYTES:
            logger.warning("output files beyond the limit are left out", limit=MAX_FILES_BYTES)
            return
        files[path.name] = path.read_bytes()
