"""Tools in the form of OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter
from antiphon.adapters.schemas.tools_schema import AdapterType, ToolsSchema


class OpenAILLMAdapter(BaseLLMAdapter):
    """The adapter of OpenAI and of every service with a compatible interface."""

    adapter_type = AdapterType.OPENAI

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[dict[str, Any]]:
        """Each function as a ``{"type": "function", ...}`` entry."""
        functions = [
            {"type": "function", "function": tool.to_default_dict()}
            for tool in tools_schema.standard_tools
        ]
        return [*functions, *self.custom_tools(tools_schema)]
