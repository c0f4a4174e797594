from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import pytest
from loguru import logger

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    EndFrame,
    Frame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.observers.loggers.debug_log_observer import DebugLogObserver, FrameEndpoint
from antiphon.observers.loggers.llm_log_observer import LLMLogObserver
from antiphon.observers.loggers.transcription_log_observer import TranscriptionLogObserver
from antiphon.observers.loggers.user_bot_latency_log_observer import UserBotLatencyLogObserver
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.llm_service import LLMService
from antiphon.services.stt_service import STTService

_SECOND_NS = 1_000_000_000


class Recogniser(STTService):
    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        yield None


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(line.rstrip("\n")), format="{level} {message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
def plain() -> FrameProcessor:
    return FrameProcessor(name="plain")


@pytest.fixture
def other() -> FrameProcessor:
    return FrameProcessor(name="other")


async def _push(
    observer: BaseObserver,
    frame: Frame,
    source: FrameProcessor,
    destination: FrameProcessor,
    *,
    secs: float = 1.234,
    direction: FrameDirection = FrameDirection.DOWNSTREAM,
) -> None:
    await observer.on_push_frame(
        FramePushed(source, destination, frame, direction, round(secs * _SECOND_NS))
    )


async def test_debug_logs_every_field_but_binary_ones(
    log: list[str], plain: FrameProcessor, other: FrameProcessor
) -> None:
    observer = DebugLogObserver()
    await _push(observer, TextFrame("a {brace}"), plain, other)
    await _push(observer, InputAudioRawFrame(b"\0\0", 16000, 1), plain, other)
    await _push(observer, EndFrame(), plain, other, direction=FrameDirection.UPSTREAM)
    text, audio, end = log
    assert text.startswith("DEBUG plain → other: TextFrame ")
    assert text.endswith("text: 'a {brace}' at 1.23s")
    assert "sample_rate: 16000" in audio
    assert "audio:" not in audio
    assert end.startswith("DEBUG plain ← other: EndFrame ")


async def test_debug_leaves_out_the_fields_named(
    log: list[str], plain: FrameProcessor, other: FrameProcessor
) -> None:
    observer = DebugLogObserver(exclude_fields={"text"})
    await _push(observer, TextFrame("secret"), plain, other)
    await _push(observer, InputAudioRawFrame(b"\0\0", 16000, 1), plain, other)
    assert "secret" not in log[0]
    assert "audio: <2 bytes>" in log[1]


async def test_debug_shows_a_context_by_its_messages(
    log: list[str], plain: FrameProcessor, other: FrameProcessor
) -> None:
    context = OpenAILLMContext([{"role": "user", "content": "a question"}])
    await _push(DebugLogObserver(), OpenAILLMContextFrame(context), plain, other)
    assert "context: OpenAILLMContext with messages: [" in log[0]
    assert "a question" in log[0]


async def test_debug_filters_by_type_subclasses_included(
    log: list[str], plain: FrameProcessor, other: FrameProcessor
) -> None:
    observer = DebugLogObserver(frame_types=(TextFrame,))
    await _push(observer, EndFrame(), plain, other)
    await _push(observer, LLMTextFrame("hello"), plain, other)
    assert len(log) == 1
    assert "LLMTextFrame" in log[0]


async def test_debug_filters_by_the_end_of_a_hop(
    log: list[str], plain: FrameProcessor, other: FrameProcessor
) -> None:
    service = LLMService(name="llm")
    observer = DebugLogObserver(
        frame_types={
            TextFrame: (LLMService, FrameEndpoint.SOURCE),
            UserStartedSpeakingFrame: (LLMService, FrameEndpoint.DESTINATION),
            EndFrame: None,
        }
    )
    await _push(observer, TextFrame("no"), plain, service)
    await _push(observer, TextFrame("yes"), service, plain)
    await _push(observer, UserStartedSpeakingFrame(), service, plain)
    await _push(observer, UserStartedSpeakingFrame(), plain, service)
    await _push(observer, EndFrame(), plain, other)
    assert [line.split(": ")[1].split()[0] for line in log] == [
        "TextFrame",
        "UserStartedSpeakingFrame",
        "EndFrame",
    ]
    assert "'yes'" in log[0]


