"""A conversation made short, for a node that begins afresh."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from loguru import logger

from antiphon.adapters.services.open_ai_adapter import OpenAILLMAdapter
from antiphon.processors.aggregators.openai_llm_context import CustomEncoder, OpenAILLMContext

SUMMARY_DEADLINE_SECS = 5.0
"""How long a summary may take: the caller hears nothing meanwhile."""


async def summarize(llm: Any, prompt: str, conversation: OpenAILLMContext) -> str | None:
    """Lets a model summarize a conversation, apart from the pipeline.

    Args:
        llm: The service.
        prompt: What to tell the model.
        conversation: What to summarize; it is not changed.

    Returns:
        The summary; None if there is none in time.
    """
    history = json.dumps(
        conversation.get_messages_for_persistent_storage(), cls=CustomEncoder, ensure_ascii=False
    )
    question = OpenAILLMContext(
        [
            {"role": "system", "content": prompt},
            {"role": "user", "content": f"The conversation to summarize, as JSON: {history}"},
        ]
    )
    try:
        async with asyncio.timeout(SUMMARY_DEADLINE_SECS):
            summary: str | None = await llm.run_inference(question)
    except TimeoutError:
        logger.warning("no summary of the conversation in time", seconds=SUMMARY_DEADLINE_SECS)
        return None
    except Exception as error:  # noqa: BLE001 - whatever a service raises; the flow goes on without
        logger.warning("no summary of the conversation", error=repr(error))
        return None
    return summary or None


def summary_message(llm: Any, summary: str) -> dict[str, Any]:
    """The message that gives a summary to the model.

    Instructions amid a conversation are OpenAI's own; for other models it is the user's.
    """
    role = "system" if isinstance(llm.get_llm_adapter(), OpenAILLMAdapter) else "user"
    return {"role": role, "content": f"Summary of the conversation so far:\n{summary}"}
