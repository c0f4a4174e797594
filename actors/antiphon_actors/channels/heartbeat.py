"""Decides when to ping a peer and when to call it dead. Time enters as an argument."""

from __future__ import annotations

from enum import Enum

# Weight of a new round trip in the smoothed one, as in RFC 6298.
_ALPHA = 0.125


class Beat(Enum):
    """What a tick asks for."""

    PING = "ping"
    DEAD = "dead"


class Heartbeat:
    """Silence counter of one link.

    A tick that comes late was late because this process stalled; what the peer sent meanwhile
    may still be unread. So each tick counts at most one and a half periods of silence, however
    late it is.

    Attributes:
        rtt_secs: Smoothed round trip of pings, None before the first.
        last_rtt_secs: The newest round trip.
    """

    __slots__ = ("_dead_secs", "_last", "_period_secs", "_silent_secs", "last_rtt_secs", "rtt_secs")

    def __init__(self, *, period_secs: float, dead_secs: float, now_secs: float) -> None:
        self._period_secs = period_secs
        self._dead_secs = dead_secs
        self._last = now_secs
        self._silent_secs = 0.0
        self.rtt_secs: float | None = None
        self.last_rtt_secs: float | None = None

    @property
    def silent_secs(self) -> float:
        """For how long nothing has come, as far as the ticks can tell."""
        return self._silent_secs

    def tick(self, now_secs: float, *, heard: bool) -> Beat:
        """Takes the time, and whether anything came since the last tick."""
        elapsed = min(now_secs - self._last, 1.5 * self._period_secs)
        self._last = now_secs
        self._silent_secs = 0.0 if heard else self._silent_secs + elapsed
        return Beat.DEAD if self._silent_secs >= self._dead_secs else Beat.PING

    def pong(self, rtt_secs: float) -> None:
        """Takes the round trip of an answered ping."""
        self.last_rtt_secs = rtt_secs
        if self.rtt_secs is None:
            self.rtt_secs = rtt_secs
        else:
            self.rtt_secs += _ALPHA * (rtt_secs - self.rtt_secs)
