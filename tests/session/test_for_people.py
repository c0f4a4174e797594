"""Tables, the timeline, and what sessions print."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from rich.console import Console
from tests.session.conftest import Mover, Stay

from antiphon.errors import SessionError
from antiphon.pipeline.pipeline import Pipeline
from antiphon.processors.statistics import ProcessorStatistics
from antiphon_actors.bot_program import BotError, BotFile
from antiphon_actors.placement.plan import make_plan
from antiphon_actors.placement.policy import Placement
from antiphon_actors.plan_command import plan_bot
from antiphon_actors.report import SessionReport
from antiphon_actors.session import console
from antiphon_actors.session.home import ProcessorRecord
from antiphon_actors.tables import latency_table, plan_table, session_table
from antiphon_actors.timeline import draw_timeline, spans


def shown(table: Any) -> str:
    screen = Console(file=io.StringIO(), width=200)
    screen.print(table)
    text: str = screen.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_tables_show_names_as_they_are() -> None:
    # Square brackets would be styles to rich, and this one an error.
    mover = Mover(name="mover[/bold]")
    plan = make_plan(Pipeline([mover, Stay(name="stay")]), Placement())
    text = shown(plan_table(plan, "/x/my[red]bot.py"))
    assert "mover[/bold]" in text
    assert "pooled actor" in text
    assert "the bot's own class" in text
    statistics = ProcessorStatistics()
    record = ProcessorRecord("tts[/x]", "actor 1234, pid 5", "because [/y]", statistics)
    text = shown(session_table(SessionReport("s1", 0, processors=[record])))
    assert "tts[/x]" in text
    assert "because [/y]" in text
    assert "-" in text


def test_latencies() -> None:
    latency = {"user_stopped_secs": 1.0, "from_speech_secs": 0.81, "from_detection_secs": 0.3}
    assert "0.81 s" in shown(latency_table([latency]))


def test_spans_that_do_not_end_and_ends_that_did_not_begin() -> None:
    events = [
        {"kind": "stop", "secs": 0.5},
        {"kind": "start", "secs": 1.0},
        {"kind": "start", "secs": 1.5},
        {"kind": "stop", "secs": 2.0},
        {"kind": "start", "secs": 3.0},
    ]
    assert spans(events, "start", "stop", 4.0) == [(1.0, 2.0), (3.0, 4.0)]


@pytest.mark.leaks("fds", reason="matplotlib keeps its fonts open")
def test_a_timeline_of_people_who_speak_of_dollars(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    conversation = {
        "vad_stop_secs": 0.2,
        "events": [
            {"kind": "user_started", "secs": 0.0},
            {"kind": "user_said", "secs": 0.9, "text": "$5 or ^2 {$"},
            {"kind": "user_stopped", "secs": 1.0},
            {"kind": "bot_started", "secs": 1.5},
            {"kind": "bot_says", "secs": 1.5, "text": "x" * 100},
            {"kind": "interruption", "secs": 2.0},
            {"kind": "interruption", "secs": 2.5},
        ],
    }
    draw_timeline(conversation, tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    draw_timeline({"vad_stop_secs": 0.2, "events": []}, tmp_path / "empty.png")


async def test_what_a_session_prints_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = io.StringIO()
    monkeypatch.setattr(sys, "stdout", fallback)
    monkeypatch.setattr(sys, "stderr", fallback)
    console.install("WARNING")
    written: dict[str, list[tuple[str, str]]] = {"a": [], "b": []}

    async def session(name: str, log_level: str) -> None:
        def write(stream: console.Stream, text: str) -> None:
            written[name].append((stream, text))

        with console.session_output(write, log_level):
            await asyncio.create_task(speak(name))

    async def speak(name: str) -> None:
        print("out", name)  # noqa: T201 - as a bot does
        await asyncio.sleep(0)
        print("err", name, file=sys.stderr)  # noqa: T201
        sys.stdout.flush()
        logger.debug("a detail")
        secret = "what somebody said"
        try:
            raise ValueError(f"{len(secret)}")
        except ValueError:
            logger.bind(session_id=name).exception("failed")

    try:
        await asyncio.gather(session("a", "DEBUG"), session("b", "WARNING"))
        print("outside")  # noqa: T201
    finally:
        logger.remove()
        logger.add(sys.stderr)
    for name in "ab":
        text = "".join(part for _, part in written[name])
        assert f"out {name}" in "".join(part for stream, part in written[name] if stream == "out")
        assert f"err {name}" in "".join(part for stream, part in written[name] if stream == "err")
        assert f"failed [session_id={name}]" in text
        # Each has the level it asked for.
        assert ("a detail" in text) == ("ValueError" in text) == (name == "a")
        # Values of variables never show in a log.
        assert "what somebody said" not in text
    assert fallback.getvalue() == "outside\n"


PLANNED = """
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.testing import FakeLLMService
from antiphon_actors.placement.policy import Placement, Rule

placement = Placement("dedicated", (Rule("kept", "home"),))
opened = []


class Opens(FakeLLMService):
    movable = True

    async def setup(self, setup):
        opened.append(self)
        await super().setup(setup)


async def bot(runner_args):
    processors = [Opens(["x"]), FakeLLMService(["y"], name="kept")]
    await PipelineRunner(handle_sigint=False).run(PipelineTask(Pipeline(processors)))
    raise AssertionError("the plan is all that was wanted")
"""


async def test_a_plan_is_made_without_starting_anything() -> None:
    bot_file = BotFile("/nowhere/planned.py", PLANNED)
    plan = await plan_bot(bot_file, None)
    assert [placed.where for placed in plan.workers] == ["dedicated", "home"]
    assert plan.workers[1].why == "a rule for kept keeps it in the bot's process"
    opened = next(
        module.opened
        for name, module in list(sys.modules.items())
        if name.startswith("antiphon_bot_") and getattr(module, "__file__", "") == bot_file.path
    )
    assert opened == []
    fused = await plan_bot(bot_file, Placement("fused"))
    assert {placed.where for placed in fused.workers} == {"home"}


async def test_a_bot_without_a_pipeline_has_no_plan() -> None:
    with pytest.raises(SessionError, match="without running a PipelineTask"):
        await plan_bot(BotFile("/nowhere/idle.py", "async def bot(runner_args): pass"), None)
    with pytest.raises(BotError, match="ZeroDivisionError"):
        await plan_bot(BotFile("/nowhere/bad.py", "async def bot(runner_args): 1 / 0"), None)
