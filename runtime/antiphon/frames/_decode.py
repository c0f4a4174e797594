"""Reads values of every sort from MessagePack and its extension types."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack

from antiphon.frames import frames
from antiphon.frames._base import Frame
from antiphon.frames._extensions import (
    ARRAY,
    DTYPE,
    FRAME,
    FROZENSET,
    INTEGER,
    MAX_DEPTH,
    MAX_INTEGER_BYTES,
    MAX_ODD_KEYS,
    MAX_ODD_KEYS_IN_ALL,
    REFERENCE,
    SCALAR,
    SET,
    TUPLE,
    VALUE,
    References,
)
from antiphon.frames._kinds import FRAME_KINDS
from antiphon.frames._plan import COMMON, HEAD, MISSING, SHORTEST_HEAD, Plan, plan_for
from antiphon.frames._registry import CodecError, frame_class, value_class, value_type

_OWN_CLASSES: Final[dict[int, type[Frame]]] = {
    number: getattr(frames, name) for number, (name, _) in FRAME_KINDS.items()
}
_OWN_PLANS: Final[dict[int, Plan]] = {number: plan_for(cls) for number, cls in _OWN_CLASSES.items()}
# Attributes that are nil in a record if they have their defaults.
_OPTIONAL: Final = COMMON[2:]
# A list announces its length before its items, and space is set aside for them at once; up to
# this length that cannot add up to anything much, above it the record is walked first.
_UNWALKED_LENGTH: Final = 256

# The same for plain frames, where it was compiled.
try:
    from antiphon.frames._plain import decode_plain
except ImportError:
    decode_plain = None


class _Failed:
    """Stands for a value that could not be read; an error only if somebody needs the value."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Again(Exception):
    """The record has to be read once more, from its beginning, in the next mode."""


# The three ways to read, each one slower than the last and able to read more.
_PLAIN, _LONG_LISTS, _ODD_KEYS = range(3)


