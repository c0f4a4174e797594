"""The Whisper model of a process, with faster-whisper: what several sessions said, in one batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from antiphon.errors import ConfigError
from antiphon.models import threads
from antiphon.models.model import Item, Model, ModelSpec
from antiphon.services.whisper._names import whisper_directory
from antiphon.services.whisper._windows import (
    FULL_SECS,
    SAMPLE_RATE_HZ,
    cut,
    loops,
    says_all_twice,
    window_secs,
)

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer

Audio = npt.NDArray[np.float32]

_FRAMES_PER_SEC = 100
_BEAM_SIZE = 5
# Tried one after the other, in the full window, on what has failed without any randomness.
_TEMPERATURES = (0.4, 0.8)
# Of Whisper's own decoding: below this average a text is probably not what was said.
_MIN_LOG_PROB = -1.0
# On a CPU the encoder gains little from batches, and loses from 8 on (measured with the base model on
# two cores: 41, 37, 37, 52 and 93 ms a segment at 1, 2, 4, 8 and 16).
_ENCODED_AT_ONCE_ON_CPU = 4
# More than any language takes for what is said in a second, so that a decoder that got stuck ends.
_TOKENS_PER_SEC = 30
_LEAST_TOKENS = 32
_MAX_TOKENS = 448


class Request(TypedDict):
    """What `Whisper` is asked.

    Attributes:
        audio: int16 PCM, mono, 16 kHz, at most some minutes.
        language: Whisper's code of what is spoken; None to find out.
        no_speech_prob: What is that likely to be no speech is looked at twice.
        final: Whether the text is worth several attempts; one that will soon be replaced is not.
    """

    audio: bytes
    language: str | None
    no_speech_prob: float
    final: bool


class Answer(TypedDict):
    """What `Whisper` understood.

    Attributes:
        parts: Texts with the probability that each was no speech, in order; several if it was long.
        language: Code of the language, given or found out.
    """

    parts: list[tuple[str, float]]
    language: str


class Whisper(Model):
    """Whisper in CTranslate2's form, on a CPU or an NVIDIA GPU.

    Args:
        model: A size, a repository of the hub, or a folder; see `whisper_directory`.
        device: ``cpu``, ``cuda``, or ``auto`` for the GPU if there is one.
        compute_type: How CTranslate2 computes: ``default``, ``int8``, ``float16``, ...
        cpu_threads: How many threads on a CPU; 0 as in `antiphon.models.threads`.
    """

    max_batch = 16
    batch_secs = 2.0

    def __init__(
        self,
        *,
        model: str,
        device: str = "auto",
        compute_type: str = "default",
        cpu_threads: int = 0,
    ) -> None:
        self._name = model
        self._device = device
        self._compute_type = compute_type
        self._cpu_threads = cpu_threads
        self._loaded: WhisperModel | None = None
        self._tokenizers: dict[str, Tokenizer] = {}
        self._suppressed: list[int] = []
        self._counts = {"audio_secs": 0.0, "attempts": 0, "second_attempts": 0, "left_batch": 0}

    @property
    def _whisper(self) -> WhisperModel:
        assert self._loaded is not None, "load() comes first"
        return self._loaded

    def load(self) -> None:
        """Loads the weights, which are downloaded first if need be, and hears a second of silence.

        Raises:
            ConfigError: There is no such model or device, or it is not here and the machine is offline.
            ServiceError: The download failed.
        """
        from faster_whisper import WhisperModel
        from faster_whisper.transcribe import get_suppressed_tokens

        directory = whisper_directory(self._name)
        try:
            self._loaded = WhisperModel(
                str(directory),
                device=self._device,
                compute_type=self._compute_type,
                cpu_threads=threads.cpu_threads(self._cpu_threads),
            )
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"Whisper cannot be loaded from {directory} with device={self._device!r} and "
                f"compute_type={self._compute_type!r}: {error}"
            ) from error
        self._suppressed = list(get_suppressed_tokens(self._tokenizer("en"), [-1]))
        silence = Request(
            audio=bytes(2 * SAMPLE_RATE_HZ), language="en", no_speech_prob=1.0, final=False
        )
        self.run_batch([Item(silence)])

    def group(self, item: Item) -> Hashable:
        """Those that get the same window and as many attempts share a batch."""
        request: Request = item.payload
        return window_secs(len(request["audio"]) // 2), request["final"]

    def run_batch(self, items: Sequence[Item]) -> Sequence[Answer | Exception]:
        """Transcribes what several sessions said.

        Returns:
            An `Answer` each, or a ConfigError for a language that the model does not know.
        """
        pieces: list[list[_Piece]] = []
        refused: dict[int, Exception] = {}
        for index, item in enumerate(items):
            request: Request = item.payload
            audio = np.frombuffer(request["audio"], "<i2").astype(np.float32) / np.float32(32768)
            self._counts["audio_secs"] += len(audio) / SAMPLE_RATE_HZ
            pieces.append([_Piece(item, part) for part in cut(audio)])
            try:
                self._tokenizer(request["language"] or "en")
            except ValueError as error:
                refused[index] = ConfigError(f"Whisper {self._name}: {error}")
                pieces[index] = []
        everything = [piece for of_item in pieces for piece in of_item]
        for first in range(0, len(everything), self.max_batch):
            self._transcribe(everything[first : first + self.max_batch])
        return [refused.get(index) or _answer(found) for index, found in enumerate(pieces)]

    def close(self) -> None:
        """Frees the weights."""
        self._loaded = None
        self._tokenizers.clear()

    def statistics(self) -> Mapping[str, float]:
        """Seconds of audio, attempts at a piece of it, second ones, and pieces nobody wanted any more."""
        return dict(self._counts)

    def _transcribe(self, pieces: Sequence[_Piece]) -> None:
        """Tries until each piece has a text that can be what was said, or attempts are used up."""
        secs = max(window_secs(len(piece.audio)) for piece in pieces)
        attempts = [(secs, 0.0)]
        if pieces[0].request["final"]:
            if secs < FULL_SECS:
                attempts.append((FULL_SECS, 0.0))
            attempts += [(FULL_SECS, temperature) for temperature in _TEMPERATURES]
        left = list(pieces)
        for number, (window, temperature) in enumerate(attempts):
            if number:
                self._counts["second_attempts"] += len(left)
            left = self._attempt(left, window, temperature)
            left = [piece for piece in left if piece.is_doubtful]

    def _attempt(self, pieces: Sequence[_Piece], window: int, temperature: float) -> list[_Piece]:
        """Transcribes once; pieces that nobody waits for any more leave before each step.

        Returns:
            The pieces that have got a text.
        """
        import ctranslate2

        model = self._whisper.model
        at_once = _ENCODED_AT_ONCE_ON_CPU if model.device == "cpu" else self.max_batch
        encoded: dict[_Piece, Audio] = {}
        for first in range(0, len(pieces), at_once):
            if chunk := self._wanted(pieces[first : first + at_once]):
                features = np.stack([self._features(piece, window) for piece in chunk])
                output = model.encode(ctranslate2.StorageView.from_array(features), to_cpu=True)
                rows = np.array(output.to(ctranslate2.DataType.float32))
                encoded |= zip(chunk, rows, strict=True)
        wanted = self._wanted(list(encoded))
        if wanted:
            rows = np.stack([encoded[piece] for piece in wanted])
            self._decode(wanted, ctranslate2.StorageView.from_array(rows), window, temperature)
        return wanted

    def _wanted(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        wanted = [piece for piece in pieces if not piece.item.cancelled]
        self._counts["left_batch"] += len(pieces) - len(wanted)
        return wanted

    def _features(self, piece: _Piece, window: int) -> Audio:
        """What the encoder hears, padded to the window: float32 of shape (mels, frames)."""
        frames = window * _FRAMES_PER_SEC
        if piece.features is None:
            piece.features = self._whisper.feature_extractor(piece.audio)
        heard = piece.features[:, :frames]
        return np.pad(heard, ((0, 0), (0, frames - heard.shape[1]))).astype(np.float32)

    def _decode(
        self, pieces: Sequence[_Piece], encoded: Any, window: int, temperature: float
    ) -> None:
        model = self._whisper.model
        if model.is_multilingual and not all(piece.language for piece in pieces):
            for piece, languages in zip(pieces, model.detect_language(encoded), strict=True):
                # The most likely one comes first, as a token: <|fr|>.
                piece.language = piece.language or languages[0][0][2:-2]
        tokenizers = [self._tokenizer(piece.language or "en") for piece in pieces]
        prompts = [[*one.sot_sequence, one.no_timestamps] for one in tokenizers]
        longest_secs = max(len(piece.audio) for piece in pieces) / SAMPLE_RATE_HZ
        tokens = _LEAST_TOKENS + int(_TOKENS_PER_SEC * longest_secs)
        results = model.generate(
            encoded,
            prompts,
            max_length=min(_MAX_TOKENS, len(prompts[0]) + tokens),
            beam_size=_BEAM_SIZE if pieces[0].request["final"] and not temperature else 1,
            sampling_topk=0 if temperature else 1,
            sampling_temperature=temperature or 1.0,
            suppress_tokens=self._suppressed,
            return_scores=True,
            return_no_speech_prob=True,
        )
        self._counts["attempts"] += len(pieces)
        for piece, tokenizer, result in zip(pieces, tokenizers, results, strict=True):
            said = result.sequences_ids[0]
            piece.take(
                tokenizer.decode(said).strip(),
                # The score is the average over the tokens without the one that ends them.
                result.scores[0] * len(said) / (len(said) + 1),
                result.no_speech_prob,
                in_full=window == FULL_SECS,
            )

    def _tokenizer(self, language: str) -> Tokenizer:
        """Tokens of a language.

        Raises:
            ValueError: Whisper does not know it.
        """
        if language not in self._tokenizers:
            from faster_whisper.tokenizer import Tokenizer

            whisper = self._whisper
            multilingual = whisper.model.is_multilingual
            self._tokenizers[language] = Tokenizer(
                whisper.hf_tokenizer, multilingual, task="transcribe", language=language
            )
        return self._tokenizers[language]


def whisper_spec(
    model: str, *, device: str = "auto", compute_type: str = "default", cpu_threads: int = 0
) -> ModelSpec:
    """The model that services with these arguments share; see `Whisper`."""
    options = {
        "model": model,
        "device": device,
        "compute_type": compute_type,
        "cpu_threads": cpu_threads,
    }
    return ModelSpec(Whisper, options)


class _Piece:
    """Audio that fits in a window, and what has been understood of it.

    Attributes:
        item: Whose it is.
        audio: Mono, 16 kHz.
        language: Whisper's code, None until it is known.
        features: What the encoder hears, without padding; None until it is needed.
        text: The best text so far.
        no_speech_prob: Of the same attempt.
        is_doubtful: Whether the last attempt cannot be what was said.
    """

    def __init__(self, item: Item, audio: Audio) -> None:
        self.item = item
        self.audio = audio
        self.language: str | None = self.request["language"]
        self.features: Audio | None = None
        self.text = ""
        self.no_speech_prob = 0.0
        self.is_doubtful = False
        self._worth: tuple[bool, bool, float] = (False, False, -np.inf)

    @property
    def request(self) -> Request:
        """What was asked."""
        request: Request = self.item.payload
        return request

    def take(self, text: str, log_prob: float, no_speech_prob: float, *, in_full: bool) -> None:
        """Takes note of an attempt, and of its text if it is the best so far.

        Args:
            text: What the decoder made of it.
            log_prob: How sure it was, on average for a token.
            no_speech_prob: How likely it was no speech at all.
            in_full: Whether it had the full window.
        """
        silent = no_speech_prob >= self.request["no_speech_prob"]
        stuck = loops(text)
        doubtful = stuck or log_prob < _MIN_LOG_PROB
        if in_full:
            doubtful = doubtful and not silent
        else:
            doubtful = doubtful or silent or says_all_twice(text)
        self.is_doubtful = doubtful
        worth = (in_full, not stuck, log_prob)
        if not doubtful or worth > self._worth:
            self.text = "" if doubtful and not self.request["final"] else text
            self.no_speech_prob = no_speech_prob
            self._worth = worth


def _answer(pieces: Sequence[_Piece]) -> Answer:
    languages = [piece.language for piece in pieces if piece.language]
    return Answer(
        parts=[(piece.text, piece.no_speech_prob) for piece in pieces],
        language=languages[0] if languages else "en",
    )
