"""WhisperSTTService in a pipeline, with real speech and small models that are made here."""

from __future__ import annotations

import asyncio
import importlib.machinery
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.models import tiny_whisper
from tests.models.recorded import caller

from antiphon.audio.utils import create_file_resampler
from antiphon.errors import ConfigError, OverloadedError
from antiphon.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    MetricsFrame,
    STTMuteFrame,
    STTUpdateSettingsFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import ProcessingMetricsData, TTFBMetricsData
from antiphon.models.client import ModelClient
from antiphon.models.model import Item, ModelSpec
from antiphon.models.model import Model as SharedModel
from antiphon.models.provider import connect_model
from antiphon.services._shared_models import ask_patiently
from antiphon.services.whisper._engine import Answer, Request, Whisper
from antiphon.services.whisper._interim import InterimPace
from antiphon.services.whisper._mlx import MLXWhisper
from antiphon.services.whisper.stt import (
    MLXModel,
    Model,
    WhisperSTTService,
    WhisperSTTServiceMLX,
    language_to_whisper_language,
)
from antiphon.transcriptions.language import Language

Run = Callable[..., Awaitable[tuple[list[Frame], list[Frame]]]]

_RATE = 16_000


def segment(audio: bytes, rate: int = _RATE) -> list[Frame]:
    """A user who says this, in pieces of 20 ms."""
    size = rate // 50 * 2
    pieces = [audio[i : i + size] for i in range(0, len(audio), size)]
    return [
        UserStartedSpeakingFrame(),
        *(InputAudioRawFrame(piece, rate, 1) for piece in pieces),
        UserStoppedSpeakingFrame(),
    ]


def heard(frames: list[Frame]) -> list[TranscriptionFrame]:
    return [frame for frame in frames if isinstance(frame, TranscriptionFrame)]


async def passed(rig: Any, text: str) -> None:
    """Waits until a text frame has passed, and so everything before it."""
    await rig.down.until(lambda: any(frame.text == text for frame in rig.down.of(TextFrame)))


def errors(frames: list[Frame]) -> list[str]:
    return [frame.error for frame in frames if isinstance(frame, ErrorFrame)]


@pytest.fixture
def run(story: Any) -> Run:
    """Runs a service on some frames; returns what came out downstream and upstream."""

    async def run_service(service: Any, *frames: Frame) -> tuple[list[Frame], list[Frame]]:
        async def act(rig: Any) -> None:
            await rig.send(*frames)

        rig = await story(service, act)
        return rig.down.frames, rig.up.frames

    return run_service


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_whisper.build(tmp_path_factory.mktemp("whisper")))


def service(folder: str, **kwargs: Any) -> WhisperSTTService:
    kwargs.setdefault("no_speech_prob", 0.9)
    return WhisperSTTService(model=folder, device="cpu", **kwargs)


async def test_each_stretch_of_speech_is_transcribed(run: Run, folder: str) -> None:
    said = [frame for sentence in caller()[:3] for frame in segment(sentence.audio)]
    down, up = await run(service(folder), *said)
    assert not errors(up)
    found = heard(down)
    assert len(found) == 3
    for frame in found:
        assert len(frame.text.split()) == tiny_whisper.SPOKEN_WORDS
        assert frame.language is Language.EN
        assert frame.text == frame.text.strip()
    kinds = {type(d) for f in down if isinstance(f, MetricsFrame) for d in f.data}
    assert {TTFBMetricsData, ProcessingMetricsData} <= kinds
    assert not [frame for frame in down if isinstance(frame, InterimTranscriptionFrame)]


async def test_audio_of_another_rate_is_understood(run: Run, folder: str) -> None:
    audio = caller()[1].audio
    down, _ = await run(service(folder), *segment(audio))
    slower = await create_file_resampler().resample(audio, _RATE, 8000)
    telephone, up = await run(service(folder, sample_rate=8000), *segment(slower, 8000))
    assert not errors(up)
    assert heard(telephone)[0].text.split()[0] == heard(down)[0].text.split()[0]


async def test_what_is_probably_no_speech_is_left_out(run: Run, folder: str) -> None:
    down, up = await run(service(folder, no_speech_prob=0.01), *segment(caller()[0].audio))
    assert not heard(down)
    assert not errors(up)


