"""Bytes that no writer has written: always a CodecError or a valid frame, soon, and nothing else."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antiphon.frames import frames
from antiphon.frames._extensions import FRAME, INTEGER, SET, TUPLE, VALUE
from antiphon.frames.codec import CodecError, decode, decode_value, encode, encode_value


def _samples() -> list[frames.Frame]:
    rich = frames.TransportMessageFrame(
        {"a": (1, 2.5, None), "b": {3}, "big": 2**70, "list": [True, b"x", "text"]}
    )
    rich.metadata = {"k": frames.KeypadEntry.ONE}
    rich.pts = 5
    rich.transport_destination = "screen"
    image = frames.OutputImageRawFrame(b"abc", (1, 1), "RGB")
    return [
        frames.InputAudioRawFrame(bytes(64), 16000, 1),
        frames.TranscriptionFrame("Hello.", "me", "now"),
        frames.StartFrame(allow_interruptions=True),
        frames.EndFrame(),
        frames.SpriteFrame([image, image]),
        frames.TranscriptionUpdateFrame([frames.TranscriptionMessage("user", "hi")]),
        rich,
    ]


SAMPLES = _samples()
RECORDS = [encode(frame) for frame in SAMPLES]
record = st.sampled_from(RECORDS)


def read(data: bytes) -> None:
    try:
        frame = decode(data)
    except CodecError:
        return
    assert isinstance(frame, frames.Frame)
    assert isinstance(frame.id, int)
    assert str(frame)
    assert repr(frame)

    # Both ways to read agree.
    assert decode(bytearray(data)) == frame


@pytest.mark.parametrize("data", RECORDS, ids=lambda data: f"{len(data)} bytes")
def test_every_truncation_is_an_error(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(CodecError):
            decode(data[:length])


@pytest.mark.parametrize("data", RECORDS, ids=lambda data: f"{len(data)} bytes")
def test_every_flipped_bit_is_an_error_or_a_frame(data: bytes) -> None:
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            read(bytes(damaged))


@given(record, st.binary(min_size=1, max_size=8), st.data())
def test_overwritten_bytes(data: bytes, patch: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    read(data[:at] + patch + data[at + len(patch) :])
    read(data[:at] + patch + data[at:])


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\x90")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\xdd\xff\xff\xff\xff" * 500)
@example(b"\x91" * 5000)
@example(b"\xc7\x00\xff")
@example(b"\xd7\xff" + bytes(8))
def test_arbitrary_bytes(data: bytes) -> None:
    read(data)
    with suppress(CodecError):
        decode_value(data)


def test_bytes_after_the_record_are_an_error() -> None:
    with pytest.raises(CodecError):
        decode(RECORDS[0] + b"\x00")


@pytest.mark.parametrize(
    "kind", [9999, -1, 2**63, True, None, 1.5, "os:system", "builtins:object", [], {}, b"x"]
)
def test_unknown_kinds(kind: object) -> None:
    with pytest.raises(CodecError, match="unknown kind"):
        decode(msgpack.packb([kind, 1, 2]))


def test_a_kind_imports_nothing() -> None:
    import sys

    name = "antipodes_of_nothing"
    with pytest.raises(CodecError, match="unknown kind"):
        decode(msgpack.packb([f"{name}:Frame", 1, 2]))
    with pytest.raises(CodecError, match="unknown kind"):
        decode(msgpack.packb(["this:Frame", 1, 2]))
    assert "this" not in sys.modules
    assert name not in sys.modules


def _record(frame: frames.Frame, **changes: object) -> bytes:
    record: list[Any] = msgpack.unpackb(encode(frame), ext_hook=msgpack.ExtType)
    record += [None] * (7 - len(record))
    for position, value in changes.items():
        record[int(position[1:])] = value
    return bytes(msgpack.packb(record))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_record(frames.EndFrame(), _1="one"), "id"),
        (_record(frames.EndFrame(), _1=True), "id"),
        (_record(frames.EndFrame(), _2=[]), "name"),
        (_record(frames.EndFrame(), _3="now"), "pts"),
        (_record(frames.EndFrame(), _4=[1]), "metadata"),
        (_record(frames.EndFrame(), _5=5), "transport_source"),
        (_record(frames.EndFrame(), _6=b"x"), "transport_destination"),
        (_record(frames.InputAudioRawFrame(b"", 1, 1), _7="text"), "audio"),
        (_record(frames.InputAudioRawFrame(b"", 1, 1), _8="text"), "sample_rate"),
        (_record(frames.InputAudioRawFrame(b"", 1, 1), _8=[1]), "sample_rate"),
        (_record(frames.TextFrame("a"), _7=b"bytes"), "text"),
        (_record(frames.TextFrame("a"), _7=5), "text"),
        (_record(frames.LLMMessagesAppendFrame([]), _7="text"), "messages"),
        (_record(frames.FilterEnableFrame(True), _7="yes"), "enable"),
        (_record(frames.FilterUpdateSettingsFrame({}), _7=[1]), "settings"),
        (_record(frames.LLMSetToolChoiceFrame("auto"), _7=5), "tool_choice"),
        (_record(frames.OutputImageRawFrame(b"", (1, 1), None), _8=5), "size"),
        (_record(frames.InputDTMFFrame(frames.KeypadEntry.ONE), _7=5), "button"),
    ],
)
def test_wrong_types_are_named(data: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=rf"\.{message} cannot hold|\.{message} is no"):
        decode(data)


def test_oversized_records_are_refused_unread() -> None:
    data = encode(frames.TextFrame("x" * 1000))
    with pytest.raises(CodecError, match="larger than the allowed 100"):
        decode(data, max_bytes=100)
    with pytest.raises(CodecError, match="larger than the allowed 100"):
        decode_value(data, max_bytes=100)
    with pytest.raises(CodecError, match="larger than the allowed 100"):
        encode(frames.TextFrame("x" * 1000), max_bytes=100)
    with pytest.raises(CodecError, match="larger than the allowed"):
        decode(bytes(33 * 1024 * 1024))


def _ext(code: int, plain: object) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(plain))


def _nested(depth: int, wrap: Callable[[object], object], inner: object = None) -> bytes:
    value = inner
    for _ in range(depth):
        value = wrap(value)
    return bytes(msgpack.packb(value))


def _colliding(count: int) -> object:
    # Hashes of numbers are the numbers modulo 2**61 - 1; these begin their search at one place.
    return dict.fromkeys(((i << 40) % (2**61 - 1) for i in range(count)), 0)


BOMBS = {
    "long lists announced in long lists": b"\xdc\xff\xff" * 20_000,
    "longer lists announced in longer lists": b"\xdd\x00\xff\xff\xff" * 20_000,
    "long maps announced in long maps": b"\xde\xff\xff" * 20_000,
    "deep lists": b"\x91" * 1_000_000,
    "deep tuples": _nested(100, lambda value: _ext(TUPLE, [value])),
    "deep tuples with odd keys": _nested(22, lambda value: _ext(TUPLE, [value, {1: 2}])),
    "deep tuples around nonsense": _nested(
        22, lambda value: _ext(TUPLE, [value, value] if isinstance(value, str) else [value]), "x"
    ),
    "colliding keys": bytes(msgpack.packb(_colliding(50_000))),
    "many odd members": bytes(msgpack.packb(_ext(SET, list(range(50_000))))),
    "large integer": bytes(msgpack.packb(msgpack.ExtType(INTEGER, b"\x7f" * 1_000_000))),
    "frames in frames": _nested(
        100,
        lambda value: msgpack.ExtType(FRAME, msgpack.packb([6, 1, 1, 0, None, None, None, value])),
    ),
    "announced lists in nested types": _nested(
        20,
        lambda value: msgpack.ExtType(TUPLE, b"\xdc\x00\xff" * 900 + msgpack.packb(value)),
    ),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_cost_little(data: bytes) -> None:
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with suppress(CodecError):
            decode_value(data)
        assert time.perf_counter() - began < 2
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_odd_keys_inside_nested_types_do_not_multiply_the_work() -> None:
    calls = 0

    class Counting:
        def claims(self, obj: object) -> bool:
            return True

        def refer(self, obj: object) -> object:
            return 1

        def resolve(self, ref: object) -> object:
            nonlocal calls
            calls += 1
            return "resolved"

    value: object = _samples
    for _ in range(15):
        value = (value, {1: 2}, list(range(600)))
    refs = Counting()
    received = decode_value(encode_value(value, refs), refs)
    for _ in range(15):
        received = received[0]
    assert received == "resolved"
    assert calls <= 3


@dataclass
class VictimFrame(frames.DataFrame):
    word: str = "w"

    def __post_init__(self) -> None:
        super().__post_init__()
        raise AssertionError("a constructor ran")

    @property
    def trap(self) -> str:
        return "unharmed"

    @trap.setter
    def trap(self, value: str) -> None:
        raise AssertionError("a property ran")


VICTIM = f"{VictimFrame.__module__}:{VictimFrame.__qualname__}"


def _victim(attributes: object) -> bytes:
    return bytes(msgpack.packb([VICTIM, 1, 2, None, None, None, None, attributes, "x"]))


def test_undeclared_attributes_run_nothing() -> None:
    frame = decode(_victim({"trap": "sprung", "note": 1}))
    assert isinstance(frame, VictimFrame)
    assert (frame.trap, frame.word) == ("unharmed", "x")
    assert frame.__dict__["note"] == 1


@pytest.mark.parametrize(
    "attributes",
    [{"__class__": 1}, {"__dict__": 1}, {"word": 1}, {"id": 1}, {"_count": 1}, {b"x": 1}, [1], "x"],
    ids=repr,
)
def test_undeclared_attributes_cannot_be_just_anything(attributes: object) -> None:
    with pytest.raises(CodecError, match="attribute"):
        decode(_victim(attributes))


@pytest.mark.parametrize(
    "plain",
    [
        ["O", [1], b"12345678"],
        ["|O8", [1], b"12345678"],
        ["<f4", [2], b"1234"],
        ["<f4", [-1, -1], b"1234"],
        ["<f4", [2**62, 2**62], b""],
        ["<f4", [2**40], b"1234"],
        ["<f4", [1] * 100, b"1234"],
        ["<f4,<f4", [1], b"12345678"],
        ["<U0", [5], b""],
        ["<M8[xx]", [1], b"12345678"],
        ["<f3", [1], b"123"],
        ["<f4", "x", b"1234"],
        ["<f4", [1], "1234"],
        [None, [1], b"1234"],
        [],
        5,
    ],
    ids=repr,
)
def test_bad_arrays(plain: object) -> None:
    from antiphon.frames._extensions import ARRAY

    data = msgpack.packb(_ext(ARRAY, plain))
    try:
        received = decode_value(data)
    except CodecError:
        return
    assert received.nbytes == 0


@pytest.mark.parametrize(
    "value",
    [
        _ext(VALUE, [8, "yesterday"]),
        _ext(VALUE, [8, 5]),
        _ext(VALUE, [12, b"short"]),
        _ext(VALUE, [13, "a lot"]),
        _ext(VALUE, [11, ["x"]]),
        _ext(VALUE, [1, ["ONE"]]),
        _ext(VALUE, [2, []]),
        _ext(VALUE, [[], 1]),
        _ext(VALUE, [True, "ONE"]),
        _ext(VALUE, 5),
        _ext(SET, [[]]),
        _ext(SET, {}),
        _ext(TUPLE, 5),
        msgpack.ExtType(INTEGER, b""),
        msgpack.ExtType(FRAME, b""),
        msgpack.ExtType(FRAME, b"\xc1"),
        msgpack.ExtType(99, b""),
        {1: msgpack.ExtType(99, b"")},
        [[[msgpack.ExtType(99, b"")]]],
    ],
    ids=repr,
)
def test_bad_extension_types_are_errors_unless_nobody_needs_them(value: object) -> None:
    data = bytes(msgpack.packb(value))
    with pytest.raises(CodecError):
        decode_value(data)
    with pytest.raises(CodecError):
        decode(msgpack.packb([6, 1, 2, None, {"k": value}, None, None, "text"]))
    frame = decode(msgpack.packb([6, 1, 2, None, None, None, None, "text", value]))
    assert isinstance(frame, frames.TextFrame)
    assert frame.text == "text"
