"""The Silero model on speech, silence and noise.

``espeak_16k.wav`` says "I would like a table for two, please." in eSpeak's American English voice.
"""

import os
import time
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soxr

import antiphon.vad.silero
import antiphon.vad.vad_analyzer
from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.audio.vad.vad_analyzer import VADAnalyzer, VADParams, VADState

Samples = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def speech() -> Samples:
    with wave.open(str(Path(__file__).parent.parent / "data" / "espeak_16k.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def at_rate(samples: Samples, rate: int) -> Samples:
    converted = soxr.resample(samples, 16000, rate) if rate != 16000 else samples
    return np.asarray(converted, "<i2")


def analyzer(rate: int = 16000, params: VADParams | None = None) -> SileroVADAnalyzer:
    vad = SileroVADAnalyzer(params=params)
    vad.set_sample_rate(rate)
    return vad


def confidences(vad: SileroVADAnalyzer, samples: Samples) -> list[float]:
    n = vad.num_frames_required()
    starts = range(0, len(samples) - n + 1, n)
    return [vad.voice_confidence(samples[i : i + n].tobytes()) for i in starts]


def changes(vad: VADAnalyzer, samples: Samples) -> list[tuple[float, VADState]]:
    """Seconds and state at every change between quiet and speaking, fed in pieces of 20 ms."""
    found = [(0.0, VADState.QUIET)]
    size = vad.sample_rate // 50
    for i in range(0, len(samples), size):
        state = vad.analyze_audio(samples[i : i + size].tobytes())
        if state in (VADState.QUIET, VADState.SPEAKING) and state is not found[-1][1]:
            found.append(((i + size) / vad.sample_rate, state))
    return found


@pytest.mark.parametrize("rate", [8000, 16000])
def test_speech_is_heard(speech: Samples, rate: int) -> None:
    heard = np.array(confidences(analyzer(rate), at_rate(speech, rate)))
    assert np.mean(heard > 0.7) > 0.8
    assert heard.max() > 0.99


@pytest.mark.parametrize("rate", [8000, 16000])
def test_silence_noise_and_tones_are_not_speech(rate: int) -> None:
    noise = np.random.default_rng(1).standard_normal(2 * rate) * 1000
    tone = 8000 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    for signal in (np.zeros(2 * rate), noise, tone):
        assert max(confidences(analyzer(rate), signal.astype("<i2"))) < 0.4


def test_both_rates_agree(speech: Samples) -> None:
    wide = np.array(confidences(analyzer(16000), speech))
    narrow = np.array(confidences(analyzer(8000), at_rate(speech, 8000)))
    n = min(len(wide), len(narrow))
    assert np.mean((wide[:n] > 0.7) == (narrow[:n] > 0.7)) > 0.9


@pytest.mark.parametrize("rate", [8000, 16000])
def test_an_utterance_starts_and_stops(speech: Samples, rate: int) -> None:
    silence = np.zeros(16000, "<i2")
    audio = at_rate(np.concatenate((silence, speech, silence)), rate)
    found = changes(analyzer(rate), audio)
    assert [state for _, state in found] == [VADState.QUIET, VADState.SPEAKING, VADState.QUIET]
    started, stopped = found[1][0], found[2][0]
    end_of_speech = 1.0 + len(speech) / 16000
    assert 1.2 <= started < 1.5
    assert end_of_speech + 0.6 < stopped < end_of_speech + 1.0


def test_the_model_state_belongs_to_the_analyzer(speech: Samples) -> None:
    alone = confidences(analyzer(), speech)
    one, other = analyzer(), analyzer()
    n = one.num_frames_required()
    noise = np.random.default_rng(2).standard_normal(n) * 5000
    together = []
    for i in range(0, len(speech) - n + 1, n):
        together.append(one.voice_confidence(speech[i : i + n].tobytes()))
        other.voice_confidence(noise.astype("<i2").tobytes())
    assert together == alone


def test_setting_the_rate_again_starts_over(speech: Samples) -> None:
    vad = analyzer()
    first = confidences(vad, speech)
    vad.set_sample_rate(16000)
    assert confidences(vad, speech) == first


def test_the_model_state_is_reset_after_five_seconds_in_a_pause(speech: Samples) -> None:
    # 156 windows of 32 ms are 5 s.
    silence = np.zeros(156 * 512, "<i2")
    vad = analyzer()
    confidences(vad, silence)
    assert confidences(vad, speech) == confidences(analyzer(), speech)


def test_a_voice_defers_the_reset_but_not_for_ever(speech: Samples) -> None:
    n = 512
    voiced = speech[8000:]
    vad = analyzer()
    stream = vad._stream
    stream.windows = 155
    for i in range(0, 4 * n, n):
        window = voiced[i : i + n].tobytes()
        stream.confidence = 1.0
        vad.voice_confidence(window)
    assert stream.windows == 159
    stream.windows = 312
    stream.confidence = 1.0
    last = vad.voice_confidence(voiced[:n].tobytes())
    assert stream.windows == 1
    assert last == analyzer().voice_confidence(voiced[:n].tobytes())


@pytest.mark.parametrize("rate", [0, 11025, 44100, 48000])
def test_other_rates_are_refused(rate: int) -> None:
    with pytest.raises(ValueError, match=r"8000 or 16000 Hz, not"):
        SileroVADAnalyzer().set_sample_rate(rate)
    with pytest.raises(ValueError, match="8000 or 16000"):
        SileroVADAnalyzer(sample_rate=rate or 1).set_sample_rate(16000)


def test_what_is_not_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="512 samples at 16000 Hz, not 256"):
        analyzer().voice_confidence(bytes(512))
    with pytest.raises(RuntimeError, match="set_sample_rate"):
        SileroVADAnalyzer().voice_confidence(bytes(1024))


def test_windows() -> None:
    assert analyzer(16000).num_frames_required() == 512
    assert analyzer(8000).num_frames_required() == 256


def test_the_constructor_loads_nothing_and_the_model_is_shared() -> None:
    assert SileroVADAnalyzer(params=VADParams(stop_secs=0.5))._network is None
    assert analyzer()._network is analyzer()._network is not None


def test_onnxruntime_is_told_to_report_nothing() -> None:
    analyzer()
    assert os.environ["ORT_DISABLE_TELEMETRY"]


def test_older_import_paths() -> None:
    assert antiphon.vad.silero.SileroVADAnalyzer is SileroVADAnalyzer
    assert antiphon.vad.vad_analyzer.VADParams is VADParams


def test_a_piece_costs_well_under_a_millisecond(speech: Samples) -> None:
    vad = analyzer()
    pieces = [speech[i : i + 320].tobytes() for i in range(0, len(speech) - 319, 320)]
    vad.analyze_audio(pieces[0])
    started = time.process_time()
    for piece in pieces:
        vad.analyze_audio(piece)
    # Measured 0.12 ms of CPU a piece; the margin is for slow machines.
    assert (time.process_time() - started) / len(pieces) < 0.001
