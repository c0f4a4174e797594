"""The output end of a transport: from frames to what the user hears and sees."""

from __future__ import annotations

from loguru import logger

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    MixerControlFrame,
    OutputAudioRawFrame,
    OutputDTMFFrame,
    OutputDTMFUrgentFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    SpriteFrame,
    StartFrame,
    StartInterruptionFrame,
    SystemFrame,
    TransportMessageFrame,
    TransportMessageUrgentFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.heard_text import add_heard_text, note_cut_text
from antiphon.transports._output.audio_lane import BOT_VAD_STOP_SECS
from antiphon.transports._output.media_sender import MediaSender
from antiphon.transports.base_transport import TransportParams

__all__ = ["BOT_VAD_STOP_SECS", "BaseOutputTransport"]


class BaseOutputTransport(FrameProcessor):
    """Sends audio, video and messages, and passes other frames on when their turn has come.

    A transport derives from this, calls ``set_transport_ready()`` once it is connected and
    overrides what it can do: ``write_audio_frame()``, ``write_video_frame()``, ``send_message()``,
    ``write_dtmf()``, ``interrupted()``, ``register_audio_destination()``,
    ``register_video_destination()``.

    Audio is cut into pieces of 10 ms x ``audio_out_10ms_chunks``; each is pushed downstream and
    then written. A frame with ``pts`` is pushed when the pipeline's clock reaches it; any other
    data or control frame keeps its place behind the queued audio, so an EndFrame leaves when all of
    it was written. An interruption drops what has not been written, except frames that survive it.
    """

    movable = False
    pinned_reason = "holds the session's connection to the caller"

    def __init__(self, params: TransportParams, **kwargs: object) -> None:
        """Makes the processor; nothing runs before the StartFrame.

        Args:
            params: What is sent.
            **kwargs: Passed to FrameProcessor.
        """
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self._params = params
        self._sample_rate = 0
        self._audio_chunk_size = 0
        self._media_senders: dict[str | None, MediaSender] = {}

    @property
    def sample_rate(self) -> int:
        """Rate of the audio sent, in Hz; 0 before the StartFrame."""
        return self._sample_rate

    @property
    def audio_chunk_size(self) -> int:
        """Bytes of a piece of audio; 0 before the StartFrame."""
        return self._audio_chunk_size

    # -- for transports ------------------------------------------------------------------------

    async def start(self, frame: StartFrame) -> None:
        """Learns the audio format; a transport connects after it."""
        self._sample_rate = self._params.audio_out_sample_rate or frame.audio_out_sample_rate
        samples_10ms = self._sample_rate // 100
        self._audio_chunk_size = (
            samples_10ms * self._params.audio_out_channels * 2 * self._params.audio_out_10ms_chunks
        )

    async def stop(self, frame: EndFrame) -> None:
        """Returns when all that was queued has been sent; a transport disconnects after it."""
        for sender in list(self._media_senders.values()):
            await sender.stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Ends at once; what waits is lost."""
        for sender in list(self._media_senders.values()):
            await sender.cancel(frame)

    async def set_transport_ready(self, frame: StartFrame) -> None:
        """Begins to send. A transport calls this when it is connected.

        Every destination is registered, and processors upstream are told by an
        OutputTransportReadyFrame. Media that arrive before this are dropped.
        """
        # A pipeline that was stopped and runs again: its senders belong to the run before.
        await self._abort_senders()
        for destination in self._params.audio_out_destinations:
            await self.register_audio_destination(destination)
        for destination in self._params.video_out_destinations:
            await self.register_video_destination(destination)
        names: list[str | None] = [None]
        names += self._params.audio_out_destinations
        names += self._params.video_out_destinations
        # A sender does both audio and video: one for each name.
        for name in dict.fromkeys(names):
            sender = MediaSender(
                self,
                destination=name,
                sample_rate=self._sample_rate,
                audio_chunk_size=self._audio_chunk_size,
                params=self._params,
            )
            self._media_senders[name] = sender
            await sender.start(frame)
        await self.push_frame(OutputTransportReadyFrame(), FrameDirection.UPSTREAM)

    async def send_message(
        self, frame: TransportMessageFrame | TransportMessageUrgentFrame
    ) -> None:
        """Sends a message to the client; nothing here."""

    async def register_video_destination(self, destination: str) -> None:
        """Prepares a further video destination; nothing here."""

    async def register_audio_destination(self, destination: str) -> None:
        """Prepares a further audio destination; nothing here."""

    async def write_video_frame(self, frame: OutputImageRawFrame) -> None:
        """Shows an image; nothing here."""

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> None:
        """Plays a piece of audio and returns when the next one may come; nothing here.

        It sets the pace: a transport that returns at once makes the bot speak faster than real
        time. It may be cancelled by an interruption; that piece then counts as not played.

        Args:
            frame: ``audio_chunk_size`` bytes at ``sample_rate`` Hz.
        """

    async def interrupted(self, frame: StartInterruptionFrame) -> None:
        """Takes back what was written and is not played yet, if the transport can; nothing here.

        Called when nothing more is written of what was queued, and nothing new yet.
        """

    async def write_dtmf(self, frame: OutputDTMFFrame | OutputDTMFUrgentFrame) -> None:
        """Presses a key of the telephone; nothing here."""

    # -- for bots ------------------------------------------------------------------------------

    async def send_audio(self, frame: OutputAudioRawFrame) -> None:
        """Plays audio, in its turn."""
        await self.queue_frame(frame, FrameDirection.DOWNSTREAM)

    async def send_image(self, frame: OutputImageRawFrame | SpriteFrame) -> None:
        """Shows an image or a sprite."""
        await self.queue_frame(frame, FrameDirection.DOWNSTREAM)

    # -- frames --------------------------------------------------------------------------------

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Sends what is to be sent and passes on the rest."""
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)
            await self.start(frame)
        elif isinstance(frame, CancelFrame):
            await self.cancel(frame)
            await self.push_frame(frame, direction)
        elif isinstance(frame, StartInterruptionFrame):
            await self._interrupt(frame, direction)
        elif isinstance(frame, TransportMessageUrgentFrame):
            await self.send_message(frame)
        elif isinstance(frame, OutputDTMFUrgentFrame):
            await self.write_dtmf(frame)
        elif isinstance(frame, SystemFrame) or direction is FrameDirection.UPSTREAM:
            await self.push_frame(frame, direction)
        elif isinstance(frame, EndFrame):
            await self.stop(frame)
            await self.push_frame(frame, direction)
        else:
            await self._handle_frame(frame)

    async def _interrupt(self, frame: StartInterruptionFrame, direction: FrameDirection) -> None:
        senders = list(self._media_senders.values()) if self.interruptions_allowed else []
        # Silence first: passing the frame on may take its time.
        for sender in senders:
            cut = await sender.halt()
            add_heard_text(frame, cut.heard)
            if cut.ahead:
                note_cut_text(frame, cut.ahead, cut.ahead_heard)
        if senders:
            await self.interrupted(frame)
        await self.push_frame(frame, direction)
        for sender in senders:
            await sender.go_on()

    async def cleanup(self) -> None:
        """Ends what still runs, if the pipeline ended without an end frame."""
        await super().cleanup()
        await self._abort_senders()

    async def _abort_senders(self) -> None:
        for sender in self._media_senders.values():
            await sender.abort()
        self._media_senders.clear()

    async def _handle_frame(self, frame: Frame) -> None:
        """Gives a data or control frame to the sender of its destination."""
        sender = self._media_senders.get(frame.transport_destination)
        if sender is None:
            if frame.survives_interruption:
                # Nothing to wait for, and not to be lost.
                await self.push_frame(frame)
                return
            self.statistics.frames_dropped += 1
            logger.warning(
                "frame dropped: unknown destination, or the transport is not ready",
                processor=self.name,
                frame=frame.name,
                destination=frame.transport_destination,
            )
        elif isinstance(frame, OutputAudioRawFrame):
            await sender.handle_audio_frame(frame)
        elif isinstance(frame, (OutputImageRawFrame, SpriteFrame)):
            await sender.handle_image_frame(frame)
        elif isinstance(frame, MixerControlFrame):
            await sender.handle_mixer_control_frame(frame)
        elif frame.pts:
            await sender.handle_timed_frame(frame)
        else:
            await sender.handle_sync_frame(frame)
