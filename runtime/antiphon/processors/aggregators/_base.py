"""What the user's and the assistant's half of a context aggregator have in common."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from antiphon.frames.frames import (
    Frame,
    LLMMessagesAppendFrame,
    LLMMessagesFrame,
    LLMMessagesUpdateFrame,
    LLMSetToolChoiceFrame,
    LLMSetToolsFrame,
)
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


class BaseLLMResponseAggregator(FrameProcessor):
    """Collects text into messages of one role.

    An aggregator shares the conversation with the bot program, so it runs beside it.
    """

    movable = False
    pinned_reason = "shares the conversation with the bot program"

    @property
    @abstractmethod
    def messages(self) -> list[Any]:
        """The messages of the conversation."""

    @property
    @abstractmethod
    def role(self) -> str:
        """Whose messages this aggregator writes: ``user`` or ``assistant``."""

    @abstractmethod
    def add_messages(self, messages: Sequence[Any]) -> None:
        """Appends messages to the conversation."""

    @abstractmethod
    def set_messages(self, messages: Sequence[Any]) -> None:
        """Replaces the messages of the conversation."""

    @abstractmethod
    def set_tools(self, tools: Any) -> None:
        """Replaces the tools the model may call."""

    @abstractmethod
    def set_tool_choice(self, tool_choice: Any) -> None:
        """Sets which tool the model has to use."""

    @abstractmethod
    async def reset(self) -> None:
        """Forgets the text collected so far."""

    @abstractmethod
    async def handle_aggregation(self, aggregation: str) -> None:
        """Adds a finished text to the conversation."""

    @abstractmethod
    async def push_aggregation(self) -> None:
        """Finishes the text collected so far and pushes what follows from it."""


class LLMContextResponseAggregator(BaseLLMResponseAggregator):
    """An aggregator that writes to an ``OpenAILLMContext``."""

    def __init__(self, *, context: OpenAILLMContext, role: str, **kwargs: Any) -> None:
        """Makes an aggregator.

        Args:
            context: The conversation, shared with whoever else holds it.
            role: Role of the messages it writes.
            **kwargs: Passed on to ``FrameProcessor``.
        """
        super().__init__(**kwargs)
        self._context = context
        self._role = role
        self._aggregation = ""
        self._watchers: list[Callable[[], None]] = []

    @property
    def messages(self) -> list[Any]:
        """The messages of the conversation: the list itself."""
        return self._context.messages

    @property
    def role(self) -> str:
        """Role of the messages this aggregator writes."""
        return self._role

    @property
    def context(self) -> OpenAILLMContext:
        """The conversation."""
        return self._context

    def watch(self, callback: Callable[[], None]) -> None:
        """Calls a function, at once, whenever the conversation or what it waits for has changed.

        It is not called for changes that others make to the context.
        """
        self._watchers.append(callback)

    def get_context_frame(self) -> OpenAILLMContextFrame:
        """A new frame that asks the model to answer the conversation as it is."""
        return OpenAILLMContextFrame(context=self._context)

    async def push_context_frame(
        self, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes such a frame."""
        await self.push_frame(self.get_context_frame(), direction)

    def add_messages(self, messages: Sequence[Any]) -> None:
        """Appends messages to the conversation."""
        self._context.add_messages(messages)

    def set_messages(self, messages: Sequence[Any]) -> None:
        """Replaces the messages of the conversation in place."""
        self._context.set_messages(messages)

    def set_tools(self, tools: Any) -> None:
        """Replaces the tools the model may call."""
        self._context.set_tools(tools)

    def set_tool_choice(self, tool_choice: Any) -> None:
        """Sets which tool the model has to use."""
        self._context.set_tool_choice(tool_choice)

    async def reset(self) -> None:
        """Forgets the text collected so far."""
        self._aggregation = ""

    def _changed(self) -> None:
        for callback in self._watchers:
            callback()

    def _ask(self) -> None:
        """Notes that the model is asked to answer."""
        self._context.pending_answers.asked()
        self._changed()

    async def _edit_context(self, frame: Frame, llm: FrameDirection) -> bool:
        """Carries out a frame that changes the context.

        Args:
            frame: Any frame.
            llm: Direction in which the language model is.

        Returns:
            Whether it was such a frame; it is consumed then.
        """
        if isinstance(frame, (LLMMessagesAppendFrame, LLMMessagesUpdateFrame)):
            if isinstance(frame, LLMMessagesAppendFrame):
                self.add_messages(frame.messages)
            else:
                self.set_messages(frame.messages)
            if frame.run_llm:
                await self.push_context_frame(llm)
        elif isinstance(frame, LLMSetToolsFrame):
            self.set_tools(frame.tools)
        elif isinstance(frame, LLMSetToolChoiceFrame):
            self.set_tool_choice(frame.tool_choice)
        else:
            return False
        self._changed()
        return True


def messages_frame(messages: list[Any]) -> LLMMessagesFrame:
    """A frame of the deprecated kind, for the aggregators whose interface it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return LLMMessagesFrame(messages=messages)
