"""Round trips of every frame class, evolution of the format, references."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from antiphon.frames import codec, frames
from antiphon.frames._decode import _OWN_PLANS
from antiphon.frames._kinds import FRAME_KINDS
from antiphon.frames._plan import plan_for
from antiphon.frames.codec import CodecError, References, decode, decode_value, encode, encode_value

try:
    from antiphon.frames._plain import decode_plain, encode_plain
except ImportError:  # nothing was compiled
    decode_plain = encode_plain = None

ALL_CLASSES: list[type[frames.Frame]] = [
    getattr(frames, name) for name, _ in FRAME_KINDS.values() if name != "LLMMessagesFrame"
]

text = st.text(max_size=20)
small_bytes = st.binary(max_size=64)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text, small_bytes
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(text, inner, max_size=4),
        st.tuples(inner, inner),
    ),
    max_leaves=8,
)
maps = st.dictionaries(text, values, max_size=3)
calls = st.builds(frames.FunctionCallFromLLM, text, text, maps, values)
transcript = st.builds(
    frames.TranscriptionMessage, st.sampled_from(["user", "assistant"]), text, st.none() | text
)
requests = st.builds(frames.UserImageRequestFrame, text, values)
sizes = st.tuples(st.integers(0, 4000), st.integers(0, 4000))

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "audio": small_bytes,
    "sample_rate": st.integers(8000, 48000),
    "num_channels": st.integers(1, 2),
    "image": small_bytes,
    "size": sizes,
    "format": st.none() | text,
    "images": st.lists(
        st.builds(frames.OutputImageRawFrame, small_bytes, sizes, st.none()), max_size=2
    ),
    "url": st.none() | text,
    "text": text,
    "user_id": text,
    "timestamp": text,
    "language": st.none() | text,
    "result": values,
    "messages": st.lists(maps, max_size=3),
    "run_llm": st.none() | st.booleans(),
    "tools": st.lists(maps, max_size=3),
    "tool_choice": st.sampled_from(["none", "auto", "required"]) | maps,
    "enable": st.booleans(),
    "mute": st.booleans(),
    "emulated": st.booleans(),
    "fatal": st.booleans(),
    "cancel_on_interruption": st.booleans(),
    "message": values,
    "button": st.sampled_from(frames.KeypadEntry),
    "error": text,
    "processor": st.none(),
    "data": st.lists(values, max_size=2),
    "function_name": text,
    "tool_call_id": text,
    "arguments": maps,
    "function_calls": st.lists(calls, max_size=2),
    "properties": st.none() | st.builds(frames.FunctionCallResultProperties, st.booleans()),
    "context": values,
    "request": st.none() | requests,
    "video_source": st.none() | text,
    "settings": maps,
    "params": st.none(),
    "vad_params": st.none(),
    "turn_params": st.none(),
    "audio_in_sample_rate": st.integers(8000, 48000),
    "audio_out_sample_rate": st.integers(8000, 48000),
    "allow_interruptions": st.booleans(),
    "enable_metrics": st.booleans(),
    "enable_tracing": st.booleans(),
    "enable_usage_metrics": st.booleans(),
    "interruption_strategies": st.lists(values, max_size=2),
    "report_only_initial_ttfb": st.booleans(),
}
SPECIAL_FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "HeartbeatFrame": {"timestamp": st.integers(0, 2**62)},
    "TranscriptionUpdateFrame": {"messages": st.lists(transcript, max_size=3)},
}


def frames_of(cls: type[frames.Frame]) -> st.SearchStrategy[frames.Frame]:
    known = {**FIELDS, **SPECIAL_FIELDS.get(cls.__name__, {})}
    parameters = {
        name: known[name]
        for name, p in inspect.signature(cls).parameters.items()
        if p.kind is not p.VAR_KEYWORD
    }
    return st.builds(cls, **parameters).flatmap(_with_common_attributes)


def _with_common_attributes(frame: frames.Frame) -> st.SearchStrategy[frames.Frame]:
    def put(pts: Any, metadata: Any, source: Any, destination: Any, name: Any) -> frames.Frame:
        frame.pts = pts
        frame.metadata = metadata
        frame.transport_source = source
        frame.transport_destination = destination
        if name is not None:
            frame.name = name
        return frame

    return st.builds(
        put,
        st.none() | st.integers(0, 2**62),
        st.just({}) | maps,
        st.none() | text,
        st.none() | text,
        st.none() | text,
    )


any_frame = st.sampled_from(ALL_CLASSES).flatmap(frames_of)


def assert_same(one: frames.Frame, other: frames.Frame) -> None:
    assert type(one) is type(other)
    assert one == other
    assert (one.id, one.name) == (other.id, other.name)
    for f in dataclasses.fields(one):
        a, b = getattr(one, f.name), getattr(other, f.name)
        assert type(a) is type(b), f.name
        assert repr(a) == repr(b), f.name


@pytest.mark.parametrize("cls", ALL_CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_survives_a_hop(cls: type[frames.Frame]) -> None:
    @settings(max_examples=8)
    @given(frames_of(cls))
    def check(frame: frames.Frame) -> None:
        data = encode(frame)
        assert_same(decode(data), frame)
        assert encode(decode(data)) == data, "the second hop changes the record"

    check()


def test_deprecated_frame_survives_without_a_second_warning() -> None:
    with pytest.deprecated_call():
        frame = frames.LLMMessagesFrame([{"role": "user", "content": "hi"}])
    assert_same(decode(encode(frame)), frame)


@given(any_frame)
def test_memoryviews_and_bytearrays_are_read_as_well(frame: frames.Frame) -> None:
    data = encode(frame)
    assert_same(decode(memoryview(b"x" + data)[1:]), frame)
    assert_same(decode(bytearray(data)), frame)


@given(any_frame)
def test_the_short_way_to_write_gives_the_same_bytes(frame: frames.Frame) -> None:
    short = encode_plain(plan_for(type(frame)), frame) if encode_plain is not None else None
    if short is not None:
        assert short == general_encode(frame)


@given(any_frame)
def test_the_short_way_to_read_gives_the_same_frame(frame: frames.Frame) -> None:
    if decode_plain is None:
        return
    try:
        record = general_encode(frame)
    except codec.CodecError:
        return
    short = decode_plain(_OWN_PLANS, record)
    if short is not None:
        assert_same(short, general_decode(record))


def general_encode(frame: frames.Frame) -> bytes:
    return codec.Encoder(None).pack(plan_for(type(frame)).record(frame))


def general_decode(record: bytes) -> frames.Frame:
    # The short way is for bytes only.
    return codec.decode(bytearray(record))


def test_records_are_small() -> None:
    frame = frames.InputAudioRawFrame(bytes(640), 16000, 1)
    assert len(encode(frame)) < 680
    end = frames.EndFrame()
    assert end.metadata == {}
    assert len(encode(end)) <= 16


@pytest.mark.parametrize("audio", [b"ab", bytearray(b"ab"), memoryview(b"ab")], ids=type)
def test_audio_arrives_as_bytes(audio: Any) -> None:
    received = decode(encode(frames.InputAudioRawFrame(audio, 16000, 1)))
    assert isinstance(received, frames.InputAudioRawFrame)
    assert type(received.audio) is bytes
    assert received.audio == b"ab"


# A bot's own classes


class Mood(Enum):
    GLAD = 1
    SAD = 2


@dataclass
class Item:
    name: str
    mood: Mood = Mood.GLAD


class Order(BaseModel):
    items: list[Item]
    paid: bool = False


@dataclass
class OwnFrame(frames.DataFrame):
    mood: Mood
    order: Order | None = None
    more: list[Item] = field(default_factory=list)
    kind: str = "k"
    note: str = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.note = f"made for {self.kind}"
        self.hidden = "h"


class PlainFrame(frames.TextFrame):
    made = 0

    def __init__(self, text: str, mood: str) -> None:
        super().__init__(text)
        type(self).made += 1
        self.mood = mood


@dataclass(slots=True)
class SlottedFrame(frames.DataFrame):
    word: str
    count: int = 3


def test_own_dataclass_with_types_that_nobody_registered() -> None:
    frame = OwnFrame(Mood.SAD, Order(items=[Item("tea")], paid=True), [Item("x", Mood.SAD)], "z")
    frame.metadata["item"] = Item("in metadata")
    received = decode(encode(frame))
    assert isinstance(received, OwnFrame)
    assert received == frame
    assert (received.name, received.note) == (frame.name, "made for z")
    assert received.hidden == "h"
    assert received.order is not None
    assert received.order.model_fields_set == {"items", "paid"}


def test_own_plain_class_is_not_constructed_again() -> None:
    frame = PlainFrame("hi", "glad")
    made = PlainFrame.made
    received = decode(encode(frame))
    assert isinstance(received, PlainFrame)
    assert (received.text, received.mood, received.id) == ("hi", "glad", frame.id)
    assert PlainFrame.made == made


@pytest.mark.parametrize("frame", [SlottedFrame("a"), SlottedFrame("a", 4)], ids=["default", "4"])
def test_own_class_with_slots(frame: SlottedFrame) -> None:
    frame.pts = 4
    received = decode(encode(frame))
    assert isinstance(received, SlottedFrame)
    assert (received.word, received.count) == (frame.word, frame.count)
    assert (received.id, received.name, received.pts) == (frame.id, frame.name, 4)


def _define(text: str) -> type[frames.TextFrame]:
    @dataclass
    class TwinFrame(frames.TextFrame):
        origin: str = text

    return TwinFrame


def test_classes_of_the_same_name_are_told_apart_by_the_session() -> None:
    first, second = _define("first"), _define("second")
    data = encode(first("x"))
    name = f"{first.__module__}:{first.__qualname__}"
    assert type(decode(data)) is second, "the class defined last has the name"
    assert type(decode(data, classes={name: first})) is first


# Versions


@given(any_frame, st.lists(values, min_size=1, max_size=3))
def test_old_reader_ignores_what_a_newer_writer_adds(
    frame: frames.Frame, added: list[object]
) -> None:
    record = _full_record(frame)
    unknown = msgpack.ExtType(120, b"\x00")
    assert_same(decode(_packed([*record, *_plain(added), unknown])), frame)


@pytest.mark.parametrize("cls", ALL_CLASSES, ids=lambda cls: cls.__name__)
def test_new_reader_gives_defaults_to_what_an_older_writer_lacks(cls: Any) -> None:
    required = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    if cls.__name__.endswith("UpdateSettingsFrame"):
        frame = cls({"a": 1})
    else:
        frame = cls(*[_sample(p.name, cls) for p in required])
    record = msgpack.unpackb(encode(frame), ext_hook=msgpack.ExtType)
    received = decode(_packed(record))
    assert received == frame
    if required:
        with pytest.raises(CodecError, match="is missing"):
            decode(_packed(record[:7]))
        return
    for length in range(3, len(record) + 1):
        assert type(decode(_packed(record[:length]))) is cls


def _sample(name: str, cls: type) -> Any:
    samples: dict[str, Any] = {
        "audio": b"ab",
        "image": b"ab",
        "sample_rate": 8000,
        "num_channels": 1,
        "size": (1, 2),
        "button": frames.KeypadEntry.ONE,
        "settings": {},
        "arguments": {},
        "enable": True,
        "mute": True,
        "processor": None,
        "params": None,
        "timestamp": 5 if cls is frames.HeartbeatFrame else "now",
    }
    lists = {"images", "messages", "tools", "data", "function_calls"}
    return [] if name in lists else samples.get(name, "text")


def test_a_factorys_default_is_made_anew() -> None:
    record = msgpack.unpackb(encode(frames.StartFrame()))
    one, other = decode(_packed(record)), decode(_packed(record))
    assert isinstance(one, frames.StartFrame)
    assert isinstance(other, frames.StartFrame)
    assert one.interruption_strategies == []
    assert one.interruption_strategies is not other.interruption_strategies


def _full_record(frame: frames.Frame) -> list[Any]:
    """The record with no default left out, as a reader with fewer fields would have to see it."""
    record: list[Any] = msgpack.unpackb(
        encode(frame), ext_hook=msgpack.ExtType, strict_map_key=False
    )
    names = dict(FRAME_KINDS.values())[type(frame).__name__].split()
    record += [None] * (7 - len(record))
    for name in names[len(record) - 7 :]:
        record += _plain([getattr(frame, name)])
    return record


def _plain(added: list[Any]) -> list[Any]:
    data = encode(frames.TransportMessageFrame(added))
    plain: list[Any] = msgpack.unpackb(data, ext_hook=msgpack.ExtType, strict_map_key=False)[7]
    return plain


def _packed(record: object) -> bytes:
    return bytes(msgpack.packb(record))


# References


class Table:
    """Keeps objects by number, as a session does."""

    def __init__(self, *claimed: type) -> None:
        self.claimed = claimed
        self.objects: list[object] = []

    def claims(self, obj: object) -> bool:
        return isinstance(obj, self.claimed)

    def refer(self, obj: object) -> object:
        self.objects.append(obj)
        return {"n": len(self.objects) - 1}

    def resolve(self, ref: object) -> object:
        assert isinstance(ref, dict)
        return self.objects[ref["n"]]


async def _callback() -> None:
    pass


def _result(callback: Callable[..., Any]) -> frames.FunctionCallResultFrame:
    properties = frames.FunctionCallResultProperties(on_context_updated=callback)
    return frames.FunctionCallResultFrame("f", "1", {}, "r", properties=properties)


def test_a_callback_goes_out_and_comes_back_as_the_same_object() -> None:
    table: References = Table()
    frame = _result(_callback)
    received = decode(encode(frame, table), table)
    assert received == frame
    assert isinstance(received, frames.FunctionCallResultFrame)
    assert received.properties is not None
    assert received.properties is not frame.properties
    assert received.properties.on_context_updated is _callback


def test_a_live_object_in_a_field() -> None:
    table = Table()
    processor: Any = object()
    received = decode(encode(frames.ErrorFrame("odd", processor=processor), table), table)
    assert isinstance(received, frames.ErrorFrame)
    assert received.processor is processor


def test_a_claimed_object_travels_by_reference_though_it_could_be_copied() -> None:
    table = Table(Order)
    order = Order(items=[])
    frame = OwnFrame(Mood.GLAD, order)
    received = decode(encode(frame, table), table)
    assert isinstance(received, OwnFrame)
    assert received.order is order
    assert received.mood is Mood.GLAD


def test_without_a_table_the_error_names_class_field_and_type() -> None:
    with pytest.raises(CodecError, match=r"FunctionCallResultFrame\.properties: .*function"):
        encode(_result(_callback))
    with pytest.raises(CodecError, match=r"ErrorFrame\.processor: .*object"):
        encode(frames.ErrorFrame("odd", processor=object()))  # type: ignore[arg-type]
    end = frames.EndFrame()
    end.metadata["f"] = _callback
    with pytest.raises(CodecError, match=r"EndFrame\.metadata: .*function"):
        encode(end)


def test_a_reference_that_nobody_can_resolve_is_an_error() -> None:
    data = encode(_result(_callback), Table())
    with pytest.raises(CodecError, match="no table"):
        decode(data)
    with pytest.raises(CodecError, match="index"):
        decode(data, Table())


class Refusing(Table):
    def refer(self, obj: object) -> object:
        raise PermissionError("it stays here")


def test_a_refusal_becomes_a_codec_error() -> None:
    with pytest.raises(CodecError, match=r"properties: it stays here") as caught:
        encode(_result(_callback), Refusing())
    assert isinstance(caught.value.__cause__, PermissionError)


def test_decode_value_uses_the_table_too() -> None:
    table = Table()
    assert decode_value(encode_value([1, _callback], table), table) == [1, _callback]
