"""Audio: voice activity, end of turn, interruptions, filters, mixers and resamplers.

Everywhere in this package a block of audio is ``bytes`` of int16 little-endian PCM, mono unless a
parameter says otherwise.
"""
