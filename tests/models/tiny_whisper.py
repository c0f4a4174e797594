"""Makes small Whisper models: real files, read and run by CTranslate2, with made-up weights.

The weights are random, but for three things that a test has to know. What the decoder says at each
position is one of a few words, and which one depends on what was heard. It ends after
``SPOKEN_WORDS`` words. And it takes a part of what it hears for no speech (``NO_SPEECH_PROB``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SPOKEN_WORDS = 8
NO_SPEECH_PROB = 0.1
LANGUAGES = """
    en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt
    la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc
    ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su
""".split()  # fmt: skip
DETECTED_LANGUAGE = "fr"

_WORDS = """
    about after again all also always and any ask away back because been before bird blue book boy bring
    but call came can city close cold come could day did different door down each earth eat end enough
    every eye face family far father feet few find first follow food four friend from give good great
    green group grow hand hard have head hear help here high hold home house idea important keep kind
    know land large last later learn leave letter light like line list little live long look made
""".split()  # fmt: skip
_AUDIO_POSITIONS = 1500
_TEXT_POSITIONS = 448
_TIMESTAMPS = 1501
_LAST_TEXT = 50256
_WORDS_A_POSITION = 4
# How sure it is of the words at a position, and how much of the choice is what it heard.
_SURE = 30.0
_HEARD = 3.0
# How much of what the decoder goes by at a position is the position itself.
_TOLD_BY_POSITION = 0.8

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """Dimensions of a model; the defaults are as small as it gets."""

    width: int = 64
    layers: int = 1
    heads: int = 1
    mels: int = 80


TINY = Size(width=384, layers=4, heads=6)
"""The dimensions of the published model of that name: as expensive, as far as that goes."""


def build(directory: Path, size: Size = Size(), *, multilingual: bool = True) -> Path:
    """Writes a model as the published ones lie on the hub.

    Args:
        directory: Where to; it is made.
        size: Its dimensions.
        multilingual: Whether it knows languages, or is one for English only.

    Returns:
        The directory.
    """
    from ctranslate2.specs import whisper_spec

    directory.mkdir(parents=True, exist_ok=True)
    tokens = _tokens(multilingual)
    ids = {token: number for number, token in enumerate(tokens)}
    _write_tokenizer(directory, tokens)

    spec = whisper_spec.WhisperSpec(size.layers, size.heads, size.layers, size.heads)
    weights = _Weights(size.width)
    _fill_encoder(spec.encoder, size, weights)
    _fill_decoder(spec.decoder, size, len(tokens), weights)
    _teach(spec.decoder, ids, weights, multilingual)
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [ids["<|endoftext|>"]]
    spec.config.lang_ids = [ids[f"<|{name}|>"] for name in LANGUAGES] if multilingual else []
    spec.config.alignment_heads = [[0, 0]]
    spec.validate()
    spec.optimize(quantization="float32")
    spec.save(str(directory))
    return directory


class _Weights:
    """Random weights of the usual size, the same each time."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.random = np.random.default_rng(7)

    def matrix(self, rows: int, columns: int, scale: float = 1.0) -> Array:
        found = self.random.normal(0, scale / np.sqrt(columns), (rows, columns))
        return found.astype(np.float32)

    def linear(self, spec: Any, rows: int, columns: int, scale: float = 1.0) -> None:
        spec.weight = self.matrix(rows, columns, scale)
        spec.bias = np.zeros(rows, np.float32)

    def norm(self, spec: Any) -> None:
        spec.gamma = np.ones(self.width, np.float32)
        spec.beta = np.zeros(self.width, np.float32)

    def attention(self, spec: Any, *, of_itself: bool, scale: float) -> None:
        width = self.width
        self.norm(spec.layer_norm)
        if of_itself:
            self.linear(spec.linear[0], 3 * width, width)
        else:
            self.linear(spec.linear[0], width, width)
            self.linear(spec.linear[1], 2 * width, width)
        self.linear(spec.linear[-1], width, width, scale)

    def feed_forward(self, spec: Any, scale: float) -> None:
        self.norm(spec.layer_norm)
        self.linear(spec.linear_0, 4 * self.width, self.width)
        self.linear(spec.linear_1, self.width, 4 * self.width, scale)


