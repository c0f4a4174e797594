"""A conversation with a sound file for a caller.

``FileTransport`` plays a WAV file to the bot as if somebody spoke, and records what the bot
answers::

    transport = FileTransport("caller.wav", "bot.wav", FileTransportParams(tail_secs=5))
    pipeline = Pipeline([transport.input(), stt, llm, tts, transport.output()])
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from loguru import logger
from pydantic import Field

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    StartFrame,
    StartInterruptionFrame,
    StopFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.transports._file.recorder import Layout, Recorder
from antiphon.transports._file.wav import Samples, load_mono, read_wav
from antiphon.transports.base_input import BaseInputTransport
from antiphon.transports.base_output import BaseOutputTransport
from antiphon.transports.base_transport import BaseTransport, TransportParams

__all__ = [
    "FileClient",
    "FileInputTransport",
    "FileOutputTransport",
    "FileTransport",
    "FileTransportParams",
    "read_wav",
]

CHUNK_SECS = 0.02
"""Length of a piece of the caller's audio."""

OUTPUT_READY_TIMEOUT_SECS = 30.0
"""How long the caller waits for the rest of the pipeline before it speaks anyway."""

# How far ahead of what the user would hear now the bot's audio is taken, as a sound card does: a
# busy machine then leaves no gaps in the middle of a word.
_PLAYOUT_LEAD_SECS = 0.1


class FileTransportParams(TransportParams):
    """What a FileTransport plays and records.

    Attributes:
        audio_in_enabled: Whether the file is played.
        audio_out_enabled: Whether the bot's audio is taken.
        realtime: Whether both sides speak at the speed of speech. Otherwise the file goes in as
            fast as the pipeline takes it and the bot's audio is taken at once; the recording then
            has no gaps by the clock: it holds the bot's audio piece after piece from the beginning
            on, and in ``stereo`` the caller's audio beside it, also from the beginning on.
        tail_secs: Seconds of silence, always in real time, between the last sample of the file and
            ``on_client_disconnected``: time for the bot to finish.
        layout: Channels of the recording: ``mono`` is the bot alone, ``stereo`` the caller left and
            the bot right.
    """

    audio_in_enabled: bool = True
    audio_out_enabled: bool = True
    realtime: bool = True
    tail_secs: float = Field(default=0.0, ge=0.0)
    layout: Layout = "mono"


@dataclass(frozen=True)
class FileClient:
    """The caller, as event handlers see it.

    Attributes:
        path: The sound file.
        seconds: Its length.
    """

    path: Path
    seconds: float


class _Call:
    """What both ends of the transport know of one conversation."""

    def __init__(self) -> None:
        self.output_ready = asyncio.Event()
        # On the event loop's clock; None before the caller's first sample.
        self.began_at: float | None = None
        self.heard_secs = 0.0

    def begin(self) -> float:
        """Begins the conversation's time line, unless it has begun; returns when that was."""
        if self.began_at is None:
            self.began_at = asyncio.get_running_loop().time()
        return self.began_at


