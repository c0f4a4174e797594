"""Answers from a LangChain chain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar, Protocol

from loguru import logger

from antiphon.frames.frames import (
    ErrorFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
)
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContextFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


class Chain(Protocol):
    """What is used of a LangChain runnable."""

    def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Streams what the chain makes of an input."""


class LangchainProcessor(FrameProcessor):
    """Asks a chain what to answer to the last message of the conversation.

    The chain keeps the conversation itself, if it is to know of it: it gets the participant's id
    as ``session_id``.
    """

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it works with the bot's own chain"

    def __init__(self, chain: Chain, transcript_key: str = "input", **kwargs: Any) -> None:
        """Makes the processor.

        Args:
            chain: A runnable of LangChain that streams text or messages.
            transcript_key: Under which name the chain gets the user's words.
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        self._chain = chain
        self._transcript_key = transcript_key
        self._participant_id: str | None = None

    def set_participant_id(self, participant_id: str) -> None:
        """Sets whose conversation it is.

        Args:
            participant_id: The chain's ``session_id``.
        """
        self._participant_id = participant_id

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answers to a context frame, which is consumed; other frames pass."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, OpenAILLMContextFrame):
            await self.push_frame(frame, direction)
            return
        messages: list[Any] = frame.context.messages
        if messages:
            await self._answer(_text(messages[-1].get("content")).strip())

    async def _answer(self, text: str) -> None:
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            async for token in self._chain.astream(
                {self._transcript_key: text},
                config={"configurable": {"session_id": self._participant_id}},
            ):
                piece = _text(token)
                if piece:
                    await self.push_frame(LLMTextFrame(piece))
        except Exception as error:  # noqa: BLE001 - whatever a chain raises
            logger.opt(exception=error).error("chain failed", processor=self.name)
            await self.push_error(ErrorFrame(error=f"chain failed: {error}"))
        await self.push_frame(LLMFullResponseEndFrame())


def _text(value: Any) -> str:
    """The text of a token: text itself, a message chunk, or the parts of one."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(part) for part in value)
    if isinstance(value, dict):
        return _text(value.get("text", ""))
    content = getattr(value, "content", None)
    return _text(content) if isinstance(content, (str, list)) else ""
