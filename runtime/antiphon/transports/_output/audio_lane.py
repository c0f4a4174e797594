"""Audio and the frames that keep their place in it: cut, mixed, written, announced."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from loguru import logger

from antiphon.audio.mixers.base_audio_mixer import BaseAudioMixer
from antiphon.audio.utils import create_stream_resampler, is_silence
from antiphon.frames.frames import (
    BotSpeakingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    MixerControlFrame,
    OutputAudioRawFrame,
    OutputDTMFFrame,
    SpeechOutputAudioRawFrame,
    TransportMessageFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.heard_text import text_begun
from antiphon.transports._output.heard import Cut, HeardText
from antiphon.transports.base_transport import TransportParams

if TYPE_CHECKING:
    from antiphon.transports.base_output import BaseOutputTransport

BOT_VAD_STOP_SECS = 0.35
"""Seconds without audio of the bot after which it has stopped speaking."""

BOT_SPEAKING_PERIOD_SECS = 0.2
"""Seconds between two BotSpeakingFrames."""

# Frames that may wait: two minutes of speech in pieces of 40 ms. put() waits when there are as
# many, so that an answer of any length costs bounded memory.
_QUEUE_FRAMES = 3_000

# How far a mixed stream may run ahead of real time when the transport does not hold it back.
_MIXER_LEAD_SECS = 0.1

_Audio = TypeVar("_Audio", bound=OutputAudioRawFrame)


class AudioLane:
    """Writes the audio of one destination, piece by piece, and passes other frames on in order.

    ``write_audio_frame()`` of the transport sets the pace. A remainder shorter than a piece waits
    for more audio.
    """

    def __init__(
        self,
        transport: BaseOutputTransport,
        *,
        destination: str | None,
        sample_rate: int,
        chunk_bytes: int,
        params: TransportParams,
    ) -> None:
        """Makes a lane that is not running.

        Args:
            transport: Writes the audio and pushes frames.
            destination: Where the audio goes; None is the default destination.
            sample_rate: Rate of the audio in Hz.
            chunk_bytes: Length of a piece.
            params: Channels, and the mixer.
        """
        self._transport = transport
        self._destination = destination
        self._sample_rate = sample_rate
        self._chunk_bytes = chunk_bytes
        self._enabled = params.audio_out_enabled
        self._channels = params.audio_out_channels
        self._chunk_secs = chunk_bytes / (2 * self._channels * sample_rate)
        self._mixer = _mixer_for(params, destination)

        self._resampler = create_stream_resampler()
        self._remainder = bytearray()
        self._heard = HeardText(2 * self._channels * sample_rate)
        self._waiting: deque[Frame] = deque()
        self._added = asyncio.Event()
        self._room = asyncio.Event()
        self._current: Frame | None = None
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._was_running = False
        self._failing = False

        self._bot_speaking = False
        # On the event loop's clock.
        self._speech_until = 0.0
        self._next_bot_speaking_at = 0.0
        self._written_until = 0.0

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to write."""
        if self._mixer is not None:
            await self._mixer.start(self._sample_rate)
        self._create_task()

    async def finish(self, frame: EndFrame) -> None:
        """Waits until all that was queued has been written, and ends.

        Args:
            frame: The end frame: the last to be taken out of the queue. The transport pushes it.
        """
        if self._task is None:
            return
        self._add(frame)
        await self._ended.wait()
        await self.abort()

    async def abort(self) -> None:
        """Ends at once; what waits is lost."""
        running = self._task is not None
        await self._cancel_task()
        self._ended.set()
        if running and self._mixer is not None:
            await self._mixer.stop()

    async def halt(self) -> Cut:
        """Writes nothing more, and drops what waits, other than what survives an interruption.

        Returns:
            What was heard of the texts that this cuts.
        """
        self._was_running = self._task is not None and not self._ended.is_set()
        # Such a frame in progress must not be lost half-way downstream: it ends by itself.
        if self._current is None or not self._current.survives_interruption:
            await self._cancel_task()
        kept = [frame for frame in self._waiting if frame.survives_interruption]
        self._transport.statistics.frames_dropped += len(self._waiting) - len(kept)
        self._waiting = deque(kept)
        self._remainder.clear()
        self._resampler = create_stream_resampler()
        self._room.set()
        return self._heard.cut()

    async def go_on(self) -> None:
        """Ends a halt: says that the bot has stopped, and writes what comes from now on."""
        if self._was_running:
            self._create_task()
        await self._bot_stopped()

    # -- taking frames -------------------------------------------------------------------------

    async def put_audio(self, frame: OutputAudioRawFrame) -> None:
        """Takes audio of any length and rate; waits while too much is queued."""
        if not self._enabled:
            return
        audio = await self._resampler.resample(frame.audio, frame.sample_rate, self._sample_rate)
        if (text := text_begun(frame)) is not None:
            self._heard.begins(text)
        self._remainder += audio
        whole = len(self._remainder) // self._chunk_bytes * self._chunk_bytes
        pieces = bytes(self._remainder[:whole])
        del self._remainder[:whole]
        for start in range(0, whole, self._chunk_bytes):
            piece = pieces[start : start + self._chunk_bytes]
            if isinstance(frame, TTSAudioRawFrame):
                self._heard.received(self._chunk_bytes)
            await self.put(_like(frame, piece, self._sample_rate))

    async def put(self, frame: Frame) -> None:
        """Takes a frame that keeps its place behind the audio; waits while too much is queued."""
        while len(self._waiting) >= _QUEUE_FRAMES:
            self._room.clear()
            await self._room.wait()
        if isinstance(frame, TTSTextFrame):
            self._heard.told(frame.text)
        elif isinstance(frame, TTSStoppedFrame):
            self._heard.complete()
        self._add(frame)

    async def control_mixer(self, frame: MixerControlFrame) -> None:
        """Hands a control frame to the mixer, if there is one."""
        if self._mixer is not None:
            await self._mixer.process_frame(frame)

    def _add(self, frame: Frame) -> None:
        self._waiting.append(frame)
        self._added.set()

    # -- the task ------------------------------------------------------------------------------

    def _create_task(self) -> None:
        if self._task is None:
            self._task = self._transport.create_task(self._run(), "audio")

    async def _cancel_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await self._transport.cancel_task(task)

    async def _run(self) -> None:
        mixed = self._mixer is not None and self._enabled
        while True:
            try:
                frame = await (self._next_mixed() if mixed else self._next())
                self._current = frame
                if isinstance(frame, EndFrame):
                    self._ended.set()
                    return
                if frame is not None:
                    await self._handle(frame)
                self._failing = False
            except Exception as error:  # noqa: BLE001 - reported, and the stream goes on
                await self._report(error)
            finally:
                self._current = None
            if self._bot_speaking and self._now() >= self._speech_until + BOT_VAD_STOP_SECS:
                await self._bot_stopped()
            self._transport.reset_watchdog()

    async def _next(self) -> Frame | None:
        """The next frame; None if none comes before the bot counts as silent."""
        while not self._waiting:
            timeout_secs = None
            if self._bot_speaking:
                timeout_secs = self._speech_until + BOT_VAD_STOP_SECS - self._now()
                if timeout_secs <= 0:
                    return None
            await self._wait_for_frame(timeout_secs)
        return self._take()

    async def _next_mixed(self) -> Frame:
        """The next frame, its audio mixed; a piece of mixed silence if none waits."""
        # A transport that writes without waiting must not make this loop spin.
        ahead_secs = self._written_until - _MIXER_LEAD_SECS - self._now()
        if not self._waiting and ahead_secs > 0:
            await self._wait_for_frame(ahead_secs)
        else:
            await asyncio.sleep(0)
        frame = self._take() if self._waiting else None
        if frame is None:
            frame = OutputAudioRawFrame(bytes(self._chunk_bytes), self._sample_rate, self._channels)
            frame.transport_destination = self._destination
        if isinstance(frame, OutputAudioRawFrame) and self._mixer is not None:
            self._current = frame
            frame.audio = await self._mixer.mix(frame.audio)
        return frame

    async def _wait_for_frame(self, timeout_secs: float | None) -> None:
        self._added.clear()
        try:
            async with asyncio.timeout(timeout_secs):
                await self._added.wait()
        except TimeoutError:
            return

    def _take(self) -> Frame:
        frame = self._waiting.popleft()
        self._room.set()
        return frame

    async def _handle(self, frame: Frame) -> None:
        if isinstance(frame, OutputAudioRawFrame):
            await self._handle_audio(frame)
            return
        if isinstance(frame, TransportMessageFrame):
            await self._transport.send_message(frame)
        elif isinstance(frame, OutputDTMFFrame):
            await self._transport.write_dtmf(frame)
        elif isinstance(frame, TTSTextFrame):
            self._heard.passed_on()
        await self._transport.push_frame(frame)

    async def _handle_audio(self, frame: OutputAudioRawFrame) -> None:
        speech = _is_speech(frame)
        if speech:
            await self._bot_spoke()
        await self._transport.push_frame(frame)
        await self._transport.write_audio_frame(frame)
        if isinstance(frame, TTSAudioRawFrame):
            self._heard.played(len(frame.audio))
        now = self._now()
        self._written_until = max(self._written_until, now) + self._chunk_secs
        if speech:
            self._speech_until = now

    async def _report(self, error: Exception) -> None:
        self._transport.statistics.errors += 1
        # A connection that failed for one piece fails for the next, 25 times a second.
        if not self._failing:
            logger.opt(exception=error).error(
                "frame not written", processor=self._transport.name, destination=self._destination
            )
            await self._transport.push_error(ErrorFrame(error=f"output: {error}"))
        self._failing = True
        # Where writing fails at once, nothing else sets the pace.
        await asyncio.sleep(self._chunk_secs)

    # -- whether the bot speaks ----------------------------------------------------------------

    async def _bot_spoke(self) -> None:
        now = self._now()
        if not self._bot_speaking:
            self._bot_speaking = True
            self._next_bot_speaking_at = now
            logger.debug("bot started speaking", processor=self._transport.name)
            await self._push_both_ways(BotStartedSpeakingFrame)
        # Half a piece of slack: pieces come a little early or late.
        if now >= self._next_bot_speaking_at - self._chunk_secs / 2:
            self._next_bot_speaking_at = now + BOT_SPEAKING_PERIOD_SECS
            await self._push_both_ways(BotSpeakingFrame)

    async def _bot_stopped(self) -> None:
        if not self._bot_speaking:
            return
        self._bot_speaking = False
        # A new answer begins with whole pieces of its own.
        self._remainder.clear()
        if not self._waiting:
            self._heard.reset()
        logger.debug("bot stopped speaking", processor=self._transport.name)
        await self._push_both_ways(BotStoppedSpeakingFrame)

    async def _push_both_ways(self, kind: type[Frame]) -> None:
        for direction in (FrameDirection.DOWNSTREAM, FrameDirection.UPSTREAM):
            frame = kind()
            frame.transport_destination = self._destination
            await self._transport.push_frame(frame, direction)

    def _now(self) -> float:
        return self._transport.get_event_loop().time()


def _mixer_for(params: TransportParams, destination: str | None) -> BaseAudioMixer | None:
    mixer = params.audio_out_mixer
    if isinstance(mixer, Mapping):
        return mixer.get(destination)
    # A single mixer is the one of the default destination: it cannot follow two streams.
    return mixer if destination is None else None


def _is_speech(frame: OutputAudioRawFrame) -> bool:
    if isinstance(frame, SpeechOutputAudioRawFrame):
        return not is_silence(frame.audio)
    return isinstance(frame, TTSAudioRawFrame)


def _like(frame: _Audio, audio: bytes, sample_rate: int) -> _Audio:
    """A new frame of the same class and destination with other audio."""
    piece = dataclasses.replace(frame, audio=audio, sample_rate=sample_rate)
    piece.transport_destination = frame.transport_destination
    return piece