def _fill_encoder(spec: Any, size: Size, weights: _Weights) -> None:
    for conv, channels in ((spec.conv1, size.mels), (spec.conv2, size.width)):
        flat = weights.matrix(size.width, channels * 3, 1.5)
        conv.weight = flat.reshape(size.width, channels, 3)
        conv.bias = np.zeros(size.width, np.float32)
    spec.position_encodings.encodings = weights.matrix(_AUDIO_POSITIONS, size.width, 0.1)
    weights.norm(spec.layer_norm)
    for layer in spec.layer:
        weights.attention(layer.self_attention, of_itself=True, scale=0.5)
        weights.feed_forward(layer.ffn, 0.5)


def _fill_decoder(spec: Any, size: Size, vocabulary: int, weights: _Weights) -> None:
    spec.embeddings.weight = weights.matrix(vocabulary, size.width, 0.1)
    # One direction a position: what is said there is read from it.
    # It outweighs what the layers add, however many there are.
    sound = 0.8 * np.sqrt(size.width)
    part = 1.0 / np.sqrt(size.layers)
    spec.position_encodings.encodings = weights.matrix(_TEXT_POSITIONS, size.width, sound)
    weights.norm(spec.layer_norm)
    spec.projection.weight = weights.matrix(vocabulary, size.width, 0.1)
    for layer in spec.layer:
        weights.attention(layer.self_attention, of_itself=True, scale=0.1)
        weights.attention(layer.attention, of_itself=False, scale=part)
        weights.feed_forward(layer.ffn, 0.1)


def _teach(decoder: Any, ids: dict[str, int], weights: _Weights, multilingual: bool) -> None:
    """Makes the decoder say words and then end, and be of two minds about whether it is speech."""
    positions = decoder.position_encodings.encodings
    directions = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    projection = decoder.projection.weight
    prompt = 4 if multilingual else 2
    scale = np.float32(_SURE / np.sqrt(weights.width))
    for at in range(SPOKEN_WORDS):
        direction = directions[prompt - 1 + at] * scale
        for number in range(_WORDS_A_POSITION):
            word = _WORDS[(at * _WORDS_A_POSITION + number) % len(_WORDS)]
            heard = weights.random.normal(0, _HEARD / np.sqrt(weights.width), weights.width)
            projection[ids[f"\u0120{word}"]] = direction + heard
    projection[ids["<|endoftext|>"]] = directions[prompt - 1 + SPOKEN_WORDS] * scale
    if multilingual:
        projection[ids[f"<|{DETECTED_LANGUAGE}|>"]] = directions[0] * scale / 4
    odds = len(ids) * NO_SPEECH_PROB / (1 - NO_SPEECH_PROB)
    certainty = np.log(odds) / _TOLD_BY_POSITION / np.sqrt(weights.width)
    projection[ids["<|nospeech|>"]] = directions[0] * np.float32(certainty)


def _tokens(multilingual: bool) -> list[str]:
    """Text tokens, then the special ones in Whisper's order, then the timestamps."""
    from tokenizers.pre_tokenizers import ByteLevel

    text = [*sorted(ByteLevel.alphabet()), *(f"\u0120{word}" for word in _WORDS)]
    if multilingual:
        # CTranslate2 knows such a model by the empty token at the end of the others.
        text += [f"\u0120x{number}" for number in range(_LAST_TEXT - len(text))] + [""]
    special = ["<|endoftext|>", "<|startoftranscript|>"]
    special += [f"<|{name}|>" for name in LANGUAGES] if multilingual else []
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    special += ["<|nospeech|>", "<|notimestamps|>"]
    return [*text, *special, *(f"<|{number * 0.02:.2f}|>" for number in range(_TIMESTAMPS))]


def _write_tokenizer(directory: Path, tokens: list[str]) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    first_special = tokens.index("<|endoftext|>")
    # Words are looked up whole, and anything else falls into bytes: no merges.
    vocabulary = {token: number for number, token in enumerate(tokens[:first_special])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in tokens[first_special:-_TIMESTAMPS]]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
