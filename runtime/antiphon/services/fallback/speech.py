"""What a chain of speech services has to say, and what the pipeline has got of it."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from antiphon.frames.frames import (
    EndFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from antiphon.processors.heard_text import text_begun
from antiphon.services.fallback.spoken import Script, SpokenText
from antiphon.utils.text.base_text_aggregator import BaseTextAggregator

_SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class _Item:
    """A frame of a speech, and the part of the script that it adds, in characters."""

    frame: Frame
    start: int
    end: int


class Speech:
    """What is spoken from one pause to the next, whichever members speak it.

    What a member says goes through here: each `take_...` returns the frames to push for it.

    Attributes:
        script: The text.
        spoken: What the member that answers has spoken of it.
        open_answers: Answers of the language model that have begun and not ended.
        is_fed: Whether the member that answers gets what is added.
        is_taken: Whether it has dealt with all that it was given.
    """

    def __init__(self, aggregator: BaseTextAggregator) -> None:
        """Begins without text.

        Args:
            aggregator: Finds the sentences.
        """
        self.script = Script()
        self.spoken = SpokenText(self.script)
        self.open_answers = 0
        self.is_fed = False
        self.is_taken = False
        self._aggregator = aggregator
        self._items: list[_Item] = []
        # The position up to which the pipeline was told what is spoken.
        self._told = 0
        # Whether the pipeline was told that speech began, and not that it ended.
        self._is_sounding = False
        # Words whose audio has not come, each with the position behind it. Bounded by the words of
        # one speech.
        self._held: deque[tuple[TTSTextFrame, int]] = deque()
        # When the audio of earlier members ends. The one that answers does not know of it: its times
        # are so much too early, in ns; None until it has given one.
        self._continues_at = 0.0
        self._shift_ns: int | None = None

    async def add(self, frame: Frame) -> str:
        """Takes a frame; returns the sentence that is complete with it, so that audio is due."""
        start = len(self.script.text)
        if isinstance(frame, TextFrame):
            self.script.add(frame.text)
        elif isinstance(frame, TTSSpeakFrame):
            self.script.add(f"\n{frame.text}\n")
        elif isinstance(frame, LLMFullResponseStartFrame):
            self.open_answers += 1
        elif isinstance(frame, LLMFullResponseEndFrame):
            self.open_answers = max(0, self.open_answers - 1)
        end = len(self.script.text)
        self._items.append(_Item(frame, start, end))
        if isinstance(frame, TextFrame):
            if not await self._aggregator.aggregate(frame.text):
                return ""
            end -= len(self._aggregator.text)
        elif isinstance(frame, (LLMFullResponseEndFrame, EndFrame)):
            await self._aggregator.reset()
        elif not isinstance(frame, TTSSpeakFrame):
            return ""
        return self.script.end_sentence(end)

    def rest(self, waits: Callable[[Frame], bool]) -> list[Frame]:
        """What a member has to be given: the text that is not spoken, and what has its place in it.

        Args:
            waits: Whether a frame that is no text has not come out of a member yet.
        """
        position = self.script.start_of(self.spoken.spoken)
        frames: list[Frame] = []
        for item in self._items:
            frame = item.frame
            if not isinstance(frame, (TextFrame, TTSSpeakFrame)):
                if isinstance(frame, LLMFullResponseStartFrame) or waits(frame):
                    frames.append(frame)
            elif item.start >= position:
                frames.append(frame)
            elif text := self.script.text[position : item.end].strip("\n"):
                frames.append(dataclasses.replace(frame, text=text))
        return frames

    def hand_over(self) -> list[Frame]:
        """Ends what a member has said, for another one to go on."""
        self._held.clear()
        spoken = self.spoken.spoken
        frames: list[Frame] = []
        if spoken > self._told:
            frames.append(TTSTextFrame(self.script.between(self._told, spoken)))
            self._told = spoken
        if self._is_sounding:
            self._is_sounding = False
            frames.append(TTSStoppedFrame())
        self._continues_at = self.spoken.heard_until
        self._shift_ns = None
        self.spoken = SpokenText(self.script, spoken, self._continues_at)
        return frames

    def take_audio(self, frame: TTSAudioRawFrame, now: float) -> list[Frame]:
        """Takes audio that came at a time, in seconds of the pipeline's clock."""
        samples = len(frame.audio) / _SAMPLE_BYTES / frame.num_channels
        self.spoken.audio(samples / frame.sample_rate, now, text_begun(frame))
        return [frame, *self._released()]

    def take_text(self, frame: TTSTextFrame) -> tuple[list[Frame], bool]:
        """Takes a text or a word that the member tells.

        Returns:
            What to push, and whether the text is known to be spoken to its end.
        """
        before = self.spoken.told
        is_spoken = False
        self._correct_time(frame)
        if frame.pts:
            self.spoken.tell_word(frame.text, frame.pts / 1e9)
        else:
            is_spoken = self.spoken.tell(frame.text)
        position = self.spoken.told
        # What the pipeline was told already, when another member was about to speak it.
        known = min(self._told, position) - before
        if known > 0:
            frame.text = " ".join(frame.text.split()[known:])
        if frame.text:
            self._held.append((frame, position))
        return self._released(), is_spoken

    def take_other(self, frame: Frame) -> list[Frame]:
        """Takes any other frame that has its place among the audio."""
        self._correct_time(frame)
        if isinstance(frame, TTSStartedFrame):
            self._is_sounding = True
        elif isinstance(frame, TTSStoppedFrame):
            self._is_sounding = False
            return [*self.complete(), frame]
        return [frame]

    def complete(self) -> list[Frame]:
        """All audio of what the member has begun or told has come."""
        self.spoken.complete()
        return self._released(whole=True)

    def _correct_time(self, frame: Frame) -> None:
        if frame.pts:
            if self._shift_ns is None:
                self._shift_ns = max(0, round(self._continues_at * 1e9) - frame.pts)
            frame.pts += self._shift_ns

    def _released(self, *, whole: bool = False) -> list[Frame]:
        frames: list[Frame] = []
        while self._held:
            frame, position = self._held[0]
            if not whole and frame.pts and not self.spoken.has_come(frame.pts / 1e9):
                break
            self._held.popleft()
            self._told = max(self._told, position)
            frames.append(frame)
        return frames
