"""Functions offered to a language model without a hand-written schema.

A *direct function* is an async function whose first parameter is ``params`` (a
``FunctionCallParams``) and whose other parameters are the arguments the model gives. Name,
description and JSON Schema are read from its signature and its docstring.
"""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Protocol, is_typeddict

from antiphon.adapters.schemas.function_schema import FunctionSchema

if TYPE_CHECKING:
    from antiphon.services.llm_service import FunctionCallParams

_SCALARS: dict[Any, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class DirectFunction(Protocol):
    """An async function that takes ``params`` first and the model's arguments by keyword."""

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Runs the function; it reports through ``params.result_callback``."""


class BaseDirectFunctionWrapper:
    """A direct function together with the schema read from it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Reads the function's name, description and parameters.

        Args:
            function: The direct function; a bound method is one too.

        Raises:
            TypeError: It is not async, or lacks the special first parameter.
        """
        self.validate_function(function)
        self.function = function
        description, texts = _read_docstring(function)
        self.name: str = function.__name__
        self.description = description
        self.properties: dict[str, Any] = {}
        self.required: list[str] = []
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind in _VARIADIC:
                continue
            schema = _schema_of(_resolve(function, parameter.annotation))
            if text := texts.get(parameter.name):
                schema["description"] = text
            self.properties[parameter.name] = schema
            if parameter.default is inspect.Parameter.empty:
                self.required.append(parameter.name)

    @classmethod
    def special_first_param_name(cls) -> str:
        """Name of the first parameter, which the model does not see."""
        raise NotImplementedError(f"{cls.__name__} must say how its first parameter is called")

    @classmethod
    def validate_function(cls, function: Callable[..., Any]) -> None:
        """Checks that a function can be used directly.

        Raises:
            TypeError: It is not async, or its first parameter has another name.
        """
        name = getattr(function, "__name__", repr(function))
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"Direct function {name} must be async")
        first = next(iter(inspect.signature(function).parameters), None)
        expected = cls.special_first_param_name()
        if first is None:
            raise TypeError(f"Direct function {name} must have at least one parameter ({expected})")
        if first != expected:
            raise TypeError(f"Direct function {name} first parameter must be named '{expected}'")

    def to_function_schema(self) -> FunctionSchema:
        """The schema to offer to a model."""
        return FunctionSchema(
            name=self.name,
            description=self.description,
            properties=self.properties,
            required=self.required,
        )


class DirectFunctionWrapper(BaseDirectFunctionWrapper):
    """A direct function that a language model service can call."""

    @classmethod
    def special_first_param_name(cls) -> str:
        """Name of the parameter that receives the ``FunctionCallParams``."""
        return "params"

    async def invoke(self, args: Mapping[str, Any], params: FunctionCallParams) -> Any:
        """Calls the function with the model's arguments."""
        return await self.function(params=params, **args)


def _read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Description of a function, and of each parameter that its docstring explains."""
    import docstring_parser

    parsed = docstring_parser.parse(inspect.getdoc(function) or "")
    texts = {entry.arg_name: entry.description or "" for entry in parsed.params}
    return (parsed.description or "").strip(), texts


def _resolve(function: Callable[..., Any], annotation: Any) -> Any:
    """The type an annotation stands for; ``Any`` where it names something unknown."""
    if annotation is inspect.Parameter.empty:
        return Any
    # Resolved one at a time: names imported for type checking only, as FunctionCallParams often
    # is, must not cost the other parameters their type.
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        hints = typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}))
    except NameError:
        return Any
    return hints["it"]


def _schema_of(hint: Any) -> dict[str, Any]:
    """JSON Schema of a type; the empty schema (anything) for a type it cannot express."""
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if is_typeddict(hint):
        return _object_schema(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema_of(argument) for argument in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Required, typing.NotRequired, typing.Annotated):
        return _schema_of(arguments[0])
    kind = origin or hint
    if not isinstance(kind, type) or kind is object:
        return {}
    if issubclass(kind, Mapping):
        if len(arguments) == 2 and arguments[1] is not Any:
            return {"type": "object", "additionalProperties": _schema_of(arguments[1])}
        return {"type": "object"}
    if issubclass(kind, (Sequence, Set)) and not issubclass(kind, (bytes, bytearray)):
        items = _schema_of(arguments[0]) if arguments else {}
        return {"type": "array", "items": items} if items else {"type": "array"}
    return {}


def _object_schema(hint: Any) -> dict[str, Any]:
    fields = typing.get_type_hints(hint, include_extras=True)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _schema_of(kind) for name, kind in fields.items()},
    }
    # With postponed annotations __required_keys__ does not know the markers of single fields.
    required = [
        name
        for name, kind in fields.items()
        if typing.get_origin(kind) is typing.Required
        or (typing.get_origin(kind) is not typing.NotRequired and name in hint.__required_keys__)
    ]
    if required:
        schema["required"] = required
    return schema
