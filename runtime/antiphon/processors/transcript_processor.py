"""What was said, by whom and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from antiphon.frames.frames import (
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    StartInterruptionFrame,
    TranscriptionFrame,
    TranscriptionMessage,
    TranscriptionUpdateFrame,
    TTSTextFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.heard_text import heard_text
from antiphon.utils.time import time_now_iso8601

Handler = TypeVar("Handler", bound=Callable[..., Any])


class BaseTranscriptProcessor(FrameProcessor):
    """Tells of new messages.

    Events:
        on_transcript_update(processor, frame): frame is a TranscriptionUpdateFrame with the new
            messages. The same frame goes downstream.
    """

    movable: ClassVar[bool] = True

    def __init__(self, **kwargs: Any) -> None:
        """Makes the processor.

        Args:
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        self._register_event_handler("on_transcript_update")

    async def _emit_update(self, messages: list[TranscriptionMessage]) -> None:
        update = TranscriptionUpdateFrame(messages=messages)
        await self._call_event_handler("on_transcript_update", update)
        await self.push_frame(update)


class UserTranscriptProcessor(BaseTranscriptProcessor):
    """Makes a message of each of the user's transcriptions, and passes every frame on."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Tells of the transcription before it is passed on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            await self._emit_update(
                [
                    TranscriptionMessage(
                        role="user",
                        content=frame.text,
                        user_id=frame.user_id,
                        timestamp=frame.timestamp,
                    )
                ]
            )
        await self.push_frame(frame, direction)


class AssistantTranscriptProcessor(BaseTranscriptProcessor):
    """Makes a message of what the bot has said without a pause, and passes every frame on.

    The message is complete when the bot stops speaking, when it is interrupted, and when the
    pipeline ends. Behind the output transport it has only what was really spoken.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Makes the processor.

        Args:
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        # One utterance; an utterance ends.
        self._parts: list[str] = []
        self._began: str | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Collects what is spoken; every frame is passed on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSTextFrame):
            self._began = self._began or time_now_iso8601()
            self._parts.append(frame.text)
        elif isinstance(frame, StartInterruptionFrame) and (heard := heard_text(frame)):
            self._began = self._began or time_now_iso8601()
            self._parts.append(heard)
        elif isinstance(frame, EndFrame):
            await self._emit_collected()
        await self.push_frame(frame, direction)
        if isinstance(frame, (BotStoppedSpeakingFrame, StartInterruptionFrame, CancelFrame)):
            # Not before an interruption, which makes others drop what waits.
            await self._emit_collected()

    async def _emit_collected(self) -> None:
        parts, self._parts = self._parts, []
        began, self._began = self._began, None
        content = _joined(parts).strip()
        if content:
            await self._emit_update(
                [TranscriptionMessage(role="assistant", content=content, timestamp=began)]
            )


def _joined(parts: list[str]) -> str:
    # Some services send words, others pieces of text that bring their own spaces.
    spaced = any(part[:1].isspace() or part[-1:].isspace() for part in parts)
    return ("" if spaced else " ").join(parts)


class TranscriptProcessor:
    """Makes the two processors of a conversation's transcript, with event handlers for both."""

    def __init__(self) -> None:
        """Makes neither yet."""
        self._user: UserTranscriptProcessor | None = None
        self._assistant: AssistantTranscriptProcessor | None = None
        self._handlers: list[tuple[str, Callable[..., Any]]] = []

    def user(self, **kwargs: Any) -> UserTranscriptProcessor:
        """The processor of the user's words, always the same one.

        Args:
            **kwargs: Passed to its constructor by the first call.
        """
        if self._user is None:
            self._user = UserTranscriptProcessor(**kwargs)
            self._equip(self._user)
        return self._user

    def assistant(self, **kwargs: Any) -> AssistantTranscriptProcessor:
        """The processor of the bot's words, always the same one.

        Args:
            **kwargs: Passed to its constructor by the first call.
        """
        if self._assistant is None:
            self._assistant = AssistantTranscriptProcessor(**kwargs)
            self._equip(self._assistant)
        return self._assistant

    def event_handler(self, event_name: str) -> Callable[[Handler], Handler]:
        """Registers the decorated function for an event of both, also if they are made later."""

        def decorator(handler: Handler) -> Handler:
            self._handlers.append((event_name, handler))
            for processor in (self._user, self._assistant):
                if processor is not None:
                    processor.add_event_handler(event_name, handler)
            return handler

        return decorator

    def _equip(self, processor: BaseTranscriptProcessor) -> None:
        for event_name, handler in self._handlers:
            processor.add_event_handler(event_name, handler)
