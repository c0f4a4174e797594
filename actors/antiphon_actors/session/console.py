"""What a bot prints and logs, told apart by session."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TextIO

from loguru import logger

if TYPE_CHECKING:
    import loguru

Stream = Literal["out", "err"]
Write = Callable[[Stream, str], None]

_writer: ContextVar[Write | None] = ContextVar("antiphon_console", default=None)

_TOLD_AS_FAILURES = frozenset({"processor failed on a frame", "fatal error"})
"""Records that repeat what a session tells as its failures."""


class _SessionStream(io.TextIOBase):
    """Sends what is printed inside a session to that session, and the rest where it went before."""

    def __init__(self, stream: Stream, fallback: TextIO) -> None:
        self._stream = stream
        self._fallback = fallback

    def write(self, text: str) -> int:
        """Writes text."""
        write = _writer.get()
        if write is None:
            return self._fallback.write(text)
        write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        """Flushes what is not a session's."""
        if _writer.get() is None:
            self._fallback.flush()

    def isatty(self) -> bool:
        """A session has no terminal."""
        return False

    def fileno(self) -> int:
        """The descriptor of what is not a session's."""
        return self._fallback.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of what is not a session's."""
        return self._fallback.encoding


def install(log_level: str) -> None:
    """Puts the streams in place, once per process, and formats logs for people.

    Log records never show the values of variables: they may be what somebody said.
    """
    if isinstance(sys.stdout, _SessionStream):
        return
    sys.stdout = _SessionStream("out", sys.stdout)
    sys.stderr = _SessionStream("err", sys.stderr)
    configure_logging(log_level)


def configure_logging(log_level: str) -> None:
    """Sends logs at a level and above to standard error, one line each; DEBUG adds tracebacks."""
    in_detail = logger.level(log_level).no <= logger.level("DEBUG").no
    logger.remove()
    logger.add(
        _write_record,
        level=log_level,
        filter=None if in_detail else _is_news,
        format=_format_in_detail if in_detail else _format,
        diagnose=False,
        backtrace=False,
        enqueue=False,
    )


def _write_record(message: object) -> None:
    sys.stderr.write(str(message))


def _is_news(record: loguru.Record) -> bool:
    return record["message"] not in _TOLD_AS_FAILURES


def _format(record: loguru.Record) -> str:
    fields = " ".join(f"{key}={{extra[{key}]}}" for key in record["extra"])
    return "{time:HH:mm:ss.SSS} {level: <7} {message}" + (f" [{fields}]" if fields else "") + "\n"


def _format_in_detail(record: loguru.Record) -> str:
    return _format(record) + ("{exception}\n" if record["exception"] else "")


@contextmanager
def session_output(write: Write) -> Iterator[None]:
    """Sends what is printed and logged inside the block, and in tasks begun there, to ``write``."""
    token = _writer.set(write)
    try:
        yield
    finally:
        _writer.reset(token)
