"""OpenAI's language models."""

from __future__ import annotations

from typing import Any

from antiphon.processors.aggregators.llm_response import (
    LLMAssistantAggregatorParams,
    LLMUserAggregatorParams,
)
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.services.openai.base_llm import BaseOpenAILLMService
from antiphon.services.openai.context_aggregator import (
    OpenAIAssistantContextAggregator,
    OpenAIContextAggregatorPair,
    OpenAIUserContextAggregator,
    create_openai_context_aggregator,
)

__all__ = [
    "OpenAIAssistantContextAggregator",
    "OpenAIContextAggregatorPair",
    "OpenAILLMService",
    "OpenAIUserContextAggregator",
]


class OpenAILLMService(BaseOpenAILLMService):
    """Answers conversations with OpenAI's chat completions, or any compatible interface."""

    def __init__(
        self,
        *,
        model: str = "gpt-4.1",
        params: BaseOpenAILLMService.InputParams | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes the service.

        Args:
            model: Name of the model.
            params: Settings of the generation.
            **kwargs: Passed on to ``BaseOpenAILLMService``: ``api_key``, ``base_url``, ...
        """
        super().__init__(model=model, params=params, **kwargs)

    def create_context_aggregator(
        self,
        context: OpenAILLMContext,
        *,
        user_params: LLMUserAggregatorParams | None = None,
        assistant_params: LLMAssistantAggregatorParams | None = None,
    ) -> OpenAIContextAggregatorPair:
        """Makes the pair of aggregators that connect a conversation with this service.

        Args:
            context: The conversation.
            user_params: Settings of the user's half.
            assistant_params: Settings of the assistant's half.
        """
        return create_openai_context_aggregator(self, context, user_params, assistant_params)
