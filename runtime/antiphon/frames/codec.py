"""The wire form of frames: `encode` and `decode`.

A frame travels as one record, a MessagePack array:

    [kind, id, name, pts, metadata, source, destination, *fields]

- `kind` is a number for Antiphon's own classes (an append-only table) and "module:qualname" for
  all others. Only classes that exist in the reading process are found by it.
- `name` is the n of "ClassName#n", or the text that somebody assigned.
- nil stands for no `pts`, empty `metadata`, no `source`, no `destination`. A frame without fields
  may end anywhere after `name`.
- The fields of Antiphon's own frames have the order of the table. In all other frames a map of
  the attributes that are no dataclass field precedes them (nil if there are none), and they have
  the order of the dataclass.
- Trailing fields that hold their defaults are left out. A reader gives fields that are missing at
  the end their defaults, and ignores fields it does not know, so that versions can talk.
- Bytes travel as `bin`; a bytearray or memoryview arrives as bytes, a subclass of a plain type as
  the plain type. Everything else is an extension type: tuples, sets, large integers, numpy arrays
  and scalars, frames inside frames, values of registered types, references.

What cannot travel stays at home in the `References` of the session, and a reference travels. The
same table may claim objects of registered types, so that the one conversation context of a session
comes back as the very object it was.

Reading runs no code that the bytes name: it builds frames without their constructors. Its cost is
bounded by the size of the record.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from antiphon.frames import frames
from antiphon.frames._decode import Decoder
from antiphon.frames._encode import Encoder
from antiphon.frames._extensions import References
from antiphon.frames._kinds import VALUE_KINDS
from antiphon.frames._registry import CodecError, register_type, register_value_type

__all__ = [
    "DEFAULT_MAX_BYTES",
    "CodecError",
    "Decoder",
    "Encoder",
    "References",
    "decode",
    "decode_value",
    "encode",
    "encode_value",
    "register_type",
    "register_value_type",
]

DEFAULT_MAX_BYTES: Final = 32 * 1024 * 1024

Data = TypeVar("Data", bound=bytes | bytearray | memoryview)


def encode(
    frame: frames.Frame, refs: References | None = None, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> bytes:
    """Returns the record of a frame.

    Args:
        frame: The frame.
        refs: Takes what cannot travel; None if nothing can be referred to.
        max_bytes: How long the record may become.

    Raises:
        CodecError: The frame holds what can neither travel nor be referred to, or what its class
            does not allow, or it is too large. The message names the class and the field.
    """
    return _within(Encoder(refs).frame(frame), max_bytes)


def decode(
    data: bytes | bytearray | memoryview,
    refs: References | None = None,
    *,
    classes: Mapping[str, type[Any]] | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> frames.Frame:
    """Returns the frame whose record `data` is.

    Args:
        data: Exactly one record.
        refs: Gives back what references stand for.
        classes: Frame and value classes by "module:qualname", asked before the classes of the
            process; for a process in which several programs have classes of the same name.
        max_bytes: How long the record may be.

    Raises:
        CodecError: `data` is no valid record of a frame known here. Nothing else is raised.
    """
    return Decoder(refs, classes).frame(_within(data, max_bytes))


def encode_value(
    value: object, refs: References | None = None, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> bytes:
    """Returns a value, of any sort that may be inside a frame, as bytes.

    Args:
        value: The value.
        refs: Takes what cannot travel; None if nothing can be referred to.
        max_bytes: How many bytes there may be.

    Raises:
        CodecError: It holds what can neither travel nor be referred to, or it is too large.
    """
    try:
        data = Encoder(refs).pack(value)
    except CodecError:
        raise
    except Exception as error:  # registered types may raise anything
        raise CodecError(f"a {type(value).__name__} cannot travel: {error}") from error
    return _within(data, max_bytes)


def decode_value(
    data: bytes | bytearray | memoryview,
    refs: References | None = None,
    *,
    classes: Mapping[str, type[Any]] | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Any:
    """Returns the value that `encode_value` has written.

    Args:
        data: Exactly one value.
        refs: Gives back what references stand for.
        classes: As for `decode`.
        max_bytes: How many bytes there may be.

    Raises:
        CodecError: `data` is no value. Nothing else is raised.
    """
    return Decoder(refs, classes).value(_within(data, max_bytes))


def _within(data: Data, max_bytes: int) -> Data:
    if len(data) > max_bytes:
        raise CodecError(f"a record of {len(data)} bytes is larger than the allowed {max_bytes}")
    return data


def _register_builtin_types() -> None:
    numbers = {name: number for number, name in VALUE_KINDS.items()}
    fielded: tuple[type[Any], ...] = (
        frames.KeypadEntry,
        frames.TranscriptionMessage,
        frames.FunctionCallFromLLM,
        frames.FunctionCallResultProperties,
        frames.AudioRawFrame,
        frames.ImageRawFrame,
        frames.DTMFFrame,
    )
    for cls in fielded:
        register_type(name=numbers[cls.__name__])(cls)
    dated: tuple[type[Any], ...] = (datetime.datetime, datetime.date, datetime.time)
    for cls in dated:
        register_value_type(numbers[cls.__name__], cls, cls.isoformat, cls.fromisoformat)
    register_value_type(
        numbers["timedelta"],
        datetime.timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda plain: datetime.timedelta(*plain),
    )
    register_value_type(
        numbers["UUID"],
        uuid.UUID,
        lambda value: value.bytes,
        lambda plain: uuid.UUID(bytes=plain),
    )
    register_value_type(numbers["Decimal"], decimal.Decimal, str, decimal.Decimal)
    register_value_type(
        numbers["complex"],
        complex,
        lambda value: [value.real, value.imag],
        lambda plain: complex(*plain),
    )


_register_builtin_types()
