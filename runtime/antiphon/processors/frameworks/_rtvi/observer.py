"""What happens in the pipeline, as messages to the client."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    MetricsFrame,
    TranscriptionFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import (
    LLMUsageMetricsData,
    ProcessingMetricsData,
    TTFBMetricsData,
    TTSUsageMetricsData,
)
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContextFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.frameworks._rtvi import messages as wire
from antiphon.processors.frameworks._rtvi.frames import (
    RTVIServerMessageFrame,
    RTVIServerResponseFrame,
)
from antiphon.utils.checks import check_instance
from antiphon.utils.string import match_endofsentence
from antiphon.utils.text.simple_text_aggregator import is_fragment

if TYPE_CHECKING:
    from antiphon.processors.frameworks._rtvi.processor import RTVIProcessor

SEEN_LIMIT = 4096
"""Frames that are remembered; one crosses its last hop long before so many others have passed."""


@dataclass
class RTVIObserverParams:
    """What the client is told of.

    Attributes:
        bot_llm_enabled: The language model's answers: beginning, tokens, sentences, end.
        bot_tts_enabled: Speech synthesis: beginning, text, end.
        bot_speaking_enabled: When the bot speaks.
        user_llm_enabled: What the language model gets as the user's message.
        user_speaking_enabled: When the user speaks.
        user_transcription_enabled: What the user says.
        metrics_enabled: Measurements.
        errors_enabled: Errors in the pipeline.
    """

    bot_llm_enabled: bool = True
    bot_tts_enabled: bool = True
    bot_speaking_enabled: bool = True
    user_llm_enabled: bool = True
    user_speaking_enabled: bool = True
    user_transcription_enabled: bool = True
    metrics_enabled: bool = True
    errors_enabled: bool = True


class RTVIObserver(BaseObserver):
    """Tells the client, through an ``RTVIProcessor``, what happens in the pipeline.

    Each frame makes one message, at its first hop; the text of speech synthesis when it leaves the
    output transport, which is when it is spoken.
    """

    def __init__(
        self, rtvi: RTVIProcessor, *, params: RTVIObserverParams | None = None, **kwargs: Any
    ) -> None:
        """Makes an observer.

        Args:
            rtvi: What sends the messages.
            params: What the client is told of; everything if None.
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        check_instance("RTVIObserver(rtvi)", rtvi, FrameProcessor)
        if params is not None:
            check_instance("RTVIObserver(params)", params, RTVIObserverParams)
        self._rtvi = rtvi
        self._params = params or RTVIObserverParams()
        # The part of an answer behind its last sentence: not longer than the answer.
        self._bot_transcription = ""
        self._frames_seen: dict[int, None] = {}
        # What is done with frames of a class; as many as there are classes.
        self._reactions: dict[type[Frame], _Reaction | None] = {}
        rtvi.set_errors_enabled(self._params.errors_enabled)

    async def on_push_frame(self, data: FramePushed) -> None:
        """Sends what a frame means to the client, once."""
        kind = type(data.frame)
        if kind not in self._reactions:
            self._reactions[kind] = self._reaction_to(kind)
        reaction = self._reactions[kind]
        if reaction is None:
            return
        if isinstance(data.frame, TTSTextFrame) and not _is_output_transport(data.source):
            return
        # The output transport pushes a pair of these, one in each direction.
        if (
            isinstance(data.frame, (BotStartedSpeakingFrame, BotStoppedSpeakingFrame))
            and data.direction is not FrameDirection.UPSTREAM
        ):
            return
        if self._is_new(data.frame):
            await reaction(self, data.frame)

    async def push_transport_message_urgent(
        self, model: BaseModel, exclude_none: bool = True
    ) -> None:
        """Sends a message to the client.

        Args:
            model: The message.
            exclude_none: Whether fields that are None are left out.
        """
        await self._rtvi._push_transport_message(model, exclude_none)

    def _is_new(self, frame: Frame) -> bool:
        """Whether a frame is seen for the first time; it counts as seen from now on."""
        if frame.id in self._frames_seen:
            return False
        self._frames_seen[frame.id] = None
        if len(self._frames_seen) > SEEN_LIMIT:
            del self._frames_seen[next(iter(self._frames_seen))]
        return True

    def _reaction_to(self, kind: type[Frame]) -> _Reaction | None:
        for kinds, switch, reaction in _REACTIONS:
            if issubclass(kind, kinds):
                enabled = switch is None or getattr(self._params, switch)
                return reaction if enabled else None
        return None

    # -- reactions -----------------------------------------------------------------------------

    async def _handle_interruptions(self, frame: Frame) -> None:
        started = isinstance(frame, UserStartedSpeakingFrame)
        await self.push_transport_message_urgent(
            wire.RTVIUserStartedSpeakingMessage()
            if started
            else wire.RTVIUserStoppedSpeakingMessage()
        )

    async def _handle_bot_speaking(self, frame: Frame) -> None:
        started = isinstance(frame, BotStartedSpeakingFrame)
        await self.push_transport_message_urgent(
            wire.RTVIBotStartedSpeakingMessage()
            if started
            else wire.RTVIBotStoppedSpeakingMessage()
        )

    async def _handle_user_transcriptions(
        self, frame: TranscriptionFrame | InterimTranscriptionFrame
    ) -> None:
        data = wire.RTVIUserTranscriptionMessageData(
            text=frame.text,
            user_id=frame.user_id,
            timestamp=frame.timestamp,
            final=isinstance(frame, TranscriptionFrame),
        )
        await self.push_transport_message_urgent(wire.RTVIUserTranscriptionMessage(data=data))

    async def _handle_context(self, frame: OpenAILLMContextFrame) -> None:
        messages = frame.context.messages
        text = _user_text(messages[-1]) if messages else ""
        if text:
            data = wire.RTVITextMessageData(text=text)
            await self.push_transport_message_urgent(wire.RTVIUserLLMTextMessage(data=data))

    async def _handle_llm_start(self, frame: Frame) -> None:
        self._bot_transcription = ""
        await self.push_transport_message_urgent(wire.RTVIBotLLMStartedMessage())

    async def _handle_llm_text_frame(self, frame: LLMTextFrame) -> None:
        data = wire.RTVITextMessageData(text=frame.text)
        await self.push_transport_message_urgent(wire.RTVIBotLLMTextMessage(data=data))
        self._bot_transcription += frame.text
        partial = is_fragment(frame.text)
        while end := match_endofsentence(self._bot_transcription, partial=partial):
            await self._push_bot_transcription(end)

    async def _handle_llm_end(self, frame: Frame) -> None:
        await self._push_bot_transcription(len(self._bot_transcription))
        await self.push_transport_message_urgent(wire.RTVIBotLLMStoppedMessage())

    async def _push_bot_transcription(self, end: int) -> None:
        """Sends the collected text up to an index."""
        text, self._bot_transcription = self._bot_transcription[:end], self._bot_transcription[end:]
        if text.strip():
            data = wire.RTVITextMessageData(text=text)
            await self.push_transport_message_urgent(wire.RTVIBotTranscriptionMessage(data=data))

    async def _handle_tts(self, frame: Frame) -> None:
        started = isinstance(frame, TTSStartedFrame)
        await self.push_transport_message_urgent(
            wire.RTVIBotTTSStartedMessage() if started else wire.RTVIBotTTSStoppedMessage()
        )

    async def _handle_tts_text(self, frame: TTSTextFrame) -> None:
        data = wire.RTVITextMessageData(text=frame.text)
        await self.push_transport_message_urgent(wire.RTVIBotTTSTextMessage(data=data))

    async def _handle_metrics(self, frame: MetricsFrame) -> None:
        lists: dict[str, list[dict[str, Any]]] = {}
        for item in frame.data:
            if isinstance(item, TTFBMetricsData):
                lists.setdefault("ttfb", []).append(item.model_dump(exclude_none=True))
            elif isinstance(item, ProcessingMetricsData):
                lists.setdefault("processing", []).append(item.model_dump(exclude_none=True))
            elif isinstance(item, LLMUsageMetricsData):
                lists.setdefault("tokens", []).append(item.value.model_dump(exclude_none=True))
            elif isinstance(item, TTSUsageMetricsData):
                lists.setdefault("characters", []).append(item.model_dump(exclude_none=True))
        if lists:
            await self.push_transport_message_urgent(wire.RTVIMetricsMessage(data=lists))

    async def _send_server_message(self, frame: RTVIServerMessageFrame) -> None:
        await self.push_transport_message_urgent(wire.RTVIServerMessage(data=frame.data))

    async def _send_server_response(self, frame: RTVIServerResponseFrame) -> None:
        if frame.error is not None:
            await self._send_error_response(frame)
            return
        data = wire.RTVIRawServerResponseData(t=frame.client_msg.type, d=frame.data)
        await self.push_transport_message_urgent(
            wire.RTVIServerResponse(id=frame.client_msg.msg_id, data=data)
        )

    async def _send_error_response(self, frame: RTVIServerResponseFrame) -> None:
        data = wire.RTVIErrorResponseData(error=frame.error or "")
        await self.push_transport_message_urgent(
            wire.RTVIErrorResponse(id=frame.client_msg.msg_id, data=data)
        )


