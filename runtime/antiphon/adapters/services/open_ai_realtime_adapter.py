"""Tools in the form of OpenAI's Realtime interface."""

from __future__ import annotations

from typing import Any

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter
from antiphon.adapters.schemas.tools_schema import AdapterType, ToolsSchema


class OpenAIRealtimeLLMAdapter(BaseLLMAdapter):
    """The adapter of OpenAI's Realtime interface, whose functions are not nested."""

    adapter_type = AdapterType.OPENAI_REALTIME

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[dict[str, Any]]:
        """Each function as a flat ``{"type": "function", ...}`` entry."""
        functions = [
            {"type": "function", **tool.to_default_dict()} for tool in tools_schema.standard_tools
        ]
        return [*functions, *self.custom_tools(tools_schema)]
