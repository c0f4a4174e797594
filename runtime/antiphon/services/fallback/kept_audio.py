"""The audio of what somebody is saying, for a recogniser that has not heard it."""

from __future__ import annotations

import dataclasses
from collections import deque
from enum import Enum, auto

from antiphon.frames.frames import (
    AudioRawFrame,
    Frame,
    InputAudioRawFrame,
    UserAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)

_SAMPLE_BYTES = 2

# Audio is given again in pieces of this length: fewer frames, each of them small enough for a link.
_PIECE_SECS = 0.5

# What an actor may be sent at once without its taking anything is 4 MiB.
_MOST_BYTES = 3 * 2**20


class _Mark(Enum):
    STARTED = auto()
    STOPPED = auto()


class KeptAudio:
    """Keeps the newest audio, and where in it somebody began and stopped to speak."""

    def __init__(self, most_secs: float) -> None:
        """Keeps nothing yet.

        Args:
            most_secs: Length of what is kept at most. Never more than 3 MiB.
        """
        self._most_secs = most_secs
        self._entries: deque[AudioRawFrame | _Mark] = deque()
        self._secs = 0.0
        self._bytes = 0
        self.dropped_secs = 0.0

    @property
    def secs(self) -> float:
        """Length of what is kept."""
        return self._secs

    def add(self, frame: AudioRawFrame) -> None:
        """Keeps a piece; what is too much is dropped, and counted in `dropped_secs`."""
        self._entries.append(frame)
        self._secs += _secs(frame)
        self._bytes += len(frame.audio)
        before = self._secs
        while self._secs > self._most_secs or self._bytes > _MOST_BYTES:
            self._drop_oldest()
        self.dropped_secs += before - self._secs

    def start(self) -> None:
        """Somebody begins to speak."""
        self._entries.append(_Mark.STARTED)

    def stop(self) -> None:
        """Somebody stops."""
        self._entries.append(_Mark.STOPPED)

    @property
    def stretches(self) -> int:
        """How many stretches of speech are kept to their end."""
        return self._entries.count(_Mark.STOPPED)

    def forget_stretch(self) -> bool:
        """Forgets all up to the first end of speech; returns whether there was one."""
        if _Mark.STOPPED not in self._entries:
            return False
        while self._entries[0] is not _Mark.STOPPED:
            self._drop_oldest()
        self._entries.popleft()
        return True

    def forget_speech(self) -> None:
        """Forgets all up to the last end of speech."""
        while self.forget_stretch():
            pass

    def forget(self, *, but_secs: float = 0.0) -> None:
        """Forgets all but the newest."""
        while self._entries and self._secs > but_secs:
            self._drop_oldest()
        while self._entries and isinstance(self._entries[0], _Mark):
            self._entries.popleft()

    def frames(self, *, is_speaking: bool) -> list[Frame]:
        """What a recogniser has to be given to hear all this.

        Args:
            is_speaking: Whether somebody is speaking now.
        """
        marks = [entry for entry in self._entries if isinstance(entry, _Mark)]
        began_before = marks[0] is _Mark.STOPPED if marks else is_speaking
        frames: list[Frame] = [UserStartedSpeakingFrame()] if began_before else []
        pieces: list[AudioRawFrame] = []
        for entry in self._entries:
            if isinstance(entry, AudioRawFrame):
                if pieces and not _fits(pieces, entry):
                    frames.append(_joined(pieces))
                    pieces = []
                pieces.append(entry)
                continue
            if pieces:
                frames.append(_joined(pieces))
                pieces = []
            started = entry is _Mark.STARTED
            frames.append(UserStartedSpeakingFrame() if started else UserStoppedSpeakingFrame())
        return [*frames, _joined(pieces)] if pieces else frames

    def _drop_oldest(self) -> None:
        oldest = self._entries.popleft()
        if isinstance(oldest, AudioRawFrame):
            self._bytes -= len(oldest.audio)
            self._secs = self._secs - _secs(oldest) if self._bytes else 0.0


def _secs(frame: AudioRawFrame) -> float:
    return len(frame.audio) / _SAMPLE_BYTES / frame.num_channels / frame.sample_rate


def _fits(pieces: list[AudioRawFrame], frame: AudioRawFrame) -> bool:
    return (
        _source(pieces[0]) == _source(frame)
        and sum(_secs(piece) for piece in pieces) + _secs(frame) <= _PIECE_SECS
    )


def _source(frame: AudioRawFrame) -> tuple[object, ...]:
    user = frame.user_id if isinstance(frame, UserAudioRawFrame) else None
    track = frame.transport_source if isinstance(frame, InputAudioRawFrame) else None
    return type(frame), frame.sample_rate, frame.num_channels, user, track


def _joined(pieces: list[AudioRawFrame]) -> Frame:
    first = pieces[0]
    joined = dataclasses.replace(first, audio=b"".join(piece.audio for piece in pieces))
    assert isinstance(joined, Frame)
    if isinstance(first, Frame):
        joined.transport_source = first.transport_source
    return joined
