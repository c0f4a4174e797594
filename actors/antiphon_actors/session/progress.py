"""What has come over an edge, by what caused it: so that nothing comes twice from a successor.

When a processor is lost, its successor is given again what was not answered, and answers it again. The
receivers of its answers are still there. Each knows what it has got of them: of every frame, which
input of the sender it came of (`Delivery.cause`). The successor is told so, and keeps to itself what is
there already.

Frames are counted by their class, speech by its length and a language model's words by their text: a
service that answers again need not cut its answer into the same pieces.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from antiphon.frames.frames import Frame, LLMTextFrame, TTSAudioRawFrame

ENTRIES_KEPT: Final = 512
"""Stretches of frames that are remembered of an edge, the newest; a stretch may be of any length."""

_MAX_TEXT: Final = 64_000
_STEP: Final = 2  # from one frame's origin to that of the next on its lane
_URGENT: Final = 1
_SENTENCE_END: Final = re.compile(r"[.!?;:。！？]\s*")


class _Entry:
    """Frames of one class: `count` of them that one input caused, or one each of several inputs."""

    __slots__ = ("amount", "cls", "count", "first", "last", "text")

    def __init__(self, cls: type[Frame], cause: int) -> None:
        self.cls = cls
        self.first = self.last = cause
        self.count = 1
        self.amount = 0
        self.text = ""


class Progress:
    """What one receiver has got, over all senders that had each other's place.

    Attributes:
        ordered: Frames of the ordered lane so far.
        urgent: Frames of the urgent lane so far.
    """

    __slots__ = ("_ordered_entries", "_urgent_entries", "ordered", "urgent")

    def __init__(self) -> None:
        self.ordered = 0
        self.urgent = 0
        self._ordered_entries: deque[_Entry] = deque(maxlen=ENTRIES_KEPT)
        self._urgent_entries: deque[_Entry] = deque(maxlen=ENTRIES_KEPT)

    def begin(self, ordered: int, urgent: int) -> None:
        """A stream begins that goes on from these numbers."""
        self.ordered = ordered
        self.urgent = urgent

    def skip(self, urgent: bool) -> None:
        """Counts a frame that came without its content."""
        if urgent:
            self.urgent += 1
        else:
            self.ordered += 1

    def note(self, urgent: bool, cause: int, frame: Frame) -> None:
        """Takes note of a frame that has come."""
        if urgent:
            self.urgent += 1
            entries = self._urgent_entries
        else:
            self.ordered += 1
            entries = self._ordered_entries
        if not cause:
            return
        cls = type(frame)
        last: _Entry | None = entries[-1] if entries else None
        if last is not None and last.cls is cls and last.last == cause and last.first == cause:
            last.count += 1
            entry = last
        elif (
            last is not None
            and last.cls is cls
            and last.count == 1
            and not last.amount
            and not last.text
            and cause - last.last == _STEP
        ):
            last.last = cause
            return
        else:
            if last is not None and last.cls is cls and last.last == cause:
                # The last one of a row of single frames gets a second.
                last.last -= _STEP
                entry = _Entry(cls, cause)
                entry.count = 2
            else:
                entry = _Entry(cls, cause)
            entries.append(entry)
        if cls is LLMTextFrame:
            assert isinstance(frame, LLMTextFrame)
            if len(entry.text) < _MAX_TEXT:
                entry.text += frame.text
        elif cls is TTSAudioRawFrame:
            assert isinstance(frame, TTSAudioRawFrame)
            entry.amount += len(frame.audio)

    def to_plain(self) -> list[list[Any]]:
        """What a successor of the sender has to know, as plain data."""
        return [
            [entry.cls.__qualname__, entry.first, entry.last, entry.count, entry.amount, entry.text]
            for entries in (self._urgent_entries, self._ordered_entries)
            for entry in entries
        ]


class _Rest:
    """What the predecessor has sent because of one input and in one class of frames.

    Attributes:
        count: Frames.
        amount: Bytes of speech.
        text: A language model's words.
        again: Those that the successor has found.
    """

    __slots__ = ("again", "amount", "count", "text")

    def __init__(self) -> None:
        self.count = 0
        self.amount = 0
        self.text = ""
        self.again = ""


class SentBefore:
    """What a predecessor has sent over an edge, for the successor not to send it again."""

    def __init__(self, plain: Sequence[Any]) -> None:
        """Takes what `Progress.to_plain` of the receiver said.

        Raises:
            ValueError: It did not.
        """
        self._rests: dict[tuple[int, str], _Rest] = {}
        # Rows of inputs each of which caused one frame of a class.
        self._rows: dict[str, list[tuple[int, int]]] = {}
        for entry in plain:
            match entry:
                case [str(name), int(first), int(last), int(count), int(amount), str(text)]:
                    self._add(name, first, last, count, amount, text)
                case _:
                    raise ValueError("malformed progress of an edge")

    def _add(self, name: str, first: int, last: int, count: int, amount: int, text: str) -> None:
        if first != last:
            self._rows.setdefault(name, []).append((first, last))
            return
        rest = self._rests.setdefault((first, name), _Rest())
        rest.count += count
        rest.amount += amount
        rest.text += text

    def __bool__(self) -> bool:
        return bool(self._rests or self._rows)

    def new_part(self, cause: int, frame: Frame) -> Frame | None:
        """Returns what of a frame the receiver does not have: the frame, a part of it, or None."""
        name = type(frame).__qualname__
        key = (cause, name)
        rest = self._rests.get(key)
        if rest is None:
            return None if self._in_a_row(name, cause) else frame
        if type(frame) is TTSAudioRawFrame:
            return self._new_audio(key, rest, frame)
        if type(frame) is LLMTextFrame:
            return self._new_text(key, rest, frame)
        rest.count -= 1
        if rest.count <= 0:
            del self._rests[key]
        return None

    def _in_a_row(self, name: str, cause: int) -> bool:
        """Whether a frame is one of a row; each counts once."""
        rows = self._rows.get(name, [])
        for number, (first, last) in enumerate(rows):
            if first <= cause <= last and (cause - first) % _STEP == 0:
                rows[number : number + 1] = [
                    row
                    for row in ((first, cause - _STEP), (cause + _STEP, last))
                    if row[0] <= row[1]
                ]
                if not rows:
                    del self._rows[name]
                return True
        return False

    def _new_audio(
        self, key: tuple[int, str], rest: _Rest, frame: TTSAudioRawFrame
    ) -> Frame | None:
        known = min(rest.amount, len(frame.audio))
        rest.amount -= known
        if rest.amount <= 0:
            del self._rests[key]
        if known == len(frame.audio):
            return None
        frame.audio = frame.audio[known:]
        return frame

    def _new_text(self, key: tuple[int, str], rest: _Rest, frame: LLMTextFrame) -> Frame | None:
        rest.again += frame.text
        said, again = rest.text, rest.again
        if len(again) < len(said) and said.startswith(again):
            return None
        del self._rests[key]
        if again == said:
            return None
        if again.startswith(said):
            frame.text = again[len(said) :]
            return frame
        # Another answer than the first time. What was said stays said; the new one begins with the
        # sentence in which it differs.
        pairs = zip(said, again, strict=False)
        common = "".join(
            one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
        )
        ends = [found.end() for found in _SENTENCE_END.finditer(common)]
        begin = ends[-1] if ends else 0
        frame.text = f" {again[begin:].lstrip()}"
        return frame
