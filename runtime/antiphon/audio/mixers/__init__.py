"""Mixers over the audio that goes out."""
