"""Names by which a program's functions can be found again in another process that runs it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def name_of_function(function: Any) -> str:
    """The name of a function: its module, a colon, and its qualified name there.

    Raises:
        LookupError: It cannot be found by its name: it was made inside another function, or is
            something else than a function of a module or class.
    """
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str):
        raise LookupError(f"a {type(function).__name__} has no name to be found by")
    if _find(sys.modules.get(module), path) is not function:
        raise LookupError(f"{path} cannot be found by its name: define it in a module or a class")
    return f"{module}:{path}"


def function_named(name: str, is_own: Callable[[ModuleType], bool]) -> Callable[..., Any]:
    """The function of that name.

    Nothing is imported, and nothing that a module has only imported from elsewhere is found.

    Args:
        name: As `name_of_function` gives it.
        is_own: Whether functions of a module may be found.

    Raises:
        LookupError: There is none.
    """
    module_name, _, path = name.partition(":")
    module = sys.modules.get(module_name)
    if module is None or not is_own(module):
        raise LookupError(f"{module_name} is no module of the bot")
    function = _find(module, path)
    if not inspect.isfunction(function) or function.__module__ != module_name:
        raise LookupError(f"{module_name} has no function {path}")
    return function


def _find(module: ModuleType | None, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
