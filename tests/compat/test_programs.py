"""Programs for Pipecat, unchanged, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

SAMPLES = Path(__file__).parent / "samples"
ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(ROOT / root) for root in ("runtime", "actors"))
    extra = environment.pop("PYTHONPATH", "")
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, extra]))}
        | environment,
        timeout=60,
        check=False,
    )


def test_a_script() -> None:
    done = run("antiphon.compat.pipecat", SAMPLES / "shout.py", "hello", "-x")
    assert (done.returncode, done.stdout) == (0, "HELLO\n-X\n"), done.stderr


def test_a_script_that_is_not_there() -> None:
    done = run("antiphon.compat.pipecat", "nowhere.py")
    assert done.returncode == 2
    assert "nowhere.py: there is no such file" in done.stderr


def test_a_bot_file() -> None:
    done = run("antiphon_actors.cli", "run", "--local", "--pipecat", SAMPLES / "flow_bot.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "red RED IT IS.\n"


def test_a_bot_file_without_the_option_and_with_pipecat_installed(tmp_path: Path) -> None:
    without = run("antiphon_actors.cli", "run", "--local", SAMPLES / "flow_bot.py")
    assert without.returncode == 1
    assert "No module named 'pipecat'" in without.stderr

    (tmp_path / "pipecat").mkdir()
    (tmp_path / "pipecat" / "__init__.py").touch()
    command = ("antiphon_actors.cli", "run", "--local", "--pipecat", SAMPLES / "flow_bot.py")
    refused = run(*command, PYTHONPATH=str(tmp_path))
    assert refused.returncode == 1
    assert "pipecat itself is installed here" in refused.stderr
    shadowed = run(*command, PYTHONPATH=str(tmp_path), ANTIPHON_SHADOW_PIPECAT="1")
    assert shadowed.returncode == 0, shadowed.stderr
