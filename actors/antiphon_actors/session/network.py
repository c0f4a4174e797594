"""What a process needs to know to talk to processes of other nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from antiphon_actors.channels.credentials import TlsCredentials
from antiphon_actors.channels.uris import tls_address

ROLE: Final = "node"
"""The role in every certificate: the processes of a node share one, and all talk to each other."""


@dataclass(frozen=True, slots=True)
class Network:
    """A node's place in its cluster; the same for all processes of the node.

    Attributes:
        cluster: Name of the cluster, as certificates state it.
        node: Name of this node, likewise.
        host: IP address of this node.
        directory: Where the node's certificate is; its node agent renews it there.
    """

    cluster: str
    node: str
    host: str
    directory: Path

    @property
    def credentials(self) -> TlsCredentials:
        """Whom the node's processes are, and whom they talk to."""
        return TlsCredentials(self.directory, self.cluster, frozenset({ROLE}))

    @property
    def listen_uri(self) -> str:
        """Where a process listens for other nodes: a free port of the node's address."""
        return tls_address(self.host, 0).uri
