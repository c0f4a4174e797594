"""The Whisper model that sessions share: CTranslate2 runs for real, on small models made here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import tiny_whisper
from tests.models.recorded import caller

from antiphon.errors import ConfigError
from antiphon.models.model import Item
from antiphon.services.whisper._engine import Answer, Request, Whisper, _Piece
from antiphon.services.whisper._names import SIZES, Model, whisper_files
from antiphon.services.whisper._windows import cut, loops, says_all_twice, window_secs

_RATE = 16_000


def spoken() -> list[bytes]:
    return [sentence.audio for sentence in caller()]


def asked(audio: bytes, **changes: Any) -> Item:
    request = Request(audio=audio, language="en", no_speech_prob=0.9, final=True)
    return Item(request | changes)


def texts(answers: Sequence[Answer | Exception]) -> list[str]:
    found = []
    for answer in answers:
        assert not isinstance(answer, Exception)
        found.append(" ".join(text for text, _ in answer["parts"]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper.build(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def whisper(folder: Path) -> Whisper:
    model = Whisper(model=str(folder), device="cpu", cpu_threads=1)
    model.load()
    return model


def test_a_batch_of_sessions_says_what_each_says_alone(whisper: Whisper) -> None:
    audio = spoken()
    alone = [whisper.run_batch([asked(one)])[0] for one in audio]
    together = whisper.run_batch([asked(one) for one in audio])
    assert texts(together) == texts(alone)
    assert len(set(texts(alone))) > 1  # it does listen
    assert all(len(text.split()) == tiny_whisper.SPOKEN_WORDS for text in texts(alone))
    for one, other in zip(together, alone, strict=True):
        assert not isinstance(one, Exception)
        assert not isinstance(other, Exception)
        assert one["parts"][0][1] == pytest.approx(other["parts"][0][1], abs=1e-4)


def test_a_text_without_a_language_gets_one(whisper: Whisper) -> None:
    (answer,) = whisper.run_batch([asked(spoken()[0], language=None)])
    assert not isinstance(answer, Exception)
    assert answer["language"] == tiny_whisper.DETECTED_LANGUAGE
    mixed = whisper.run_batch([asked(spoken()[0], language=name) for name in ("de", None, "es")])
    assert [answer["language"] for answer in mixed if not isinstance(answer, Exception)] == [
        "de",
        tiny_whisper.DETECTED_LANGUAGE,
        "es",
    ]


def test_a_language_that_it_does_not_know_fails_alone(whisper: Whisper) -> None:
    audio = spoken()[0]
    first, second = whisper.run_batch([asked(audio, language="xx"), asked(audio)])
    assert isinstance(first, ConfigError)
    assert "'xx'" in str(first)
    assert texts([second])[0]


def test_a_model_for_english_only(tmp_path: Path) -> None:
    model = Whisper(model=str(tiny_whisper.build(tmp_path, multilingual=False)), device="cpu")
    model.load()
    (answer,) = model.run_batch([asked(spoken()[1], language=None)])
    assert not isinstance(answer, Exception)
    assert answer["language"] == "en"
    assert len(texts([answer])[0].split()) == tiny_whisper.SPOKEN_WORDS
    model.close()


def test_what_is_long_is_cut_and_joined(whisper: Whisper) -> None:
    long = b"".join(spoken()) * 6
    assert len(long) > 2 * 30 * _RATE * 2
    short = spoken()[0]
    answers = whisper.run_batch([asked(short), asked(long), asked(short)])
    assert not isinstance(answers[1], Exception)
    assert len(answers[1]["parts"]) == len(cut(np.zeros(len(long) // 2, np.float32)))
    assert texts(answers)[0] == texts(answers)[2]
    # More windows than fit in a batch.
    longest = b"".join(spoken()) * 36
    (answer,) = whisper.run_batch([asked(longest)])
    assert not isinstance(answer, Exception)
    assert len(answer["parts"]) > whisper.max_batch


def test_segments_that_nobody_waits_for_leave_the_batch(
    whisper: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [asked(audio) for audio in spoken()]
    alone = texts(whisper.run_batch(items[:1]))
    items[1].cancelled = True
    heard: list[int] = []
    features = Whisper._features

    def count(self: Whisper, piece: _Piece, window: int) -> Any:
        heard.append(items.index(piece.item))
        if len(heard) == 2:  # while the encoder is at work
            items[3].cancelled = True
        return features(self, piece, window)

    monkeypatch.setattr(Whisper, "_features", count)
    before = whisper.statistics()["left_batch"]
    answers = whisper.run_batch(items)
    assert heard == [0, 2, 3, 4]
    assert whisper.statistics()["left_batch"] - before == 2
    assert texts(answers)[0] == alone[0]
    assert texts(answers)[1] == texts(answers)[3] == ""
    assert texts(answers)[4]


def test_what_may_be_no_speech_is_heard_again_in_full(whisper: Whisper) -> None:
    before = whisper.statistics()
    whisper.run_batch([asked(spoken()[0], no_speech_prob=0.9)])
    once = whisper.statistics()
    assert once["attempts"] - before["attempts"] == 1
    assert once["second_attempts"] == before["second_attempts"]

    (answer,) = whisper.run_batch([asked(spoken()[0], no_speech_prob=0.01)])
    assert not isinstance(answer, Exception)
    assert answer["parts"][0][1] > 0.01  # for the service to leave out
    assert whisper.statistics()["second_attempts"] - once["second_attempts"] == 1


def test_interim_texts_are_tried_once(whisper: Whisper) -> None:
    before = whisper.statistics()["attempts"]
    (doubtful, good) = whisper.run_batch(
        [asked(spoken()[0], no_speech_prob=p, final=False) for p in (0.01, 0.9)]
    )
    assert whisper.statistics()["attempts"] - before == 2
    assert texts([doubtful, good])[0] == ""
    assert texts([doubtful, good])[1]


def test_only_what_is_decoded_alike_shares_a_batch(whisper: Whisper) -> None:
    second = bytes(2 * _RATE)
    groups = [whisper.group(asked(second * secs)) for secs in (1, 8, 10, 40)]
    assert groups == [(10, True), (10, True), (15, True), (30, True)]
    assert whisper.group(asked(second, final=False)) == (10, False)


@pytest.mark.parametrize(
    ("attempts", "text"),
    [
        # log probability, probability of no speech, text, in the full window
        ([(-0.2, 0.1, "hello there", False)], "hello there"),
        ([(-0.2, 0.1, "yes yes", False), (-0.3, 0.1, "yes", True)], "yes"),
        ([(-1.4, 0.1, "ape", False), (-1.2, 0.1, "a pear", True), (-0.8, 0.1, "up", True)], "up"),
        ([(-1.1, 0.1, "ape", False), (-1.2, 0.1, "a pear", True)], "a pear"),
        ([(-1.2, 0.1, "a pear", True), (-1.5, 0.1, "pepper", True)], "a pear"),
        ([(-0.1, 0.1, "so " * 60, True), (-1.5, 0.1, "so", True)], "so"),
    ],
)
def test_the_best_attempt_counts(attempts: list[tuple[float, float, str, bool]], text: str) -> None:
    piece = _Piece(asked(b"", no_speech_prob=0.6), np.zeros(0, np.float32))
    doubts = []
    for log_prob, no_speech_prob, said, in_full in attempts:
        piece.take(said, log_prob, no_speech_prob, in_full=in_full)
        doubts.append(piece.is_doubtful)
    assert piece.text == text
    assert all(doubts[:-1])


def test_silence_is_not_tried_again_in_the_full_window() -> None:
    piece = _Piece(asked(b"", no_speech_prob=0.6), np.zeros(0, np.float32))
    doubts = []
    for in_full in (False, True):
        piece.take("Thank you.", -1.4, 0.9, in_full=in_full)
        doubts.append(piece.is_doubtful)
    assert doubts == [True, False]
    assert piece.no_speech_prob == 0.9


@pytest.mark.parametrize(
    ("secs", "window"),
    [(0.1, 10), (9.0, 10), (9.1, 15), (18.9, 20), (19.5, 30), (30, 30), (99, 30)],
)
def test_the_window_fits_the_audio(secs: float, window: int) -> None:
    assert window_secs(int(secs * _RATE)) == window


def test_long_audio_is_cut_where_it_is_quiet() -> None:
    audio = np.full(70 * _RATE, 0.5, np.float32)
    audio[26 * _RATE : 27 * _RATE] = 0.001
    audio[50 * _RATE : 51 * _RATE] = 0.001
    pieces = cut(audio)
    assert np.array_equal(np.concatenate(pieces), audio)
    ends = np.cumsum([len(piece) for piece in pieces]) / _RATE
    assert 26 < ends[0] < 27
    assert 50 < ends[1] < 51
    assert ends[2] == 70
    assert cut(audio[: 30 * _RATE])[0].size == 30 * _RATE


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        ("Hello there. Hello there.", True),
        ("Yes. Yes. Yes.", True),
        ("Hello there.", False),
        ("No, thank you.", False),
        ("It is what it is", False),
        ("", False),
    ],
)
def test_what_is_said_twice_is_recognised(text: str, twice: bool) -> None:
    assert says_all_twice(text) is twice


def test_a_decoder_that_got_stuck_is_recognised() -> None:
    assert loops("and so on " * 40)
    assert not loops("I would like a table for two at seven o'clock, near the window if you can.")
    assert not loops("")


def test_models_have_the_documented_names() -> None:
    assert {model.name: model.value for model in Model} == {
        "TINY": "tiny",
        "BASE": "base",
        "SMALL": "small",
        "MEDIUM": "medium",
        "LARGE": "large-v3",
        "LARGE_V3_TURBO": "deepdml/faster-whisper-large-v3-turbo-ct2",
        "DISTIL_LARGE_V2": "Systran/faster-distil-whisper-large-v2",
        "DISTIL_MEDIUM_EN": "Systran/faster-distil-whisper-medium.en",
    }
    assert whisper_files("tiny").repo == "Systran/faster-whisper-tiny"
    assert whisper_files("distil-small.en").repo == "Systran/faster-distil-whisper-small.en"
    assert whisper_files(Model.LARGE_V3_TURBO.value).repo == Model.LARGE_V3_TURBO.value
    assert whisper_files("tiny").files[-1] == "model.bin"


def test_sizes_are_those_that_faster_whisper_knows() -> None:
    from faster_whisper import available_models

    assert set(SIZES) <= set(available_models())


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no Whisper model 'huge'.*large-v3"):
        whisper_files("huge")


def test_a_folder_without_a_model_is_an_error_of_the_user(tmp_path: Path) -> None:
    model = Whisper(model=str(tmp_path), device="cpu")
    with pytest.raises(ConfigError, match=r"cannot be loaded from .*device='cpu'"):
        model.load()


def test_a_compute_type_that_does_not_exist(folder: Path) -> None:
    model = Whisper(model=str(folder), device="cpu", compute_type="int7")
    with pytest.raises(ConfigError, match="compute_type='int7'"):
        model.load()
