"""What goes into language models and what comes out, in the log."""

from __future__ import annotations

from loguru import logger

from antiphon.frames.frames import (
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesFrame,
    LLMTextFrame,
)
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContextFrame
from antiphon.services.llm_service import LLMService

_NANOSECONDS = 1_000_000_000


class LLMLogObserver(BaseObserver):
    """Logs the conversation with each LLM service, at level DEBUG.

    Logged are the hops that leave an LLM service (responses, generated text, function calls) and
    those that enter one (messages, contexts, function results). The log then holds what people
    said: adding this observer is the decision to have that.
    """

    async def on_push_frame(self, data: FramePushed) -> None:
        """Logs the hop if it begins or ends at an LLM service."""
        if isinstance(data.source, LLMService):
            line = _sent(data)
        elif isinstance(data.destination, LLMService):
            line = _received(data)
        else:
            return
        if line is not None:
            logger.debug(f"🧠 {line} at {data.timestamp / _NANOSECONDS:.2f}s")


def _sent(data: FramePushed) -> str | None:
    match data.frame:
        case LLMFullResponseStartFrame():
            return f"{data.source} → LLM START RESPONSE"
        case LLMFullResponseEndFrame():
            return f"{data.source} → LLM END RESPONSE"
        case LLMTextFrame(text=text):
            return f"{data.source} → LLM GENERATING: {text!r}"
        case FunctionCallInProgressFrame() as call:
            return (
                f"{data.source} → LLM FUNCTION CALL ({call.tool_call_id}): "
                f"{call.function_name!r}({call.arguments})"
            )
    return None


def _received(data: FramePushed) -> str | None:
    match data.frame:
        case LLMMessagesFrame(messages=messages):
            return f"→ {data.destination} LLM MESSAGES FRAME: {messages}"
        case OpenAILLMContextFrame(context=context):
            return f"→ {data.destination} LLM CONTEXT FRAME: {context.get_messages_for_logging()}"
        case FunctionCallResultFrame() as call:
            return (
                f"→ {data.destination} LLM FUNCTION CALL RESULT "
                f"({call.tool_call_id}): {call.result}"
            )
    return None
