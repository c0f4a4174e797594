"""Writes values of every sort in MessagePack and its extension types."""

from __future__ import annotations

import sys
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import msgpack

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
    REFERENCE,
    SCALAR,
    SET,
    TUPLE,
    VALUE,
    References,
)
from antiphon.frames._plan import HEAD, Plan, plan_for
from antiphon.frames._registry import CodecError, value_type

# The same for plain frames, where it was compiled.
try:
    from antiphon.frames._plain import encode_plain
except ImportError:
    encode_plain = None

# The default of a quarter of a megabyte costs a memory mapping for every packer.
_BUFFER_BYTES: Final = 2048


class Encoder:
    """Writes records, one after the other."""

    __slots__ = ("_depth", "_packer", "_refs")

    def __init__(self, refs: References | None) -> None:
        self._refs = refs
        self._depth = 0
        self._packer = self._new_packer("strict")

    def _new_packer(self, unicode_errors: str) -> msgpack.Packer:
        return msgpack.Packer(
            default=self._extend,
            strict_types=True,
            unicode_errors=unicode_errors,
            buf_size=_BUFFER_BYTES,
        )

    def frame(self, frame: Frame) -> bytes:
        """Returns the record of a frame.

        Raises:
            CodecError: Something in it cannot travel; the message names the class and the field.
        """
        if not isinstance(frame, Frame):
            raise CodecError(f"a {type(frame).__name__} is no frame")
        plan = plan_for(type(frame))
        if encode_plain is not None and plan.is_own and (data := encode_plain(plan, frame)):
            return data
        try:
            record = plan.record(frame)
        except CodecError:
            raise
        except Exception as error:  # a bot's frame may compute its fields
            raise CodecError(f"{plan.cls.__name__} cannot be read: {error}") from error
        try:
            return self.pack(record)
        except Exception as error:  # registered types may raise anything
            raise CodecError(f"{self._culprit(plan, record)}: {error}") from error

    def _culprit(self, plan: Plan, record: list[Any]) -> str:
        names = [*HEAD, *([] if plan.is_own else ["__dict__"]), *plan.names]
        for name, value in zip(names, record, strict=False):
            try:
                Encoder(self._refs).pack(value)
            except Exception:  # noqa: BLE001 - it is the error being explained
                return f"{plan.cls.__name__}.{name}"
        return plan.cls.__name__

    def pack(self, value: object) -> bytes:
        """Returns a value in MessagePack. Raises anything that the value makes it raise."""
        # What is inside an extension type is packed while the packer is in use.
        packer = self._new_packer("strict") if self._depth else self._packer
        try:
            return packer.pack(value)  # type: ignore[no-any-return]
        except UnicodeEncodeError:
            # Half of a surrogate pair, as a JSON stream cut at the wrong place gives it.
            return self._new_packer("surrogatepass").pack(value)  # type: ignore[no-any-return]

    def _extend(self, value: Any) -> object:
        cls = type(value)
        if cls is tuple:
            return self._ext(TUPLE, list(value))
        if cls is int:
            size = value.bit_length() // 8 + 1
            if size > MAX_INTEGER_BYTES:
                raise CodecError(f"an integer of {size} bytes is too large to travel")
            return msgpack.ExtType(INTEGER, value.to_bytes(size, "big", signed=True))
        if self._refs is not None and self._refs.claims(value):
            return self._ext(REFERENCE, self._refs.refer(value))
        entry = value_type(cls)
        if entry is not None:
            return self._ext(VALUE, [entry.key, entry.to_plain(value)])
        if isinstance(value, Frame):
            return self._nested(FRAME, lambda: self.frame(value))
        if cls is set or cls is frozenset:
            return self._ext(SET if cls is set else FROZENSET, _members(value))
        if cls.__module__ == "numpy":
            return self._numpy(value)
        plain = _without_subclass(value)
        if plain is not None:
            # MessagePack has no form of its own for these either.
            is_extension = isinstance(plain, tuple | set | frozenset) or (
                isinstance(plain, int) and plain.bit_length() > 63
            )
            return self._extend(plain) if is_extension else plain
        if self._refs is not None:
            return self._ext(REFERENCE, self._refs.refer(value))
        raise CodecError(
            f"a value of type {cls.__module__}.{cls.__qualname__} cannot travel: it is neither "
            "plain data nor of a registered type, and there is no table of references"
        )

    def _ext(self, code: int, plain: object) -> object:
        return self._nested(code, lambda: self.pack(plain))

    def _nested(self, code: int, pack: Any) -> object:
        if self._depth >= MAX_DEPTH:
            raise CodecError("values are nested too deeply, or contain themselves")
        self._depth += 1
        try:
            return msgpack.ExtType(code, pack())
        finally:
            self._depth -= 1

    def _numpy(self, value: Any) -> object:
        np = sys.modules["numpy"]
        if isinstance(value, np.ndarray | np.generic) and DTYPE.fullmatch(value.dtype.str):
            if isinstance(value, np.generic):
                return self._ext(SCALAR, [value.dtype.str, value.tobytes()])
            return self._ext(ARRAY, [value.dtype.str, list(value.shape), value.tobytes()])
        raise CodecError(f"a numpy value of type {getattr(value, 'dtype', value)} cannot travel")


def _members(values: set[Any] | frozenset[Any]) -> list[Any]:
    if sum(type(value) is not str for value in values) > MAX_ODD_KEYS:
        raise CodecError(f"a set of more than {MAX_ODD_KEYS} other things than text")
    return list(values)


def _without_subclass(value: Any) -> Any:
    """Returns the plain value of an instance of a subclass of a plain type, else None.

    A counter comes out as a dictionary, a named tuple as a tuple. An enum does not come out as
    its value, because `is` and `.name` would fail far from the cause.
    """
    if isinstance(value, Enum):
        return None
    for base, convert in _CONVERSIONS:
        if isinstance(value, base):
            return convert(value)
    return None


_CONVERSIONS: Final[tuple[tuple[Any, Any], ...]] = (
    # The slots of the plain types themselves, whatever the subclass makes of them.
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
    (dict, dict),
    (MappingProxyType, dict),
    (list, list),
    (tuple, tuple),
    (set, set),
    (frozenset, frozenset),
)
