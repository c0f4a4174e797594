"""Silero as a model that sessions share: windows of many, one call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

from antiphon.audio.vad._silero_network import WINDOW_SAMPLES, SileroStream, silero_network
from antiphon.models.model import Item, Model


class SileroModel(Model):
    """Hears voices in the streams of many sessions.

    A session is opened with its sample rate in Hz, or with `SileroStream.to_bytes` of a stream that goes on
    here. Its requests are windows, int16 little-endian mono PCM; a result is the confidence that it holds
    a voice, 0 to 1.
    """

    max_batch = 64
    longest_wait_secs = 0.001
    # A full batch takes half a millisecond.
    quick: ClassVar[bool] = True
    # Measured: a session's process saves next to nothing, and waits longer. See docs/models.md.
    in_actor: ClassVar[bool] = False

    def load(self) -> None:
        """Loads the networks of both rates, and hears a window with each."""
        for rate, samples in WINDOW_SAMPLES.items():
            silero_network(rate).hear([SileroStream(rate)], [bytes(2 * samples)])

    def group(self, item: Item) -> Hashable:
        """By the length of the window: the rates have networks of their own."""
        return len(item.payload)

    def run_batch(self, items: Sequence[Item]) -> Sequence[Any]:
        """Hears a window of each of several sessions."""
        heard: list[SileroStream] = []
        windows: list[bytes] = []
        results: list[Any] = [None] * len(items)
        places: list[int] = []
        rate = next(
            (rate for rate, n in WINDOW_SAMPLES.items() if 2 * n == len(items[0].payload)), 0
        )
        for place, item in enumerate(items):
            assert item.session is not None
            stream = item.session.state
            if stream is None:
                stream = item.session.state = _stream_of(item.session.options)
            if stream.rate != rate:
                results[place] = ValueError(
                    f"Silero VAD takes windows of {WINDOW_SAMPLES[stream.rate]} samples at "
                    f"{stream.rate} Hz, not {len(item.payload) / 2:g}"
                )
                continue
            heard.append(stream)
            windows.append(item.payload)
            places.append(place)
        if heard:
            silero_network(rate).hear(heard, windows)
        for place, stream in zip(places, heard, strict=True):
            results[place] = stream.confidence
        return results

    def export_state(self, state: SileroStream) -> bytes:
        """The stream as bytes."""
        return state.to_bytes()

    def import_state(self, exported: bytes) -> SileroStream:
        """The stream that goes on here."""
        return SileroStream.from_bytes(exported)


def _stream_of(options: Any) -> SileroStream:
    if isinstance(options, bytes):
        return SileroStream.from_bytes(options)
    if options not in WINDOW_SAMPLES:
        raise ValueError(f"Silero VAD needs a sample rate of 8000 or 16000 Hz, not {options}")
    return SileroStream(options)
