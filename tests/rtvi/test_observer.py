"""What happens in the pipeline, as messages to the client."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    ErrorFrame,
    Frame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    MetricsFrame,
    TextFrame,
    TranscriptionFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import (
    LLMTokenUsage,
    LLMUsageMetricsData,
    MetricsData,
    ProcessingMetricsData,
    SmartTurnMetricsData,
    TTFBMetricsData,
    TTSUsageMetricsData,
)
from antiphon.observers.base_observer import FramePushed
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.frameworks._rtvi.observer import SEEN_LIMIT
from antiphon.processors.frameworks.rtvi import (
    RTVIClientMessageFrame,
    RTVIObserver,
    RTVIObserverParams,
    RTVIProcessor,
    RTVIServerMessageFrame,
    RTVIServerResponseFrame,
)
from antiphon.services.google.frames import LLMSearchOrigin, LLMSearchResponseFrame, LLMSearchResult
from antiphon.services.google.rtvi import GoogleRTVIObserver

pytestmark = pytest.mark.virtual_time


def outline(messages: list[Any]) -> list[Any]:
    """Types of messages; with the text where that is all there is."""
    result: list[Any] = []
    for message in messages:
        assert message["label"] == "rtvi-ai"
        data = message.get("data") or {}
        result.append((message["type"], data["text"]) if set(data) == {"text"} else message["type"])
    return result


async def observed(make_bot: Any, *frames: Frame, **options: Any) -> list[Any]:
    async with make_bot(**options) as bot:
        await bot.push(*frames)
        await bot.settle(1)
        messages: list[Any] = bot.sent
        return messages


async def test_who_speaks(make_bot: Any) -> None:
    frames = [UserStartedSpeakingFrame(emulated=True), UserStoppedSpeakingFrame()]
    kinds = ["user-started-speaking", "user-stopped-speaking"]
    assert outline(await observed(make_bot, *frames)) == kinds


async def test_the_bot_s_speech_is_told_once_though_frames_come_in_pairs(make_bot: Any) -> None:
    async with make_bot() as bot:
        output = bot.transport.output()
        for kind in (BotStartedSpeakingFrame, BotStoppedSpeakingFrame):
            await output.push_frame(kind(), FrameDirection.DOWNSTREAM)
            await output.push_frame(kind(), FrameDirection.UPSTREAM)
            await bot.settle()
        assert outline(bot.sent) == ["bot-started-speaking", "bot-stopped-speaking"]


async def test_transcriptions(make_bot: Any) -> None:
    sent = await observed(
        make_bot,
        InterimTranscriptionFrame("he", "u", "t1"),
        TranscriptionFrame("hello", "u", "t2"),
    )
    assert {message["type"] for message in sent} == {"user-transcription"}
    assert [message["data"] for message in sent] == [
        {"text": "he", "user_id": "u", "timestamp": "t1", "final": False},
        {"text": "hello", "user_id": "u", "timestamp": "t2", "final": True},
    ]


async def test_an_answer_comes_as_tokens_and_sentences(make_bot: Any) -> None:
    tokens = ["Hi", " there", ".", " How", " are you? I", " am", " Mr.", " Bot"]
    sent = await observed(
        make_bot,
        LLMFullResponseStartFrame(),
        *[LLMTextFrame(token) for token in tokens],
        LLMFullResponseEndFrame(),
    )
    texts = [message for message in outline(sent) if message[0] == "bot-llm-text"]
    assert texts == [("bot-llm-text", token) for token in tokens]
    others = [message for message in outline(sent) if message not in texts]
    assert others == [
        "bot-llm-started",
        ("bot-transcription", "Hi there."),
        ("bot-transcription", " How are you?"),
        ("bot-transcription", " I am Mr. Bot"),
        "bot-llm-stopped",
    ]


async def test_spoken_text_is_told_when_it_leaves_the_output(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.push(TTSStartedFrame())
        await bot.rtvi.push_frame(TTSTextFrame("word"), FrameDirection.UPSTREAM)
        await bot.settle()
        assert outline(bot.sent) == ["bot-tts-started"]
        await bot.push(TTSTextFrame("word"), TTSStoppedFrame())
        kinds = ["bot-tts-started", ("bot-tts-text", "word"), "bot-tts-stopped"]
        assert outline(bot.sent) == kinds


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], None),
        ([{"role": "user", "content": "hello"}], "hello"),
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], None),
        ([{"role": "user", "content": ""}], None),
        ([{"role": "user"}], None),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image_url", "image_url": {"url": "x"}},
                        {"type": "text", "text": "b"},
                    ],
                }
            ],
            "a b",
        ),
        ([SimpleNamespace(role="user", parts=[SimpleNamespace(text="g"), object()])], "g"),
        (["odd"], None),
    ],
)
async def test_what_the_model_gets(make_bot: Any, messages: list[Any], text: str | None) -> None:
    sent = await observed(make_bot, OpenAILLMContextFrame(OpenAILLMContext(messages)))
    assert outline(sent) == ([] if text is None else [("user-llm-text", text)])


async def test_metrics(make_bot: Any) -> None:
    turn = SmartTurnMetricsData(
        processor="s",
        is_complete=True,
        probability=0.5,
        inference_time_ms=1,
        server_total_time_ms=1,
        e2e_processing_time_ms=1,
    )
    usage = LLMTokenUsage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    data: list[MetricsData] = [
        TTFBMetricsData(processor="p", model="m", value=0.1),
        ProcessingMetricsData(processor="p", value=0.2),
        ProcessingMetricsData(processor="q", value=0.3),
        LLMUsageMetricsData(processor="p", value=usage),
        TTSUsageMetricsData(processor="t", value=5),
        turn,
    ]
    sent = await observed(
        make_bot, MetricsFrame(data=data), MetricsFrame(data=[]), MetricsFrame(data=[turn])
    )
    metrics = {
        "ttfb": [{"processor": "p", "model": "m", "value": 0.1}],
        "processing": [{"processor": "p", "value": 0.2}, {"processor": "q", "value": 0.3}],
        "tokens": [{"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}],
        "characters": [{"processor": "t", "value": 5}],
    }
    assert sent == [{"label": "rtvi-ai", "type": "metrics", "data": metrics}]


async def test_frames_of_the_application(make_bot: Any) -> None:
    message = RTVIClientMessageFrame(msg_id="m", type="ask")
    sent = await observed(
        make_bot,
        RTVIServerMessageFrame(data={"x": None}),
        RTVIServerResponseFrame(client_msg=message, data={"ok": 1}),
        RTVIServerResponseFrame(client_msg=message, error="no"),
    )
    label = {"label": "rtvi-ai"}
    assert sent == [
        {**label, "type": "server-message", "data": {"x": None}},
        {**label, "type": "server-response", "id": "m", "data": {"t": "ask", "d": {"ok": 1}}},
        {**label, "type": "error-response", "id": "m", "data": {"error": "no"}},
    ]


async def test_the_documented_push_of_a_server_message_works(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.rtvi.push_frame(RTVIServerMessageFrame(data=1))
        await bot.settle()
        assert [message["data"] for message in bot.of("server-message")] == [1]


ALL_FRAMES: dict[str, list[Any]] = {
    "user_speaking_enabled": [UserStartedSpeakingFrame, UserStoppedSpeakingFrame],
    "user_transcription_enabled": [lambda: TranscriptionFrame("a", "u", "t")],
    "user_llm_enabled": [
        lambda: OpenAILLMContextFrame(OpenAILLMContext([{"role": "user", "content": "a"}]))
    ],
    "bot_llm_enabled": [
        LLMFullResponseStartFrame,
        lambda: LLMTextFrame("a."),
        LLMFullResponseEndFrame,
    ],
    "bot_tts_enabled": [TTSStartedFrame, TTSStoppedFrame, lambda: TTSTextFrame("a")],
    "metrics_enabled": [lambda: MetricsFrame([TTSUsageMetricsData(processor="t", value=5)])],
}


@pytest.mark.parametrize("switch", ALL_FRAMES)
async def test_everything_can_be_turned_off(make_bot: Any, switch: str) -> None:
    params = RTVIObserverParams(**{switch: False})
    frames = [make() for make in ALL_FRAMES[switch]]
    assert await observed(make_bot, *frames, observer_params=params) == []
    assert await observed(make_bot, *[make() for make in ALL_FRAMES[switch]]) != []


async def test_errors_and_the_bot_s_speech_can_be_turned_off(make_bot: Any) -> None:
    params = RTVIObserverParams(errors_enabled=False, bot_speaking_enabled=False)
    async with make_bot(observer_params=params) as bot:
        output = bot.transport.output()
        await output.push_frame(BotStartedSpeakingFrame(), FrameDirection.UPSTREAM)
        await output.push_error(ErrorFrame("bad"))
        await bot.settle()
        assert bot.sent == []


def test_all_switches_are_tested_and_on() -> None:
    switches = {field.name for field in dataclasses.fields(RTVIObserverParams)}
    assert switches == {*ALL_FRAMES, "errors_enabled", "bot_speaking_enabled"}
    assert all(dataclasses.asdict(RTVIObserverParams()).values())


class Recorder(RTVIObserver):
    """Keeps what it would send."""

    def __init__(self) -> None:
        super().__init__(RTVIProcessor())
        self.sent: list[Any] = []

    async def push_transport_message_urgent(self, model: Any, exclude_none: bool = True) -> None:
        self.sent.append(model.model_dump())

    async def see(self, frame: Frame, way: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        await self.on_push_frame(FramePushed(self._rtvi, self._rtvi, frame, way, 0))


async def test_a_frame_is_told_once_however_many_hops_it_makes() -> None:
    observer = Recorder()
    for frame in [LLMTextFrame("a"), LLMTextFrame("a"), TextFrame("b")]:
        for way in (FrameDirection.DOWNSTREAM, FrameDirection.UPSTREAM):
            await observer.see(frame, way)
    assert len(observer.sent) == 2


async def test_the_memory_of_frames_is_bounded() -> None:
    observer = Recorder()
    first = LLMTextFrame("a")
    await observer.see(first)
    for _ in range(SEEN_LIMIT - 1):
        await observer.see(LLMTextFrame("b"))
    await observer.see(first)
    assert len(observer.sent) == SEEN_LIMIT
    assert len(observer._frames_seen) == SEEN_LIMIT


async def test_search_results(make_bot: Any) -> None:
    passage = LLMSearchResult("passage", [0.9])
    found = LLMSearchResponseFrame("answer", "<p>", [LLMSearchOrigin("uri", "title", [passage])])
    sent = await observed(make_bot, found, UserStartedSpeakingFrame(), observer=GoogleRTVIObserver)
    assert outline(sent) == ["bot-llm-search-response", "user-started-speaking"]
    origin = {
        "site_uri": "uri",
        "site_title": "title",
        "results": [{"text": "passage", "confidence": [0.9]}],
    }
    data = {"search_result": "answer", "rendered_content": "<p>", "origins": [origin]}
    assert sent[0]["data"] == data
