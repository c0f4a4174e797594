"""Stand-ins for PyTorch, Transformers and coremltools: numpy arrays with a few of their methods."""

from __future__ import annotations

import importlib.machinery
import types
from typing import Any, ClassVar, Self

import numpy as np

HIDDEN = 8
SAMPLES_PER_STEP = 320


class Tensor(np.ndarray):
    """An array with the methods of a tensor that the analyzers use."""

    device = "cpu"

    def to(self, device: str) -> Self:
        return self

    def long(self) -> Any:
        return self.astype(np.int64)

    def bool(self) -> Any:
        return self.astype(np.bool_)

    def unsqueeze(self, dim: int) -> Any:
        return np.expand_dims(self, dim).view(Tensor)

    def masked_fill(self, mask: Any, value: float) -> Any:
        return np.where(mask, value, self).view(Tensor)

    def sum(self, dim: int | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().sum(axis=dim) if dim is not None else super().sum(**kwargs)


def tensor(value: Any) -> Tensor:
    return np.asarray(value, np.float32).view(Tensor)


def softmax(value: Any, dim: int) -> Any:
    shares = np.exp(value - np.max(value, axis=dim, keepdims=True))
    return (shares / shares.sum(axis=dim, keepdims=True)).view(Tensor)


class Module:
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args[0]

    def to(self, device: str) -> Self:
        return self

    def eval(self) -> Self:
        return self


class Linear(Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        self.weight = np.full((inputs, outputs), 0.01, np.float32)

    def forward(self, value: Any) -> Any:
        assert value.shape[-1] == self.weight.shape[0]
        return (value @ self.weight).view(Tensor)


class Sequential(Module):
    def __init__(self, *modules: Module) -> None:
        self.modules = modules

    def forward(self, value: Any) -> Any:
        for module in self.modules:
            value = module(value)
        return value


class LayerNorm(Module):
    def __init__(self, size: int) -> None:
        self.size = size


class Dropout(Module):
    def __init__(self, share: float) -> None:
        self.share = share


class NoGrad:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Encoder(Module):
    """Gives one step of features for every 320 samples: their mean."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def forward(self, input_values: Any, attention_mask: Any = None) -> tuple[Any]:
        assert input_values.shape == attention_mask.shape
        batch, samples = input_values.shape
        steps = samples // SAMPLES_PER_STEP
        means = input_values.reshape(batch, steps, SAMPLES_PER_STEP).mean(axis=2)
        return (np.repeat(means[:, :, None], HIDDEN, axis=2).view(Tensor),)


class PreTrained(Module):
    """Base of models; notes where they were loaded from."""

    loaded_from: ClassVar[list[str]] = []

    def __init__(self, config: Any) -> None:
        self.config = config

    def post_init(self) -> None: ...

    @classmethod
    def from_pretrained(cls, path: str) -> Self:
        if "broken" in path:
            raise OSError("no such model")
        cls.loaded_from.append(path)
        return cls(types.SimpleNamespace(hidden_size=HIDDEN))


class Classifier(PreTrained):
    """The first model: complete if the audio is loud at its end."""

    def forward(self, input_features: Any, attention_mask: Any) -> Any:
        assert input_features.shape[1:] == (800, 160)
        assert attention_mask.shape == input_features.shape[:2]
        levels = np.abs(input_features).max(axis=(1, 2))
        return types.SimpleNamespace(logits=tensor([[0.5, float(level)] for level in levels]))


class Extractor:
    """Pads and cuts as the real feature extractors do, for raw audio or for frames of it."""

    @classmethod
    def from_pretrained(cls, path: str) -> Extractor:
        return cls()

    def __call__(self, pieces: list[Any], *, max_length: int, **options: Any) -> dict[str, Any]:
        assert options["sampling_rate"] == 16000
        assert options["padding"] == "max_length"
        assert options["truncation"]
        per_frame = 1 if max_length > 1000 else 160
        room = max_length * per_frame
        padded = np.zeros((len(pieces), room), np.float32)
        mask = np.zeros((len(pieces), max_length), np.float32)
        for number, audio in enumerate(pieces):
            assert audio.dtype == np.float32
            heard = min(len(audio), room)
            padded[number, :heard] = audio[:heard]
            mask[number, : heard // per_frame] = 1
        name, shape = (
            ("input_values", padded.shape)
            if per_frame == 1
            else ("input_features", (len(pieces), max_length, per_frame))
        )
        return {name: padded.reshape(shape).view(Tensor), "attention_mask": mask.view(Tensor)}


class CoreMLModel:
    opened: ClassVar[list[str]] = []

    def __init__(self, path: str) -> None:
        self.opened.append(path)

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"logits": np.asarray(Classifier(None)(**inputs).logits)}


def modules() -> dict[str, types.ModuleType]:
    """The stand-ins by the names they are imported under."""
    torch: Any = _module("torch")
    torch.device = str
    torch.cuda = types.SimpleNamespace(is_available=lambda: False)
    torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
    torch.no_grad = NoGrad
    torch.softmax = softmax
    torch.sigmoid = lambda value: (1 / (1 + np.exp(-value))).view(Tensor)
    torch.arange = lambda count, device: np.arange(count, dtype=np.float64).view(Tensor)
    torch.finfo = np.finfo
    torch.nn = types.SimpleNamespace(
        Linear=Linear,
        Sequential=Sequential,
        Tanh=Module,
        GELU=Module,
        LayerNorm=LayerNorm,
        Dropout=Dropout,
        functional=types.SimpleNamespace(softmax=softmax),
    )
    transformers: Any = _module("transformers")
    transformers.Wav2Vec2PreTrainedModel = PreTrained
    transformers.Wav2Vec2Model = Encoder
    transformers.Wav2Vec2BertForSequenceClassification = Classifier
    transformers.AutoFeatureExtractor = Extractor
    coremltools: Any = _module("coremltools")
    coremltools.models = types.SimpleNamespace(MLModel=CoreMLModel)
    return {"torch": torch, "transformers": transformers, "coremltools": coremltools}


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    return module
