"""OpenAI's speech services against a local server with the vendor's interface."""

from __future__ import annotations

import asyncio
import io
import wave
from typing import Any

import pytest
from aiohttp import web

from antiphon.frames.frames import (
    EndFrame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    StartInterruptionFrame,
    STTUpdateSettingsFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSUpdateSettingsFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import ProcessingMetricsData, TTFBMetricsData, TTSUsageMetricsData
from antiphon.services.openai.stt import OpenAISTTService
from antiphon.services.openai.tts import OpenAITTSService
from antiphon.services.whisper.base_stt import BaseWhisperSTTService
from antiphon.transcriptions.language import Language

KEY = "sk-secret-key-0123456789"


def tts(vendor: Any, **kwargs: Any) -> OpenAITTSService:
    return OpenAITTSService(api_key=KEY, base_url=f"{vendor.url}/v1", **kwargs)


def stt(vendor: Any, **kwargs: Any) -> OpenAISTTService:
    return OpenAISTTService(api_key=KEY, base_url=f"{vendor.url}/v1", **kwargs)


def refusal(status: int, code: str) -> web.Response:
    # The header keeps the SDK from asking again.
    return web.json_response(
        {"error": {"message": f"{KEY}: 'Private matter'", "type": "t", "code": code}},
        status=status,
        headers={"x-should-retry": "false"},
    )


REFUSALS = [
    (401, "invalid_api_key", "refused the API key"),
    (404, "model_not_found", "does not know"),
    (429, "insufficient_quota", "quota"),
    (500, "server_error", "failed"),
]


async def test_speech_is_streamed(http: Any, story: Any, logs: list[str]) -> None:
    more = asyncio.Event()
    # Pieces of any length: half samples belong together.
    http.answers = [[b"\1\0" * 5000 + b"\1", more, b"\0"], [b"\2\0"]]

    async def act(rig: Any) -> None:
        await rig.send(LLMFullResponseStartFrame(), LLMTextFrame("Good day. "))
        await rig.down.until(lambda: sum(map(len, rig.down.sounds)) == 10000)
        more.set()
        await rig.send(
            TTSUpdateSettingsFrame({"voice": "sage"}),
            LLMTextFrame("Bye."),
            LLMFullResponseEndFrame(),
        )
        await rig.down.seen(LLMFullResponseEndFrame)

    service = tts(http, voice="nova", instructions="Calmly.", speed=1.25)
    rig = await story(service, act)
    path, _, headers, body = http.requests[0]
    assert path == "/v1/audio/speech"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body == {
        "input": "Good day.",
        "model": "gpt-4o-mini-tts",
        "voice": "nova",
        "response_format": "pcm",
        "instructions": "Calmly.",
        "speed": 1.25,
    }
    assert http.requests[1][3]["voice"] == "sage"
    assert b"".join(rig.down.sounds) == b"\1\0" * 5001 + b"\2\0"
    assert {f.sample_rate for f in rig.down.of(TTSAudioRawFrame)} == {24000}
    assert rig.down.words == ["Good day.", " Bye."]
    assert rig.down.count(TTSStartedFrame) == rig.down.count(TTSStoppedFrame) == 2
    assert len(rig.down.metrics(TTFBMetricsData)) == 2
    assert [data.value for data in rig.down.metrics(TTSUsageMetricsData)] == [9, 5]
    assert not any(KEY in line or "Good" in line for line in logs)


async def test_an_interruption_breaks_speech_off(http: Any, story: Any) -> None:
    http.answers = [[b"\1\0" * 1000, asyncio.Event()], [b"\2\0"]]

    async def act(rig: Any) -> None:
        await rig.send(LLMTextFrame("Long story. "))
        await rig.down.until(lambda: rig.down.sounds)
        await rig.send(StartInterruptionFrame())
        async with asyncio.timeout(5):
            await http.gone.wait()
        await rig.send(TTSSpeakFrame("Yes?"))
        await rig.down.seen(TTSStoppedFrame)

    rig = await story(tts(http), act)
    assert b"".join(rig.down.sounds) == b"\1\0" * 1000 + b"\2\0"


@pytest.mark.parametrize(("status", "code", "words"), REFUSALS)
async def test_refused_speech_is_an_error_and_the_pipeline_goes_on(
    http: Any, story: Any, logs: list[str], status: int, code: str, words: str
) -> None:
    http.answers = [refusal(status, code), [b"\1\0"]]

    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame("Private matter."), TTSSpeakFrame("Now."))
        await rig.down.seen(TTSStoppedFrame)

    rig = await story(tts(http), act)
    (error,) = rig.up.errors
    assert words in error
    assert f"({status} {code})" in error
    assert not any(KEY in text or "Private" in text for text in [error, *logs])


