from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    StartFrame,
    StopFrame,
    TextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.observers.base_observer import FramePushed
from antiphon.observers.turn_tracking_observer import TurnTrackingObserver
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.testing.virtual_time import VirtualClock

pytestmark = pytest.mark.virtual_time

_TIMEOUT_SECS = 2.5


class Conversation:
    """Plays a conversation to an observer and keeps what it says."""

    def __init__(self) -> None:
        self.observer = TurnTrackingObserver(turn_end_timeout_secs=_TIMEOUT_SECS)
        self.events: list[tuple[object, ...]] = []
        self._clock = VirtualClock()
        self._clock.start()
        self._source, self._destination = FrameProcessor(), FrameProcessor()
        self.observer.add_event_handler("on_turn_started", self._on_turn_started)
        self.observer.add_event_handler("on_turn_ended", self._on_turn_ended)

    async def _on_turn_started(self, observer: TurnTrackingObserver, turn: int) -> None:
        assert observer is self.observer
        self.events.append(("started", turn))

    async def _on_turn_ended(
        self, observer: TurnTrackingObserver, turn: int, duration: float, interrupted: bool
    ) -> None:
        self.events.append(("ended", turn, round(duration, 3), interrupted))

    async def play(self, *steps: Frame | type[Frame] | float) -> list[tuple[object, ...]]:
        """Pushes frames over two hops each; numbers are seconds of waiting."""
        for step in steps:
            if isinstance(step, int | float):
                await asyncio.sleep(step)
                continue
            frame = step() if isinstance(step, type) else step
            for _ in range(2):
                await self.push(frame)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.events

    async def push(self, frame: Frame) -> None:
        await self.observer.on_push_frame(
            FramePushed(
                source=self._source,
                destination=self._destination,
                frame=frame,
                direction=FrameDirection.DOWNSTREAM,
                timestamp=self._clock.get_time(),
            )
        )


@pytest.fixture
async def conversation() -> AsyncIterator[Conversation]:
    conversation = Conversation()
    yield conversation
    await conversation.observer.cleanup()


async def test_the_first_turn_starts_with_the_pipeline_once(conversation: Conversation) -> None:
    assert await conversation.play(StartFrame, StartFrame, 1.0) == [("started", 1)]


async def test_silence_after_the_bot_ends_a_turn(conversation: Conversation) -> None:
    events = await conversation.play(
        StartFrame, 1.0, UserStartedSpeakingFrame, UserStoppedSpeakingFrame, 1.0,
        BotStartedSpeakingFrame, 2.0, BotStoppedSpeakingFrame, 2.4,
    )  # fmt: skip
    assert events == [("started", 1)]
    # The duration ends with the bot's last word: the wait is not part of the turn.
    assert await conversation.play(0.2) == [("started", 1), ("ended", 1, 4.0, False)]
    assert await conversation.play(60.0, UserStartedSpeakingFrame) == [
        ("started", 1),
        ("ended", 1, 4.0, False),
        ("started", 2),
    ]


async def test_a_user_who_speaks_after_the_bot_begins_the_next_turn(
    conversation: Conversation,
) -> None:
    events = await conversation.play(
        StartFrame, BotStartedSpeakingFrame, 1.0, BotStoppedSpeakingFrame, 1.0,
        UserStartedSpeakingFrame, 60.0,
    )  # fmt: skip
    assert events == [("started", 1), ("ended", 1, 2.0, False), ("started", 2)]


async def test_a_user_who_speaks_over_the_bot_interrupts_the_turn(
    conversation: Conversation,
) -> None:
    events = await conversation.play(
        StartFrame, BotStartedSpeakingFrame, 1.0, UserStartedSpeakingFrame,
        # The bot falls silent only now; that is no end of the user's new turn.
        BotStoppedSpeakingFrame, 60.0, UserStartedSpeakingFrame, 1.0,
    )  # fmt: skip
    assert events == [("started", 1), ("ended", 1, 1.0, True), ("started", 2)]


async def test_a_user_who_pauses_before_the_answer_stays_in_the_turn(
    conversation: Conversation,
) -> None:
    events = await conversation.play(
        StartFrame, UserStartedSpeakingFrame, 1.0, UserStoppedSpeakingFrame, 60.0,
        UserStartedSpeakingFrame, 1.0,
    )  # fmt: skip
    assert events == [("started", 1)]


async def test_a_bot_that_goes_on_in_time_stays_in_the_turn(conversation: Conversation) -> None:
    events = await conversation.play(
        StartFrame, BotStartedSpeakingFrame, 1.0, BotStoppedSpeakingFrame, 2.0,
        BotStartedSpeakingFrame, 60.0, BotStoppedSpeakingFrame, 2.0,
    )  # fmt: skip
    assert events == [("started", 1)]
    assert (await conversation.play(1.0))[1:] == [("ended", 1, 63.0, False)]


async def test_a_bot_that_stops_twice_does_not_put_off_the_end(conversation: Conversation) -> None:
    # The frame is pushed in both directions, as two frames.
    events = await conversation.play(
        StartFrame, BotStartedSpeakingFrame, 1.0, BotStoppedSpeakingFrame, 2.0,
        BotStoppedSpeakingFrame, 0.6,
    )  # fmt: skip
    assert events[1:] == [("ended", 1, 1.0, False)]


async def test_a_bot_that_speaks_between_turns_starts_none(conversation: Conversation) -> None:
    events = await conversation.play(
        StartFrame, BotStartedSpeakingFrame, BotStoppedSpeakingFrame, 60.0,
        BotStartedSpeakingFrame, 1.0, UserStartedSpeakingFrame,
    )  # fmt: skip
    assert events == [("started", 1), ("ended", 1, 0.0, False), ("started", 2)]


async def test_a_user_can_speak_before_the_pipeline_starts(conversation: Conversation) -> None:
    assert await conversation.play(UserStartedSpeakingFrame, StartFrame) == [("started", 1)]


@pytest.mark.parametrize("last", [EndFrame, CancelFrame])
async def test_the_end_of_the_pipeline_interrupts_the_turn(
    last: type[Frame], conversation: Conversation
) -> None:
    events = await conversation.play(StartFrame, 3.0, last, last, 60.0)
    assert events == [("started", 1), ("ended", 1, 3.0, True)]


async def test_the_end_of_the_pipeline_ends_no_turn_that_has_ended(
    conversation: Conversation,
) -> None:
    events = await conversation.play(
        StartFrame, BotStartedSpeakingFrame, BotStoppedSpeakingFrame, 60.0, EndFrame
    )
    assert events == [("started", 1), ("ended", 1, 0.0, False)]


async def test_other_frames_change_nothing(conversation: Conversation) -> None:
    assert await conversation.play(TextFrame("hello"), StopFrame, 60.0) == []


async def test_cleanup_stops_waiting_and_waits_for_handlers(conversation: Conversation) -> None:
    await conversation.play(StartFrame, BotStartedSpeakingFrame, BotStoppedSpeakingFrame)
    await conversation.observer.cleanup()
    assert await conversation.play(60.0) == [("started", 1)]


async def test_only_the_last_frames_are_remembered() -> None:
    conversation = Conversation()
    conversation.observer = TurnTrackingObserver(max_frames=2)
    first = BotStartedSpeakingFrame()
    await conversation.push(first)
    for _ in range(1000):
        await conversation.push(UserStartedSpeakingFrame())
    assert len(conversation.observer._seen) == 2
    assert first.id not in conversation.observer._seen
    await conversation.observer.cleanup()
