import asyncio
import io
import wave
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from antiphon.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    StartInterruptionFrame,
    STTMuteFrame,
    STTUpdateSettingsFrame,
    TextFrame,
    TranscriptionFrame,
    UserAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.services.stt_service import SegmentedSTTService, STTService
from antiphon.tests.utils import SleepFrame
from antiphon.transcriptions.language import Language

Run = Callable[..., Awaitable[tuple[list[Frame], list[Frame]]]]


def audio(samples: int) -> InputAudioRawFrame:
    return InputAudioRawFrame(b"\1\0" * samples, 16000, 1)


class Counter(STTService):
    language = ""

    async def set_language(self, language: Language) -> None:
        self.language = language

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        yield TranscriptionFrame(str(len(audio) // 2), self._user_id, "")


class Segments(SegmentedSTTService):
    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.seen: list[int] = []

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        await self.go_on.wait()
        with wave.open(io.BytesIO(audio)) as wav:
            assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (16000, 1, 2)
            self.seen.append(wav.getnframes())
        if self.seen[-1] == 13:
            raise RuntimeError("thirteen")
        yield TranscriptionFrame(str(self.seen[-1]), self._user_id, "")


def names(frames: list[Frame]) -> list[str]:
    return [type(frame).__name__.removesuffix("Frame") for frame in frames]


async def test_audio_passes_and_is_recognised(run: Run) -> None:
    down, _ = await run(Counter(), UserAudioRawFrame(b"\0\0", 16000, 1, "ann"), TextFrame("x"))
    assert sorted(names(down)) == ["End", "Text", "Transcription", "UserAudioRaw"]
    (heard,) = [frame for frame in down if isinstance(frame, TranscriptionFrame)]
    assert (heard.text, heard.user_id) == ("1", "ann")


async def test_audio_need_not_pass(run: Run) -> None:
    down, _ = await run(Counter(audio_passthrough=False), audio(3))
    assert names(down) == ["Transcription", "End"]


async def test_muted_audio_passes_unheard_and_muting_is_consumed(run: Run) -> None:
    service = Counter()
    down, _ = await run(service, STTMuteFrame(True), audio(3), STTMuteFrame(False), audio(4))
    assert [f.text for f in down if isinstance(f, TranscriptionFrame)] == ["4"]
    assert names(down).count("InputAudioRaw") == 2
    assert "STTMute" not in names(down)
    assert not service.is_muted


async def test_settings_reach_the_service_and_go_no_further(run: Run) -> None:
    service = Counter()
    down, _ = await run(service, STTUpdateSettingsFrame(language=Language.DE, model="big"))
    assert names(down) == ["End"]
    assert (service.language, service.model_name, service.sample_rate) == ("de", "big", 16000)


async def test_a_segment_begins_a_second_before_the_speech(run: Run) -> None:
    service = Segments()
    down, _ = await run(
        service,
        audio(9000),
        audio(9000),
        UserStartedSpeakingFrame(),
        audio(20000),
        UserStoppedSpeakingFrame(),
        UserStartedSpeakingFrame(),
        audio(5),
        UserStoppedSpeakingFrame(),
    )
    assert service.seen == [36000, 5]
    assert names(down)[-1] == "End"


async def test_emulated_speech_and_muted_speech_make_no_segment(run: Run) -> None:
    service = Segments()
    await run(
        service,
        UserStartedSpeakingFrame(emulated=True),
        audio(5),
        UserStoppedSpeakingFrame(emulated=True),
        STTMuteFrame(True),
        UserStartedSpeakingFrame(),
        audio(6),
        UserStoppedSpeakingFrame(),
    )
    assert service.seen == []


async def test_system_frames_pass_a_segment_at_work_and_others_wait(run: Run) -> None:
    service = Segments()
    service.go_on.clear()

    async def go_on_later() -> None:
        await asyncio.sleep(0.05)
        service.go_on.set()

    later = asyncio.create_task(go_on_later())
    down, _ = await run(
        service,
        UserStartedSpeakingFrame(),
        audio(5),
        UserStoppedSpeakingFrame(),
        StartInterruptionFrame(),
        TextFrame("after"),
    )
    await later
    order = names(down)
    assert order.index("StartInterruption") < order.index("Transcription") < order.index("Text")
    assert order[-1] == "End"


async def test_a_segment_that_fails_is_reported_and_the_next_is_heard(run: Run) -> None:
    service = Segments()
    down, up = await run(
        service,
        audio(13),
        UserStoppedSpeakingFrame(),
        audio(5),
        UserStoppedSpeakingFrame(),
        SleepFrame(),
    )
    assert [f.error for f in up if isinstance(f, ErrorFrame)] == ["thirteen"]
    assert [f.text for f in down if isinstance(f, TranscriptionFrame)] == ["5"]
    assert isinstance(down[-1], EndFrame)


@pytest.mark.parametrize("language", ["en", "mymr", "ia"])
def test_languages_are_strings(language: str) -> None:
    assert Language(language) == language
