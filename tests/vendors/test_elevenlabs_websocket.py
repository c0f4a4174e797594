"""ElevenLabsTTSService against a local server that speaks the vendor's protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from antiphon.frames.frames import (
    EndFrame,
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
from antiphon.services.elevenlabs import _websocket
from antiphon.services.elevenlabs.tts import ElevenLabsTTSService
from antiphon.transcriptions.language import Language

KEY = "sk-secret-key-0123456789"


def service(vendor: Any, **kwargs: Any) -> ElevenLabsTTSService:
    kwargs.setdefault("params", ElevenLabsTTSService.InputParams())
    return ElevenLabsTTSService(api_key=KEY, voice_id="v one", url=vendor.url, **kwargs)


def answer(*texts: str) -> list[Frame]:
    return [
        LLMFullResponseStartFrame(),
        *(LLMTextFrame(text) for text in texts),
        LLMFullResponseEndFrame(),
    ]


def kinds(frames: Sequence[Frame]) -> list[str]:
    names = [type(f).__name__ for f in frames]
    return [n for n, before in zip(names, [None, *names], strict=False) if n != before]


async def test_an_answer_is_one_context_with_timed_words(
    elevenlabs: Any, story: Any, logs: list[str]
) -> None:
    async def act(rig: Any) -> None:
        await rig.send(*answer("Good day. ", "How are you?"))
        await rig.down.seen(LLMFullResponseEndFrame)

    params = ElevenLabsTTSService.InputParams(
        language=Language.EN_GB, stability=0.7, similarity_boost=0.8, enable_logging=False
    )
    rig = await story(service(elevenlabs, params=params, model="eleven_flash_v2_5"), act)

    (path, query, headers) = elevenlabs.requests[0]
    assert path == "/v1/text-to-speech/v%20one/multi-stream-input"
    assert query == {
        "model_id": "eleven_flash_v2_5",
        "output_format": "pcm_16000",
        "auto_mode": "true",
        "enable_logging": "false",
        "language_code": "en",
        "sync_alignment": "true",
    }
    assert headers["xi-api-key"] == KEY
    (context,) = elevenlabs.contexts()
    assert elevenlabs.messages == [
        {
            "text": " ",
            "context_id": context,
            "voice_settings": {"stability": 0.7, "similarity_boost": 0.8},
        },
        {"text": "Good day. ", "context_id": context},
        {"text": "How are you? ", "context_id": context},
        {"context_id": context, "flush": True},
        {"context_id": context, "close_context": True},
    ]

    assert rig.down.words == ["Good", "day.", "How", "are", "you?"]
    frames = [
        f
        for f in rig.down.frames
        if isinstance(
            f, (TTSStartedFrame, TTSAudioRawFrame, TTSStoppedFrame, LLMFullResponseEndFrame)
        )
    ]
    assert kinds(frames)[:4] == [
        "TTSStartedFrame",
        "TTSAudioRawFrame",
        "TTSStoppedFrame",
        "LLMFullResponseEndFrame",
    ]
    # 20 ms a character, from wherever a message happens to cut a word.
    times = [frame.pts / 1e6 for frame in rig.down.of(TTSTextFrame)]
    assert [round(b - a) for a, b in pairwise(times)] == [100, 100, 80, 80]
    assert times[-1] == rig.down.of(LLMFullResponseEndFrame)[0].pts / 1e6
    assert len(rig.down.metrics(TTFBMetricsData)) == 1
    assert [data.value for data in rig.down.metrics(TTSUsageMetricsData)] == [9, 13]
    assert not rig.up.errors
    log = "".join(logs)
    assert KEY not in log
    assert "Good" not in log


async def test_an_interruption_closes_the_context_and_drops_late_audio(
    elevenlabs: Any, story: Any
) -> None:
    elevenlabs.silent = True

    async def act(rig: Any) -> None:
        await rig.send(LLMFullResponseStartFrame(), LLMTextFrame("Much to say. "))
        await elevenlabs.until(lambda: elevenlabs.texts())
        (old,) = elevenlabs.contexts()
        await elevenlabs.say(old, "Much ")
        await rig.down.until(lambda: rig.down.sounds)
        await rig.send(StartInterruptionFrame())
        await elevenlabs.until_closed()
        assert elevenlabs.messages[-1] == {"context_id": old, "close_context": True}
        await elevenlabs.say(old, "to say. ")
        await elevenlabs.end(old)
        await rig.send(*answer("Yes?"))
        new = await elevenlabs.until_closed(2)
        assert new != old
        await elevenlabs.say(old, "even later ")
        await elevenlabs.say(new, "Yes? ")
        await elevenlabs.end(new)
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(service(elevenlabs), act)
    assert rig.down.words == ["Much", "Yes?"]
    assert [len(sound) for sound in rig.down.sounds] == [5 * 640, 5 * 640]
    assert len(elevenlabs.requests) == 1


async def test_what_is_said_first_is_heard_first(elevenlabs: Any, story: Any) -> None:
    elevenlabs.silent = True
    tts = service(elevenlabs)

    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame("One."))
        await elevenlabs.until(lambda: len(elevenlabs.texts()) == 1)
        await tts.resume_processing_frames()
        await rig.send(TTSSpeakFrame("Two."))
        await elevenlabs.until(lambda: len(elevenlabs.texts()) == 2)
        one, two = elevenlabs.contexts()
        await elevenlabs.say(two, "Two. ")
        await elevenlabs.end(two)
        await elevenlabs.say(one, "One. ")
        await elevenlabs.end(one)
        await rig.down.seen(TTSStoppedFrame, 2)

    rig = await story(tts, act)
    one, two = rig.down.of(TTSTextFrame)
    assert (one.text, two.text) == ("One.", "Two.")
    # Behind the audio of the first and the pause between them.
    assert round((two.pts - one.pts) / 1e6) == 100 + 500
    assert not rig.down.of(LLMFullResponseEndFrame)


async def test_a_lost_connection_is_made_again_and_unheard_text_said_again(
    elevenlabs: Any, story: Any
) -> None:
    async def hang_up(connection: ServerConnection, context: str, text: str) -> bool:
        if len(elevenlabs.connections) == 1:
            await connection.close(1011)
            return True
        return False

    elevenlabs.on_text = hang_up

    async def act(rig: Any) -> None:
        await rig.send(*answer("Hello there."))
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(service(elevenlabs), act)
    assert len(elevenlabs.requests) == 2
    assert rig.down.words == ["Hello", "there."]
    assert elevenlabs.texts() == ["Hello there. ", "Hello there. "]
    assert ["lost" in error for error in rig.up.errors] == [True]


async def test_a_speech_cut_off_by_a_lost_connection_ends(elevenlabs: Any, story: Any) -> None:
    elevenlabs.silent = True

    async def act(rig: Any) -> None:
        await rig.send(*answer("Hello there."))
        await elevenlabs.say(await elevenlabs.until_closed(), "Hello ")
        await elevenlabs.connections[0].close(1011)
        await rig.down.seen(LLMFullResponseEndFrame)
        elevenlabs.silent = False
        await rig.send(*answer("Again."))
        await rig.down.seen(LLMFullResponseEndFrame, 2)

    rig = await story(service(elevenlabs), act)
    assert rig.down.words == ["Hello", "Again."]
    assert rig.down.count(TTSStoppedFrame) == 2


@pytest.mark.parametrize(("status", "word"), [(401, "key"), (429, "quota"), (503, "failed")])
async def test_a_refused_connection_is_an_error_and_the_pipeline_goes_on(
    elevenlabs: Any, story: Any, logs: list[str], status: int, word: str
) -> None:
    elevenlabs.refuse = status

    async def act(rig: Any) -> None:
        await rig.send(*answer("Private matter."))
        await rig.down.seen(LLMFullResponseEndFrame)
        elevenlabs.refuse = None
        await rig.send(*answer("Now."))
        await rig.down.seen(LLMFullResponseEndFrame, 2)

    tts = service(elevenlabs)
    failures: list[str] = []

    async def on_connection_error(_: Any, error: str) -> None:
        failures.append(error)

    tts.add_event_handler("on_connection_error", on_connection_error)
    rig = await story(tts, act)
    assert rig.down.words == ["Now."]
    assert len(rig.up.errors) == 2
    for error in rig.up.errors:
        assert word in error
        assert str(status) in error
    assert failures == rig.up.errors[:1]
    assert not any(KEY in text or "Private" in text for text in [*rig.up.errors, *logs])


async def test_no_server_is_an_error(story: Any) -> None:
    async def act(rig: Any) -> None:
        await rig.send(*answer("Hello."))
        await rig.down.seen(LLMFullResponseEndFrame)

    tts = ElevenLabsTTSService(api_key=KEY, voice_id="v", url="ws://127.0.0.1:9")
    rig = await story(tts, act)
    assert len(rig.up.errors) == 2
    assert "cannot be reached" in rig.up.errors[0]


async def test_a_key_refused_in_the_conversation_is_not_tried_over_and_over(
    elevenlabs: Any, story: Any, logs: list[str]
) -> None:
    async def refuse(connection: ServerConnection, context: str, text: str) -> bool:
        if len(elevenlabs.connections) > 1:
            return False
        await connection.send(
            json.dumps({"message": f"bad {KEY}", "error": "invalid_api_key", "code": 1008})
        )
        await connection.close(1008, "Invalid API key")
        return True

    elevenlabs.on_text = refuse

    async def act(rig: Any) -> None:
        await rig.send(*answer("Hello."))
        await rig.down.seen(LLMFullResponseEndFrame)
        assert len(elevenlabs.requests) == 1
        await rig.send(*answer("Now."))
        await rig.down.seen(LLMFullResponseEndFrame, 2)

    rig = await story(service(elevenlabs), act)
    (error,) = rig.up.errors
    assert "refused the API key" in error
    assert "(401 invalid_api_key)" in error
    assert rig.down.words == ["Now."]
    assert KEY not in "".join(logs)


async def test_a_connection_closed_for_policy_is_reported_once(elevenlabs: Any, story: Any) -> None:
    async def act(rig: Any) -> None:
        await elevenlabs.until(lambda: elevenlabs.requests)
        await elevenlabs.connections[0].close(1008, "quota")
        await rig.up.until(lambda: rig.up.errors)
        await rig.send(*answer("Now."))
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(service(elevenlabs), act)
    assert len(rig.up.errors) == 1
    assert rig.down.words == ["Now."]


async def test_a_new_voice_speaks_after_the_old_one_has_finished(
    elevenlabs: Any, story: Any
) -> None:
    async def act(rig: Any) -> None:
        await rig.send(
            LLMFullResponseStartFrame(),
            LLMTextFrame("One two. "),
            TTSUpdateSettingsFrame(voice="second", language=Language.DE, speed=1.1),
            LLMTextFrame("Three. "),
            TTSUpdateSettingsFrame(speed=0.9),
            LLMTextFrame("Four. "),
            LLMFullResponseEndFrame(),
        )
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(service(elevenlabs), act)
    assert rig.down.words == ["One", "two.", "Three.", "Four."]
    assert [path.split("/")[3] for path, _, _ in elevenlabs.requests] == ["v%20one", "second"]
    assert elevenlabs.requests[1][1]["language_code"] == "de"
    voices = [m.get("voice_settings") for m in elevenlabs.messages if m.get("text") == " "]
    assert voices == [None, {"speed": 1.1}, {"speed": 0.9}]
    assert rig.down.count(LLMFullResponseEndFrame) == 1


async def test_an_answer_without_audio_holds_nothing_up(elevenlabs: Any, story: Any) -> None:
    elevenlabs.silent = True

    async def act(rig: Any) -> None:
        await rig.send(*answer("..."))
        await elevenlabs.end(await elevenlabs.until_closed())
        await rig.down.seen(LLMFullResponseEndFrame)
        await rig.send(*answer())
        await rig.down.seen(LLMFullResponseEndFrame, 2)

    rig = await story(service(elevenlabs), act)
    assert not rig.down.of(TTSAudioRawFrame)
    assert not rig.up.errors


async def test_the_end_waits_for_what_is_still_to_be_said(elevenlabs: Any, story: Any) -> None:
    async def act(rig: Any) -> None:
        # Without an end of the answer: nothing pauses the frames behind it.
        await rig.send(LLMTextFrame("Good bye"))

    rig = await story(service(elevenlabs), act)
    assert rig.down.words == ["Good", "bye"]
    assert isinstance(rig.down.frames[-1], EndFrame)


async def test_pieces_of_text_are_sent_as_they_are(elevenlabs: Any, story: Any) -> None:
    async def act(rig: Any) -> None:
        await rig.send(*answer("Won", "der", "ful day"))
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(service(elevenlabs, aggregate_sentences=False), act)
    assert elevenlabs.texts() == ["Won", "der", "ful day"]
    assert rig.down.words == ["Wonderful", "day"]


async def test_a_rate_the_vendor_lacks_is_left_to_the_transport(
    elevenlabs: Any, story: Any
) -> None:
    elevenlabs.rate_hz = 24000

    async def act(rig: Any) -> None:
        await rig.send(*answer("Hi."))
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(service(elevenlabs), act, rate_hz=48000)
    assert elevenlabs.requests[0][1]["output_format"] == "pcm_24000"
    assert {frame.sample_rate for frame in rig.down.of(TTSAudioRawFrame)} == {24000}


async def test_the_connection_is_kept_alive(
    elevenlabs: Any, story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_websocket, "_KEEPALIVE_SECS", 0.02)
    elevenlabs.silent = True

    async def act(rig: Any) -> None:
        await elevenlabs.until(lambda: {"text": ""} in elevenlabs.keepalives)
        await rig.send(LLMTextFrame("Well. "))
        await elevenlabs.until(lambda: elevenlabs.texts())
        (context,) = elevenlabs.contexts()
        await elevenlabs.until(lambda: {"text": "", "context_id": context} in elevenlabs.keepalives)
        await rig.send(StartInterruptionFrame())
        await elevenlabs.until_closed()

    await story(service(elevenlabs), act)


async def test_a_vendor_that_never_answers_is_given_up(
    elevenlabs: Any, story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.services._tts_websocket._CONTEXT_TIMEOUT_SECS", 0.02)
    monkeypatch.setattr(_websocket, "_SILENT_SECS", 0.1)
    elevenlabs.silent = True

    async def act(rig: Any) -> None:
        await rig.send(*answer("Hello?"))
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(service(elevenlabs), act)
    assert rig.up.errors == ["ElevenLabs sent no audio for a text"]
    assert not rig.down.of(TTSAudioRawFrame)


async def test_audio_that_comes_after_a_long_wait_is_heard(
    elevenlabs: Any, story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.services._tts_websocket._CONTEXT_TIMEOUT_SECS", 0.02)
    elevenlabs.silent = True
    tts = service(elevenlabs)

    async def act(rig: Any) -> None:
        await rig.send(LLMFullResponseStartFrame(), LLMTextFrame("One. "))
        await elevenlabs.until(lambda: elevenlabs.texts())
        await rig.down.seen(TTSStoppedFrame)  # nothing came for a while
        (context,) = elevenlabs.contexts()
        await elevenlabs.say(context, "One. ")
        await rig.down.seen(TTSStoppedFrame, 2)
        await rig.send(LLMTextFrame("Two."), LLMFullResponseEndFrame())
        await elevenlabs.until_closed()
        await elevenlabs.say(context, "Two. ")
        await elevenlabs.end(context)
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(tts, act)
    assert rig.down.words == ["One.", "Two."]
    assert rig.down.count(TTSStartedFrame) == rig.down.count(TTSStoppedFrame)


async def test_cancelling_leaves_nothing(elevenlabs: Any, story: Any) -> None:
    elevenlabs.silent = True

    async def act(rig: Any) -> None:
        await rig.send(*answer("Hello."))
        await elevenlabs.until(lambda: elevenlabs.texts())
        await rig.task.cancel()

    await story(service(elevenlabs), act)
    async with asyncio.timeout(5):
        await elevenlabs.connections[0].wait_closed()
