"""Whole responses, sentences, and gates."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.frames.frames import (
    BotSpeakingFrame,
    Frame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    StartInterruptionFrame,
    TextFrame,
    TTSTextFrame,
)
from antiphon.processors.aggregators.gated import GatedAggregator
from antiphon.processors.aggregators.gated_openai_llm_context import GatedOpenAILLMContextAggregator
from antiphon.processors.aggregators.llm_response import LLMFullResponseAggregator
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.aggregators.sentence import SentenceAggregator
from antiphon.sync.event_notifier import EventNotifier
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

START = LLMFullResponseStartFrame
END = LLMFullResponseEndFrame


async def completions(frames: list[Frame]) -> list[tuple[str, bool]]:
    aggregator = LLMFullResponseAggregator()
    seen: list[tuple[str, bool]] = []

    @aggregator.event_handler("on_completion")
    async def on_completion(source: Any, text: str, completed: bool) -> None:
        assert source is aggregator
        seen.append((text, completed))

    sent = [type(frame) for frame in frames if not isinstance(frame, SleepFrame)]
    await run_test(aggregator, frames_to_send=frames, expected_down_frames=sent)
    return seen


async def test_each_response_is_reported() -> None:
    frames = [START(), LLMTextFrame("Hel"), LLMTextFrame("lo"), TTSTextFrame("x"), END()]
    assert await completions([*frames, LLMTextFrame("out"), START(), END()]) == [
        ("Hello", True),
        ("", True),
    ]


async def test_an_interrupted_response_is_reported_as_such() -> None:
    assert await completions(
        [
            START(),
            LLMTextFrame("Hel"),
            SleepFrame(),
            StartInterruptionFrame(),
            SleepFrame(),
            LLMTextFrame("lo"),
            START(),
            LLMTextFrame("New"),
            END(),
        ]
    ) == [("Hel", False), ("New", True)]


async def test_sentences() -> None:
    down, _ = await run_test(
        SentenceAggregator(),
        frames_to_send=[
            TextFrame("Hello, "),
            InterimTranscriptionFrame("x", "u", "now"),
            TextFrame("world."),
            BotSpeakingFrame(),
            SleepFrame(),
            TextFrame(" And "),
            TextFrame("then"),
        ],
        expected_down_frames=[TextFrame, BotSpeakingFrame, TextFrame],
    )
    assert [f.text for f in down if isinstance(f, TextFrame)] == ["Hello, world.", " And then"]


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_gate_lets_the_opening_frame_go_first(asynchronous: bool) -> None:
    async def is_start(frame: Frame) -> bool:
        return isinstance(frame, START)

    def opens(frame: Frame) -> Any:
        return is_start(frame) if asynchronous else isinstance(frame, START)

    await run_test(
        GatedAggregator(opens, lambda frame: isinstance(frame, END), start_open=False),
        frames_to_send=[
            TextFrame("held"),
            SleepFrame(),
            BotSpeakingFrame(),
            SleepFrame(),
            START(),
            LLMTextFrame("through"),
            END(),
            TTSTextFrame("held too"),
            START(),
        ],
        expected_down_frames=[
            *[BotSpeakingFrame, START, TextFrame, LLMTextFrame],
            *[START, END, TTSTextFrame],
        ],
    )


async def test_a_closed_gate_does_not_hold_up_the_end() -> None:
    gate = GatedAggregator(lambda frame: False, lambda frame: False, start_open=False)
    await run_test(gate, frames_to_send=[TextFrame("held")], expected_down_frames=[])


async def test_a_gate_for_conversations_keeps_the_latest() -> None:
    notifier = EventNotifier()
    gate = GatedOpenAILLMContextAggregator(notifier=notifier)
    first, second = (OpenAILLMContextFrame(OpenAILLMContext()) for _ in range(2))

    async def release() -> None:
        await asyncio.sleep(1)
        await notifier.notify()

    (down, _), _ = await asyncio.gather(
        run_test(
            gate,
            frames_to_send=[first, second, TextFrame("x"), SleepFrame(sleep=2), first],
            expected_down_frames=[TextFrame, OpenAILLMContextFrame],
        ),
        release(),
    )
    assert down[1] is second


async def test_a_gate_for_conversations_may_begin_open() -> None:
    gate = GatedOpenAILLMContextAggregator(notifier=EventNotifier(), start_open=True)
    first, second = (OpenAILLMContextFrame(OpenAILLMContext()) for _ in range(2))
    down, _ = await run_test(
        gate, frames_to_send=[first, second], expected_down_frames=[OpenAILLMContextFrame]
    )
    assert down == [first]
