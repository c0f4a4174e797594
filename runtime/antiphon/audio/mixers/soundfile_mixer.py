"""Background sound out of files."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from antiphon.audio.mixers.base_audio_mixer import BaseAudioMixer
from antiphon.audio.utils import create_file_resampler
from antiphon.errors import ConfigError
from antiphon.frames.frames import MixerControlFrame, MixerEnableFrame, MixerUpdateSettingsFrame

Samples = NDArray[np.int16]


class SoundfileMixer(BaseAudioMixer):
    """Mixes one of some sound files with what is sent.

    Needs the package ``soundfile``, which reads WAV, FLAC, OGG, MP3 and more. Files of another
    sample rate are resampled. A file that is not mono is not mixed.
    """

    def __init__(
        self,
        *,
        sound_files: Mapping[str, str | Path],
        default_sound: str,
        volume: float = 0.4,
        mixing: bool = True,
        loop: bool = True,
        **kwargs: Any,
    ) -> None:
        """Makes the mixer; files are read when it starts.

        Args:
            sound_files: Paths by name.
            default_sound: Name of the sound that is heard first.
            volume: What the sound's samples are multiplied by.
            mixing: Whether it is heard from the start.
            loop: Whether it begins again when it ends.
            **kwargs: Passed to the base.

        Raises:
            ConfigError: If default_sound is none of the names.
        """
        super().__init__(**kwargs)
        if default_sound not in sound_files:
            raise ConfigError(
                f"the default sound {default_sound!r} is not one of the sound files: "
                f"{', '.join(sound_files) or 'there are none'}"
            )
        self._sound_files = dict(sound_files)
        self._current = default_sound
        self._volume = volume
        self._mixing = mixing
        self._loop = loop
        self._sounds: dict[str, Samples] = {}
        self._position = 0

    async def start(self, sample_rate: int) -> None:
        """Reads the files.

        Args:
            sample_rate: Sample rate of the output in Hz.

        Raises:
            ConfigError: If soundfile is not installed, or a file cannot be read.
        """
        self._position = 0
        for name, path in self._sound_files.items():
            samples, file_rate = await asyncio.to_thread(_read, path)
            if samples.shape[1] != 1:
                logger.warning(
                    "sound is not mixed: it is not mono", sound=name, channels=samples.shape[1]
                )
                continue
            if not len(samples):
                logger.warning("sound is not mixed: it is empty", sound=name)
                continue
            mono = samples[:, 0].tobytes()
            if file_rate != sample_rate:
                mono = await create_file_resampler().resample(mono, file_rate, sample_rate)
            self._sounds[name] = np.frombuffer(mono, "<i2")

    async def stop(self) -> None:
        """Forgets the sounds."""
        self._sounds.clear()

    async def process_frame(self, frame: MixerControlFrame) -> None:
        """Follows a MixerUpdateSettingsFrame (sound, volume, loop) or a MixerEnableFrame.

        Args:
            frame: The control frame.
        """
        if isinstance(frame, MixerEnableFrame):
            self._mixing = frame.enable
        elif isinstance(frame, MixerUpdateSettingsFrame):
            for name, value in frame.settings.items():
                self._set(name, value)

    async def mix(self, audio: bytes) -> bytes:
        """Mixes the sound with a piece of audio.

        Args:
            audio: int16 little-endian PCM, mono.

        Returns:
            Mixed audio of the same length.
        """
        sound = self._sounds.get(self._current)
        if not self._mixing or sound is None or not audio:
            return audio
        samples = np.frombuffer(audio, "<i2")
        positions = np.arange(self._position, self._position + len(samples))
        if self._loop:
            positions %= len(sound)
            self._position = int(positions[-1] + 1) % len(sound)
        else:
            positions = positions[positions < len(sound)]
            self._position += len(positions)
        mixed = samples.astype(np.float32)
        mixed[: len(positions)] += self._volume * sound[positions].astype(np.float32)
        return np.clip(np.rint(mixed), -32768, 32767).astype("<i2").tobytes()

    def _set(self, name: str, value: Any) -> None:
        if name == "sound" and value in self._sound_files:
            self._current = value
            self._position = 0
        elif name == "sound":
            logger.warning("there is no such sound", sound=value)
        elif name == "volume":
            self._volume = float(value)
        elif name == "loop":
            self._loop = bool(value)
        else:
            logger.warning("the mixer has no such setting", setting=name)


def _read(path: str | Path) -> tuple[Samples, int]:
    """All samples, of shape (frames, channels), and the rate."""
    try:
        soundfile = importlib.import_module("soundfile")
    except ImportError as error:
        raise ConfigError(
            "SoundfileMixer needs the package soundfile: pip install 'antiphon[soundfile]'"
        ) from error
    try:
        samples, rate = soundfile.read(str(path), dtype="int16", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"the sound file {path} cannot be read: {error}") from error
    return samples, int(rate)
