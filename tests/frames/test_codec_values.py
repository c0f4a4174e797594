"""Values of every sort inside frames."""

from __future__ import annotations

import datetime as dt
import decimal
import types
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from antiphon.frames import frames
from antiphon.frames._extensions import VALUE
from antiphon.frames.codec import (
    CodecError,
    decode,
    decode_value,
    encode,
    encode_value,
    register_type,
    register_value_type,
)


def hop(value: Any) -> Any:
    return decode_value(encode_value(value))


def assert_hops(value: Any) -> None:
    received = hop(value)
    assert type(received) is type(value)
    assert received == value


hashable = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary())


@given(
    st.recursive(
        hashable | st.floats(allow_nan=False),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.tuples(inner, inner),
            st.dictionaries(hashable, inner, max_size=4),
            st.dictionaries(st.tuples(hashable, hashable), inner, max_size=2),
            st.sets(hashable, max_size=4),
            st.frozensets(hashable, max_size=4),
        ),
        max_leaves=10,
    )
)
def test_plain_data(value: Any) -> None:
    received = hop(value)
    assert received == value
    assert type(received) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        (),
        (1, (2, [3, (4,)])),
        2**64,
        -(2**64),
        2**4000,
        "half a pair \ud83d",
        {"key \udc00": "\udc00"},
        list(range(100_000)),
        [[i] for i in range(5000)],
        {i: str(i) for i in range(1000)},
        {"list": list(range(1000)), 1: 2},
        {(1, 2): 3, None: 4},
        dt.datetime(2025, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - naive ones travel too
        dt.datetime(2025, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        dt.date(2025, 1, 2),
        dt.time(3, 4, 5),
        dt.timedelta(days=-1, microseconds=1),
        uuid.UUID(int=5),
        decimal.Decimal("1.50"),
        1 + 2j,
        frames.KeypadEntry.STAR,
        frames.TranscriptionMessage("user", "hi"),
        frames.AudioRawFrame(b"abcd", 8000, 1),
        frames.ImageRawFrame(b"a", (1, 1), "RGB"),
        frames.FunctionCallFromLLM("f", "1", {"a": (1, 2)}, None),
    ],
    ids=lambda value: repr(value)[:30].encode("ascii", "replace").decode(),
)
def test_special_values(value: Any) -> None:
    assert_hops(value)


Point = namedtuple("Point", "x y")


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


@pytest.mark.parametrize(
    ("value", "arrives_as"),
    [
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (Point(1, 2), (1, 2)),
        (Text("t"), "t"),
        (bytearray(b"b"), b"b"),
        (memoryview(b"b"), b"b"),
    ],
    ids=repr,
)
def test_subclasses_arrive_as_the_plain_type(value: Any, arrives_as: Any) -> None:
    received = hop([value])[0]
    assert type(received) is type(arrives_as)
    assert received == arrives_as


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.arange(6, dtype=">f4")[::2],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3), np.float32),
        np.array(5),
        np.array(["a", "bcd"]),
        np.array([True, False]),
        np.array(["2025-01-01"], "datetime64[D]"),
    ],
    ids=lambda array: array.dtype.str,
)
def test_arrays(array: np.ndarray[Any, Any]) -> None:
    received = hop({"a": array})["a"]
    assert received.dtype == array.dtype
    assert received.shape == array.shape
    assert np.array_equal(received, array)
    assert received.flags.writeable


@pytest.mark.parametrize(
    "scalar", [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("x"), np.float64(2)], ids=repr
)
def test_numpy_scalars(scalar: Any) -> None:
    assert_hops(scalar)


def test_arrays_of_objects_do_not_travel() -> None:
    with pytest.raises(CodecError, match="numpy"):
        encode_value(np.array([object()]))
    with pytest.raises(CodecError, match="numpy"):
        encode_value(np.zeros(1, dtype=[("a", "i4")]))


def test_frames_inside_values() -> None:
    inner = frames.TextFrame("hi")
    inner.metadata["n"] = (1,)
    received = hop({"frames": [inner]})["frames"][0]
    assert received == inner
    assert received.name == inner.name


# Registered types


@register_type
class Level(IntEnum):
    LOW = 1
    HIGH = 2


@register_type
@dataclass(frozen=True)
class Setup:
    level: Level
    names: tuple[str, ...] = ("a",)
    extra: list[int] = field(default_factory=list)
    computed: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "computed", len(self.names))


