"""A conversation over a WebSocket that a web server has accepted.

The server is FastAPI, Starlette or Antiphon's gateway; what the messages look like is a serializer's
affair::

    transport = FastAPIWebsocketTransport(
        websocket, FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)
    )
    pipeline = Pipeline([transport.input(), stt, llm, tts, transport.output()])
"""

from __future__ import annotations

import asyncio
import io
import wave
from typing import Any

import numpy as np
from loguru import logger
from starlette.websockets import WebSocket

from antiphon.audio.utils import create_stream_resampler
from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    StartFrame,
    StartInterruptionFrame,
    TransportMessageFrame,
    TransportMessageUrgentFrame,
)
from antiphon.serializers.base_serializer import FrameSerializer, FrameSerializerType
from antiphon.serializers.protobuf import ProtobufFrameSerializer
from antiphon.transports.base_input import BaseInputTransport
from antiphon.transports.base_output import BaseOutputTransport
from antiphon.transports.base_transport import BaseTransport, TransportParams
from antiphon.transports.caller_line import CallerLine
from antiphon.transports.network._websocket_client import (
    Callback,
    FastAPIWebsocketCallbacks,
    FastAPIWebsocketClient,
)

__all__ = [
    "FastAPIWebsocketCallbacks",
    "FastAPIWebsocketClient",
    "FastAPIWebsocketInputTransport",
    "FastAPIWebsocketOutputTransport",
    "FastAPIWebsocketParams",
    "FastAPIWebsocketTransport",
]

# How much audio the client has and has not played yet. Clients never drop what they have, so this is
# how long the bot can still be heard after an interruption, and what bridges a busy moment.
_PLAYOUT_LEAD_SECS = 0.09

_SAMPLE_BYTES = 2


class FastAPIWebsocketParams(TransportParams):
    """What a FastAPIWebsocketTransport sends and receives.

    Attributes:
        add_wav_header: Whether each piece of audio is sent as a WAV file.
        serializer: Makes and reads the messages; None is a ``ProtobufFrameSerializer``.
        session_timeout: Seconds after which ``on_session_timeout`` is called, once; None: never.
    """

    add_wav_header: bool = False
    serializer: FrameSerializer | None = None
    session_timeout: int | None = None


