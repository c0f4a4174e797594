"""Nodes as plain data, so that a conversation can go on in another process.

Functions are saved by their names, and found again by them in the modules of the bot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.errors import ConfigError
from antiphon.flows._nodes import Node
from antiphon.flows.exceptions import FlowError
from antiphon.flows.types import ContextStrategy, ContextStrategyConfig, FlowsFunctionSchema
from antiphon.frames import codec
from antiphon.utils.function_names import name_of_function

# A map with this key is one of ours: it says what the rest of it stands for.
_KIND = "$antiphon"

Plain = dict[str, Any]


class UnsavedNodeError(FlowError):
    """A node cannot be saved, or what was saved is no node; the message says what is at fault."""


def save_node(node: Node) -> Plain:
    """A node as it was configured, as plain data.

    Raises:
        UnsavedNodeError: Something in it cannot be found again in another process.
    """
    plain = {field: _plain(value, field) for field, value in node.config.items()}
    try:
        codec.encode_value(plain)
    except codec.CodecError as error:
        raise UnsavedNodeError(str(error)) from error
    return plain


def restore_config(plain: Any, find: Callable[[str], Callable[..., Any]]) -> Plain:
    """A node's configuration, from what `save_node` returned.

    Args:
        plain: The saved node.
        find: Finds a function by its name; a LookupError if there is none.

    Raises:
        UnsavedNodeError: It is no saved node, or one of its functions is not found.
    """
    if not isinstance(plain, Mapping):
        raise UnsavedNodeError("it was not saved")
    return {field: _real(value, find) for field, value in plain.items()}


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, FlowsFunctionSchema):
        saved = {field.name: getattr(value, field.name) for field in fields(FlowsFunctionSchema)}
        where = f"{where}: function {value.name!r}"
        return {_KIND: "schema", **{key: _plain(each, where) for key, each in saved.items()}}
    if isinstance(value, FunctionSchema):
        return {_KIND: "tool", "tool": value.to_plain()}
    if isinstance(value, ContextStrategyConfig):
        return {_KIND: "strategy", "of": value.strategy.value, "prompt": value.summary_prompt}
    if isinstance(value, Mapping):
        return {key: _plain(each, where) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, where) for each in value]
    if callable(value):
        try:
            return {_KIND: "function", "name": name_of_function(value)}
        except LookupError as error:
            raise UnsavedNodeError(f"{where}: {error}") from error
    return value


def _real(value: Any, find: Callable[[str], Callable[..., Any]]) -> Any:
    if isinstance(value, list):
        return [_real(each, find) for each in value]
    if not isinstance(value, Mapping):
        return value
    parts = {key: _real(each, find) for key, each in value.items() if key != _KIND}
    try:
        match value.get(_KIND):
            case None:
                return parts
            case "schema":
                return FlowsFunctionSchema(**parts)
            case "tool":
                return FunctionSchema.from_plain(parts["tool"])
            case "strategy":
                return ContextStrategyConfig(ContextStrategy(parts["of"]), parts["prompt"])
            case "function":
                return find(parts["name"])
            case kind:
                raise UnsavedNodeError(f"{kind!r} is of another version")
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise UnsavedNodeError(f"it is malformed: {error}") from error
    except LookupError as error:
        raise UnsavedNodeError(str(error)) from error
