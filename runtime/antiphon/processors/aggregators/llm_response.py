"""Aggregators between speech and a language model: the documented import path of all of them."""

from antiphon.processors.aggregators._assistant import (
    CallInProgress,
    LLMAssistantAggregatorParams,
    LLMAssistantContextAggregator,
    LLMAssistantResponseAggregator,
)
from antiphon.processors.aggregators._base import (
    BaseLLMResponseAggregator,
    LLMContextResponseAggregator,
)
from antiphon.processors.aggregators._full_response import LLMFullResponseAggregator
from antiphon.processors.aggregators._user import (
    LLMUserAggregatorParams,
    LLMUserContextAggregator,
    LLMUserResponseAggregator,
)

__all__ = [
    "BaseLLMResponseAggregator",
    "CallInProgress",
    "LLMAssistantAggregatorParams",
    "LLMAssistantContextAggregator",
    "LLMAssistantResponseAggregator",
    "LLMContextResponseAggregator",
    "LLMFullResponseAggregator",
    "LLMUserAggregatorParams",
    "LLMUserContextAggregator",
    "LLMUserResponseAggregator",
]
