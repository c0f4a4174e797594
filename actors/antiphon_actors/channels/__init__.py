"""How frames travel between processes: links, streams with two lanes, and calls.

A `Hub` makes one `Link` to each peer process. A link carries streams (each an ordered lane held
back by credits, and an urgent lane that overtakes it), calls and notifications. Payloads are opaque
bytes here; `antiphon.frames.codec` makes and reads them. Nothing in this package knows of Ray.
"""

from antiphon_actors.channels.credentials import Identity, TlsCredentials
from antiphon_actors.channels.errors import (
    CallDeadlineExceeded,
    ChannelBroken,
    ChannelBusy,
    ChannelClosed,
    ChannelError,
    ChannelRefused,
    CredentialsError,
    DuplicateLink,
    EndOfChannel,
    HandshakeError,
    ProtocolViolation,
    RemoteCallError,
    UnsupportedAddress,
)
from antiphon_actors.channels.handshake import PeerFacts
from antiphon_actors.channels.hub import Hub
from antiphon_actors.channels.hub_statistics import HubStatistics
from antiphon_actors.channels.in_stream import Acceptance, Delivery, StreamReceiver
from antiphon_actors.channels.limits import DEFAULT_LIMITS, Limits
from antiphon_actors.channels.link import Link, LinkState, LinkStatistics
from antiphon_actors.channels.out_statistics import OutStreamStatistics
from antiphon_actors.channels.out_stream import OutStream
from antiphon_actors.channels.retained import Sent

__all__ = [
    "DEFAULT_LIMITS",
    "Acceptance",
    "CallDeadlineExceeded",
    "ChannelBroken",
    "ChannelBusy",
    "ChannelClosed",
    "ChannelError",
    "ChannelRefused",
    "CredentialsError",
    "Delivery",
    "DuplicateLink",
    "EndOfChannel",
    "HandshakeError",
    "Hub",
    "HubStatistics",
    "Identity",
    "Limits",
    "Link",
    "LinkState",
    "LinkStatistics",
    "OutStream",
    "OutStreamStatistics",
    "PeerFacts",
    "ProtocolViolation",
    "RemoteCallError",
    "Sent",
    "StreamReceiver",
    "TlsCredentials",
    "UnsupportedAddress",
]
