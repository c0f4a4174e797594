"""The rule-based stand-in for a language model."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from antiphon.errors import ConfigError
from antiphon.frames.frames import (
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    LLMUpdateSettingsFrame,
    MetricsFrame,
    StartInterruptionFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import MetricsData, ProcessingMetricsData, TTFBMetricsData
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.tests.utils import SleepFrame, run_test

START, END = LLMFullResponseStartFrame, LLMFullResponseEndFrame
CONVERSATION: list[Any] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi there."},
    {"role": "user", "content": "I need my tea!"},
]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture(scope="module")
def eliza() -> ElizaLLMService:
    return ElizaLLMService()


class Keep(FrameProcessor):
    """Keeps what a service pushes."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self.frames.append(frame)
        await self.push_frame(frame, direction)

    @property
    def text(self) -> str:
        return "".join(frame.text for frame in self.frames if isinstance(frame, LLMTextFrame))

    def count(self, kind: type[Frame]) -> int:
        return sum(isinstance(frame, kind) for frame in self.frames)


@pytest.mark.parametrize(
    "text", ["thank you very much goodbye", "Goodbye!", "OK, bye.", "well thanks, see you tomorrow"]
)
def test_it_returns_a_farewell(eliza: ElizaLLMService, text: str) -> None:
    assert eliza.reply_to([user(text)]).startswith("Goodbye.")


@pytest.mark.parametrize("text", ["thank you", "Thanks a lot!", "oh thank you for that"])
def test_it_answers_thanks(eliza: ElizaLLMService, text: str) -> None:
    assert eliza.reply_to([user(text)]).startswith(("You are welcome", "I am glad"))


@pytest.mark.parametrize("text", ["i never said goodbye to him", "he never thanked me"])
def test_words_of_courtesy_alone_make_no_courtesy(eliza: ElizaLLMService, text: str) -> None:
    assert "Goodbye." not in eliza.reply_to([user(text)])
    assert "You are welcome" not in eliza.reply_to([user(text)])


def test_it_turns_the_users_words_around(eliza: ElizaLLMService) -> None:
    reply = eliza.reply_to([user("I need my tea!")])
    assert "your tea" in reply
    assert "!" not in reply


def test_content_may_be_a_list_of_parts(eliza: ElizaLLMService) -> None:
    parts = [{"type": "text", "text": "I need my tea"}, {"type": "image_url", "image_url": {}}]
    assert "your tea" in eliza.reply_to([{"role": "user", "content": parts}])


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "x"}],
        [user("I am sad."), {"role": "system", "content": "Say hello."}],
        [user(" ... ")],
    ],
)
def test_it_greets_when_there_is_nothing_to_answer(
    eliza: ElizaLLMService, messages: list[Any]
) -> None:
    assert eliza.reply_to(messages).startswith(("Hello", "Hi"))


def test_every_text_gets_some_answer(eliza: ElizaLLMService) -> None:
    for text in ("quit", "%1", "?", "(", "Ja, genau", "I", "you are me", "x" * 5000, "(.*) child"):
        reply = eliza.reply_to([user(text)])
        assert reply.strip()
        assert "\n" not in reply


def test_it_does_not_repeat_itself_when_a_rule_has_other_answers(eliza: ElizaLLMService) -> None:
    for turn in range(20):
        said = eliza.reply_to([user("hm")] * (turn + 1))
        again = eliza.reply_to(
            [*[user("hm")] * turn, {"role": "assistant", "content": said}, user("hm")]
        )
        assert again != said


def test_each_sentence_is_answered_if_wanted() -> None:
    text = user("I need tea. I want cake! Are you hungry? I am done.")
    one = ElizaLLMService(max_sentences=1).reply_to([text])
    three = ElizaLLMService(max_sentences=3).reply_to([text])
    assert len(three) > len(one)
    assert "tea" in three
    assert "cake" in three
    assert "hungry" in three
    assert "done" not in three


