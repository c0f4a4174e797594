"""A WAV file of a conversation, written as it goes on."""

from __future__ import annotations

import wave
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import IO, Literal

import numpy as np

from antiphon.errors import ConfigError
from antiphon.transports._file.wav import Samples

Layout = Literal["mono", "stereo"]

# Written in blocks: often enough that a crash loses little, seldom enough to cost nothing.
_BLOCK_SECS = 0.5
_LONGEST_BLOCK_SECS = 10


class Recorder:
    """Writes what the bot says, and the caller beside it if wanted, on one time line.

    Positions are samples since the beginning of the conversation. What has been added for a
    position that is not over yet can still be cut off. The file is a valid WAV file after every
    block; where nobody speaks it holds silence.
    """

    def __init__(
        self,
        path: Path,
        *,
        sample_rate: int,
        layout: Layout = "mono",
        caller: Samples | None = None,
    ) -> None:
        """Opens the file; an existing one is overwritten.

        Args:
            path: The file.
            sample_rate: Hz.
            layout: ``mono``: the bot; ``stereo``: the caller left, the bot right.
            caller: What the caller says, from position 0 on, for ``stereo``.

        Raises:
            ConfigError: The file cannot be written.
        """
        self._layout = layout
        self._caller = caller if caller is not None else np.zeros(0, np.int16)
        self._rate = sample_rate
        self._waiting: deque[tuple[int, Samples]] = deque()
        self._end = 0
        self._written = 0
        try:
            self._file: IO[bytes] = path.open("wb")
        except OSError as error:
            raise ConfigError(
                f"{path}: the recording cannot be written ({error.strerror or error}): give a path "
                "in a folder that exists and may be written to"
            ) from error
        self._wav = wave.open(self._file, "wb")  # noqa: SIM115 - close() closes it
        self._wav.setnchannels(1 if layout == "mono" else 2)
        self._wav.setsampwidth(2)
        self._wav.setframerate(sample_rate)
        self._wav.writeframes(b"")
        self._file.flush()
        self.closed = False

    @property
    def end(self) -> int:
        """The position after the last audio added."""
        return self._end

    def add(self, position: int, samples: Samples) -> None:
        """Adds what the bot says.

        Args:
            position: Where it begins; not before the end of what was added so far.
            samples: int16 mono.
        """
        self._waiting.append((position, samples))
        self._end = position + len(samples)

    def cut(self, position: int) -> None:
        """Takes back what was added from a position on."""
        while self._waiting and self._waiting[-1][0] >= position:
            self._waiting.pop()
        if self._waiting:
            start, samples = self._waiting.pop()
            self._waiting.append((start, samples[: position - start]))
        self._end = min(self._end, max(position, self._written))

    def advance(self, position: int) -> None:
        """Writes everything before a position, if that is a block or more."""
        if position - self._written >= self._rate * _BLOCK_SECS:
            self._write_until(position)

    def close(self, position: int) -> None:
        """Cuts off and writes everything at a position, and closes the file; again: nothing."""
        if self.closed:
            return
        self.closed = True
        with self._file, closing(self._wav):
            self.cut(position)
            self._write_until(position)

    def _write_until(self, position: int) -> None:
        while self._written < position:
            until = min(position, self._written + self._rate * _LONGEST_BLOCK_SECS)
            bot = np.zeros(until - self._written, np.int16)
            while self._waiting and self._waiting[0][0] < until:
                start, samples = self._waiting.popleft()
                now = samples[: until - start]
                offset = start - self._written
                bot[offset : offset + len(now)] = now
                if len(now) < len(samples):
                    self._waiting.appendleft((until, samples[len(now) :]))
            block = bot
            if self._layout == "stereo":
                block = np.zeros((len(bot), 2), np.int16)
                caller = self._caller[self._written : until]
                block[: len(caller), 0] = caller
                block[:, 1] = bot
            # writeframes() brings the sizes in the header up to date each time.
            self._wav.writeframes(block.astype("<i2").tobytes())
            self._written = until
        self._file.flush()
