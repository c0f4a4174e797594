"""ElevenLabsHttpTTSService against a local server that speaks the vendor's protocol."""

from __future__ import annotations

import asyncio
import base64
import json
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from antiphon.frames.frames import (
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    StartInterruptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSUpdateSettingsFrame,
)
from antiphon.metrics.metrics import TTFBMetricsData, TTSUsageMetricsData
from antiphon.services.elevenlabs.tts import ElevenLabsHttpTTSService
from antiphon.transcriptions.language import Language

KEY = "sk-secret-key-0123456789"
SECS_PER_CHARACTER = 0.02


def service(vendor: Any, **kwargs: Any) -> ElevenLabsHttpTTSService:
    return ElevenLabsHttpTTSService(api_key=KEY, voice_id="v", base_url=vendor.url, **kwargs)


def answer(*texts: str) -> list[Frame]:
    return [
        LLMFullResponseStartFrame(),
        *(LLMTextFrame(text) for text in texts),
        LLMFullResponseEndFrame(),
    ]


def lines(text: str, rate_hz: int = 16000) -> bytes:
    """The vendor's answer: two lines, times counted from the beginning of the first."""
    found = b""
    half = len(text) // 2
    for start, part in ((0, text[:half]), (half, text[half:])):
        times = [(start + at) * SECS_PER_CHARACTER for at in range(len(part))]
        audio = b"\1\0" * round(len(part) * rate_hz * SECS_PER_CHARACTER)
        line = {
            "audio_base64": base64.b64encode(audio).decode(),
            "alignment": {
                "characters": list(part),
                "character_start_times_seconds": times,
                "character_end_times_seconds": [t + SECS_PER_CHARACTER for t in times],
            },
        }
        found += json.dumps(line).encode() + b"\n"
    return found


def spoken(body: Any) -> list[bytes]:
    """An answer for any text, in pieces that end anywhere."""
    data = lines(body["text"])
    return [data[at : at + 1000] for at in range(0, len(data), 1000)]


async def test_an_answer_is_spoken_sentence_by_sentence(
    http: Any, story: Any, logs: list[str]
) -> None:
    http.answers = [spoken, spoken, spoken]

    async def act(rig: Any) -> None:
        await rig.send(*answer("Good day. ", "How are you?"))
        await rig.down.seen(LLMFullResponseEndFrame)
        await rig.send(TTSUpdateSettingsFrame(voice="w", speed=1.1), TTSSpeakFrame("Bye."))
        await rig.down.seen(TTSStoppedFrame, 3)

    params = ElevenLabsHttpTTSService.InputParams(
        language=Language.DE, optimize_streaming_latency=3, stability=0.5, similarity_boost=0.6
    )
    async with aiohttp.ClientSession() as session:
        rig = await story(service(http, aiohttp_session=session, params=params), act)
        assert not session.closed

    path, query, headers, body = http.requests[0]
    assert path == "/v1/text-to-speech/v/stream/with-timestamps"
    assert query == {"output_format": "pcm_16000", "optimize_streaming_latency": "3"}
    assert headers["xi-api-key"] == KEY
    assert body == {
        "text": "Good day.",
        "model_id": "eleven_turbo_v2_5",
        "voice_settings": {"stability": 0.5, "similarity_boost": 0.6},
        "language_code": "de",
    }
    assert http.requests[1][3]["previous_text"].strip() == "Good day."
    path, _, _, body = http.requests[2]
    assert path == "/v1/text-to-speech/w/stream/with-timestamps"
    assert "previous_text" not in body
    assert body["voice_settings"]["speed"] == 1.1

    assert rig.down.words == ["Good", "day.", "How", "are", "you?", "Bye."]
    times = [frame.pts / 1e6 for frame in rig.down.of(TTSTextFrame)]
    # The second sentence begins behind the audio of the first, one leading space included.
    assert [round(b - a) for a, b in pairwise(times[:5])] == [100, 100, 80, 80]
    assert rig.down.of(LLMFullResponseEndFrame)[0].pts / 1e6 == times[4]
    assert rig.down.count(TTSStartedFrame) == rig.down.count(TTSStoppedFrame) == 3
    assert len(rig.down.metrics(TTFBMetricsData)) == 3
    assert len(rig.down.metrics(TTSUsageMetricsData)) == 3
    assert not rig.up.errors
    assert not any(KEY in line or "Good" in line for line in logs)


