"""JSON Schemas of MCP tools in the form function schemas have: properties, without references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MAX_REFERENCES = 1000
"""References followed in one schema; definitions that multiply each other could fill the memory."""


def function_parameters(schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Properties and required names of a tool's input.

    A function schema has no place for shared definitions, so references to them are replaced by
    what they stand for; within a definition that contains itself, by "anything".

    Args:
        schema: JSON Schema of the input, an object.

    Raises:
        ValueError: It refers to what is not in it, or refers too often.
    """
    resolve = _Resolver(schema)
    properties = schema.get("properties") or {}
    return (
        {name: resolve(inner, ()) for name, inner in properties.items()},
        list(schema.get("required") or ()),
    )


def without_additional_properties(value: Any) -> Any:
    """A copy without ``additionalProperties``, which some models' interfaces refuse.

    Args:
        value: Schemas by property name.
    """
    return {name: _simplified(schema) for name, schema in value.items()}


def _simplified(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_simplified(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    plain: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "additionalProperties":
            continue
        # What is below "properties" are names that somebody chose, not keywords.
        if key == "properties" and isinstance(value, dict):
            plain[key] = without_additional_properties(value)
        elif key in ("default", "const", "enum", "examples"):
            plain[key] = value
        else:
            plain[key] = _simplified(value)
    return plain


class _Resolver:
    """Replaces references within one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._followed = 0

    def __call__(self, value: Any, within: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [self(inner, within) for inner in value]
        if not isinstance(value, Mapping):
            return value
        target = value.get("$ref")
        if not isinstance(target, str):
            return {key: self(inner, within) for key, inner in value.items() if key != "$defs"}
        beside = {key: self(inner, within) for key, inner in value.items() if key != "$ref"}
        if target in within:
            return beside
        self._followed += 1
        if self._followed > _MAX_REFERENCES:
            raise ValueError(f"the schema follows more than {_MAX_REFERENCES} references")
        return {**self(self._find(target), (*within, target)), **beside}

    def _find(self, target: str) -> Mapping[str, Any]:
        """The definition at a JSON pointer such as ``#/$defs/Place``."""
        found: Any = self._document
        path = target.removeprefix("#/").split("/") if target.startswith("#/") else []
        for step in path:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        if not path or not isinstance(found, Mapping):
            raise ValueError(f"the schema refers to {target}, which is not in it")
        return found
