"""The user's half of a context aggregator."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from antiphon.frames.frames import (
    BotInterruptionFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EmulateUserStartedSpeakingFrame,
    EmulateUserStoppedSpeakingFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    SpeechControlParamsFrame,
    StartFrame,
    StartInterruptionFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.aggregators._base import LLMContextResponseAggregator, messages_frame
from antiphon.processors.aggregators._quiet_timer import QuietTimer
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection

if TYPE_CHECKING:
    from antiphon.audio.turn.smart_turn.base_smart_turn import SmartTurnParams
    from antiphon.audio.vad.vad_analyzer import VADParams


@dataclass
class LLMUserAggregatorParams:
    """Settings of the user's half.

    Attributes:
        aggregation_timeout: Seconds to wait for further transcriptions after the last news once
            the user is quiet.
        turn_emulated_vad_timeout: Seconds of quiet that end speech the VAD did not notice, where a
            turn analyzer is used or nothing is known about the VAD.
        enable_emulated_vad_interruptions: Whether speech the VAD did not notice may interrupt the
            bot; it is ignored while the bot speaks otherwise.
    """

    aggregation_timeout: float = 0.5
    turn_emulated_vad_timeout: float = 0.8
    enable_emulated_vad_interruptions: bool = False


class LLMUserContextAggregator(LLMContextResponseAggregator):
    """Makes user messages out of transcriptions and asks the model to answer them.

    A message is finished when the user stops speaking, or, with a transcription still to come,
    when none has come for a while. Text that arrives although nobody was heard to speak (a short
    or quiet utterance the VAD missed) is treated as speech: the input transport is told so.
    """

    def __init__(
        self,
        context: OpenAILLMContext,
        *,
        params: LLMUserAggregatorParams | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes the user's half.

        Args:
            context: The conversation.
            params: Settings.
            **kwargs: Passed on to ``FrameProcessor``. ``aggregation_timeout`` here is deprecated.
        """
        super().__init__(context=context, role="user", **kwargs)
        self._params = params or LLMUserAggregatorParams()
        if "aggregation_timeout" in kwargs:
            warnings.warn(
                "aggregation_timeout is deprecated, use LLMUserAggregatorParams",
                DeprecationWarning,
                stacklevel=2,
            )
            self._params = replace(self._params, aggregation_timeout=kwargs["aggregation_timeout"])
        self._vad_params: VADParams | None = None
        self._turn_params: SmartTurnParams | None = None

        self._user_speaking = False
        self._bot_speaking = False
        self._emulating_vad = False
        # An interim transcription promises a final one.
        self._seen_interim_results = False
        # Speech was heard whose text has not been pushed yet.
        self._waiting_for_aggregation = False

        self._quiet = QuietTimer(self._on_quiet)
        self._quiet_task: asyncio.Task[Any] | None = None

    @property
    def is_user_speaking(self) -> bool:
        """Whether the user speaks, as far as is known here."""
        return self._user_speaking

    @property
    def is_listening(self) -> bool:
        """Whether the user has said something, or is saying it, that is in no message yet."""
        return self._user_speaking or self._waiting_for_aggregation or bool(self._aggregation)

    def get_context_frame(self) -> OpenAILLMContextFrame:
        """A new frame that asks the model to answer the conversation as it is."""
        self._ask()
        return super().get_context_frame()

    async def reset(self) -> None:
        """Forgets the text collected so far and what the interruption strategies know."""
        await super().reset()
        self._seen_interim_results = False
        self._waiting_for_aggregation = False
        for strategy in self.interruption_strategies:
            await strategy.reset()

    async def cleanup(self) -> None:
        """Ends the timer."""
        await self._stop_timer()
        await super().cleanup()

    async def handle_aggregation(self, aggregation: str) -> None:
        """Adds the user's message to the conversation."""
        self._context.add_message({"role": self.role, "content": aggregation})

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Collects transcriptions, follows who speaks, and passes everything else on."""
        await super().process_frame(frame, direction)

        if isinstance(frame, TranscriptionFrame):
            await self._handle_transcription(frame)
        elif isinstance(frame, InterimTranscriptionFrame):
            self._seen_interim_results = True
        elif await self._edit_context(frame, FrameDirection.DOWNSTREAM):
            pass
        elif isinstance(frame, (EndFrame, UserStoppedSpeakingFrame)):
            # First the fact that the user is quiet, then the message that follows from it.
            await self.push_frame(frame, direction)
            await self._note(frame)
        else:
            await self._note(frame)
            await self.push_frame(frame, direction)

    async def push_aggregation(self) -> None:
        """Finishes the user's message, unless the bot speaks and is not to be interrupted."""
        if not self._aggregation:
            return
        if self.interruption_strategies and self._bot_speaking:
            if not await self._should_interrupt():
                await self.reset()
                return
            await self.push_frame(BotInterruptionFrame(), FrameDirection.UPSTREAM)
        await self._process_aggregation()

    async def _process_aggregation(self) -> None:
        aggregation = self._aggregation
        await self.reset()
        await self.handle_aggregation(aggregation)
        self._context.pending_answers.user_has_spoken()
        await self.push_context_frame()

    async def _note(self, frame: Frame) -> None:
        """Takes in what a frame that goes on says."""
        if isinstance(frame, InputAudioRawFrame):
            for strategy in self.interruption_strategies:
                await strategy.append_audio(frame.audio, frame.sample_rate)
        elif isinstance(frame, UserStartedSpeakingFrame):
            self._user_speaking = True
            self._waiting_for_aggregation = True
            if not frame.emulated:
                self._emulating_vad = False
            self._changed()
        elif isinstance(frame, UserStoppedSpeakingFrame):
            self._user_speaking = False
            self._changed()
            if self._seen_interim_results:
                self._quiet.restart(self._params.aggregation_timeout)
            else:
                await self.push_aggregation()
        elif isinstance(frame, BotStartedSpeakingFrame):
            self._bot_speaking = True
        elif isinstance(frame, BotStoppedSpeakingFrame):
            self._bot_speaking = False
        elif isinstance(frame, OpenAILLMContextFrame):
            if frame.context is self._context:
                self._context.pending_answers.seen()
        elif isinstance(frame, StartInterruptionFrame):
            self._context.pending_answers.cancelled()
            self._changed()
        elif isinstance(frame, SpeechControlParamsFrame):
            self._vad_params = frame.vad_params
            self._turn_params = frame.turn_params
        elif isinstance(frame, StartFrame):
            if self._quiet_task is None:
                self._quiet_task = self.create_task(self._quiet.run(), "quiet_timer")
        elif isinstance(frame, (EndFrame, CancelFrame)):
            await self._stop_timer()

    async def _handle_transcription(self, frame: TranscriptionFrame) -> None:
        text = frame.text
        if not text.strip():
            return
        self._aggregation += f" {text}" if self._aggregation else text
        self._seen_interim_results = False

        if self._user_speaking or self._waiting_for_aggregation:
            self._quiet.restart(self._quiet_secs())
        elif self._bot_speaking and not self._params.enable_emulated_vad_interruptions:
            await self.reset()
        else:
            self._emulating_vad = True
            self._quiet.restart(self._quiet_secs())
            await self.push_frame(EmulateUserStartedSpeakingFrame(), FrameDirection.UPSTREAM)

    def _quiet_secs(self) -> float:
        """How long after the last text the user is taken to have finished."""
        if not self._emulating_vad:
            return self._params.aggregation_timeout
        # With a turn analyzer the VAD's own pause is set very short, to cut speech into pieces.
        if self._turn_params is not None or self._vad_params is None:
            return self._params.turn_emulated_vad_timeout
        return self._vad_params.stop_secs

    async def _on_quiet(self) -> None:
        if not self._user_speaking:
            await self.push_aggregation()
        if self._emulating_vad:
            self._emulating_vad = False
            await self.push_frame(EmulateUserStoppedSpeakingFrame(), FrameDirection.UPSTREAM)

    async def _should_interrupt(self) -> bool:
        verdicts = []
        for strategy in self.interruption_strategies:
            await strategy.append_text(self._aggregation)
            verdicts.append(await strategy.should_interrupt())
        return any(verdicts)

    async def _stop_timer(self) -> None:
        self._quiet.stop()
        if self._quiet_task is not None:
            task, self._quiet_task = self._quiet_task, None
            await self.cancel_task(task)


class LLMUserResponseAggregator(LLMUserContextAggregator):
    """A user's half that pushes plain ``LLMMessagesFrame``s; kept for older programs."""

    def __init__(
        self,
        messages: list[Any] | None = None,
        *,
        params: LLMUserAggregatorParams | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes the user's half of a list of messages.

        Args:
            messages: The conversation so far; the list is kept and appended to.
            params: Settings.
            **kwargs: Passed on to ``FrameProcessor``.
        """
        super().__init__(context=OpenAILLMContext(messages), params=params, **kwargs)

    async def _process_aggregation(self) -> None:
        aggregation = self._aggregation
        await self.reset()
        await self.handle_aggregation(aggregation)
        self._context.pending_answers.user_has_spoken()
        self._ask()
        await self.push_frame(messages_frame(self._context.messages))