async def test_audio_is_passed_on_while_it_still_comes(http: Any, story: Any) -> None:
    more = asyncio.Event()
    first, second = lines("One two.").splitlines(keepends=True)
    http.answers = [[first, more, second]]

    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame("One two."))
        await rig.down.seen(TTSAudioRawFrame)
        assert rig.down.words == ["One"]
        more.set()
        await rig.down.seen(TTSStoppedFrame)

    rig = await story(service(http), act)
    assert rig.down.words == ["One", "two."]
    assert rig.down.count(TTSAudioRawFrame) == 2


async def test_a_long_line_and_half_samples(http: Any, story: Any) -> None:
    first = json.dumps({"audio_base64": base64.b64encode(b"\1\0" * 300_000 + b"\1").decode()})
    second = json.dumps({"audio_base64": base64.b64encode(b"\0").decode()})
    http.answers = [[first.encode(), b"\n\n", second.encode()]]

    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame("Long."))
        await rig.down.seen(TTSStoppedFrame)

    rig = await story(service(http), act)
    assert [len(sound) for sound in rig.down.sounds] == [600_000, 2]


async def test_an_interruption_breaks_the_request_off(http: Any, story: Any) -> None:
    first, second = lines("One two.").splitlines(keepends=True)
    http.answers = [[first, asyncio.Event(), second], spoken]

    async def act(rig: Any) -> None:
        await rig.send(LLMFullResponseStartFrame(), LLMTextFrame("One two. "))
        await rig.down.seen(TTSAudioRawFrame)
        await rig.send(StartInterruptionFrame())
        async with asyncio.timeout(5):
            await http.gone.wait()
        await rig.send(*answer("Yes?"))
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(service(http), act)
    assert rig.down.words == ["One", "Yes?"]
    assert "previous_text" not in http.requests[1][3]


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, ["key", "401", "invalid_api_key"]), (429, ["quota", "429"]), (500, ["failed", "500"])],
)
async def test_a_refusal_is_an_error_and_the_pipeline_goes_on(
    http: Any, story: Any, logs: list[str], status: int, words: list[str]
) -> None:
    detail = {"status": "invalid_api_key", "message": f"{KEY} for 'Private matter'"}
    http.answers = [web.json_response({"detail": detail}, status=status), spoken]

    async def act(rig: Any) -> None:
        await rig.send(*answer("Private matter."))
        await rig.down.seen(LLMFullResponseEndFrame)
        await rig.send(*answer("Now."))
        await rig.down.seen(LLMFullResponseEndFrame, 2)

    rig = await story(service(http), act)
    (error,) = rig.up.errors
    assert all(word in error for word in words)
    assert rig.down.words == ["Now."]
    assert not any(KEY in text or "Private" in text for text in [error, *logs])


@pytest.mark.parametrize("before", [b"", lines("One two.").splitlines(keepends=True)[0]])
async def test_a_broken_connection_is_an_error(http: Any, story: Any, before: bytes) -> None:
    http.answers = [[before, None]]

    async def act(rig: Any) -> None:
        await rig.send(*answer("One two."))
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(service(http), act)
    assert "cannot be reached" in rig.up.errors[0]
    assert rig.down.count(TTSStartedFrame) == rig.down.count(TTSStoppedFrame)


async def test_an_answer_that_is_none_is_an_error(http: Any, story: Any) -> None:
    http.answers = [[b"<html>\n"], web.Response(status=403, text="no json")]

    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame("One."), TTSSpeakFrame("Two."))
        await rig.up.until(lambda: len(rig.up.errors) == 2)

    rig = await story(service(http), act)
    assert rig.up.errors == [
        "ElevenLabs cannot be reached (JSONDecodeError)",
        "ElevenLabs refused the API key: check api_key and what it may be used for (403)",
    ]