@register_type
class Reading(BaseModel):
    model_config = ConfigDict(extra="allow")
    value: float = Field(alias="v")
    level: Level = Level.LOW
    setup: Any = None
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


@register_type(name="short")
class Shortly(Enum):
    ONE = 1


class Temperature:
    def __init__(self, kelvin: float) -> None:
        self.kelvin = kelvin

    @staticmethod
    def read(plain: Any) -> Temperature:
        return Temperature(float(plain))


register_value_type("temperature", Temperature, lambda value: value.kelvin, Temperature.read)


def test_registered_enum_arrives_as_the_member() -> None:
    assert hop(Level.HIGH) is Level.HIGH
    assert hop(Shortly.ONE) is Shortly.ONE
    assert b"short" in encode_value(Shortly.ONE)


def test_registered_dataclass() -> None:
    value = Setup(Level.HIGH, ("a", "b"), [1])
    assert_hops(value)
    assert hop(value).computed == 2


def test_registered_model() -> None:
    value = Reading(v=1.5, setup=Setup(Level.LOW), other=[1])  # type: ignore[call-arg]
    received = hop(value)
    assert received == value
    assert received.other == [1]
    assert received.model_fields_set == value.model_fields_set
    assert received._cache == {}


def test_registered_class_of_another_sort() -> None:
    assert hop([Temperature(280)])[0].kelvin == 280


def test_version_differences_in_registered_types() -> None:
    name = f"{__name__}:Setup"
    old = Setup(Level.LOW)
    newer = _tagged(name, {"level": Level.LOW, "names": ("a",), "new": 1})
    assert decode_value(newer).names == old.names
    assert decode_value(newer).extra == []
    with pytest.raises(CodecError, match="level is missing"):
        decode_value(_tagged(name, {}))
    with pytest.raises(CodecError, match="no member"):
        decode_value(_tagged(f"{__name__}:Level", "MEDIUM"))
    with pytest.raises(CodecError, match="unknown type of value"):
        decode_value(_tagged("os:system", "ls"))


def _tagged(name: str, plain: object) -> bytes:
    """What a value of the type with this name looks like."""
    return bytes(msgpack.packb(msgpack.ExtType(VALUE, encode_value([name, plain]))))


def test_unregistered_types_are_an_error_that_names_them() -> None:
    class Unknown(Enum):
        A = "a"

    with pytest.raises(CodecError, match=r"Unknown cannot travel"):
        encode_value({"a": [Unknown.A]})
    with pytest.raises(CodecError, match=r"builtins\.object"):
        encode_value(object())


def test_what_cannot_be_registered() -> None:
    with pytest.raises(TypeError, match="register_value_type"):
        register_type(Temperature)
    with pytest.raises(ValueError, match="already stands"):
        register_value_type("temperature", Point, list, lambda plain: Point(*plain))
    with pytest.raises(ValueError, match="not listed"):
        register_value_type(99, Point, list, lambda plain: Point(*plain))


def test_values_that_contain_themselves() -> None:
    endless: list[Any] = []
    endless.append((endless,))
    with pytest.raises(CodecError, match="nested too deeply"):
        encode_value(endless)
    endless = []
    endless.append(endless)
    with pytest.raises(CodecError, match="recursion"):
        encode_value(endless)


def test_limits_of_the_writer() -> None:
    with pytest.raises(CodecError, match="integer"):
        encode_value(1 << 10_000)
    with pytest.raises(CodecError, match="set"):
        encode_value(set(range(2000)))
    with pytest.raises(CodecError, match="larger than the allowed"):
        encode_value(bytes(100), max_bytes=50)
    assert len(hop({str(i) for i in range(2000)})) == 2000


def test_what_the_field_cannot_hold_is_refused_by_the_writer() -> None:
    wrong: Any = "text"
    with pytest.raises(CodecError, match=r"InputAudioRawFrame\.audio cannot hold .* str"):
        encode(frames.InputAudioRawFrame(wrong, 16000, 1))
    end = frames.EndFrame()
    end.transport_source = 5  # type: ignore[assignment]
    with pytest.raises(CodecError, match=r"EndFrame\.transport_source"):
        encode(end)
    with pytest.raises(CodecError, match="no frame"):
        encode("frame")  # type: ignore[arg-type]
    bare = object.__new__(frames.TextFrame)
    with pytest.raises(CodecError, match=r"TextFrame cannot be read"):
        encode(bare)
    assert decode(encode(frames.TextFrame(None))).pts is None  # type: ignore[arg-type]
