"""What speech recognition understood, in the log."""

from __future__ import annotations

from loguru import logger

from antiphon.frames.frames import InterimTranscriptionFrame, TranscriptionFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.services.stt_service import STTService

_NANOSECONDS = 1_000_000_000


class TranscriptionLogObserver(BaseObserver):
    """Logs final and interim transcriptions as they leave an STT service, at level DEBUG.

    The log then holds what people said: adding this observer is the decision to have that.
    """

    async def on_push_frame(self, data: FramePushed) -> None:
        """Logs the hop if it is a transcription that leaves an STT service."""
        if not isinstance(data.source, STTService):
            return
        frame = data.frame
        if isinstance(frame, InterimTranscriptionFrame):
            kind = "INTERIM TRANSCRIPTION"
        elif isinstance(frame, TranscriptionFrame):
            kind = "TRANSCRIPTION"
        else:
            return
        logger.debug(
            f"💬 {data.source} → {kind}: {frame.text!r} from {frame.user_id!r} "
            f"at {data.timestamp / _NANOSECONDS:.2f}s"
        )
