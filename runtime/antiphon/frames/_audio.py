"""Frames that carry audio."""

from __future__ import annotations

from dataclasses import dataclass, field

from antiphon.frames._base import DataFrame, SystemFrame, format_pts


def _samples_per_channel(audio: bytes, num_channels: int) -> int:
    return len(audio) // (num_channels * 2)


@dataclass
class AudioRawFrame:
    """A piece of raw audio.

    Attributes:
        audio: int16 little-endian PCM, channels interleaved.
        sample_rate: Samples per second and channel (Hz).
        num_channels: 1 for mono, 2 for stereo.
        num_frames: Samples per channel, computed from the above.
    """

    audio: bytes
    sample_rate: int
    num_channels: int
    num_frames: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.num_frames = _samples_per_channel(self.audio, self.num_channels)

    def _describe_audio(self) -> str:
        return (
            f"size: {len(self.audio)}, frames: {self.num_frames}, "
            f"sample_rate: {self.sample_rate}, channels: {self.num_channels}"
        )


@dataclass
class OutputAudioRawFrame(DataFrame, AudioRawFrame):
    """Audio for the output transport to play.

    With several audio tracks, `transport_destination` names the one to play it on.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.num_frames = _samples_per_channel(self.audio, self.num_channels)

    def __str__(self) -> str:
        return (
            f"{self.name}(pts: {format_pts(self.pts)}, "
            f"destination: {self.transport_destination}, {self._describe_audio()})"
        )


@dataclass
class TTSAudioRawFrame(OutputAudioRawFrame):
    """Audio made by a text-to-speech service."""


@dataclass
class SpeechOutputAudioRawFrame(OutputAudioRawFrame):
    """Audio of a continuous stream that may hold speech or silence.

    The output transport listens to it to find out whether the bot speaks.
    """


@dataclass
class InputAudioRawFrame(SystemFrame, AudioRawFrame):
    """Audio from the input transport.

    With several audio tracks, `transport_source` names the one it came from.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.num_frames = _samples_per_channel(self.audio, self.num_channels)

    def __str__(self) -> str:
        return (
            f"{self.name}(pts: {format_pts(self.pts)}, source: {self.transport_source}, "
            f"{self._describe_audio()})"
        )


@dataclass
class UserAudioRawFrame(InputAudioRawFrame):
    """Audio of one particular user.

    Attributes:
        user_id: Whose audio it is.
    """

    user_id: str = ""

    def __str__(self) -> str:
        return (
            f"{self.name}(pts: {format_pts(self.pts)}, user: {self.user_id}, "
            f"source: {self.transport_source}, {self._describe_audio()})"
        )
