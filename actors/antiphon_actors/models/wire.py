"""What the users of a model and its actor write to each other: MessagePack arrays on two streams.

The stream of requests carries `REQUEST`, `OPEN`, `CLOSE` and `CANCEL`, in the order in which they were
made. The stream of answers carries `ANSWERS` (those of one batch together) and `MEMBERS`. Values are written
as they are where MessagePack has them, and by the codec of frames where it does not; nothing that is read
names code to be run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import msgpack

from antiphon.errors import AntiphonError, DeadlineExceededError, OverloadedError, ServiceError
from antiphon.frames import codec
from antiphon_actors.channels import ChannelError
from antiphon_actors.session.endpoint import pack

REQUESTS: Final = "model"
"""The kind of a stream of requests; its number is that of the stream of answers."""

ANSWERS: Final = "answers"
"""The kind of a stream of answers."""


class Kind(IntEnum):
    """What a record is."""

    REQUEST = 1
    OPEN = 2
    CLOSE = 3
    CANCEL = 4
    ANSWERS = 5
    MEMBERS = 6


class Status(IntEnum):
    """What became of a request."""

    OK = 0
    FAILED = 1
    OVERLOADED = 2
    EXPIRED = 3


class Malformed(ChannelError):
    """A record is not what it has to be; its stream is given up."""


_AS_IT_IS: Final = frozenset({bytes, float, str, bool, type(None)})

# How a value is written: as it is, or by the codec.
_PLAIN, _CODEC = 0, 1


def stream_key(kind: str, number: int) -> bytes:
    """The key of a stream of requests or answers: of no session, unlike those of frames."""
    return pack("", kind, number, 0, None)


def write_value(value: Any) -> tuple[int, Any]:
    """A value in its written form: how, and what.

    Raises:
        CodecError: It cannot travel.
    """
    if type(value) in _AS_IT_IS:
        return _PLAIN, value
    return _CODEC, codec.encode_value(value)


def read_value(how: Any, what: Any) -> Any:
    """The value that `write_value` wrote.

    Raises:
        CodecError: It is none.
        Malformed: It is written in no way known here.
    """
    if how == _PLAIN and type(what) in _AS_IT_IS:
        return what
    if how == _CODEC and type(what) is bytes:
        return codec.decode_value(what)
    raise Malformed("a value is written in an unknown way")


def read_record(payload: bytes) -> list[Any]:
    """The fields of a record, its kind first.

    Raises:
        Malformed: It is none.
    """
    try:
        record = msgpack.unpackb(payload)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"a record is not MessagePack: {error}") from error
    if type(record) is not list or not record or type(record[0]) is not int:
        raise Malformed("a record is not an array with a kind")
    return record


def fields(record: list[Any], *types: type) -> list[Any]:
    """The fields of a record after its kind, of which the first must be of these types.

    Raises:
        Malformed: They are not.
    """
    found = record[1:]
    if len(found) < len(types) or any(
        type(value) is not wanted for value, wanted in zip(found, types, strict=False)
    ):
        raise Malformed(f"a record of kind {record[0]} has fields of wrong types")
    return found


def request_fields(record: list[Any]) -> tuple[int, int, float, Any, Any]:
    """The fields of a request: number, session, seconds left, how its payload is written, and what.

    Raises:
        Malformed: They are something else.
    """
    if len(record) >= 6:
        _, number, session, secs, how, what = record[:6]
        # As `fields`, for what comes thousands of times a second.
        if type(number) is int and type(session) is int and type(secs) is float:
            return number, session, secs, how, what
    raise Malformed("a request has fields of wrong types")


def write_request(
    number: int, session: int, remaining_secs: float, payload: tuple[int, Any]
) -> bytes:
    """A request; `session` is 0 for one of no session."""
    written: bytes = msgpack.packb((1, number, session, remaining_secs, *payload))
    return written


def write_open(session: int, options: Any, state: tuple[int, Any]) -> bytes:
    """The beginning of a session, perhaps with the state to go on from."""
    written: bytes = msgpack.packb((2, session, *write_value(options), *state))
    return written


def write_close(session: int) -> bytes:
    """The end of a session."""
    written: bytes = msgpack.packb((3, session))
    return written


def write_cancel(number: int) -> bytes:
    """Nobody waits for a request any more."""
    written: bytes = msgpack.packb((4, number))
    return written


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a model's actor is.

    Attributes:
        wait_secs: How long a request that came now would wait for its answer.
        each_secs: By how much every further one makes that longer.
        sessions: Open sessions that keep state there.
    """

    wait_secs: float
    each_secs: float
    sessions: int


