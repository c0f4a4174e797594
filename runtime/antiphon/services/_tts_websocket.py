"""Text-to-speech services over a websocket."""

from __future__ import annotations

import asyncio
from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    StartInterruptionFrame,
    TTSAudioRawFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services._tts_base import TTSService
from antiphon.services._tts_word import WordTTSService
from antiphon.services.websocket_service import WebsocketService

# An audio context that gets nothing for so long is taken for finished.
_CONTEXT_TIMEOUT_SECS = 3.0
# Between two contexts, so that sentences do not run into each other.
_CONTEXT_GAP_SECS = 0.5
# Frames of a context whose turn has not come. A full one holds its websocket back, not the memory.
_MAX_CONTEXT_FRAMES = 2048
# How long stop() lets the last words arrive.
_STOP_SECS = 60.0


class _Connected(TTSService, WebsocketService):
    """What speaks over a websocket and tells when the connection is lost."""

    _one_receiver = True

    async def _report_error(self, error: ErrorFrame) -> None:
        await self._call_event_handler("on_connection_error", error.error)
        await self.push_error(error)


class _InterruptedByReconnecting(_Connected):
    """A service that connects again where it cannot be interrupted otherwise."""

    def __init__(self, **kwargs: Any) -> None:
        """Makes a service that is not connected.

        Args:
            **kwargs: Passed on to the service that this is mixed into.
        """
        super().__init__(**kwargs)
        self._bot_speaking = False

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        # Also before the bot speaks: what was asked for would come and be taken for the next answer.
        audio_may_come = self._bot_speaking or self._answering
        await super()._handle_interruption(frame, direction)
        if audio_may_come:
            await self._disconnect()
            await self._connect()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Keeps track of whether the bot speaks."""
        await super().process_frame(frame, direction)
        self._bot_speaking = _speaks(frame, self._bot_speaking)


class WebsocketTTSService(_Connected):
    """A service that speaks over a websocket.

    Event ``on_connection_error(service, error)``: the connection was lost; ``error`` is the text.
    """

    def __init__(self, *, reconnect_on_error: bool = True, **kwargs: Any) -> None:
        """Makes a service that is not connected.

        Args:
            reconnect_on_error: Whether to connect again after an error.
            **kwargs: Passed on to ``TTSService``.
        """
        TTSService.__init__(self, **kwargs)
        WebsocketService.__init__(self, reconnect_on_error=reconnect_on_error)
        self._register_event_handler("on_connection_error")


class InterruptibleTTSService(_InterruptedByReconnecting, WebsocketTTSService):
    """A websocket service without a way to interrupt it but to connect again."""


class WebsocketWordTTSService(WordTTSService, _Connected):
    """A service that speaks over a websocket and times its words.

    Event ``on_connection_error(service, error)``: the connection was lost; ``error`` is the text.
    """

    def __init__(self, *, reconnect_on_error: bool = True, **kwargs: Any) -> None:
        """Makes a service that is not connected.

        Args:
            reconnect_on_error: Whether to connect again after an error.
            **kwargs: Passed on to ``WordTTSService``.
        """
        WordTTSService.__init__(self, **kwargs)
        WebsocketService.__init__(self, reconnect_on_error=reconnect_on_error)
        self._register_event_handler("on_connection_error")


class InterruptibleWordTTSService(_InterruptedByReconnecting, WebsocketWordTTSService):
    """A websocket service with word times and no way to interrupt it but to connect again."""


class AudioContextWordTTSService(WebsocketWordTTSService):
    """A websocket service that makes several pieces of speech at once, each with a context id.

    The contexts are played in the order of their creation, however their audio arrives.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Makes a service that is not connected.

        Args:
            **kwargs: Passed on to ``WebsocketWordTTSService``.
        """
        super().__init__(**kwargs)
        # In order of creation; None in a queue ends its context.
        self._contexts: dict[str, asyncio.Queue[Frame | None]] = {}
        self._context_added = asyncio.Event()
        self._audio_context_task: asyncio.Task[Any] | None = None
        self._stopping = False

    async def create_audio_context(self, context_id: str) -> None:
        """Begins a context; its audio plays after that of the contexts before it."""
        self._contexts[context_id] = asyncio.Queue(_MAX_CONTEXT_FRAMES)
        self._context_added.set()

    async def append_to_audio_context(self, context_id: str, frame: Frame) -> None:
        """Adds audio, or what belongs to it, to a context; waits while that holds too much."""
        queue = self._contexts.get(context_id)
        if queue is None:
            logger.warning("audio of an unknown context dropped", processor=self.name)
            return
        await queue.put(frame)

    async def remove_audio_context(self, context_id: str) -> None:
        """Says that a context is complete; it ends when its audio has been pushed."""
        queue = self._contexts.get(context_id)
        if queue is None:
            logger.warning("unknown audio context not removed", processor=self.name)
            return
        await queue.put(None)

    def audio_context_available(self, context_id: str) -> bool:
        """Whether a context exists and is not finished."""
        return context_id in self._contexts

    async def start(self, frame: StartFrame) -> None:
        """Begins to push the contexts' audio."""
        await super().start(frame)
        self._stopping = False
        self._create_audio_context_task()

    async def stop(self, frame: EndFrame) -> None:
        """Ends after the contexts that still play."""
        self._stopping = True
        self._context_added.set()
        if self._audio_context_task is not None:
            await self.wait_for_task(self._audio_context_task, _STOP_SECS)
        await self._stop_audio_context_task()
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Ends at once."""
        await self._stop_audio_context_task()
        await super().cancel(frame)

    async def cleanup(self) -> None:
        """Ends at once, if it was neither stopped nor cancelled."""
        await self._stop_audio_context_task()
        await super().cleanup()

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        await super()._handle_interruption(frame, direction)
        await self._stop_audio_context_task()
        self._create_audio_context_task()

    def _create_audio_context_task(self) -> None:
        if self._audio_context_task is None:
            self._contexts = {}
            self._context_added.clear()
            self._audio_context_task = self.create_task(self._play_contexts(), "audio_contexts")

    async def _stop_audio_context_task(self) -> None:
        if self._audio_context_task is not None:
            task, self._audio_context_task = self._audio_context_task, None
            await self.cancel_task(task)
        # A receiver that waits to add to a full context must not wait for ever.
        for queue in self._contexts.values():
            while not queue.empty():
                queue.get_nowait()
        self._contexts = {}

    async def _play_contexts(self) -> None:
        while True:
            while self._contexts:
                context_id = next(iter(self._contexts))
                try:
                    has_audio = await self._play_context(self._contexts[context_id])
                finally:
                    self._contexts.pop(context_id, None)
                await self._audio_context_ended(context_id)
                if has_audio:
                    await self.push_frame(self._silence(_CONTEXT_GAP_SECS))
            if self._stopping:
                return
            self._context_added.clear()
            await self._context_added.wait()

    async def _audio_context_ended(self, context_id: str) -> None:
        """Called when a context is complete, or got nothing for a while; for subclasses."""

    async def _play_context(self, queue: asyncio.Queue[Frame | None]) -> bool:
        """Pushes a context to its end; returns whether there was audio."""
        has_audio = False
        while True:
            try:
                async with asyncio.timeout(_CONTEXT_TIMEOUT_SECS):
                    frame = await queue.get()
            except TimeoutError:
                logger.debug("audio context ended for want of audio", processor=self.name)
                return has_audio
            if frame is None:
                return has_audio
            has_audio = has_audio or isinstance(frame, TTSAudioRawFrame)
            await self.push_frame(frame)


def _speaks(frame: Frame, before: bool) -> bool:
    if isinstance(frame, BotStartedSpeakingFrame):
        return True
    if isinstance(frame, BotStoppedSpeakingFrame):
        return False
    return before
