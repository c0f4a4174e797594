"""How long the user waits for the bot, in the log."""

from __future__ import annotations

from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    CancelFrame,
    EndFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.processors.frame_processor import FrameDirection

_NANOSECONDS = 1_000_000_000
_LABEL = "⏱️ LATENCY FROM USER STOPPED SPEAKING TO BOT STARTED SPEAKING"


class UserBotLatencyLogObserver(BaseObserver):
    """Logs the time from the user's last word to the bot's first, and a summary at the end.

    Times are those of the pipeline's clock. The summary (average, least, greatest) is logged at
    level INFO when the pipeline ends.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Makes an observer that has measured nothing yet."""
        super().__init__(**kwargs)
        self._user_stopped_ns: int | None = None
        self._last_stop_id: int | None = None
        self._ended = False
        self._count = 0
        self._sum_secs = 0.0
        self._least_secs = float("inf")
        self._greatest_secs = 0.0

    async def on_push_frame(self, data: FramePushed) -> None:
        """Follows who speaks; the first hop downstream of each frame counts."""
        if data.direction != FrameDirection.DOWNSTREAM:
            return
        match data.frame:
            case UserStartedSpeakingFrame():
                self._user_stopped_ns = None
            case UserStoppedSpeakingFrame() as frame:
                self._user_stopped(frame.id, data.timestamp)
            case BotStartedSpeakingFrame():
                self._bot_started(data.timestamp)
            case EndFrame() | CancelFrame():
                self._summarise()

    def _user_stopped(self, frame_id: int, now_ns: int) -> None:
        # Later hops of the same frame come with later times and must not move the start, also
        # not after the bot's answer has been measured.
        if frame_id != self._last_stop_id:
            self._last_stop_id = frame_id
            self._user_stopped_ns = now_ns

    def _bot_started(self, now_ns: int) -> None:
        if self._user_stopped_ns is None:
            return
        latency_secs = (now_ns - self._user_stopped_ns) / _NANOSECONDS
        self._user_stopped_ns = None
        self._count += 1
        self._sum_secs += latency_secs
        self._least_secs = min(self._least_secs, latency_secs)
        self._greatest_secs = max(self._greatest_secs, latency_secs)
        logger.debug(f"{_LABEL}: {latency_secs:.3f}s")

    def _summarise(self) -> None:
        if self._ended or not self._count:
            return
        self._ended = True
        logger.info(
            f"{_LABEL} - Avg: {self._sum_secs / self._count:.3f}s, "
            f"Min: {self._least_secs:.3f}s, Max: {self._greatest_secs:.3f}s"
        )
