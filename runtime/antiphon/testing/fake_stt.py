"""Speech recognition that understands what a test has written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from antiphon.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.relay import relayed
from antiphon.services.stt_service import STTService
from antiphon.testing.fake_fault import FakeFault, commit, fault_at
from antiphon.utils.time import time_now_iso8601


class FakeSTTService(STTService):
    """Gives the next transcript of its script each time the user stops speaking.

    The audio itself is not listened to. While muted, a turn of the user uses up its transcript
    and gives nothing. After the last transcript the user says nothing more.
    """

    def __init__(
        self,
        transcripts: Sequence[str] = (),
        *,
        interim: bool = False,
        user_id: str = "",
        latency_secs: float = 0.0,
        faults: Sequence[FakeFault | None] = (),
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            transcripts: What the user says, turn by turn; an empty one gives no frame.
            interim: Whether the first word is given as an interim transcription when the user
                starts to speak.
            user_id: Who speaks.
            latency_secs: Time from the end of a turn to its transcript.
            faults: What goes wrong at the end of a turn, turn by turn; nothing from their end on. A
                turn with a fault uses up its transcript.
            **kwargs: Passed on to ``STTService``.
        """
        super().__init__(**kwargs)
        self._transcripts = list(transcripts)
        self._turn = 0
        self._interim = interim
        self._speaker = user_id
        self._latency_secs = latency_secs
        self._faults = list(faults)
        # Transcripts on their way; one at most for each turn of the script.
        self._late: set[asyncio.Task[Any]] = set()

    @relayed
    def will_hear(self, text: str) -> None:
        """Adds what the user says in a further turn."""
        self._transcripts.append(text)

    async def cleanup(self) -> None:
        """Forgets the transcripts that are on their way."""
        for task in list(self._late):
            await self.cancel_task(task)
        await super().cleanup()

    @relayed
    async def hear(self, text: str) -> None:
        """Gives a transcription now, besides the script."""
        await self.push_frame(TranscriptionFrame(text, self._speaker, time_now_iso8601()))

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Recognises nothing: the script goes by turns, not by audio."""
        yield None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes frames on, and answers the user's turns."""
        await super().process_frame(frame, direction)
        if isinstance(frame, UserStartedSpeakingFrame) and not frame.emulated:
            text = self._upcoming()
            if self._interim and text and not self.is_muted:
                await self.push_frame(
                    InterimTranscriptionFrame(text.split()[0], self._speaker, time_now_iso8601())
                )
        elif isinstance(frame, UserStoppedSpeakingFrame) and not frame.emulated:
            text = self._upcoming()
            fault = fault_at(self._faults, self._turn)
            self._turn += 1
            if fault is not None:
                if fault.kind not in ("hang", "nothing"):
                    await self.process_generator(commit(fault))
            elif text and not self.is_muted:
                await self._hear_in_time(text)

    async def _hear_in_time(self, text: str) -> None:
        if not self._latency_secs:
            await self.hear(text)
            return

        async def hear_late() -> None:
            await asyncio.sleep(self._latency_secs)
            await self.hear(text)

        task = self.create_task(hear_late(), "transcript")
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def _upcoming(self) -> str:
        return self._transcripts[self._turn] if self._turn < len(self._transcripts) else ""
