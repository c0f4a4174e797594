"""Same names as :mod:`antiphon.audio.vad.silero`."""

from antiphon.audio.vad.silero import SileroVADAnalyzer

__all__ = ["SileroVADAnalyzer"]
