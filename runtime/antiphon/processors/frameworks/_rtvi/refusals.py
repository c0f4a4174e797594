"""What a client is told when its message cannot be understood or carried out."""

from __future__ import annotations

from pydantic import ValidationError

_SHOWN_PROBLEMS = 5


class RefusedError(Exception):
    """A client's request cannot be carried out; the text is the answer it gets.

    It has a cause when the bot's own code failed.
    """


def summary(error: ValidationError) -> str:
    """What is wrong with a message, without its content."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        ": ".join(filter(None, [".".join(map(str, problem["loc"])), problem["msg"]]))
        for problem in problems[:_SHOWN_PROBLEMS]
    )
