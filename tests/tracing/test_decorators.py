"""Decorators for a program's own services and classes, and services whose audio comes late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from tests.tracing.conftest import Spans

from antiphon.frames.frames import EndFrame, Frame, TextFrame, TranscriptionFrame, TTSAudioRawFrame
from antiphon.metrics.metrics import LLMTokenUsage
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.llm_service import LLMService
from antiphon.services.stt_service import STTService
from antiphon.services.tts_service import TTSService
from antiphon.testing.virtual_time import VirtualClock
from antiphon.utils.time import time_now_iso8601
from antiphon.utils.tracing.class_decorators import AttachmentStrategy, Traceable, traceable, traced
from antiphon.utils.tracing.service_attributes import (
    add_gemini_live_span_attributes,
    add_openai_realtime_span_attributes,
    gen_ai_system,
)
from antiphon.utils.tracing.service_decorators import (
    traced_gemini_live,
    traced_llm,
    traced_openai_realtime,
    traced_stt,
    traced_tts,
)

pytestmark = pytest.mark.virtual_time


class Speaker(TTSService):
    def can_generate_metrics(self) -> bool:
        return True

    @traced_tts
    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        await asyncio.sleep(0.5)
        yield TTSAudioRawFrame(bytes(320), 16000, 1)


class Listener(STTService):
    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        yield None

    @traced_stt
    async def _handle_transcription(
        self, transcript: str, is_final: bool, language: str | None = None
    ) -> None:
        """For the trace only."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            await self.push_frame(TranscriptionFrame("hello", "me", time_now_iso8601()))
            await self._handle_transcription("hello", True, "en")


class Thinker(LLMService):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings = {"temperature": 0.5, "max_tokens": 12, "mode": "odd"}

    @traced_llm(name="thought")
    async def _process_context(self, context: OpenAILLMContext) -> str:
        return "done"

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            result = await self._process_context(OpenAILLMContext([{"role": "user"}]))
            assert result == "done"
        await self.push_frame(frame, direction)


class LateSpeaker(TTSService):
    """Its audio comes over another way than run_tts, as over a websocket."""

    def can_generate_metrics(self) -> bool:
        return True

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        await self.start_ttfb_metrics()
        self.create_task(self._receive(), "receive")
        yield None

    async def _receive(self) -> None:
        await asyncio.sleep(0.5)
        await self.stop_ttfb_metrics()
        await self.push_frame(TTSAudioRawFrame(bytes(320), 16000, 1))


async def run(processors: Sequence[FrameProcessor], frames: Sequence[Frame], secs: float) -> None:
    task = PipelineTask(
        Pipeline(list(processors)),
        params=PipelineParams(enable_metrics=True),
        enable_tracing=True,
        clock=VirtualClock(),
    )
    await task.queue_frames(frames)

    async def end() -> None:
        await asyncio.sleep(secs)
        await task.queue_frame(EndFrame())

    await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), end())


def secs_of(spans: Spans, name: str) -> float:
    span = spans.one(name)
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


async def test_a_decorated_service_makes_one_span_of_each_kind(spans: Spans) -> None:
    await run([Listener(), Thinker(), Speaker()], [TextFrame("Hello.")], 2.0)
    assert (spans.one("stt").attributes or {})["language"] == "en"
    thought = spans.one("thought").attributes or {}
    assert thought["gen_ai.request.temperature"] == 0.5
    assert thought["gen_ai.request.max_tokens"] == 12
    assert spans.named("llm") == []


async def test_a_decorated_generator_is_timed(spans: Spans) -> None:
    await run([Speaker()], [TextFrame("Hello.")], 2.0)
    assert secs_of(spans, "tts") == pytest.approx(0.5, abs=0.01)


async def test_a_span_lasts_until_the_first_audio_where_that_comes_later(spans: Spans) -> None:
    await run([LateSpeaker()], [TextFrame("Hello.")], 2.0)
    assert secs_of(spans, "tts") == pytest.approx(0.5, abs=0.01)
    assert "metrics.ttfb" in (spans.one("tts").attributes or {})


async def test_a_span_without_audio_ends_with_the_session(spans: Spans) -> None:
    await run([LateSpeaker()], [TextFrame("Hello.")], 0.1)
    assert spans.one("tts").end_time is not None


