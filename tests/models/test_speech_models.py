"""Whisper and Piper in other processes' hosts: the same answers, also when a host is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.models import tiny_voice, tiny_whisper
from tests.models.conftest import Connect, Farm
from tests.models.recorded import caller
from tests.models.stand_ins import WAIT_SECS, until

from antiphon.models.model import Item, ModelSpec
from antiphon.services.piper._engine import Piper
from antiphon.services.piper._engine import Request as TextRequest
from antiphon.services.whisper._engine import Request, Whisper


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder = tiny_whisper.build(tmp_path_factory.mktemp("whisper"))
    return ModelSpec(Whisper, {"model": str(folder), "device": "cpu", "cpu_threads": 1})


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds back batches of Whisper, those of the warm-up apart, while it is not set."""
    event = threading.Event()
    event.set()
    run_batch = Whisper.run_batch

    def held(self: Whisper, items: Sequence[Item]) -> Any:
        if items[0].payload["final"]:
            assert event.wait(WAIT_SECS)
        return run_batch(self, items)

    monkeypatch.setattr(Whisper, "run_batch", held)
    yield event
    event.set()


def request(audio: bytes) -> Request:
    return Request(audio=audio, language="en", no_speech_prob=0.9, final=True)


def alone(spec: ModelSpec, audio: bytes) -> list[str]:
    model = spec.build()
    model.load()
    (answer,) = model.run_batch([Item(request(audio))])
    model.close()
    return [text for text, _ in answer["parts"]]


async def test_sessions_are_transcribed_together(
    farm: Farm, connect: Connect, whisper: ModelSpec, gate: threading.Event
) -> None:
    sentences = [sentence.audio for sentence in caller()]
    wanted = [alone(whisper, audio) for audio in sentences]
    name = await farm.add(whisper)
    clients = [await connect(whisper) for _ in sentences]
    gate.clear()
    asked = [
        asyncio.ensure_future(client.request(request(audio), deadline_secs=WAIT_SECS))
        for client, audio in zip(clients, sentences, strict=True)
    ]
    await until(lambda: farm.hosts[name].runner.unanswered == len(sentences))
    gate.set()
    answers = await asyncio.gather(*asked)
    assert [[text for text, _ in answer["parts"]] for answer in answers] == wanted
    assert {answer["language"] for answer in answers} == {"en"}
    assert farm.hosts[name].statistics()["batch_size_max"] > 1


async def test_no_transcript_is_lost_with_a_host(
    farm: Farm, connect: Connect, whisper: ModelSpec, gate: threading.Event
) -> None:
    audio = caller()[1].audio
    wanted = alone(whisper, audio)
    lost = await farm.add(whisper)
    clients = [await connect(whisper) for _ in range(8)]
    gate.clear()
    asked = [
        asyncio.ensure_future(client.request(request(audio), deadline_secs=WAIT_SECS))
        for client in clients
    ]
    await until(lambda: farm.hosts[lost].runner.unanswered == len(clients))
    await farm.add(whisper)
    farm.kill(lost)
    gate.set()
    answers = await asyncio.gather(*asked)
    assert [[text for text, _ in answer["parts"]] for answer in answers] == [wanted] * 8


async def test_a_voice_speaks_from_elsewhere(farm: Farm, connect: Connect, tmp_path: Path) -> None:
    spec = ModelSpec(Piper, {"voice": str(tiny_voice.build(tmp_path / "en_US-test-low.onnx"))})
    text = TextRequest(
        text="Good day.",
        speaker=None,
        length_scale=None,
        noise_scale=None,
        noise_w_scale=None,
        volume=1.0,
    )
    name = await farm.add(spec)
    client = await connect(spec)
    answers = await asyncio.gather(
        *(client.request(text, deadline_secs=WAIT_SECS) for _ in range(3))
    )
    assert len({answer["audio"] for answer in answers}) == 1
    assert answers[0]["sample_rate"] == tiny_voice.SAMPLE_RATE_HZ
    assert farm.hosts[name].statistics()["model"]["sentences"] == 4
