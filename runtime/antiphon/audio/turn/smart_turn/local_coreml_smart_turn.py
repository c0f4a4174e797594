"""Smart turn with the first model, on Apple's CoreML."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.audio.turn.smart_turn._audio import MODEL_RATE_HZ, Samples
from antiphon.audio.turn.smart_turn._local_model import Judge, LocalModelSmartTurn, SmartTurnModel
from antiphon.audio.turn.smart_turn.local_smart_turn import MAX_FEATURES
from antiphon.errors import ConfigError

_MODEL_FILE = Path("coreml", "smart_turn_classifier.mlpackage")


class CoreMLSmartTurnModel(SmartTurnModel):
    """The first smart-turn model, with CoreML; one turn at a time, as it was exported."""

    def _load(self, path: str) -> Judge:
        coremltools = importlib.import_module("coremltools")
        transformers = importlib.import_module("transformers")
        model = coremltools.models.MLModel(str(Path(path) / _MODEL_FILE))
        extractor = transformers.AutoFeatureExtractor.from_pretrained(path)

        def judge_one(audio: Samples) -> float:
            features = extractor(
                [audio],
                sampling_rate=MODEL_RATE_HZ,
                padding="max_length",
                truncation=True,
                max_length=MAX_FEATURES,
                return_attention_mask=True,
                return_tensors="np",
            )
            logits = np.asarray(model.predict(dict(features))["logits"], np.float64)[0]
            # Softmax; the difference keeps large values from overflowing.
            shares = np.exp(logits - logits.max())
            return float(shares[1] / shares.sum())

        return lambda pieces: [judge_one(audio) for audio in pieces]


class LocalCoreMLSmartTurnAnalyzer(LocalModelSmartTurn):
    """Asks the first smart-turn model, which runs with CoreML; macOS only."""

    packages = ("coremltools", "transformers")
    model = CoreMLSmartTurnModel

    def __init__(self, *, smart_turn_model_path: str, **kwargs: Any) -> None:
        """Keeps the settings; the model is loaded when the transport starts.

        Args:
            smart_turn_model_path: Folder with the model's files.
            **kwargs: ``sample_rate`` and ``params`` of ``BaseSmartTurn``.

        Raises:
            ConfigError: There is no path, or a package is not installed.
        """
        if not smart_turn_model_path:
            raise ConfigError(
                "LocalCoreMLSmartTurnAnalyzer needs the folder of the model "
                "(git clone https://huggingface.co/pipecat-ai/smart-turn)"
            )
        super().__init__(smart_turn_model_path=smart_turn_model_path, **kwargs)
