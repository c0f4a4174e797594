from __future__ import annotations

import itertools
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon_actors.channels.errors import ProtocolViolation
from antiphon_actors.channels.framing import (
    DATA_HEAD_BYTES,
    Kind,
    RecordParser,
    cut_frames,
    expect,
    pack_cause,
    pack_data_head,
    pack_frame,
    pack_record,
    pure_cut_frames,
    pure_pack_data_head,
    pure_pack_frame,
)

LIMIT = 1 << 16

fields = st.lists(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=300), st.text(max_size=50)),
    max_size=5,
)
records = st.lists(st.tuples(st.sampled_from(Kind), fields), max_size=12)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


class Parsed:
    """What a parser makes of pieces of a byte stream; frames look as records do."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.records: list[Any] = []
        self.parser = RecordParser(limit, self._frame, self.records.append)

    def _frame(
        self,
        urgent: bool,
        stream: int,
        seq: int,
        sent_ns: int,
        payload: bytes,
        cause: int,
        ordinal: int,
    ) -> None:
        kind = Kind.URGENT if urgent else Kind.DATA
        record = [int(kind), stream, seq, sent_ns, payload]
        self.records.append([*record, cause, ordinal] if cause else record)

    def feed(self, *pieces: bytes | memoryview) -> list[Any]:
        for piece in pieces:
            self.parser.feed(piece)
        return self.records


@given(records, st.lists(st.integers(0, 10_000), max_size=20))
def test_records_survive_any_cutting(sent: list[tuple[Kind, list[Any]]], cuts: list[int]) -> None:
    data = b"".join(pack_record(kind, *values) for kind, values in sent)
    parsed = Parsed()
    assert parsed.feed(*cut(data, cuts)) == [[int(kind), *values] for kind, values in sent]
    assert parsed.parser.held_bytes == 0
    assert parsed.parser.records == len(sent)


frames = st.tuples(
    st.sampled_from([Kind.DATA, Kind.URGENT]),
    st.integers(1, 2**32 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=2000),
    st.just(0) | st.integers(1, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)


def as_record(frame: tuple[Any, ...]) -> list[Any]:
    kind, *rest, cause, ordinal = frame
    return [int(kind), *rest, cause, ordinal] if cause else [int(kind), *rest]


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 20_000), max_size=20))
def test_frames_survive_any_cutting(sent: list[tuple[Any, ...]], cuts: list[int]) -> None:
    data = b"".join(pack_frame(*frame) for frame in sent)
    pieces = [memoryview(piece) if at % 2 else piece for at, piece in enumerate(cut(data, cuts))]
    assert Parsed().feed(*pieces) == [as_record(frame) for frame in sent]


@given(frames)
def test_a_frame_is_a_record_like_any_other(frame: tuple[Any, ...]) -> None:
    assert msgpack.unpackb(pack_frame(*frame)[4:]) == as_record(frame)


@given(frames)
def test_both_ways_to_pack_a_frame_agree(frame: tuple[Any, ...]) -> None:
    kind, stream, seq, sent_ns, payload, cause, ordinal = frame
    head = pure_pack_data_head(kind, stream, seq, sent_ns, len(payload), cause)
    assert pack_data_head(kind, stream, seq, sent_ns, len(payload), cause) == head
    tail = pack_cause(cause, ordinal) if cause else b""
    assert pack_frame(*frame) == pure_pack_frame(*frame) == head + payload + tail


@given(st.binary(max_size=80) | frames.map(lambda frame: pack_frame(*frame)), st.integers(0, 5))
def test_both_ways_to_cut_frames_agree(data: bytes, at: int) -> None:
    data = bytes(at) + data + data
    short, general = Parsed(), Parsed()
    assert cut_frames(data, at, short.parser) == pure_cut_frames(data, at, general.parser)
    assert short.records == general.records
    assert short.parser.records == general.parser.records


@given(
    st.binary(max_size=2000),
    st.integers(1, 2**32 - 1),
    st.integers(1, 2**63),
    st.integers(0, 2**63),
)
def test_the_data_head_is_the_record_it_stands_for(
    payload: bytes, stream: int, seq: int, sent_ns: int
) -> None:
    data = pack_data_head(Kind.DATA, stream, seq, sent_ns, len(payload)) + payload
    assert Parsed().feed(data) == [[Kind.DATA, stream, seq, sent_ns, payload]]
    assert len(data) == 4 + DATA_HEAD_BYTES + len(payload)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_noise_gives_records_or_a_violation(noise: bytes, cuts: list[int]) -> None:
    parsed = Parsed()
    try:
        for record in parsed.feed(*cut(noise, cuts)):
            assert isinstance(record, list)
    except ProtocolViolation:
        return
    assert parsed.parser.held_bytes <= len(noise)


def test_an_oversized_record_is_refused_before_it_is_held() -> None:
    parsed = Parsed(100)
    with pytest.raises(ProtocolViolation, match="exceeds"):
        parsed.feed((101).to_bytes(4, "little"))
    assert parsed.parser.held_bytes == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        msgpack.packb([]),
        msgpack.packb({"kind": 1}),
        msgpack.packb(7),
        msgpack.packb([1]) + b"\0",
        b"\xc1",
        b"\x92\x01",
        b"\x91" * 3000,
        b"\x81\x90\x01",
        b"\x91\xa1\xff",
    ],
)
def test_what_is_no_record(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Parsed().feed(len(body).to_bytes(4, "little") + body)


def test_fields_are_checked_and_later_ones_ignored() -> None:
    assert expect([22, 1, b"x", "new"], int, bytes)[1:3] == [1, b"x"]
    for record in ([22, 1], [22, 1, "x"], [22, True, b"x"], [22, 1.0, b"x"]):
        with pytest.raises(ProtocolViolation):
            expect(record, int, bytes)
