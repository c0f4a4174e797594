import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    StartInterruptionFrame,
    TextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSUpdateSettingsFrame,
)
from antiphon.services.tts_service import (
    AudioContextWordTTSService,
    InterruptibleTTSService,
    TTSService,
    WordTTSService,
)
from antiphon.tests.utils import SleepFrame
from antiphon.transcriptions.language import Language
from antiphon.utils.text.base_text_filter import BaseTextFilter

Run = Callable[..., Awaitable[tuple[list[Frame], list[Frame]]]]

PIECE = b"\1\0" * 80


def shown(frames: list[Frame]) -> list[str]:
    """Class names, and the text of those that have one."""
    return [
        f"{type(f).__name__.removesuffix('Frame')}"
        + (f" {f.text!r}" if isinstance(f, TextFrame) else "")
        for f in frames
    ]


class Voice(TTSService):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spoken: list[str] = []
        self._settings = {"language": None, "speed": 1}

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        self.spoken.append(text)
        yield TTSStartedFrame()
        yield TTSAudioRawFrame(PIECE, self.sample_rate, 1)
        if "bad" in text:
            yield ErrorFrame("no voice")
        yield None
        if not self._push_stop_frames:
            yield TTSStoppedFrame()


SPEECH = ["TTSStarted", "TTSAudioRaw", "TTSStopped"]


class Upper(BaseTextFilter):
    def __init__(self) -> None:
        self.events: list[str] = []

    async def update_settings(self, settings: Mapping[str, Any]) -> None:
        self.events.append(f"settings {dict(settings)}")

    async def filter(self, text: str) -> str:
        return "" if "secret" in text else text.upper()

    async def handle_interruption(self) -> None:
        self.events.append("interrupted")

    async def reset_interruption(self) -> None:
        self.events.append("reset")


async def test_tokens_are_spoken_by_the_sentence(run: Run) -> None:
    tokens = [TextFrame(t) for t in ("Good", " day", ". How", " are", " you")]
    down, _ = await run(Voice(), *tokens, LLMFullResponseEndFrame(), TextFrame("Rest"))
    assert shown(down) == [
        *SPEECH,
        "TTSText 'Good day.'",
        *SPEECH,
        "TTSText ' How are you'",
        "LLMFullResponseEnd",
        *SPEECH,
        "TTSText 'Rest'",
        "End",
    ]


async def test_text_can_be_spoken_as_it_comes(run: Run) -> None:
    service = Voice(aggregate_sentences=False)
    await run(service, TextFrame("Good"), TextFrame(" \n"), TextFrame("\nday"))
    assert service.spoken == ["Good", "day"]


async def test_a_service_that_times_words_keeps_the_end_of_the_answer(run: Run) -> None:
    service = Voice(push_text_frames=False)
    down, _ = await run(
        service, LLMFullResponseStartFrame(), LLMTextFrame("Hi"), LLMFullResponseEndFrame()
    )
    assert shown(down) == ["LLMFullResponseStart", *SPEECH, "End"]


async def test_transcriptions_are_not_spoken(run: Run) -> None:
    service = Voice()
    down, _ = await run(
        service, TranscriptionFrame("a.", "", ""), InterimTranscriptionFrame("a.", "", "")
    )
    assert shown(down) == ["Transcription 'a.'", "InterimTranscription 'a.'", "End"]
    assert service.spoken == []


async def test_speak_frames_go_first_and_leave_the_sentence_in_progress(run: Run) -> None:
    service = Voice()
    await run(service, TextFrame("Half "), TTSSpeakFrame("Now. Then"), TextFrame("done."))
    assert service.spoken == ["Now. Then", "Half done."]


async def test_an_error_goes_up_and_the_rest_follows(run: Run) -> None:
    down, up = await run(Voice(), TextFrame("bad."))
    assert shown(down) == [*SPEECH, "TTSText 'bad.'", "End"]
    assert [f.error for f in up if isinstance(f, ErrorFrame)] == ["no voice"]


async def test_an_interruption_forgets_the_sentence_in_progress(run: Run) -> None:
    upper = Upper()
    service = Voice(text_filters=[upper])
    await run(
        service,
        TextFrame("Half "),
        SleepFrame(),
        StartInterruptionFrame(),
        SleepFrame(),
        TextFrame("done."),
    )
    assert service.spoken == ["DONE."]
    assert upper.events == ["interrupted", "reset"]


async def test_filters_change_and_silence_text(run: Run) -> None:
    service = Voice(text_filters=[Upper()])
    down, _ = await run(service, TextFrame("a secret."), TextFrame("b."))
    assert service.spoken == ["B."]
    assert shown(down)[-2:] == ["TTSText 'B.'", "End"]


async def test_a_single_filter_is_deprecated(run: Run) -> None:
    with pytest.warns(DeprecationWarning, match="text_filters"):
        service = Voice(text_filter=Upper())
    await run(service, TextFrame("a."))
    assert service.spoken == ["A."]


async def test_silence_before_the_stop_and_the_destination(run: Run) -> None:
    service = Voice(push_silence_after_stop=True, silence_time_s=0.5, transport_destination="left")
    down, _ = await run(service, TextFrame("a."))
    assert shown(down)[:4] == ["TTSStarted", "TTSAudioRaw", "TTSAudioRaw", "TTSStopped"]
    assert isinstance(down[2], TTSAudioRawFrame)
    assert down[2].audio == bytes(16000)
    assert {frame.transport_destination for frame in down[:5]} == {"left"}
    assert service.chunk_size == 16000


