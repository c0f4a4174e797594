"""Smart turn with the first model, on PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

from antiphon.audio.turn.smart_turn._audio import MODEL_RATE_HZ, Samples
from antiphon.audio.turn.smart_turn._local_model import Judge, LocalModelSmartTurn, SmartTurnModel
from antiphon.audio.turn.smart_turn.local_smart_turn_v2 import LocalSmartTurnAnalyzerV2

__all__ = ["LocalSmartTurnAnalyzer", "LocalSmartTurnAnalyzerV2"]

DEFAULT_MODEL = "pipecat-ai/smart-turn"

MAX_FEATURES = 800
"""Frames of features the first model was trained with; shorter speech is padded to it."""


class SmartTurnV1Model(SmartTurnModel):
    """The first smart-turn model: a Wav2Vec2-BERT classifier, with PyTorch."""

    def _load(self, path: str) -> Judge:
        torch = importlib.import_module("torch")
        transformers = importlib.import_module("transformers")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = transformers.Wav2Vec2BertForSequenceClassification.from_pretrained(path)
        model = model.to(device)
        model.eval()
        extractor = transformers.AutoFeatureExtractor.from_pretrained(path)

        def judge(pieces: list[Samples]) -> list[float]:
            features = extractor(
                pieces,
                sampling_rate=MODEL_RATE_HZ,
                padding="max_length",
                truncation=True,
                max_length=MAX_FEATURES,
                return_attention_mask=True,
                return_tensors="pt",
            )
            inputs = {name: tensor.to(device) for name, tensor in features.items()}
            with torch.no_grad():
                logits = model(**inputs).logits
                shares = torch.nn.functional.softmax(logits, dim=1)
                return [float(share.item()) for share in shares[:, 1]]

        return judge


class LocalSmartTurnAnalyzer(LocalModelSmartTurn):
    """Asks the first smart-turn model, which runs with PyTorch."""

    packages = ("torch", "transformers")
    model = SmartTurnV1Model

    def __init__(self, *, smart_turn_model_path: str = DEFAULT_MODEL, **kwargs: Any) -> None:
        """Keeps the settings; the model is loaded when the transport starts.

        Args:
            smart_turn_model_path: Folder of the model, or its name on Hugging Face, from where
                it is downloaded; the published model if empty.
            **kwargs: ``sample_rate`` and ``params`` of ``BaseSmartTurn``.

        Raises:
            ConfigError: PyTorch or Transformers is not installed.
        """
        super().__init__(smart_turn_model_path=smart_turn_model_path or DEFAULT_MODEL, **kwargs)
