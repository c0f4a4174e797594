"""Where in a program an error comes from."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType, TracebackType
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a program.

    Attributes:
        file: Its file.
        line: Its number.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def file_of(code: CodeType, variables: Mapping[str, Any]) -> str:
    """The file of code, also of code that was pickled by value and has lost its own note of it.

    Args:
        code: The code.
        variables: The globals that it runs with.
    """
    name = code.co_filename
    file = variables.get("__file__") if name.startswith("<") else None
    return file if isinstance(file, str) else name


def places_of(trace: TracebackType | None) -> list[Place]:
    """The lines that a traceback leads through, the innermost last."""
    return [
        Place(file_of(frame.f_code, frame.f_globals), line)
        for frame, line in traceback.walk_tb(trace)
    ]