def write_answers(load: Load, answers: list[Any]) -> bytes:
    """Answers, each made by `write_answer`."""
    written: bytes = msgpack.packb((5, load.wait_secs, load.each_secs, load.sessions, answers))
    return written


def write_answer(number: int, result: Any, state: tuple[int, Any] | None) -> tuple[Any, ...]:
    """What became of a request.

    Args:
        number: Of the request.
        result: What the model gave, or an exception.
        state: Of its session after it, written, if it keeps any.
    """
    if isinstance(result, Exception):
        return number, *_write_error(result)
    if state is None:
        return number, 0, *write_value(result)
    return number, 0, *write_value(result), *state


def _write_error(error: Exception) -> tuple[Any, ...]:
    if isinstance(error, OverloadedError):
        return Status.OVERLOADED.value, str(error), error.retry_after
    if isinstance(error, DeadlineExceededError):
        return Status.EXPIRED.value, str(error)
    retryable = bool(getattr(error, "retryable", False))
    return Status.FAILED.value, str(error), retryable


def check_answer(answer: Any) -> list[Any]:
    """The parts of an answer: its number, its status, and what came of it.

    Raises:
        Malformed: It is none.
    """
    if (
        type(answer) is not list
        or len(answer) < 3
        or type(answer[0]) is not int
        or type(answer[1]) is not int
        or (answer[1] == Status.OK and len(answer) < 4)
    ):
        raise Malformed("an answer is not an array of a number, a status and a result")
    return answer


def read_error(name: str, status: int, rest: list[Any]) -> AntiphonError:
    """The exception that stands for what went wrong in the actor.

    Raises:
        Malformed: There is no such status.
    """
    match status, rest:
        case Status.OVERLOADED, [str(text), float(retry_after), *_]:
            return OverloadedError(text, retry_after=retry_after, provider=name)
        case Status.EXPIRED, [str(text), *_]:
            return DeadlineExceededError(text, provider=name)
        case Status.FAILED, [str(text), bool(retryable), *_]:
            return ServiceError(text, retryable=retryable, provider=name)
    raise Malformed(f"an answer of status {status}")


@dataclass(frozen=True, slots=True)
class Member:
    """One of a model's actors.

    Attributes:
        actor_id: Ray's id, hexadecimal.
        uri: Of its hub.
    """

    actor_id: str
    uri: str


@dataclass(frozen=True, slots=True)
class Members:
    """What an actor says of its model, at the beginning and when it changes.

    Attributes:
        version: Higher than of what was said before, by whatever actor of the model.
        leaving: Whether the actor takes nothing new and is about to end.
        limit: Requests that it may have at a time; it would refuse more.
        members: All actors of the model that take requests.
    """

    version: int
    leaving: bool
    limit: int
    members: tuple[Member, ...]


def write_members(said: Members) -> bytes:
    """What an actor says of its model."""
    members = [(member.actor_id, member.uri) for member in said.members]
    written: bytes = msgpack.packb((6, said.version, said.leaving, said.limit, members))
    return written


def read_members(record: list[Any]) -> Members:
    """What `write_members` wrote.

    Raises:
        Malformed: It is something else.
    """
    version, leaving, limit, plain = fields(record, int, bool, int, list)[:4]
    members = []
    for each in plain:
        match each:
            case [str(actor_id), str(uri), *_]:
                members.append(Member(actor_id, uri))
            case _:
                raise Malformed("a member is not an id and an address")
    return Members(version, leaving, limit, tuple(members))
