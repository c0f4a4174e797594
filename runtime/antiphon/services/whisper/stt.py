"""Speech to text with Whisper models on one's own machines."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator
from enum import Enum
from typing import Any

from loguru import logger

from antiphon.audio.utils import create_file_resampler, unpack_wav
from antiphon.errors import ConfigError, ServiceError
from antiphon.frames.frames import (
    AudioRawFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterimTranscriptionFrame,
    StartFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.models.client import ModelClient
from antiphon.models.model import ModelSpec
from antiphon.models.provider import connect_model
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.relay import relayed
from antiphon.services._shared_models import ask_patiently
from antiphon.services.stt_service import SegmentedSTTService
from antiphon.services.whisper._engine import Answer, Request, whisper_spec
from antiphon.services.whisper._interim import InterimPace
from antiphon.services.whisper._mlx import MLXWhisper
from antiphon.services.whisper._names import MLXModel, Model
from antiphon.services.whisper._windows import SAMPLE_RATE_HZ
from antiphon.services.whisper.base_stt import language_to_whisper_language
from antiphon.transcriptions.language import Language
from antiphon.utils.checks import check_number
from antiphon.utils.time import time_now_iso8601

__all__ = [
    "MLXModel",
    "Model",
    "WhisperSTTService",
    "WhisperSTTServiceMLX",
    "language_to_whisper_language",
]

# A large model on a CPU may be slower than speech; a conversation waits no longer than this.
_DEADLINE_SECS = 60.0
_INTERIM_DEADLINE_SECS = 3.0
_PATIENCE_SECS = 10.0
_SAMPLE_BYTES = 2


class WhisperSTTService(SegmentedSTTService):
    """Recognises stretches of speech with a Whisper model on this machine or cluster.

    Needs voice activity detection in the pipeline. All services with the same model, device and compute
    type share it: what their users say at the same time is transcribed in batches. The model is
    downloaded at its first use.
    """

    _package = "faster_whisper"
    _extra = "whisper"

    def __init__(
        self,
        *,
        model: str | Model = Model.DISTIL_MEDIUM_EN,
        device: str = "auto",
        compute_type: str = "default",
        no_speech_prob: float = 0.4,
        language: Language | None = Language.EN,
        interim_results: bool = False,
        cpu_threads: int = 0,
        **kwargs: Any,
    ) -> None:
        """Makes a service; the model is loaded at the start.

        Args:
            model: A `Model`, a size ("small.en", ...), a repository of the hub with a model in
                CTranslate2's form, or a folder with one.
            device: ``cpu``, ``cuda``, or ``auto`` for the GPU if there is one.
            compute_type: How CTranslate2 computes: ``default``, ``int8`` (twice as quick on a CPU),
                ``float16``, ``int8_float16``, ...
            no_speech_prob: What is at least this likely to be no speech is left out.
            language: Language that is spoken; None lets the model find out, segment by segment.
            interim_results: Push InterimTranscriptionFrames while the user speaks. Everything said so
                far is transcribed again and again, so this takes several times the work; if the model
                does not keep up, they end by themselves.
            cpu_threads: Threads of the model on a CPU; 0 for what ``OMP_NUM_THREADS`` says, or one per
                core. In an actor without reserved CPUs Ray sets it to 1.
            **kwargs: Passed on to ``SegmentedSTTService``.

        Raises:
            ConfigError: The package ``faster-whisper`` is not installed.
        """
        self._require_package()
        check_number(f"{type(self).__name__}(no_speech_prob)", no_speech_prob, at_least=0)
        check_number(f"{type(self).__name__}(cpu_threads)", cpu_threads, at_least=0)
        super().__init__(**kwargs)
        self._device = device
        self._compute_type = compute_type
        self._cpu_threads = cpu_threads
        self._settings = {
            "language": Language(language) if language else None,
            "no_speech_prob": no_speech_prob,
        }
        self._client: ModelClient | None = None
        self._resampler = create_file_resampler()
        self._interim_pace = InterimPace() if interim_results else None
        self._interim_task: asyncio.Task[Any] | None = None
        self.set_model_name(_name(model))

    def can_generate_metrics(self) -> bool:
        """Whether this service reports metrics: it does."""
        return True

    def language_to_service_language(self, language: Language) -> str | None:
        """Translates a language into Whisper's code; None if it does not know it."""
        return language_to_whisper_language(language)

    @relayed
    async def set_language(self, language: Language) -> None:
        """Sets the language that is spoken, from the next segment on."""
        self._settings["language"] = Language(language)

    @relayed
    async def set_model(self, model: str) -> None:
        """Changes the model, when it is loaded; what was said before goes to the present one.

        Raises:
            ConfigError: There is no such model.
            ServiceError: It cannot be downloaded or loaded.
        """
        present = self.model_name
        await super().set_model(_name(model))
        if self._client is None:
            return
        try:
            client = await connect_model(self._model_spec())
        except BaseException:
            self.set_model_name(present)
            raise
        before, self._client = self._client, client
        await self._segments.join()
        await before.aclose()

    async def start(self, frame: StartFrame) -> None:
        """Loads the model, or joins those who use it already.

        Raises:
            ConfigError: There is no such model, or it is not here and the machine is offline.
            ServiceError: It cannot be downloaded or loaded.
        """
        await super().start(frame)
        if self._client is None:
            self._client = await connect_model(self._model_spec())

    async def stop(self, frame: EndFrame) -> None:
        """Ends after the segments that still wait."""
        await self._end_interim()
        await super().stop(frame)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Ends at once; a segment leaves its batch."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """Ends at once, if it was neither stopped nor cancelled."""
        await super().cleanup()
        await self._close()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Begins and ends segments with the user's turns."""
        if isinstance(frame, UserStartedSpeakingFrame) and self._interim_pace is not None:
            self._interim_pace.begin()
        elif isinstance(frame, UserStoppedSpeakingFrame) and not frame.emulated:
            # Or it could come behind the final text.
            await self._end_interim()
        await super().process_frame(frame, direction)

    async def process_audio_frame(self, frame: AudioRawFrame, direction: FrameDirection) -> None:
        """Keeps the audio, and now and then has what was said so far transcribed."""
        await super().process_audio_frame(frame, direction)
        pace = self._interim_pace
        if pace is None or self._muted or not self._user_speaking:
            return
        secs = len(self._audio_buffer) / (self.sample_rate * _SAMPLE_BYTES)
        if pace.is_due(secs):
            audio = bytes(self._audio_buffer)
            self._interim_task = self.create_task(self._transcribe_so_far(audio), "interim")

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Recognises one segment.

        Args:
            audio: A WAV file, mono, int16, any rate.

        Yields:
            A TranscriptionFrame, unless nothing was understood; an ErrorFrame if it failed.
        """
        await self.start_processing_metrics()
        await self.start_ttfb_metrics()
        try:
            text, language = await self._ask(*unpack_wav(audio), final=True)
        except (ServiceError, ConfigError) as error:
            yield ErrorFrame(str(error))
            return
        finally:
            await self.stop_ttfb_metrics()
            await self.stop_processing_metrics()
        if text:
            yield TranscriptionFrame(text, self._user_id, time_now_iso8601(), language)
        else:
            logger.debug("nothing understood", processor=self.name)

    async def _transcribe_so_far(self, audio: bytes) -> None:
        pace = self._interim_pace
        assert pace is not None
        began = self.get_event_loop().time()
        took: float | None = None
        try:
            text, language = await self._ask(audio, self.sample_rate, final=False)
            took = self.get_event_loop().time() - began
        except (ServiceError, ConfigError) as error:
            logger.debug("no interim transcript", processor=self.name, reason=type(error).__name__)
            text, language = "", None
        pace.ended(took)
        if pace.is_off:
            logger.warning(
                "the model is too slow for interim transcripts: there will be no more",
                processor=self.name,
            )
        if text:
            await self.push_frame(
                InterimTranscriptionFrame(text, self._user_id, time_now_iso8601(), language)
            )

    async def _ask(
        self, audio: bytes, sample_rate: int, *, final: bool
    ) -> tuple[str, Language | None]:
        """Has audio transcribed; returns the text and its language, if that is known.

        Raises:
            ConfigError: The model does not know the language.
            ServiceError: The model failed, or there was no answer in time.
        """
        if self._client is None:
            raise ServiceError(f"{self.name} has not started", provider="whisper")
        chosen: Language | None = self._settings["language"]
        limit: float = self._settings["no_speech_prob"]
        request = Request(
            audio=await self._resampler.resample(audio, sample_rate, SAMPLE_RATE_HZ),
            language=chosen and self.language_to_service_language(chosen),
            no_speech_prob=limit,
            final=final,
        )
        answer: Answer = await ask_patiently(
            self._client,
            request,
            deadline_secs=_DEADLINE_SECS if final else _INTERIM_DEADLINE_SECS,
            patience_secs=_PATIENCE_SECS if final else 0.0,
        )
        text = " ".join(text for text, no_speech in answer["parts"] if text and no_speech < limit)
        return text, chosen or _language(answer["language"])

    def _model_spec(self) -> ModelSpec:
        """The model that this service works with."""
        return whisper_spec(
            self.model_name,
            device=self._device,
            compute_type=self._compute_type,
            cpu_threads=self._cpu_threads,
        )

    def _require_package(self) -> None:
        if importlib.util.find_spec(self._package) is None:
            raise ConfigError(
                f"{type(self).__name__} needs the package {self._package.replace('_', '-')}: "
                f"pip install 'antiphon[{self._extra}]'"
            )

    async def _end_interim(self) -> None:
        task, self._interim_task = self._interim_task, None
        if task is not None and not task.done():
            await self.cancel_task(task)
            assert self._interim_pace is not None
            self._interim_pace.broken_off()

    async def _close(self) -> None:
        await self._end_interim()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


class WhisperSTTServiceMLX(WhisperSTTService):
    """Recognises stretches of speech with a Whisper model on Apple's chips, through MLX."""

    _package = "mlx_whisper"
    _extra = "mlx-whisper"

    def __init__(
        self,
        *,
        model: str | MLXModel = MLXModel.TINY,
        no_speech_prob: float = 0.6,
        language: Language | None = Language.EN,
        temperature: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Makes a service; the model is loaded at the start.

        Args:
            model: An `MLXModel`, a repository of the hub with a model in MLX's form, or a folder.
            no_speech_prob: What is at least this likely to be no speech is left out.
            language: Language that is spoken; None lets the model find out, segment by segment.
            temperature: Randomness, 0.0 to 1.0.
            **kwargs: Passed on to ``WhisperSTTService``; what concerns CTranslate2 has no effect.

        Raises:
            ConfigError: The package ``mlx-whisper`` is not installed.
        """
        check_number("WhisperSTTServiceMLX(temperature)", temperature, at_least=0)
        super().__init__(
            model=_name(model), no_speech_prob=no_speech_prob, language=language, **kwargs
        )
        self._temperature = temperature

    def _model_spec(self) -> ModelSpec:
        options = {"model": self.model_name, "temperature": self._temperature}
        return ModelSpec(MLXWhisper, options)


def _name(model: str | Enum) -> str:
    return str(model.value if isinstance(model, Enum) else model)


def _language(code: str) -> Language | None:
    try:
        return Language(code)
    except ValueError:  # one that the enumeration does not have
        return None
