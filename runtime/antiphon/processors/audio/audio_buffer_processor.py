"""Recording a conversation."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any, ClassVar

from antiphon.audio.utils import interleave_stereo_audio, mix_audio
from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    StartFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.audio.track import Track, Turn
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.utils.checks import check_number

_PRE_ROLL_SECS = 1.0
"""What is kept of the user's audio before a turn: detecting speech takes some of it."""


class AudioBufferProcessor(FrameProcessor):
    """Records what the user and the bot say, side by side in time.

    It belongs behind the output transport, so that it gets both. A gap in either's audio becomes
    silence. Every frame is passed on.

    Events:
        on_audio_data(processor, audio, sample_rate, num_channels): Both, mixed or as stereo.
        on_track_audio_data(processor, user_audio, bot_audio, sample_rate, num_channels): Each by
            itself, mono and equally long.
        on_user_turn_audio_data(processor, audio, sample_rate, num_channels): What the user said in
            one turn, mono, with up to a second before it.
        on_bot_turn_audio_data(processor, audio, sample_rate, num_channels): The same of the bot.

    The first two come each time that buffer_size is reached and when the recording stops.
    """

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "the bot program gets its recordings"

    def __init__(
        self,
        *,
        sample_rate: int | None = None,
        num_channels: int = 1,
        buffer_size: int = 0,
        user_continuous_stream: bool | None = None,
        enable_turn_audio: bool = False,
        **kwargs: Any,
    ) -> None:
        """Makes the processor; it does not record yet.

        Args:
            sample_rate: Rate of the recording in Hz; None: that of the output transport.
            num_channels: 1: user and bot mixed; 2: the user on the left, the bot on the right.
            buffer_size: Bytes of one track at which what is recorded is handed over and a new piece
                begins. 0: all of it is kept in memory until the recording stops.
            user_continuous_stream: Without effect, and deprecated.
            enable_turn_audio: Whether the events of turns come.
            **kwargs: Passed to the base.

        Raises:
            TypeError: If a rate or size is no number.
            ValueError: If num_channels is neither 1 nor 2, or a rate or size is negative.
        """
        super().__init__(**kwargs)
        if num_channels not in (1, 2):
            raise ValueError(f"num_channels has to be 1 or 2, not {num_channels}")
        if sample_rate is not None:
            check_number("AudioBufferProcessor(sample_rate)", sample_rate, at_least=0)
        check_number("AudioBufferProcessor(buffer_size)", buffer_size, at_least=0)
        if user_continuous_stream is not None:
            warnings.warn(
                "user_continuous_stream is no longer needed: gaps are filled in any case",
                DeprecationWarning,
                stacklevel=2,
            )
        self._wanted_sample_rate = sample_rate
        self._sample_rate = sample_rate or 0
        self._num_channels = num_channels
        self._buffer_size = buffer_size
        self._enable_turn_audio = enable_turn_audio

        self._recording = False
        self._user = Track(leads=False)
        self._bot = Track(leads=True)
        self._user_turn = Turn(_PRE_ROLL_SECS)
        self._bot_turn = Turn(0.0)
        for event in (
            "on_audio_data",
            "on_track_audio_data",
            "on_user_turn_audio_data",
            "on_bot_turn_audio_data",
        ):
            self._register_event_handler(event)

    @property
    def sample_rate(self) -> int:
        """Rate of the recording in Hz; 0 as long as it is not known."""
        return self._sample_rate

    @property
    def num_channels(self) -> int:
        """Channels of on_audio_data."""
        return self._num_channels

    def has_audio(self) -> bool:
        """Whether there is audio of both the user and the bot."""
        return bool(self._user.audio) and bool(self._bot.audio)

    def merge_audio_buffers(self) -> bytes:
        """Both tracks as one recording: mixed, or as stereo."""
        user, bot = self._equally_long()
        if self._num_channels == 1:
            return mix_audio(user, bot)
        return interleave_stereo_audio(user, bot)

    async def start_recording(self) -> None:
        """Begins a new recording; what was recorded and not handed over is lost."""
        now_secs = asyncio.get_running_loop().time()
        self._user.begin(now_secs)
        self._bot.begin(now_secs)
        self._user_turn.clear()
        self._bot_turn.clear()
        self._recording = True

    async def stop_recording(self) -> None:
        """Ends the recording and hands over what there is; without a recording, nothing happens."""
        if not self._recording:
            return
        self._recording = False
        await self._end_turn(self._user_turn, "on_user_turn_audio_data")
        await self._end_turn(self._bot_turn, "on_bot_turn_audio_data")
        await self._hand_over()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Records audio; every frame is passed on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._sample_rate = self._wanted_sample_rate or frame.audio_out_sample_rate
        elif isinstance(frame, (EndFrame, CancelFrame)):
            await self.stop_recording()
        elif self._recording:
            if isinstance(frame, InputAudioRawFrame):
                await self._record(frame, self._user, self._user_turn)
            elif isinstance(frame, OutputAudioRawFrame):
                await self._record(frame, self._bot, self._bot_turn)
            elif self._enable_turn_audio:
                await self._follow_turns(frame)
        await self.push_frame(frame, direction)

    async def _record(
        self, frame: InputAudioRawFrame | OutputAudioRawFrame, track: Track, turn: Turn
    ) -> None:
        now_secs = asyncio.get_running_loop().time()
        piece = await track.add(frame, self._sample_rate, now_secs)
        if self._enable_turn_audio:
            turn.add(piece, self._sample_rate)
        if 0 < self._buffer_size <= len(track.audio):
            await self._hand_over()

    async def _follow_turns(self, frame: Frame) -> None:
        if isinstance(frame, UserStartedSpeakingFrame):
            self._user_turn.start()
        elif isinstance(frame, UserStoppedSpeakingFrame):
            await self._end_turn(self._user_turn, "on_user_turn_audio_data")
        elif isinstance(frame, BotStartedSpeakingFrame):
            self._bot_turn.start()
        elif isinstance(frame, BotStoppedSpeakingFrame):
            await self._end_turn(self._bot_turn, "on_bot_turn_audio_data")

    async def _end_turn(self, turn: Turn, event: str) -> None:
        audio = turn.end()
        if audio is not None:
            await self._call_event_handler(event, audio, self._sample_rate, 1)

    async def _hand_over(self) -> None:
        user, bot = self._equally_long()
        if not user:
            return
        merged = self.merge_audio_buffers()
        self._user.clear(len(user))
        self._bot.clear(len(bot))
        await self._call_event_handler(
            "on_audio_data", merged, self._sample_rate, self._num_channels
        )
        await self._call_event_handler("on_track_audio_data", user, bot, self._sample_rate, 1)

    def _equally_long(self) -> tuple[bytes, bytes]:
        length = max(len(self._user.audio), len(self._bot.audio))
        return (
            bytes(self._user.audio).ljust(length, b"\0"),
            bytes(self._bot.audio).ljust(length, b"\0"),
        )
