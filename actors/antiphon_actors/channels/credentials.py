"""Who a process is on `tls://` links: identities, the files that prove them, and OpenSSL's view.

A process has one directory (mode 0700) with two files. `identity.pem` (mode 0600) holds its private
key and its certificate, in one file so that both are replaced at once. `authorities.pem` holds the
certificates of the authorities it trusts: one, or two while one takes over from the other.
`antiphon_actors.certificates` writes them.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from loguru import logger

from antiphon_actors.channels.errors import CredentialsError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

IDENTITY_FILE: Final = "identity.pem"
AUTHORITIES_FILE: Final = "authorities.pem"

# Each part of an identity. At most as long as a label of a host name.
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_IDENTITY = re.compile(rf"antiphon://({_PART})/({_PART})/({_PART})")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate says its holder is.

    Attributes:
        cluster: Name of the cluster.
        role: What it is there, such as `node`.
        name: Which one of these it is.
    """

    cluster: str
    role: str
    name: str

    def __post_init__(self) -> None:
        for part in (self.cluster, self.role, self.name):
            if re.fullmatch(_PART, part) is None:
                raise ValueError(
                    f"{part!r} cannot be part of an identity: up to 63 letters, digits, '.', '_' "
                    "and '-', the first a letter or digit"
                )

    @property
    def uri(self) -> str:
        """The identity as it stands in a certificate's subjectAltName."""
        return f"antiphon://{self.cluster}/{self.role}/{self.name}"

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Returns the identity that `uri` names.

        Raises:
            ValueError: It is not the URI of an identity.
        """
        match = _IDENTITY.fullmatch(uri)
        if match is None:
            raise ValueError(f"not an identity: {uri!r}")
        return cls(*match.groups())


@dataclass(frozen=True, slots=True)
class TlsCredentials:
    """Where a process's certificate is, and which peers it talks to.

    Attributes:
        directory: With `identity.pem` and `authorities.pem`; mode 0700, of this user.
        cluster: The cluster that this process and all its peers belong to.
        peer_roles: The roles that a peer may have.
    """

    directory: Path
    cluster: str
    peer_roles: frozenset[str]

    def __post_init__(self) -> None:
        if not self.peer_roles:
            raise ValueError("peer_roles is empty: no peer could ever be talked to")
        for role in self.peer_roles:
            Identity(self.cluster, role, "x")

    def peer(self, connection: ssl.SSLSocket) -> Identity:
        """Returns who is at the other end of a connection whose certificate has been verified.

        Raises:
            PermissionError: Somebody who is not to be talked to.
        """
        certificate = connection.getpeercert() or {}
        names = certificate.get("subjectAltName", ())
        assert not isinstance(names, str)
        uris = [str(value) for kind, value in names if kind == "URI"]
        if len(uris) != 1:
            raise PermissionError(f"its certificate states {len(uris)} identities")
        try:
            identity = Identity.parse(uris[0])
        except ValueError as error:
            raise PermissionError(f"its certificate is of something else: {error}") from error
        if identity.cluster != self.cluster:
            raise PermissionError(f"{identity.uri} is not of the cluster {self.cluster}")
        if identity.role not in self.peer_roles:
            raise PermissionError(f"{identity.uri} has none of the roles {sorted(self.peer_roles)}")
        return identity


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The files at one moment, as OpenSSL holds them."""

    identity: Identity
    not_after: datetime
    server: ssl.SSLContext
    client: ssl.SSLContext


_Stamp = tuple[tuple[int, int, int], ...]


class TlsContexts:
    """OpenSSL's settings for new connections; read again when the files have changed.

    Connections keep the settings they were made with. Reading takes about a millisecond and happens
    in the event loop, as rarely as certificates are replaced; otherwise each new connection costs
    two calls of stat.
    """

    def __init__(self, credentials: TlsCredentials) -> None:
        """Reads nothing."""
        self._credentials = credentials
        self._paths = (
            credentials.directory / IDENTITY_FILE,
            credentials.directory / AUTHORITIES_FILE,
        )
        self._loaded: _Loaded | None = None
        self._stamp: _Stamp = ()

    @property
    def expires(self) -> float | None:
        """When this process's certificate expires, in seconds since 1970, if it has been read."""
        return self._loaded.not_after.timestamp() if self._loaded is not None else None

    def server(self) -> ssl.SSLContext:
        """Returns the settings for accepting.

        Raises:
            CredentialsError: There is no usable certificate.
        """
        return self._current().server

    def client(self) -> ssl.SSLContext:
        """Returns the settings for dialling.

        Raises:
            CredentialsError: There is no usable certificate.
        """
        return self._current().client

    def reload(self) -> None:
        """Reads the files; when they are not good, what was read before stays.

        Raises:
            CredentialsError: They are not good.
        """
        # Taken first: what changes while it is read is read again.
        stamp = self._now()
        loaded = _load(self._credentials)
        self._loaded, self._stamp = loaded, stamp
        logger.info(
            "certificate loaded",
            identity=loaded.identity.uri,
            not_after=loaded.not_after.isoformat(),
        )

    def _now(self) -> _Stamp:
        stamps: list[tuple[int, int, int]] = []
        for path in self._paths:
            try:
                found = path.stat()
            except OSError:
                stamps.append((0, 0, 0))  # reading it will say what is wrong
            else:
                stamps.append((found.st_ino, found.st_size, found.st_ctime_ns))
        return tuple(stamps)

    def _current(self) -> _Loaded:
        if self._loaded is None:
            self.reload()
        elif (stamp := self._now()) != self._stamp:
            try:
                self.reload()
            except CredentialsError as error:
                self._stamp = stamp  # said once for each state of the files
                logger.error("new certificate not usable, the old one stays", error=str(error))
        loaded = self._loaded
        assert loaded is not None
        if datetime.now(UTC) >= loaded.not_after:
            raise CredentialsError(
                f"{self._paths[0]}: the certificate expired at {loaded.not_after.isoformat()}"
            )
        return loaded


