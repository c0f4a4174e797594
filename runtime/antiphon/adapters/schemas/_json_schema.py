"""Whether a value is JSON Schema, as far as tools use it.

Checked are the keywords that models' interfaces read. Others are left to the model's provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from antiphon.errors import ConfigError

_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_TEXTS = ("description", "title", "format", "pattern", "$ref", "$schema", "$id")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def check_schema(schema: Any, where: str) -> None:
    """Refuses what is not JSON Schema.

    Args:
        schema: The value in question.
        where: What it is, for the message.

    Raises:
        ConfigError: It is not; the message says where and why.
    """
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{where}: a JSON Schema is an object, not {schema!r}")
    for keyword, value in schema.items():
        if not isinstance(keyword, str):
            raise ConfigError(f"{where}: the keyword {keyword!r} is not text")
        _check_keyword(keyword, value, f"{where}: {keyword}")


def check_names(value: Any, where: str) -> None:
    """Refuses anything but a list of distinct texts, which ``required`` has to be.

    Raises:
        ConfigError: It is not.
    """
    if not _is_list(value) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{where} must be a list of names, not {value!r}")
    if len(set(value)) != len(value):
        raise ConfigError(f"{where} names something twice: {list(value)}")


def check_schema_map(value: Any, where: str) -> None:
    """Refuses anything but schemas by name, which ``properties`` has to be.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must map names to JSON Schemas, not {value!r}")
    for name, schema in value.items():
        if not isinstance(name, str):
            raise ConfigError(f"{where}: the name {name!r} is not text")
        check_schema(schema, f"{where}.{name}")


def _check_keyword(keyword: str, value: Any, where: str) -> None:
    if keyword == "type":
        names = value if _is_list(value) else [value]
        if not names or not all(isinstance(name, str) and name in _TYPES for name in names):
            raise ConfigError(f"{where} must be one of {sorted(_TYPES)}, or several, not {value!r}")
    elif keyword == "enum":
        if not _is_list(value):
            raise ConfigError(f"{where} must be a list of values, not {value!r}")
    elif keyword == "required":
        check_names(value, where)
    elif keyword in _SCHEMA_MAPS:
        check_schema_map(value, where)
    elif keyword in _SCHEMA_LISTS or (keyword == "items" and _is_list(value)):
        if not _is_list(value) or not value:
            raise ConfigError(f"{where} must be a list of JSON Schemas, not {value!r}")
        for index, schema in enumerate(value):
            check_schema(schema, f"{where}[{index}]")
    elif keyword in _SCHEMAS or keyword == "items":
        check_schema(value, where)
    elif keyword in _TEXTS:
        if not isinstance(value, str):
            raise ConfigError(f"{where} must be text, not {value!r}")
    elif keyword in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{where} must be a number, not {value!r}")
    elif keyword in _COUNTS:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigError(f"{where} must be a count, not {value!r}")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
