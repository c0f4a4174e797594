"""Chains of the services themselves, against servers that fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from tests.llm.chat_server import chunk
from tests.vendors.conftest import (
    ElevenLabsVendor,
    HttpVendor,
    Rig,
    RunStory,
    elevenlabs,
    pcm,
    story,
)

from antiphon.frames.frames import (
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.services.elevenlabs.tts import ElevenLabsTTSService
from antiphon.services.fallback import FallbackLLMService, FallbackSTTService, FallbackTTSService
from antiphon.services.openai.llm import OpenAILLMService
from antiphon.services.openai.stt import OpenAISTTService
from antiphon.services.openai.tts import OpenAITTSService

__all__ = ["elevenlabs", "story"]

RATE = 16000
HANG = "hang"


def answers(*given: Any) -> list[Any]:
    """Answers of a server; one with HANG in it goes no further."""

    def made(answer: Any) -> Any:
        if not isinstance(answer, list):
            return answer
        # An event belongs to the loop of its test.
        return [asyncio.Event() if item == HANG else item for item in answer]

    return [made(answer) for answer in given]


@pytest.fixture
async def servers() -> AsyncIterator[tuple[HttpVendor, HttpVendor]]:
    async with HttpVendor().running() as first, HttpVendor().running() as second:
        yield first, second


def stream(*texts: str) -> list[Any]:
    """A completion as the server sends it."""
    chunks = [f"data: {json.dumps(chunk({'content': text}))}\n\n".encode() for text in texts]
    return [*chunks, b"data: [DONE]\n\n"]


def ask() -> OpenAILLMContextFrame:
    return OpenAILLMContextFrame(OpenAILLMContext([{"role": "user", "content": "How is it?"}]))


def models(servers: tuple[HttpVendor, HttpVendor], **kwargs: Any) -> FallbackLLMService:
    return FallbackLLMService(
        [
            OpenAILLMService(
                model=f"m{n}", api_key="k", base_url=f"{server.url}/v1", name=f"llm{n}"
            )
            for n, server in enumerate(servers)
        ],
        **kwargs,
    )


def said(rig: Rig) -> str:
    return "".join(frame.text for frame in rig.down.of(LLMTextFrame))


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (web.Response(status=401), "chat completion failed"),
        (web.json_response({"error": {"message": "no such model"}}, status=404), "no such model"),
        ([HANG], "no answer in time"),
        ([b": waiting\n\n", HANG], "no answer in time"),
    ],
)
async def test_a_model_that_does_not_begin(
    servers: tuple[HttpVendor, HttpVendor], story: RunStory, failure: Any, reason: str
) -> None:
    first, second = servers
    first.answers, second.answers = answers(failure), [stream("Fine", ".")]
    chain = models(servers, attempt_timeout_secs=1.0)
    reasons: list[str] = []
    chain.add_event_handler("on_service_failed", lambda chain, name, why: reasons.append(why))

    async def act(rig: Rig) -> None:
        await rig.send(ask())
        await rig.down.seen(LLMFullResponseEndFrame)
        if isinstance(failure, list):
            await first.gone.wait()  # the request was broken off

    rig = await story(chain, act)
    assert said(rig) == "Fine."
    assert len(reasons) == 1
    assert reason in reasons[0]
    assert [server.requests[0][3]["model"] for server in servers] == ["m0", "m1"]
    assert first.requests[0][3]["messages"] == second.requests[0][3]["messages"]
    assert rig.down.count(LLMFullResponseStartFrame) == 1
    assert rig.up.errors == []


async def test_a_server_that_is_not_there(
    servers: tuple[HttpVendor, HttpVendor], story: RunStory
) -> None:
    _, second = servers
    second.answers = [stream("Fine.")]
    nowhere = OpenAILLMService(model="m", api_key="k", base_url="http://127.0.0.1:9/v1")
    there = OpenAILLMService(model="m", api_key="k", base_url=f"{second.url}/v1")

    async def act(rig: Rig) -> None:
        await rig.send(ask())
        await rig.down.seen(LLMFullResponseEndFrame)

    # Its own attempts to connect again take longer than a caller waits.
    rig = await story(FallbackLLMService([nowhere, there], attempt_timeout_secs=0.5), act)
    assert said(rig) == "Fine."


@pytest.mark.parametrize("end", [None, HANG])
async def test_a_model_that_breaks_off(
    servers: tuple[HttpVendor, HttpVendor], story: RunStory, end: Any
) -> None:
    first, second = servers
    first.answers = answers([*stream("It", " is", " cold")[:-1], end])
    second.answers = [stream("It", " is", " cold", " and", " dark.")]

    async def act(rig: Rig) -> None:
        await rig.send(ask())
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(models(servers, stall_timeout_secs=1.0), act)
    assert said(rig) == "It is cold and dark."
    assert [message["role"] for message in second.requests[0][3]["messages"]] == [
        "user",
        "assistant",
        "user",
    ]
    assert second.requests[0][3]["messages"][1]["content"] == "It is cold"
    assert rig.up.errors == []


async def test_back_to_a_model_that_is_well_again(
    servers: tuple[HttpVendor, HttpVendor], story: RunStory
) -> None:
    first, second = servers
    first.answers = answers(
        web.Response(status=401), [*stream("Probed.")[:-1], HANG], stream("Three.")
    )
    second.answers = [stream("One."), stream("Two.")]
    chain = models(servers, probe_after_secs=0.001)
    recovered = asyncio.Event()
    chain.add_event_handler("on_service_recovered", lambda chain, name: recovered.set())

    async def act(rig: Rig) -> None:
        for number in (1, 2, 3):
            await rig.send(ask())
            await rig.down.seen(LLMFullResponseEndFrame, number)
            if number == 2:
                await recovered.wait()
                await first.gone.wait()  # the rest of the probe is not generated

    rig = await story(chain, act)
    assert said(rig) == "One.Two.Three."


async def test_a_voice_that_loses_its_connection(
    servers: tuple[HttpVendor, HttpVendor], elevenlabs: ElevenLabsVendor, story: RunStory
) -> None:
    _, second = servers
    elevenlabs.rate_hz = RATE

    async def speak_and_break(connection: Any, context_id: str, text: str) -> bool:
        await elevenlabs.say(context_id, "Your flight to Os")
        connection.transport.abort()
        return True

    elevenlabs.on_text = speak_and_break
    second.answers = [lambda body: [pcm(body["input"], 24000)]]
    chain = FallbackTTSService(
        [
            ElevenLabsTTSService(api_key="k", voice_id="v", url=elevenlabs.url),
            OpenAITTSService(api_key="k", base_url=f"{second.url}/v1"),
        ]
    )

    async def act(rig: Rig) -> None:
        text = LLMTextFrame("Your flight to Oslo is late.")
        await rig.send(LLMFullResponseStartFrame(), text, LLMFullResponseEndFrame())
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(chain, act)
    # Nobody knows whether the last word that was told was spoken to its end.
    assert [request[3]["input"] for request in second.requests] == ["to Oslo is late."]
    assert " ".join(rig.down.words).split() == "Your flight to Oslo is late.".split()
    assert {frame.sample_rate for frame in rig.down.of(TTSAudioRawFrame)} == {RATE, 24000}
    assert rig.up.errors == []


async def test_a_voice_that_refuses(
    servers: tuple[HttpVendor, HttpVendor], elevenlabs: ElevenLabsVendor, story: RunStory
) -> None:
    _, second = servers
    elevenlabs.refuse = 403
    second.answers = [lambda body: [pcm(body["input"], 24000)]] * 2
    chain = FallbackTTSService(
        [
            ElevenLabsTTSService(api_key="k", voice_id="v", url=elevenlabs.url, name="voice"),
            OpenAITTSService(api_key="k", base_url=f"{second.url}/v1"),
        ]
    )

    async def act(rig: Rig) -> None:
        text = [LLMTextFrame("Hello."), LLMTextFrame(" And good bye.")]
        await rig.send(LLMFullResponseStartFrame(), *text, LLMFullResponseEndFrame())
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await story(chain, act)
    assert [request[3]["input"].strip() for request in second.requests] == [
        "Hello.",
        "And good bye.",
    ]
    assert rig.up.errors == []
    assert chain.members()[0].last_failure == (
        "ElevenLabs refused the API key: check api_key and what it may be used for (403)"
    )


@pytest.mark.parametrize("failure", [web.Response(status=400), [HANG]])
async def test_a_recogniser_that_fails(
    servers: tuple[HttpVendor, HttpVendor], story: RunStory, failure: Any
) -> None:
    first, second = servers
    first.answers, second.answers = answers(failure), [web.json_response({"text": "Understood."})]
    chain = FallbackSTTService(
        [OpenAISTTService(api_key="k", base_url=f"{server.url}/v1") for server in servers],
        attempt_timeout_secs=1.0,
    )
    audio = [InputAudioRawFrame(bytes([n, 0]) * 160, RATE, 1) for n in range(1, 100)]

    async def act(rig: Rig) -> None:
        await rig.send(*audio[:50], UserStartedSpeakingFrame(), *audio[50:])
        await rig.send(UserStoppedSpeakingFrame())
        await rig.down.seen(TranscriptionFrame)

    rig = await story(chain, act)
    assert [frame.text for frame in rig.down.of(TranscriptionFrame)] == ["Understood."]
    assert first.requests[0][3]["file"] == second.requests[0][3]["file"]
    assert rig.up.errors == []
