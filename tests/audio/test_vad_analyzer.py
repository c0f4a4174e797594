"""The state machine of voice activity, with a scripted model."""

import numpy as np
import pytest
from pydantic import ValidationError

from antiphon.audio.vad.vad_analyzer import VADAnalyzer, VADParams, VADState

RATE = 16000
WINDOW = 512
QUIET, STARTING = VADState.QUIET, VADState.STARTING
SPEAKING, STOPPING = VADState.SPEAKING, VADState.STOPPING


def tone(samples: int = WINDOW, amplitude: float = 12000) -> bytes:
    wave = amplitude * np.sin(2 * np.pi * 440 * np.arange(samples) / RATE)
    return wave.astype("<i2").tobytes()


class ScriptedVAD(VADAnalyzer):
    """Says what it is told to."""

    def __init__(self, *, sample_rate: int | None = None, params: VADParams | None = None) -> None:
        super().__init__(sample_rate=sample_rate, params=params)
        self.confidence = 1.0
        self.windows: list[bytes] = []

    def num_frames_required(self) -> int:
        return WINDOW

    def voice_confidence(self, buffer: bytes) -> float:
        self.windows.append(buffer)
        return self.confidence


def vad(**params: float) -> ScriptedVAD:
    analyzer = ScriptedVAD(params=VADParams(**{"min_volume": 0.0, **params}))
    analyzer.set_sample_rate(RATE)
    return analyzer


def feed(analyzer: ScriptedVAD, confidence: float, windows: int) -> list[VADState]:
    analyzer.confidence = confidence
    return [analyzer.analyze_audio(tone()) for _ in range(windows)]


def test_documented_defaults() -> None:
    params = VADParams()
    assert (params.confidence, params.start_secs) == (0.7, 0.2)
    assert (params.stop_secs, params.min_volume) == (0.8, 0.6)


@pytest.mark.parametrize("bad", [{"confidence": 1.1}, {"min_volume": -0.1}, {"stop_secs": -1}])
def test_parameters_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        VADParams(**bad)


def test_speech_starts_after_six_windows_and_stops_after_twenty_five() -> None:
    analyzer = vad()
    assert feed(analyzer, 0.7, 7) == [STARTING] * 5 + [SPEAKING] * 2
    assert feed(analyzer, 0.69, 26) == [STOPPING] * 24 + [QUIET] * 2


def test_a_short_noise_does_not_start_speech() -> None:
    analyzer = vad()
    assert feed(analyzer, 1.0, 5) == [STARTING] * 5
    assert feed(analyzer, 0.0, 1) == [QUIET]
    assert feed(analyzer, 1.0, 6) == [STARTING] * 5 + [SPEAKING]


def test_a_short_pause_does_not_stop_speech() -> None:
    analyzer = vad()
    feed(analyzer, 1.0, 6)
    assert feed(analyzer, 0.0, 24) == [STOPPING] * 24
    assert feed(analyzer, 1.0, 1) == [SPEAKING]
    assert feed(analyzer, 0.0, 25) == [STOPPING] * 24 + [QUIET]


def test_durations_of_zero_mean_at_once() -> None:
    analyzer = vad(start_secs=0.0, stop_secs=0.0)
    assert feed(analyzer, 1.0, 1) == [SPEAKING]
    assert feed(analyzer, 0.0, 1) == [QUIET]


def test_quiet_audio_is_not_speech_however_sure_the_model() -> None:
    analyzer = vad(min_volume=0.6, start_secs=0.0)
    analyzer.confidence = 1.0
    assert analyzer.analyze_audio(tone(amplitude=2)) is QUIET


def test_the_volume_is_smoothed() -> None:
    # 0.2 of the way from 0 each window: 1 - 0.8**n times the volume of about 0.97 passes 0.6 at n = 5.
    states = feed(vad(min_volume=0.6, start_secs=0.0), 1.0, 5)
    assert states == [QUIET] * 4 + [SPEAKING]


def test_pieces_of_any_size_make_the_same_windows() -> None:
    audio = tone(WINDOW * 6)
    whole, pieces = vad(), vad()
    assert whole.analyze_audio(audio) is SPEAKING
    states = [pieces.analyze_audio(audio[i : i + 640]) for i in range(0, len(audio), 640)]
    assert states[-1] is SPEAKING
    assert pieces.windows == whole.windows
    assert b"".join(whole.windows) == audio


def test_less_than_a_window_changes_nothing() -> None:
    analyzer = vad(start_secs=0.0)
    assert analyzer.analyze_audio(tone(WINDOW - 1)) is QUIET
    assert analyzer.analyze_audio(b"") is QUIET
    assert analyzer.windows == []


def test_new_parameters_start_over_in_quiet() -> None:
    analyzer = vad()
    feed(analyzer, 1.0, 6)
    analyzer.set_params(VADParams(start_secs=0.064, min_volume=0.0))
    assert analyzer.params.start_secs == 0.064
    assert analyzer.analyze_audio(b"") is QUIET
    assert feed(analyzer, 1.0, 2) == [STARTING, SPEAKING]


def test_the_rate_of_the_constructor_goes_first() -> None:
    analyzer = ScriptedVAD(sample_rate=RATE)
    assert analyzer.sample_rate == 0
    analyzer.set_sample_rate(48000)
    assert analyzer.sample_rate == RATE
    assert analyzer.num_channels == 1


def test_without_a_rate_audio_is_refused() -> None:
    with pytest.raises(RuntimeError, match="set_sample_rate"):
        ScriptedVAD().analyze_audio(tone())
    assert ScriptedVAD(sample_rate=RATE).analyze_audio(tone()) is QUIET
