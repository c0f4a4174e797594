"""Records as they travel: a 32-bit little-endian length, then one MessagePack array `[kind, ...]`.

Trailing elements that a reader does not know are ignored, so a record can grow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final

import msgpack

from antiphon_actors.channels.errors import ProtocolViolation

LENGTH_BYTES: Final = 4

# A record that waits behind nothing is copied once into one chunk up to this payload size; above
# it, header and payload stay two chunks of one gathered write.
JOIN_BYTES: Final = 32 << 10

Record = list[Any]


# Texts that say why are cut to this many characters.
MAX_REASON: Final = 512


class Kind(IntEnum):
    """First element of a record. Numbers are never reused."""

    HELLO = 1  # magic, lowest version, highest version, facts, limits
    READY = 2
    CLOSE = 3  # code, reason
    PING = 4  # sender's clock
    PONG = 5  # the clock of the ping
    OPEN = 10  # stream, key
    OPENED = 11  # stream
    REFUSED = 12  # stream, reason
    END = 13  # stream: no more data
    ENDED = 14  # stream: the end was seen
    RESET = 15  # stream, reason: the sending side gives up
    STOP = 16  # stream, reason: the receiving side gives up
    DATA = 20  # stream, sequence number, sender's clock, payload
    URGENT = 21  # stream, sequence number, sender's clock, payload
    ACK = 22  # stream, ordered frames processed, urgent frames processed
    CALL = 30  # call, method, body
    RESULT = 31  # call, body
    ERROR = 32  # call, type name, message, data
    CANCEL = 33  # call
    NOTIFY = 34  # method, body


# What fits beside a payload in the largest record.
DATA_OVERHEAD_BYTES: Final = 30

_LENGTH = struct.Struct("<I")
# MessagePack with every width fixed: array of 5, small int, uint32, uint64, uint64, bin32.
_DATA_HEAD = struct.Struct(">BBBIBQBQBI")

_pack_length = _LENGTH.pack
_pack_data_head = _DATA_HEAD.pack
_packb = msgpack.packb
_unpackb = msgpack.unpackb


def pack_record(kind: Kind, *fields: object) -> bytes:
    """Returns one record with its length prefix."""
    # Texts may come from anywhere, with lone surrogates in them.
    body: bytes = _packb((int(kind), *fields), unicode_errors="replace")
    return _pack_length(len(body)) + body


def pack_data_head(kind: int, stream: int, seq: int, sent_ns: int, size: int) -> bytes:
    """Returns a DATA or URGENT record up to its payload of `size` bytes, which follows as it is."""
    return _pack_length(size + DATA_OVERHEAD_BYTES) + _pack_data_head(
        0x95, kind, 0xCE, stream, 0xCF, seq, 0xCF, sent_ns, 0xC6, size
    )


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
    """

    __slots__ = ("_needed", "_tail", "max_record_bytes")

    def __init__(self, max_record_bytes: int) -> None:
        self.max_record_bytes = max_record_bytes
        self._tail = bytearray()
        self._needed = LENGTH_BYTES

    @property
    def held_bytes(self) -> int:
        """Bytes of an incomplete record."""
        return len(self._tail)

    def feed(self, data: bytes | memoryview) -> Iterator[Record]:
        """Yields the records that `data` completes.

        The iterator must be exhausted, or the parser given up.

        Raises:
            ProtocolViolation: A record is empty, oversized or not a MessagePack array.
        """
        tail = self._tail
        view: memoryview
        if tail:
            tail += data
            if len(tail) < self._needed:
                return
            # A new bytearray for the next rest: this one is exported by the view below.
            self._tail = bytearray()
            view = memoryview(tail)
        else:
            view = memoryview(data)
        end = len(view)
        start = 0
        body = LENGTH_BYTES
        size = 0
        while body <= end:
            size = int.from_bytes(view[start:body], "little")
            if size > self.max_record_bytes:
                raise ProtocolViolation(
                    f"a record of {size} bytes exceeds the limit of {self.max_record_bytes}"
                )
            after = body + size
            if after > end:
                break
            try:
                record = _unpackb(view[body:after])
            except (ValueError, TypeError, RecursionError) as error:
                raise ProtocolViolation(f"a record is not MessagePack: {error}") from error
            if type(record) is not list or not record:
                raise ProtocolViolation("a record is not an array with a kind")
            start = after
            body = start + LENGTH_BYTES
            yield record
        if start < end:
            self._tail += view[start:]
            self._needed = LENGTH_BYTES if body > end else body - start + size