async def test_llm_logs_what_leaves_and_what_enters(
    log: list[str], plain: FrameProcessor, other: FrameProcessor
) -> None:
    service = LLMService(name="llm")
    observer = LLMLogObserver()
    call = FunctionCallInProgressFrame(
        function_name="weather", tool_call_id="1", arguments={"city": "Oslo"}
    )
    result = FunctionCallResultFrame(
        function_name="weather", tool_call_id="1", arguments={"city": "Oslo"}, result={"c": -3}
    )
    context = OpenAILLMContext([{"role": "user", "content": "a question"}])
    for frame in (
        LLMFullResponseStartFrame(),
        LLMTextFrame("hi {x}"),
        call,
        LLMFullResponseEndFrame(),
    ):
        await _push(observer, frame, service, plain)
    await _push(observer, OpenAILLMContextFrame(context), plain, service)
    await _push(observer, result, plain, service)
    await _push(observer, LLMTextFrame("elsewhere"), plain, other)
    await _push(observer, UserStartedSpeakingFrame(), plain, service)
    assert log[:4] == [
        "DEBUG 🧠 llm → LLM START RESPONSE at 1.23s",
        "DEBUG 🧠 llm → LLM GENERATING: 'hi {x}' at 1.23s",
        "DEBUG 🧠 llm → LLM FUNCTION CALL (1): 'weather'({'city': 'Oslo'}) at 1.23s",
        "DEBUG 🧠 llm → LLM END RESPONSE at 1.23s",
    ]
    assert log[4].startswith("DEBUG 🧠 → llm LLM CONTEXT FRAME: [")
    assert "a question" in log[4]
    assert log[5:] == ["DEBUG 🧠 → llm LLM FUNCTION CALL RESULT (1): {'c': -3} at 1.23s"]


async def test_transcriptions_are_logged_where_they_leave_the_service(
    log: list[str], plain: FrameProcessor, other: FrameProcessor
) -> None:
    service = Recogniser(name="stt")
    observer = TranscriptionLogObserver()
    for source in (service, plain):
        await _push(observer, InterimTranscriptionFrame("hel", "u", "now"), source, other)
        await _push(observer, TranscriptionFrame("hello", "u", "now"), source, other)
    assert log == [
        "DEBUG 💬 stt → INTERIM TRANSCRIPTION: 'hel' from 'u' at 1.23s",
        "DEBUG 💬 stt → TRANSCRIPTION: 'hello' from 'u' at 1.23s",
    ]


async def test_latency_counts_from_the_users_last_word_to_the_bots_first(
    log: list[str], plain: FrameProcessor, other: FrameProcessor
) -> None:
    observer = UserBotLatencyLogObserver()
    steps: list[tuple[float, Frame]] = [
        (1.0, UserStoppedSpeakingFrame()),
        (1.5, BotStartedSpeakingFrame()),
        (3.0, UserStoppedSpeakingFrame()),
        (3.1, UserStartedSpeakingFrame()),  # the user was not finished
        (3.2, BotStartedSpeakingFrame()),
        (4.0, UserStoppedSpeakingFrame()),
        (5.5, BotStartedSpeakingFrame()),
        (6.0, EndFrame()),
    ]
    for secs, frame in steps:
        for hop in range(3):
            await _push(observer, frame, plain, other, secs=secs + hop / 1000)
    label = "⏱️ LATENCY FROM USER STOPPED SPEAKING TO BOT STARTED SPEAKING"
    assert log == [
        f"DEBUG {label}: 0.500s",
        f"DEBUG {label}: 1.500s",
        f"INFO {label} - Avg: 1.000s, Min: 0.500s, Max: 1.500s",
    ]
