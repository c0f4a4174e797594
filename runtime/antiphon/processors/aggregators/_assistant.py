"""The assistant's half of a context aggregator."""

from __future__ import annotations

import asyncio
import inspect
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallFromLLM,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    OpenAILLMContextAssistantTimestampFrame,
    StartInterruptionFrame,
    TextFrame,
    UserImageRawFrame,
)
from antiphon.processors.aggregators._base import LLMContextResponseAggregator, messages_frame
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.heard_text import corrected, heard_text
from antiphon.utils.time import time_now_iso8601

_CALLBACK_GRACE_SECS = 2.0
"""How long a callback may go on after the conversation, and resist its cancellation."""


@dataclass
class LLMAssistantAggregatorParams:
    """Settings of the assistant's half.

    Attributes:
        expect_stripped_words: Whether texts arrive as words without the spaces between them, which
            are added then. Texts that carry their own spaces need False.
    """

    expect_stripped_words: bool = True


@dataclass(frozen=True)
class CallInProgress:
    """A function call that has no result yet.

    Attributes:
        function_name: Which function.
        tool_call_id: The model's id of this call.
        arguments: What the model gave.
        since_secs: When the model asked for it, Unix time.
        begun: Whether it runs, as far as is known here: then the conversation mentions it.
        cancel_on_interruption: Whether an interruption cancels it.
    """

    function_name: str
    tool_call_id: str
    arguments: Any
    since_secs: float
    begun: bool = False
    cancel_on_interruption: bool = False


