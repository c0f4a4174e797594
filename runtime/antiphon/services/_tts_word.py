"""Text-to-speech services that know when each word is spoken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from antiphon.frames.frames import (
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    StartInterruptionFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services._tts_base import TTSService
from antiphon.utils.time import seconds_to_nanoseconds


class WordTTSService(TTSService):
    """A service that knows when each word is spoken.

    It pushes a TTSTextFrame a word, with the time at which the output transport will play it. So
    the conversation remembers what the user heard, even when interrupted.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Makes a service.

        Args:
            **kwargs: Passed on to ``TTSService``.
        """
        super().__init__(**kwargs)
        # Clock time at which the speech of the words' times began, in ns.
        self._initial_word_timestamp: int | None = None
        self._last_word_pts = 0
        self._llm_response_started = False

    def start_word_timestamps(self) -> None:
        """Takes the present for the time at which the speech begins, if none is taken yet."""
        if self._initial_word_timestamp is None:
            self._initial_word_timestamp = self.get_clock().get_time()
            self.state_changed()

    def reset_word_timestamps(self) -> None:
        """Forgets when the speech began; the next one begins anew."""
        self._initial_word_timestamp = None

    def snapshot(self) -> Mapping[str, Any] | None:
        """When the speech began; a subclass with a state of its own adds to it."""
        return {
            "version": 1,
            "began": self._initial_word_timestamp,
            "last_word": self._last_word_pts,
            "in_response": self._llm_response_started,
        }

    async def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the speech of its predecessor."""
        self._initial_word_timestamp = state["began"]
        self._last_word_pts = state["last_word"]
        self._llm_response_started = state["in_response"]

    async def add_word_timestamps(self, word_times: list[tuple[str, float]]) -> None:
        """Pushes words with their times.

        Args:
            word_times: Words, each with its time in seconds from the beginning of the speech. Three
                entries with time 0 are marks instead: ``TTSStoppedFrame`` and
                ``LLMFullResponseEndFrame`` push that frame at the time of the last word,
                ``Reset`` ends the speech, and with it the language model's answer.
        """
        for word, secs in word_times:
            mark = word if secs == 0 else ""
            frame: Frame
            if mark == "Reset":
                self.reset_word_timestamps()
                if not self._llm_response_started:
                    continue
                self._llm_response_started = False
                frame = LLMFullResponseEndFrame()
                frame.pts = self._last_word_pts
            elif mark == "LLMFullResponseEndFrame":
                frame = LLMFullResponseEndFrame()
                frame.pts = self._last_word_pts
            elif mark == "TTSStoppedFrame":
                frame = TTSStoppedFrame()
                frame.pts = self._last_word_pts
            else:
                # Words may come before their audio.
                self.start_word_timestamps()
                frame = TTSTextFrame(word)
                frame.pts = (self._initial_word_timestamp or 0) + seconds_to_nanoseconds(secs)
                self._last_word_pts = frame.pts
            await self.push_frame(frame)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Keeps track of the language model's answer."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMFullResponseStartFrame):
            self._llm_response_started = True
        elif isinstance(frame, LLMFullResponseEndFrame):
            await self.flush_audio()

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        await super()._handle_interruption(frame, direction)
        self._llm_response_started = False
        self.reset_word_timestamps()
