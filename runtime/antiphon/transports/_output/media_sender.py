"""All that goes to one destination of an output transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    MixerControlFrame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    SpriteFrame,
    StartFrame,
)
from antiphon.transports._output.audio_lane import AudioLane
from antiphon.transports._output.heard import Cut
from antiphon.transports._output.timed_lane import TimedLane
from antiphon.transports._output.video_lane import VideoLane
from antiphon.transports.base_transport import TransportParams

if TYPE_CHECKING:
    from antiphon.transports.base_output import BaseOutputTransport


class MediaSender:
    """Audio with the frames in it, timed frames, and video, each in a task of its own."""

    def __init__(
        self,
        transport: BaseOutputTransport,
        *,
        destination: str | None,
        sample_rate: int,
        audio_chunk_size: int,
        params: TransportParams,
    ) -> None:
        """Makes a sender that is not running.

        Args:
            transport: Writes the media and pushes the frames.
            destination: The destination's name; None is the default one.
            sample_rate: Rate of the audio in Hz.
            audio_chunk_size: Bytes of a piece of audio.
            params: The transport's parameters.
        """
        self._transport = transport
        self.sample_rate = sample_rate
        self.audio_chunk_size = audio_chunk_size
        self._audio = AudioLane(
            transport,
            destination=destination,
            sample_rate=sample_rate,
            chunk_bytes=audio_chunk_size,
            params=params,
        )
        self._timed = TimedLane(transport)
        self._video = VideoLane(transport, params)

    async def start(self, frame: StartFrame) -> None:
        """Begins to send."""
        self._video.start()
        self._timed.start()
        await self._audio.start()

    async def stop(self, frame: EndFrame) -> None:
        """Returns when the queued audio was written and the timed frames were pushed."""
        await asyncio.gather(self._audio.finish(frame), self._timed.finish())
        await self._video.abort()

    async def cancel(self, frame: CancelFrame) -> None:
        """Ends at once."""
        await self.abort()

    async def abort(self) -> None:
        """Ends at once."""
        await self._audio.abort()
        await self._timed.abort()
        await self._video.abort()

    async def halt(self) -> Cut:
        """Sends nothing more and drops what has not been sent, for an interruption.

        Returns:
            What was heard of the texts that this cuts.
        """
        heard = await self._audio.halt()  # first: what the user hears ends now
        await self._timed.interrupt()
        await self._video.interrupt()
        return heard

    async def go_on(self) -> None:
        """Sends what comes from now on; says that the bot has stopped."""
        await self._audio.go_on()

    async def handle_audio_frame(self, frame: OutputAudioRawFrame) -> None:
        """Takes audio."""
        await self._audio.put_audio(frame)

    async def handle_image_frame(self, frame: OutputImageRawFrame | SpriteFrame) -> None:
        """Takes an image or a sprite."""
        self._video.show(frame)

    async def handle_timed_frame(self, frame: Frame) -> None:
        """Takes a frame with a presentation time."""
        await self._timed.put(frame)

    async def handle_sync_frame(self, frame: Frame) -> None:
        """Takes a frame that keeps its place behind the audio."""
        await self._audio.put(frame)

    async def handle_mixer_control_frame(self, frame: MixerControlFrame) -> None:
        """Takes a control frame for the mixer."""
        await self._audio.control_mixer(frame)
