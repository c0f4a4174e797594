"""A real Whisper and a real Piper voice on the repository's speech: ``make test-models``.

They are downloaded from their hub at the first run (``antiphon models pull`` does it ahead), and never in
``make test``. ANTIPHON_TEST_WHISPER and ANTIPHON_TEST_VOICE choose others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from tests.models.recorded import SAMPLE_RATE_HZ, Sentence, caller, espeak, word_errors

from antiphon.audio.resamplers.soxr_resampler import SOXRAudioResampler
from antiphon.models.model import Item
from antiphon.services.piper._engine import Piper
from antiphon.services.piper._engine import Request as TextRequest
from antiphon.services.whisper._engine import Answer, Request, Whisper

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("ANTIPHON_TEST_MODELS") != "1",
        reason="needs a hub of models: make test-models",
    ),
    pytest.mark.timeout(1800),
]

_NO_SPEECH_PROB = 0.4
# Of the smallest model; larger ones make fewer errors.
_MAX_WORD_ERRORS = 0.2


@pytest.fixture(scope="module")
def whisper() -> Iterator[Whisper]:
    model = Whisper(model=os.environ.get("ANTIPHON_TEST_WHISPER", "tiny"), compute_type="int8")
    model.load()
    yield model
    model.close()


@pytest.fixture
def piper() -> Iterator[Piper]:
    model = Piper(voice=os.environ.get("ANTIPHON_TEST_VOICE", "en_US-amy-low"))
    model.load()
    yield model
    model.close()


def _asked(audio: bytes, language: str | None = "en") -> Item:
    return Item(Request(audio=audio, language=language, no_speech_prob=_NO_SPEECH_PROB, final=True))


def _texts(answers: Sequence[Answer | Exception]) -> list[str]:
    texts = []
    for answer in answers:
        assert not isinstance(answer, Exception)
        texts.append(" ".join(text for text, silent in answer["parts"] if silent < _NO_SPEECH_PROB))
    return texts


def _word_error_rate(sentences: Sequence[Sentence], texts: Sequence[str]) -> float:
    errors = 0
    for sentence, text in zip(sentences, texts, strict=True):
        wrong = word_errors(sentence.text, text)
        errors += wrong
        print(f"  {wrong} wrong: {sentence.text!r} was understood as {text!r}")
    rate = errors / sum(len(sentence.text.split()) for sentence in sentences)
    print(f"  word error rate {rate:.1%}")
    return rate


def test_recorded_speech_is_understood(whisper: Whisper) -> None:
    sentences = [*caller(), espeak()]
    together = _texts(whisper.run_batch([_asked(one.audio) for one in sentences]))
    print("\nrecorded speech:")
    assert _word_error_rate(sentences, together) <= _MAX_WORD_ERRORS
    alone = [_texts(whisper.run_batch([_asked(one.audio)]))[0] for one in sentences]
    assert together == alone


def test_the_language_is_found_out(whisper: Whisper) -> None:
    (answer,) = whisper.run_batch([_asked(caller()[1].audio, language=None)])
    assert not isinstance(answer, Exception)
    assert answer["language"] == "en"


def test_what_is_no_speech_is_left_out(whisper: Whisper) -> None:
    silence = bytes(4 * SAMPLE_RATE_HZ)
    noise = np.random.default_rng(1).normal(0, 300, 2 * SAMPLE_RATE_HZ).astype("<i2").tobytes()
    texts = _texts(whisper.run_batch([_asked(silence), _asked(noise)]))
    print(f"\nsilence and noise were understood as {texts}")
    assert texts == ["", ""]


async def test_what_the_voice_says_is_understood(whisper: Whisper, piper: Piper) -> None:
    sentences = caller()
    requests = [
        TextRequest(
            text=f"{one.text}.",
            speaker=None,
            length_scale=None,
            noise_scale=None,
            noise_w_scale=None,
            volume=1.0,
        )
        for one in sentences
    ]
    spoken = []
    resampler = SOXRAudioResampler()
    for first in range(0, len(requests), piper.max_batch):
        batch = [Item(request) for request in requests[first : first + piper.max_batch]]
        for answer in piper.run_batch(batch):
            assert not isinstance(answer, Exception)
            audio = await resampler.resample(answer["audio"], answer["sample_rate"], SAMPLE_RATE_HZ)
            spoken.append(bytes(SAMPLE_RATE_HZ) + audio + bytes(SAMPLE_RATE_HZ))
    print("\nthe voice:")
    texts = _texts(whisper.run_batch([_asked(audio) for audio in spoken]))
    assert _word_error_rate(sentences, texts) <= _MAX_WORD_ERRORS
