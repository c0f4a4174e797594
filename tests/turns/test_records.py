"""One record of each turn: what happened when, what was said, what it cost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from tests.turns.conftest import Bot, Run, locally

from antiphon.observers.loggers.latency_breakdown_log_observer import LatencyBreakdownLogObserver
from antiphon.observers.session_report import SessionReport
from antiphon.observers.turn_record import TurnRecord, summary
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.testing import FakeDelay, FakeFailure, FakeToolCall, FakeTTSService, call

pytestmark = pytest.mark.virtual_time

QUESTION = ("speak", 1.0)
ANSWER = [FakeDelay(0.5), "I am a bot."]


def report_of(bot: Bot) -> SessionReport:
    report = bot.task.session_report()
    assert report is not None
    return report


async def test_what_the_user_waited_for(run: Run) -> None:
    bot = Bot(FakeTTSService(latency_secs=0.25), [ANSWER])
    recorded: list[TurnRecord] = []
    tracker = bot.task.turn_tracking_observer
    assert tracker is not None
    tracker.add_event_handler("on_turn_recorded", lambda _, record: recorded.append(record))
    await bot.talk(run, QUESTION, ("wait", 5.0))
    (turn,) = report_of(bot).turns
    assert recorded == [turn]
    assert turn.user_text == "One?"
    assert turn.bot_text == "I am a bot."
    assert turn.user_started_secs == pytest.approx(0.2, abs=0.05)
    assert turn.speech_ended_secs == pytest.approx(1.0, abs=0.05)
    assert turn.latency_secs is not None
    assert sum(turn.stages.values()) == pytest.approx(turn.latency_secs)
    assert turn.stages["end_of_turn"] == pytest.approx(0.8, abs=0.05)
    assert turn.stages["aggregation"] == pytest.approx(0.5, abs=0.05)
    assert turn.stages["llm"] == pytest.approx(0.5, abs=0.05)
    assert turn.stages["tts"] == pytest.approx(0.25, abs=0.05)
    assert turn.bot_stopped_secs is not None
    assert turn.bot_started_secs is not None
    assert turn.bot_stopped_secs > turn.bot_started_secs
    assert turn.completion_tokens == 1
    assert turn.tts_characters == len("I am a bot.")
    assert not turn.was_interrupted


async def test_an_interrupted_turn_says_where(run: Run) -> None:
    first = "First of all there is a long sentence with many words in it."
    bot = Bot(FakeTTSService(), [first, "Yes."])
    await bot.talk(run, QUESTION, ("wait", 1.5), QUESTION, ("wait", 5.0))
    report = report_of(bot)
    one, two = report.turns
    assert one.was_interrupted
    assert one.bot_text == bot.said()[0]
    assert first.startswith(one.bot_text)
    assert two.bot_text == "Yes."
    assert not two.was_interrupted
    assert report.interruptions == 1
    assert [entry["text"] for entry in report.transcript] == [
        "One?",
        one.bot_text,
        "Two?",
        "Yes.",
    ]


async def test_calls_and_errors_are_in_the_report(run: Run, tmp_path: Path) -> None:
    bot = Bot(
        FakeTTSService(),
        [[FakeToolCall("lookup", {})], "Found.", [FakeFailure("out of order")]],
        conversation_id="customer-123",
    )

    async def lookup(params: Any) -> None:
        await params.result_callback({"it": "is"})

    bot.llm.register_function("lookup", lookup)
    await bot.talk(run, QUESTION, ("wait", 5.0), QUESTION, ("wait", 3.0))
    report = report_of(bot)
    assert report.turns[0].function_calls == ["lookup"]
    assert [error.error for error in report.errors] == ["out of order"]
    assert report.errors[0].processor == bot.llm.name
    assert report.turns[1].errors == [f"{bot.llm.name}: out of order"]

    path = tmp_path / "report.json"
    report.save(path)
    plain = json.loads(path.read_text(encoding="utf-8"))
    assert plain["conversation_id"] == "customer-123"
    assert plain["usage"]["tts_characters"] == len("Found.")
    assert plain["latencies"]["total"]["count"] == 1
    assert plain["duration_secs"] == pytest.approx(10.0, abs=0.5)
    report.save(path, include_text=False)
    assert "Found" not in path.read_text(encoding="utf-8")
    assert "One?" not in path.read_text(encoding="utf-8")


async def test_a_caller_talks_to_a_bot_wherever_it_runs(run: Run) -> None:
    bot = Bot(FakeTTSService(), ["A long answer that nobody wants to hear.", "Fine."], questions=())
    async with call(bot.task, bot.transport, bot.stt, run=run) as caller:
        await caller.say("Tell me.")
        await caller.wait_for_bot()
        await caller.say("Stop!")
        assert await caller.hear("fine") == "Fine."
    caller.expect_interruptions(1)
    caller.expect_latency(3.0)
    assert [text for _, text in caller.transcript][::2] == ["Tell me.", "Stop!"]


async def test_there_is_no_report_without_turn_tracking() -> None:
    task = PipelineTask(Pipeline([FakeTTSService()]), enable_turn_tracking=False)
    assert task.session_report() is None


async def test_the_breakdown_is_logged() -> None:
    bot = Bot(FakeTTSService(), [ANSWER], observers=[LatencyBreakdownLogObserver()])
    lines: list[Any] = []
    sink = logger.add(lambda message: lines.append(message.record))
    try:
        await bot.talk(locally, QUESTION, ("wait", 6.0))
    finally:
        logger.remove(sink)
    (turn,) = [line for line in lines if line["message"] == "latency of a turn"]
    assert turn["extra"]["stages"]["llm"] == pytest.approx(0.5, abs=0.05)
    assert any(line["message"] == "latency of all turns" for line in lines)
    assert not any("bot" in str(line["extra"].get("stages")) for line in lines)


async def test_stages_that_were_not_seen() -> None:
    turn = TurnRecord(1, 0.0)
    assert turn.stages == {}
    assert turn.latency_secs is None
    turn.speech_ended_secs, turn.bot_started_secs = 1.0, 3.0
    assert turn.stages == {"output": 2.0}
    turn.transcript_secs, turn.end_of_turn_secs = 1.5, 2.0  # it came before the decision
    assert turn.stages == {"end_of_turn": 1.0, "transcription": 0.0, "output": 1.0}
    await asyncio.sleep(0)
    assert summary([]) == {}