class FastAPIWebsocketInputTransport(BaseInputTransport):
    """Pushes what the client sends."""

    def __init__(
        self,
        transport: BaseTransport,
        client: FastAPIWebsocketClient,
        params: FastAPIWebsocketParams,
        **kwargs: object,
    ) -> None:
        """Made by FastAPIWebsocketTransport.input()."""
        super().__init__(params, **kwargs)
        self._transport = transport
        self._client = client
        self._websocket_params = params
        self._serializer = _serializer_of(params)
        self._resampler = create_stream_resampler()
        self._joined = False
        self._receive_task: asyncio.Task[None] | None = None
        self._timeout_task: asyncio.Task[None] | None = None

    @property
    def caller_line(self) -> CallerLine | None:
        """What keeps the client's messages, if the connection can outlive this process."""
        return self._client.messages

    async def start(self, frame: StartFrame) -> None:
        """Begins to receive.

        Raises:
            ConfigError: The connection has not been accepted; the pipeline ends with this error.
        """
        await super().start(frame)
        await self._serializer.setup(frame)
        if not self._joined:
            await self._client.setup(frame)
            self._joined = True
            self._client.end_prologue()
            await self._client.trigger_client_connected()
        await self.set_transport_ready(frame)
        if self._receive_task is None:
            self._receive_task = self.create_task(self._receive(), "receive")
        timeout_secs = self._websocket_params.session_timeout
        if timeout_secs and self._timeout_task is None:
            self._timeout_task = self.create_task(self._wait_for_timeout(timeout_secs), "timeout")

    async def stop(self, frame: EndFrame) -> None:
        """Stops receiving."""
        await super().stop(frame)
        await self._leave()

    async def cancel(self, frame: CancelFrame) -> None:
        """Stops receiving."""
        await super().cancel(frame)
        await self._leave()

    async def cleanup(self) -> None:
        """Stops receiving, if the pipeline ended without an end frame."""
        await self._leave()
        await super().cleanup()

    async def _leave(self) -> None:
        for task in (self._receive_task, self._timeout_task):
            if task is not None:
                await self.cancel_task(task)
        self._receive_task = self._timeout_task = None
        if self._joined:
            self._joined = False
            await self._client.disconnect()

    async def _receive(self) -> None:
        failing = False
        messages = self._client.messages
        async for data in self._client.receive():
            try:
                frame = await self._serializer.deserialize(data)
                if isinstance(frame, InputAudioRawFrame):
                    if messages is not None and self._takes_audio:
                        messages.queue()
                    await self.push_audio_frame(await self._in_our_format(frame))
                elif frame is not None:
                    await self.push_frame(frame)
                failing = False
            except Exception as error:  # noqa: BLE001 - a serializer of the bot; the call goes on
                self.statistics.errors += 1
                if not failing:
                    logger.opt(exception=error).error("message not read", processor=self.name)
                    await self.push_error(ErrorFrame(error=f"message of the client: {error}"))
                failing = True
            if messages is not None:
                messages.done()
            self.reset_watchdog()
        await self._client.trigger_client_disconnected()

    async def _handle_audio(self, frame: InputAudioRawFrame) -> None:
        try:
            await super()._handle_audio(frame)
        finally:
            if self._client.messages is not None:
                self._client.messages.audio_done()

    def _drop_queued_audio(self) -> None:
        super()._drop_queued_audio()
        if self._client.messages is not None:
            self._client.messages.audio_dropped()

    async def _in_our_format(self, frame: InputAudioRawFrame) -> InputAudioRawFrame:
        """Received audio at the transport's rate and number of channels."""
        if frame.num_channels > 1 and self._params.audio_in_channels == 1:
            samples = np.frombuffer(frame.audio, "<i2").reshape(-1, frame.num_channels)
            frame.audio = np.rint(samples.mean(axis=1)).astype("<i2").tobytes()
            frame.num_channels = 1
        if frame.sample_rate != self.sample_rate and frame.num_channels == 1:
            frame.audio = await self._resampler.resample(
                frame.audio, frame.sample_rate, self.sample_rate
            )
            frame.sample_rate = self.sample_rate
        frame.num_frames = len(frame.audio) // (_SAMPLE_BYTES * frame.num_channels)
        return frame

    async def _wait_for_timeout(self, secs: float) -> None:
        await asyncio.sleep(secs)
        await self._client.trigger_client_timeout()


