"""A function a language model may call, described independently of the provider."""

from __future__ import annotations

from typing import Any

from antiphon.adapters.schemas._json_schema import check_names, check_schema_map
from antiphon.errors import ConfigError
from antiphon.frames.codec import register_value_type


class FunctionSchema:
    """Name, description and JSON Schema parameters of one function."""

    def __init__(
        self, name: str, description: str, properties: dict[str, Any], required: list[str]
    ) -> None:
        """Describes a function.

        Args:
            name: What the model calls it.
            description: What it does, for the model.
            properties: JSON Schema of each parameter, by name.
            required: Names of the parameters without which it cannot be called.

        Raises:
            ConfigError: There is no name, or the rest is not JSON Schema.
        """
        if not name or not isinstance(name, str):
            raise ConfigError(f"a function schema needs a name, not {name!r}")
        if not isinstance(description, str):
            raise ConfigError(f"function {name}: the description must be text")
        check_schema_map(properties, f"function {name}: properties")
        check_names(required, f"function {name}: required")
        self._name = name
        self._description = description
        self._properties = properties
        self._required = required

    @property
    def name(self) -> str:
        """What the model calls the function."""
        return self._name

    @property
    def description(self) -> str:
        """What the function does."""
        return self._description

    @property
    def properties(self) -> dict[str, Any]:
        """JSON Schema of each parameter, by name."""
        return self._properties

    @property
    def required(self) -> list[str]:
        """Names of the parameters that must be given."""
        return self._required

    def to_default_dict(self) -> dict[str, Any]:
        """The form most providers share: name, description and an object schema."""
        return {
            "name": self._name,
            "description": self._description,
            "parameters": {
                "type": "object",
                "properties": self._properties,
                "required": self._required,
            },
        }

    def to_plain(self) -> dict[str, Any]:
        """The schema as plain data; ``from_plain`` is the inverse."""
        return {
            "name": self._name,
            "description": self._description,
            "properties": self._properties,
            "required": self._required,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> FunctionSchema:
        """Rebuilds a schema from ``to_plain``'s result."""
        return cls(
            name=plain["name"],
            description=plain["description"],
            properties=plain["properties"],
            required=list(plain["required"]),
        )


register_value_type(
    "function_schema", FunctionSchema, FunctionSchema.to_plain, FunctionSchema.from_plain
)
