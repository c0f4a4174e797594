"""Records as they travel: a 32-bit little-endian length, then one MessagePack array `[kind, ...]`.

Trailing elements that a reader does not know are ignored, so a record can grow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import msgpack

from antiphon_actors.channels.errors import ProtocolViolation
from antiphon_actors.channels.outbox import received, receiving

LENGTH_BYTES: Final = 4

# A record that waits behind nothing is copied once into one chunk up to this payload size; above
# it, header and payload stay two chunks of one gathered write.
JOIN_BYTES: Final = 32 << 10

Record = list[Any]
OnFrame = Callable[[bool, int, int, int, bytes, int, int], None]
OnRecord = Callable[[Record], None]


# Texts that say why are cut to this many characters.
MAX_REASON: Final = 512


class Kind(IntEnum):
    """First element of a record. Numbers are never reused."""

    HELLO = 1  # magic, lowest version, highest version, facts, limits
    READY = 2
    CLOSE = 3  # code, reason
    PING = 4  # sender's clock
    PONG = 5  # the clock of the ping
    OPEN = 10  # stream, key; then, to go on with one: ordered, urgent frames that are safe
    OPENED = 11  # stream, shared memory; then: ordered, urgent frames to go on from, greeting
    REFUSED = 12  # stream, reason
    END = 13  # stream: no more data
    ENDED = 14  # stream: the end was seen
    RESET = 15  # stream, reason: the sending side gives up
    STOP = 16  # stream, reason: the receiving side gives up
    DATA = 20  # stream, sequence number, sender's clock, payload; with a cause: cause, ordinal
    URGENT = 21  # stream, sequence number, sender's clock, payload; with a cause: cause, ordinal
    ACK = 22  # stream, ordered, urgent frames processed; then, where fewer: ordered, urgent safe
    CALL = 30  # call, method, body
    RESULT = 31  # call, body
    ERROR = 32  # call, type name, message, data
    CANCEL = 33  # call
    NOTIFY = 34  # method, body


# What comes before a payload in its record, and what after it if the frame has a cause.
DATA_HEAD_BYTES: Final = 30
CAUSE_BYTES: Final = 14
# What does not fit beside a payload in the largest record.
DATA_OVERHEAD_BYTES: Final = DATA_HEAD_BYTES + CAUSE_BYTES

_LENGTH = struct.Struct("<I")
# MessagePack with every width fixed: array of 5, small int, uint32, uint64, uint64, bin32.
_DATA_HEAD = struct.Struct(">BBBIBQBQBI")
_CAUSE = struct.Struct(">BQBI")

_pack_length = _LENGTH.pack
_unpack_length = _LENGTH.unpack_from
_pack_data_head = _DATA_HEAD.pack
_unpack_data_head = _DATA_HEAD.unpack_from
_ARRAY_OF_5: Final = 0x95
_ARRAY_OF_7: Final = 0x97
_UINT32: Final = 0xCE
_UINT64: Final = 0xCF
_BIN32: Final = 0xC6
_WIDTHS: Final = (_UINT32, _UINT64, _UINT64, _BIN32)
_DATA: Final = int(Kind.DATA)
_URGENT: Final = int(Kind.URGENT)
_packb = msgpack.packb
_unpackb = msgpack.unpackb


def pack_record(kind: Kind, *fields: object) -> bytes:
    """Returns one record with its length prefix."""
    # Texts may come from anywhere, with lone surrogates in them.
    body: bytes = _packb((int(kind), *fields), unicode_errors="replace")
    return _pack_length(len(body)) + body


def pure_pack_data_head(
    kind: int, stream: int, seq: int, sent_ns: int, size: int, cause: int = 0
) -> bytes:
    """Returns a DATA or URGENT record up to its payload of `size` bytes, which follows as it is.

    With a cause, `pack_cause` follows the payload.
    """
    array = _ARRAY_OF_7 if cause else _ARRAY_OF_5
    length = size + DATA_HEAD_BYTES + (CAUSE_BYTES if cause else 0)
    return _pack_length(length) + _pack_data_head(
        array, kind, _UINT32, stream, _UINT64, seq, _UINT64, sent_ns, _BIN32, size
    )


def pack_cause(cause: int, ordinal: int) -> bytes:
    """Returns what follows the payload of a frame that has a cause."""
    return _CAUSE.pack(_UINT64, cause, _UINT32, ordinal)


def pure_pack_frame(
    kind: int,
    stream: int,
    seq: int,
    sent_ns: int,
    payload: bytes,
    cause: int = 0,
    ordinal: int = 0,
) -> bytes:
    """Returns a whole DATA or URGENT record."""
    head = pure_pack_data_head(kind, stream, seq, sent_ns, len(payload), cause)
    return head + payload + pack_cause(cause, ordinal) if cause else head + payload


def pure_cut_frames(data: bytes | memoryview, start: int, parser: RecordParser) -> int:
    """Hands over the frames, with heads as `pack_frame` writes them, that follow one another.

    Args:
        data: Bytes of a peer.
        start: Where in them to begin.
        parser: Whose `on_frame` takes them.

    Returns:
        Where the first record begins that is something else, too large or not complete.
    """
    end = len(data)
    body = start + LENGTH_BYTES
    while body + DATA_HEAD_BYTES <= end:
        size = _unpack_length(data, start)[0]
        after = body + size
        if after > end or not DATA_HEAD_BYTES <= size <= parser.max_record_bytes:
            break
        array, kind, a, stream, b, seq, c, sent_ns, d, length = _unpack_data_head(data, body)
        cause = ordinal = 0
        tail = body + DATA_HEAD_BYTES + length
        if array == _ARRAY_OF_7:
            if tail + CAUSE_BYTES != after:
                break
            e, cause, f, ordinal = _CAUSE.unpack_from(data, tail)
            if (e, f) != (_UINT64, _UINT32):
                break
        elif array != _ARRAY_OF_5 or tail != after:
            break
        if kind not in (_DATA, _URGENT) or (a, b, c, d) != _WIDTHS:
            break
        parser.records += 1
        receiving(after + LENGTH_BYTES < end)
        payload = bytes(data[body + DATA_HEAD_BYTES : tail])
        parser.on_frame(kind == _URGENT, stream, seq, sent_ns, payload, cause, ordinal)
        start = after
        body = start + LENGTH_BYTES
    return start


if TYPE_CHECKING:
    pack_data_head = pure_pack_data_head
    pack_frame = pure_pack_frame
    cut_frames = pure_cut_frames
else:
    try:
        from antiphon_actors.channels._records import cut_frames, pack_data_head, pack_frame
    except ImportError:  # nothing was compiled
        pack_data_head = pure_pack_data_head
        pack_frame = pure_pack_frame
        cut_frames = pure_cut_frames


def expect(record: Record, *types: type) -> Record:
    """Returns the record when it has at least fields of exactly these types after its kind.

    Raises:
        ProtocolViolation: A field is missing or has another type.
    """
    if len(record) <= len(types):
        raise ProtocolViolation(f"a record of kind {record[0]} is too short")
    for value, wanted in zip(record[1:], types, strict=False):
        if type(value) is not wanted:
            raise ProtocolViolation(
                f"a record of kind {record[0]} carries {type(value).__name__} "
                f"where {wanted.__name__} belongs"
            )
    return record


class RecordParser:
    """Cuts a byte stream into records, holding back at most one incomplete record.

    Attributes:
        max_record_bytes: Largest record accepted; may be raised once a handshake is done.
        on_frame: Takes the frames: whether urgent, stream, sequence number, sender's clock, payload,
            cause (0: none), ordinal.
        on_record: Takes every other record.
        records: Records of any kind so far.
    """

    __slots__ = ("_needed", "_tail", "max_record_bytes", "on_frame", "on_record", "records")

    def __init__(self, max_record_bytes: int, on_frame: OnFrame, on_record: OnRecord) -> None:
        self.max_record_bytes = max_record_bytes
        self.on_frame = on_frame
        self.on_record = on_record
        self.records = 0
        self._tail = bytearray()
        self._needed = LENGTH_BYTES

    @property
    def held_bytes(self) -> int:
        """Bytes of an incomplete record."""
        return len(self._tail)

    def feed(self, data: bytes | memoryview) -> None:
        """Hands over the records that `data` completes.

        Raises:
            ProtocolViolation: A record is empty, oversized or not a MessagePack array.
        """
        tail = self._tail
        source: bytes | memoryview
        if tail:
            tail += data
            if len(tail) < self._needed:
                return
            # A new bytearray for the next rest: this one is exported by the view below.
            self._tail = bytearray()
            source = memoryview(tail)
        else:
            source = data
        try:
            self._cut(source)
        finally:
            received()

    def _cut(self, source: bytes | memoryview) -> None:
        end = len(source)
        start = 0
        body = LENGTH_BYTES
        size = 0
        while body <= end:
            start = cut_frames(source, start, self)
            body = start + LENGTH_BYTES
            if body > end:
                break
            size = _unpack_length(source, start)[0]
            if size > self.max_record_bytes:
                raise ProtocolViolation(
                    f"a record of {size} bytes exceeds the limit of {self.max_record_bytes}"
                )
            after = body + size
            if after > end:
                break
            self.records += 1
            start = after
            receiving(after + LENGTH_BYTES < end)
            self.on_record(_read_record(source[body:after]))
            body = start + LENGTH_BYTES
        if start < end:
            self._tail += source[start:]
            self._needed = LENGTH_BYTES if body > end else body - start + size


def _read_record(data: bytes | memoryview) -> Record:
    try:
        record = _unpackb(data)
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolViolation(f"a record is not MessagePack: {error}") from error
    if type(record) is not list or not record:
        raise ProtocolViolation("a record is not an array with a kind")
    return record
