"""Speech to text with PocketSphinx: local, small, English, no download."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from antiphon.audio.utils import create_file_resampler, unpack_wav
from antiphon.errors import ConfigError, ServiceError
from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    TranscriptionFrame,
)
from antiphon.processors.relay import relayed
from antiphon.services.pocketsphinx._decoder import SAMPLE_RATE_HZ, shared_decoder
from antiphon.services.stt_service import SegmentedSTTService
from antiphon.transcriptions.language import Language
from antiphon.utils.time import time_now_iso8601


class PocketSphinxSTTService(SegmentedSTTService):
    """Recognises US English with the model that comes with the ``pocketsphinx`` package.

    It understands clear, simple speech in a fifth of the time it lasts, on one core, with no
    account and no network: for demonstrations and tests. Needs voice activity detection in the
    pipeline.
    """

    def __init__(
        self,
        *,
        language: Language = Language.EN,
        sample_rate: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a service; the model is loaded at the start.

        Args:
            language: English, with any region.
            sample_rate: Rate in Hz of the audio it gets; the pipeline's input rate if left out.
            **kwargs: Passed on to ``SegmentedSTTService``.

        Raises:
            ConfigError: The language is not English.
        """
        super().__init__(sample_rate=sample_rate, **kwargs)
        _check_language(language)
        self._settings = {"language": Language(language)}
        self.set_model_name("en-us")
        self._resampler = create_file_resampler()
        self._has_decoder = False

    def can_generate_metrics(self) -> bool:
        """Whether this service reports metrics: it does."""
        return True

    @relayed
    async def set_language(self, language: Language) -> None:
        """Sets the language to recognise.

        Raises:
            ConfigError: The language is not English.
        """
        _check_language(language)
        self._settings["language"] = Language(language)

    async def start(self, frame: StartFrame) -> None:
        """Loads the model.

        Raises:
            ServiceError: The package is missing or incomplete.
        """
        await super().start(frame)
        if not self._has_decoder:
            self._has_decoder = True
            loaded = asyncio.wrap_future(shared_decoder.acquire())
            # Others may wait for the same model: giving up here does not stop it.
            await asyncio.shield(loaded)

    async def stop(self, frame: EndFrame) -> None:
        """Ends after the segments that still wait."""
        await super().stop(frame)
        self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Ends at once; a segment being recognised is finished unheard, in its thread."""
        await super().cancel(frame)
        self._close()

    async def cleanup(self) -> None:
        """Ends at once, if it was neither stopped nor cancelled."""
        await super().cleanup()
        self._close()

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Recognises one segment.

        Args:
            audio: A WAV file, mono, int16, any rate.

        Yields:
            A TranscriptionFrame, unless nothing was understood; an ErrorFrame if it failed.
        """
        await self.start_processing_metrics()
        await self.start_ttfb_metrics()
        pcm, rate = unpack_wav(audio)
        pcm = await self._resampler.resample(pcm, rate, SAMPLE_RATE_HZ)
        try:
            text = await asyncio.wrap_future(shared_decoder.submit(pcm))
        except ServiceError as error:
            yield ErrorFrame(str(error))
            return
        finally:
            await self.stop_ttfb_metrics()
            await self.stop_processing_metrics()
        if text:
            language: Language = self._settings["language"]
            yield TranscriptionFrame(text, self._user_id, time_now_iso8601(), language)

    def _close(self) -> None:
        if self._has_decoder:
            self._has_decoder = False
            shared_decoder.release()


def _check_language(language: Language) -> None:
    if str(language).split("-", 1)[0].lower() != "en":
        raise ConfigError(f"PocketSphinx understands English only, not {str(language)!r}")
