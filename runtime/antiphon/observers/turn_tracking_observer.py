"""Where one exchange between user and bot ends and the next begins."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    StartFrame,
    UserStartedSpeakingFrame,
)
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.utils.checks import check_number

_NANOSECONDS = 1_000_000_000
_STARTS_KEPT = 64


@dataclass(frozen=True)
class TurnState:
    """Where a conversation stands.

    Attributes:
        number: Number of the present turn, or of the last one.
        is_open: Whether it goes on.
        has_bot_spoken: Whether the bot has begun to answer in it.
    """

    number: int
    is_open: bool
    has_bot_spoken: bool


class TurnTrackingObserver(BaseObserver):
    """Numbers the turns of a conversation and says when each starts and ends.

    A turn starts with the pipeline (the first one) or when the user begins to speak. It ends

    - interrupted, when the user speaks while the bot does, or the pipeline ends;
    - completed, when the user speaks after the bot has spoken, or the bot has been silent for
      ``turn_end_timeout_secs``.

    A user who speaks again before the bot has answered is still in the same turn, and a bot that
    goes on within the timeout continues its turn.

    Events:
        on_turn_started(observer, turn_number): A turn began; the first is number 1.
        on_turn_ended(observer, turn_number, duration, was_interrupted): A turn ended. ``duration``
            is in seconds of the pipeline's clock, without the time waited for silence.
    """

    def __init__(
        self, max_frames: int = 100, turn_end_timeout_secs: float = 2.5, **kwargs: Any
    ) -> None:
        """Makes an observer that waits for the pipeline to start.

        Args:
            max_frames: How many frame ids to remember; a frame is seen once per hop, and counts
                once.
            turn_end_timeout_secs: Seconds of silence after the bot that end a turn.
            **kwargs: For the base class.

        Raises:
            TypeError: If one of them is no number.
            ValueError: If one of them is out of range.
        """
        super().__init__(**kwargs)
        check_number("TurnTrackingObserver(max_frames)", max_frames, at_least=1)
        check_number(
            "TurnTrackingObserver(turn_end_timeout_secs)", turn_end_timeout_secs, at_least=0
        )
        self._turn_end_timeout_secs = turn_end_timeout_secs
        self._seen: set[int] = set()
        self._seen_order: deque[int] = deque()
        self._max_frames = max_frames

        self._turn_count = 0
        self._resumed: TurnState | None = None
        self._is_turn_active = False
        self._is_bot_speaking = False
        self._has_bot_spoken = False
        self._turn_start_ns = 0
        self._starts: dict[int, int] = {}
        self._silence_timer: asyncio.Task[None] | None = None

        self._register_event_handler("on_turn_started")
        self._register_event_handler("on_turn_ended")

    @property
    def state(self) -> TurnState:
        """Where the conversation stands."""
        return TurnState(self._turn_count, self._is_turn_active, self._has_bot_spoken)

    def resume(self, state: TurnState) -> None:
        """Goes on from where another observer of the same conversation stood; before the start."""
        self._turn_count = state.number - state.is_open
        self._resumed = state

    def turn_started_at(self, turn_number: int) -> int | None:
        """When one of the last turns began, nanoseconds on the pipeline's clock.

        Handlers run after the event: by then the next turn may have begun.
        """
        return self._starts.get(turn_number)

    async def cleanup(self) -> None:
        """Stops waiting for silence; a turn that was open stays open."""
        timer = self._stop_waiting_for_silence()
        if timer is not None:
            await asyncio.wait([timer])
        await super().cleanup()

    async def on_push_frame(self, data: FramePushed) -> None:
        """Follows the frames that begin and end speech and the pipeline."""
        frame = data.frame
        if not isinstance(frame, _OBSERVED) or self._is_known(frame.id):
            return
        match frame:
            case StartFrame():
                await self._pipeline_started(data.timestamp)
            case UserStartedSpeakingFrame():
                await self._user_started_speaking(data.timestamp)
            case BotStartedSpeakingFrame():
                self._is_bot_speaking = True
                self._has_bot_spoken = True
                self._stop_waiting_for_silence()
            case BotStoppedSpeakingFrame():
                if self._is_bot_speaking:
                    self._is_bot_speaking = False
                    self._wait_for_silence(data.timestamp)
            case EndFrame() | CancelFrame():
                self._stop_waiting_for_silence()
                await self._end_turn(data.timestamp, was_interrupted=True)

    async def _pipeline_started(self, now_ns: int) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            if self._turn_count == 0:
                await self._start_turn(now_ns)
        elif resumed.is_open:
            await self._start_turn(now_ns)
            if resumed.has_bot_spoken:
                self._has_bot_spoken = True
                self._wait_for_silence(now_ns)

    async def _user_started_speaking(self, now_ns: int) -> None:
        if self._is_turn_active and not self._has_bot_spoken:
            return
        self._stop_waiting_for_silence()
        await self._end_turn(now_ns, was_interrupted=self._is_bot_speaking)
        await self._start_turn(now_ns)

    async def _start_turn(self, now_ns: int) -> None:
        self._turn_count += 1
        self._is_turn_active = True
        self._is_bot_speaking = False
        self._has_bot_spoken = False
        self._turn_start_ns = self._starts[self._turn_count] = now_ns
        self._starts.pop(self._turn_count - _STARTS_KEPT, None)
        logger.trace("turn started", observer=self.name, turn=self._turn_count)
        await self._call_event_handler("on_turn_started", self._turn_count)

    async def _end_turn(self, now_ns: int, *, was_interrupted: bool) -> None:
        if not self._is_turn_active:
            return
        self._is_turn_active = False
        duration_secs = (now_ns - self._turn_start_ns) / _NANOSECONDS
        logger.trace(
            "turn ended",
            observer=self.name,
            turn=self._turn_count,
            duration_secs=duration_secs,
            was_interrupted=was_interrupted,
        )
        await self._call_event_handler(
            "on_turn_ended", self._turn_count, duration_secs, was_interrupted
        )

    def _wait_for_silence(self, bot_stopped_ns: int) -> None:
        self._stop_waiting_for_silence()
        self._silence_timer = asyncio.create_task(
            self._end_turn_after_silence(bot_stopped_ns), name=f"{self.name}::silence"
        )

    def _stop_waiting_for_silence(self) -> asyncio.Task[None] | None:
        timer, self._silence_timer = self._silence_timer, None
        if timer is not None:
            timer.cancel()
        return timer

    async def _end_turn_after_silence(self, bot_stopped_ns: int) -> None:
        await asyncio.sleep(self._turn_end_timeout_secs)
        # From here on the turn is over: a cancel must not come between its state and its event.
        self._silence_timer = None
        await self._end_turn(bot_stopped_ns, was_interrupted=False)

    def _is_known(self, frame_id: int) -> bool:
        """Whether a frame was handled before; bounded to the last ``max_frames`` ids."""
        if frame_id in self._seen:
            return True
        self._seen.add(frame_id)
        self._seen_order.append(frame_id)
        if len(self._seen_order) > self._max_frames:
            self._seen.discard(self._seen_order.popleft())
        return False


_OBSERVED = (
    StartFrame,
    UserStartedSpeakingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    CancelFrame,
)
