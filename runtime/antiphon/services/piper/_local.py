"""Text to speech with voices of Piper, on one's own machines."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from pydantic import BaseModel, Field

from antiphon.audio.utils import create_file_resampler
from antiphon.errors import ConfigError, ServiceError
from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from antiphon.models.client import ModelClient
from antiphon.models.provider import connect_model
from antiphon.services._shared_models import ask_patiently
from antiphon.services.piper._engine import Answer, Request, piper_spec
from antiphon.services.tts_service import TTSService
from antiphon.utils.string import match_endofsentence

# A sentence takes a twentieth of the time it lasts; the rest is for those that come before it.
_DEADLINE_SECS = 30.0
_PATIENCE_SECS = 10.0


class LocalPiperTTSService(TTSService):
    """Speaks with a Piper voice, on this machine or cluster.

    All services with the same voice share it: sentences of several sessions are made side by side. Audio
    comes sentence by sentence; an interruption breaks off the sentence that is being made. The voice is
    downloaded at its first use.

    Antiphon's own: `PiperTTSService` is the documented one, for Piper's HTTP server.
    """

    class InputParams(BaseModel):
        """How to speak; what is None is left to the voice.

        Attributes:
            speaker: Name or number of the speaker, for voices with several.
            length_scale: How long sounds are; 1 is the voice's own, less is quicker.
            noise_scale: How much sounds vary.
            noise_w_scale: How much the length of sounds varies.
            volume: 1 is normal.
        """

        speaker: str | int | None = None
        length_scale: float | None = Field(default=None, gt=0)
        noise_scale: float | None = Field(default=None, ge=0)
        noise_w_scale: float | None = Field(default=None, ge=0)
        volume: float = Field(default=1.0, ge=0)

    def __init__(
        self,
        *,
        voice: str,
        sample_rate: int | None = None,
        params: InputParams | None = None,
        use_cuda: bool = False,
        cpu_threads: int = 0,
        **kwargs: Any,
    ) -> None:
        """Makes a service; the voice is loaded at the start.

        Args:
            voice: A published voice, like ``en_US-lessac-medium``, or the path of an ``.onnx`` file with
                its description, ``.onnx.json``, beside it.
            sample_rate: Rate of the audio in Hz; the pipeline's output rate if left out.
            params: How to speak.
            use_cuda: Whether to compute on an NVIDIA GPU; that needs ``onnxruntime-gpu``.
            cpu_threads: How many sentences, of all sessions, are made at the same time; 0 for what
                ``OMP_NUM_THREADS`` says, or one per core. In an actor without reserved CPUs Ray sets
                it to 1.
            **kwargs: Passed on to ``TTSService``.

        Raises:
            ConfigError: The package ``piper-tts`` is not installed.
        """
        if importlib.util.find_spec("piper") is None:
            raise ConfigError(
                "LocalPiperTTSService needs the package piper-tts: pip install 'antiphon[piper]'"
            )
        super().__init__(sample_rate=sample_rate, **kwargs)
        self._settings = (params or LocalPiperTTSService.InputParams()).model_dump()
        self._voice_id = voice
        self._use_cuda = use_cuda
        self._cpu_threads = cpu_threads
        self._client: ModelClient | None = None
        self._loaded_voice = ""
        self._resampler = create_file_resampler()
        self.set_model_name("piper")

    def can_generate_metrics(self) -> bool:
        """Whether this service reports metrics: it does."""
        return True

    async def start(self, frame: StartFrame) -> None:
        """Loads the voice, or joins those who use it already.

        Raises:
            ConfigError: There is no such voice, or it is not here and the machine is offline.
            ServiceError: It cannot be downloaded or loaded.
        """
        await super().start(frame)
        await self._connect()

    async def stop(self, frame: EndFrame) -> None:
        """Lets go of the voice."""
        await super().stop(frame)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Lets go of the voice at once; a sentence that is being made is broken off."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """Lets go of the voice, if the service was neither stopped nor cancelled."""
        await self._close()
        await super().cleanup()

    async def _update_settings(self, settings: Any) -> None:
        changed = {k: v for k, v in settings.items() if k in self._settings}
        LocalPiperTTSService.InputParams(**changed)
        await super()._update_settings(settings)

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Speaks a text, sentence by sentence. If this is closed early, the sentence is broken off.

        Args:
            text: A sentence or so.

        Yields:
            TTSStartedFrame, TTSAudioRawFrames, TTSStoppedFrame; before the last an ErrorFrame if the
            voice failed.
        """
        await self.start_ttfb_metrics()
        await self.start_tts_usage_metrics(text)
        yield TTSStartedFrame()
        try:
            client = await self._connect()
            for sentence in _sentences(text):
                request = Request(text=sentence, **self._settings)  # type: ignore[typeddict-item]
                answer: Answer = await ask_patiently(
                    client, request, deadline_secs=_DEADLINE_SECS, patience_secs=_PATIENCE_SECS
                )
                audio = await self._resampler.resample(
                    answer["audio"], answer["sample_rate"], self.sample_rate
                )
                await self.stop_ttfb_metrics()
                for at in range(0, len(audio), self.chunk_size):
                    yield TTSAudioRawFrame(audio[at : at + self.chunk_size], self.sample_rate, 1)
        except (ServiceError, ConfigError) as error:
            yield ErrorFrame(str(error))
        finally:
            await self.stop_ttfb_metrics()
        yield TTSStoppedFrame()

    async def _connect(self) -> ModelClient:
        """The connection to the voice that is to speak now."""
        if self._client is not None and self._loaded_voice == self._voice_id:
            return self._client
        voice = self._voice_id
        spec = piper_spec(voice, use_cuda=self._use_cuda, cpu_threads=self._cpu_threads)
        client = await connect_model(spec)
        await self._close()
        self._client, self._loaded_voice = client, voice
        return client

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _sentences(text: str) -> Iterator[str]:
    """Splits a text; what follows the last end of a sentence counts as one."""
    while end := match_endofsentence(text):
        yield text[:end].strip()
        text = text[end:]
    if text.strip():
        yield text.strip()
