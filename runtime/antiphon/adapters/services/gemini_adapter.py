"""Tools and messages in the form of Google's Gemini."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter, ProviderMessages
from antiphon.adapters.schemas.tools_schema import AdapterType, ToolsSchema
from antiphon.adapters.services._turns import Image, Part, Text, ToolCall, split


class GeminiLLMAdapter(BaseLLMAdapter):
    """The adapter of Gemini."""

    adapter_type = AdapterType.GEMINI

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[dict[str, Any]]:
        """One entry with all ``function_declarations``, then the custom tools."""
        functions = [tool.to_default_dict() for tool in tools_schema.standard_tools]
        declarations = [{"function_declarations": functions}] if functions else []
        return [*declarations, *self.custom_tools(tools_schema)]

    def to_provider_messages_format(self, messages: Sequence[dict[str, Any]]) -> ProviderMessages:
        """Contents made of parts; the instructions stand apart."""
        system, turns = split(messages)
        return ProviderMessages(
            [
                {
                    "role": "model" if turn.role == "assistant" else "user",
                    "parts": [_part(part) for part in turn.parts],
                }
                for turn in turns
            ],
            system,
        )


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, Image):
        if part.url is not None:
            return {"file_data": {"file_uri": part.url}}
        return {"inline_data": {"mime_type": part.media_type, "data": part.data}}
    if isinstance(part, ToolCall):
        return {"function_call": {"id": part.id, "name": part.name, "args": part.arguments}}
    # A response is an object; anything else goes into one.
    response = part.content if isinstance(part.content, dict) else {"value": part.content}
    return {"function_response": {"id": part.id, "name": part.name, "response": response}}