class FileInputTransport(BaseInputTransport):
    """Plays a sound file to the bot."""

    def __init__(
        self,
        transport: FileTransport,
        path: Path,
        params: FileTransportParams,
        *,
        name: str | None = None,
    ) -> None:
        """Made by FileTransport.input()."""
        super().__init__(params, name=name)
        self._transport = transport
        self._call = _Call()
        self._path = path
        self._file_params = params
        self._samples: Samples = np.zeros(0, np.int16)
        self._play_task: asyncio.Task[None] | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Follows the life of the pipeline."""
        if isinstance(frame, StartFrame):
            # Before the output sees the StartFrame and joins the call.
            self._call = self._transport.new_call()
        await super().process_frame(frame, direction)

    async def start(self, frame: StartFrame) -> None:
        """Reads the file and begins to play it.

        Raises:
            ConfigError: The file cannot be played; the pipeline ends with this error.
        """
        await super().start(frame)
        if not self._params.audio_in_enabled:
            return
        self._samples = await asyncio.to_thread(load_mono, self._path, self.sample_rate)
        await self.set_transport_ready(frame)
        self._play_task = self.create_task(self._play(), "play")

    async def stop(self, frame: EndFrame) -> None:
        """Stops playing."""
        await self._stop_playing()
        await super().stop(frame)

    async def pause(self, frame: StopFrame) -> None:
        """Stops playing; the next StartFrame plays the file again."""
        await self._stop_playing()
        await super().pause(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Stops playing."""
        await self._stop_playing()
        await super().cancel(frame)

    async def cleanup(self) -> None:
        """Stops playing, if the pipeline ended without an end frame."""
        await self._stop_playing()
        await super().cleanup()

    async def _stop_playing(self) -> None:
        task, self._play_task = self._play_task, None
        if task is not None:
            await self.cancel_task(task)

    async def _play(self) -> None:
        await self._wait_for_output()
        began_at = self._call.begin()
        client = FileClient(self._path, len(self._samples) / self.sample_rate)
        logger.info("caller connected", path=str(self._path), seconds=round(client.seconds, 2))
        await self._transport._call_event_handler("on_client_connected", client)

        chunk = round(self.sample_rate * CHUNK_SECS)
        await self._speak(self._samples, chunk, began_at if self._file_params.realtime else None)
        tail = np.zeros(round(self._file_params.tail_secs * self.sample_rate), np.int16)
        if self._file_params.realtime:
            tail_at = began_at + client.seconds
        else:
            tail_at = self.get_event_loop().time()
        await self._speak(tail, chunk, tail_at)

        logger.info("caller disconnected", path=str(self._path))
        await self._transport._call_event_handler("on_client_disconnected", client)

    async def _wait_for_output(self) -> None:
        """Waits until the pipeline is up: its end has seen the StartFrame after all others."""
        if not self._transport.has_output:
            return
        try:
            async with asyncio.timeout(OUTPUT_READY_TIMEOUT_SECS):
                await self._call.output_ready.wait()
        except TimeoutError:
            logger.warning(
                "the output of the transport is not ready: is it part of the pipeline? The caller "
                "speaks now",
                processor=self.name,
                seconds=OUTPUT_READY_TIMEOUT_SECS,
            )

    async def _speak(self, samples: Samples, chunk: int, begin_at: float | None) -> None:
        """Pushes audio in pieces, each when it has been spoken, or at once if begin_at is None."""
        loop = self.get_event_loop()
        for start in range(0, len(samples), chunk):
            piece = samples[start : start + chunk]
            if begin_at is None:
                # Lets the pipeline work; push_audio_frame() waits where it falls behind.
                await asyncio.sleep(0)
            else:
                # Counted from the beginning, so that delays do not add up.
                spoken_at = begin_at + (start + len(piece)) / self.sample_rate
                await asyncio.sleep(max(0.0, spoken_at - loop.time()))
            await self.push_audio_frame(
                InputAudioRawFrame(
                    audio=piece.astype("<i2").tobytes(),
                    sample_rate=self.sample_rate,
                    num_channels=1,
                )
            )
            self._call.heard_secs += len(piece) / self.sample_rate


