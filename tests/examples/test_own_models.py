"""The bot whose models are its own has a conversation, with small models made here."""

from __future__ import annotations

import asyncio
import importlib.util
import wave
from pathlib import Path

import numpy as np
import pytest
from tests.models import tiny_voice, tiny_whisper
from tests.models.recorded import SAMPLE_RATE_HZ, caller

from antiphon.runner.types import RunnerArguments

_EXAMPLE = Path(__file__).parents[2] / "examples" / "own_models.py"


async def test_the_bot_listens_and_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("own_models", _EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    with wave.open(str(tmp_path / "caller.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(bytes(SAMPLE_RATE_HZ) + caller()[0].audio + bytes(SAMPLE_RATE_HZ))
    body = {
        "whisper": str(tiny_whisper.build(tmp_path / "whisper")),
        "voice": str(tiny_voice.build(tmp_path / "en_US-test-low.onnx")),
        "caller": str(tmp_path / "caller.wav"),
        "output_dir": str(tmp_path),
        "tail_secs": 3,
    }
    arguments = RunnerArguments(body=body)
    arguments.handle_sigint = False
    async with asyncio.timeout(40):
        await example.bot(arguments)
    said = [line.split("s  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    kinds = [line.split(":")[0] for line in said]
    assert kinds[:2] == ["user_said", "bot_says"]
    assert len(said[0].split()) == 1 + tiny_whisper.SPOKEN_WORDS
    with wave.open(str(tmp_path / "conversation.wav")) as file:
        audio = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.abs(audio[:, 0]).max() > 1000  # the caller
    assert np.abs(audio[:, 1]).max() > 1000  # the bot
