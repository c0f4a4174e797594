"""ElevenLabs over its websocket for several contexts."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from loguru import logger
from pydantic import BaseModel

from antiphon.errors import ServiceError
from antiphon.frames.frames import (
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    LLMFullResponseEndFrame,
    StartFrame,
    StartInterruptionFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services._vendor_errors import vendor_error
from antiphon.services.elevenlabs._protocol import (
    POLICY_VIOLATION,
    VENDOR,
    Speech,
    address,
    beginning,
    refusal,
    timed_characters,
)
from antiphon.services.elevenlabs._speech import (
    SpeechClock,
    build_elevenlabs_voice_settings,
    language_to_elevenlabs_language,
    relative_times,
    require_access,
    supported_rate,
)
from antiphon.services.tts_service import AudioContextWordTTSService
from antiphon.transcriptions.language import Language

_KEEPALIVE_SECS = 10.0
_OPEN_SECS = 10.0
_CLOSE_SECS = 2.0
# How long a sentence waits for a lost connection, or for the speech before a change of voice.
_WAIT_SECS = 15.0
# How long all of the audio of a text may be missing before the text is given up.
_SILENT_SECS = 15.0
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# At level DEBUG the library logs headers and messages: the key, and what is said.
_library_logger = logging.getLogger(f"{__name__}.connection")
_library_logger.setLevel(logging.INFO)


class ElevenLabsTTSService(AudioContextWordTTSService):
    """Speaks with ElevenLabs over a websocket, and knows when each word is spoken.

    An answer of the language model is one context at the vendor, so that its sentences sound like
    one speech. An interruption closes the contexts; audio of theirs that still comes is dropped.
    If the connection is lost, what was not yet spoken at all is sent again over the next one.

    Changes of voice, model, language and settings count from the next sentence on.

    Event ``on_connection_error(service, error)``: the connection was lost or refused.
    """

    class InputParams(BaseModel):
        """How to speak; what is None is left to the voice.

        Attributes:
            language: Language to speak, with models that can be told.
            stability: How even the voice is, 0.0 to 1.0. Set it together with the next.
            similarity_boost: How close to the original voice, 0.0 to 1.0.
            style: How pronounced the manner of the voice is, 0.0 to 1.0.
            use_speaker_boost: Whether to come closer to the speaker, which takes longer.
            speed: Rate of speech; 1.0 is normal.
            auto_mode: Make audio of each sentence at once, instead of collecting text.
            enable_ssml_parsing: Whether texts may hold SSML.
            enable_logging: Whether the vendor may keep texts and audio.
        """

        language: Language | None = None
        stability: float | None = None
        similarity_boost: float | None = None
        style: float | None = None
        use_speaker_boost: bool | None = None
        speed: float | None = None
        auto_mode: bool | None = True
        enable_ssml_parsing: bool | None = None
        enable_logging: bool | None = None

    def __init__(
        self,
        *,
        api_key: str,
        voice_id: str,
        model: str = "eleven_turbo_v2_5",
        url: str = "wss://api.elevenlabs.io",
        sample_rate: int | None = None,
        params: InputParams | None = None,
        aggregate_sentences: bool = True,
        **kwargs: Any,
    ) -> None:
        """Makes a service; it connects when the pipeline starts.

        Args:
            api_key: Key of the account.
            voice_id: Voice to speak with.
            model: Model to speak with.
            url: Address of the interface.
            sample_rate: Rate of the audio in Hz; the pipeline's output rate if left out. If the
                vendor does not make that rate, the audio has 24000 Hz.
            params: How to speak.
            aggregate_sentences: Speak whole sentences; else every piece of text as it comes.
            **kwargs: Passed on to ``AudioContextWordTTSService``.
        """
        super().__init__(
            aggregate_sentences=aggregate_sentences,
            push_text_frames=False,
            pause_frame_processing=True,
            sample_rate=sample_rate,
            **kwargs,
        )
        params = params or ElevenLabsTTSService.InputParams()
        language = params.language and self.language_to_service_language(params.language)
        self._api_key = api_key
        self._url = url
        self._voice_id = voice_id
        self._settings = params.model_dump(exclude={"language"}) | {"language": language}
        self.set_model_name(model)

        # In order of their beginning; until their last audio has been pushed.
        self._speeches: dict[str, Speech] = {}
        self._current: Speech | None = None
        self._no_speeches = asyncio.Event()
        self._no_speeches.set()
        # Characters whose first sound is in an audio frame that waits, by the frame's id.
        self._characters: dict[int, tuple[Speech, list[tuple[str, float]]]] = {}
        self._speech_clock = SpeechClock()
        # Whether audio was pushed that the end of the bot's speaking will follow.
        self._unheard = False

        self._connected_address = ""
        self._connection_settled = asyncio.Event()
        self._refused = False
        self._receive_task: asyncio.Task[Any] | None = None
        self._keepalive_task: asyncio.Task[Any] | None = None

    def can_generate_metrics(self) -> bool:
        """Whether this service reports metrics: it does."""
        return True

    def language_to_service_language(self, language: Language) -> str | None:
        """Translates a language into ElevenLabs' code; None if it speaks it with no model."""
        return language_to_elevenlabs_language(language)

    # -- life ----------------------------------------------------------------------------------

    async def start(self, frame: StartFrame) -> None:
        """Connects. If that fails it is reported, and tried again with the first sentence.

        Raises:
            ConfigError: There is no key or no voice.
        """
        await super().start(frame)
        require_access(self, self._api_key, self._voice_id)
        # The output transport resamples what the vendor does not make.
        self._sample_rate = supported_rate(self.sample_rate)
        try:
            await self._connect()
        except ServiceError as error:
            await self._report_error(ErrorFrame(str(error)))

    async def stop(self, frame: EndFrame) -> None:
        """Disconnects after what still has to be said."""
        await super().stop(frame)
        await self._disconnect()

    async def cancel(self, frame: CancelFrame) -> None:
        """Disconnects at once."""
        await super().cancel(frame)
        await self._disconnect()

    async def cleanup(self) -> None:
        """Disconnects, if it was neither stopped nor cancelled."""
        await self._disconnect()
        await super().cleanup()

    # -- text ----------------------------------------------------------------------------------

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Sends a text; its audio comes by itself.

        Args:
            text: A sentence or so.

        Yields:
            None, or an ErrorFrame if there is no connection.
        """
        try:
            await self._send_text(text)
        except ServiceError as error:
            # No end of speaking will come that could end a pause.
            self._processing_text = False
            if self._current is not None and not self._current.texts:
                await self._finish(self._current)
            yield ErrorFrame(str(error))
            return
        await self.start_tts_usage_metrics(text)
        yield None

    async def flush_audio(self) -> None:
        """Says that the text in progress is complete: all its audio comes, and then an end."""
        speech, self._current = self._current, None
        if speech is None:
            return
        speech.closed_at = time.monotonic()
        if self._is_open():
            await self._send_end(speech)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Ends the answer with its last word."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMFullResponseEndFrame):
            if self._speeches:
                next(reversed(self._speeches.values())).ends_answers += 1
            else:
                await self._end_answer()
        elif isinstance(frame, BotStoppedSpeakingFrame):
            self._unheard = False

    async def _end_answer(self) -> None:
        await self.add_word_timestamps([("LLMFullResponseEndFrame", 0)])
        self.reset_word_timestamps()

    async def _send_text(self, text: str) -> None:
        """Sends a text into the context in progress, or a new one.

        Raises:
            ServiceError: There is no connection.
        """
        from websockets.exceptions import ConnectionClosed

        if self._aggregate_sentences:
            text = f"{text.strip()} "
        for _ in range(2):
            await self._ensure_connected()
            speech = await self._speech_for_text()
            message = {"text": text, "context_id": speech.context_id}
            try:
                if not speech.texts and not speech.has_audio:
                    await self._send(beginning(speech))
                await self._send(message)
            except ConnectionClosed:
                # The rest of the speech goes on in the next round, on the next connection.
                continue
            if not speech.has_audio:
                speech.texts.append(text)
            return
        raise vendor_error(VENDOR, reason="the connection is lost again and again")

    async def _speech_for_text(self) -> Speech:
        voice = build_elevenlabs_voice_settings(self._settings)
        if self._current is not None and self._current.voice != voice:
            # A context keeps the settings it was begun with.
            await self.flush_audio()
        if self._current is None:
            self._current = Speech(str(uuid.uuid4()), voice)
            self._speeches[self._current.context_id] = self._current
            self._no_speeches.clear()
            await self.start_ttfb_metrics()
            await self._open_audio(self._current)
        return self._current

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        from websockets.exceptions import ConnectionClosed

        await super()._handle_interruption(frame, direction)
        speeches, self._speeches = self._speeches, {}
        self._current = None
        self._no_speeches.set()
        self._characters.clear()
        self._speech_clock.reset()
        self._unheard = False
        for speech in speeches.values():
            if speech.closed_at is not None or not self._is_open():
                continue
            try:
                await self._send({"context_id": speech.context_id, "close_context": True})
            except ConnectionClosed:
                return  # the contexts went with it

    # -- audio ---------------------------------------------------------------------------------

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes a frame; audio with the words that begin in it."""
        if isinstance(frame, TTSAudioRawFrame) and direction is FrameDirection.DOWNSTREAM:
            self._unheard = True
            begin_ns = self._speech_clock.begin(self.get_clock().get_time())
            self._speech_clock.add(len(frame.audio), frame.sample_rate)
            if frame.id in self._characters:
                speech, characters = self._characters.pop(frame.id)
                await self._push_words(speech.words.feed(characters, begin_ns))
        await super().push_frame(frame, direction)

    async def _push_words(self, words: list[tuple[str, int]]) -> None:
        if not words:
            return
        if self._initial_word_timestamp is None:
            self._initial_word_timestamp = words[0][1]
        await self.add_word_timestamps(relative_times(words, self._initial_word_timestamp))

    async def _open_audio(self, speech: Speech) -> None:
        await self.create_audio_context(speech.context_id)
        if not speech.playing:
            speech.playing = True
            await self.append_to_audio_context(speech.context_id, TTSStartedFrame())

    async def _audio_context_ended(self, context_id: str) -> None:
        speech = self._speeches.get(context_id)
        if speech is None:
            return
        late = not speech.final and speech.closed_at is not None
        if late and not speech.has_audio:
            assert speech.closed_at is not None
            if time.monotonic() - speech.closed_at < _SILENT_SECS:
                await self._open_audio(speech)
                return
            logger.error("no audio came for a text", processor=self.name)
            await self.push_error(ErrorFrame(f"{VENDOR} sent no audio for a text"))
        await self._push_words(speech.words.finish())
        if speech.playing:
            speech.playing = False
            await self.push_frame(TTSStoppedFrame())
        if not speech.final and not late:
            return  # the language model has not gone on for a while
        self._speeches.pop(context_id, None)
        if not self._speeches:
            self._no_speeches.set()
        for _ in range(speech.ends_answers):
            await self._end_answer()
        if not self._unheard:
            # Nothing was said that could end: do not wait for it.
            await self._maybe_resume_frame_processing()

    async def _take_message(self, message: Mapping[str, Any]) -> None:
        if message.get("error"):
            self._refused = True
            await self._report_error(ErrorFrame(str(refusal(message["error"]))))
        context_id = message.get("contextId") or message.get("context_id")
        speech = self._speeches.get(str(context_id))
        if speech is None:
            return  # of a context that was interrupted
        alignment = message.get("alignment") or message.get("normalizedAlignment")
        if alignment:
            speech.characters += timed_characters(alignment)
        if message.get("audio"):
            await self._take_audio(speech, base64.b64decode(message["audio"]))
        if message.get("isFinal") or message.get("is_final"):
            await self._finish(speech)

    async def _take_audio(self, speech: Speech, audio: bytes) -> None:
        self._refused = False
        if not speech.has_audio:
            speech.has_audio = True
            speech.texts.clear()
            await self.stop_ttfb_metrics()
            if self._speeches.get(speech.context_id) is not speech:
                return  # interrupted meanwhile
        if not self.audio_context_available(speech.context_id):
            await self._open_audio(speech)
        audio = speech.odd + audio
        even = len(audio) & ~1
        audio, speech.odd = audio[:even], audio[even:]
        frame = TTSAudioRawFrame(audio, self.sample_rate, 1)
        if speech.characters:
            self._characters[frame.id] = (speech, speech.characters)
            speech.characters = []
        await self.append_to_audio_context(speech.context_id, frame)

    async def _finish(self, speech: Speech) -> None:
        """Lets a speech end behind the audio that has come."""
        if speech.final:
            return
        speech.final = True
        if speech is self._current:
            self._current = None
        if self.audio_context_available(speech.context_id):
            await self.remove_audio_context(speech.context_id)
        else:
            await self._audio_context_ended(speech.context_id)

    # -- connection ----------------------------------------------------------------------------

    def _address(self) -> str:
        return address(self._url, self._voice_id, self.model_name, self.sample_rate, self._settings)

    def _is_open(self) -> bool:
        if self._websocket is None:
            return False
        from websockets.protocol import State

        return bool(self._websocket.state is State.OPEN)

    async def _ensure_connected(self) -> None:
        """Waits for, or makes, a connection with the present voice, model and language.

        Raises:
            ServiceError: There is none.
        """
        if self._connected_address and self._address() != self._connected_address:
            await self.flush_audio()
            try:
                async with asyncio.timeout(_WAIT_SECS):
                    await self._no_speeches.wait()
            except TimeoutError:
                logger.warning("speech cut off by a change of settings", processor=self.name)
            await self._disconnect()
        if self._is_open():
            return
        if self._receive_task is not None and not self._receive_task.done():
            await self._wait_for_reconnection()
        if not self._is_open():
            await self._disconnect()
            await self._connect()

    async def _wait_for_reconnection(self) -> None:
        self._connection_settled.clear()
        try:
            async with asyncio.timeout(_WAIT_SECS):
                await self._connection_settled.wait()
        except TimeoutError:
            raise vendor_error(VENDOR, reason="the connection is lost") from None

    async def _connect(self) -> None:
        await self._connect_websocket()
        if self._receive_task is None or self._receive_task.done():
            self._receive_task = self.create_task(self._receive(), "receive")
        if self._keepalive_task is None:
            self._keepalive_task = self.create_task(self._keep_alive(), "keepalive")

    async def _disconnect(self) -> None:
        receive, self._receive_task = self._receive_task, None
        keepalive, self._keepalive_task = self._keepalive_task, None
        for task in (receive, keepalive):
            if task is not None:
                await self.cancel_task(task)
        await self._disconnect_websocket()
        self._connected_address = ""

    async def _connect_websocket(self) -> None:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, WebSocketException

        wanted = self._address()
        self._refused = False
        try:
            self._websocket = await connect(
                wanted,
                additional_headers={"xi-api-key": self._api_key},
                max_size=_MAX_MESSAGE_BYTES,
                open_timeout=_OPEN_SECS,
                close_timeout=_CLOSE_SECS,
                logger=_library_logger,
            )
            self._connected_address = wanted
            await self._resume_speeches()
        except InvalidStatus as error:
            raise vendor_error(VENDOR, status=error.response.status_code) from None
        except (OSError, TimeoutError, WebSocketException) as error:
            raise vendor_error(VENDOR, reason=type(error).__name__) from error
        self._connection_settled.set()

    async def _disconnect_websocket(self) -> None:
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            # Ends by close_timeout at the latest.
            await websocket.close()

    async def _resume_speeches(self) -> None:
        """Says again on a new connection what was not heard at all; the rest has to end."""
        for speech in list(self._speeches.values()):
            if speech.final:
                continue
            if speech.has_audio:
                await self._finish(speech)
                continue
            if not speech.texts:
                continue  # about to be begun
            await self._send(beginning(speech))
            for text in speech.texts:
                await self._send({"text": text, "context_id": speech.context_id})
            if speech.closed_at is not None:
                speech.closed_at = time.monotonic()
                await self._send_end(speech)

    async def _receive(self) -> None:
        try:
            await self._receive_task_handler(self._report_error)
            # Not connected any more, and not for long, or for good.
            for speech in list(self._speeches.values()):
                await self._finish(speech)
        finally:
            self._connection_settled.set()

    async def _receive_messages(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            async for message in self._websocket:
                await self._take_message(json.loads(message))
        except ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd is not None else None
            if code != POLICY_VIOLATION and not self._refused:
                raise
            if not self._refused:
                self._refused = True
                await self._report_error(ErrorFrame(str(refusal(None))))
        if self._refused:
            # Another connection would be refused as well; the next text tries.
            await self._disconnect_websocket()

    async def _keep_alive(self) -> None:
        from websockets.exceptions import ConnectionClosed

        while True:
            await asyncio.sleep(_KEEPALIVE_SECS)
            await self._give_up_late_speeches()
            if not self._is_open():
                continue
            message = {"text": ""}
            if self._current is not None:
                message["context_id"] = self._current.context_id
            try:
                await self._send(message)
            except ConnectionClosed:
                logger.debug("keepalive not sent", processor=self.name)

    async def _give_up_late_speeches(self) -> None:
        """Ends speeches whose end the vendor has forgotten to send."""
        now = time.monotonic()
        for speech in list(self._speeches.values()):
            waits = self.audio_context_available(speech.context_id) or speech.closed_at is None
            if not waits and now - (speech.closed_at or now) > _SILENT_SECS:
                await self._finish(speech)

    async def _send(self, message: Mapping[str, Any]) -> None:
        # A peer that takes nothing is found out by the library's pings.
        await self._websocket.send(json.dumps(message))

    async def _send_end(self, speech: Speech) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._send({"context_id": speech.context_id, "flush": True})
            await self._send({"context_id": speech.context_id, "close_context": True})
        except ConnectionClosed:
            # The next connection gets the text and its end, if nothing was heard of it.
            logger.debug("end of a text not sent", processor=self.name)
