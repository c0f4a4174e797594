"""Context aggregators for services that speak OpenAI's chat messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from antiphon.frames.frames import (
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    UserImageRawFrame,
)
from antiphon.processors.aggregators.llm_response import (
    LLMAssistantAggregatorParams,
    LLMAssistantContextAggregator,
    LLMUserAggregatorParams,
    LLMUserContextAggregator,
)

if TYPE_CHECKING:
    from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
    from antiphon.services.llm_service import LLMService


class OpenAIUserContextAggregator(LLMUserContextAggregator):
    """The user's half for OpenAI-style contexts."""


class OpenAIAssistantContextAggregator(LLMAssistantContextAggregator):
    """The assistant's half for OpenAI-style contexts.

    A function call is an assistant message with ``tool_calls`` and a ``tool`` message whose
    content says how far the call is, until it holds the result.
    """

    async def handle_function_call_in_progress(self, frame: FunctionCallInProgressFrame) -> None:
        """Adds the call and the place of its result."""
        call = {
            "id": frame.tool_call_id,
            "function": {"name": frame.function_name, "arguments": json.dumps(frame.arguments)},
            "type": "function",
        }
        self._context.add_message({"role": "assistant", "tool_calls": [call]})
        self._context.add_message(
            {"role": "tool", "content": "IN_PROGRESS", "tool_call_id": frame.tool_call_id}
        )

    async def handle_function_call_result(self, frame: FunctionCallResultFrame) -> None:
        """Puts the result, as JSON, in its place."""
        content = json.dumps(frame.result) if frame.result else "COMPLETED"
        self._set_result(frame.tool_call_id, content)

    async def handle_function_call_cancel(self, frame: FunctionCallCancelFrame) -> None:
        """Notes that there will be no result."""
        self._set_result(frame.tool_call_id, "CANCELLED")

    async def handle_user_image_frame(self, frame: UserImageRawFrame) -> None:
        """Adds the picture as a user message, and completes the call that asked for it."""
        request = frame.request
        if request is None:
            return
        if request.tool_call_id:
            self._set_result(request.tool_call_id, "COMPLETED")
        self._context.add_image_frame_message(
            format=frame.format or "RGB",
            size=frame.size,
            image=frame.image,
            text=request.context,
        )

    def _set_result(self, tool_call_id: str, content: str) -> None:
        for message in self._context.messages:
            if (
                isinstance(message, dict)
                and message.get("role") == "tool"
                and message.get("tool_call_id") == tool_call_id
            ):
                message["content"] = content


@dataclass
class OpenAIContextAggregatorPair:
    """The two halves that connect a conversation with a service."""

    _user: OpenAIUserContextAggregator
    _assistant: OpenAIAssistantContextAggregator

    def user(self) -> OpenAIUserContextAggregator:
        """The half to place before the language model."""
        return self._user

    def assistant(self) -> OpenAIAssistantContextAggregator:
        """The half to place after the output transport."""
        return self._assistant


def create_openai_context_aggregator(
    service: LLMService,
    context: OpenAILLMContext,
    user_params: LLMUserAggregatorParams | None,
    assistant_params: LLMAssistantAggregatorParams | None,
) -> OpenAIContextAggregatorPair:
    """Connects a conversation with a service that speaks OpenAI's chat messages.

    Args:
        service: Its adapter becomes the context's.
        context: The conversation; the very object is shared by both halves.
        user_params: Settings of the user's half.
        assistant_params: Settings of the assistant's half.
    """
    context.set_llm_adapter(service.get_llm_adapter())
    return OpenAIContextAggregatorPair(
        _user=OpenAIUserContextAggregator(context, params=user_params),
        _assistant=OpenAIAssistantContextAggregator(context, params=assistant_params),
    )


def message_text(message: Any) -> str:
    """The text of a chat message, whether its content is a string or a list of parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return " ".join(text for text in texts if isinstance(text, str))
    return ""
