"""What every transport has in common: its parameters and its two ends."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from antiphon.audio.filters.base_audio_filter import BaseAudioFilter
from antiphon.audio.mixers.base_audio_mixer import BaseAudioMixer
from antiphon.audio.turn.base_turn_analyzer import BaseTurnAnalyzer
from antiphon.audio.vad.vad_analyzer import VADAnalyzer
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.utils.base_object import BaseObject

# Older names and what they are called now; an older one that is given sets the newer one.
_RENAMED = {
    "camera_in_enabled": "video_in_enabled",
    "camera_out_enabled": "video_out_enabled",
    "camera_out_is_live": "video_out_is_live",
    "camera_out_width": "video_out_width",
    "camera_out_height": "video_out_height",
    "camera_out_bitrate": "video_out_bitrate",
    "camera_out_framerate": "video_out_framerate",
    "camera_out_color_format": "video_out_color_format",
    "vad_enabled": "audio_in_enabled",
    "vad_audio_passthrough": "audio_in_passthrough",
}


class TransportParams(BaseModel):
    """What a transport sends and receives.

    Attributes:
        camera_in_enabled: Older name of ``video_in_enabled``.
        camera_out_enabled: Older name of ``video_out_enabled``.
        camera_out_is_live: Older name of ``video_out_is_live``.
        camera_out_width: Older name of ``video_out_width``.
        camera_out_height: Older name of ``video_out_height``.
        camera_out_bitrate: Older name of ``video_out_bitrate``.
        camera_out_framerate: Older name of ``video_out_framerate``.
        camera_out_color_format: Older name of ``video_out_color_format``.
        audio_out_enabled: Whether the bot's audio is sent.
        audio_out_sample_rate: Rate of that audio in Hz; None: what the StartFrame says.
        audio_out_channels: Channels of that audio.
        audio_out_bitrate: Bits per second, for transports that encode audio.
        audio_out_10ms_chunks: Length of a piece of audio that is written, in units of 10 ms.
        audio_out_mixer: Adds other sound to the bot's audio: one mixer for the default
            destination, or one for each destination (None is the default one).
        audio_out_destinations: Names of further audio destinations.
        audio_in_enabled: Whether audio is received.
        audio_in_sample_rate: Rate of that audio in Hz; None: what the StartFrame says.
        audio_in_channels: Channels of that audio.
        audio_in_filter: Changes received audio before anything else hears it.
        audio_in_stream_on_start: Whether audio is received from the start on, or only from
            ``start_audio_in_streaming()`` on.
        audio_in_passthrough: Whether received audio is pushed downstream.
        video_in_enabled: Whether video is received.
        video_out_enabled: Whether the bot's video is sent.
        video_out_is_live: Whether images are a film, each shown once, or one of them stays until
            the next.
        video_out_width: Width in pixels; other images are scaled.
        video_out_height: Height in pixels; other images are scaled.
        video_out_bitrate: Bits per second, for transports that encode video.
        video_out_framerate: Images per second.
        video_out_color_format: Pixel format, for transports that need to know.
        video_out_destinations: Names of further video destinations.
        vad_enabled: Older way to ask for received audio; ``vad_analyzer`` alone is enough now.
        vad_audio_passthrough: Older name of ``audio_in_passthrough``.
        vad_analyzer: Hears whether the user speaks.
        turn_analyzer: Judges whether the user has finished, where voice activity only hears a pause.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    camera_in_enabled: bool = False
    camera_out_enabled: bool = False
    camera_out_is_live: bool = False
    camera_out_width: int = 1024
    camera_out_height: int = 768
    camera_out_bitrate: int = 800_000
    camera_out_framerate: int = 30
    camera_out_color_format: str = "RGB"
    audio_out_enabled: bool = False
    audio_out_sample_rate: int | None = None
    audio_out_channels: int = 1
    audio_out_bitrate: int = 96_000
    audio_out_10ms_chunks: int = 4
    audio_out_mixer: BaseAudioMixer | Mapping[str | None, BaseAudioMixer] | None = None
    audio_out_destinations: list[str] = Field(default_factory=list)
    audio_in_enabled: bool = False
    audio_in_sample_rate: int | None = None
    audio_in_channels: int = 1
    audio_in_filter: BaseAudioFilter | None = None
    audio_in_stream_on_start: bool = True
    audio_in_passthrough: bool = True
    video_in_enabled: bool = False
    video_out_enabled: bool = False
    video_out_is_live: bool = False
    video_out_width: int = 1024
    video_out_height: int = 768
    video_out_bitrate: int = 800_000
    video_out_framerate: int = 30
    video_out_color_format: str = "RGB"
    video_out_destinations: list[str] = Field(default_factory=list)
    vad_enabled: bool = False
    vad_audio_passthrough: bool = False
    vad_analyzer: VADAnalyzer | None = None
    turn_analyzer: BaseTurnAnalyzer | None = None

    @model_validator(mode="after")
    def _follow_older_names(self) -> Self:
        for old, new in _RENAMED.items():
            if old not in self.model_fields_set or new in self.model_fields_set:
                continue
            value = getattr(self, old)
            # The two about voice activity could only ever switch something on.
            if old.startswith("vad_") and not value:
                continue
            warnings.warn(
                f"the parameter {old!r} of a transport is deprecated: use {new!r}",
                DeprecationWarning,
                stacklevel=2,
            )
            setattr(self, new, value)
        return self


class BaseTransport(BaseObject):
    """A connection to a user, as two processors: one for what comes in, one for what goes out."""

    def __init__(
        self,
        *,
        name: str | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
    ) -> None:
        """Makes a transport; nothing is opened.

        Args:
            name: Name of the transport.
            input_name: Name of its input processor.
            output_name: Name of its output processor.
        """
        super().__init__(name=name)
        self._input_name = input_name
        self._output_name = output_name

    @abstractmethod
    def input(self) -> FrameProcessor:
        """The processor that pushes what is received; always the same one."""

    @abstractmethod
    def output(self) -> FrameProcessor:
        """The processor that sends what it is given; always the same one."""
