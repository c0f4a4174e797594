"""Voice activity that a test decides."""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.audio.vad.vad_analyzer import VADAnalyzer, VADParams

_WINDOWS_PER_SEC = 100


class FakeVADAnalyzer(VADAnalyzer):
    """Hears a voice where it is told to, or else wherever there is any sound.

    Windows are 10 ms long. The times that turn voice into speech (``start_secs``, ``stop_secs``)
    are those of every analyzer; loudness does not matter unless ``params`` says so.
    """

    def __init__(
        self,
        voice: Sequence[tuple[float, float]] | None = None,
        *,
        sample_rate: int | None = None,
        params: VADParams | None = None,
    ) -> None:
        """Makes an analyzer.

        Args:
            voice: When a voice is heard, as (from, to) in seconds of the audio analysed since the
                sample rate was set; None: in each window that is not digital silence.
            sample_rate: Rate in Hz to insist on, or None to take the one of the transport.
            params: Thresholds and durations; ``VADParams(min_volume=0)`` if None.
        """
        super().__init__(sample_rate=sample_rate, params=params or VADParams(min_volume=0.0))
        self._voice = None if voice is None else [tuple(interval) for interval in voice]
        self._windows_heard = 0

    def num_frames_required(self) -> int:
        """Samples in 10 ms."""
        return self.sample_rate // _WINDOWS_PER_SEC

    def set_sample_rate(self, sample_rate: int) -> None:
        """Sets the rate; the times of the script count from here."""
        self._windows_heard = 0
        super().set_sample_rate(sample_rate)

    def voice_confidence(self, buffer: bytes) -> float:
        """1.0 where there is a voice, else 0.0."""
        # The middle of the window, so that rounding never decides.
        now_secs = (self._windows_heard + 0.5) / _WINDOWS_PER_SEC
        self._windows_heard += 1
        if self._voice is None:
            return 1.0 if any(buffer) else 0.0
        return 1.0 if any(begin <= now_secs < end for begin, end in self._voice) else 0.0
