"""The user's half: when a message is finished, and what happens to text nobody was heard to say."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from antiphon.audio.interruptions.base_interruption_strategy import BaseInterruptionStrategy
from antiphon.audio.turn.smart_turn.base_smart_turn import SmartTurnParams
from antiphon.audio.vad.vad_analyzer import VADParams
from antiphon.frames.frames import (
    BotInterruptionFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EmulateUserStartedSpeakingFrame,
    EmulateUserStoppedSpeakingFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    LLMMessagesAppendFrame,
    LLMMessagesFrame,
    LLMMessagesUpdateFrame,
    LLMSetToolChoiceFrame,
    LLMSetToolsFrame,
    SpeechControlParamsFrame,
    StartInterruptionFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.llm_response import (
    LLMUserAggregatorParams,
    LLMUserContextAggregator,
    LLMUserResponseAggregator,
)
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.aggregators.user_response import UserResponseAggregator
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

STARTED = UserStartedSpeakingFrame
STOPPED = UserStoppedSpeakingFrame
CONTEXT = OpenAILLMContextFrame
EMULATE_START = EmulateUserStartedSpeakingFrame
EMULATE_STOP = EmulateUserStoppedSpeakingFrame
# Longer than aggregation_timeout; system frames are sent after pauses so that they do not overtake.
QUIET = SleepFrame(sleep=0.6)
SHORT = SleepFrame(sleep=0.05)


def final(text: str) -> TranscriptionFrame:
    return TranscriptionFrame(text=text, user_id="u", timestamp="now")


def interim(text: str = "...") -> InterimTranscriptionFrame:
    return InterimTranscriptionFrame(text=text, user_id="u", timestamp="now")


def vad(stop_secs: float = 0.2, *, turn: bool = False) -> SpeechControlParamsFrame:
    return SpeechControlParamsFrame(
        vad_params=VADParams(stop_secs=stop_secs), turn_params=SmartTurnParams() if turn else None
    )


async def check(
    frames: list[Frame], *, down: list[type], up: list[type] | None = None, said: list[str]
) -> None:
    context = OpenAILLMContext()
    await run_test(
        LLMUserContextAggregator(context),
        frames_to_send=frames,
        expected_down_frames=down,
        expected_up_frames=up or [],
    )
    assert [message["content"] for message in context.messages] == said


async def test_text_before_the_stop_is_pushed_at_the_stop() -> None:
    await check(
        [STARTED(), final("Hello"), final("  "), final("there."), SHORT, STOPPED()],
        down=[STARTED, STOPPED, CONTEXT],
        said=["Hello there."],
    )


async def test_nothing_said_pushes_nothing() -> None:
    await check([STARTED(), SHORT, STOPPED(), QUIET], down=[STARTED, STOPPED], said=[])


async def test_text_after_the_stop_is_pushed_after_the_timeout() -> None:
    await check(
        [STARTED(), SHORT, STOPPED(), SHORT, final("one"), SHORT, final("two"), QUIET],
        down=[STARTED, STOPPED, CONTEXT],
        said=["one two"],
    )


async def test_an_interim_makes_the_stop_wait_for_the_final_text() -> None:
    await check(
        [STARTED(), interim(), SHORT, STOPPED(), QUIET, interim(), SHORT, final("Hello"), QUIET],
        down=[STARTED, STOPPED, CONTEXT],
        said=["Hello"],
    )


async def test_a_final_text_settles_the_interim() -> None:
    await check(
        [STARTED(), interim(), final("Hello"), SHORT, STOPPED()],
        down=[STARTED, STOPPED, CONTEXT],
        said=["Hello"],
    )


async def test_text_with_a_later_interim_waits_for_it_only_so_long() -> None:
    await check(
        [STARTED(), final("Hello"), interim(), SHORT, STOPPED(), QUIET],
        down=[STARTED, STOPPED, CONTEXT],
        said=["Hello"],
    )


async def test_nothing_is_pushed_while_the_user_speaks() -> None:
    await check(
        [STARTED(), final("Hello"), QUIET, QUIET, final("there"), QUIET, STOPPED()],
        down=[STARTED, STOPPED, CONTEXT],
        said=["Hello there"],
    )


async def test_an_interruption_keeps_what_was_said() -> None:
    await check(
        [
            STARTED(),
            final("Hello"),
            SHORT,
            StartInterruptionFrame(),
            SHORT,
            final("you"),
            SHORT,
            STOPPED(),
        ],
        down=[STARTED, StartInterruptionFrame, STOPPED, CONTEXT],
        said=["Hello you"],
    )


async def test_late_text_is_a_message_of_its_own() -> None:
    await check(
        [STARTED(), final("one"), SHORT, STOPPED(), SHORT, final("two"), SleepFrame(sleep=0.9)],
        down=[STARTED, STOPPED, CONTEXT, CONTEXT],
        up=[EMULATE_START, EMULATE_STOP],
        said=["one", "two"],
    )


@pytest.mark.parametrize(
    ("announced", "secs"),
    [([vad(0.2)], 0.2), ([vad(0.2, turn=True)], 0.8), ([], 0.8)],
    ids=["vad", "turn analyzer", "unknown"],
)
async def test_unheard_text_is_treated_as_speech(announced: list[Frame], secs: float) -> None:
    passed = [type(frame) for frame in announced]
    before, after = SleepFrame(sleep=secs - 0.05), SleepFrame(sleep=0.1)
    marker = TextFrame(text="marker")
    await check(
        [*announced, SHORT, final("Hello"), before, marker, after],
        down=[*passed, TextFrame, CONTEXT],
        up=[EMULATE_START, EMULATE_STOP],
        said=["Hello"],
    )


async def test_the_transports_answer_to_emulation_ends_the_message() -> None:
    await check(
        [
            vad(0.2),
            final("Hello"),
            SHORT,
            STARTED(emulated=True),
            SHORT,
            final("you"),
            QUIET,
            STOPPED(emulated=True),
            SHORT,
        ],
        down=[SpeechControlParamsFrame, STARTED, STOPPED, CONTEXT],
        up=[EMULATE_START, EMULATE_STOP],
        said=["Hello you"],
    )


async def test_real_speech_ends_emulation() -> None:
    await check(
        [vad(0.2), final("Hello"), SHORT, STARTED(), QUIET, final("you"), SHORT, STOPPED(), QUIET],
        down=[SpeechControlParamsFrame, STARTED, STOPPED, CONTEXT],
        up=[EMULATE_START],
        said=["Hello you"],
    )


async def test_unheard_text_while_the_bot_speaks_is_thrown_away() -> None:
    await check(
        [
            vad(0.2),
            BotStartedSpeakingFrame(),
            SHORT,
            final("hm"),
            QUIET,
            BotStoppedSpeakingFrame(),
            SHORT,
            final("Hello"),
            QUIET,
        ],
        down=[SpeechControlParamsFrame, BotStartedSpeakingFrame, BotStoppedSpeakingFrame, CONTEXT],
        up=[EMULATE_START, EMULATE_STOP],
        said=["Hello"],
    )


async def test_unheard_text_may_be_allowed_to_interrupt() -> None:
    context = OpenAILLMContext()
    await run_test(
        LLMUserContextAggregator(
            context, params=LLMUserAggregatorParams(enable_emulated_vad_interruptions=True)
        ),
        frames_to_send=[vad(0.2), BotStartedSpeakingFrame(), SHORT, final("stop"), QUIET],
        expected_down_frames=[SpeechControlParamsFrame, BotStartedSpeakingFrame, CONTEXT],
        expected_up_frames=[EMULATE_START, EMULATE_STOP],
    )
    assert context.messages == [{"role": "user", "content": "stop"}]


class Strategy(BaseInterruptionStrategy):
    def __init__(self, word: str) -> None:
        self.word = word
        self.texts: list[str] = []
        self.audio_bytes = 0
        self.resets = 0

    async def append_audio(self, audio: bytes, sample_rate: int) -> None:
        self.audio_bytes += len(audio)

    async def append_text(self, text: str) -> None:
        self.texts.append(text)

    async def should_interrupt(self) -> bool:
        return self.word in self.texts[-1]

    async def reset(self) -> None:
        self.resets += 1


class Capture(FrameProcessor):
    def __init__(self) -> None:
        super().__init__()
        self.up: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.UPSTREAM:
            self.up.append(frame)
        await self.push_frame(frame, direction)


async def run_with(
    strategies: list[BaseInterruptionStrategy], frames: list[Frame]
) -> tuple[OpenAILLMContext, list[Frame]]:
    context = OpenAILLMContext()
    capture = Capture()
    task = PipelineTask(
        Pipeline([capture, LLMUserContextAggregator(context)]),
        params=PipelineParams(interruption_strategies=strategies),
    )

    @task.event_handler("on_pipeline_started")
    async def on_started(task: PipelineTask, frame: Frame) -> None:
        import asyncio

        for frame in frames:
            if isinstance(frame, SleepFrame):
                await asyncio.sleep(frame.sleep)
            else:
                await task.queue_frame(frame)
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=False).run(task)
    return context, capture.up


async def test_strategies_decide_while_the_bot_speaks() -> None:
    yes, no = Strategy("stop"), Strategy("never")
    sound = InputAudioRawFrame(audio=bytes(320), sample_rate=16000, num_channels=1)

    context, up = await run_with(
        [no, yes],
        [
            BotStartedSpeakingFrame(),
            sound,
            SHORT,
            STARTED(),
            final("uh"),
            SHORT,
            STOPPED(),
            SHORT,
            STARTED(),
            final("please stop"),
            SHORT,
            STOPPED(),
            SHORT,
        ],
    )

    assert context.messages == [{"role": "user", "content": "please stop"}]
    assert [type(frame) for frame in up] == [BotInterruptionFrame]
    # Both are asked, and told to begin anew, each time.
    assert no.texts == yes.texts == ["uh", "please stop"]
    assert no.resets == yes.resets == 2
    assert yes.audio_bytes == 320


async def test_strategies_are_not_asked_while_the_bot_is_silent() -> None:
    strategy = Strategy("never")
    context, up = await run_with([strategy], [STARTED(), final("hello"), SHORT, STOPPED(), SHORT])
    assert context.messages == [{"role": "user", "content": "hello"}]
    assert up == []
    assert strategy.texts == []


async def test_context_frames_are_consumed_and_run_the_model_on_demand() -> None:
    messages: list[Any] = [{"role": "system", "content": "s"}]
    context = OpenAILLMContext(messages)
    await run_test(
        LLMUserContextAggregator(context),
        frames_to_send=[
            LLMMessagesAppendFrame([{"role": "user", "content": "a"}]),
            LLMMessagesAppendFrame([{"role": "user", "content": "b"}], run_llm=True),
            LLMMessagesUpdateFrame([{"role": "user", "content": "c"}], run_llm=True),
            LLMSetToolsFrame(tools=[{"type": "function"}]),
            LLMSetToolChoiceFrame(tool_choice="required"),
            TextFrame(text="passes"),
        ],
        expected_down_frames=[CONTEXT, CONTEXT, TextFrame],
        expected_up_frames=[],
    )
    assert messages == [{"role": "user", "content": "c"}]
    assert context.tools == [{"type": "function"}]
    assert context.tool_choice == "required"


async def test_the_context_frame_carries_the_shared_object() -> None:
    context = OpenAILLMContext()
    aggregator = LLMUserContextAggregator(context)
    down, _ = await run_test(
        aggregator,
        frames_to_send=[STARTED(), final("x"), SHORT, STOPPED()],
        expected_down_frames=[STARTED, STOPPED, CONTEXT],
    )
    frame = down[-1]
    assert isinstance(frame, OpenAILLMContextFrame)
    assert frame.context is context is aggregator.context
    assert aggregator.get_context_frame().context is context
    assert aggregator.messages is context.messages
    assert aggregator.role == "user"


async def test_the_older_aggregators_push_messages_and_text() -> None:
    messages: list[Any] = [{"role": "system", "content": "s"}]
    down, _ = await run_test(
        LLMUserResponseAggregator(messages),
        frames_to_send=[STARTED(), final("x"), SHORT, STOPPED()],
        expected_down_frames=[STARTED, STOPPED, LLMMessagesFrame],
    )
    assert isinstance(down[-1], LLMMessagesFrame)
    assert down[-1].messages is messages
    assert messages[-1] == {"role": "user", "content": "x"}

    down, _ = await run_test(
        UserResponseAggregator(),
        frames_to_send=[STARTED(), final(" x "), final("y"), SHORT, STOPPED()],
        expected_down_frames=[STARTED, STOPPED, TextFrame],
    )
    assert isinstance(down[-1], TextFrame)
    assert down[-1].text == "x  y"


def test_the_old_keyword_still_works() -> None:
    with pytest.warns(DeprecationWarning, match="LLMUserAggregatorParams"):
        aggregator = LLMUserContextAggregator(OpenAILLMContext(), aggregation_timeout=1.5)
    assert aggregator._params.aggregation_timeout == 1.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LLMUserContextAggregator(OpenAILLMContext())._params.aggregation_timeout == 0.5
