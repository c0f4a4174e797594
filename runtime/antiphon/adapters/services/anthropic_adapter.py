"""Tools and messages in the form of Anthropic's messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter, ProviderMessages
from antiphon.adapters.schemas.tools_schema import AdapterType, ToolsSchema
from antiphon.adapters.services._turns import Image, Part, Text, ToolCall, as_text, split


class AnthropicLLMAdapter(BaseLLMAdapter):
    """The adapter of Anthropic."""

    adapter_type = AdapterType.ANTHROPIC

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[dict[str, Any]]:
        """Each function with its ``input_schema``."""
        functions = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": {
                    "type": "object",
                    "properties": tool.properties,
                    "required": tool.required,
                },
            }
            for tool in tools_schema.standard_tools
        ]
        return [*functions, *self.custom_tools(tools_schema)]

    def to_provider_messages_format(self, messages: Sequence[dict[str, Any]]) -> ProviderMessages:
        """Messages made of content blocks; the instructions stand apart."""
        system, turns = split(messages)
        return ProviderMessages(
            [
                {"role": turn.role, "content": [_block(part) for part in turn.parts]}
                for turn in turns
            ],
            system,
        )


def _block(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        if part.url is not None:
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
        return {"type": "image", "source": source}
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": part.arguments}
    return {"type": "tool_result", "tool_use_id": part.id, "content": as_text(part.content)}
