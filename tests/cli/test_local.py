"""The command in processes of its own, without Ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from tests.cli import bots
from tests.cli.support import EXAMPLES, CommandLine

pytestmark = pytest.mark.timeout(120)

END_SECS = 5.0


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def write_wav(path: Path, seconds: float, sample_rate: int, channels: int) -> Path:
    count = round(seconds * sample_rate)
    tone = 3000 * np.sin(2 * np.pi * 440 * np.arange(count) / sample_rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.repeat(tone.astype("<i2"), channels).tobytes())
    return path


def test_a_bot_prints_and_decides_the_exit_code(antiphon: CommandLine, tmp_path: Path) -> None:
    bot = write(tmp_path / "bot.py", bots.TALKS)
    report = tmp_path / "report.json"
    done = antiphon.run(
        "run", bot, "--local", "--body", '{"table": 7}', "--table", "--report", report
    )
    assert done.code == 3
    written = json.loads(report.read_text(encoding="utf-8"))
    assert written["exit_code"] == 3
    assert [set(one) >= {"transcript", "turns", "usage"} for one in written["conversations"]] == [
        True
    ]
    assert done.out.splitlines()[0] == "body {'table': 7}"
    assert {"started", "heard HELLO"} < set(done.out.splitlines())
    assert "everything runs in one process" in done.out
    assert done.err == "to stderr\n"


def test_a_plan_shows_places_and_reasons(antiphon: CommandLine, tmp_path: Path) -> None:
    write(tmp_path / "bot.py", bots.TALKS)
    done = antiphon.run("plan", "bot.py", cwd=tmp_path)
    assert (done.code, done.err) == (0, "to stderr\n")
    lines = {line.split()[0]: line for line in done.out.splitlines() if "#" in line}
    assert "pooled actor" in lines["Shout#0"]
    assert "the bot's process" in lines["Show#0"]
    assert "`movable = True`" in lines["Show#0"]
    done = antiphon.run("plan", tmp_path / "bot.py", "--placement", "dedicated")
    assert "dedicated actor" in done.out


def test_the_doctor_finds_this_machine_fit(antiphon: CommandLine) -> None:
    done = antiphon.run("doctor", environment={"RAY_ADDRESS": "127.0.0.1:1"})
    assert done.code == 1
    missing = [line for line in done.out.splitlines() if line.startswith("missing")]
    assert [line.split(":")[0] for line in missing] == [
        "missing Ray cluster at RAY_ADDRESS=127.0.0.1"
    ]
    assert "unset RAY_ADDRESS" in done.out
    assert "Silero voice activity detection runs" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "none.py"], "none.py: there is no such file"),
        (["run", "waits.py", "--placement", "silly"], "--placement silly: choose one of pooled"),
        (["run", "waits.py", "--body", "[1"], "--body: not JSON"),
        (["run", "waits.py", "--body", "[1]"], "--body: give a JSON object"),
        (["run", "waits.py", "--log-level", "loud"], "--log-level loud: choose one of"),
        (["plan", "none.py"], "none.py: there is no such file"),
        (["demo", "--placement", "silly"], "--placement silly"),
        (["demo", "--local", "--out", "waits.py"], "--out waits.py: cannot be a directory"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_one_message(
    antiphon: CommandLine, tmp_path: Path, arguments: list[str], said: str
) -> None:
    write(tmp_path / "waits.py", bots.WAITS)
    done = antiphon.run(*arguments, cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error: ")
    assert said in done.err


def test_a_processor_that_fails_is_one_message(antiphon: CommandLine, tmp_path: Path) -> None:
    bot = write(tmp_path / "bot.py", bots.CHOKES)
    done = antiphon.run("run", bot, "--local")
    line = bots.line_of(bots.CHOKES, "CHOKES HERE")
    assert done.code == 1
    assert done.err == (
        "error: processor Chokes#0 failed on TextFrame#0: ValueError: cannot chew that "
        f"({bot}:{line})\n"
    )
    detailed = antiphon.run("run", bot, "--local", "--log-level", "debug")
    assert "Traceback" in detailed.err


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"", "is not a WAV file"), (b"RIFF1234WAVE", "damaged WAV file")],
    ids=["absent", "empty", "damaged"],
)
def test_a_caller_that_cannot_be_played_is_one_message(
    antiphon: CommandLine, tmp_path: Path, content: bytes | None, said: str
) -> None:
    caller = tmp_path / "caller.wav"
    if content is not None:
        caller.write_bytes(content)
    body = json.dumps({"caller": str(caller), "output_dir": str(tmp_path)})
    done = antiphon.run("run", EXAMPLES / "demo_bot.py", "--local", "--body", body)
    assert done.code == 1
    assert len(done.errors) == 1, done.err
    assert done.err.startswith("error: processor FileInputTransport#0 failed on StartFrame#0: ")
    assert "Traceback" not in done.err
    assert str(caller) in done.err
    assert said in done.err


def test_a_caller_of_another_kind_is_converted_and_that_is_said(
    antiphon: CommandLine, tmp_path: Path
) -> None:
    caller = write_wav(tmp_path / "caller.wav", 0.5, 44100, 2)
    body = json.dumps({"caller": str(caller), "output_dir": str(tmp_path / "new" / "out")})
    done = antiphon.run("run", EXAMPLES / "demo_bot.py", "--local", "--body", body)
    assert done.code == 0, done.err
    (line,) = done.err.splitlines()
    assert "sound file converted" in line
    assert "file_sample_rate=44100" in line
    with wave.open(str(tmp_path / "new" / "out" / "conversation.wav")) as recording:
        assert recording.getnchannels() == 2
        assert recording.getnframes() / recording.getframerate() > 0.5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_session(antiphon: CommandLine, tmp_path: Path, number: int) -> None:
    running = antiphon.start("run", write(tmp_path / "bot.py", bots.WAITS), "--local")
    running.wait_for("heard HELLO")
    begun = time.monotonic()
    running.signal(number)
    running.signal(number)
    done = running.wait(END_SECS)
    assert time.monotonic() - begun < END_SECS
    assert done.code == 128 + number
    assert done.out.endswith("tidied up\n")
    assert done.err == f"error: interrupted ({signal.Signals(number).name})\n"


@pytest.mark.parametrize("pause_secs", [0.0, 0.1, 0.4])
def test_a_signal_at_the_start_ends_quietly(
    antiphon: CommandLine, tmp_path: Path, pause_secs: float
) -> None:
    running = antiphon.start("run", write(tmp_path / "bot.py", bots.WAITS), "--local")
    # Before the interpreter looks after signals the system's default ends it.
    time.sleep(pause_secs)
    running.signal()
    done = running.wait(END_SECS)
    assert done.code in (130, -signal.SIGINT)


def test_a_bot_that_will_not_end_is_ended(antiphon: CommandLine, tmp_path: Path) -> None:
    running = antiphon.start("run", write(tmp_path / "bot.py", bots.HANGS), "--local")
    running.wait_for("started")
    running.signal()
    done = running.wait(END_SECS)
    assert done.code == 130
    assert "no, thanks" in done.out


def test_a_reader_that_has_gone_ends_the_command_quietly(
    antiphon: CommandLine, tmp_path: Path
) -> None:
    bot = write(tmp_path / "bot.py", bots.PRINTS_A_LOT)
    command = subprocess.Popen(
        [sys.executable, "-P", "-m", "antiphon_actors.cli", "run", str(bot), "--local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=antiphon.environment,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    assert command.stdout.readline() == "line 0\n"
    command.stdout.close()
    said = command.stderr.read()
    command.stderr.close()
    assert command.wait(30) != 0
    assert "Traceback" not in said
