"""The forms a bot's function handlers may have, brought into one."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.services._function_calls import FunctionCallParams

_OLD_FORM_ARGUMENTS = 6


def adapt_handler(handler: Any) -> Callable[[FunctionCallParams], Awaitable[None]]:
    """Brings a bot's function handler into the form ``async (params) -> None``.

    Args:
        handler: ``handler(params)``, or the deprecated form with six arguments.

    Raises:
        TypeError: It is neither.
    """
    if _takes(handler, 1):

        async def adapted(params: FunctionCallParams) -> None:
            await _finish(handler(params))

    elif _takes(handler, _OLD_FORM_ARGUMENTS):
        warnings.warn(
            "function handlers with six arguments are deprecated, take FunctionCallParams",
            DeprecationWarning,
            stacklevel=3,
        )

        async def adapted(params: FunctionCallParams) -> None:
            await _finish(
                handler(
                    params.function_name,
                    params.tool_call_id,
                    params.arguments,
                    params.llm,
                    params.context,
                    params.result_callback,
                )
            )

    else:
        raise TypeError(
            f"function handler {_name(handler)} must be callable with one argument "
            "(params: FunctionCallParams)"
        )

    return adapted


def adapt_start_callback(callback: Any) -> Callable[[str, Any, Any], Awaitable[None]]:
    """Brings a deprecated start callback into the form ``async (name, llm, context) -> None``.

    Raises:
        TypeError: It does not take three arguments.
    """
    if not _takes(callback, 3):
        raise TypeError(
            f"start_callback {_name(callback)} must be callable with (function name, llm, context)"
        )

    async def adapted(function_name: str, llm: Any, context: Any) -> None:
        await _finish(callback(function_name, llm, context))

    return adapted


async def _finish(result: Any) -> None:
    if inspect.isawaitable(result):
        await result


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with so many positional arguments."""
    if not callable(function):
        return False
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions do not say
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
