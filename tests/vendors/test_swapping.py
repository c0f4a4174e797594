"""The same bot with the services that come along and with vendors': one line differs."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from antiphon.audio.vad.vad_analyzer import VADParams
from antiphon.frames.frames import BotStoppedSpeakingFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.services.elevenlabs.tts import ElevenLabsHttpTTSService, ElevenLabsTTSService
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.openai.stt import OpenAISTTService
from antiphon.services.openai.tts import OpenAITTSService
from antiphon.testing import FakeSTTService, FakeTransport, FakeVADAnalyzer
from antiphon.transports.base_transport import TransportParams

SAID = "I am happy."
Make = Callable[[Any, Any], FrameProcessor]


def openai(body: Any) -> Any:
    """What the HTTP vendor answers to any of the requests of the services below."""
    if "file" in body:
        return web.json_response({"text": SAID})
    text = body.get("input") or body["text"]
    audio = b"\1\0" * (len(text) * 240)
    if "input" in body:
        return [audio]
    times = [at * 0.01 for at in range(len(text))]
    line = {
        "audio_base64": base64.b64encode(audio).decode(),
        "alignment": {"characters": list(text), "character_start_times_seconds": times},
    }
    return [json.dumps(line).encode()]


STT: dict[str, Make] = {
    "along": lambda http, ws: FakeSTTService([SAID]),
    "openai": lambda http, ws: OpenAISTTService(api_key="k", base_url=f"{http.url}/v1"),
}
TTS: dict[str, Make] = {
    "along": lambda http, ws: EspeakTTSService(),
    "openai": lambda http, ws: OpenAITTSService(api_key="k", base_url=f"{http.url}/v1"),
    "elevenlabs": lambda http, ws: ElevenLabsTTSService(api_key="k", voice_id="v", url=ws.url),
    "elevenlabs http": lambda http, ws: ElevenLabsHttpTTSService(
        api_key="k", voice_id="v", base_url=http.url
    ),
}


@pytest.mark.parametrize(
    ("hears", "speaks"),
    [
        ("along", "along"),
        ("along", "openai"),
        ("along", "elevenlabs"),
        ("along", "elevenlabs http"),
        ("openai", "elevenlabs"),
    ],
)
async def test_a_bot_works_with_any_of_the_services(
    http: Any, elevenlabs: Any, hears: str, speaks: str
) -> None:
    http.answers = [openai] * 9
    elevenlabs.rate_hz = 24000
    vad = FakeVADAnalyzer(params=VADParams(start_secs=0.1, stop_secs=0.1, min_volume=0.0))
    transport = FakeTransport(
        TransportParams(audio_in_enabled=True, audio_out_enabled=True, vad_analyzer=vad),
        paced=speaks.startswith("elevenlabs"),  # words with times come by the clock
    )
    stt = STT[hears](http, elevenlabs)
    llm = ElizaLLMService(token_delay_secs=0)
    tts = TTS[speaks](http, elevenlabs)
    context = OpenAILLMContext()
    aggregator = llm.create_context_aggregator(context)
    task = PipelineTask(
        Pipeline(
            [
                transport.input(),
                stt,
                aggregator.user(),
                llm,
                tts,
                transport.output(),
                aggregator.assistant(),
            ]
        ),
        params=PipelineParams(allow_interruptions=True, audio_out_sample_rate=24000),
    )
    spoken = asyncio.Event()
    task.set_reached_downstream_filter((BotStoppedSpeakingFrame,))

    @task.event_handler("on_frame_reached_downstream")
    async def on_frame_reached_downstream(_: Any, frame: Any) -> None:
        spoken.set()

    async def caller() -> None:
        await transport.make_noise(0.5)
        await transport.stay_silent(0.5)
        try:
            async with asyncio.timeout(15):
                await spoken.wait()
        finally:
            await task.stop_when_done()

    await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), caller())
    user, assistant = context.messages
    assert (user["role"], user["content"]) == ("user", SAID)
    assert assistant["role"] == "assistant"
    assert assistant["content"] == "How long have you been happy?"
    assert any(transport.audio)
