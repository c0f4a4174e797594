"""ElevenLabs over HTTP, a request a sentence.

The protocol: https://elevenlabs.io/docs/api-reference/text-to-speech/stream-with-timestamps
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import BaseModel

from antiphon.errors import ServiceError
from antiphon.frames.frames import (
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
from antiphon.services.elevenlabs._speech import (
    MULTILINGUAL_MODELS,
    SpeechClock,
    SpokenWords,
    build_elevenlabs_voice_settings,
    language_to_elevenlabs_language,
    output_format_from_sample_rate,
    relative_times,
    require_access,
    supported_rate,
)
from antiphon.services.tts_service import WordTTSService
from antiphon.transcriptions.language import Language

if TYPE_CHECKING:
    import aiohttp

_VENDOR = "ElevenLabs"
_CONNECT_SECS = 10.0
_READ_SECS = 30.0
_MAX_LINE_BYTES = 16 * 1024 * 1024


class ElevenLabsHttpTTSService(WordTTSService):
    """Speaks with ElevenLabs over HTTP, a request a sentence, and knows when each word is spoken.

    Simpler than ``ElevenLabsTTSService``, and slower by a request for each sentence. An
    interruption breaks the request off.
    """

    class InputParams(BaseModel):
        """How to speak; what is None is left to the voice.

        Attributes:
            language: Language to speak, with models that can be told.
            optimize_streaming_latency: 0 to 4: how much quality to give for speed.
            stability: How even the voice is, 0.0 to 1.0. Set it together with the next.
            similarity_boost: How close to the original voice, 0.0 to 1.0.
            style: How pronounced the manner of the voice is, 0.0 to 1.0.
            use_speaker_boost: Whether to come closer to the speaker, which takes longer.
            speed: Rate of speech; 1.0 is normal.
        """

        language: Language | None = None
        optimize_streaming_latency: int | None = None
        stability: float | None = None
        similarity_boost: float | None = None
        style: float | None = None
        use_speaker_boost: bool | None = None
        speed: float | None = None

    def __init__(
        self,
        *,
        api_key: str,
        voice_id: str,
        aiohttp_session: aiohttp.ClientSession | None = None,
        model: str = "eleven_turbo_v2_5",
        base_url: str = "https://api.elevenlabs.io",
        sample_rate: int | None = None,
        params: InputParams | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            api_key: Key of the account.
            voice_id: Voice to speak with.
            aiohttp_session: Makes the requests, and stays the caller's. Left out, the service makes
                one of its own when it starts; only then can it run in another process.
            model: Model to speak with.
            base_url: Address of the interface.
            sample_rate: Rate of the audio in Hz; the pipeline's output rate if left out. If the
                vendor does not make that rate, the audio has 24000 Hz.
            params: How to speak.
            **kwargs: Passed on to ``WordTTSService``.
        """
        super().__init__(push_text_frames=False, sample_rate=sample_rate, **kwargs)
        params = params or ElevenLabsHttpTTSService.InputParams()
        language = params.language and self.language_to_service_language(params.language)
        self._api_key = api_key
        self._base_url = base_url
        self._voice_id = voice_id
        self._settings = params.model_dump(exclude={"language"}) | {"language": language}
        self._given_session = aiohttp_session
        self._own_session: aiohttp.ClientSession | None = None
        self._speech_clock = SpeechClock()
        # What the answer has said so far: the next sentence goes on in its tone.
        self._previous_text = ""
        self.set_model_name(model)

    def can_generate_metrics(self) -> bool:
        """Whether this service reports metrics: it does."""
        return True

    def language_to_service_language(self, language: Language) -> str | None:
        """Translates a language into ElevenLabs' code; None if it speaks it with no model."""
        return language_to_elevenlabs_language(language)

    async def start(self, frame: StartFrame) -> None:
        """Settles the rate.

        Raises:
            ConfigError: There is no key or no voice.
        """
        await super().start(frame)
        require_access(self, self._api_key, self._voice_id)
        # The output transport resamples what the vendor does not make.
        self._sample_rate = supported_rate(self.sample_rate)

    async def stop(self, frame: EndFrame) -> None:
        """Closes the service's own connections."""
        await super().stop(frame)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Closes the service's own connections."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """Closes the service's own connections."""
        await self._close()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Ends the words of an answer with the answer."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMFullResponseEndFrame):
            self._previous_text = ""
            await self.add_word_timestamps([("LLMFullResponseEndFrame", 0)])
            self.reset_word_timestamps()

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        await super()._handle_interruption(frame, direction)
        self._previous_text = ""
        self._speech_clock.reset()

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Speaks a text. If this is closed early, so is the request.

        Args:
            text: A sentence or so.

        Yields:
            TTSStartedFrame, TTSAudioRawFrames as they come, TTSStoppedFrame; an ErrorFrame if the
            request failed.
        """
        words = SpokenWords()
        begin_ns: int | None = None
        odd = b""
        await self.start_ttfb_metrics()
        await self.start_tts_usage_metrics(text)
        try:
            async with aclosing(self._request(text)) as messages:
                async for message in messages:
                    audio = odd + base64.b64decode(message.get("audio_base64") or "")
                    even = len(audio) & ~1
                    audio, odd = audio[:even], audio[even:]
                    if begin_ns is None:
                        await self.stop_ttfb_metrics()
                        begin_ns = self._speech_clock.begin(self.get_clock().get_time())
                        yield TTSStartedFrame()
                    alignment = message.get("alignment") or message.get("normalized_alignment")
                    if alignment:
                        await self._push_words(words.feed(_characters(alignment), begin_ns))
                    if audio:
                        self._speech_clock.add(len(audio), self.sample_rate)
                        yield TTSAudioRawFrame(audio, self.sample_rate, 1)
            await self._push_words(words.finish())
            self._previous_text += f"{text} "
        except ServiceError as error:
            yield ErrorFrame(str(error))
        finally:
            await self.stop_ttfb_metrics()
        if begin_ns is not None:
            yield TTSStoppedFrame()

    async def _push_words(self, words: list[tuple[str, int]]) -> None:
        if not words:
            return
        if self._initial_word_timestamp is None:
            self._initial_word_timestamp = words[0][1]
        await self.add_word_timestamps(relative_times(words, self._initial_word_timestamp))

    async def _request(self, text: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yields the parts of the answer.

        Raises:
            ServiceError: The vendor refused, or the connection failed.
        """
        import aiohttp

        settings = self._settings
        body: dict[str, Any] = {"text": text, "model_id": self.model_name}
        if self._previous_text:
            body["previous_text"] = self._previous_text
        if voice := build_elevenlabs_voice_settings(settings):
            body["voice_settings"] = voice
        if settings["language"] and self.model_name in MULTILINGUAL_MODELS:
            body["language_code"] = settings["language"]
        query = {"output_format": output_format_from_sample_rate(self.sample_rate)}
        if settings["optimize_streaming_latency"] is not None:
            query["optimize_streaming_latency"] = str(settings["optimize_streaming_latency"])
        voice_id = quote(self._voice_id, safe="")
        try:
            async with self._session().post(
                f"{self._base_url}/v1/text-to-speech/{voice_id}/stream/with-timestamps",
                params=query,
                json=body,
                headers={"xi-api-key": self._api_key},
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=_CONNECT_SECS, sock_read=_READ_SECS
                ),
            ) as response:
                if response.status != 200:
                    raise vendor_error(
                        _VENDOR,
                        status=response.status,
                        code=_code(await response.read()),
                        retry_after=response.headers.get("retry-after"),
                    )
                async with aclosing(_lines(response.content)) as lines:
                    async for line in lines:
                        yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise vendor_error(_VENDOR, reason=type(error).__name__) from error

    def _session(self) -> aiohttp.ClientSession:
        if self._given_session is not None:
            return self._given_session
        if self._own_session is None:
            import aiohttp

            self._own_session = aiohttp.ClientSession()
        return self._own_session

    async def _close(self) -> None:
        session, self._own_session = self._own_session, None
        if session is not None:
            await session.close()


def _characters(alignment: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Characters with their times in seconds, from the beginning of the answer."""
    starts = alignment.get("character_start_times_seconds") or []
    return list(zip(alignment.get("characters") or [], starts, strict=False))


def _code(body: bytes) -> object:
    """The vendor's short code out of an error's body."""
    try:
        detail = json.loads(body)["detail"]
        return detail["status"]
    except (ValueError, KeyError, TypeError):
        return None


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Splits an answer in lines; a line holds a second of audio or more."""
    rest = bytearray()
    async for piece in content.iter_any():
        rest += piece
        *lines, last = rest.split(b"\n")
        for line in lines:
            if line.strip():
                yield bytes(line)
        rest = bytearray(last)
        if len(rest) > _MAX_LINE_BYTES:
            raise ValueError("a line is too long")
    if rest.strip():
        yield bytes(rest)
