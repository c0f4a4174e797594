"""The Whisper model of a process, with MLX on Apple's chips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from antiphon.errors import ConfigError
from antiphon.models.model import Item, Model
from antiphon.services.whisper._engine import Answer, Request
from antiphon.services.whisper._windows import SAMPLE_RATE_HZ


class MLXWhisper(Model):
    """Whisper in MLX's form. It has no batches: what several sessions said is done one by one.

    Args:
        model: A repository of the hub, which MLX downloads by itself, or a folder.
        temperature: Randomness.
    """

    def __init__(self, *, model: str, temperature: float = 0.0) -> None:
        self._name = model
        self._temperature = temperature

    def load(self) -> None:
        """Loads the weights, which are downloaded first if need be, and hears a second of silence.

        Raises:
            ConfigError: There is no such model, or it cannot be downloaded.
        """
        silence = Request(
            audio=bytes(2 * SAMPLE_RATE_HZ), language="en", no_speech_prob=1.0, final=True
        )
        try:
            self.run_batch([Item(silence)])
        except OSError as error:  # also what the hub's client raises
            raise ConfigError(f"the MLX model {self._name!r} cannot be loaded: {error}") from error

    def run_batch(self, items: Sequence[Item]) -> Sequence[Answer]:
        """Transcribes what several sessions said; nothing for those who do not wait any more."""
        return [
            Answer(parts=[], language="en") if item.cancelled else self._transcribe(item.payload)
            for item in items
        ]

    def _transcribe(self, request: Request) -> Answer:
        import mlx_whisper

        audio = np.frombuffer(request["audio"], "<i2").astype(np.float32) / np.float32(32768)
        # It keeps the model that it has loaded.
        result: dict[str, Any] = mlx_whisper.transcribe(
            audio,
            path_or_hf_repo=self._name,
            temperature=self._temperature,
            language=request["language"],
        )
        parts = [
            (segment["text"].strip(), float(segment["no_speech_prob"]))
            for segment in result["segments"]
        ]
        return Answer(parts=parts, language=result["language"])