class Decoder:
    """Reads records, one after the other."""

    __slots__ = ("_classes", "_depth", "_failed", "_mode", "_odd_keys", "_refs")

    def __init__(self, refs: References | None, classes: Mapping[str, type[Any]] | None) -> None:
        self._refs = refs
        self._classes = classes
        self._mode = _PLAIN
        self._depth = 0
        self._failed = False
        self._odd_keys = 0

    def _reset(self) -> None:
        self._depth = 0
        self._failed = False
        self._odd_keys = 0

    def value(self, data: bytes | bytearray | memoryview) -> Any:
        """Returns the value that `data` holds.

        Raises:
            CodecError: It holds none.
        """
        return self._in_modes(self._read_value, data)

    def frame(self, data: bytes | bytearray | memoryview) -> Frame:
        """Returns the frame whose record `data` is.

        Raises:
            CodecError: It is the record of none.
        """
        if decode_plain is not None and (plain := decode_plain(_OWN_PLANS, data)) is not None:
            return plain
        self._mode = _PLAIN
        self._reset()
        try:
            return self._read_frame(data)
        except _Again:
            frame: Frame = self._in_modes(self._read_frame, data)
            return frame

    def _in_modes(self, read: Callable[[Any], Any], data: bytes | bytearray | memoryview) -> Any:
        self._mode = _PLAIN
        self._reset()
        while True:
            try:
                return read(data)
            except _Again:
                # Only here, at the outermost level: retrying at every level of nested extension
                # types would take a time exponential in their depth.
                self._mode += 1
                self._reset()

    def _read_value(self, data: bytes | bytearray | memoryview) -> Any:
        value = self._unpack(data)
        if self._failed:
            _check([value])
        return value

    def _read_frame(self, data: bytes | bytearray | memoryview) -> Frame:
        record = self._unpack(data)
        if type(record) is not list or len(record) < SHORTEST_HEAD:
            raise CodecError("not a frame's record, which begins with a kind, an id and a name")
        plan = self._plan(record[0])
        start = len(HEAD) if plan.is_own else len(HEAD) + 1
        if self._failed:
            _check(record[: start + len(plan.names)])
        plan.check_head(record)
        if plan.is_own:
            return _build_own(plan, record)
        try:
            return _build(plan, record, start)
        except CodecError:
            raise
        except Exception as error:  # a bot's class may guard its attributes
            raise CodecError(f"{plan.cls.__name__} cannot be built: {error}") from error

    def _plan(self, kind: object) -> Plan:
        cls: Any = None
        if type(kind) is int:
            cls = _OWN_CLASSES.get(kind)
        elif type(kind) is str:
            if self._classes is not None:
                cls = self._classes.get(kind)
            cls = cls or frame_class(kind)
        if cls is None or not issubclass(cls, Frame):
            shown = repr(kind)[:200] if isinstance(kind, int | str) else type(kind).__name__
            raise CodecError(f"unknown kind of frame: {shown}")
        return plan_for(cls)

    def _unpack(self, data: bytes | bytearray | memoryview) -> Any:
        if self._mode == _PLAIN:
            try:
                return msgpack.unpackb(
                    data,
                    ext_hook=self._extend,
                    unicode_errors="surrogatepass",
                    max_array_len=_UNWALKED_LENGTH,
                )
            except ValueError as error:
                raise _Again from error
        return self._unpack_carefully(data)

    def _unpack_carefully(self, data: bytes | bytearray | memoryview) -> Any:
        """Reads what has long lists, or keys that are no text, or is no MessagePack at all."""
        options: dict[str, Any] = {}
        if self._mode == _ODD_KEYS:
            options = {"strict_map_key": False, "object_pairs_hook": self._map}
        try:
            walker = msgpack.Unpacker(max_buffer_size=len(data))
            walker.feed(data)
            walker.skip()
            # From here on every length is known to be backed by as many bytes.
            return msgpack.unpackb(
                data, ext_hook=self._extend, unicode_errors="surrogatepass", **options
            )
        except CodecError:
            raise
        except msgpack.OutOfData as error:
            raise CodecError("the record is truncated") from error
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            if self._mode < _ODD_KEYS:
                raise _Again from error
            raise CodecError(f"the record is malformed: {error}") from error

    def _map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._count_odd(key for key, _ in pairs)
        return dict(pairs)

    def _count_odd(self, keys: Any) -> None:
        odd = sum(type(key) is not str and type(key) is not bytes for key in keys)
        self._odd_keys += odd
        if odd > MAX_ODD_KEYS or self._odd_keys > MAX_ODD_KEYS_IN_ALL:
            raise CodecError("too many keys or members that are no text")

    def _extend(self, code: int, data: bytes) -> Any:
        failed_before, self._failed = self._failed, False
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise CodecError("values are nested too deeply")
            value = self._extended(code, data)
        except _Again:
            raise
        except Exception as error:  # noqa: BLE001 - registered types may raise anything
            # A newer writer may use in a field that this reader ignores what it does not know.
            value = _Failed(error)
            failed_before = True
        finally:
            self._depth -= 1
        self._failed = failed_before
        return value

    def _extended(self, code: int, data: bytes) -> Any:
        if code == FRAME:
            return self._read_frame(data)
        if code == INTEGER:
            if not 0 < len(data) <= MAX_INTEGER_BYTES:
                raise CodecError("an integer of a wrong length")
            return int.from_bytes(data, "big", signed=True)
        read = _READERS.get(code)
        if read is None:
            raise CodecError(f"unknown extension type {code}")
        return read(self, self._read_value(data))

    def _value(self, plain: Any) -> Any:
        key, content = _array(plain, 2)
        cls = None
        if type(key) is str and self._classes is not None:
            cls = self._classes.get(key)
        if cls is None and type(key) in (int, str):
            cls = value_class(key)
        entry = None if cls is None else value_type(cls)
        if entry is None:
            raise CodecError(f"unknown type of value: {repr(key)[:200]}")
        return entry.from_plain(cls, content)

    def _reference(self, plain: Any) -> Any:
        if self._refs is None:
            raise CodecError("a reference, and there is no table of references")
        return self._refs.resolve(plain)

    def _tuple(self, plain: Any) -> Any:
        return tuple(_array(plain))

    def _set(self, plain: Any) -> Any:
        self._count_odd(_array(plain))
        return set(plain)

    def _frozenset(self, plain: Any) -> Any:
        self._count_odd(_array(plain))
        return frozenset(plain)

    def _numpy_array(self, plain: Any) -> Any:
        dtype, shape, data = _array(plain, 3)
        return _numpy_array(dtype, shape, data)

    def _numpy_scalar(self, plain: Any) -> Any:
        dtype, data = _array(plain, 2)
        return _numpy_array(dtype, [], data)[()]


