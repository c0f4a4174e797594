"""Translation between the standard form of tools and a provider's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from antiphon.adapters.schemas.tools_schema import ToolsSchema


class BaseLLMAdapter(ABC):
    """Gives a provider the tools in the form it expects."""

    @abstractmethod
    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[Any]:
        """The tools in the provider's form, its custom tools included."""

    def from_standard_tools(self, tools: Any) -> Any:
        """Translates a ``ToolsSchema``; tools in any other form are the provider's already."""
        if isinstance(tools, ToolsSchema):
            return self.to_provider_tools_format(tools)
        return tools
