"""Addresses of hubs: `unix:///dir/name.sock`, `tls://host:port`, `inproc://name`.

A process that peers of its own node and of others talk to has two of them. Its `ProcessAddress`
holds both in one text, by which it is known everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from antiphon_actors.channels.errors import UnsupportedAddress

# sun_path of struct sockaddr_un holds 108 bytes on Linux, its final zero included.
_MAX_UNIX_PATH_BYTES = 107

_MAX_PORT = (1 << 16) - 1
# `tls://:7000` is for this machine only. Who wants more names an address.
_DEFAULT_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URI.

    Attributes:
        scheme: Which transport: `unix`, `tls` or `inproc`.
        target: The socket's absolute path, `host:port`, or the name.
    """

    scheme: str
    target: str

    @property
    def uri(self) -> str:
        """The address in its normal form."""
        return f"{self.scheme}://{self.target}"

    @property
    def host_port(self) -> tuple[str, int]:
        """Host and port of a `tls` address."""
        host, _, port = self.target.rpartition(":")
        return host.strip("[]"), int(port)


def tls_address(host: str, port: int) -> Address:
    """Returns the address of a TCP port; an IPv6 address gets its brackets."""
    return Address("tls", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def parse_uri(uri: str) -> Address:
    """Returns the address that `uri` names.

    Raises:
        UnsupportedAddress: The URI is malformed or no transport serves its scheme.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UnsupportedAddress(f"not a channel URI: {uri!r} ({error})") from error
    if parts.query or parts.fragment:
        raise UnsupportedAddress(f"a channel URI has no query and no fragment: {uri!r}")
    if parts.scheme == "unix":
        path = unquote(parts.path)
        if parts.netloc or not path.startswith("/") or path.endswith("/"):
            raise UnsupportedAddress(f"expected unix:///absolute/path.sock, got {uri!r}")
        if "\0" in path or len(path.encode()) > _MAX_UNIX_PATH_BYTES:
            raise UnsupportedAddress(
                f"the path of a Unix socket has at most {_MAX_UNIX_PATH_BYTES} bytes: {uri!r}"
            )
        return Address("unix", path)
    if parts.scheme == "inproc":
        name = unquote(parts.netloc + parts.path)
        if not name:
            raise UnsupportedAddress(f"expected inproc://name, got {uri!r}")
        return Address("inproc", name)
    if parts.scheme == "tls":
        return _parse_tls(uri, parts)
    raise UnsupportedAddress(
        f"no transport for {uri!r}; use unix:///path, tls://host:port or inproc://name"
    )


def _parse_tls(uri: str, parts: SplitResult) -> Address:
    try:
        port = parts.port
    except ValueError as error:
        raise UnsupportedAddress(f"a port is a number up to {_MAX_PORT}: {uri!r}") from error
    if port is None or parts.path or parts.username is not None:
        raise UnsupportedAddress(f"expected tls://host:port, got {uri!r}")
    return tls_address(parts.hostname or _DEFAULT_HOST, port)


@dataclass(frozen=True, slots=True)
class ProcessAddress:
    """Where a process listens.

    Attributes:
        local: URI for peers on its own node.
        remote: `tls` URI for peers on other nodes; empty where there are none.
        node: Name of its node, as its certificate states it; empty without `remote`.
    """

    local: str
    remote: str = ""
    node: str = ""

    @property
    def text(self) -> str:
        """Both URIs in one: the local one alone, or `tls://host:port?node=NAME&unix=PATH`."""
        if not self.remote:
            return self.local
        return f"{self.remote}?node={quote(self.node)}&unix={quote(parse_uri(self.local).target)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the address that `text` stands for; a plain URI is a local one.

        Raises:
            UnsupportedAddress: The text is malformed.
        """
        remote, mark, query = text.partition("?")
        if not mark:
            return cls(text)
        fields = parse_qs(query)
        node, path = fields.get("node", []), fields.get("unix", [])
        if not remote.startswith("tls://") or len(node) != 1 or len(path) != 1:
            raise UnsupportedAddress(
                f"expected tls://host:port?node=NAME&unix=PATH of a process, got {text!r}"
            )
        return cls(f"unix://{quote(path[0])}", remote, node[0])
