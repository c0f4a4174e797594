"""The example runs without any of its vendors."""

from __future__ import annotations

import asyncio
import importlib.util
import wave
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.vendors.conftest import ElevenLabsVendor, HttpVendor

from antiphon.runner.types import RunnerArguments
from antiphon.services.elevenlabs import tts as elevenlabs

EXAMPLE = Path(__file__).parents[2] / "examples" / "failover.py"
# The caller says "hello there" from 0.6 s to 1.3 s.
CALLER_SECS = 2.2


async def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = tmp_path / "hello.wav"
    with (
        wave.open(str(EXAMPLE.with_name("caller.wav"))) as whole,
        wave.open(str(caller), "wb") as file,
    ):
        file.setparams(whole.getparams())
        file.writeframes(whole.readframes(round(CALLER_SECS * whole.getframerate())))
    spec = importlib.util.spec_from_file_location("failover_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines: list[str] = []
    module.print = lambda *words, flush: lines.append(" ".join(map(str, words)))

    def voice(**kwargs: Any) -> Any:
        return elevenlabs.ElevenLabsTTSService(url=speech.url, **kwargs)

    module.ElevenLabsTTSService = voice
    async with HttpVendor().running() as http, ElevenLabsVendor().running() as speech:
        # Nobody has these keys.
        http.answers = [web.Response(status=401)] * 9
        speech.refuse = 403
        monkeypatch.setenv("OPENAI_BASE_URL", f"{http.url}/v1")
        body = {"caller": str(caller), "output_dir": str(tmp_path), "tail_secs": 4}
        async with asyncio.timeout(50):
            await module.bot(RunnerArguments(body=body))
    text = "\n".join(lines)
    assert "user_said: hello there" in text
    assert "bot_says: " in text
    for service in ("PocketSphinxSTTService", "ElizaLLMService", "EspeakTTSService"):
        assert f"{service}#" in text
    assert text.count(" instead of ") == 3
