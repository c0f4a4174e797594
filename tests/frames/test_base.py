"""Identity of frames: ids, names, and the attributes that are no parameters."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.frames import _ids
from antiphon.frames.frames import DataFrame, EndFrame, Frame, InputAudioRawFrame, TextFrame


@dataclass
class OwnFrame(DataFrame):
    word: str
    count: int = 0
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.doubled = self.count * 2


class PlainFrame(TextFrame):
    def __init__(self, text: str, mood: str) -> None:
        super().__init__(text)
        self.mood = mood


@dataclass(slots=True)
class SlottedFrame(DataFrame):
    word: str = "w"


@dataclass
class NamedFrame(DataFrame):
    name: str
    metadata: dict[str, int] = field(default_factory=dict)


def test_ids_and_names_count_up() -> None:
    first, other, second = TextFrame("a"), EndFrame(), TextFrame("b")
    assert first.id < other.id < second.id
    n = int(first.name.removeprefix("TextFrame#"))
    assert second.name == f"TextFrame#{n + 1}"
    assert other.name.startswith("EndFrame#")


def test_a_fresh_process_counts_from_zero() -> None:
    code = (
        "from antiphon.frames.frames import EndFrame, TextFrame\n"
        "a, b, c = TextFrame('a'), EndFrame(), TextFrame('b')\n"
        "assert (a.id, b.id, c.id) == (0, 1, 2), (a.id, b.id, c.id)\n"
        "assert (a.name, b.name, c.name) == ('TextFrame#0', 'EndFrame#0', 'TextFrame#1')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_common_attributes_are_each_frames_own() -> None:
    frame, other = TextFrame("a"), TextFrame("b")
    assert (frame.pts, frame.transport_source, frame.transport_destination) == (None, None, None)
    assert frame.metadata == {}
    frame.metadata["k"] = 1
    frame.pts = 5
    frame.transport_source = "mic"
    assert frame.metadata == {"k": 1}
    assert other.metadata == {}
    assert (other.pts, other.transport_source) == (None, None)
    shared = {"x": 1}
    frame.metadata = shared
    assert frame.metadata is shared


def test_name_can_be_assigned() -> None:
    frame = TextFrame("a")
    frame.name = "mine"
    assert frame.name == "mine"
    assert str(EndFrame()).startswith("EndFrame#")


def test_own_dataclass() -> None:
    frame = OwnFrame("w", 2)
    assert (frame.word, frame.count, frame.doubled) == ("w", 2, 4)
    assert frame.name.startswith("OwnFrame#")
    assert "word='w'" in repr(frame)
    assert "pts=None" in repr(frame)
    assert "metadata={}" in repr(frame)


def test_own_plain_class() -> None:
    frame = PlainFrame("hi", "glad")
    assert frame.name.startswith("PlainFrame#")
    assert frame.metadata == {}


def test_own_class_with_slots() -> None:
    frame = SlottedFrame("x")
    frame.pts = 3
    assert (frame.word, frame.pts) == ("x", 3)
    assert frame.name.startswith("SlottedFrame#")


def test_own_class_that_redeclares_a_common_attribute() -> None:
    frame = NamedFrame("chosen")
    assert frame.name == "chosen"
    assert frame.metadata == {}
    assert NamedFrame("a").metadata is not NamedFrame("b").metadata


def test_two_frames_are_never_equal_but_a_copy_is() -> None:
    frame = TextFrame("a")
    assert frame != TextFrame("a")
    assert copy.copy(frame) == frame
    assert copy.deepcopy(frame).name == frame.name
    assert pickle.loads(pickle.dumps(frame)) == frame


def test_classes_of_one_name_share_a_counter() -> None:
    def define() -> type[Frame]:
        class TwinFrame(DataFrame):
            pass

        return TwinFrame

    one, two = define(), define()
    assert [one().name, two().name, one().name] == ["TwinFrame#0", "TwinFrame#1", "TwinFrame#2"]


def test_obj_count_counts_by_class() -> None:
    class Thing:
        pass

    assert [_ids.obj_count(Thing()) for _ in range(3)] == [0, 1, 2]


def test_audio_frames_still_get_an_id() -> None:
    frame = InputAudioRawFrame(b"", 16000, 1)
    assert isinstance(frame.id, int)


@pytest.fixture
def restored_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ids, "_ids", _ids._ids)


@pytest.mark.usefixtures("restored_ids")
def test_process_prefix() -> None:
    before = _ids.obj_id()
    _ids.set_process_prefix(5)
    ids = [_ids.obj_id(), EndFrame().id]
    assert all(number >> 39 == 5 for number in ids)
    _ids.set_process_prefix((1 << 24) - 1)
    assert _ids.obj_id() < 1 << 63
    _ids.set_process_prefix(0)
    again = _ids.obj_id()
    assert again >> 39 == 0
    assert before < again, "an id came twice"


@given(st.integers().filter(lambda n: not 0 <= n < 1 << 24))
def test_process_prefix_has_a_range(n: int) -> None:
    with pytest.raises(ValueError, match="process prefix"):
        _ids.set_process_prefix(n)
