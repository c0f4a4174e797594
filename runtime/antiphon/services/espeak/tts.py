"""Text to speech with eSpeak NG: local, small, a hundred languages, no download."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from pydantic import BaseModel, Field

from antiphon.audio.utils import create_stream_resampler
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
from antiphon.processors.relay import relayed
from antiphon.services.espeak._engine import SAMPLE_RATE_HZ, Request, Word, engine
from antiphon.services.tts_service import WordTTSService
from antiphon.transcriptions.language import Language
from antiphon.utils.time import nanoseconds_to_seconds

_DEFAULT_VOICE = "en-us"
_BYTES_PER_SEC = SAMPLE_RATE_HZ * 2
_FRAME_BYTES = _BYTES_PER_SEC // 5
# Makes the resampler let go of the last milliseconds.
_TAIL = bytes(_BYTES_PER_SEC // 50 // 2 * 2)
# More audio than any sentence has: the bound of what waits in memory.
_MAX_SECS = 600

_REGIONAL_VOICES = frozenset({"en-us", "en-gb", "fr-be", "fr-ch", "fr-fr", "pt-br"})
_VOICE_OF_LANGUAGE = {
    "zh": "cmn",
    "zh-cn": "cmn",
    "zh-tw": "cmn",
    "zh-hk": "yue",
    "no": "nb",
    "fr": "fr-fr",
    "pt-pt": "pt",
    "en": "en-us",
}
_LATIN_AMERICA = frozenset("ar bo cl co cr cu do ec gt hn mx ni pa pe pr py sv us uy ve".split())


class EspeakTTSService(WordTTSService):
    """Speaks with eSpeak NG, through the library and the voices of ``espeakng-loader``.

    It sounds like a machine, but it is intelligible, starts in milliseconds, and costs neither an
    account nor a network. All services of a process share one engine; a sentence takes it about a
    thousandth of the time that the sentence lasts.
    """

    class InputParams(BaseModel):
        """How to speak.

        Attributes:
            language: Chooses the voice, if none is named.
            rate: Words per minute.
            pitch: 0 to 100.
            volume: 0 to 200; 100 is normal.
        """

        language: Language | None = None
        rate: int | None = Field(default=None, ge=80, le=450)
        pitch: int | None = Field(default=None, ge=0, le=100)
        volume: int | None = Field(default=None, ge=0, le=200)

    def __init__(
        self,
        *,
        voice: str | None = None,
        sample_rate: int | None = None,
        params: InputParams | None = None,
        word_timestamps: bool = False,
        **kwargs: Any,
    ) -> None:
        """Makes a service; the engine starts with the pipeline.

        Args:
            voice: A voice or language code of eSpeak NG, like ``en-us`` or ``de+f3``; that of the
                language if left out. ``await EspeakTTSService.voices()`` lists them.
            sample_rate: Rate of the audio in Hz; the pipeline's output rate if left out.
            params: How to speak.
            word_timestamps: Push a TTSTextFrame a word, timed, instead of one a sentence.
            **kwargs: Passed on to ``WordTTSService``.
        """
        kwargs.setdefault("push_text_frames", not word_timestamps)
        super().__init__(sample_rate=sample_rate, **kwargs)
        params = params or EspeakTTSService.InputParams()
        language = params.language and self.language_to_service_language(params.language)
        self._settings = params.model_dump(exclude={"language"}) | {"language": language}
        self._voice_id = voice or language or _DEFAULT_VOICE
        self._word_timestamps = word_timestamps
        # End of the audio made so far, in seconds from the first word.
        self._spoken_secs = 0.0
        self._has_engine = False
        self.set_model_name("espeak-ng")

    def can_generate_metrics(self) -> bool:
        """Whether this service reports metrics: it does."""
        return True

    def language_to_service_language(self, language: Language) -> str | None:
        """Translates a language into the code of its voice."""
        code = str(language).lower()
        base, _, region = code.partition("-")
        if code in _VOICE_OF_LANGUAGE:
            return _VOICE_OF_LANGUAGE[code]
        if base == "es" and region in _LATIN_AMERICA:
            return "es-419"
        return code if code in _REGIONAL_VOICES else _VOICE_OF_LANGUAGE.get(base, base)

    @relayed
    async def set_language(self, language: Language) -> None:
        """Sets the language to speak, and with it the voice."""
        await self._update_settings({"language": language})

    async def _update_settings(self, settings: Any) -> None:
        checked = {k: v for k, v in settings.items() if k in {"rate", "pitch", "volume"}}
        EspeakTTSService.InputParams(**checked)
        await super()._update_settings(settings)
        if settings.get("language") and not {"voice", "voice_id"} & set(settings):
            self.set_voice(self._settings["language"])

    @staticmethod
    async def voices() -> list[str]:
        """Lists the voices, each as ``code: name``; both serve as ``voice``.

        Raises:
            ServiceError: The package is missing or incomplete.
        """
        ready = engine.acquire()
        try:
            await asyncio.wrap_future(ready)
            return await asyncio.wrap_future(engine.voices())
        finally:
            engine.release()

    async def start(self, frame: StartFrame) -> None:
        """Starts the engine.

        Raises:
            ServiceError: The package is missing or incomplete.
        """
        await super().start(frame)
        if not self._has_engine:
            ready = engine.acquire()
            self._has_engine = True
            await asyncio.wrap_future(ready)

    async def stop(self, frame: EndFrame) -> None:
        """Lets go of the engine."""
        await super().stop(frame)
        self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Lets go of the engine."""
        await super().cancel(frame)
        self._close()

    async def cleanup(self) -> None:
        """Lets go of the engine, if the service was neither stopped nor cancelled."""
        await super().cleanup()
        self._close()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Ends the words of an answer with the answer."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMFullResponseEndFrame) and self._word_timestamps:
            await self.add_word_timestamps([("Reset", 0)])
            self._spoken_secs = 0.0

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        await super()._handle_interruption(frame, direction)
        self._spoken_secs = 0.0

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Speaks a text. If this is closed early, the engine stops within 60 ms of audio.

        Args:
            text: A sentence or so.

        Yields:
            TTSStartedFrame, TTSAudioRawFrames as they are made, TTSStoppedFrame; before the last an
            ErrorFrame if the engine failed.
        """
        yield TTSStartedFrame()
        await self.start_ttfb_metrics()
        await self.start_tts_usage_metrics(text)
        resampler = create_stream_resampler()
        utterance = _Utterance(self._request(text), asyncio.get_running_loop())
        made = 0
        try:
            async with aclosing(utterance.pieces()) as pieces:
                async for audio, words in pieces:
                    if not made:
                        await self.stop_ttfb_metrics()
                        self._begin_words()
                    await self._push_words(utterance.spelled(words))
                    made += len(audio)
                    pcm = await resampler.resample(audio, SAMPLE_RATE_HZ, self.sample_rate)
                    if pcm:
                        yield TTSAudioRawFrame(pcm, self.sample_rate, 1)
            await self._push_words(utterance.spelled([], last=True))
            if self.sample_rate != SAMPLE_RATE_HZ:
                pcm = await resampler.resample(_TAIL, SAMPLE_RATE_HZ, self.sample_rate)
                yield TTSAudioRawFrame(pcm, self.sample_rate, 1)
        except ServiceError as error:
            yield ErrorFrame(str(error))
        finally:
            utterance.abort()
            self._spoken_secs += made / _BYTES_PER_SEC
        await self.stop_ttfb_metrics()
        yield TTSStoppedFrame()

    def _request(self, text: str) -> Request:
        return Request(
            text=text,
            voice=self._voice_id,
            rate=self._settings["rate"],
            pitch=self._settings["pitch"],
            volume=self._settings["volume"],
        )

    def _begin_words(self) -> None:
        """Settles when the words of this sentence begin: now, or behind the audio before it."""
        if not self._word_timestamps:
            return
        if self._initial_word_timestamp is None:
            self.start_word_timestamps()
            self._spoken_secs = 0.0
        elapsed = self.get_clock().get_time() - (self._initial_word_timestamp or 0)
        self._spoken_secs = max(self._spoken_secs, nanoseconds_to_seconds(elapsed))

    async def _push_words(self, words: list[tuple[str, float]]) -> None:
        if self._word_timestamps and words:
            await self.add_word_timestamps(
                [(word, self._spoken_secs + secs) for word, secs in words]
            )

    def _close(self) -> None:
        if self._has_engine:
            self._has_engine = False
            engine.release()


class _Utterance:
    """What the engine makes of one text, brought to the event loop.

    The engine never waits for the loop: it serves other sessions too. What it makes of one text is
    bounded by ``_MAX_SECS``.
    """

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        """Queues the text."""
        self._text = request.text
        self._loop = loop
        self._audio = bytearray()
        self._made = 0
        self._words: list[Word] = []
        self._pending: Word | None = None
        self._news = asyncio.Event()
        self._aborted = False
        self._done = asyncio.wrap_future(engine.speak(request, self._deliver), loop=loop)
        self._done.add_done_callback(self._end)

    def abort(self) -> None:
        """Stops the engine at its next piece of audio."""
        self._aborted = True
        self._done.cancel()

    def spelled(self, words: list[Word], *, last: bool = False) -> list[tuple[str, float]]:
        """Gives words their text, which ends where the next word begins.

        Args:
            words: The next words.
            last: Whether no more words follow; else the last one is kept back.
        """
        ends = [word for word in words if self._begins_word(word.start)]
        if last:
            ends.append(Word(len(self._text), 0.0))
        spelled = []
        for word in ends:
            if self._pending is not None and word.start > self._pending.start:
                text = self._text[self._pending.start : word.start].strip()
                if text:
                    spelled.append((text, self._pending.secs))
                self._pending = word
            elif self._pending is None:
                self._pending = word
        return spelled

    def _begins_word(self, index: int) -> bool:
        """Whether a word of the text begins here: the engine counts "$29.95" as several."""
        before = self._text[max(0, index - 1) : index]
        # Scripts without spaces between words: one event, one word.
        return not before or before.isspace() or before >= "\u2e80"

    async def pieces(self) -> AsyncGenerator[tuple[bytes, list[Word]], None]:
        """Yields audio in pieces of 0.2 s, each with the words that begin in it or before it."""
        while True:
            ended = self._done.done()
            while len(self._audio) >= _FRAME_BYTES or (ended and self._audio):
                audio = bytes(self._audio[:_FRAME_BYTES])
                del self._audio[:_FRAME_BYTES]
                words, self._words = self._words, []
                yield audio, words
            if ended:
                await self._done
                return
            await self._news.wait()
            self._news.clear()

    def _deliver(self, audio: bytes, words: list[Word]) -> bool:
        """Takes a piece on the engine's thread; False stops the engine."""
        self._made += len(audio)
        if self._made > _MAX_SECS * _BYTES_PER_SEC:
            raise ServiceError(f"a text makes more than {_MAX_SECS} s of speech", provider="espeak")
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._take, audio, words)
            return not self._aborted
        return False

    def _end(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled():
            # Seen, even if nobody is left to be told.
            done.exception()
        self._news.set()

    def _take(self, audio: bytes, words: list[Word]) -> None:
        self._audio += audio
        self._words += words
        self._news.set()
