"""LocalPiperTTSService and the voice behind it: onnxruntime runs for real, on voices made here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import tiny_voice

from antiphon.errors import ConfigError
from antiphon.frames.frames import (
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
from antiphon.models.model import Item, ModelSpec
from antiphon.models.provider import connect_model
from antiphon.services.piper._engine import Answer, Piper, Request
from antiphon.services.piper._local import _sentences
from antiphon.services.piper._names import is_voice, voice_files, voice_path
from antiphon.services.piper.tts import LocalPiperTTSService


def asked(text: str, **changes: Any) -> Item:
    request = Request(
        text=text,
        speaker=None,
        length_scale=None,
        noise_scale=None,
        noise_w_scale=None,
        volume=1.0,
    )
    return Item(request | changes)


def audio(answer: Answer | Exception) -> bytes:
    assert not isinstance(answer, Exception)
    return answer["audio"]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_voice.build(tmp_path_factory.mktemp("piper") / "en_US-test-low.onnx"))


@pytest.fixture(scope="module")
def choir(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("piper") / "en_US-choir-low.onnx"
    return str(tiny_voice.build(path, speakers=("anna", "ben"), sample_rate=22_050))


def loaded(path: str, **options: Any) -> Piper:
    model = Piper(voice=path, **options)
    model.load()
    return model


# --- the voice --------------------------------------------------------------------------------------


def test_sentences_of_sessions_are_spoken_side_by_side(voice: str) -> None:
    model = loaded(voice, cpu_threads=3)
    sentences = ["Hello there.", "How are you?", "It is a long way to the town by the sea."]
    together = model.run_batch([asked(text) for text in sentences])
    alone = [model.run_batch([asked(text)])[0] for text in sentences]
    assert [audio(one) for one in together] == [audio(one) for one in alone]
    assert len({audio(one) for one in together}) == 3
    assert all(len(audio(one)) % (2 * tiny_voice.SOUND_SAMPLES) == 0 for one in together)
    assert model.statistics()["sentences"] == 7
    model.close()


def test_the_manner_of_speaking(voice: str, choir: str) -> None:
    model = loaded(voice)
    text = "Good morning."
    normal, slow, quiet = model.run_batch(
        [asked(text), asked(text, length_scale=2.0), asked(text, volume=0.25)]
    )
    assert len(audio(slow)) == 2 * len(audio(normal))
    loudest = [np.abs(np.frombuffer(audio(one), "<i2")).max() for one in (normal, quiet)]
    assert loudest[1] == pytest.approx(loudest[0] / 4, rel=0.01)
    model.close()

    model = loaded(choir)
    first, named, numbered = model.run_batch(
        [asked(text), asked(text, speaker="ben"), asked(text, speaker=1)]
    )
    assert audio(named) == audio(numbered)
    assert not isinstance(first, Exception)
    assert first["sample_rate"] == 22_050
    model.close()


@pytest.mark.parametrize("speaker", ["carl", 2, -1])
def test_a_speaker_that_the_voice_does_not_have(choir: str, speaker: str | int) -> None:
    model = loaded(choir)
    refused, spoken = model.run_batch([asked("Hello.", speaker=speaker), asked("Hello.")])
    assert isinstance(refused, ConfigError)
    assert "anna, ben" in str(refused)
    assert audio(spoken)
    model.close()


def test_what_nobody_waits_for_is_broken_off(voice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(voice, cpu_threads=2)
    begun, go_on = threading.Event(), threading.Event()
    assert model._voice is not None
    synthesize = type(model._voice).synthesize

    def slowly(self: Any, text: str, *args: Any) -> Any:
        if text == "Stop me.":
            begun.set()
            assert go_on.wait(10)
        yield from synthesize(self, text, *args)

    monkeypatch.setattr(type(model._voice), "synthesize", slowly)
    items = [asked("Stop me."), asked("Hello.")]

    def interrupt() -> None:
        begun.wait(10)
        items[0].cancelled = True
        go_on.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    stopped, spoken = model.run_batch(items)
    thread.join()
    # It may have slipped through between two looks.
    assert model.statistics()["broken_off"] == (audio(stopped) == b"")
    assert audio(spoken)

    gone = asked("Never mind.")
    gone.cancelled = True
    broken_off = model.statistics()["broken_off"]
    assert audio(model.run_batch([gone])[0]) == b""
    assert model.statistics()["broken_off"] == broken_off + 1
    model.close()


def test_a_text_without_sounds_is_silent(voice: str) -> None:
    model = loaded(voice)
    assert audio(model.run_batch([asked("...")])[0]) == b""
    model.close()


def test_voices_have_the_names_of_the_hub() -> None:
    files = voice_files("en_US-lessac-medium")
    assert files.repo == "rhasspy/piper-voices"
    assert files.files == (
        "en/en_US/lessac/medium/en_US-lessac-medium.onnx.json",
        "en/en_US/lessac/medium/en_US-lessac-medium.onnx",
    )
    assert voice_files("pt_PT-tugão-medium").files[1].startswith("pt/pt_PT/tugão/medium/")
    assert is_voice("en_GB-alan-medium")
    assert not is_voice("tiny.en")


@pytest.mark.parametrize("name", ["lessac", "en_US-../x-medium", "en-US-lessac-medium", ""])
def test_what_is_no_voice_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no Piper voice: write"):
        voice_path(name)


def test_a_voice_that_lacks_a_file_or_is_none(tmp_path: Path) -> None:
    path = tmp_path / "voice.onnx"
    with pytest.raises(ConfigError, match=r"there is no file .*voice\.onnx$"):
        voice_path(str(path))
    path.write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"there is no file .*voice\.onnx\.json$"):
        voice_path(str(path))
    (tmp_path / "voice.onnx.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        loaded(str(path))


def test_a_gpu_that_is_not_there(voice: str) -> None:
    with pytest.raises(ConfigError, match="onnxruntime-gpu"):
        loaded(voice, use_cuda=True)


# --- the service ------------------------------------------------------------------------------------


async def test_an_answer_is_spoken_sentence_by_sentence(story: Any, voice: str) -> None:
    async def act(rig: Any) -> None:
        await rig.send(
            LLMFullResponseStartFrame(),
            LLMTextFrame("Good day. "),
            LLMTextFrame("How are you?"),
            LLMFullResponseEndFrame(),
        )
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(LocalPiperTTSService(voice=voice), act)
    assert not rig.up.errors
    assert rig.down.words == ["Good day.", " How are you?"]
    kinds = [type(f) for f in rig.down.frames if isinstance(f, (TTSStartedFrame, TTSStoppedFrame))]
    assert kinds == [TTSStartedFrame, TTSStoppedFrame] * 2
    model = loaded(voice)
    wanted = b"".join(
        audio(one) for one in model.run_batch([asked("Good day."), asked("How are you?")])
    )
    model.close()
    assert b"".join(rig.down.sounds) == wanted
    assert {frame.sample_rate for frame in rig.down.of(TTSAudioRawFrame)} == {16_000}
    assert rig.down.metrics(TTFBMetricsData)
    assert [m.value for m in rig.down.metrics(TTSUsageMetricsData)] == [9, 13]


async def test_the_rate_of_the_voice_becomes_that_of_the_pipeline(story: Any, choir: str) -> None:
    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame("Good day."))
        await rig.down.seen(TTSTextFrame)

    rig = await story(LocalPiperTTSService(voice=choir), act, rate_hz=8000)
    secs = sum(len(sound) for sound in rig.down.sounds) / 2 / 8000
    model = loaded(choir)
    original = len(audio(model.run_batch([asked("Good day.")])[0])) / 2 / 22_050
    model.close()
    assert secs == pytest.approx(original, abs=0.01)
    assert {frame.sample_rate for frame in rig.down.of(TTSAudioRawFrame)} == {8000}


async def test_settings_and_voice_change_on_the_way(story: Any, voice: str, choir: str) -> None:
    params = LocalPiperTTSService.InputParams(length_scale=2.0)
    lengths = []

    async def act(rig: Any) -> None:
        changes: list[dict[str, Any]] = [
            {"volume": 1.0},
            {"length_scale": 1.0},
            {"voice": choir, "speaker": "ben"},
            {"speaker": "nobody"},
        ]
        for count, settings in enumerate(changes):
            before = sum(map(len, rig.down.sounds))
            await rig.send(TTSUpdateSettingsFrame(**settings))
            await rig.send(TTSSpeakFrame("Good day."))
            await rig.down.seen(TTSTextFrame, count + 1)
            lengths.append(sum(map(len, rig.down.sounds)) - before)

    service = LocalPiperTTSService(voice=voice, params=params)
    rig = await story(service, act)
    assert lengths[0] == 2 * lengths[1]
    assert lengths[2]
    assert lengths[3] == 0
    (error,) = rig.up.errors
    assert "no speaker 'nobody'" in error
    assert rig.down.count(TTSStoppedFrame) == 4


async def test_an_interruption_ends_with_the_sentence(
    story: Any, voice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()
    texts: list[str] = []
    run_batch = Piper.run_batch

    def hold(self: Piper, items: Sequence[Item]) -> Sequence[Answer | Exception]:
        texts.extend(item.payload["text"] for item in items)
        if texts[-1] == "Two.":
            started.set()
            assert go_on.wait(10)
            assert items[0].cancelled
        return run_batch(self, items)

    monkeypatch.setattr(Piper, "run_batch", hold)

    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame("One. Two. Three."))
        await asyncio.to_thread(started.wait, 10)
        before = rig.down.count(TTSAudioRawFrame)
        await rig.send(StartInterruptionFrame())
        await rig.down.seen(StartInterruptionFrame)
        go_on.set()
        await rig.send(TTSSpeakFrame("Four."))
        await rig.down.seen(TTSTextFrame)
        assert before

    rig = await story(LocalPiperTTSService(voice=voice), act)
    assert texts == ["a", "One.", "Two.", "Four."]
    assert rig.down.words == ["Four."]
    assert not rig.up.errors


async def test_services_share_a_voice(story: Any, voice: str) -> None:
    async def act(rig: Any) -> None:
        await rig.send(TTSSpeakFrame("Good day."))
        await rig.down.seen(TTSTextFrame)

    spec = ModelSpec(Piper, {"voice": voice, "use_cuda": False, "cpu_threads": 0})
    async with await connect_model(spec) as watched:
        rigs = await asyncio.gather(
            *(story(LocalPiperTTSService(voice=voice), act) for _ in range(4))
        )
        assert watched.statistics()["answered"] == 4
    assert len({b"".join(rig.down.sounds) for rig in rigs}) == 1


async def test_a_voice_that_is_not_here_ends_the_pipeline(
    story: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTIPHON_MODELS", str(tmp_path))
    monkeypatch.setenv("ANTIPHON_OFFLINE", "1")

    async def act(rig: Any) -> None:
        pass

    rig = await story(LocalPiperTTSService(voice="en_US-amy-medium"), act)
    (error,) = rig.up.errors
    assert "en_US-amy-medium.onnx" in error
    assert "antiphon models pull en_US-amy-medium" in error


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'antiphon\[piper\]'"):
        LocalPiperTTSService(voice="en_US-amy-medium")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! And three?", ["One.", "Two!", "And three?"]),
        ("It costs $3.50, Mr. Smith", ["It costs $3.50, Mr. Smith"]),
        ("One. and", ["One.", "and"]),
        ("  ", []),
    ],
)
def test_texts_are_split(text: str, sentences: list[str]) -> None:
    assert list(_sentences(text)) == sentences
