"""Listening only after being addressed."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from loguru import logger

from antiphon.frames.frames import Frame, TranscriptionFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.utils.checks import check_instance, check_number

_KEPT_CHARS = 500
"""What is remembered of each participant's words while asleep; phrases are far shorter."""


class WakeCheckFilter(FrameProcessor):
    """Drops a participant's transcriptions until one of some phrases is heard.

    The transcription that completes a phrase passes, with the text from the phrase on. After that
    everything that this participant says passes, until nothing was said for a while. Other frames
    always pass.
    """

    movable: ClassVar[bool] = True

    class WakeState(Enum):
        """Whether a participant is listened to.

        Attributes:
            IDLE: Waiting for a phrase.
            AWAKE: A phrase was heard.
        """

        IDLE = 1
        AWAKE = 2

    @dataclass
    class ParticipantState:
        """What is known of a participant.

        Attributes:
            participant_id: Who.
            state: Whether that participant is listened to.
            last_heard_secs: The loop's time of the last transcription that passed.
            heard: The last words that did not pass.
        """

        participant_id: str
        state: WakeCheckFilter.WakeState = field(
            default_factory=lambda: WakeCheckFilter.WakeState.IDLE
        )
        last_heard_secs: float = 0.0
        heard: str = ""

    def __init__(
        self, wake_phrases: Sequence[str], keepalive_timeout: float = 3, **kwargs: object
    ) -> None:
        """Makes the filter.

        Args:
            wake_phrases: The phrases, in any case; spaces and punctuation between words may differ.
            keepalive_timeout: Seconds of silence after which a phrase is needed again.
            **kwargs: Passed to the base.

        Raises:
            TypeError: If the phrases are no list of texts.
            ValueError: If a phrase has no words, or the timeout is negative.
        """
        super().__init__(**kwargs)  # type: ignore[arg-type]
        if isinstance(wake_phrases, str):
            raise TypeError(
                f"WakeCheckFilter(wake_phrases) must be a list of texts, not {wake_phrases!r}"
            )
        for phrase in wake_phrases:
            check_instance("a phrase of WakeCheckFilter(wake_phrases)", phrase, str)
        check_number("WakeCheckFilter(keepalive_timeout)", keepalive_timeout, at_least=0)
        self._keepalive_timeout_secs = keepalive_timeout
        self._phrases = [_pattern(phrase) for phrase in wake_phrases]
        # By participant; a call has few.
        self._participants: dict[str, WakeCheckFilter.ParticipantState] = {}

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Drops transcriptions while asleep; other frames pass."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            heard = self._hear(frame)
            if heard is None:
                return
            frame = heard
        await self.push_frame(frame, direction)

    def _hear(self, frame: TranscriptionFrame) -> TranscriptionFrame | None:
        """The frame to pass on, if any."""
        who = self._participants.setdefault(
            frame.user_id, self.ParticipantState(participant_id=frame.user_id)
        )
        now_secs = asyncio.get_running_loop().time()
        if who.state is self.WakeState.AWAKE:
            if now_secs - who.last_heard_secs < self._keepalive_timeout_secs:
                who.last_heard_secs = now_secs
                return frame
            who.state = self.WakeState.IDLE
        who.heard = f"{who.heard} {frame.text}".strip()
        for phrase in self._phrases:
            match = phrase.search(who.heard)
            if match is None:
                continue
            logger.debug("wake phrase heard", processor=self.name)
            who.state = self.WakeState.AWAKE
            who.last_heard_secs = now_secs
            text, who.heard = who.heard[match.start() :], ""
            # Others hold the same frame: it stays as it is. The copy keeps its id.
            woken = copy.copy(frame)
            woken.text = text
            return woken
        who.heard = who.heard[-_KEPT_CHARS:]
        return None


def _pattern(phrase: str) -> re.Pattern[str]:
    words = re.findall(r"\S+", phrase)
    if not words:
        raise ValueError(f"the wake phrase {phrase!r} has no words")
    # Look-arounds rather than \b: a phrase may begin or end with another sign.
    return re.compile(
        r"(?<!\w)" + r"[\W_]*".join(re.escape(word) for word in words) + r"(?!\w)", re.IGNORECASE
    )
