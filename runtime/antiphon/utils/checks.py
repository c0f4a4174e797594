"""Checks of what constructors are given: the error names the place, the value and the remedy."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any


def check_number(
    where: str, value: Any, *, at_least: float | None = None, above: float | None = None
) -> None:
    """Refuses what is no finite number, or out of range.

    Args:
        where: The class and parameter, such as ``DTMFAggregator(timeout)``.
        value: What was given.
        at_least: The least value allowed.
        above: What the value must exceed.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not finite or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{where} must be a number, not {value!r}")
    if math.isnan(value):
        raise ValueError(f"{where} must be a number, not nan")
    if at_least is not None and value < at_least:
        raise ValueError(f"{where} must be at least {at_least:g}, not {value!r}")
    if above is not None and value <= above:
        raise ValueError(f"{where} must be above {above:g}, not {value!r}")


def check_instance(where: str, value: Any, wanted: type) -> None:
    """Refuses what is no instance of a class.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, wanted):
        raise TypeError(f"{where} must be a {wanted.__name__}, not {value!r}")


def check_sequence(where: str, value: Any) -> None:
    """Refuses what is no list or tuple; a text is neither.

    Raises:
        TypeError: If it is not.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{where} must be a list, not {value!r}")


def check_classes(where: str, values: Any, base: type) -> tuple[Any, ...]:
    """Refuses what is no collection of subclasses of a class.

    Returns:
        The classes.

    Raises:
        TypeError: If it is one class alone, or has anything else in it.
    """
    if isinstance(values, (str, type)) or not isinstance(values, Iterable):
        raise TypeError(
            f"{where} must be a tuple of subclasses of {base.__name__}, not {values!r}"
            + (f": write ({values.__name__},)" if isinstance(values, type) else "")
        )
    classes = tuple(values)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, base)):
            raise TypeError(f"{where} must hold subclasses of {base.__name__}, not {one!r}")
    return classes


def check_callable(where: str, value: Any, *parameters: str) -> None:
    """Refuses what cannot be called with the arguments it will be given.

    Args:
        where: The class and parameter.
        value: The function.
        *parameters: What the arguments are, in order, for the error's text.

    Raises:
        TypeError: If it is no function, or one of another signature.
    """
    wanted = f"a function that takes ({', '.join(parameters)})"
    if not callable(value):
        raise TypeError(f"{where} must be {wanted}, not {value!r}")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # builtins without a signature: only the call can tell
        return
    try:
        signature.bind(*parameters)
    except TypeError as error:
        raise TypeError(f"{where} must be {wanted}, not {signature}") from error
