"""The set of tools offered to a language model, independent of the provider."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from antiphon.adapters.schemas.direct_function import DirectFunction, DirectFunctionWrapper
from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.frames.codec import register_value_type


class AdapterType(Enum):
    """Providers that take tools of their own form beside the standard ones."""

    GEMINI = "gemini"


class ToolsSchema:
    """Standard function schemas, and tools in a provider's own form."""

    def __init__(
        self,
        standard_tools: Sequence[FunctionSchema | DirectFunction],
        custom_tools: dict[AdapterType, list[dict[str, Any]]] | None = None,
    ) -> None:
        """Collects tools.

        Args:
            standard_tools: Schemas, or direct functions whose schema is read from their signature
                and docstring.
            custom_tools: Tools in a provider's own form, by provider.

        Raises:
            TypeError: A direct function cannot be used as one.
        """
        self._standard_tools = [
            tool
            if isinstance(tool, FunctionSchema)
            else DirectFunctionWrapper(tool).to_function_schema()
            for tool in standard_tools
        ]
        self._custom_tools = custom_tools

    @property
    def standard_tools(self) -> list[FunctionSchema]:
        """The functions in standard form; direct functions appear as their schema."""
        return self._standard_tools

    @property
    def custom_tools(self) -> dict[AdapterType, list[dict[str, Any]]] | None:
        """Tools in a provider's own form, by provider."""
        return self._custom_tools

    @custom_tools.setter
    def custom_tools(self, value: dict[AdapterType, list[dict[str, Any]]] | None) -> None:
        self._custom_tools = value

    def to_plain(self) -> dict[str, Any]:
        """The tools as plain data; ``from_plain`` is the inverse."""
        custom = self._custom_tools
        return {
            "standard_tools": [tool.to_plain() for tool in self._standard_tools],
            "custom_tools": None
            if custom is None
            else {adapter.value: tools for adapter, tools in custom.items()},
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> ToolsSchema:
        """Rebuilds tools from ``to_plain``'s result."""
        custom = plain["custom_tools"]
        return cls(
            standard_tools=[FunctionSchema.from_plain(tool) for tool in plain["standard_tools"]],
            custom_tools=None
            if custom is None
            else {AdapterType(adapter): tools for adapter, tools in custom.items()},
        )


register_value_type("tools_schema", ToolsSchema, ToolsSchema.to_plain, ToolsSchema.from_plain)
