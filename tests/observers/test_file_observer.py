from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from antiphon.frames.frames import (
    Frame,
    InputAudioRawFrame,
    LLMMessagesAppendFrame,
    TextFrame,
    TranscriptionFrame,
)
from antiphon.observers import file_observer
from antiphon.observers.base_observer import FramePushed
from antiphon.observers.file_observer import FileObserver
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


@dataclass
class KnotFrame(Frame):
    knot: Any = None


async def _record(observer: FileObserver, *frames: Frame) -> None:
    source, destination = FrameProcessor(name="from"), FrameProcessor(name="to")
    for frame in frames:
        await observer.on_push_frame(
            FramePushed(source, destination, frame, FrameDirection.UPSTREAM, 7)
        )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_a_line_says_what_went_where(tmp_path: Path) -> None:
    observer = FileObserver(tmp_path / "frames.jsonl")
    frame = InputAudioRawFrame(b"\0\0\0\0", 16000, 1)
    await _record(observer, frame)
    await observer.cleanup()
    (line,) = _lines(tmp_path / "frames.jsonl")
    fields = line.pop("fields")
    assert line == {
        "time_ns": 7,
        "frame": "InputAudioRawFrame",
        "id": frame.id,
        "source": "from",
        "destination": "to",
        "direction": "upstream",
    }
    assert fields["audio"] == {"bytes": 4}
    assert fields["sample_rate"] == 16000


async def test_what_people_say_is_written_only_when_asked_for(tmp_path: Path) -> None:
    frames = [
        TranscriptionFrame("my account number", "caller", "now"),
        LLMMessagesAppendFrame([{"role": "user", "content": "my account number"}]),
    ]
    for include_text in (False, True):
        observer = FileObserver(tmp_path / "frames.jsonl", include_text=include_text)
        await _record(observer, *frames)
        await observer.cleanup()
        text = (tmp_path / "frames.jsonl").read_text()
        assert text.count("my account number") == (2 if include_text else 0)
        assert len(text.splitlines()) == 2


async def test_a_constructor_opens_nothing_and_frames_may_append(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    FileObserver(path)
    assert not path.exists()
    for _ in range(2):
        observer = FileObserver(str(path), append=True)
        await _record(observer, TextFrame("a"))
        await observer.cleanup()
        await observer.cleanup()
    assert len(_lines(path)) == 2


async def test_order_is_kept_over_many_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_observer, "_BATCH_LINES", 7)
    frames = [TextFrame(str(number)) for number in range(100)]
    observer = FileObserver(tmp_path / "frames.jsonl")
    for frame in frames:
        await _record(observer, frame)
        await asyncio.sleep(0)
    await observer.cleanup()
    assert [line["id"] for line in _lines(tmp_path / "frames.jsonl")] == [
        frame.id for frame in frames
    ]


async def test_more_than_the_buffer_holds_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_observer, "_BUFFER_LINES", 3)
    observer = FileObserver(tmp_path / "frames.jsonl")
    await _record(observer, *(TextFrame("x") for _ in range(5)))
    assert observer.dropped == 2
    assert observer._writer is not None
    await observer._writer
    await _record(observer, TextFrame("after the gap"))
    await observer.cleanup()
    lines = _lines(tmp_path / "frames.jsonl")
    assert [("frame" in line, line.get("dropped")) for line in lines] == [
        (True, None),
        (True, None),
        (True, None),
        (False, 2),
        (True, None),
    ]


async def test_a_file_that_cannot_be_written_does_not_stop_the_pipeline(tmp_path: Path) -> None:
    observer = FileObserver(tmp_path / "missing" / "frames.jsonl")
    await _record(observer, TextFrame("a"), TextFrame("b"))
    await observer.cleanup()
    await _record(observer, TextFrame("c"))
    assert observer.dropped == 3
    await observer.cleanup()


async def test_a_structure_that_contains_itself_is_cut_off(tmp_path: Path) -> None:
    knot: list[Any] = []
    knot.append(knot)
    observer = FileObserver(tmp_path / "frames.jsonl")
    await _record(observer, KnotFrame(knot=knot))
    await observer.cleanup()
    assert len(_lines(tmp_path / "frames.jsonl")) == 1
