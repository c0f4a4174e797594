"""One speaker's audio in a recording."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from antiphon.audio.utils import create_stream_resampler

_GAP_SECS = 0.5
"""Lateness that becomes silence. Less is jitter, and silence in the middle of a word would be heard.
It does not add up: lateness is measured from the beginning of the recording."""


class Audio(Protocol):
    """A piece of audio."""

    audio: bytes
    sample_rate: int
    num_channels: int


class Track:
    """Audio from the beginning of a recording on, without gaps.

    Attributes:
        audio: What was recorded and not taken away yet: int16 little-endian PCM, mono.
    """

    def __init__(self, *, leads: bool) -> None:
        """Makes an empty track.

        Args:
            leads: Whether a piece arrives when it begins to sound, rather than when it has ended.
        """
        self._leads = leads
        self.audio = bytearray()
        self._began_secs = 0.0
        self._taken_bytes = 0
        self._resampler = create_stream_resampler()

    def begin(self, now_secs: float) -> None:
        """Begins a new recording."""
        self.audio.clear()
        self._began_secs = now_secs
        self._taken_bytes = 0
        self._resampler = create_stream_resampler()

    def clear(self, length: int) -> None:
        """Takes the audio away, with silence up to a length in bytes."""
        self._taken_bytes += length
        self.audio.clear()

    async def add(self, piece: Audio, sample_rate: int, now_secs: float) -> bytes:
        """Adds a piece, behind silence if it comes late.

        Args:
            piece: The piece.
            sample_rate: Rate of the track in Hz.
            now_secs: When it arrived.

        Returns:
            The piece as the track has it.
        """
        added = await self._resampler.resample(_mono(piece), piece.sample_rate, sample_rate)
        due = round((now_secs - self._began_secs) * sample_rate)
        if not self._leads:
            due -= len(added) // 2
        late = due - (self._taken_bytes + len(self.audio)) // 2
        if late > _GAP_SECS * sample_rate:
            self.audio.extend(bytes(2 * late))
        self.audio.extend(added)
        return added


class Turn:
    """What one speaker says in one turn, and a little before it."""

    def __init__(self, pre_roll_secs: float) -> None:
        """Makes a turn that has not started.

        Args:
            pre_roll_secs: How much of the audio before the start belongs to it.
        """
        self._pre_roll_secs = pre_roll_secs
        self._audio = bytearray()
        self._started = False

    def start(self) -> None:
        """The turn starts."""
        self._started = True

    def add(self, piece: bytes, sample_rate: int) -> None:
        """Adds a piece of audio."""
        self._audio.extend(piece)
        if not self._started:
            kept = 2 * int(self._pre_roll_secs * sample_rate)
            del self._audio[: max(0, len(self._audio) - kept)]

    def end(self) -> bytes | None:
        """The turn ends: its audio; None if it had not started or there is none."""
        audio = bytes(self._audio) if self._started and self._audio else None
        self.clear()
        return audio

    def clear(self) -> None:
        """Forgets everything."""
        self._audio.clear()
        self._started = False


def _mono(piece: Audio) -> bytes:
    if piece.num_channels == 1:
        return piece.audio
    samples = np.frombuffer(piece.audio, "<i2").reshape(-1, piece.num_channels)
    mono: bytes = samples.mean(axis=1).astype("<i2").tobytes()
    return mono
