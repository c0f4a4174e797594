"""Speech to text through OpenAI's transcription interface, which others offer too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    TranscriptionFrame,
)
from antiphon.processors.relay import relayed
from antiphon.services.openai._speech import (
    close_client,
    load_sdk,
    make_client,
    require_sdk,
    service_error,
)
from antiphon.services.stt_service import SegmentedSTTService
from antiphon.transcriptions.language import Language
from antiphon.utils.time import time_now_iso8601

_LANGUAGES = frozenset(
    """
    af ar az be bg bs ca cs cy da de el en es et fa fi fr gl he hi hr hu hy id is it ja kk kn ko lt
    lv mi mk mr ms ne nl no pl pt ro ru sk sl sr sv sw ta th tl tr uk ur vi zh
    """.split()
)


def language_to_whisper_language(language: Language) -> str | None:
    """Translates a language, with or without a region, into Whisper's code.

    Returns:
        The code, or None if Whisper does not know the language.
    """
    base = str(language).split("-", 1)[0].lower()
    return base if base in _LANGUAGES else None


class BaseWhisperSTTService(SegmentedSTTService):
    """Recognises stretches of speech by sending each as a WAV file.

    Subclasses for other vendors give their ``base_url``, or override ``_transcribe``.
    """

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        language: Language | None = Language.EN,
        prompt: str | None = None,
        temperature: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a service; the client is made when the pipeline starts.

        Args:
            model: Model to recognise with.
            api_key: Key of the account; from ``OPENAI_API_KEY`` if left out.
            base_url: Address of the service; OpenAI's if left out.
            language: Language that is spoken; None lets the model find out.
            prompt: Words and manner to expect.
            temperature: Randomness, 0.0 to 1.0.
            **kwargs: Passed on to ``SegmentedSTTService``.

        Raises:
            ConfigError: The ``openai`` package is not installed.
        """
        require_sdk()
        super().__init__(**kwargs)
        self._client_arguments = (api_key, base_url)
        self._client: Any = None
        self._spoken: Language | None = Language(language) if language else None
        self._settings = {"prompt": prompt, "temperature": temperature}
        self.set_model_name(model)

    def can_generate_metrics(self) -> bool:
        """Whether this service reports metrics: it does."""
        return True

    def language_to_service_language(self, language: Language) -> str | None:
        """Translates a language into Whisper's code; None if it does not know it."""
        return language_to_whisper_language(language)

    @relayed
    async def set_language(self, language: Language) -> None:
        """Sets the language that is spoken, from the next segment on."""
        self._spoken = Language(language)

    async def start(self, frame: StartFrame) -> None:
        """Imports the SDK and makes the client.

        Raises:
            ConfigError: There is no key.
        """
        await super().start(frame)
        if self._client is None:
            await load_sdk()
            self._client = self._create_client(*self._client_arguments)

    async def stop(self, frame: EndFrame) -> None:
        """Closes the connections, after the segments that still wait."""
        await super().stop(frame)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Ends at once; the request in progress is broken off."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """Ends at once, if it was neither stopped nor cancelled."""
        await super().cleanup()
        await self._close()

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Recognises one segment.

        Args:
            audio: A WAV file, mono, int16.

        Yields:
            A TranscriptionFrame, unless nothing was understood; an ErrorFrame if it failed.
        """
        await self.start_processing_metrics()
        await self.start_ttfb_metrics()
        try:
            text = (await self._transcribe(audio)).text.strip()
        except Exception as error:
            failure = service_error(error)
            if failure is None:
                raise
            yield ErrorFrame(str(failure))
            return
        finally:
            await self.stop_ttfb_metrics()
            await self.stop_processing_metrics()
        if text:
            yield TranscriptionFrame(text, self._user_id, time_now_iso8601(), self._spoken)
        else:
            logger.debug("nothing understood", processor=self.name)

    async def _transcribe(self, audio: bytes) -> Any:
        """Sends one segment; returns an object with ``text``."""
        request = {name: value for name, value in self._settings.items() if value is not None}
        language = self._spoken and self.language_to_service_language(self._spoken)
        if language:
            request["language"] = language
        return await self._client.audio.transcriptions.create(
            file=("audio.wav", audio, "audio/wav"), model=self.model_name, **request
        )

    def _create_client(self, api_key: str | None, base_url: str | None) -> Any:
        return make_client(self.name, api_key, base_url)

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await close_client(client, self.name)
