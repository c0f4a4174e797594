"""Tools and messages in the form of AWS Bedrock's Converse."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter, ProviderMessages
from antiphon.adapters.schemas.tools_schema import AdapterType, ToolsSchema
from antiphon.adapters.services._turns import Image, Part, Text, ToolCall, as_text, split


class AWSBedrockLLMAdapter(BaseLLMAdapter):
    """The adapter of AWS Bedrock."""

    adapter_type = AdapterType.BEDROCK

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[dict[str, Any]]:
        """Each function as a ``toolSpec``."""
        functions = [
            {
                "toolSpec": {
                    "name": tool.name,
                    "description": tool.description,
                    "inputSchema": {
                        "json": {
                            "type": "object",
                            "properties": tool.properties,
                            "required": tool.required,
                        }
                    },
                }
            }
            for tool in tools_schema.standard_tools
        ]
        return [*functions, *self.custom_tools(tools_schema)]

    def to_provider_messages_format(self, messages: Sequence[dict[str, Any]]) -> ProviderMessages:
        """Messages made of content blocks, pictures as bytes; the instructions stand apart.

        Raises:
            ValueError: A message is not in OpenAI's form, or has a picture that is only linked.
        """
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
        return {"text": part.text}
    if isinstance(part, Image):
        if part.url is not None:
            raise ValueError("Bedrock takes no links to pictures")
        picture = base64.b64decode(part.data, validate=True)
        return {
            "image": {"format": part.media_type.partition("/")[2], "source": {"bytes": picture}}
        }
    if isinstance(part, ToolCall):
        return {"toolUse": {"toolUseId": part.id, "name": part.name, "input": part.arguments}}
    # The form "json" takes objects only.
    is_object = isinstance(part.content, dict)
    content = {"json": part.content} if is_object else {"text": as_text(part.content)}
    return {"toolResult": {"toolUseId": part.id, "content": [content]}}
