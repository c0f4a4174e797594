"""The functions of a node, whichever form they are written in."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.errors import ConfigError
from antiphon.flows.exceptions import InvalidFunctionError
from antiphon.flows.types import FlowArgs, FlowsDirectFunctionWrapper, FlowsFunctionSchema

if TYPE_CHECKING:
    from antiphon.flows.manager import FlowManager

Handler = Callable[[FlowArgs, "FlowManager"], Awaitable[Any]]
TransitionCallback = Callable[[FlowArgs, Any, "FlowManager"], Awaitable[Any]]


@dataclass(frozen=True)
class FlowFunction:
    """A function of a node, in one form.

    Attributes:
        schema: What the model gets to know of it.
        handler: What runs; None if a call is only acknowledged.
        transition_to: Name of the node to go to afterwards.
        transition_callback: What sets the next node afterwards.
        cancel_on_interruption: Whether an interruption by the user cancels a running call.
        idempotent: Whether a call may be run again.
    """

    schema: FunctionSchema
    handler: Handler | None
    transition_to: str | None
    transition_callback: TransitionCallback | None
    cancel_on_interruption: bool
    idempotent: bool = False

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.schema.name


def read_functions(given: Any, where: str) -> list[FlowFunction]:
    """Brings functions into one form.

    Args:
        given: The functions as configured.
        where: Which field of what that is, for messages.

    Raises:
        InvalidFunctionError: One of them cannot be used; the message says which, and why.
    """
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping)):
        raise InvalidFunctionError(f"{where} must be a list, not {type(given).__name__}")
    functions: dict[str, FlowFunction] = {}
    for index, entry in enumerate(given):
        for function in _read(entry, f"{where}[{index}]"):
            if function.name in functions:
                raise InvalidFunctionError(f"{where}[{index}]: {function.name!r} is there twice")
            functions[function.name] = function
    return list(functions.values())


async def finish(value: Any) -> Any:
    """What a handler returned, awaited if it has to be."""
    return await value if inspect.isawaitable(value) else value


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with that many positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def _read(entry: Any, where: str) -> list[FlowFunction]:
    if isinstance(entry, FlowsFunctionSchema):
        return [_from_schema(entry, where)]
    if isinstance(entry, FunctionSchema):
        return [FlowFunction(entry, None, None, None, cancel_on_interruption=True)]
    if isinstance(entry, Mapping):
        return [_from_schema(schema, where) for schema in _from_provider(entry, where)]
    if callable(entry):
        return [_from_direct(entry, where)]
    raise InvalidFunctionError(
        f"{where} must be a FlowsFunctionSchema, a direct function or a dict, "
        f"not {type(entry).__name__}"
    )


def _from_direct(function: Callable[..., Any], where: str) -> FlowFunction:
    try:
        wrapper = FlowsDirectFunctionWrapper(function)
        schema = wrapper.to_function_schema()
    except (InvalidFunctionError, ConfigError) as error:
        raise InvalidFunctionError(f"{where}: {error}") from error
    return FlowFunction(
        schema,
        wrapper.invoke,
        None,
        None,
        cancel_on_interruption=wrapper.cancel_on_interruption,
        idempotent=wrapper.idempotent,
    )


def _from_schema(given: FlowsFunctionSchema, where: str) -> FlowFunction:
    where = f"{where} ({given.name!r})"
    try:
        schema = given.to_function_schema()
    except ConfigError as error:
        raise InvalidFunctionError(f"{where}: {error}") from error
    if given.transition_to is not None and not isinstance(given.transition_to, str):
        raise InvalidFunctionError(f"{where}: transition_to must be the name of a node")
    handler = None if given.handler is None else _adapt_handler(given.handler, where)
    callback = given.transition_callback
    if callback is not None:
        callback = _adapt_callback(callback, where)
    if given.transition_to or given.transition_callback:
        warnings.warn(
            "transition_to and transition_callback are deprecated: return (result, next node)",
            DeprecationWarning,
            stacklevel=2,
        )
    return FlowFunction(
        schema,
        handler,
        given.transition_to or None,
        callback,
        cancel_on_interruption=given.cancel_on_interruption,
        idempotent=given.idempotent,
    )


def _from_provider(entry: Mapping[str, Any], where: str) -> list[FlowsFunctionSchema]:
    """Reads a function in OpenAI's, Anthropic's, Gemini's or Bedrock's form.

    OpenAI's and Bedrock's are nested, and Gemini's may be several; what belongs to flows stands
    beside the name.
    """
    nested: list[tuple[Any, Callable[[Any], Any]]]
    if "function_declarations" in entry:
        declarations = entry["function_declarations"]
        if not isinstance(declarations, list):
            raise InvalidFunctionError(f"{where}: function_declarations must be a list")
        nested = [(declaration, _parameters) for declaration in declarations]
    elif "function" in entry:
        nested = [(entry["function"], _parameters)]
    elif "toolSpec" in entry:
        nested = [(entry["toolSpec"], lambda tool: tool.get("inputSchema", {}).get("json"))]
    elif "input_schema" in entry:
        nested = [(entry, lambda tool: tool["input_schema"])]
    else:
        nested = [(entry, _parameters)]
    return [_schema(declared, parameters, entry, where) for declared, parameters in nested]


def _parameters(declaration: Any) -> Any:
    return declaration.get("parameters")


def _schema(
    declared: Any, read: Callable[[Any], Any], entry: Mapping[str, Any], where: str
) -> FlowsFunctionSchema:
    if not isinstance(declared, Mapping) or not isinstance(declared.get("name"), str):
        raise InvalidFunctionError(f"{where}: a function has a name")
    parameters = read(declared) or {}
    if not isinstance(parameters, Mapping):
        raise InvalidFunctionError(f"{where} ({declared['name']!r}): parameters must be an object")
    ours = {**entry, **declared}
    try:
        return FlowsFunctionSchema(
            name=declared["name"],
            description=declared.get("description", ""),
            properties=parameters.get("properties", {}),
            required=list(parameters.get("required", [])),
            handler=ours.get("handler"),
            transition_to=ours.get("transition_to"),
            transition_callback=ours.get("transition_callback"),
            cancel_on_interruption=ours.get("cancel_on_interruption", True),
            idempotent=ours.get("idempotent", False),
        )
    except ValueError as error:
        raise InvalidFunctionError(f"{where}: {error}") from error


def _adapt_handler(handler: Any, where: str) -> Handler:
    if not callable(handler):
        raise InvalidFunctionError(f"{where}: handler must be a function, not {handler!r}")
    if takes(handler, 2):
        return _finishing(handler)
    if not takes(handler, 1):
        raise InvalidFunctionError(f"{where}: handler must take (args, flow_manager), or only args")

    async def adapted(args: FlowArgs, flow_manager: FlowManager) -> Any:
        return await finish(handler(args))

    return adapted


def _finishing(handler: Callable[..., Any]) -> Handler:
    async def adapted(args: FlowArgs, flow_manager: FlowManager) -> Any:
        return await finish(handler(args, flow_manager))

    return adapted


def _adapt_callback(callback: Any, where: str) -> TransitionCallback:
    if not callable(callback):
        raise InvalidFunctionError(f"{where}: transition_callback must be a function")
    three = takes(callback, 3)
    if not three and not takes(callback, 2):
        raise InvalidFunctionError(
            f"{where}: transition_callback must take (args, result, flow_manager), "
            "or (args, flow_manager)"
        )

    async def adapted(args: FlowArgs, result: Any, flow_manager: FlowManager) -> None:
        given = (args, result, flow_manager) if three else (args, flow_manager)
        await finish(callback(*given))

    return adapted


def warn_of_loose_ends(function: FlowFunction, where: str) -> None:
    """Says so if a call of a function does nothing at all."""
    if (
        function.handler is None
        and function.transition_to is None
        and function.transition_callback is None
    ):
        logger.warning("a function has no handler", function_name=function.name, place=where)
