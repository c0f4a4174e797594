"""Older address of :mod:`antiphon.audio.vad`, kept for the samples that import from here."""