class FastAPIWebsocketOutputTransport(BaseOutputTransport):
    """Sends to the client, audio at the speed at which it is played."""

    def __init__(
        self,
        transport: BaseTransport,
        client: FastAPIWebsocketClient,
        params: FastAPIWebsocketParams,
        **kwargs: object,
    ) -> None:
        """Made by FastAPIWebsocketTransport.output()."""
        super().__init__(params, **kwargs)
        self._transport = transport
        self._client = client
        self._websocket_params = params
        self._serializer = _serializer_of(params)
        self._joined = False
        # When the client will have played what it was sent, on the event loop's clock.
        self._played_at = 0.0

    async def start(self, frame: StartFrame) -> None:
        """Begins to send.

        Raises:
            ConfigError: The connection has not been accepted; the pipeline ends with this error.
        """
        await super().start(frame)
        await self._serializer.setup(frame)
        if not self._joined:
            await self._client.setup(frame)
            self._joined = True
        await self.set_transport_ready(frame)

    async def stop(self, frame: EndFrame) -> None:
        """Returns when the client has played the bot's last word."""
        await super().stop(frame)
        if self._client.is_connected:
            await asyncio.sleep(max(0.0, self._played_at - self.get_event_loop().time()))
        await self._leave(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Ends at once."""
        await super().cancel(frame)
        await self._leave(frame)

    async def cleanup(self) -> None:
        """Leaves the connection, if the pipeline ended without an end frame."""
        await super().cleanup()
        await self._leave(None)

    async def interrupted(self, frame: StartInterruptionFrame) -> None:
        """Begins a new pace; offers the interruption to the serializer."""
        self._played_at = 0.0
        await self._write(frame)

    async def send_message(
        self, frame: TransportMessageFrame | TransportMessageUrgentFrame
    ) -> None:
        """Sends a message of the application."""
        await self._write(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> None:
        """Sends a piece of audio and returns shortly before the client needs the next one."""
        secs = len(frame.audio) / (_SAMPLE_BYTES * frame.num_channels * frame.sample_rate)
        await self._write(_as_wav_file(frame) if self._websocket_params.add_wav_header else frame)
        now = self.get_event_loop().time()
        # After a silence it is played now; otherwise right after the piece before.
        self._played_at = max(self._played_at, now) + secs
        ahead_secs = self._played_at + secs - now
        await asyncio.sleep(max(0.0, ahead_secs - max(_PLAYOUT_LEAD_SECS, 2 * secs)))

    async def _leave(self, frame: EndFrame | CancelFrame | None) -> None:
        if not self._joined:
            return
        self._joined = False
        try:
            if frame is not None:
                await self._write(frame)
        finally:
            await self._client.disconnect()

    async def _write(self, frame: Frame) -> None:
        message = await self._serializer.serialize(frame)
        if message is not None:
            await self._client.send(message)


class FastAPIWebsocketTransport(BaseTransport):
    """A client at the other end of an accepted WebSocket.

    Received audio of another sample rate than the pipeline's is converted. Audio is sent in real
    time, at most some 90 ms ahead of what the client plays. The connection is closed when the
    pipeline ends.

    Event handlers available; ``websocket`` is what the transport was made with:

    - on_client_connected(transport, websocket): The pipeline starts.
    - on_client_disconnected(transport, websocket): The client has left. It is not called when the
      bot hangs up first.
    - on_session_timeout(transport, websocket): ``session_timeout`` seconds have passed.
    - on_client_resumed(transport, websocket): In place of ``on_client_connected``, where the session
      goes on in another process than it began in.
    """

    def __init__(
        self,
        websocket: WebSocket,
        params: FastAPIWebsocketParams,
        input_name: str | None = None,
        output_name: str | None = None,
    ) -> None:
        """Makes the transport.

        Args:
            websocket: An accepted connection.
            params: What is sent and received.
            input_name: Name of its input processor.
            output_name: Name of its output processor.
        """
        super().__init__(input_name=input_name, output_name=output_name)
        self._params = params
        self._client = FastAPIWebsocketClient(
            websocket,
            _serializer_of(params).type is FrameSerializerType.BINARY,
            FastAPIWebsocketCallbacks(
                on_client_connected=self._emitter("on_client_connected"),
                on_client_disconnected=self._emitter("on_client_disconnected"),
                on_session_timeout=self._emitter("on_session_timeout"),
                on_client_resumed=self._emitter("on_client_resumed"),
            ),
        )
        self._input: FastAPIWebsocketInputTransport | None = None
        self._output: FastAPIWebsocketOutputTransport | None = None

    def input(self) -> FastAPIWebsocketInputTransport:
        """The processor that pushes what the client sends."""
        if self._input is None:
            self._input = FastAPIWebsocketInputTransport(
                self, self._client, self._params, name=self._input_name
            )
        return self._input

    def output(self) -> FastAPIWebsocketOutputTransport:
        """The processor that sends to the client."""
        if self._output is None:
            self._output = FastAPIWebsocketOutputTransport(
                self, self._client, self._params, name=self._output_name
            )
        return self._output

    def _emitter(self, event: str) -> Callback:
        self._register_event_handler(event)

        async def emit(websocket: Any) -> None:
            await self._call_event_handler(event, websocket)

        return emit


def _serializer_of(params: FastAPIWebsocketParams) -> FrameSerializer:
    """The serializer of a transport, the same for both its halves."""
    if params.serializer is None:
        params.serializer = ProtobufFrameSerializer()
    return params.serializer


def _as_wav_file(frame: OutputAudioRawFrame) -> OutputAudioRawFrame:
    with io.BytesIO() as file:
        with wave.open(file, "wb") as writer:
            writer.setnchannels(frame.num_channels)
            writer.setsampwidth(_SAMPLE_BYTES)
            writer.setframerate(frame.sample_rate)
            writer.writeframes(frame.audio)
        return OutputAudioRawFrame(file.getvalue(), frame.sample_rate, frame.num_channels)
