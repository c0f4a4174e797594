import asyncio
import json
import threading
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from antiphon.audio.utils import create_file_resampler
from antiphon.errors import ConfigError, OverloadedError
from antiphon.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    MetricsFrame,
    StartInterruptionFrame,
    TextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSUpdateSettingsFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import ProcessingMetricsData, TTFBMetricsData, TTSUsageMetricsData
from antiphon.services.espeak._engine import Request, Word, engine
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.pocketsphinx._decoder import shared_decoder
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.tests.utils import SleepFrame
from antiphon.transcriptions.language import Language

Run = Callable[..., Awaitable[tuple[list[Frame], list[Frame]]]]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def spoken(frames: list[Frame]) -> bytes:
    return b"".join(frame.audio for frame in frames if isinstance(frame, TTSAudioRawFrame))


def heard(frames: list[Frame]) -> list[str]:
    return [frame.text for frame in frames if isinstance(frame, TranscriptionFrame)]


def segment(audio: bytes, rate: int = 16000) -> list[Frame]:
    """A user who says this, in pieces of 20 ms."""
    size = rate // 50 * 2
    pieces = [audio[i : i + size] for i in range(0, len(audio), size)]
    return [
        UserStartedSpeakingFrame(),
        *(InputAudioRawFrame(piece, rate, 1) for piece in pieces),
        UserStoppedSpeakingFrame(),
    ]


def metric_kinds(frames: list[Frame]) -> set[type]:
    return {
        type(data) for frame in frames if isinstance(frame, MetricsFrame) for data in frame.data
    }


async def test_espeak_speaks_each_sentence(run: Run) -> None:
    down, up = await run(EspeakTTSService(), TextFrame("Good morning. "), TextFrame("Hello"))
    kinds = [type(f) for f in down if not isinstance(f, TTSAudioRawFrame)]
    assert kinds[:3] == [TTSStartedFrame, TTSStoppedFrame, TTSTextFrame]
    assert kinds[3:6] == [TTSStartedFrame, TTSStoppedFrame, TTSTextFrame]
    assert all(f.sample_rate == 16000 for f in down if isinstance(f, TTSAudioRawFrame))
    assert 1.0 < len(spoken(down)) / 32000 < 4.0
    assert not up
    assert engine._thread is None


async def test_espeak_speaks_faster_and_in_other_voices(run: Run) -> None:
    async def secs(service: EspeakTTSService, *frames: Frame) -> float:
        down, up = await run(service, *frames, TextFrame("One two three four five."))
        assert not up
        return len(spoken(down)) / 2 / service.sample_rate

    normal = await secs(EspeakTTSService())
    params = EspeakTTSService.InputParams(rate=350, pitch=80, volume=50)
    assert await secs(EspeakTTSService(params=params)) < 0.7 * normal
    assert await secs(EspeakTTSService(), TTSUpdateSettingsFrame(rate=100)) > 1.3 * normal
    native = await secs(EspeakTTSService(sample_rate=22050))
    assert native == pytest.approx(normal, abs=0.05)
    german = EspeakTTSService(params=EspeakTTSService.InputParams(language=Language.DE_DE))
    await secs(german)
    assert german._voice_id == "de"


async def test_espeak_names_a_voice_it_does_not_have(run: Run) -> None:
    down, up = await run(EspeakTTSService(voice="nobody"), TextFrame("Hello."))
    (error,) = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert "nobody" in error.error
    assert "voices()" in error.error
    assert not spoken(down)
    assert [type(f).__name__ for f in down][:3] == [
        "TTSStartedFrame",
        "TTSStoppedFrame",
        "TTSTextFrame",
    ]
    voices = await EspeakTTSService.voices()
    assert any(voice.startswith("de: ") for voice in voices)


async def test_espeak_reports_metrics(run: Run) -> None:
    down, _ = await run(EspeakTTSService(), TextFrame("Hello."), metrics=True)
    assert {TTFBMetricsData, ProcessingMetricsData, TTSUsageMetricsData} <= metric_kinds(down)


async def test_espeak_times_words(run: Run) -> None:
    down, _ = await run(
        EspeakTTSService(word_timestamps=True),
        LLMFullResponseStartFrame(),
        LLMTextFrame("Grüße, dear friend! "),
        LLMTextFrame("It costs $29.95 today."),
        LLMFullResponseEndFrame(),
    )
    words = [frame for frame in down if isinstance(frame, TTSTextFrame)]
    said = " ".join(word.text for word in words)
    assert said == "Grüße, dear friend! It costs $29.95 today."
    times = [word.pts or 0 for word in words]
    assert times == sorted(times)
    assert 1.0 < (times[-1] - times[0]) / 1e9 < len(spoken(down)) / 32000
    end = next(f for f in down if isinstance(f, LLMFullResponseEndFrame))
    assert end.pts == times[-1]