class LLMAssistantContextAggregator(LLMContextResponseAggregator):
    """Makes assistant messages out of what the bot says, and keeps function calls in the context.

    A message is finished when the response ends, when the bot stops speaking, or when it is
    interrupted: what was heard until then stays in the conversation.

    Event handlers:
        on_function_calls_settled(aggregator): No function call is in progress any more: each has
            its result in the conversation, or was cancelled.
    """

    def __init__(
        self,
        context: OpenAILLMContext,
        *,
        params: LLMAssistantAggregatorParams | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes the assistant's half.

        Args:
            context: The conversation.
            params: Settings.
            **kwargs: Passed on to ``FrameProcessor``. ``expect_stripped_words`` here is deprecated.
        """
        super().__init__(context=context, role="assistant", **kwargs)
        self._params = params or LLMAssistantAggregatorParams()
        if "expect_stripped_words" in kwargs:
            warnings.warn(
                "expect_stripped_words is deprecated, use LLMAssistantAggregatorParams",
                DeprecationWarning,
                stacklevel=2,
            )
            self._params = LLMAssistantAggregatorParams(kwargs["expect_stripped_words"])
        # Responses that have begun and not ended.
        self._open_responses = 0
        # Where in the conversation the first of them begins, and whether anything came of it.
        self._response_from = 0
        self._has_responded = False
        # Calls the model asked for, by id. Bounded by the model's calls.
        self._calls: dict[str, CallInProgress] = {}
        self._callbacks: set[asyncio.Task[Any]] = set()
        self._register_event_handler("on_function_calls_settled")

    @property
    def has_function_calls_in_progress(self) -> bool:
        """Whether a function call has begun and has no result yet."""
        return bool(self._calls)

    @property
    def calls_in_progress(self) -> Sequence[CallInProgress]:
        """The function calls without a result."""
        return list(self._calls.values())

    @property
    def open_response_from(self) -> int | None:
        """Number of the first message of an answer that is not complete; None if none is open."""
        return self._response_from if self._open_responses else None

    def expect_call(self, call: CallInProgress) -> None:
        """Takes a call for one in progress, so that its result will be taken."""
        self._calls[call.tool_call_id] = call

    async def cleanup(self) -> None:
        """Gives ``on_context_updated`` callbacks a moment to end, then cancels them."""
        if self._callbacks:
            await asyncio.wait(self._callbacks, timeout=_CALLBACK_GRACE_SECS)
        for task in list(self._callbacks):
            await self.cancel_task(task, timeout=_CALLBACK_GRACE_SECS)
        await super().cleanup()

    async def handle_aggregation(self, aggregation: str) -> None:
        """Adds the assistant's message to the conversation."""
        self._context.add_message({"role": self.role, "content": aggregation})

    async def handle_function_call_in_progress(self, frame: FunctionCallInProgressFrame) -> None:
        """Notes in the conversation that a call runs. The form is the provider's."""

    async def handle_function_call_result(self, frame: FunctionCallResultFrame) -> None:
        """Notes a call's result in the conversation. The form is the provider's."""

    async def handle_function_call_cancel(self, frame: FunctionCallCancelFrame) -> None:
        """Notes in the conversation that a call was cancelled. The form is the provider's."""

    async def handle_user_image_frame(self, frame: UserImageRawFrame) -> None:
        """Adds a picture that a function call asked for. The form is the provider's."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Collects text and function calls and passes everything else on."""
        await super().process_frame(frame, direction)

        if isinstance(frame, StartInterruptionFrame):
            if heard := heard_text(frame):
                self._collect(heard)
            self._correct(frame)
            await self.push_aggregation()
            self._open_responses = 0
            self._has_responded = False
            await self.reset()
            self._changed()
            await self.push_frame(frame, direction)
        elif isinstance(frame, LLMFullResponseStartFrame):
            if not self._open_responses:
                self._response_from = len(self._context.messages)
            self._open_responses += 1
            self._changed()
        elif isinstance(frame, LLMFullResponseEndFrame):
            self._end_response()
            await self.push_aggregation()
            self._changed()
        elif isinstance(frame, TextFrame):
            self._collect(frame.text)
        elif await self._edit_context(frame, FrameDirection.UPSTREAM):
            pass
        elif isinstance(frame, FunctionCallsStartedFrame):
            for call in frame.function_calls:
                self._note_call(call)
            self._has_responded = True
            self._changed()
        elif isinstance(frame, FunctionCallInProgressFrame):
            await self._handle_begin(frame)
        elif isinstance(frame, FunctionCallResultFrame):
            await self._handle_result(frame)
        elif isinstance(frame, FunctionCallCancelFrame):
            await self._handle_cancel(frame)
        elif isinstance(frame, UserImageRawFrame) and frame.request and frame.request.tool_call_id:
            await self._handle_image(frame, frame.request.tool_call_id)
        elif isinstance(frame, BotStoppedSpeakingFrame):
            await self.push_aggregation()
            self._changed()
            await self.push_frame(frame, direction)
        else:
            await self.push_frame(frame, direction)

    async def push_aggregation(self) -> None:
        """Finishes the assistant's message; without any text nothing happens."""
        if not self._aggregation:
            return
        aggregation = self._aggregation.strip()
        await self.reset()
        if aggregation:
            self._has_responded = self._has_responded or self._open_responses > 0
            await self.handle_aggregation(aggregation)
        await self.push_context_frame()
        await self.push_frame(OpenAILLMContextAssistantTimestampFrame(timestamp=time_now_iso8601()))

    async def push_context_frame(
        self, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes a frame with the conversation; upstream it asks the model to answer."""
        if direction is FrameDirection.UPSTREAM:
            self._ask()
        await super().push_context_frame(direction)

    def _end_response(self) -> None:
        if self._open_responses == 1:
            empty = not self._has_responded and not self._aggregation
            self._context.pending_answers.answered(empty=empty)
            self._has_responded = False
        self._open_responses = max(0, self._open_responses - 1)

    def _collect(self, text: str) -> None:
        if not self._open_responses:
            return
        joined = self._aggregation[-1:].isspace() or text[:1].isspace()
        if self._params.expect_stripped_words and self._aggregation and not joined:
            self._aggregation += " "
        self._aggregation += text

    def _correct(self, frame: StartInterruptionFrame) -> None:
        """Takes back what was written down ahead of its audio and not heard."""
        if self._aggregation:
            self._aggregation = corrected(frame, self._aggregation)
            return
        last = self._context.messages[-1] if self._context.messages else None
        if not isinstance(last, dict) or last.get("role") != self.role:
            return
        content = last.get("content")
        if isinstance(content, str) and (heard := corrected(frame, content)) != content:
            if heard:
                last["content"] = heard
            else:
                self._context.messages.pop()

    def _note_call(self, call: FunctionCallFromLLM) -> None:
        if call.tool_call_id not in self._calls:
            self._calls[call.tool_call_id] = CallInProgress(
                call.function_name, call.tool_call_id, call.arguments, time.time()
            )

    async def _handle_begin(self, frame: FunctionCallInProgressFrame) -> None:
        known = self._calls.get(frame.tool_call_id)
        if known is None or not known.begun:  # one that is run again is in the conversation
            await self.handle_function_call_in_progress(frame)
        self._calls[frame.tool_call_id] = CallInProgress(
            frame.function_name,
            frame.tool_call_id,
            frame.arguments,
            known.since_secs if known is not None else time.time(),
            begun=True,
            cancel_on_interruption=frame.cancel_on_interruption,
        )
        self._changed()

    async def _handle_result(self, frame: FunctionCallResultFrame) -> None:
        if frame.tool_call_id not in self._calls:
            logger.warning(
                "function call result ignored: no such call is in progress",
                processor=self.name,
                function_name=frame.function_name,
                tool_call_id=frame.tool_call_id,
            )
            return
        del self._calls[frame.tool_call_id]
        await self.handle_function_call_result(frame)

        properties = frame.properties
        if frame.result:
            wish = properties.run_llm if properties is not None else None
            if wish is None:
                wish = frame.run_llm
            if wish is None:
                wish = not self._calls
            if wish:
                await self.push_context_frame(FrameDirection.UPSTREAM)
        # In a task of its own, so that a slow callback does not hold the conversation up.
        if properties is not None and properties.on_context_updated is not None:
            task = self.create_task(_call(properties.on_context_updated), "on_context_updated")
            self._callbacks.add(task)
            task.add_done_callback(self._callbacks.discard)
        await self._call_over()

    async def _handle_cancel(self, frame: FunctionCallCancelFrame) -> None:
        if frame.tool_call_id not in self._calls:
            return
        call = self._calls[frame.tool_call_id]
        if not call.begun:
            # It never began, so the conversation does not mention it.
            del self._calls[frame.tool_call_id]
        elif call.cancel_on_interruption:
            await self.handle_function_call_cancel(frame)
            del self._calls[frame.tool_call_id]
        await self._call_over()

    async def _handle_image(self, frame: UserImageRawFrame, tool_call_id: str) -> None:
        if tool_call_id not in self._calls:
            logger.warning(
                "picture ignored: the function call that asked for it is not in progress",
                processor=self.name,
                tool_call_id=tool_call_id,
            )
            return
        del self._calls[tool_call_id]
        await self.handle_user_image_frame(frame)
        await self.push_aggregation()
        await self.push_context_frame(FrameDirection.UPSTREAM)
        await self._call_over()

    async def _call_over(self) -> None:
        self._changed()
        if not self._calls:
            await self._call_event_handler("on_function_calls_settled")


class LLMAssistantResponseAggregator(LLMAssistantContextAggregator):
    """An assistant's half that pushes plain ``LLMMessagesFrame``s; kept for older programs."""

    def __init__(
        self,
        messages: list[Any] | None = None,
        *,
        params: LLMAssistantAggregatorParams | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes the assistant's half of a list of messages.

        Args:
            messages: The conversation so far; the list is kept and appended to.
            params: Settings.
            **kwargs: Passed on to ``FrameProcessor``.
        """
        super().__init__(context=OpenAILLMContext(messages), params=params, **kwargs)

    async def push_aggregation(self) -> None:
        """Finishes the assistant's message; without any text nothing happens."""
        aggregation = self._aggregation.strip()
        await self.reset()
        if aggregation:
            await self.handle_aggregation(aggregation)
            await self.push_frame(messages_frame(self._context.messages))


async def _call(callback: Callable[[], Any]) -> None:
    result = callback()
    if inspect.isawaitable(result):
        await result
