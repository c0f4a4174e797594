"""What a hub counts."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon_actors.channels.link import LinkStatistics


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """Counters of a hub.

    Attributes:
        links: One entry a link that has not ended.
        opened: Links established so far.
        refused: Connections turned away: foreign user, no valid certificate of this cluster, no
            TLS handshake in time, too many links or handshakes. Those that this hub dialled and
            did not trust count as well.
        handshaking: Connections accepted that have not shown who they are yet.
        handshakes_failed: New links that did not come about, duplicates not counted.
        duplicates: New links given up because one existed.
        violations: Links ended because the peer broke the protocol.
        broken: Links lost without a goodbye, violations not counted.
        overflows: Links ended because the peer did not read.
        shared_payloads: Payloads in shared memory that are not processed yet.
        shared_bytes: What that memory amounts to, with what is kept for further ones.
        tasks: Handlers and dials running now.
        certificate_expires: When the certificate of this process does, in seconds since 1970; None
            before the first use of a `tls://` address.
    """

    links: tuple[LinkStatistics, ...]
    opened: int
    refused: int
    handshaking: int
    handshakes_failed: int
    duplicates: int
    violations: int
    broken: int
    overflows: int
    shared_payloads: int
    shared_bytes: int
    tasks: int
    certificate_expires: float | None
