"""The example runs, and books a table."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

from antiphon.runner.types import RunnerArguments

EXAMPLE = Path(__file__).parents[2] / "examples" / "flows_restaurant.py"


async def test_the_restaurant() -> None:
    spec = importlib.util.spec_from_file_location("flows_restaurant", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines: list[str] = []
    module.print = lambda *words: lines.append(" ".join(map(str, words)))
    async with asyncio.timeout(50):
        await module.bot(RunnerArguments())
    assert [line for line in lines if line.startswith("guest:")] == [
        f"guest: {words}" for words in module.GUEST
    ]
    told = [line.removeprefix("bot:").strip() for line in lines if line.startswith("bot:")]
    assert "".join(told) == (
        "Good evening!How many are you?Let me open the book.When would you like to come?"
        "Seven is taken.Would eight do?A table for four at eight.Anything else?See you tonight!"
    )
    assert lines[-1] == "booked: {'size': 4, 'time': '20:00'}"
