"""Text to speech with OpenAI."""

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
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from antiphon.services.openai._speech import (
    close_client,
    load_sdk,
    make_client,
    require_sdk,
    service_error,
)
from antiphon.services.tts_service import TTSService

_SAMPLE_BYTES = 2
_MAX_FRAME_BYTES = 9600


class OpenAITTSService(TTSService):
    """Speaks with OpenAI, or a service with the same interface. The audio has 24000 Hz.

    ``voice`` may be any that the service knows: alloy, ash, ballad, coral, echo, fable, nova, onyx,
    sage, shimmer, verse, ...

    Attributes:
        OPENAI_SAMPLE_RATE: Rate of the audio in Hz.
    """

    OPENAI_SAMPLE_RATE = 24000

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        voice: str = "alloy",
        model: str = "gpt-4o-mini-tts",
        sample_rate: int | None = None,
        instructions: str | None = None,
        speed: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a service; the client is made when the pipeline starts.

        Args:
            api_key: Key of the account; from ``OPENAI_API_KEY`` if left out.
            base_url: Address of a compatible service.
            voice: Voice to speak with.
            model: Model to speak with.
            sample_rate: 24000 or nothing: the output transport resamples.
            instructions: How to speak, in words, for models that follow them.
            speed: Rate of speech, 0.25 to 4.0; 1.0 is normal.
            **kwargs: Passed on to ``TTSService``.

        Raises:
            ConfigError: The ``openai`` package is not installed.
        """
        require_sdk()
        super().__init__(sample_rate=sample_rate, **kwargs)
        self._client_arguments = (api_key, base_url)
        self._client: Any = None
        self._voice_id = voice
        self._settings = {"instructions": instructions, "speed": speed}
        self.set_model_name(model)

    def can_generate_metrics(self) -> bool:
        """Whether this service reports metrics: it does."""
        return True

    async def start(self, frame: StartFrame) -> None:
        """Imports the SDK and makes the client.

        Raises:
            ConfigError: There is no key.
        """
        await super().start(frame)
        if self._init_sample_rate not in (None, self.OPENAI_SAMPLE_RATE):
            logger.warning(
                "sample rate ignored: OpenAI makes audio of 24000 Hz", processor=self.name
            )
        self._sample_rate = self.OPENAI_SAMPLE_RATE
        if self._client is None:
            await load_sdk()
            self._client = make_client(self.name, *self._client_arguments)

    async def stop(self, frame: EndFrame) -> None:
        """Closes the connections."""
        await super().stop(frame)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Closes the connections."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """Closes the connections."""
        await self._close()
        await super().cleanup()

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Speaks a text. If this is closed early, so is the request.

        Args:
            text: A sentence or so.

        Yields:
            TTSStartedFrame, TTSAudioRawFrames as they come, TTSStoppedFrame; an ErrorFrame if the
            request failed.
        """
        request = {name: value for name, value in self._settings.items() if value is not None}
        started = False
        odd = b""
        await self.start_ttfb_metrics()
        await self.start_tts_usage_metrics(text)
        try:
            async with self._client.audio.speech.with_streaming_response.create(
                input=text,
                model=self.model_name,
                voice=self._voice_id,
                response_format="pcm",
                **request,
            ) as response:
                async for piece in response.iter_bytes():
                    if not started:
                        started = True
                        await self.stop_ttfb_metrics()
                        yield TTSStartedFrame()
                    audio = odd + piece
                    even = len(audio) - len(audio) % _SAMPLE_BYTES
                    odd = audio[even:]
                    for at in range(0, even, _MAX_FRAME_BYTES):
                        pcm = audio[at : min(at + _MAX_FRAME_BYTES, even)]
                        yield TTSAudioRawFrame(pcm, self.sample_rate, 1)
        except Exception as error:
            failure = service_error(error)
            if failure is None:
                raise
            yield ErrorFrame(str(failure))
        finally:
            await self.stop_ttfb_metrics()
        if started:
            yield TTSStoppedFrame()

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await close_client(client, self.name)