class Live(LLMService):
    @traced_openai_realtime("llm_setup")
    async def _set_up(self) -> None:
        assert self.open_span is not None
        add_openai_realtime_span_attributes(
            self.open_span,
            "OpenAIRealtimeBetaLLMService",
            "gpt",
            "llm_setup",
            session_properties={"instructions": "Be kind.", "voice": "anna", "tools": []},
            tools=[{"type": "function", "name": "lookup"}],
            function_calls=[{"name": "lookup"}, {"name": "clock"}],
        )

    @traced_gemini_live("llm_response")
    async def _respond(self) -> None:
        assert self.open_span is not None
        add_gemini_live_span_attributes(
            self.open_span,
            "GeminiMultimodalLiveLLMService",
            "gemini",
            "llm_response",
            text_output="Yes.",
            output_modality="TEXT",
        )
        await self.start_llm_usage_metrics(
            LLMTokenUsage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
        )

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            await self._set_up()
            await self._respond()
        await self.push_frame(frame, direction)


async def test_services_that_hear_and_speak(spans: Spans) -> None:
    await run([Live()], [TextFrame("Hello.")], 2.0)
    setup = dict(spans.one("llm_setup").attributes or {})
    assert setup["gen_ai.system"] == "openai"
    assert setup["gen_ai.operation.name"] == "llm_setup"
    assert setup["system_instruction"] == "Be kind."
    assert setup["session.voice"] == "anna"
    assert setup["tools.count"] == 1
    assert "lookup" in str(setup["tools.definitions"])
    assert setup["function_calls.count"] == 2
    assert setup["function_calls.names"] == "lookup,clock"
    response = dict(spans.one("llm_response").attributes or {})
    assert response["gen_ai.system"] == "gcp.gemini"
    assert response["output"] == "Yes."
    assert response["output_modality"] == "TEXT"
    assert response["gen_ai.usage.input_tokens"] == 3
    assert spans.children(spans.one("turn")) == ["llm_setup", "llm_response"]


class Clerk(Traceable):
    def __init__(self) -> None:
        super().__init__("clerk")

    @traced
    async def work(self) -> None:
        await self.step()
        await self.aside()
        await self.apart()

    @traced(name="step")
    async def step(self) -> None:
        pass

    @traced(attachment_strategy=AttachmentStrategy.LINK)
    async def aside(self) -> None:
        pass

    @traced(attachment_strategy=AttachmentStrategy.NONE)
    async def apart(self) -> None:
        pass


async def test_methods_of_a_traceable_class(spans: Spans) -> None:
    await Clerk().work()
    assert spans.children(spans.one("clerk")) == ["work", "aside", "apart"]
    assert spans.children(spans.one("work")) == ["step"]
    work = spans.one("work").get_span_context()
    assert work is not None
    assert [link.context.span_id for link in spans.one("aside").links] == [work.span_id]
    assert not spans.one("apart").links


async def test_a_class_made_traceable(spans: Spans) -> None:
    @traceable
    class Porter:
        def __init__(self, load: int) -> None:
            super().__init__()
            self.load = load

        @traced
        async def carry(self) -> int:
            return self.load

    assert await Porter(3).carry() == 3
    assert spans.children(spans.one("Porter")) == ["carry"]


async def test_what_cannot_be_traced() -> None:
    with pytest.raises(ValueError, match="async"):
        traced(lambda self: None)

    class Plain:
        @traced
        async def work(self) -> None:
            pass

    with pytest.raises(RuntimeError, match="Traceable"):
        await Plain().work()


async def test_names_of_providers() -> None:
    names = {
        "CartesiaTTSService": "cartesia",
        "CartesiaHttpTTSService": "cartesia",
        "DeepgramSTTService": "deepgram",
        "OpenAILLMService": "openai",
        "GoogleLLMService": "gcp.gemini",
        "GoogleVertexLLMService": "gcp.vertex_ai",
        "AzureLLMService": "az.ai.openai",
        "AzureTTSService": "azure",
        "AWSBedrockLLMService": "aws.bedrock",
        "GrokLLMService": "xai",
        "OpenAIRealtimeBetaLLMService": "openai",
        "GeminiMultimodalLiveLLMService": "gcp.gemini",
        "openai": "openai",
    }
    assert {name: gen_ai_system(name) for name in names} == names