class FileOutputTransport(BaseOutputTransport):
    """Takes the bot's audio at the speed of speech and records it."""

    def __init__(
        self,
        transport: FileTransport,
        input_path: Path,
        output_path: Path | None,
        params: FileTransportParams,
        *,
        name: str | None = None,
    ) -> None:
        """Made by FileTransport.output()."""
        super().__init__(params, name=name)
        self._transport = transport
        self._call = _Call()
        self._input_path = input_path
        self._output_path = output_path
        self._file_params = params
        self._recorder: Recorder | None = None
        # Per destination: the position after the last sample taken, in samples of the time line.
        self._taken: dict[str | None, int] = {}

    async def start(self, frame: StartFrame) -> None:
        """Opens the recording.

        Raises:
            ConfigError: It cannot be written; the pipeline ends with this error.
        """
        await super().start(frame)
        self._close_recording()
        self._taken.clear()
        self._call = self._transport.call if self._transport.has_input else _Call()
        if self._output_path is not None:
            self._recorder = await asyncio.to_thread(self._open_recording, self._output_path)
        if not self._transport.has_input:
            self._call.begin()
        await self.set_transport_ready(frame)
        self._call.output_ready.set()

    async def stop(self, frame: EndFrame) -> None:
        """Returns when the bot's last word has been heard; the recording is complete then."""
        await super().stop(frame)
        if self._file_params.realtime and self._call.began_at is not None:
            last = max(self._taken.values(), default=0) / self.sample_rate
            loop = self.get_event_loop()
            await asyncio.sleep(max(0.0, self._call.began_at + last - loop.time()))
        self._close_recording()

    async def cancel(self, frame: CancelFrame) -> None:
        """Ends at once; the recording holds what has been heard."""
        await super().cancel(frame)
        self._close_recording()

    async def cleanup(self) -> None:
        """Completes the recording, if the pipeline ended without an end frame."""
        await super().cleanup()
        self._close_recording()

    async def interrupted(self, frame: StartInterruptionFrame) -> None:
        """Takes back what has been taken and not been heard yet."""
        if not self._file_params.realtime or self._call.began_at is None:
            return
        now = self._now()
        self._taken = {name: min(taken, now) for name, taken in self._taken.items()}
        if self._recorder is not None:
            self._recorder.cut(now)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> None:
        """Takes a piece of the bot's audio and returns shortly before the next one has to follow."""
        began_at = self._call.begin()
        samples = _mono(frame)
        destination = frame.transport_destination
        position = self._taken.get(destination, 0)
        if self._file_params.realtime:
            # After a silence it is heard now; otherwise right after the piece before.
            position = max(position, self._now())
        self._taken[destination] = end = position + len(samples)
        if self._recorder is not None and destination is None:
            self._recorder.add(position, samples)
            self._recorder.advance(self._now() if self._file_params.realtime else end)
        wait_secs = 0.0
        if self._file_params.realtime:
            next_at = began_at + end / self.sample_rate - _PLAYOUT_LEAD_SECS
            wait_secs = max(0.0, next_at - self.get_event_loop().time())
        await asyncio.sleep(wait_secs)

    def _now(self) -> int:
        """The position on the time line that the user hears now."""
        secs = self.get_event_loop().time() - self._call.begin()
        return int(secs * self.sample_rate)

    def _open_recording(self, path: Path) -> Recorder:
        caller = None
        if self._file_params.layout == "stereo":
            caller = load_mono(self._input_path, self.sample_rate, tell=False)
        return Recorder(
            path, sample_rate=self.sample_rate, layout=self._file_params.layout, caller=caller
        )

    def _close_recording(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        if self._call.began_at is None:
            end = 0
        elif self._file_params.realtime:
            end = self._now()
        else:
            end = recorder.end
            if self._file_params.layout == "stereo":
                end = max(end, round(self._call.heard_secs * self.sample_rate))
        recorder.close(end)


class FileTransport(BaseTransport):
    """Talks to the bot with a sound file, and records the bot.

    Event handlers available:

    - on_client_connected(transport, client): The whole pipeline has started and the caller begins
      to speak; ``client`` is a :class:`FileClient`.
    - on_client_disconnected(transport, client): The file and ``tail_secs`` of silence are over. A
      handler usually ends the task. It is not called when the bot hangs up first.
    """

    def __init__(
        self,
        input_path: str | Path,
        output_path: str | Path | None = None,
        params: FileTransportParams | None = None,
        *,
        name: str | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
    ) -> None:
        """Makes the transport; files are opened when the pipeline starts.

        Args:
            input_path: A WAV file of 16-bit PCM; other rates than the pipeline's are converted, and
                channels are mixed.
            output_path: Where the recording goes, at the pipeline's output rate; None: nowhere. An
                existing file is overwritten, also when the same transport runs again.
            params: How it plays and records.
            name: Name of the transport.
            input_name: Name of its input processor.
            output_name: Name of its output processor.
        """
        super().__init__(name=name, input_name=input_name, output_name=output_name)
        self._input_path = Path(input_path)
        self._output_path = Path(output_path) if output_path is not None else None
        self._params = params or FileTransportParams()
        self._call = _Call()
        self._input: FileInputTransport | None = None
        self._output: FileOutputTransport | None = None
        self._register_event_handler("on_client_connected")
        self._register_event_handler("on_client_disconnected")

    @property
    def call(self) -> _Call:
        """The conversation that goes on, or the last one."""
        return self._call

    def new_call(self) -> _Call:
        """Begins another conversation: a stopped pipeline may run again."""
        self._call = _Call()
        return self._call

    @property
    def has_input(self) -> bool:
        """Whether the file is played to somebody."""
        return self._input is not None and self._params.audio_in_enabled

    @property
    def has_output(self) -> bool:
        """Whether the bot's audio comes here."""
        return self._output is not None

    def input(self) -> FileInputTransport:
        """The processor that plays the file."""
        if self._input is None:
            self._input = FileInputTransport(
                self, self._input_path, self._params, name=self._input_name
            )
        return self._input

    def output(self) -> FileOutputTransport:
        """The processor that takes and records the bot's audio."""
        if self._output is None:
            self._output = FileOutputTransport(
                self,
                self._input_path,
                self._output_path,
                self._params,
                name=self._output_name,
            )
        return self._output


def _mono(frame: OutputAudioRawFrame) -> Samples:
    samples: Samples = np.frombuffer(frame.audio, "<i2")
    if frame.num_channels > 1:
        samples = np.rint(samples.reshape(-1, frame.num_channels).mean(axis=1)).astype(np.int16)
    return samples