def test_answers_are_the_same_in_every_process() -> None:
    service = ElizaLLMService(seed=7, max_sentences=2)
    here = [service.reply_to([user("I feel blue. My dog ran.")] * n) for n in range(1, 8)]
    program = (
        "import random; random.seed()\n"
        "from antiphon.services.eliza.llm import ElizaLLMService\n"
        "e = ElizaLLMService(seed=7, max_sentences=2)\n"
        "m = {'role': 'user', 'content': 'I feel blue. My dog ran.'}\n"
        "print([e.reply_to([m] * n) for n in range(1, 8)])"
    )
    there = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert there.stdout.strip() == repr(here)
    assert len(set(here)) > 1
    assert [ElizaLLMService(seed=8).reply_to([user("hm")] * n) for n in range(9)] != [
        ElizaLLMService(seed=9).reply_to([user("hm")] * n) for n in range(9)
    ]


@pytest.mark.parametrize("wrong", [{"token_delay_secs": -1}, {"max_sentences": 0}])
def test_parameters_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ElizaLLMService(**wrong)


@pytest.mark.virtual_time
async def test_the_answer_is_streamed_between_its_marks() -> None:
    service, keep = ElizaLLMService(), Keep()
    await run_test(
        Pipeline([service, keep]),
        frames_to_send=[OpenAILLMContextFrame(OpenAILLMContext(CONVERSATION))],
    )
    assert keep.text == service.reply_to(CONVERSATION)
    kinds = [type(frame) for frame in keep.frames[1:-1]]
    assert kinds[0] is START
    assert kinds[-1] is END
    assert kinds.count(LLMTextFrame) > 2


@pytest.mark.virtual_time
async def test_an_interruption_stops_the_answer() -> None:
    service, keep = ElizaLLMService(token_delay_secs=1.0), Keep()
    await run_test(
        Pipeline([service, keep]),
        frames_to_send=[
            OpenAILLMContextFrame(OpenAILLMContext(CONVERSATION)),
            SleepFrame(sleep=1.5),
            StartInterruptionFrame(),
            SleepFrame(sleep=60),
        ],
    )
    assert keep.count(LLMTextFrame) == 1
    names = [type(frame) for frame in keep.frames[1:-1]]
    assert sorted(name.__name__ for name in names if name is not LLMTextFrame) == sorted(
        [START.__name__, END.__name__, "StartInterruptionFrame"]
    )


@pytest.mark.virtual_time
async def test_settings_change_on_the_way_and_metrics_are_reported() -> None:
    service, keep = ElizaLLMService(), Keep()
    task = PipelineTask(
        Pipeline([service, keep]),
        params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
    )
    await task.queue_frames(
        [
            LLMUpdateSettingsFrame(settings={"token_delay_secs": 0.0, "nonsense": 1}),
            OpenAILLMContextFrame(OpenAILLMContext(CONVERSATION)),
        ]
    )
    await task.stop_when_done()
    await PipelineRunner(handle_sigint=False).run(task)

    assert keep.count(LLMUpdateSettingsFrame) == 0
    data: list[MetricsData] = []
    for frame in keep.frames:
        if isinstance(frame, MetricsFrame):
            data.extend(frame.data)
    kinds = {type(item) for item in data if item.processor == service.name and item.model}
    assert kinds >= {TTFBMetricsData, ProcessingMetricsData}


@pytest.mark.virtual_time
async def test_a_whole_turn_through_its_aggregators() -> None:
    messages: list[Any] = [{"role": "system", "content": "Be kind."}]
    context = OpenAILLMContext(messages)
    service = ElizaLLMService()
    pair = service.create_context_aggregator(context)
    await run_test(
        Pipeline([pair.user(), service, Spoken(), pair.assistant()]),
        frames_to_send=[
            UserStartedSpeakingFrame(),
            TranscriptionFrame("I need my tea", "u", "now"),
            SleepFrame(),
            UserStoppedSpeakingFrame(),
            SleepFrame(sleep=2),
        ],
    )
    assert messages[1] == user("I need my tea")
    assert messages[2] == {"role": "assistant", "content": service.reply_to(messages[:2])}
    assert context.get_llm_adapter() is service.get_llm_adapter()


class Spoken(FrameProcessor):
    """Strips the words as a speech service does."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMTextFrame):
            frame.text = frame.text.strip()
        await self.push_frame(frame, direction)
