"""Translation between the standard form of tools and messages and a provider's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from antiphon.adapters.schemas.tools_schema import AdapterType, ToolsSchema


@dataclass(frozen=True)
class ProviderMessages:
    """A conversation in a provider's form, as plain data.

    Attributes:
        messages: What goes into the provider's list of messages.
        system: The instructions, where the provider takes them apart from the messages.
    """

    messages: list[dict[str, Any]]
    system: str | None = None


class BaseLLMAdapter(ABC):
    """Gives a provider tools and messages in the form it expects, as plain data."""

    adapter_type: ClassVar[AdapterType | None] = None
    """The key of this provider's entry in ``custom_tools``."""

    @abstractmethod
    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[Any]:
        """The tools in the provider's form, its custom tools included."""

    def from_standard_tools(self, tools: Any) -> Any:
        """Translates a ``ToolsSchema``; tools in any other form are the provider's already."""
        if isinstance(tools, ToolsSchema):
            return self.to_provider_tools_format(tools)
        return tools

    def to_provider_messages_format(self, messages: Sequence[dict[str, Any]]) -> ProviderMessages:
        """Messages of a conversation, which are in OpenAI's form, in the provider's.

        Args:
            messages: As ``OpenAILLMContext`` holds them.

        Raises:
            ValueError: A message is not in OpenAI's form.
        """
        return ProviderMessages(list(messages))

    def custom_tools(self, tools_schema: ToolsSchema) -> list[dict[str, Any]]:
        """The custom tools for this provider."""
        if self.adapter_type is None or tools_schema.custom_tools is None:
            return []
        return list(tools_schema.custom_tools.get(self.adapter_type, ()))
