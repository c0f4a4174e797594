"""PiperTTSService against the real server of piper-tts, and against one that misbehaves."""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.models import tiny_voice

from antiphon.frames.frames import (
    StartInterruptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSUpdateSettingsFrame,
)
from antiphon.metrics.metrics import TTFBMetricsData, TTSUsageMetricsData
from antiphon.services.piper._http import _read_header
from antiphon.services.piper.tts import PiperTTSService

TEXT = "Good day."


async def speak(rig: Any) -> None:
    await rig.send(TTSSpeakFrame(TEXT))
    await rig.down.seen(TTSTextFrame)


def wav(pcm: bytes, rate: int = 22_050, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(pcm)
    return file.getvalue()


@pytest.fixture(scope="module")
def piper_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with two voices; they differ in how loud they are."""
    folder = tmp_path_factory.mktemp("voices")
    voice = tiny_voice.build(folder / "en_US-loud-low.onnx")
    tiny_voice.build(folder / "en_US-high-low.onnx", sample_rate=22_050)
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "piper.http_server", "-m", str(voice)),
            *("--host", "127.0.0.1", "--port", "0", "--data-dir", str(folder)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line):
                yield found.group(1)
                break
        else:
            pytest.fail(f"the server ended with {server.wait()}")
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("path", ["/synthesize", "/api/tts", ""])
async def test_the_real_server_speaks(story: Any, piper_server: str, path: str) -> None:
    async with aiohttp.ClientSession() as session:
        service = PiperTTSService(
            base_url=piper_server + path, aiohttp_session=session, sample_rate=16_000
        )
        rig = await story(service, speak)
    assert not rig.up.errors
    sounds = b"".join(rig.down.sounds)
    assert len(sounds) % (2 * tiny_voice.SOUND_SAMPLES) == 0
    assert sounds
    assert {frame.sample_rate for frame in rig.down.of(TTSAudioRawFrame)} == {16_000}
    kinds = [type(frame) for frame in rig.down.frames]
    assert kinds.index(TTSStartedFrame) < kinds.index(TTSAudioRawFrame)
    assert kinds.index(TTSStoppedFrame) < kinds.index(TTSTextFrame)
    assert rig.down.metrics(TTFBMetricsData)
    assert [m.value for m in rig.down.metrics(TTSUsageMetricsData)] == [len(TEXT)]


async def test_the_voice_changes_on_the_way(story: Any, piper_server: str) -> None:
    async def act(rig: Any) -> None:
        await speak(rig)
        await rig.send(TTSUpdateSettingsFrame(voice_id="en_US-high-low"))
        await rig.send(TTSSpeakFrame(TEXT))
        await rig.down.seen(TTSTextFrame, 2)

    # Without a session of the bot's it has one of its own, and what the file says goes before.
    rig = await story(PiperTTSService(base_url=piper_server, sample_rate=16_000), act)
    assert not rig.up.errors
    rates = [frame.sample_rate for frame in rig.down.of(TTSAudioRawFrame)]
    assert sorted(set(rates)) == [16_000, 22_050]
    assert rates == sorted(rates)


async def test_audio_comes_in_pieces_of_half_a_second(story: Any, http: Any) -> None:
    first, second = b"\1\2" * 48_000, b"\3\4" * 48_001
    http.answers = [[first, second[:777], second[777:] + b"x"]]
    rig = await story(PiperTTSService(base_url=http.url, sample_rate=24_000), speak)
    pieces = [frame.audio for frame in rig.down.of(TTSAudioRawFrame)]
    assert [len(piece) for piece in pieces] == [24_000] * 8 + [2]
    assert b"".join(pieces) == first + second
    assert http.requests[0][3] == {"text": TEXT}


async def test_the_header_may_come_in_pieces(story: Any, http: Any) -> None:
    data = wav(b"\5\6" * 11_025)
    http.answers = [[data[:3], data[3:20], data[20:43], data[43:50], data[50:]]]
    rig = await story(PiperTTSService(base_url=http.url), speak)
    (frame,) = rig.down.of(TTSAudioRawFrame)
    assert frame.audio == b"\5\6" * 11_025
    assert frame.sample_rate == 22_050


@pytest.mark.parametrize(
    ("status", "text"),
    [(404, r"\(status: 404\): check base_url"), (500, r"\(status: 500\)$")],
)
async def test_a_server_that_does_not_speak(story: Any, http: Any, status: int, text: str) -> None:
    http.answers = [web.Response(status=status, text="private") for _ in range(2)]
    rig = await story(PiperTTSService(base_url=http.url), speak)
    (error,) = rig.up.errors
    assert re.search(text, error)
    assert "private" not in error
    assert [type(f) for f in rig.down.frames if isinstance(f, TTSStoppedFrame)] == [TTSStoppedFrame]
    assert not rig.down.of(TTSStartedFrame)
    assert rig.down.words == [TEXT]


async def test_the_path_that_speaks_is_kept(story: Any, http: Any) -> None:
    http.answers = [web.Response(status=405), [wav(b"\1\0" * 100)], [wav(b"\1\0" * 100)]]

    async def act(rig: Any) -> None:
        await speak(rig)
        await rig.send(TTSSpeakFrame(TEXT))
        await rig.down.seen(TTSTextFrame, 2)

    await story(PiperTTSService(base_url=f"{http.url}/api/tts"), act)
    assert [path for path, *_ in http.requests] == ["/api/tts", "/synthesize", "/synthesize"]


async def test_a_server_that_cannot_be_reached(story: Any) -> None:
    rig = await story(PiperTTSService(base_url="http://127.0.0.1:9"), speak)
    (error,) = rig.up.errors
    assert "cannot be reached" in error


async def test_a_connection_that_breaks(story: Any, http: Any) -> None:
    http.answers = [[wav(b"\1\0" * 40_000)[:50_000], None]]
    rig = await story(PiperTTSService(base_url=http.url), speak)
    (error,) = rig.up.errors
    assert "cannot be reached" in error
    assert rig.down.count(TTSStoppedFrame) == 1


async def test_an_interruption_ends_the_request(story: Any, http: Any) -> None:
    http.answers = [[wav(b"\1\0" * 60_000)[:60_000], asyncio.Event()]]

    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame(TEXT))
        await rig.down.seen(TTSAudioRawFrame, 2)
        await rig.send(StartInterruptionFrame())
        await asyncio.wait_for(http.gone.wait(), 10)

    rig = await story(PiperTTSService(base_url=http.url), act)
    assert not rig.up.errors
    assert not rig.down.of(TTSTextFrame)


async def test_audio_of_another_kind_is_refused(story: Any, http: Any) -> None:
    http.answers = [[wav(b"\1\0" * 100, channels=2)]]
    rig = await story(PiperTTSService(base_url=http.url), speak)
    assert rig.up.errors == ["Piper's server sent no mono audio of 16 bits"]


def test_other_chunks_before_the_audio_are_skipped() -> None:
    data = wav(b"\7\0" * 4, rate=16_000)
    longer = data[:36] + b"LIST" + (3).to_bytes(4, "little") + b"abc\0" + data[36:]
    found = _read_header(longer, 8000)
    assert found is not None
    assert found[0] == 16_000
    assert longer[found[1] :] == b"\7\0" * 4
    assert all(_read_header(longer[:end], 8000) is None for end in range(4, found[1]))
    assert _read_header(b"\0\1\2\3", 8000) == (8000, 0)
