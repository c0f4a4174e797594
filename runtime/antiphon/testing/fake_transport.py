"""A transport whose user is a test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from antiphon.frames.frames import (
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    OutputDTMFFrame,
    OutputDTMFUrgentFrame,
    OutputImageRawFrame,
    StartFrame,
    TransportMessageFrame,
    TransportMessageUrgentFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.transports.base_input import BaseInputTransport
from antiphon.transports.base_output import BaseOutputTransport
from antiphon.transports.base_transport import BaseTransport, TransportParams

_CHUNK_MS = 20
_SAMPLE_BYTES = 2
_START_DEADLINE_SECS = 10.0


class FakeTransport(BaseTransport):
    """Gives the pipeline what a test says, and keeps what the bot says.

    Audio takes the time it lasts, in both directions: run such a test on a
    ``antiphon.testing.virtual_time.VirtualTimeLoop``, or make the transport with ``paced=False``.

    Events:
        on_client_connected(transport, client): When the pipeline has started.
        on_client_disconnected(transport, client): When the test calls ``disconnect()``.
    """

    def __init__(
        self,
        params: TransportParams | None = None,
        *,
        paced: bool = True,
        name: str | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
    ) -> None:
        """Makes a transport.

        Args:
            params: What is sent and received; audio in both directions if None.
            paced: Whether audio takes the time it lasts.
            name: Name of the transport.
            input_name: Name of its input processor.
            output_name: Name of its output processor.
        """
        super().__init__(name=name, input_name=input_name, output_name=output_name)
        params = params or TransportParams(audio_in_enabled=True, audio_out_enabled=True)
        self._paced = paced
        self._started = asyncio.Event()
        self._input = _FakeInput(params, self._when_started, name=input_name)
        self._output = _FakeOutput(params, paced, name=output_name)
        self._register_event_handler("on_client_connected")
        self._register_event_handler("on_client_disconnected")

    def input(self) -> BaseInputTransport:
        """The processor that pushes what the test says."""
        return self._input

    def output(self) -> BaseOutputTransport:
        """The processor that keeps what the bot says."""
        return self._output

    # What was sent is kept whole: it is bounded by the test that sends it.

    @property
    def played(self) -> list[OutputAudioRawFrame]:
        """The pieces of audio that were played to the end."""
        return self._output.played

    @property
    def audio(self) -> bytes:
        """All audio that was played to the end: int16 little-endian PCM."""
        return b"".join(frame.audio for frame in self._output.played)

    @property
    def images(self) -> list[OutputImageRawFrame]:
        """The images that were shown."""
        return self._output.images

    @property
    def messages(self) -> list[Any]:
        """The messages that were sent to the client."""
        return self._output.messages

    @property
    def keys(self) -> list[str]:
        """The keys of the telephone that were pressed."""
        return self._output.keys

    async def say(self, audio: bytes) -> None:
        """Lets the user say something; returns when it has been said.

        Waits for the pipeline to start. If this is cancelled, the user breaks off.

        Args:
            audio: int16 little-endian PCM, mono, at the input's rate.

        Raises:
            TimeoutError: The pipeline does not start.
        """
        await self._wait_for_start()
        rate = self._input.sample_rate
        chunk_bytes = rate * _CHUNK_MS // 1000 * _SAMPLE_BYTES
        for start in range(0, len(audio), chunk_bytes):
            chunk = audio[start : start + chunk_bytes]
            await self._input.push_audio_frame(InputAudioRawFrame(chunk, rate, 1))
            secs = len(chunk) / _SAMPLE_BYTES / rate
            await asyncio.sleep(secs if self._paced else 0)

    async def make_noise(self, secs: float) -> None:
        """Lets the user make a sound that ``FakeVADAnalyzer`` takes for a voice."""
        await self._wait_for_start()
        period = (2000).to_bytes(2, "little", signed=True) + (-2000).to_bytes(
            2, "little", signed=True
        )
        await self.say(period * round(secs * self._input.sample_rate / 2))

    async def stay_silent(self, secs: float) -> None:
        """Lets the line carry digital silence."""
        await self._wait_for_start()
        await self.say(bytes(round(secs * self._input.sample_rate) * _SAMPLE_BYTES))

    async def inject(self, frame: Frame) -> None:
        """Pushes any frame downstream from the input, as if the client had sent it."""
        await self._wait_for_start()
        await self._input.push_frame(frame, FrameDirection.DOWNSTREAM)

    async def disconnect(self) -> None:
        """Lets the client go away."""
        await self._call_event_handler("on_client_disconnected", self)

    async def _when_started(self) -> None:
        self._started.set()
        await self._call_event_handler("on_client_connected", self)

    async def _wait_for_start(self) -> None:
        async with asyncio.timeout(_START_DEADLINE_SECS):
            await self._started.wait()


class _FakeInput(BaseInputTransport):
    def __init__(
        self,
        params: TransportParams,
        when_started: Callable[[], Awaitable[None]],
        **kwargs: object,
    ) -> None:
        super().__init__(params, **kwargs)
        self._when_started = when_started

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        await self._when_started()


class _FakeOutput(BaseOutputTransport):
    def __init__(self, params: TransportParams, paced: bool, **kwargs: object) -> None:
        super().__init__(params, **kwargs)
        self._paced = paced
        self.played: list[OutputAudioRawFrame] = []
        self.images: list[OutputImageRawFrame] = []
        self.messages: list[Any] = []
        self.keys: list[str] = []

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> None:
        samples = len(frame.audio) / _SAMPLE_BYTES / frame.num_channels
        await asyncio.sleep(samples / frame.sample_rate if self._paced else 0)
        self.played.append(frame)

    async def write_video_frame(self, frame: OutputImageRawFrame) -> None:
        self.images.append(frame)

    async def send_message(
        self, frame: TransportMessageFrame | TransportMessageUrgentFrame
    ) -> None:
        self.messages.append(frame.message)

    async def write_dtmf(self, frame: OutputDTMFFrame | OutputDTMFUrgentFrame) -> None:
        self.keys.append(frame.button.value)