_READERS: Final = {
    TUPLE: Decoder._tuple,
    SET: Decoder._set,
    FROZENSET: Decoder._frozenset,
    ARRAY: Decoder._numpy_array,
    SCALAR: Decoder._numpy_scalar,
    VALUE: Decoder._value,
    REFERENCE: Decoder._reference,
}


def _build(plan: Plan, record: list[Any], start: int) -> Frame:
    # The instance of a bot's class is filled in from outside: no constructor runs.
    frame = object.__new__(plan.cls)
    put = object.__setattr__
    put(frame, "id", record[1])
    name = record[2]
    if type(name) is int:
        put(frame, "_count", name)
    else:
        put(frame, "_count", 0)
        put(frame, "_name", name)
    for attribute, value in zip(_OPTIONAL, record[3:7], strict=False):
        if value is not None:
            put(frame, attribute, value)
    if start <= len(record):
        _put_undeclared(frame, plan, record[start - 1])
    values = record[start:]
    for field, value in zip(plan.names, values, strict=False):
        put(frame, field, value)
    if len(values) < len(plan.names):
        _put_defaults(frame, plan, len(values))
    return frame


def _build_own(plan: Plan, record: list[Any]) -> Frame:
    # No constructor runs, and Antiphon's own classes have neither slots nor descriptors in the way.
    frame = object.__new__(plan.cls)
    attributes = frame.__dict__
    attributes["id"] = record[1]
    name = record[2]
    if type(name) is int:
        attributes["_count"] = name
    else:
        attributes["_count"] = 0
        attributes["_name"] = name
    length = len(record)
    at = SHORTEST_HEAD
    for attribute in _OPTIONAL:
        if at >= length:
            break
        if record[at] is not None:
            attributes[attribute] = record[at]
        at += 1
    names = plan.names
    rejected = plan.rejected
    known = len(names)
    position = 0
    while position < known and at < length:
        value = record[at]
        if type(value) in rejected[position]:
            raise CodecError(plan.complaint(names[position], value))
        attributes[names[position]] = value
        at += 1
        position += 1
    if position < known:
        _put_defaults(frame, plan, position)
    return frame


def _put_undeclared(frame: Frame, plan: Plan, attributes: object) -> None:
    if attributes is None:
        return
    if type(attributes) is not dict:
        raise CodecError(f"{plan.cls.__name__}: the undeclared attributes are no map")
    for name, value in attributes.items():
        if not isinstance(name, str) or name.startswith("__") or not plan.is_undeclared(name):
            raise CodecError(f"{plan.cls.__name__} has no attribute {repr(name)[:200]}")
        # Not setattr, which would run a property of that name.
        frame.__dict__[name] = value


def _put_defaults(frame: Frame, plan: Plan, position: int) -> None:
    for at in range(position, len(plan.names)):
        default, factory = plan.defaults[at], plan.factories[at]
        if default is not MISSING:
            object.__setattr__(frame, plan.names[at], default)
        elif factory is not MISSING:
            object.__setattr__(frame, plan.names[at], factory())
        else:
            raise CodecError(f"{plan.cls.__name__}.{plan.names[at]} is missing")


def _array(plain: Any, length: int | None = None) -> list[Any]:
    if type(plain) is not list or (length is not None and len(plain) < length):
        raise CodecError("an extension type with a wrong content")
    return plain if length is None else plain[:length]


def _numpy_array(dtype: object, shape: object, data: object) -> Any:
    if (
        not isinstance(dtype, str)
        or not DTYPE.fullmatch(dtype)
        or not isinstance(data, bytes)
        or not isinstance(shape, list)
        or not all(type(size) is int and size >= 0 for size in shape)
    ):
        raise CodecError("a numpy array with a wrong content")
    import numpy as np

    kind = np.dtype(dtype)
    if math.prod(shape) * kind.itemsize != len(data):
        raise CodecError("a numpy array of a wrong length")
    # A bytearray, so that the array can be written to as the original could.
    return np.ndarray(shape, kind, bytearray(data))


def _check(values: list[Any]) -> None:
    """Raises the error of the first value among these, or inside them, that could not be read."""
    waiting = list(values)
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Failed):
            raise CodecError(str(item.error)) from item.error
        if isinstance(item, dict):
            waiting += item
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