async def test_settings_change_on_the_way(story: Any, folder: str) -> None:
    async def act(rig: Any) -> None:
        changes: list[dict[str, Any]] = [
            {"language": Language.DE},
            {"no_speech_prob": 0.01},
            {"no_speech_prob": 0.9},
        ]
        for count, settings in enumerate(changes):
            await rig.send(*segment(caller()[0].audio), TextFrame(f"said {count}"))
            await passed(rig, f"said {count}")
            await rig.send(STTUpdateSettingsFrame(**settings))

    rig = await story(service(folder, language=None), act)
    assert not rig.up.errors
    assert [frame.language for frame in heard(rig.down.frames)] == [Language.FR, Language.DE]


async def test_another_model_takes_over(story: Any, folder: str, tmp_path: Path) -> None:
    english = str(tiny_whisper.build(tmp_path, multilingual=False))
    whisper = service(folder)

    async def act(rig: Any) -> None:
        await rig.send(*segment(caller()[0].audio), STTUpdateSettingsFrame(model=english))
        await rig.send(TextFrame("changed"))
        await passed(rig, "changed")
        await rig.send(*segment(caller()[0].audio))

    rig = await story(whisper, act)
    assert not rig.up.errors
    assert len(heard(rig.down.frames)) == 2
    assert whisper.model_name == english


async def test_a_model_that_cannot_be_changed_to_is_an_error(run: Run, folder: str) -> None:
    whisper = service(folder)
    down, up = await run(
        whisper,
        *segment(caller()[0].audio),
        STTUpdateSettingsFrame(model="no-such-size"),
        *segment(caller()[0].audio),
    )
    (error,) = errors(up)
    assert "no-such-size" in error
    assert whisper.model_name == folder
    assert len(heard(down)) == 2  # by the one before


async def test_what_is_said_while_muted_is_not_heard(run: Run, folder: str) -> None:
    down, _ = await run(service(folder), STTMuteFrame(mute=True), *segment(caller()[0].audio))
    assert not heard(down)


async def test_services_share_a_model(run: Run, folder: str) -> None:
    options = {"model": folder, "device": "cpu", "compute_type": "default", "cpu_threads": 0}
    async with await connect_model(ModelSpec(Whisper, options)) as watched:
        audio = caller()[0].audio
        runs = [run(service(folder), *segment(audio)) for _ in range(4)]
        texts = {heard(down)[0].text for down, _ in await asyncio.gather(*runs)}
        assert len(texts) == 1
        assert watched.statistics()["answered"] == 4
        assert watched.statistics()["model"]["attempts"] == 5  # and one for the warm-up


async def test_a_model_that_is_not_here_ends_the_pipeline(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTIPHON_MODELS", str(tmp_path))
    monkeypatch.setenv("ANTIPHON_OFFLINE", "1")
    _, up = await run(WhisperSTTService(model=Model.TINY))
    (error,) = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert error.fatal
    assert "model.bin" in error.error
    assert "Systran/faster-whisper-tiny" in error.error
    assert "antiphon models pull tiny" in error.error


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"WhisperSTTService\(no_speech_prob\)"):
        WhisperSTTService(no_speech_prob=-1)
    with pytest.raises(TypeError, match=r"WhisperSTTService\(cpu_threads\)"):
        WhisperSTTService(cpu_threads="all")  # type: ignore[arg-type]
    assert WhisperSTTService().model_name == Model.DISTIL_MEDIUM_EN.value
    assert WhisperSTTService(model="large-v2").model_name == "large-v2"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'antiphon\[whisper\]'"):
        WhisperSTTService()
    with pytest.raises(ConfigError, match=r"pip install 'antiphon\[mlx-whisper\]'"):
        WhisperSTTServiceMLX()


@pytest.mark.parametrize(
    ("language", "code"),
    [(Language.EN, "en"), (Language.EN_GB, "en"), (Language.ZH_TW, "zh"), (Language.AR_AE, "ar")],
)
def test_languages_have_whispers_codes(language: Language, code: str) -> None:
    assert language_to_whisper_language(language) == code


