"""What was said, by whom and when."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.frames.frames import (
    BotStoppedSpeakingFrame,
    CancelFrame,
    Frame,
    StartInterruptionFrame,
    TextFrame,
    TranscriptionFrame,
    TranscriptionUpdateFrame,
    TTSTextFrame,
)
from antiphon.processors.transcript_processor import (
    AssistantTranscriptProcessor,
    TranscriptProcessor,
    UserTranscriptProcessor,
)
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

UPDATE = TranscriptionUpdateFrame


def spoken(*parts: str) -> list[Frame]:
    return [TTSTextFrame(part) for part in parts]


async def contents(frames: list[Frame], *, send_end_frame: bool = True) -> list[str]:
    processor = AssistantTranscriptProcessor()
    found: list[str] = []

    @processor.event_handler("on_transcript_update")
    async def on_transcript_update(source: Any, update: TranscriptionUpdateFrame) -> None:
        assert source is processor
        for message in update.messages:
            assert message.role == "assistant"
            assert message.timestamp
            found.append(message.content)

    await run_test(processor, frames_to_send=frames, send_end_frame=send_end_frame)
    return found


async def test_each_user_transcription_is_a_message() -> None:
    down, _ = await run_test(
        UserTranscriptProcessor(),
        frames_to_send=[TranscriptionFrame("hi", "ann", "10:00"), TextFrame("no")],
        expected_down_frames=[UPDATE, TranscriptionFrame, TextFrame],
    )
    assert isinstance(down[0], TranscriptionUpdateFrame)
    (message,) = down[0].messages
    assert (message.role, message.content, message.user_id, message.timestamp) == (
        "user",
        "hi",
        "ann",
        "10:00",
    )


async def test_what_the_bot_said_is_a_message_when_it_stops() -> None:
    frames = [*spoken("Hello", "world."), SleepFrame(), BotStoppedSpeakingFrame(), SleepFrame()]
    assert await contents([*frames, *frames]) == ["Hello world.", "Hello world."]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("Hello ", "wor", "ld"), "Hello world"),
        (("Hello", " wor", "ld "), "Hello world"),
        (("", " "), None),
        (("It", "is", "9", "o'clock"), "It is 9 o'clock"),
    ],
)
async def test_parts_bring_their_own_spaces_or_get_some(
    parts: tuple[str, ...], expected: str | None
) -> None:
    frames = [*spoken(*parts), SleepFrame(), BotStoppedSpeakingFrame()]
    assert await contents(frames) == ([expected] if expected else [])


async def test_the_update_follows_the_frame_that_ends_the_utterance() -> None:
    await run_test(
        AssistantTranscriptProcessor(),
        frames_to_send=[*spoken("a"), SleepFrame(), BotStoppedSpeakingFrame()],
        expected_down_frames=[TTSTextFrame, BotStoppedSpeakingFrame, UPDATE],
    )


async def test_an_interruption_completes_the_message() -> None:
    processor = AssistantTranscriptProcessor()
    await run_test(
        processor,
        frames_to_send=[*spoken("Hel"), SleepFrame(), StartInterruptionFrame(), SleepFrame()],
        expected_down_frames=[TTSTextFrame, StartInterruptionFrame, UPDATE],
    )


async def test_the_end_completes_the_message() -> None:
    processor = AssistantTranscriptProcessor()
    await run_test(
        processor, frames_to_send=spoken("Bye"), expected_down_frames=[TTSTextFrame, UPDATE]
    )
    cancelled = [*spoken("Bye"), SleepFrame(), CancelFrame()]
    assert await contents(cancelled, send_end_frame=False) == ["Bye"]


async def test_the_factory_makes_each_once_with_handlers_for_both() -> None:
    transcript = TranscriptProcessor()
    user = transcript.user(name="first")
    found: list[str] = []

    @transcript.event_handler("on_transcript_update")
    async def on_transcript_update(processor: Any, frame: TranscriptionUpdateFrame) -> None:
        found.extend(f"{processor.name}: {message.content}" for message in frame.messages)

    assistant = transcript.assistant(name="second")
    assert (transcript.user(), transcript.assistant()) == (user, assistant)
    await run_test(user, frames_to_send=[TranscriptionFrame("hi", "u", "t")])
    await run_test(assistant, frames_to_send=spoken("hello"))
    assert found == ["first: hi", "second: hello"]
