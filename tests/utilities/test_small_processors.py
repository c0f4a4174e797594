"""Processors of a few lines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from loguru import logger

from antiphon.frames.frames import (
    ErrorFrame,
    Frame,
    InputImageRawFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    OutputImageRawFrame,
    TextFrame,
    TTSStartedFrame,
    UserImageRawFrame,
    VisionImageRawFrame,
)
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.aggregators.vision_image_frame import VisionImageFrameAggregator
from antiphon.processors.async_generator import AsyncGeneratorProcessor
from antiphon.processors.frameworks.langchain import LangchainProcessor
from antiphon.processors.logger import FrameLogger
from antiphon.processors.text_transformer import StatelessTextTransformer
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time


class NamesOfTexts:
    async def serialize(self, frame: Frame) -> str | None:
        return frame.text if isinstance(frame, TextFrame) else None


async def test_a_pipeline_as_a_generator() -> None:
    processor = AsyncGeneratorProcessor(serializer=NamesOfTexts())
    await run_test(
        processor,
        frames_to_send=[TextFrame("a"), TTSStartedFrame(), TextFrame("b")],
        expected_down_frames=[TextFrame, TTSStartedFrame, TextFrame],
    )
    assert [item async for item in processor.generator()] == ["a", "b"]


async def test_text_is_transformed_by_plain_and_async_functions() -> None:
    async def shout(text: str) -> str:
        return text.upper()

    for function in (str.upper, shout):
        down, _ = await run_test(
            StatelessTextTransformer(function),
            frames_to_send=[LLMTextFrame("a"), TTSStartedFrame()],
            expected_down_frames=[TextFrame, TTSStartedFrame],
        )
        assert type(down[0]) is TextFrame
        assert down[0].text == "A"


async def test_an_image_gets_the_question_before_it() -> None:
    image: dict[str, Any] = {"image": b"x", "size": (1, 1), "format": "RGB"}
    down, _ = await run_test(
        VisionImageFrameAggregator(),
        frames_to_send=[
            InputImageRawFrame(**image),
            TextFrame("what?"),
            SleepFrame(),
            UserImageRawFrame(**image, user_id="ann"),
            InputImageRawFrame(**image),
            SleepFrame(),
            OutputImageRawFrame(**image),
        ],
        expected_down_frames=[VisionImageRawFrame, OutputImageRawFrame],
    )
    assert isinstance(down[0], VisionImageRawFrame)
    assert (down[0].text, down[0].image) == ("what?", b"x")


async def logged(processor: FrameLogger, frame: Frame) -> list[str]:
    lines: list[str] = []
    number = logger.add(
        lambda message: lines.append(message.record["message"]),
        level="DEBUG",
        filter="antiphon.processors.logger",
    )
    try:
        await run_test(processor, frames_to_send=[frame], expected_down_frames=[type(frame)])
    finally:
        logger.remove(number)
    return lines


async def test_the_logger_tells_which_frames_come_by_but_not_what_was_said() -> None:
    frame = TextFrame("secret")
    lines = await logged(FrameLogger("<in> {x}", color="red"), frame)
    assert f"<in> {{x}}: > {frame.name}" in lines
    assert not [line for line in lines if "secret" in line]
    lines = await logged(FrameLogger(include_content=True), TextFrame("<b>{secret}</b>"))
    assert [line for line in lines if "<b>{secret}</b>" in line]
    assert not [
        line
        for line in await logged(FrameLogger(ignored_frame_types=(TextFrame,)), frame)
        if "TextFrame" in line
    ]


class Chunk:
    def __init__(self, content: Any) -> None:
        self.content = content


class FakeChain:
    def __init__(self, *tokens: Any) -> None:
        self.tokens = tokens
        self.asked: list[Any] = []

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        self.asked.append((input, config))
        for token in self.tokens:
            if isinstance(token, Exception):
                raise token
            yield token


def context() -> OpenAILLMContextFrame:
    return OpenAILLMContextFrame(
        OpenAILLMContext(
            [{"role": "system", "content": "s"}, {"role": "user", "content": " hello "}]
        )
    )


async def test_a_chain_answers_to_the_last_message() -> None:
    chain = FakeChain("Hi", Chunk(" the"), Chunk([{"type": "text", "text": "re"}]), Chunk(""), 5)
    processor = LangchainProcessor(chain, transcript_key="question")
    processor.set_participant_id("ann")
    down, _ = await run_test(
        processor,
        frames_to_send=[context(), TextFrame("x")],
        expected_down_frames=[
            LLMFullResponseStartFrame,
            *[LLMTextFrame] * 3,
            LLMFullResponseEndFrame,
            TextFrame,
        ],
    )
    assert [frame.text for frame in down if isinstance(frame, LLMTextFrame)] == ["Hi", " the", "re"]
    assert chain.asked == [({"question": "hello"}, {"configurable": {"session_id": "ann"}})]


async def test_a_chain_that_fails_is_an_error_and_the_answer_ends() -> None:
    await run_test(
        LangchainProcessor(FakeChain("a", ValueError("no"))),
        frames_to_send=[context()],
        expected_down_frames=[LLMFullResponseStartFrame, LLMTextFrame, LLMFullResponseEndFrame],
        expected_up_frames=[ErrorFrame],
    )


@pytest.mark.leaks("threads", reason="langchain starts threads of its own")
async def test_a_real_chain() -> None:
    language_models = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    prompts = pytest.importorskip("langchain_core.prompts")
    model = language_models.GenericFakeChatModel(messages=iter(["Good morning"]))
    chain = prompts.ChatPromptTemplate.from_messages([("user", "{input}")]) | model
    down, _ = await run_test(
        LangchainProcessor(chain),
        frames_to_send=[context()],
        expected_down_frames=[
            LLMFullResponseStartFrame,
            *[LLMTextFrame] * 3,
            LLMFullResponseEndFrame,
        ],
    )
    texts = [frame.text for frame in down if isinstance(frame, LLMTextFrame)]
    assert "".join(texts) == "Good morning"
