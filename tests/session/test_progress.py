"""What a receiver knows of a sender's answers, and what the sender's successor makes of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.frames.frames import (
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
)
from antiphon_actors.session.progress import ENTRIES_KEPT, Progress, SentBefore

SLOT = 5 << 48


def origin(seq: int, *, urgent: bool = False) -> int:
    return SLOT | seq << 1 | urgent


def speech(count: int, start: int = 0) -> TTSAudioRawFrame:
    return TTSAudioRawFrame(bytes((start + n) % 256 for n in range(count)), 16000, 1)


def after(*noted: tuple[int, Frame]) -> SentBefore:
    progress = Progress()
    for cause, frame in noted:
        progress.note(bool(cause & 1), cause, frame)
    return SentBefore(progress.to_plain())


def test_what_came_of_an_input_does_not_come_again() -> None:
    sent = after((origin(1), TextFrame("a")), (origin(1), TextFrame("b")))
    frames = [TextFrame(text) for text in "abc"]
    assert [sent.new_part(origin(1), frame) for frame in frames] == [None, None, frames[2]]
    assert not sent


def test_other_inputs_and_classes_are_not_touched() -> None:
    sent = after((origin(1), TextFrame("a")))
    other = [TextFrame("a"), LLMFullResponseStartFrame()]
    assert sent.new_part(origin(2), other[0]) is other[0]
    assert sent.new_part(0, other[0]) is other[0]
    assert sent.new_part(origin(1), other[1]) is other[1]
    assert sent


def test_a_row_of_single_frames_takes_one_entry() -> None:
    progress = Progress()
    for seq in range(1, 1001):
        progress.note(True, origin(seq, urgent=True), TextFrame("x"))
    assert progress.urgent == 1000
    assert len(progress.to_plain()) == 1
    sent = SentBefore(progress.to_plain())
    assert sent.new_part(origin(500, urgent=True), TextFrame("x")) is None
    # Once each: a second frame of the same input is new.
    assert sent.new_part(origin(500, urgent=True), TextFrame("x")) is not None
    assert sent.new_part(origin(499, urgent=True), TextFrame("x")) is None
    assert sent.new_part(origin(1001, urgent=True), TextFrame("x")) is not None
    assert sent.new_part(origin(499), TextFrame("x")) is not None


def test_the_last_of_a_row_may_have_more() -> None:
    sent = after(
        (origin(1), TextFrame("a")), (origin(2), TextFrame("b")), (origin(2), TextFrame("c"))
    )
    assert sent.new_part(origin(1), TextFrame("")) is None
    assert sent.new_part(origin(2), TextFrame("")) is None
    assert sent.new_part(origin(2), TextFrame("")) is None
    assert sent.new_part(origin(2), TextFrame("")) is not None


def test_speech_goes_on_at_the_sample_where_it_stopped() -> None:
    sent = after((origin(1), TTSStartedFrame()), (origin(1), speech(100)), (origin(1), speech(60)))
    assert sent.new_part(origin(1), TTSStartedFrame()) is None
    assert sent.new_part(origin(1), speech(120)) is None
    rest = sent.new_part(origin(1), speech(120, start=120))
    assert isinstance(rest, TTSAudioRawFrame)
    assert rest.audio == speech(80, start=160).audio
    assert not sent


@pytest.mark.parametrize(
    ("said", "again", "heard"),
    [
        (["Hello ", "world"], ["Hello", " world", "."], "Hello world."),
        (["Hello"], ["Hello", " you"], "Hello you"),
        (["Hello wor"], ["Hello ", "world, ", "hi"], "Hello world, hi"),
        # Another answer begins anew with the sentence in which it differs.
        (["Sure. I can"], ["Sure. ", "Let me ", "see."], "Sure. I can Let me see."),
        (["Yes"], ["No. ", "Never."], "Yes No. Never."),
        (["Whole answer."], ["Whole answer."], "Whole answer."),
    ],
)
def test_a_language_model_goes_on_with_its_answer(
    said: list[str], again: list[str], heard: str
) -> None:
    sent = after(*((origin(3), LLMTextFrame(text)) for text in said))
    rest = [sent.new_part(origin(3), LLMTextFrame(text)) for text in again]
    texts = [frame.text for frame in rest if isinstance(frame, LLMTextFrame)]
    assert "".join(said) + "".join(texts) == heard


def test_what_is_remembered_is_bounded() -> None:
    progress = Progress()
    kinds = itertools.cycle([TextFrame, LLMTextFrame])
    for seq in range(3 * ENTRIES_KEPT):
        progress.note(False, origin(seq), next(kinds)("x"))
    assert len(progress.to_plain()) == ENTRIES_KEPT
    assert progress.ordered == 3 * ENTRIES_KEPT


def test_numbers_go_on_from_where_a_stream_begins() -> None:
    progress = Progress()
    progress.begin(7, 9)
    progress.note(False, 0, TextFrame("x"))
    assert (progress.ordered, progress.urgent) == (8, 9)
    assert progress.to_plain() == []


@pytest.mark.parametrize("plain", [[1], [["TextFrame", 1, 1, "x", 0, ""]], [[]]])
def test_malformed_progress_is_refused(plain: list[Any]) -> None:
    with pytest.raises(ValueError, match="malformed"):
        SentBefore(plain)


answers = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["text", "word", "speech", "start", "end"]),
        st.integers(1, 9),
    ),
    max_size=30,
)


def made(kind: str, size: int, position: int) -> Frame:
    if kind == "speech":
        return speech(2 * size, position)
    if kind == "word":
        return LLMTextFrame("abcdefghi"[:size])
    if kind == "text":
        return TextFrame("x" * size)
    return LLMFullResponseStartFrame() if kind == "start" else LLMFullResponseEndFrame()


def content(frames: list[tuple[int, Frame]]) -> dict[tuple[int, str], Any]:
    """What was said for each input, however it was cut."""
    found: dict[tuple[int, str], Any] = {}
    for cause, frame in frames:
        key = (cause, type(frame).__name__)
        if isinstance(frame, TTSAudioRawFrame):
            found[key] = found.get(key, b"") + frame.audio
        elif isinstance(frame, LLMTextFrame):
            found[key] = found.get(key, "") + frame.text
        else:
            found[key] = found.get(key, 0) + 1
    return found


@given(answers, st.integers(0, 30))
def test_the_same_answers_twice_are_answers_once(
    answers: list[tuple[int, str, int]], died_after: int
) -> None:
    answers = sorted(answers, key=lambda answer: answer[0])

    def run() -> list[tuple[int, Frame]]:
        return [(origin(seq), made(kind, size, at)) for at, (seq, kind, size) in enumerate(answers)]

    before = run()[:died_after]
    sent = after(*before)
    rest = [(cause, sent.new_part(cause, frame)) for cause, frame in run()]
    both = before + [(cause, frame) for cause, frame in rest if frame is not None]
    assert content(both) == content(run())
