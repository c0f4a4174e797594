"""Not listening to the user for a while."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from loguru import logger

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    StartFrame,
    StartInterruptionFrame,
    StopInterruptionFrame,
    STTMuteFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.running_calls import RunningCalls
from antiphon.utils.checks import check_callable, check_instance

_SUPPRESSED = (
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    StartInterruptionFrame,
    StopInterruptionFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)

# After each of these it is decided anew.
_DECISIVE = (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    StartFrame,
)


class STTMuteStrategy(Enum):
    """When the user is not listened to.

    Attributes:
        FIRST_SPEECH: While the bot speaks for the first time.
        MUTE_UNTIL_FIRST_BOT_COMPLETE: From the start until the bot has spoken for the first time.
        FUNCTION_CALL: While a function call runs.
        ALWAYS: While the bot speaks.
        CUSTOM: While the bot speaks, if a function of the bot says so.
    """

    FIRST_SPEECH = "first_speech"
    MUTE_UNTIL_FIRST_BOT_COMPLETE = "mute_until_first_bot_complete"
    FUNCTION_CALL = "function_call"
    ALWAYS = "always"
    CUSTOM = "custom"


def _check_strategies(strategies: Any) -> None:
    if isinstance(strategies, str) or not isinstance(strategies, Iterable):
        raise TypeError(
            f"STTMuteConfig(strategies) must be a set of STTMuteStrategy, not {strategies!r}"
        )
    for strategy in strategies:
        if not isinstance(strategy, STTMuteStrategy):
            raise ValueError(
                f"STTMuteConfig(strategies): {strategy!r} is no strategy; there are "
                + ", ".join(f"STTMuteStrategy.{one.name}" for one in STTMuteStrategy)
            )


@dataclass
class STTMuteConfig:
    """When an STTMuteFilter mutes.

    Attributes:
        strategies: The strategies; any one of them mutes.
        should_mute_callback: Asked by CUSTOM: ``await callback(filter)`` while the bot speaks.

    Raises:
        ValueError: If two strategies contradict each other, or CUSTOM has nobody to ask.
    """

    strategies: set[STTMuteStrategy]
    should_mute_callback: Callable[[STTMuteFilter], Awaitable[bool]] | None = None

    def __post_init__(self) -> None:
        _check_strategies(self.strategies)
        if self.should_mute_callback is not None:
            check_callable(
                "STTMuteConfig(should_mute_callback)", self.should_mute_callback, "stt_mute_filter"
            )
        if {
            STTMuteStrategy.FIRST_SPEECH,
            STTMuteStrategy.MUTE_UNTIL_FIRST_BOT_COMPLETE,
        } <= set(self.strategies):
            raise ValueError(
                "FIRST_SPEECH and MUTE_UNTIL_FIRST_BOT_COMPLETE treat the bot's first speech "
                "differently: use one of them"
            )
        if STTMuteStrategy.CUSTOM in self.strategies and self.should_mute_callback is None:
            raise ValueError("the strategy CUSTOM needs a should_mute_callback")


class STTMuteFilter(FrameProcessor):
    """Keeps from the rest of the pipeline, at certain times, that the user speaks.

    While muted, the user's audio, transcriptions, speaking frames and interruptions are dropped. An
    STTMuteFrame goes in both directions each time that muting begins or ends, behind the frame
    that gave rise to it. It belongs between the STT service and the user's context aggregator.
    """

    movable: ClassVar[bool] = True

    def __init__(self, *, config: STTMuteConfig, stt_service: Any = None, **kwargs: Any) -> None:
        """Makes the filter.

        Args:
            config: When to mute.
            stt_service: Without effect, and deprecated.
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        if stt_service is not None:
            warnings.warn(
                "STTMuteFilter no longer needs stt_service", DeprecationWarning, stacklevel=2
            )
        check_instance("STTMuteFilter(config)", config, STTMuteConfig)
        self._config = config
        self._is_muted = False
        self._bot_is_speaking = False
        self._bot_has_spoken = False
        self._calls = RunningCalls()

    @property
    def is_muted(self) -> bool:
        """Whether the user is not listened to at present."""
        return self._is_muted

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Drops what the user says while muted, and decides whether to be muted."""
        await super().process_frame(frame, direction)

        if self._is_muted and isinstance(frame, _SUPPRESSED):
            logger.trace("user input suppressed", processor=self.name, frame=frame.name)
            return
        await self.push_frame(frame, direction)
        self._follow(frame)
        if isinstance(frame, _DECISIVE):
            await self._mute(await self._should_mute())

    def _follow(self, frame: Frame) -> None:
        if isinstance(frame, StartFrame):
            self._bot_is_speaking = self._bot_has_spoken = False
            self._calls.clear()
        elif isinstance(frame, BotStartedSpeakingFrame):
            self._bot_is_speaking = True
        elif isinstance(frame, BotStoppedSpeakingFrame):
            if self._bot_is_speaking:
                self._bot_has_spoken = True
            self._bot_is_speaking = False
        else:
            self._calls.follow(frame)

    async def _should_mute(self) -> bool:
        strategies = self._config.strategies
        if STTMuteStrategy.ALWAYS in strategies and self._bot_is_speaking:
            return True
        if STTMuteStrategy.FUNCTION_CALL in strategies and self._calls:
            return True
        if not self._bot_has_spoken and (
            STTMuteStrategy.MUTE_UNTIL_FIRST_BOT_COMPLETE in strategies
            or (STTMuteStrategy.FIRST_SPEECH in strategies and self._bot_is_speaking)
        ):
            return True
        callback = self._config.should_mute_callback
        if STTMuteStrategy.CUSTOM in strategies and self._bot_is_speaking and callback:
            answer: Any = callback(self)
            return bool(await answer if inspect.isawaitable(answer) else answer)
        return False

    async def _mute(self, mute: bool) -> None:
        if mute == self._is_muted:
            return
        self._is_muted = mute
        logger.debug("user input muted" if mute else "user input unmuted", processor=self.name)
        await self.push_frame(STTMuteFrame(mute=mute))
        await self.push_frame(STTMuteFrame(mute=mute), FrameDirection.UPSTREAM)
