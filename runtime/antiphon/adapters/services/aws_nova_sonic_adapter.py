"""Tools in the form of AWS Nova Sonic."""

from __future__ import annotations

import json
from typing import Any

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter
from antiphon.adapters.schemas.tools_schema import AdapterType, ToolsSchema


class AWSNovaSonicLLMAdapter(BaseLLMAdapter):
    """The adapter of AWS Nova Sonic."""

    adapter_type = AdapterType.NOVA_SONIC

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[dict[str, Any]]:
        """Each function as a ``toolSpec`` whose schema is JSON in a string."""
        functions = [
            {
                "toolSpec": {
                    "name": tool.name,
                    "description": tool.description,
                    "inputSchema": {"json": json.dumps(tool.to_default_dict()["parameters"])},
                }
            }
            for tool in tools_schema.standard_tools
        ]
        return [*functions, *self.custom_tools(tools_schema)]
