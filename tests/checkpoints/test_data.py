"""The bytes of a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.frames import codec
from antiphon.observers.turn_tracking_observer import TurnState
from antiphon.processors.aggregators.llm_response import CallInProgress
from antiphon.runner import checkpoint as module
from antiphon.runner.checkpoint import (
    MAX_BYTES,
    CheckpointError,
    SavedContext,
    SavedTurns,
    SessionCheckpoint,
)

SECRET = "my number is 4711"


def a_checkpoint() -> SessionCheckpoint:
    return SessionCheckpoint(
        session_id="s1",
        bot_version="abc",
        started_at=1.0,
        saved_at=2.0,
        elapsed_secs=3.0,
        sequence=4,
        contexts=[
            SavedContext(
                {"id": "x", "messages": [{"role": "user", "content": SECRET}]},
                awaits_answer=True,
                open_response_from=1,
                calls=[CallInProgress("f", "call_1", {"a": [1, None]}, 5.0, begun=True)],
            )
        ],
        turns=SavedTurns(TurnState(2, True, False), [{"number": 1, "user_text": SECRET}]),
        states={"flow.1": {"state": {"size": 4}, "node": {"name": "end"}}},
        start_metadata={"caller": "+47"},
        received=17,
        is_ending=True,
        lost=["socket"],
    )


def written(plain: Any, version: int = 1) -> bytes:
    body = codec.encode_value(plain)
    return b"AC" + bytes([version]) + module._digest(body) + body


def plain_of(checkpoint: SessionCheckpoint) -> dict[str, Any]:
    plain: dict[str, Any] = codec.decode_value(checkpoint.encode()[module._HEADER_BYTES :])
    return plain


def test_comes_back_as_it_was() -> None:
    checkpoint = a_checkpoint()
    read = SessionCheckpoint.decode(checkpoint.encode())
    assert read == checkpoint
    assert read.contexts[0].messages[0]["content"] == SECRET
    assert isinstance(read.contexts[0].calls[0], CallInProgress)


def test_problems_are_not_written() -> None:
    checkpoint = a_checkpoint()
    checkpoint.problems.append("something")
    assert SessionCheckpoint.decode(checkpoint.encode()).problems == []


def test_a_reader_ignores_what_it_does_not_know() -> None:
    plain = plain_of(a_checkpoint())
    plain["from_the_future"] = {"x": 1}
    plain["contexts"][0]["mood"] = "fine"
    plain["contexts"][0]["calls"][0]["mood"] = "fine"
    plain["turns"]["state"]["mood"] = "fine"
    assert SessionCheckpoint.decode(written(plain)) == a_checkpoint()


def test_what_is_missing_has_its_default() -> None:
    least = {"session_id": "s", "bot_version": "v", "started_at": 1.0}
    assert SessionCheckpoint.decode(written(least)) == SessionCheckpoint("s", "v", 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"session_id": None}, "session_id"),
        ({"contexts": [SECRET]}, "contexts.0"),
        ({"contexts": [{"content": {"messages": SECRET}}]}, "a conversation has messages"),
        ({"contexts": [{"content": {}}]}, "a conversation has messages"),
        ({"received": SECRET}, "received"),
        ({"turns": {"state": SECRET}}, "turns.state"),
    ],
)
def test_malformed_ones_are_refused_without_a_word_of_theirs(
    change: dict[str, Any], said: str
) -> None:
    plain = plain_of(a_checkpoint()) | change
    with pytest.raises(CheckpointError, match="malformed") as caught:
        SessionCheckpoint.decode(written(plain))
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_another_version_is_named() -> None:
    with pytest.raises(CheckpointError, match="has version 2; this program reads version 1"):
        SessionCheckpoint.decode(written(plain_of(a_checkpoint()), version=2))


@given(st.data())
def test_damage_is_noticed(data: st.DataObject) -> None:
    good = a_checkpoint().encode()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    if data.draw(st.booleans()):
        del bad[place:]
    else:
        bad[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CheckpointError) as caught:
        SessionCheckpoint.decode(bytes(bad))
    assert "4711" not in str(caught.value)


@given(st.binary(max_size=64))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        SessionCheckpoint.decode(data)
    body = data[:8]
    with pytest.raises(CheckpointError):
        SessionCheckpoint.decode(b"AC\x01" + module._digest(body) + body)


def test_too_large_a_session_is_refused() -> None:
    checkpoint = a_checkpoint()
    checkpoint.contexts[0].messages.append({"role": "user", "content": "x" * MAX_BYTES})
    with pytest.raises(CheckpointError, match="larger than the allowed"):
        checkpoint.encode()


def test_what_is_no_plain_data_is_refused() -> None:
    checkpoint = a_checkpoint()
    checkpoint.start_metadata["socket"] = object()
    with pytest.raises(CheckpointError, match="object"):
        checkpoint.encode()


def context(*messages: dict[str, Any], **more: Any) -> SavedContext:
    return SavedContext({"messages": list(messages)}, **more)


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("more", "has_begun"),
    [
        ({}, False),
        ({"contexts": [context()]}, False),
        ({"contexts": [context(SYSTEM)], "received": 40}, False),
        ({"contexts": [context(SYSTEM), context({"role": "user", "content": "Hello."})]}, True),
        ({"contexts": [context({"role": "assistant", "content": "Hello."})]}, True),
        ({"contexts": [context(SYSTEM, awaits_answer=True)]}, True),
        ({"states": {"flow": {"node": "greeting"}}}, True),
        ({"is_ending": True}, True),
    ],
)
def test_whether_there_is_something_to_go_on_with(more: dict[str, Any], has_begun: bool) -> None:
    checkpoint = SessionCheckpoint("s", "version", 0.0, sequence=3, **more)
    assert checkpoint.has_begun is has_begun
    assert SessionCheckpoint.decode(checkpoint.encode()).has_begun is has_begun
