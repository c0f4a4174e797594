"""Function calls as they arrive in the chunks of a streamed completion."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from antiphon.errors import ServiceError
from antiphon.frames.frames import FunctionCallFromLLM


@dataclass
class _Partial:
    """A call of which more may come."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class ToolCallCollector:
    """Joins the pieces of each call; pieces of one call carry the same index."""

    def __init__(self) -> None:
        # Bounded by the completion's own length.
        self._calls: dict[int, _Partial] = {}

    def add(self, deltas: Iterable[Any]) -> None:
        """Takes the ``tool_calls`` of one chunk's delta."""
        for position, delta in enumerate(deltas):
            # Some compatible services leave the index out when they send each call whole.
            index = position if delta.index is None else delta.index
            call = self._calls.setdefault(index, _Partial())
            if delta.id:
                call.id = delta.id
            if delta.function is not None:
                call.name += delta.function.name or ""
                call.arguments += delta.function.arguments or ""

    def finish(self, context: Any) -> list[FunctionCallFromLLM]:
        """The complete calls, in order; one without a name or any arguments text is left out.

        Args:
            context: The conversation they belong to.

        Raises:
            ServiceError: The arguments of a call are not a JSON object.
        """
        return [
            FunctionCallFromLLM(
                function_name=call.name,
                tool_call_id=call.id,
                arguments=_parse(call),
                context=context,
            )
            for _, call in sorted(self._calls.items())
            if call.name and call.arguments
        ]


def _parse(call: _Partial) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments)
    except json.JSONDecodeError as error:
        raise ServiceError(
            f"the model called {call.name} with arguments that are not JSON: {error}"
        ) from error
    if not isinstance(arguments, dict):
        raise ServiceError(
            f"the model called {call.name} with a JSON {type(arguments).__name__} instead of an "
            "object"
        )
    return arguments
