"""A conversation in OpenAI's form, taken apart for providers whose messages are made otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

EMPTY = "(empty)"
"""Stands for empty text, which these providers refuse."""


@dataclass(frozen=True)
class Text:
    """Something said."""

    text: str


@dataclass(frozen=True)
class Image:
    """A picture: base64 data of a media type, or where it is found."""

    media_type: str
    data: str
    url: str | None = None


@dataclass(frozen=True)
class ToolCall:
    """A function the model called."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ToolResult:
    """What the function gave: the decoded JSON, or the text if it is not JSON."""

    id: str
    name: str
    content: Any


Part: TypeAlias = Text | Image | ToolCall | ToolResult


@dataclass(frozen=True)
class Turn:
    """What one side said without the other in between."""

    role: Literal["user", "assistant"]
    parts: list[Part] = field(default_factory=list)


def split(messages: Sequence[Mapping[str, Any]]) -> tuple[str | None, list[Turn]]:
    """Instructions and turns of a conversation.

    The system messages it begins with are the instructions; later ones become what the user says,
    as these providers have no place for them. Neighbouring messages of one side become one turn.

    Args:
        messages: In OpenAI's form.

    Raises:
        ValueError: A message is not in that form.
    """
    instructions: list[str] = []
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for message in messages:
        role = message.get("role")
        if role in ("system", "developer") and not turns:
            instructions += [p.text for p in _content(message) if isinstance(p, Text)]
            continue
        if role == "assistant":
            calls = [_call(call) for call in message.get("tool_calls") or ()]
            names.update((call.id, call.name) for call in calls)
            said = _content(message) if message.get("content") or not calls else []
            _add(turns, "assistant", [*said, *calls])
        elif role == "tool":
            call_id = str(message.get("tool_call_id", ""))
            result = ToolResult(call_id, names.get(call_id, "tool_call_result"), _result(message))
            _add(turns, "user", [result])
        elif role in ("user", "system", "developer"):
            _add(turns, "user", _content(message))
        else:
            raise ValueError(f"a message has the role {role!r}")
    return "\n\n".join(instructions) or None, turns


def _add(turns: list[Turn], role: Literal["user", "assistant"], parts: list[Part]) -> None:
    if not turns or turns[-1].role != role:
        turns.append(Turn(role))
    turns[-1].parts.extend(parts)


def _content(message: Mapping[str, Any]) -> list[Part]:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return [Text(content or EMPTY)]
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> Part:
    kind = part.get("type")
    if kind == "text":
        return Text(str(part["text"]) or EMPTY)
    if kind == "image_url":
        url = str(part["image_url"]["url"])
        if not url.startswith("data:"):
            return Image("", "", url)
        header, _, data = url.removeprefix("data:").partition(",")
        return Image(header.partition(";")[0], data)
    raise ValueError(f"a part of a message has the type {kind!r}, which cannot be translated")


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"arguments of the call {call.get('id')!r} are not JSON") from error
    if not isinstance(arguments, dict):
        raise ValueError(f"arguments of the call {call.get('id')!r} are not an object")
    return ToolCall(str(call["id"]), str(function["name"]), arguments)


def _result(message: Mapping[str, Any]) -> Any:
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(p.text for p in _content(message) if isinstance(p, Text))
    try:
        return json.loads(content or "null")
    except json.JSONDecodeError:
        return content


def as_text(content: Any) -> str:
    """A function's result as text: as it is, else as JSON."""
    return content if isinstance(content, str) else json.dumps(content)
