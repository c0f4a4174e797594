"""The set of tools offered to a language model, independent of the provider."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from antiphon.adapters.schemas.direct_function import DirectFunction, DirectFunctionWrapper
from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.errors import ConfigError
from antiphon.frames.codec import register_value_type
from antiphon.utils.checks import check_sequence


class AdapterType(Enum):
    """Interfaces of language models that take tools of their own form beside the standard ones."""

    GEMINI = "gemini"
    OPENAI = "openai"
    OPENAI_REALTIME = "openai_realtime"
    ANTHROPIC = "anthropic"
    BEDROCK = "bedrock"
    NOVA_SONIC = "nova_sonic"


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
            TypeError: A tool is neither a schema nor a function, or a direct function cannot be
                used as one.
            ConfigError: The custom tools are not lists by ``AdapterType``.
        """
        _check_custom_tools(custom_tools)
        check_sequence("ToolsSchema(standard_tools)", standard_tools)
        for tool in standard_tools:
            if not isinstance(tool, FunctionSchema) and not callable(tool):
                raise TypeError(
                    "ToolsSchema(standard_tools) must hold FunctionSchemas or async functions, not "
                    f"{tool!r}: a tool in a provider's own form belongs in custom_tools"
                )
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
        _check_custom_tools(value)
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


def _check_custom_tools(given: Any) -> None:
    if given is None:
        return
    if not isinstance(given, dict):
        raise ConfigError(f"custom_tools must be a dict by AdapterType, not {given!r}")
    for adapter, tools in given.items():
        if not isinstance(adapter, AdapterType):
            raise ConfigError(
                f"custom_tools: {adapter!r} is not an AdapterType "
                f"({', '.join(known.name for known in AdapterType)})"
            )
        if not isinstance(tools, list):
            raise ConfigError(f"custom_tools of {adapter.name} must be a list, not {tools!r}")


register_value_type("tools_schema", ToolsSchema, ToolsSchema.to_plain, ToolsSchema.from_plain)