class Busy(ModelClient):
    """Refuses so many requests."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    async def request(self, payload: Any, *, deadline_secs: float) -> Any:
        self.refusals -= 1
        if self.refusals >= 0:
            raise OverloadedError("busy", retry_after=2.0)
        return payload

    def open_session(self, options: Any = None) -> Any:
        raise AssertionError

    async def aclose(self) -> None:
        pass

    def statistics(self) -> dict[str, Any]:
        return {}


@pytest.mark.virtual_time
async def test_a_model_that_is_busy_is_asked_again() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    asked = await ask_patiently(Busy(3), "this", deadline_secs=1.0, patience_secs=10.0)
    assert asked == "this"
    assert loop.time() - began == pytest.approx(6.0)
    with pytest.raises(OverloadedError):
        await ask_patiently(Busy(9), "this", deadline_secs=1.0, patience_secs=10.0)
    assert loop.time() - began == pytest.approx(14.0)


# --- interim transcripts ----------------------------------------------------------------------------


class Scripted(SharedModel):
    """Says how many seconds it heard; or that it has too much to do, if it is asked what may change."""

    refuses = False

    def load(self) -> None:
        pass

    def run_batch(self, items: Sequence[Item]) -> Sequence[Any]:
        return [self._answer(item.payload) for item in items]

    def _answer(self, request: Request) -> Answer | Exception:
        if self.refuses and not request["final"]:
            return OverloadedError("full", retry_after=1)
        secs = len(request["audio"]) / 2 / _RATE
        return Answer(parts=[(f"{secs:.1f} s", 0.0)], language="en")


class ScriptedService(WhisperSTTService):
    """Counts its interim requests, and sends them only when it may."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(interim_results=True, **kwargs)
        self.asked = 0
        self.has_asked = asyncio.Event()
        self.may_ask = asyncio.Event()
        self.may_ask.set()

    def _model_spec(self) -> ModelSpec:
        return ModelSpec(Scripted)

    async def _ask(self, audio: bytes, sample_rate: int, *, final: bool) -> Any:
        if not final:
            self.asked += 1
            self.has_asked.set()
            await self.may_ask.wait()
        return await super()._ask(audio, sample_rate, final=final)