async def test_espeak_speaks_on_after_an_interruption(run: Run) -> None:
    long = "This goes on and on, word by word. " * 50
    service = EspeakTTSService(aggregate_sentences=False)
    down, up = await run(
        service, TextFrame(long), StartInterruptionFrame(), SleepFrame(0.1), TextFrame("Yes.")
    )
    assert not up
    assert [f.text for f in down if isinstance(f, TTSTextFrame)][-1] == "Yes."
    assert engine._thread is None


async def test_espeak_stops_at_the_next_piece_when_nobody_listens() -> None:
    pieces: list[int] = []

    def deliver(audio: bytes, words: list[Word]) -> bool:
        pieces.append(len(audio))
        return len(pieces) < 3

    def fail(audio: bytes, words: list[Word]) -> bool:
        raise ValueError("full")

    request = Request("Word after word after word after word.", "en-us", None, None, None)
    await asyncio.wrap_future(engine.acquire())
    try:
        await asyncio.wrap_future(engine.speak(request, deliver))
        assert len(pieces) == 3
        with pytest.raises(ValueError, match="full"):
            await asyncio.wrap_future(engine.speak(request, fail))
        pieces.clear()
        await asyncio.wrap_future(engine.speak(request, deliver))
        assert len(pieces) == 3
    finally:
        engine.release()


async def test_espeak_refuses_more_texts_than_it_can_hold() -> None:
    go_on = threading.Event()
    request = Request("Word.", "en-us", None, None, None)
    await asyncio.wrap_future(engine.acquire())
    try:
        waiting = [engine.speak(request, lambda audio, words: go_on.wait(5))]
        # One is under way and may or may not have left the queue.
        waiting += [engine.speak(request, lambda audio, words: True) for _ in range(63)]
        with pytest.raises(OverloadedError):
            waiting += [engine.speak(request, lambda audio, words: True) for _ in range(2)]
        go_on.set()
        await asyncio.gather(*map(asyncio.wrap_future, waiting))
    finally:
        go_on.set()
        engine.release()


def test_pocketsphinx_understands_english_only() -> None:
    with pytest.raises(ConfigError, match="English only"):
        PocketSphinxSTTService(language=Language.FR)
    PocketSphinxSTTService(language=Language.EN_GB)


async def test_pocketsphinx_hears_the_caller_word_for_word(run: Run) -> None:
    facts = json.loads((EXAMPLES / "caller.json").read_text(encoding="utf-8"))
    with wave.open(str(EXAMPLES / "caller.wav")) as wav:
        audio = wav.readframes(wav.getnframes())
    sentences = facts["sentences"][:2]
    frames: list[Frame] = []
    # The second time in another order: what was heard before must not matter.
    for sentence in [*sentences, *sentences[::-1]]:
        start, end = (int(16000 * sentence[key]) * 2 for key in ("start", "end"))
        frames += segment(audio[start - 16000 : end + 16000])
    down, up = await run(PocketSphinxSTTService(), *frames, metrics=True)
    texts = [sentence["text"] for sentence in sentences]
    assert heard(down) == [*texts, *texts[::-1]]
    assert {TTFBMetricsData, ProcessingMetricsData} <= metric_kinds(down)
    assert not up
    assert shared_decoder._executor is None


async def test_pocketsphinx_says_nothing_about_silence(run: Run) -> None:
    down, up = await run(PocketSphinxSTTService(), *segment(bytes(32000)), *segment(bytes(64)))
    assert heard(down) == []
    assert not up


async def test_what_espeak_says_pocketsphinx_hears(run: Run) -> None:
    text = "How are you today? I am very happy."
    params = EspeakTTSService.InputParams(rate=130)
    down, _ = await run(EspeakTTSService(params=params, sample_rate=22050), TextFrame(text))
    audio = await create_file_resampler().resample(spoken(down), 22050, 8000)
    # The service gets telephone audio and brings it to the rate of its model.
    down, _ = await run(PocketSphinxSTTService(sample_rate=8000), *segment(audio, 8000))
    (words,) = heard(down)
    assert words
    # A robot voice over a telephone: some words come across, not all.
    expected = set("how are you today i am very happy".split())
    assert len(expected & set(words.split())) >= 2, words


async def test_the_loop_goes_on_while_pocketsphinx_listens() -> None:
    with wave.open(str(EXAMPLES / "caller.wav")) as wav:
        wav.setpos(int(7.2 * 16000))
        audio = wav.readframes(4 * 16000)
    await asyncio.wrap_future(shared_decoder.acquire())
    try:
        heard_it = asyncio.wrap_future(shared_decoder.submit(audio))
        turns = 0
        while not heard_it.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert (await heard_it).split()
        assert turns > 20
    finally:
        shared_decoder.release()
    assert "pocketsphinx" not in {thread.name for thread in threading.enumerate()}
