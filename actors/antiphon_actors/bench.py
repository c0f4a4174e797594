"""Starts the benchmarks of the source tree for ``antiphon bench``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from antiphon.errors import ConfigError


def benchmarks_root() -> Path:
    """The source tree that has the benchmarks.

    Raises:
        ConfigError: If this is an installation without one.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "suite.py").is_file():
        raise ConfigError("the benchmarks are part of the source tree; run `make bench` there")
    return root


def run_bench(arguments: Sequence[str]) -> int:
    """Runs the benchmarks and returns the exit code.

    Args:
        arguments: As for ``python -m benchmarks``; ``--help`` lists them.

    Raises:
        ConfigError: If there are none.
    """
    root = str(benchmarks_root())
    if root not in sys.path:
        sys.path.insert(0, root)
    code: int = importlib.import_module("benchmarks.suite").main(list(arguments))
    return code
