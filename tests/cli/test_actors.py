"""``antiphon run`` over Ray actors: on a cluster that is joined, and on one of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli import bots
from tests.cli.conftest import SharedCluster
from tests.cli.support import EXAMPLES, CommandLine

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]

END_SECS = 5.0


@pytest.fixture
def joined(antiphon: CommandLine, shared_cluster: SharedCluster) -> Iterator[CommandLine]:
    """The command on the shared cluster, where it leaves no actor."""
    antiphon.environment.update(shared_cluster.environment)
    yield antiphon
    deadline = time.monotonic() + 3.0
    while shared_cluster.actors() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shared_cluster.actors() == []


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_bot_runs_in_actors(joined: CommandLine, tmp_path: Path) -> None:
    text = bots.TALKS.replace("await serve", "open('mark', 'w').close()\n    await serve")
    write(tmp_path / "bot.py", text)
    done = joined.run("run", "bot.py", "--body", '{"table": 7}', "--table", cwd=tmp_path)
    assert done.code == 3, done.err
    assert done.out.splitlines()[0] == "body {'table': 7}"
    assert {"started", "heard HELLO"} < set(done.out.splitlines())
    rows = {line.split()[0]: line for line in done.out.splitlines() if "#" in line}
    assert "actor " in rows["Shout#0"]
    assert "supervisor, pid" in rows["Show#0"]
    assert "to stderr" in done.err.splitlines()
    assert done.errors == []
    # Relative paths are those of the command.
    assert (tmp_path / "mark").exists()


def test_the_placement_can_be_chosen(joined: CommandLine, tmp_path: Path) -> None:
    bot = write(tmp_path / "bot.py", bots.TALKS)
    done = joined.run("run", bot, "--placement", "fused", "--table")
    assert done.code == 3, done.err
    rows = [line for line in done.out.splitlines() if "Shout#" in line]
    assert ["supervisor, pid" in row for row in rows] == [True, True]
    assert "heard HELLO" in done.out


def test_a_file_says_how_models_run(joined: CommandLine, tmp_path: Path) -> None:
    bot = write(
        tmp_path / "bot.py",
        "from antiphon.audio.vad.silero import SHARED_MODEL\n"
        "from antiphon.models.provider import connect_model, runs_in_process\n"
        "async def bot(runner_args):\n"
        "    print('in this process', runs_in_process(SHARED_MODEL), flush=True)\n"
        "    async with await connect_model(SHARED_MODEL) as model:\n"
        "        print('actors', model.statistics()['actors'], flush=True)\n",
    )
    models = write(
        tmp_path / "models.toml",
        'preload = ["silero"]\n[[rules]]\nmatch = "SileroModel"\nplace = "actor"\n',
    )
    done = joined.run("run", bot, "--models", models)
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["in this process False", "actors 1"]
    write(models, "preload = []\nmax_actor = 1\n")
    done = joined.run("run", bot, "--models", models)
    assert done.code == 1
    (error,) = done.errors
    assert error.startswith(f"error: --models {models}: max_actor: unknown; allowed are rules,")
    assert joined.run("run", bot, "--local", "--models", models).code == 1


@pytest.mark.parametrize(
    ("text", "said", "marker"),
    [
        (bots.CHOKES, "processor Chokes#0 failed on TextFrame", "CHOKES HERE"),
        (bots.CHOKES_ELSEWHERE, "processor ChokesElsewhere#0 failed on TextFrame", "CHOKES HERE"),
        (bots.REFUSES_ELSEWHERE, "processor RefusesElsewhere#0 could not be built", "REFUSES HERE"),
    ],
    ids=["here", "elsewhere", "unbuildable"],
)
def test_a_failure_is_one_message(
    joined: CommandLine, tmp_path: Path, text: str, said: str, marker: str
) -> None:
    bot = write(tmp_path / "bot.py", text)
    done = joined.run("run", bot)
    assert done.code == 1
    (error,) = done.errors
    assert said in error
    assert f"{bot}:{bots.line_of(text, marker)}" in error
    assert "Traceback" not in done.err


def test_a_supervisor_that_dies_is_one_message(joined: CommandLine, tmp_path: Path) -> None:
    bot = write(tmp_path / "bot.py", "import os\nasync def bot(a):\n    os._exit(9)\n")
    done = joined.run("run", bot)
    assert done.code == 1
    (error,) = done.errors
    assert "the bot's process ended unexpectedly" in error
    assert "Traceback" not in done.err


def test_no_line_is_lost(joined: CommandLine, tmp_path: Path) -> None:
    done = joined.run("run", write(tmp_path / "bot.py", bots.PRINTS_A_LOT))
    assert done.code == 0
    assert done.out.splitlines() == [f"line {number}" for number in range(30_000)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_session(joined: CommandLine, tmp_path: Path, number: int) -> None:
    running = joined.start("run", write(tmp_path / "bot.py", bots.WAITS))
    running.wait_for("heard HELLO")
    running.signal(number)
    time.sleep(0.1)
    running.signal(number)
    done = running.wait(END_SECS)
    assert done.code == 128 + number
    assert done.out.endswith("tidied up\n")
    assert done.errors == [f"error: interrupted ({signal.Signals(number).name})"]
    assert "SIGTERM received" not in done.err


def test_a_bot_that_will_not_end_is_ended(joined: CommandLine, tmp_path: Path) -> None:
    running = joined.start("run", write(tmp_path / "bot.py", bots.HANGS))
    running.wait_for("started")
    running.signal()
    assert running.wait(END_SECS).code == 130


def test_an_interrupted_demonstration_stops_its_job(joined: CommandLine, tmp_path: Path) -> None:
    running = joined.start("demo", "--out", tmp_path)
    running.wait_for("caller:")
    running.signal()
    done = running.wait(END_SECS)
    assert done.code == 130
    assert done.errors == ["error: interrupted (SIGINT)"]


def test_a_cluster_that_is_not_there_is_one_message(antiphon: CommandLine, tmp_path: Path) -> None:
    bot = write(tmp_path / "bot.py", bots.TALKS)
    antiphon.environment["RAY_ADDRESS"] = "127.0.0.1:1"
    done = antiphon.run("run", bot)
    assert done.code == 1
    (error,) = done.errors
    assert "127.0.0.1:1" in error
    assert "Traceback" not in done.err


def test_a_cluster_of_its_own_goes_with_the_command(antiphon: CommandLine, tmp_path: Path) -> None:
    running = antiphon.start("run", write(tmp_path / "bot.py", bots.WAITS))
    running.wait_for("heard HELLO")
    running.signal()
    done = running.wait(END_SECS)
    assert done.code == 130
    assert done.out.endswith("tidied up\n")
    assert "… starting a Ray cluster on this machine" in done.err


def test_nothing_survives_a_command_that_is_killed(antiphon: CommandLine, tmp_path: Path) -> None:
    running = antiphon.start("run", write(tmp_path / "bot.py", bots.WAITS))
    running.wait_for("heard HELLO")
    running.signal(signal.SIGKILL)
    assert running.wait(END_SECS).code == -signal.SIGKILL
    assert antiphon.left_behind(grace_secs=END_SECS) == []


@pytest.mark.parametrize(
    ("step", "pause_secs"),
    [("starting a Ray cluster", 1.0), ("starting actors", 0.2)],
)
def test_a_terminals_interrupt_ends_the_start(
    antiphon: CommandLine, step: str, pause_secs: float
) -> None:
    """On a terminal: a spinner shows, and Ctrl-C is what the terminal makes of a byte."""
    terminal, end = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, str(EXAMPLES / "bot.py")],
        stdin=end,
        stdout=end,
        stderr=end,
        cwd=antiphon.temporary,
        env={**antiphon.environment, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(end)
    shown = b""
    interrupted_at: float | None = None
    try:
        # The end of a terminal is an error on Linux.
        with contextlib.suppress(OSError):
            while piece := os.read(terminal, 65536):
                shown += piece
                if interrupted_at is None and step.encode() in shown:
                    time.sleep(pause_secs)
                    os.write(terminal, b"\x03")
                    interrupted_at = time.monotonic()
        code = command.wait(END_SECS)
    finally:
        os.close(terminal)
        if command.poll() is None:
            os.killpg(command.pid, signal.SIGKILL)
            command.wait()
    assert interrupted_at is not None, shown
    assert time.monotonic() - interrupted_at < END_SECS
    assert code == 130
    assert b"\x1b[?25l" in shown  # the spinner hides the cursor,
    assert b"\x1b[?25h" in shown  # which is there again at the end
    assert b"interrupted" in shown


_ON_TERMINAL = """
import fcntl, runpy, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["antiphon", "run", sys.argv[1]]
runpy.run_module("antiphon_actors.cli", run_name="__main__")
"""