async def test_a_stop_frame_comes_when_audio_stays_away(run: Run) -> None:
    service = Voice(push_stop_frames=True, stop_frame_timeout_s=0.02)
    down, _ = await run(service, TextFrame("One."), SleepFrame(0.06), TextFrame("Two."))
    assert shown(down) == [
        "TTSStarted",
        "TTSAudioRaw",
        "TTSText 'One.'",
        "TTSStopped",
        "TTSStarted",
        "TTSAudioRaw",
        "TTSText 'Two.'",
        "End",
    ]


async def test_settings(run: Run) -> None:
    upper = Upper()
    service = Voice(text_filters=[upper])
    down, _ = await run(
        service,
        TTSUpdateSettingsFrame(voice="ann", language=Language.DE, speed=2, model="m"),
        TTSUpdateSettingsFrame({"voice_id": "bob", "text_filter": {"on": True}}),
    )
    assert shown(down) == ["End"]
    assert service._voice_id == "bob"
    assert service.model_name == "m"
    assert service._settings == {"language": "de", "speed": 2}
    assert upper.events == ["settings {'on': True}"]


async def test_later_frames_wait_until_the_bot_has_spoken(run: Run) -> None:
    service = Voice(pause_frame_processing=True)
    down, _ = await run(
        service,
        TextFrame("One"),
        LLMFullResponseEndFrame(),
        TextFrame("Two."),
        TextFrame("Three."),
        SleepFrame(0.05),
        BotStoppedSpeakingFrame(),
        SleepFrame(0.05),
        BotStoppedSpeakingFrame(),
    )
    order = shown(down)
    assert order.index("BotStoppedSpeaking") < order.index("TTSText 'Three.'")


async def test_say_speaks(run: Run) -> None:
    service = Voice()

    async def say() -> None:
        await asyncio.sleep(0.04)
        await service.say("Hi")

    saying = asyncio.create_task(say())
    await run(service, SleepFrame(0.1))
    await saying
    assert service.spoken == ["Hi"]


class Words(WordTTSService):
    def __init__(self) -> None:
        super().__init__(push_text_frames=False)

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        yield TTSStartedFrame()
        yield TTSAudioRawFrame(PIECE, self.sample_rate, 1)
        self.start_word_timestamps()
        times = [(word, 0.5 * i) for i, word in enumerate(text.split(), 1)]
        await self.add_word_timestamps([*times, ("TTSStoppedFrame", 0)])

    async def flush_audio(self) -> None:
        await self.add_word_timestamps([("Reset", 0)])


async def test_words_carry_their_times_and_end_the_answer(run: Run) -> None:
    down, _ = await run(
        Words(), LLMFullResponseStartFrame(), LLMTextFrame("Good day"), LLMFullResponseEndFrame()
    )
    assert shown(down) == [
        "LLMFullResponseStart",
        "TTSStarted",
        "TTSAudioRaw",
        "TTSText 'Good'",
        "TTSText 'day'",
        "TTSStopped",
        "LLMFullResponseEnd",
        "End",
    ]
    good, day, stopped, end = (frame.pts for frame in down[3:7])
    assert good is not None
    assert day is not None
    assert day - good == 500_000_000
    assert stopped == end == day


class Socketless:
    """The verbs of a connection, counted."""

    connects: list[str]

    async def _connect(self) -> None:
        self.connects.append("connect")

    async def _disconnect(self) -> None:
        self.connects.append("disconnect")

    async def _connect_websocket(self) -> None: ...

    async def _disconnect_websocket(self) -> None: ...

    async def _receive_messages(self) -> None: ...


class Contexts(Socketless, AudioContextWordTTSService):
    def __init__(self) -> None:
        self.connects = []
        self.both = asyncio.Event()
        super().__init__(push_text_frames=False)

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        await self.create_audio_context(text)
        if len(self._contexts) == 2:
            self.both.set()
        yield None


async def test_contexts_play_in_order_however_their_audio_arrives(run: Run) -> None:
    service = Contexts()

    async def vendor() -> None:
        await service.both.wait()
        for name, byte in (("two.", b"\2"), ("one.", b"\1"), ("gone", b"\3")):
            await service.append_to_audio_context(name, TTSAudioRawFrame(byte * 2, 16000, 1))
            await service.remove_audio_context(name)

    sending = asyncio.create_task(vendor())
    down, _ = await run(service, TextFrame("one."), TextFrame("two."), SleepFrame(0.05))
    await sending
    pieces = [frame.audio for frame in down if isinstance(frame, TTSAudioRawFrame)]
    assert pieces == [b"\1\1", bytes(16000), b"\2\2", bytes(16000)]
    assert isinstance(down[-1], EndFrame)


async def test_an_interruption_drops_the_contexts(run: Run) -> None:
    service = Contexts()
    await run(
        service, TextFrame("one."), SleepFrame(0.02), StartInterruptionFrame(), SleepFrame(0.02)
    )
    assert not service.audio_context_available("one.")


class Reconnecting(Socketless, InterruptibleTTSService):
    def __init__(self) -> None:
        self.connects = []
        super().__init__()

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        yield None


async def test_interrupting_a_speaking_bot_connects_again(run: Run) -> None:
    service = Reconnecting()
    await run(
        service,
        StartInterruptionFrame(),
        SleepFrame(0.02),
        BotStartedSpeakingFrame(),
        SleepFrame(0.02),
        StartInterruptionFrame(),
    )
    assert service.connects == ["disconnect", "connect"]
