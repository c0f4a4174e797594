"""Runs the ``antiphon`` command as a user does, and looks at what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
PYTHON_PATH = os.pathsep.join(str(REPOSITORY / root) for root in ("runtime", "actors"))
MARK = "ANTIPHON_TEST_MARK"


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str
    secs: float

    @property
    def errors(self) -> list[str]:
        """The error messages."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


class Running:
    """A command that runs, in a process group of its own, as in a shell's foreground."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._started = time.monotonic()
        self._texts: dict[str, list[str]] = {"out": [], "err": []}
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in (("out", process.stdout), ("err", process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def out(self) -> str:
        """Its standard output so far."""
        return "".join(self._texts["out"])

    @property
    def err(self) -> str:
        """Its standard error so far."""
        return "".join(self._texts["err"])

    def wait_for(self, text: str, secs: float = 60.0) -> None:
        """Waits until it has printed a text, on either stream."""
        with self._news:
            found = self._news.wait_for(
                lambda: text in self.out or text in self.err or self._process.poll() is not None,
                secs,
            )
        assert found, f"{text!r} did not appear in {secs} s: {self.out!r} {self.err!r}"
        assert text in self.out or text in self.err, (self.out, self.err)

    def signal(self, number: int = signal.SIGINT) -> None:
        """Signals the whole process group, as a terminal does at Ctrl-C."""
        os.killpg(self._process.pid, number)

    def wait(self, secs: float = 60.0) -> Result:
        """Waits for its end."""
        try:
            code = self._process.wait(secs)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise AssertionError(
                f"the command did not end in {secs} s: {self.out!r} {self.err!r}"
            ) from None
        finally:
            took = time.monotonic() - self._started
            for reader in self._readers:
                reader.join(5)
            for pipe in (self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()
        return Result(code, self.out, self.err, took)

    def _read(self, name: str, pipe: object) -> None:
        for line in pipe:  # type: ignore[attr-defined]
            with self._news:
                self._texts[name].append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


class CommandLine:
    """Starts commands in an environment of their own, with a temporary directory of their own."""

    def __init__(self) -> None:
        # Short: a private cluster's sockets have to fit below it.
        self.temporary = Path(tempfile.mkdtemp(prefix="c-", dir="/tmp"))
        self.mark = uuid.uuid4().hex
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("RAY_") and name != "COLUMNS"
        } | {
            "PYTHONPATH": PYTHON_PATH,
            "TMPDIR": str(self.temporary),
            "COLUMNS": "200",
            MARK: self.mark,
        }

    def start(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """Starts a command."""
        with _default_sigint():
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "antiphon_actors.cli", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=cwd or self.temporary.parent,
                env={**self.environment, **(environment or {})},
                start_new_session=True,
            )
        return Running(process)

    def run(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        secs: float = 60.0,
    ) -> Result:
        """Runs a command to its end."""
        return self.start(*arguments, cwd=cwd, environment=environment).wait(secs)

    def left_behind(self, grace_secs: float = 1.0) -> list[str]:
        """Processes and files that are still there although every command has ended."""
        deadline = time.monotonic() + grace_secs
        while True:
            found = [f"process {text}" for text in self._processes()]
            found += [f"file {path.name}" for path in self.temporary.iterdir()]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.02)

    def close(self) -> None:
        """Removes the temporary directory."""
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _processes(self) -> Iterator[str]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    yield f"{process.pid} {' '.join(process.cmdline())[:80]}"


@contextlib.contextmanager
def _default_sigint() -> Iterator[None]:
    """What runs in the background of a script ignores SIGINT, and so would its children."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def transcript(text: str) -> list[tuple[str, str]]:
    """Who said what, of what the demonstration's bot prints."""
    lines = re.findall(r"^ *\d+\.\d\d s  (caller|bot): +(.*)$", text, re.MULTILINE)
    return [(who, words.strip()) for who, words in lines]


def words_of(lines: Sequence[tuple[str, str]], who: str) -> list[str]:
    """What one of them said."""
    return [words for speaker, words in lines if speaker == who]
