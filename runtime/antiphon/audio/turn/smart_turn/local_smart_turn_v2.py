"""Smart turn with the second model, on PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

from antiphon.audio.turn.smart_turn._audio import MODEL_RATE_HZ, Samples
from antiphon.audio.turn.smart_turn._local_model import Judge, LocalModelSmartTurn, SmartTurnModel

DEFAULT_MODEL = "pipecat-ai/smart-turn-v2"

MAX_SAMPLES = 16 * MODEL_RATE_HZ
"""Length the model was trained with; shorter speech is padded to it."""


class SmartTurnV2Model(SmartTurnModel):
    """smart-turn-v2: a Wav2Vec2 encoder with a classifier on top, with PyTorch."""

    def _load(self, path: str) -> Judge:
        torch = importlib.import_module("torch")
        transformers = importlib.import_module("transformers")
        device = _best_device(torch)
        model = _model_class(torch, transformers).from_pretrained(path).to(device)
        model.eval()
        extractor = transformers.AutoFeatureExtractor.from_pretrained(path)

        def judge(pieces: list[Samples]) -> list[float]:
            features = extractor(
                pieces,
                sampling_rate=MODEL_RATE_HZ,
                padding="max_length",
                truncation=True,
                max_length=MAX_SAMPLES,
                return_attention_mask=True,
                return_tensors="pt",
            )
            inputs = {name: tensor.to(device) for name, tensor in features.items()}
            with torch.no_grad():
                return [float(logit.item()) for logit in model(**inputs)["logits"]]

        return judge


class LocalSmartTurnAnalyzerV2(LocalModelSmartTurn):
    """Asks smart-turn-v2, which runs with PyTorch.

    It uses Apple's or NVIDIA's accelerator if there is one.
    """

    packages = ("torch", "transformers")
    model = SmartTurnV2Model

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


def _best_device(torch: Any) -> Any:
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _model_class(torch: Any, transformers: Any) -> Any:
    """The network of smart-turn-v2; names and sizes of its layers are those of the weights."""
    nn = torch.nn

    class Wav2Vec2ForEndpointing(transformers.Wav2Vec2PreTrainedModel):  # type: ignore[misc]
        """An encoder, attention over time, and a classifier of what is left."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.wav2vec2 = transformers.Wav2Vec2Model(config)
            self.pool_attention = nn.Sequential(
                nn.Linear(config.hidden_size, 256), nn.Tanh(), nn.Linear(256, 1)
            )
            self.classifier = nn.Sequential(
                nn.Linear(config.hidden_size, 256),
                nn.LayerNorm(256),
                nn.GELU(),
                nn.Dropout(0.1),
                nn.Linear(256, 64),
                nn.GELU(),
                nn.Linear(64, 1),
            )
            self.post_init()

        def forward(self, input_values: Any, attention_mask: Any = None) -> dict[str, Any]:
            """The probability that the turn is complete, for each piece of audio."""
            hidden = self.wav2vec2(input_values, attention_mask=attention_mask)[0]
            scores = self.pool_attention(hidden)
            if attention_mask is not None:
                # The encoder has one step for many samples; padding must not be attended to.
                steps = hidden.shape[1]
                places = torch.arange(steps, device=attention_mask.device)
                places = (places * (attention_mask.shape[1] / steps)).long()
                heard = attention_mask[:, places].unsqueeze(-1).bool()
                scores = scores.masked_fill(~heard, torch.finfo(scores.dtype).min)
            weights = torch.softmax(scores, dim=1)
            pooled = (hidden * weights).sum(dim=1)
            return {"logits": torch.sigmoid(self.classifier(pooled))}

    return Wav2Vec2ForEndpointing
