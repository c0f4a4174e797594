"""Every bound of a hub, its links and their streams, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from antiphon_actors.channels.errors import HandshakeError

# Both ends use the smaller of their two values, so neither sends what the other would refuse.
_SMALLER_WINS = (
    "max_record_bytes",
    "max_key_bytes",
    "max_streams",
    "max_calls",
    "window_frames",
    "window_bytes",
    "urgent_frames",
    "urgent_bytes",
    "heartbeat_period_secs",
)
# A peer that expects to stall for long is not declared dead by a stricter neighbour.
_LARGER_WINS = ("heartbeat_dead_secs",)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one hub; each link uses what both its ends can agree to.

    Attributes:
        max_record_bytes: Largest record accepted, its length prefix not counted.
        max_key_bytes: Largest key of a stream.
        max_streams: Streams open at once on one link, in each direction.
        max_calls: Calls outstanding at once on one link, in each direction.
        max_links: Links of one hub, those still shaking hands included.
        max_handshakes: Connections of one `tls://` listener that have not shown who they are yet.
        max_pending_bytes: What may wait in this process for one link's socket to become
            writable, ordered frames (bounded by their windows) not counted.
        window_frames: Ordered frames of one stream that are sent and not yet processed.
        window_bytes: The same in bytes; one larger frame passes when it is alone.
        urgent_frames: Urgent frames of one stream that are sent and not yet processed.
        urgent_bytes: The same in bytes.
        shared_payload_bytes: Payloads from this size on go to a peer on the same machine by shared
            memory, where both can; for this side's own payloads.
        max_shared_bytes: Shared memory of one hub; beyond it payloads go through their sockets.
        write_high_bytes: From this much in the transport's buffer on, records wait on our side,
            where urgent ones can still overtake.
        ack_delay_secs: How long a processed frame may wait for others to be acknowledged with,
            unless a quarter of the window is reached first.
        heartbeat_period_secs: Between two pings.
        heartbeat_dead_secs: A peer from which nothing came for this long is dead.
        handshake_secs: From connecting to an established link; over `tls://` once for the TLS
            handshake and once for ours.
        open_secs: From opening a stream to the peer's answer.
        close_secs: For flushing what waits when a link or stream closes gracefully.
    """

    max_record_bytes: int = 32 << 20
    max_key_bytes: int = 1024
    max_streams: int = 8192
    max_calls: int = 1024
    max_links: int = 1024
    max_handshakes: int = 64
    max_pending_bytes: int = 64 << 20
    window_frames: int = 256
    window_bytes: int = 1 << 20
    urgent_frames: int = 4096
    urgent_bytes: int = 16 << 20
    shared_payload_bytes: int = 256 << 10
    max_shared_bytes: int = 64 << 20
    write_high_bytes: int = 64 << 10
    ack_delay_secs: float = 0.02
    heartbeat_period_secs: float = 0.5
    heartbeat_dead_secs: float = 3.0
    handshake_secs: float = 5.0
    open_secs: float = 5.0
    close_secs: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "ack_delay_secs" and not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be positive")
        if self.ack_delay_secs < 0:
            raise ValueError("ack_delay_secs must not be negative")

    def offer(self) -> dict[str, int | float]:
        """Returns the values that are negotiated, as they travel in the handshake."""
        values = asdict(self)
        return {name: values[name] for name in _SMALLER_WINS + _LARGER_WINS}

    def agreed_with(self, theirs: Mapping[object, object]) -> Limits:
        """Returns what holds on a link whose other end offered `theirs`.

        Both ends compute the same negotiated values. A value the peer does not name keeps ours, so
        a field can be added later.

        Raises:
            HandshakeError: An offered value is not a positive number.
        """
        agreed: dict[str, int | float] = {}
        for name, ours in self.offer().items():
            value = theirs.get(name, ours)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise HandshakeError(f"the peer offered {name}={value!r}")
            # By the declared type: who writes `heartbeat_period_secs=1` still takes 0.5.
            if name in _WHOLE_NUMBERS and not isinstance(value, int):
                raise HandshakeError(f"the peer offered {name}={value!r}")
            agreed[name] = min(ours, value) if name in _SMALLER_WINS else max(ours, value)
        return replace(self, **agreed)  # type: ignore[arg-type]


_WHOLE_NUMBERS = frozenset(field.name for field in fields(Limits) if field.type == "int")

DEFAULT_LIMITS = Limits()
