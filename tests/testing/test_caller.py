"""A caller of a test talks to a bot."""

from __future__ import annotations

import time
from typing import Any

import pytest

from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.testing import (
    FakeDelay,
    FakeLLMService,
    FakeSTTService,
    FakeToolCall,
    FakeTransport,
    FakeTTSService,
    FakeVADAnalyzer,
    call,
)
from antiphon.testing.virtual_time import VirtualClock
from antiphon.transports.base_transport import TransportParams

pytestmark = pytest.mark.virtual_time


class Bot:
    def __init__(self, *answers: Any, **stt: Any) -> None:
        self.transport = FakeTransport(
            TransportParams(
                audio_in_enabled=True, audio_out_enabled=True, vad_analyzer=FakeVADAnalyzer()
            )
        )
        self.stt = FakeSTTService(**stt)
        self.llm = FakeLLMService(answers)
        aggregator = self.llm.create_context_aggregator(OpenAILLMContext())
        self.task = PipelineTask(
            Pipeline(
                [
                    self.transport.input(),
                    self.stt,
                    aggregator.user(),
                    self.llm,
                    FakeTTSService(),
                    self.transport.output(),
                    aggregator.assistant(),
                ]
            ),
            clock=VirtualClock(),
        )


async def test_a_conversation_of_half_a_minute_takes_no_time() -> None:
    bot = Bot("I am a bot. I live in a test.", [FakeToolCall("clock", {})], "It is noon.")

    async def clock(params: Any) -> None:
        await params.result_callback({"time": "12:00"})

    bot.llm.register_function("clock", clock)
    began = time.perf_counter()
    async with call(bot.task, bot.transport, bot.stt) as caller:
        await caller.say("Who are you, and where do you live, if I may ask?")
        assert await caller.hear("bot", within_secs=3.0) == "I am a bot. I live in a test."
        await caller.wait(20.0)
        await caller.say("What time is it?")
        assert await caller.hear() == "It is noon."
    assert bot.task.has_finished()
    assert time.perf_counter() - began < 20.0
    caller.expect_tool_calls("clock")
    caller.expect_interruptions(0)
    caller.expect_latency(2.0)
    assert caller.report.duration_secs > 25.0
    assert caller.transcript == [
        ("user", "Who are you, and where do you live, if I may ask?"),
        ("assistant", "I am a bot. I live in a test."),
        ("user", "What time is it?"),
        ("assistant", "It is noon."),
    ]


async def test_a_caller_interrupts() -> None:
    bot = Bot("This is going to be a very long answer that nobody wants to hear.", "Fine.")
    async with call(bot.task, bot.transport, bot.stt) as caller:
        await caller.say("Tell me.")
        await caller.wait_for_bot()
        await caller.say("Stop!")
        assert await caller.hear() == "Fine."
    caller.expect_interruptions(1)
    assert caller.turns[0].bot_text.startswith("This is")
    assert not caller.turns[0].bot_text.endswith("hear.")


async def test_what_is_not_as_expected() -> None:
    bot = Bot([FakeDelay(5.0), "Late."], "No.", latency_secs=0.5)
    async with call(bot.task, bot.transport, bot.stt) as caller:
        with pytest.raises(AssertionError, match="does not speak within"):
            await caller.wait_for_bot(within_secs=1.0)
        await caller.say("Hello?")
        with pytest.raises(AssertionError, match="does not answer within"):
            await caller.hear(within_secs=2.0)
        assert await caller.hear() == "Late."
        await caller.say("Yes?")
        with pytest.raises(AssertionError, match=r"'No\.'"):
            await caller.hear("yes")
    with pytest.raises(AssertionError, match="turn 1 took"):
        caller.expect_latency(3.0)
    with pytest.raises(AssertionError, match="called"):
        caller.expect_tool_calls("clock")
    with pytest.raises(AssertionError, match="0 times"):
        caller.expect_interruptions(1)


async def test_recognition_takes_its_time() -> None:
    bot = Bot("Yes.", latency_secs=0.7)
    async with call(bot.task, bot.transport, bot.stt) as caller:
        await caller.say("Hello?")
        await caller.hear()
    assert caller.turns[0].stages["transcription"] == pytest.approx(0.7, abs=0.05)


async def test_a_test_that_fails_in_a_call_hangs_up() -> None:
    bot = Bot("Yes.")

    async def fail() -> None:
        async with call(bot.task, bot.transport, bot.stt) as caller:
            await caller.wait(1.0)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert bot.task.has_finished()
