"""Counters of the sending end of a stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutStreamStatistics:
    """Counters of a sending end.

    Attributes:
        sent: Ordered frames handed to the link.
        acked: Of these, processed by the peer.
        in_flight_frames: Taken and not yet processed, those that wait here included.
        in_flight_bytes: The same in bytes.
        queued: Taken, but still here because the socket is not writable.
        waiting: Callers of `send` that wait for credit.
        dropped: Dropped by `drop_pending`.
        retained: Left and not safe at the peer yet; of streams that can be resumed.
        forgotten: Frames that a resumption could not give again, because there were too many.
        urgent_sent: Urgent frames handed to the link.
        urgent_acked: Of these, processed by the peer.
        urgent_in_flight_bytes: Bytes of urgent frames not yet processed.
    """

    sent: int
    acked: int
    in_flight_frames: int
    in_flight_bytes: int
    queued: int
    waiting: int
    dropped: int
    retained: int
    forgotten: int
    urgent_sent: int
    urgent_acked: int
    urgent_in_flight_bytes: int
