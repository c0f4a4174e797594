"""What is said about bot files that cannot be used, without a process of their own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tests.cli.bots import CHOKES, HEAD, TALKS

from antiphon.errors import AntiphonError, ConfigError
from antiphon.runner.types import RunnerArguments
from antiphon_actors.bot_program import BotError, load_bot, read_bot_file, run_bot
from antiphon_actors.plan_command import plan_bot

FINE = "async def bot(runner_args):\n    pass\n"


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "menu", raising=False)


def run(path: Path) -> int:
    bot_file = read_bot_file(path)
    return asyncio.run(run_bot(load_bot(bot_file), bot_file, RunnerArguments()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("async def bot(a):\n    x = = 3\n", "bot.py:2: not valid Python"),
        ("x = '\0'\n", "bot.py.*not valid Python.*null"),
        ("import no_such_module\n" + FINE, r"does not import: .*no_such_module.*\(.*bot.py:1\)"),
        ("def f():\n    1 / 0\n\nf()\n", r"does not import: ZeroDivisionError: .*bot.py:2\)"),
        ("raise SystemExit(2)\n", "does not import: SystemExit: 2"),
        ("x = 1\n", r"has no function named bot; .*`async def bot\(runner_args\)`"),
        ("def bot(runner_args): pass\n", "bot must be an async function"),
        ("async def bot(): pass\n", "bot must take one argument"),
        (
            "async def bot(a):\n    raise ValueError('no tea')\n",
            r"ValueError: no tea \(.*bot.py:2\)",
        ),
        ("async def bot(a):\n    await None\n", r"TypeError: .*\(.*bot.py:2\)"),
    ],
)
def test_says_what_is_wrong_and_where(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bot.py").write_text(text)
    with pytest.raises(AntiphonError, match=said) as caught:
        run(tmp_path / "bot.py")
    assert str(tmp_path / "bot.py") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fault_in_a_module_of_the_bot_is_found_there(tmp_path: Path) -> None:
    (tmp_path / "menu.py").write_text("def order(what):\n    raise LookupError(what)\n")
    (tmp_path / "bot.py").write_text("import menu\nasync def bot(a):\n    menu.order('tea')\n")
    with pytest.raises(BotError, match=r"LookupError: tea \(.*menu.py:2\)"):
        run(tmp_path / "bot.py")


def test_a_processor_that_cannot_be_built_is_the_bots_failure(tmp_path: Path) -> None:
    text = HEAD + "class Bad(FrameProcessor):\n    def __init__(self):\n        raise OSError(5)\n"
    text += "async def bot(a):\n    await serve(a, [Bad()], [])\n"
    (tmp_path / "bot.py").write_text(text)
    with pytest.raises(BotError, match=r"bot.py: bot\(\) failed: OSError: 5 \(.*bot.py:\d+\)"):
        run(tmp_path / "bot.py")


def test_what_cannot_be_read_is_no_bot_file(tmp_path: Path) -> None:
    (tmp_path / "picture.py").write_bytes(b"\x89PNG\xff")
    for path, said in (
        (tmp_path / "none.py", "there is no such file"),
        (tmp_path, "cannot be read as a bot file: Is a directory"),
        (tmp_path / "picture.py", "cannot be read as a bot file"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_bot_file(path)


def test_a_file_is_decoded_as_python_does(tmp_path: Path) -> None:
    head = "# -*- coding: latin-1 -*-\nname = 'Zoë'\n"
    (tmp_path / "latin.py").write_bytes((head + FINE).encode("latin-1"))
    (tmp_path / "marked.py").write_bytes(b"\xef\xbb\xbf" + FINE.encode())
    assert load_bot(read_bot_file(tmp_path / "latin.py")).name == "Zoë"
    assert run(tmp_path / "marked.py") == 0


@pytest.mark.parametrize(
    ("call", "code"),
    [("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit('out of tea')", 1), ("0", 0)],
)
def test_the_exit_code_is_the_bots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], call: str, code: int
) -> None:
    (tmp_path / "bot.py").write_text(f"import sys\nasync def bot(a):\n    {call}\n")
    assert run(tmp_path / "bot.py") == code
    assert capsys.readouterr().err == ("out of tea\n" if code == 1 else "")


async def test_a_plan_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(TALKS)
    plan = await plan_bot(read_bot_file(tmp_path / "bot.py"), None)
    assert [placed.where for placed in plan.workers] == ["pooled", "pooled", "home"]


async def test_there_is_no_plan_without_a_task(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(FINE)
    with pytest.raises(AntiphonError, match="ended without running a PipelineTask"):
        await plan_bot(read_bot_file(tmp_path / "bot.py"), None)
    (tmp_path / "bad.py").write_text(CHOKES.replace("[Chokes()]", "[Chokes(1, 2)]"))
    with pytest.raises(BotError, match="TypeError"):
        await plan_bot(read_bot_file(tmp_path / "bad.py"), None)