def _load(credentials: TlsCredentials) -> _Loaded:
    identity_path = credentials.directory / IDENTITY_FILE
    authorities_path = credentials.directory / AUTHORITIES_FILE
    check_private(credentials.directory)
    authorities_pem = read_private(authorities_path, foreign_readers=True)
    authorities = load_certificates(authorities_path, authorities_pem)
    certificate = load_pair(identity_path, read_private(identity_path))[1]
    identity = _identity_of(identity_path, certificate)
    if identity.cluster != credentials.cluster:
        raise CredentialsError(
            f"{identity_path}: it is of {identity.uri}, not of the cluster {credentials.cluster}"
        )
    if not any(_issued_by(certificate, authority) for authority in authorities):
        raise CredentialsError(f"{identity_path}: no authority in {authorities_path} issued it")
    now = datetime.now(UTC)
    if now < certificate.not_valid_before_utc:
        begin = certificate.not_valid_before_utc.isoformat()
        raise CredentialsError(f"{identity_path}: the certificate is not valid before {begin}")
    if now >= certificate.not_valid_after_utc:
        end = certificate.not_valid_after_utc.isoformat()
        raise CredentialsError(f"{identity_path}: the certificate expired at {end}")
    server = _context(ssl.PROTOCOL_TLS_SERVER, identity_path, authorities_pem)
    # A resumed session would outlive a change of certificates and authorities.
    server.num_tickets = 0
    return _Loaded(
        identity,
        certificate.not_valid_after_utc,
        server,
        _context(ssl.PROTOCOL_TLS_CLIENT, identity_path, authorities_pem),
    )


def _context(protocol: int, identity_path: Path, authorities_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # peers are known by identity, see TlsCredentials.peer
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    try:
        # An encrypted key must not make OpenSSL ask at the terminal.
        context.load_cert_chain(identity_path, password=b"")
    except (OSError, ValueError) as error:
        raise CredentialsError(f"{identity_path}: OpenSSL does not take it: {error}") from error
    try:
        context.load_verify_locations(cadata=authorities_pem.decode("ascii"))
    except (OSError, ValueError) as error:
        path = identity_path.with_name(AUTHORITIES_FILE)
        raise CredentialsError(f"{path}: OpenSSL does not take it: {error}") from error
    return context


def check_private(directory: Path) -> None:
    """Checks that a directory is there and of this user alone.

    Raises:
        CredentialsError: It is not.
    """
    try:
        found = directory.stat()
    except OSError as error:
        raise CredentialsError(f"{directory}: {error.strerror}") from error
    _check_owner(directory, found, forbidden=0o077, wanted="0700")
    if not stat.S_ISDIR(found.st_mode):
        raise CredentialsError(f"{directory}: not a directory")


def read_private(path: Path, *, foreign_readers: bool = False) -> bytes:
    """Returns the content of a file of this user.

    Args:
        path: Which.
        foreign_readers: Whether others may read it; nobody else may ever write it.

    Raises:
        CredentialsError: It is missing, unreadable, or open to other users.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            _check_owner(path, found, forbidden=0o022 if foreign_readers else 0o077, wanted="0600")
            return file.read()
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error


def _check_owner(path: Path, found: os.stat_result, *, forbidden: int, wanted: str) -> None:
    if found.st_uid != os.getuid():
        raise CredentialsError(f"{path}: it belongs to another user")
    if stat.S_IMODE(found.st_mode) & forbidden:
        mode = stat.S_IMODE(found.st_mode)
        raise CredentialsError(f"{path}: open to other users (mode {mode:04o}); make it {wanted}")


def load_certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    """Returns the certificates in `pem`, which was read from `path`.

    Raises:
        CredentialsError: There is none, or it is malformed.
    """
    from cryptography import x509  # takes a tenth of a second, which only tls:// has to pay

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CredentialsError(f"{path}: holds no certificate in PEM form") from error


def load_pair(path: Path, pem: bytes) -> tuple[PrivateKeyTypes, x509.Certificate]:
    """Returns the private key in `pem` and its certificate, which stand in the file `path`.

    Raises:
        CredentialsError: One is missing or malformed, or they do not belong together.
    """
    from cryptography.hazmat.primitives import serialization

    certificate = load_certificates(path, pem)[0]
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise CredentialsError(f"{path}: the private key is encrypted") from error
    except ValueError:
        # The parser's own words could quote the key.
        raise CredentialsError(f"{path}: holds no private key in PEM form") from None
    if key.public_key() != certificate.public_key():
        raise CredentialsError(f"{path}: private key and certificate do not belong together")
    return key, certificate


def _identity_of(path: Path, certificate: x509.Certificate) -> Identity:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return Identity.parse(uri)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise CredentialsError(f"{path}: the certificate states no identity: {error}") from error


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
