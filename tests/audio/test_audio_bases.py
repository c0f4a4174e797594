"""The interfaces of filters and mixers can be fulfilled, and not instantiated unfulfilled."""

import pytest

from antiphon.audio.filters.base_audio_filter import BaseAudioFilter
from antiphon.audio.mixers.base_audio_mixer import BaseAudioMixer
from antiphon.audio.turn.base_turn_analyzer import BaseTurnAnalyzer
from antiphon.audio.vad.vad_analyzer import VADAnalyzer


@pytest.mark.parametrize(
    ("base", "methods"),
    [
        (BaseAudioFilter, {"start", "stop", "process_frame", "filter"}),
        (BaseAudioMixer, {"start", "stop", "process_frame", "mix"}),
        (
            BaseTurnAnalyzer,
            {"speech_triggered", "params", "append_audio", "analyze_end_of_turn", "clear"},
        ),
        (VADAnalyzer, {"num_frames_required", "voice_confidence"}),
    ],
)
def test_what_a_subclass_must_supply(base: type, methods: set[str]) -> None:
    assert getattr(base, "__abstractmethods__") == methods  # noqa: B009
    with pytest.raises(TypeError):
        base()