async def test_speech_broken_off_by_the_vendor_is_an_error(http: Any, story: Any) -> None:
    http.answers = [[b"\1\0" * 100, None]]

    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame("Hello."))
        await rig.down.seen(TTSStoppedFrame)

    rig = await story(tts(http), act)
    (error,) = rig.up.errors
    assert "cannot be reached" in error


@pytest.mark.parametrize("make", [OpenAITTSService, OpenAISTTService])
async def test_without_a_key_the_pipeline_ends(
    story: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async def act(rig: Any) -> None:
        await rig.up.until(lambda: rig.up.errors)

    rig = await story(make(), act)
    assert "api_key" in rig.up.errors[0]
    assert not rig.down.of(EndFrame)


async def speak(rig: Any, secs: float = 0.5) -> None:
    """Lets the user say something."""
    before = rig.down.count(UserStoppedSpeakingFrame)
    await rig.send(UserStartedSpeakingFrame())
    await rig.down.seen(UserStartedSpeakingFrame, before + 1)
    await rig.send(InputAudioRawFrame(b"\1\0" * round(16000 * secs), 16000, 1))
    await rig.send(UserStoppedSpeakingFrame())
    await rig.down.seen(UserStoppedSpeakingFrame, before + 1)


async def test_what_was_said_is_sent_and_transcribed(
    http: Any, story: Any, logs: list[str]
) -> None:
    http.answers = [
        web.json_response({"text": " Hello there. "}),
        web.json_response({"text": "Bonjour."}),
        web.json_response({"text": " "}),
    ]

    async def act(rig: Any) -> None:
        await speak(rig)
        await rig.down.seen(TranscriptionFrame)
        await rig.send(STTUpdateSettingsFrame(language=Language.FR_CA, model="whisper-1"))
        await speak(rig)
        await rig.down.seen(TranscriptionFrame, 2)
        await speak(rig)

    rig = await story(stt(http, prompt="Terms.", temperature=0.0), act)
    path, _, headers, body = http.requests[0]
    assert path == "/v1/audio/transcriptions"
    assert headers["authorization"] == f"Bearer {KEY}"
    with wave.open(io.BytesIO(body.pop("file"))) as wav:
        assert (wav.getframerate(), wav.getnchannels()) == (16000, 1)
        assert wav.readframes(wav.getnframes()) == b"\1\0" * 8000
    assert body == {
        "model": "gpt-4o-transcribe",
        "language": "en",
        "prompt": "Terms.",
        "temperature": "0.0",
    }
    body = http.requests[1][3]
    assert (body["language"], body["model"]) == ("fr", "whisper-1")
    heard = [(f.text, f.language) for f in rig.down.of(TranscriptionFrame)]
    assert heard == [("Hello there.", Language.EN), ("Bonjour.", Language.FR_CA)]
    assert len(http.requests) == 3
    assert rig.down.metrics(TTFBMetricsData)
    assert rig.down.metrics(ProcessingMetricsData)
    assert not any(KEY in line or "Hello" in line for line in logs)


@pytest.mark.parametrize(("status", "code", "words"), REFUSALS)
async def test_a_refused_transcription_is_an_error_and_the_next_one_works(
    http: Any, story: Any, logs: list[str], status: int, code: str, words: str
) -> None:
    http.answers = [refusal(status, code), web.json_response({"text": "Now."})]

    async def act(rig: Any) -> None:
        await speak(rig)
        await rig.up.until(lambda: rig.up.errors)
        await speak(rig)
        await rig.down.seen(TranscriptionFrame)

    rig = await story(stt(http), act)
    (error,) = rig.up.errors
    assert words in error
    assert f"({status} {code})" in error
    assert not any(KEY in text for text in [error, *logs])


async def test_a_language_whisper_does_not_know_is_left_to_it(http: Any, story: Any) -> None:
    http.answers = [web.json_response({"text": "Hm."}) for _ in range(2)]

    async def act(rig: Any) -> None:
        await speak(rig)
        await rig.down.seen(TranscriptionFrame)

    for language in (None, Language.EO):
        await story(stt(http, language=language), act)
    assert all("language" not in body for _, _, _, body in http.requests)
    assert issubclass(OpenAISTTService, BaseWhisperSTTService)


async def test_cancelling_breaks_the_transcription_off(http: Any, story: Any) -> None:
    http.answers = [[b"{", asyncio.Event()]]

    async def act(rig: Any) -> None:
        await speak(rig)
        await http.until_requested()
        await rig.task.cancel()
        async with asyncio.timeout(5):
            await http.gone.wait()

    await story(stt(http), act)
