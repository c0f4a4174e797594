"""Same names as :mod:`antiphon.audio.vad.vad_analyzer`."""

from antiphon.audio.vad.vad_analyzer import VADAnalyzer, VADParams, VADState

__all__ = ["VADAnalyzer", "VADParams", "VADState"]
