"""Filters over the audio that comes in."""
