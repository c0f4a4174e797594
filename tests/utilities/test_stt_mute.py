"""When the user is not listened to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from antiphon.frames.frames import (
    BotSpeakingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    StartInterruptionFrame,
    StopInterruptionFrame,
    STTMuteFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
)
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.processors.filters.stt_mute_filter import (
    STTMuteConfig,
    STTMuteFilter,
    STTMuteStrategy,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

BOT_ON, BOT_OFF = BotStartedSpeakingFrame, BotStoppedSpeakingFrame
USER_ON, USER_OFF = UserStartedSpeakingFrame, UserStoppedSpeakingFrame
MUTE = STTMuteFrame


def make(*strategies: STTMuteStrategy) -> STTMuteFilter:
    return STTMuteFilter(config=STTMuteConfig(strategies=set(strategies)))


async def names(
    processor: STTMuteFilter, frames: Sequence[Frame], *, ignore_start: bool = True
) -> list[str]:
    """What comes out downstream, mute frames with their value; all frames are system frames."""
    down: list[str] = []
    sent: list[Frame] = []
    for frame in frames:
        sent += [frame, SleepFrame(0.01)]

    class Watch(BaseObserver):
        async def on_push_frame(self, data: FramePushed) -> None:
            if data.source is not processor or data.direction is not FrameDirection.DOWNSTREAM:
                return
            frame = data.frame
            value = f"({frame.mute})" if isinstance(frame, STTMuteFrame) else ""
            down.append(type(frame).__name__.removesuffix("Frame") + value)

    await run_test(processor, frames_to_send=sent, observers=[Watch()])
    return [name for name in down if name != "End" and not (ignore_start and name == "Start")]


async def test_first_speech_mutes_once() -> None:
    processor = make(STTMuteStrategy.FIRST_SPEECH)
    assert await names(
        processor, [USER_ON(), BOT_ON(), USER_ON(), BOT_OFF(), BOT_ON(), USER_OFF(), BOT_OFF()]
    ) == [
        "UserStartedSpeaking",
        "BotStartedSpeaking",
        "STTMute(True)",
        "BotStoppedSpeaking",
        "STTMute(False)",
        "BotStartedSpeaking",
        "UserStoppedSpeaking",
        "BotStoppedSpeaking",
    ]


async def test_muted_from_the_start_until_the_bot_has_spoken() -> None:
    processor = make(STTMuteStrategy.MUTE_UNTIL_FIRST_BOT_COMPLETE)
    assert await names(
        processor, [USER_ON(), BOT_ON(), USER_OFF(), BOT_OFF(), USER_ON()], ignore_start=False
    ) == [
        "Start",
        "STTMute(True)",
        "BotStartedSpeaking",
        "BotStoppedSpeaking",
        "STTMute(False)",
        "UserStartedSpeaking",
    ]


async def test_always_mutes_each_time() -> None:
    processor = make(STTMuteStrategy.ALWAYS)
    assert await names(processor, [BOT_ON(), USER_ON(), BOT_OFF(), BOT_ON(), BOT_OFF()]) == [
        *("BotStartedSpeaking", "STTMute(True)", "BotStoppedSpeaking", "STTMute(False)"),
        *("BotStartedSpeaking", "STTMute(True)", "BotStoppedSpeaking", "STTMute(False)"),
    ]


async def test_what_is_suppressed_and_what_is_not() -> None:
    processor = make(STTMuteStrategy.ALWAYS)
    await run_test(
        processor,
        frames_to_send=[
            BOT_ON(),
            SleepFrame(),
            USER_ON(),
            USER_OFF(),
            StartInterruptionFrame(),
            StopInterruptionFrame(),
            InputAudioRawFrame(b"\0\0", 16000, 1),
            TranscriptionFrame("a", "u", "t"),
            InterimTranscriptionFrame("a", "u", "t"),
            VADUserStartedSpeakingFrame(),
        ],
        expected_down_frames=[BOT_ON, MUTE, VADUserStartedSpeakingFrame],
        expected_up_frames=[MUTE],
    )


def call(number: str, *, cancel_on_interruption: bool = False) -> FunctionCallInProgressFrame:
    return FunctionCallInProgressFrame("f", number, {}, cancel_on_interruption)


def result(number: str) -> FunctionCallResultFrame:
    return FunctionCallResultFrame("f", number, {}, 1)


async def test_function_calls_mute_until_the_last_has_ended() -> None:
    processor = make(STTMuteStrategy.FUNCTION_CALL)
    frames: list[Frame] = [call("1"), call("2"), USER_ON(), result("1"), USER_OFF()]
    frames += [FunctionCallCancelFrame("f", "2"), USER_ON()]
    assert await names(processor, frames) == [
        "FunctionCallInProgress",
        "STTMute(True)",
        "FunctionCallInProgress",
        "FunctionCallResult",
        "FunctionCallCancel",
        "STTMute(False)",
        "UserStartedSpeaking",
    ]


async def test_custom_is_asked_only_while_the_bot_speaks() -> None:
    asked: list[bool] = []

    async def should_mute(processor: STTMuteFilter) -> bool:
        asked.append(processor._bot_is_speaking)
        return True

    config = STTMuteConfig(strategies={STTMuteStrategy.CUSTOM}, should_mute_callback=should_mute)
    processor = STTMuteFilter(config=config)
    assert not processor.is_muted
    assert await names(
        processor, [call("1"), BOT_ON(), BotSpeakingFrame(), USER_ON(), BOT_OFF(), USER_ON()]
    ) == [
        "FunctionCallInProgress",
        "BotStartedSpeaking",
        "STTMute(True)",
        "BotSpeaking",
        "BotStoppedSpeaking",
        "STTMute(False)",
        "UserStartedSpeaking",
    ]
    assert asked == [True]


async def test_strategies_combine() -> None:
    processor = make(STTMuteStrategy.ALWAYS, STTMuteStrategy.FUNCTION_CALL)
    frames: list[Frame] = [BOT_ON(), call("1"), BOT_OFF(), USER_ON(), result("1"), USER_ON()]
    assert await names(processor, frames) == [
        "BotStartedSpeaking",
        "STTMute(True)",
        "FunctionCallInProgress",
        "BotStoppedSpeaking",
        "FunctionCallResult",
        "STTMute(False)",
        "UserStartedSpeaking",
    ]


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="use one of them"):
        STTMuteConfig(
            strategies={
                STTMuteStrategy.FIRST_SPEECH,
                STTMuteStrategy.MUTE_UNTIL_FIRST_BOT_COMPLETE,
            }
        )
    with pytest.raises(ValueError, match="should_mute_callback"):
        STTMuteConfig(strategies={STTMuteStrategy.CUSTOM})


def test_stt_service_is_accepted_and_deprecated() -> None:
    config = STTMuteConfig(strategies={STTMuteStrategy.ALWAYS})
    with pytest.warns(DeprecationWarning, match="stt_service"):
        STTMuteFilter(config=config, stt_service=object())
