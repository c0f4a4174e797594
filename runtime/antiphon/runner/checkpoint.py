"""What a conversation needs to go on in another process, as plain data and as bytes.

A checkpoint holds what people have said. It is never logged, and it is deleted when its session ends.

Its bytes begin with ``AC``, the version of their form and a digest of the rest, which is MessagePack
in the form of `antiphon.frames.codec`. Reading them runs nothing that they name. Fields that a reader
does not know are ignored, and those that are missing have their defaults.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from antiphon.errors import SessionError
from antiphon.frames import codec
from antiphon.observers.turn_tracking_observer import TurnState
from antiphon.processors.aggregators.llm_response import CallInProgress

MAX_BYTES = 8 * 1024 * 1024
"""How large a checkpoint may become; a conversation with pictures gets there first."""

# Whose messages a conversation may have from its beginning.
_BEFORE_ANYTHING_IS_SAID = ("system", "developer")

_MAGIC = b"AC"
_VERSION = 1
_DIGEST_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + 1 + _DIGEST_BYTES


class CheckpointError(SessionError):
    """A checkpoint cannot be written, or what was read is none that this program can go on from."""


@dataclass
class SavedContext:
    """One conversation with a language model.

    Attributes:
        content: Messages, tools and tool choice: ``OpenAILLMContext.to_plain()``.
        awaits_answer: Whether the model has been asked and has not answered.
        open_response_from: Number of the first message of an answer that is not complete; None if
            none is.
        calls: Function calls without a result.
    """

    content: dict[str, Any]
    awaits_answer: bool = False
    open_response_from: int | None = None
    calls: list[CallInProgress] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.content.get("messages"), list):
            raise ValueError("a conversation has messages")

    @property
    def messages(self) -> list[Any]:
        """The messages: the list itself, which a bot may change before its task starts."""
        messages: list[Any] = self.content["messages"]
        return messages


@dataclass
class SavedTurns:
    """The turns of a conversation.

    Attributes:
        state: Where it stands.
        records: The fields of each ``TurnRecord`` that are not empty.
    """

    state: TurnState
    records: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class SessionCheckpoint:
    """A session, as it was at one moment.

    A bot may change it before its task starts: what it holds then is restored.

    Attributes:
        session_id: The session.
        bot_version: Which version of the bot it ran.
        started_at: When the session began, Unix time in seconds.
        saved_at: When this was written, Unix time in seconds.
        elapsed_secs: What the pipeline's clock read then, about.
        sequence: Number of this checkpoint in the session, from 1.
        contexts: Its conversations, in the order of the pipeline.
        turns: Its turns; None if they are not tracked.
        states: What was registered with ``PipelineTask.add_saved_state()``, by name: flows, and
            what the bot adds.
        start_metadata: Metadata of the StartFrame.
        received: How many of the caller's messages it contains (`CallerLine`).
        is_ending: Whether an EndFrame was on its way.
        lost: Names of values that could not be saved.
        problems: What could not be restored; filled in when the task starts, and never saved.
    """

    session_id: str
    bot_version: str
    started_at: float
    saved_at: float = 0.0
    elapsed_secs: float = 0.0
    sequence: int = 0
    contexts: list[SavedContext] = field(default_factory=list)
    turns: SavedTurns | None = None
    states: dict[str, Any] = field(default_factory=dict)
    start_metadata: dict[str, Any] = field(default_factory=dict)
    received: int = 0
    is_ending: bool = False
    lost: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list, compare=False)

    @property
    def has_begun(self) -> bool:
        """Whether anybody has said or asked anything, or the bot has something of its own to go on with."""
        return bool(self.is_ending or self.states) or any(
            context.awaits_answer or context.calls or any(map(_is_said, context.messages))
            for context in self.contexts
        )

    def encode(self) -> bytes:
        """The checkpoint as bytes.

        Raises:
            CheckpointError: It is too large, or holds something that is no plain data; the message
                names classes and fields, and nothing that was said.
        """
        plain = _parts(self)
        del plain["problems"]
        try:
            body = codec.encode_value(plain, max_bytes=MAX_BYTES)
        except codec.CodecError as error:
            raise CheckpointError(f"the session cannot be saved: {error}") from error
        return _MAGIC + bytes([_VERSION]) + _digest(body) + body

    @classmethod
    def decode(cls, data: bytes) -> SessionCheckpoint:
        """The checkpoint that `encode` has written.

        Raises:
            CheckpointError: It is none, of another version, or damaged.
        """
        if data[: len(_MAGIC)] != _MAGIC or len(data) < _HEADER_BYTES:
            raise CheckpointError("the checkpoint is damaged: it does not begin like one")
        version = data[len(_MAGIC)]
        if version != _VERSION:
            raise CheckpointError(
                f"the checkpoint has version {version}; this program reads version {_VERSION}"
            )
        body = data[_HEADER_BYTES:]
        if data[len(_MAGIC) + 1 : _HEADER_BYTES] != _digest(body):
            raise CheckpointError("the checkpoint is damaged: its digest does not match")
        try:
            return _READER.validate_python(codec.decode_value(body, max_bytes=MAX_BYTES))
        except codec.CodecError as error:
            raise CheckpointError(f"the checkpoint is malformed: {error}") from error
        except ValidationError as error:
            raise CheckpointError(f"the checkpoint is malformed: {_reasons(error)}") from None


def _is_said(message: Any) -> bool:
    return not isinstance(message, dict) or message.get("role") not in _BEFORE_ANYTHING_IS_SAID


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()


def _parts(value: Any) -> Any:
    """The dataclasses in a value as maps of their fields; all else as it is."""
    if is_dataclass(value):
        return {name: _parts(each) for name, each in vars(value).items()}
    return [_parts(each) for each in value] if isinstance(value, list) else value


def _reasons(error: ValidationError) -> str:
    """What is wrong, without the values: they may be what somebody said."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found[:3])


_READER = TypeAdapter(SessionCheckpoint)
