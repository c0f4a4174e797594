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
_level: ContextVar[int | None] = ContextVar("antiphon_log_level", default=None)
_DEBUG = logger.level("DEBUG").no

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


class _Logging:
    """The sink of the process, and what it shows where no session says otherwise."""

    def __init__(self) -> None:
        self._default = _DEBUG
        self._lowest = _DEBUG

    def configure(self, level: int) -> None:
        """Begins anew, with nothing below a level."""
        self._default = level
        self._open(level)

    def allow(self, level: int) -> None:
        """Lets records of a level through to the sessions that want them."""
        if level < self._lowest:
            self._open(level)

    def _open(self, level: int) -> None:
        self._lowest = level
        logger.remove()
        logger.add(
            _write_record,
            level=level,
            filter=self._wanted,
            format=self._format,
            diagnose=False,
            backtrace=False,
            enqueue=False,
        )

    def _threshold(self) -> int:
        level = _level.get()
        return self._default if level is None else level

    def _wanted(self, record: loguru.Record) -> bool:
        level = self._threshold()
        return record["level"].no >= level and (level <= _DEBUG or _is_news(record))

    def _format(self, record: loguru.Record) -> str:
        return _format_in_detail(record) if self._threshold() <= _DEBUG else _format(record)


_logging = _Logging()


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
    _logging.configure(logger.level(log_level).no)


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
def session_output(write: Write, log_level: str) -> Iterator[None]:
    """Sends what is printed and logged inside the block, and in tasks begun there, to ``write``.

    Args:
        write: Takes it.
        log_level: Logs below it are left out; other sessions of the process may want others.
    """
    level = logger.level(log_level).no
    _logging.allow(level)
    tokens = _writer.set(write), _level.set(level)
    try:
        yield
    finally:
        _writer.reset(tokens[0])
        _level.reset(tokens[1])