def second() -> list[Frame]:
    return [InputAudioRawFrame(bytes(2 * _RATE // 50), _RATE, 1) for _ in range(50)]


async def test_what_was_said_so_far_is_transcribed(story: Any) -> None:
    async def act(rig: Any) -> None:
        await rig.send(UserStartedSpeakingFrame())
        for count in (1, 2, 3):
            await rig.send(*second())
            await rig.down.seen(InterimTranscriptionFrame, count)
        await rig.send(UserStoppedSpeakingFrame())
        await rig.down.seen(TranscriptionFrame)

    rig = await story(ScriptedService(), act)
    interim = rig.down.of(InterimTranscriptionFrame)
    assert interim[0].text == "0.8 s"
    assert len(interim) == 3
    assert {frame.language for frame in interim} == {Language.EN}
    assert [frame.text for frame in rig.down.of(TranscriptionFrame)] == ["3.0 s"]


async def test_an_interim_text_never_comes_behind_the_final_one(story: Any) -> None:
    whisper = ScriptedService()
    whisper.may_ask.clear()

    async def act(rig: Any) -> None:
        await rig.send(UserStartedSpeakingFrame(), *second(), *second())
        await whisper.has_asked.wait()
        await rig.send(UserStoppedSpeakingFrame())
        await rig.down.seen(TranscriptionFrame)
        whisper.may_ask.set()

    rig = await story(whisper, act)
    assert whisper.asked == 1
    assert not rig.down.of(InterimTranscriptionFrame)
    assert [frame.text for frame in rig.down.of(TranscriptionFrame)] == ["2.0 s"]


async def test_a_model_that_does_not_keep_up_is_left_alone(
    story: Any, logs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "refuses", True)
    whisper = ScriptedService()

    async def act(rig: Any) -> None:
        for count in range(1, 6):
            whisper.has_asked.clear()
            await rig.send(UserStartedSpeakingFrame(), *second())
            if count <= 3:
                await whisper.has_asked.wait()
                await wait_for_task(whisper)
            await rig.send(UserStoppedSpeakingFrame())
            await rig.down.seen(TranscriptionFrame, count)

    rig = await story(whisper, act)
    assert whisper.asked == 3
    assert not rig.up.errors
    told = [line for line in logs if "too slow for interim transcripts" in line]
    assert len(told) == 1


async def wait_for_task(whisper: WhisperSTTService) -> None:
    assert whisper._interim_task is not None
    await asyncio.wait([whisper._interim_task])


def test_interim_texts_are_asked_for_step_by_step() -> None:
    pace = InterimPace()
    pace.begin()
    assert not pace.is_due(0.5)
    assert pace.is_due(0.8)
    assert not pace.is_due(5.0)  # one is under way
    pace.ended(0.2)
    assert pace.is_due(5.0)
    pace.broken_off()
    pace.begin()
    assert not pace.is_due(0.7)
    assert pace.is_due(0.9)


def test_interim_texts_end_when_the_model_does_not_keep_up() -> None:
    pace = InterimPace()
    for took in (2.0, 2.0, 0.1, None, 2.0):
        pace.ended(took)
        assert not pace.is_off
    pace.ended(None)
    assert pace.is_off
    assert not pace.is_due(100.0)
    pace.begin()
    assert not pace.is_due(100.0)


# --- MLX --------------------------------------------------------------------------------------------


@pytest.fixture
def mlx(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the package, which needs an Apple chip; keeps what it was asked."""
    calls: list[dict[str, Any]] = []

    def transcribe(audio: np.ndarray[Any, Any], **options: Any) -> dict[str, Any]:
        assert audio.dtype == np.float32
        assert np.abs(audio).max(initial=0) <= 1
        if options["path_or_hf_repo"] == "nobody/nothing":
            raise OSError("no such repository")
        calls.append(options | {"secs": len(audio) / _RATE})
        return {
            "language": options["language"] or "de",
            "segments": [
                {"text": " Good day. ", "no_speech_prob": 0.1},
                {"text": " Thank you.", "no_speech_prob": 0.7},
                {"text": " How are you?", "no_speech_prob": 0.2},
            ],
        }

    module = ModuleType("mlx_whisper")
    module.transcribe = transcribe  # type: ignore[attr-defined]
    module.__spec__ = importlib.machinery.ModuleSpec("mlx_whisper", None)
    monkeypatch.setitem(sys.modules, "mlx_whisper", module)
    return calls


async def test_mlx_transcribes(run: Run, mlx: list[dict[str, Any]]) -> None:
    whisper = WhisperSTTServiceMLX(model=MLXModel.LARGE_V3_TURBO_Q4, temperature=0.1)
    audio = caller()[0].audio
    down, up = await run(whisper, *segment(audio))
    assert not errors(up)
    assert [frame.text for frame in heard(down)] == ["Good day. How are you?"]
    warm_up, call = mlx
    assert warm_up["secs"] == 1.0
    assert call["path_or_hf_repo"] == "mlx-community/whisper-large-v3-turbo-q4"
    assert (call["temperature"], call["language"]) == (0.1, "en")
    assert call["secs"] == len(audio) / 2 / _RATE


async def test_mlx_finds_out_the_language(run: Run, mlx: list[dict[str, Any]]) -> None:
    down, _ = await run(WhisperSTTServiceMLX(language=None), *segment(caller()[0].audio))
    assert [frame.language for frame in heard(down)] == [Language.DE]
    assert mlx[-1]["language"] is None
    assert mlx[-1]["path_or_hf_repo"] == MLXModel.TINY.value


async def test_mlx_without_its_model_ends_the_pipeline(run: Run, mlx: list[Any]) -> None:
    _, up = await run(WhisperSTTServiceMLX(model="nobody/nothing"))
    (error,) = errors(up)
    assert "'nobody/nothing' cannot be loaded: no such repository" in error


def test_mlx_works_one_by_one_and_leaves_out_who_is_gone(mlx: list[Any]) -> None:
    items = [
        Item(Request(audio=bytes(3200 * n), language="en", no_speech_prob=0.6, final=True))
        for n in (1, 2, 3)
    ]
    items[1].cancelled = True
    model = MLXWhisper(model="some/model")
    answers = model.run_batch(items)
    assert [len(answer["parts"]) for answer in answers] == [3, 0, 3]
    assert [call["secs"] for call in mlx] == [pytest.approx(0.1), pytest.approx(0.3)]