def _is_output_transport(processor: FrameProcessor) -> bool:
    # Processors do not import transports. Where nobody has imported them, there is none.
    module = sys.modules.get("antiphon.transports.base_output")
    return module is not None and isinstance(processor, module.BaseOutputTransport)


def _user_text(message: Any) -> str:
    """The text of a message of the user; empty for other messages.

    Understands OpenAI's messages, as dictionaries or objects, and Google's, which have parts.
    """
    if _get(message, "role") != "user":
        return ""
    content = _get(message, "content")
    if content is None:
        content = _get(message, "parts")
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        return ""
    texts = [_get(part, "text") for part in content]
    return " ".join(text for text in texts if isinstance(text, str) and text)


def _get(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)


_Reaction = Callable[[RTVIObserver, Any], Awaitable[None]]

# Classes of frames, the switch that turns them off, and what is done with them.
_REACTIONS: tuple[tuple[type[Frame] | tuple[type[Frame], ...], str | None, _Reaction], ...] = (
    (
        (UserStartedSpeakingFrame, UserStoppedSpeakingFrame),
        "user_speaking_enabled",
        RTVIObserver._handle_interruptions,
    ),
    (
        (BotStartedSpeakingFrame, BotStoppedSpeakingFrame),
        "bot_speaking_enabled",
        RTVIObserver._handle_bot_speaking,
    ),
    (
        (TranscriptionFrame, InterimTranscriptionFrame),
        "user_transcription_enabled",
        RTVIObserver._handle_user_transcriptions,
    ),
    (OpenAILLMContextFrame, "user_llm_enabled", RTVIObserver._handle_context),
    (LLMFullResponseStartFrame, "bot_llm_enabled", RTVIObserver._handle_llm_start),
    (LLMTextFrame, "bot_llm_enabled", RTVIObserver._handle_llm_text_frame),
    (LLMFullResponseEndFrame, "bot_llm_enabled", RTVIObserver._handle_llm_end),
    ((TTSStartedFrame, TTSStoppedFrame), "bot_tts_enabled", RTVIObserver._handle_tts),
    (TTSTextFrame, "bot_tts_enabled", RTVIObserver._handle_tts_text),
    (MetricsFrame, "metrics_enabled", RTVIObserver._handle_metrics),
    (RTVIServerMessageFrame, None, RTVIObserver._send_server_message),
    (RTVIServerResponseFrame, None, RTVIObserver._send_server_response),
)
