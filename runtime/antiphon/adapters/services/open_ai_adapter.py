"""Tools in the form of OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter
from antiphon.adapters.schemas.tools_schema import ToolsSchema


class OpenAILLMAdapter(BaseLLMAdapter):
    """The adapter of OpenAI and of every service with a compatible interface."""

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[dict[str, Any]]:
        """Each function as a ``{"type": "function", ...}`` entry."""
        return [
            {"type": "function", "function": tool.to_default_dict()}
            for tool in tools_schema.standard_tools
        ]
