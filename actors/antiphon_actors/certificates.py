"""A cluster's own authority: it issues short-lived certificates to the cluster's processes.

The authority lives in one directory, on the machine that makes the cluster. A process gets a
directory of its own, which `channels.TlsCredentials` names::

    authority = ClusterAuthority.create("demo")
    authority.save(authority_directory)
    issued = authority.issue("node", "node-1", addresses=["10.0.0.1"])
    install(node_directory, issued, authority.bundle_pem)

New certificates: issue and `install_identity` again; links made from then on use them. A new authority,
without cutting anything off:

1. `successor = authority.successor()`, save it, and `install_authorities(..., successor.bundle_pem)`
   for every process: all trust both.
2. `install_identity` with certificates that the successor issues.
3. When the old certificates have expired, `install_authorities` with
   `successor.without_predecessors().bundle_pem`.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from antiphon_actors.channels.credentials import (
    AUTHORITIES_FILE,
    IDENTITY_FILE,
    Identity,
    check_private,
    load_certificates,
    load_pair,
    read_private,
)
from antiphon_actors.channels.errors import CredentialsError

AUTHORITY_FILE: Final = "authority.pem"
PREDECESSORS_FILE: Final = "predecessors.pem"

AUTHORITY_VALIDITY: Final = timedelta(days=30)
CERTIFICATE_VALIDITY: Final = timedelta(days=1)
# Clocks of a cluster's machines may differ by as much.
CLOCK_SKEW: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A private key and its certificate.

    Attributes:
        identity: Whose.
        not_after: Until when it is valid.
        pem: Key and certificate, as `identity.pem` holds them. Secret.
    """

    identity: Identity
    not_after: datetime
    pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClusterAuthority:
    """Key (EC P-256) and certificate of a cluster's authority.

    Attributes:
        cluster: Name of the cluster.
        certificate: Its own certificate, self-signed.
        predecessors: Certificates of authorities it took over from, trusted for the time being.
    """

    cluster: str
    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey = field(repr=False)
    predecessors: tuple[x509.Certificate, ...] = ()

    @classmethod
    def create(
        cls,
        cluster: str,
        *,
        validity: timedelta = AUTHORITY_VALIDITY,
        not_before: datetime | None = None,
    ) -> Self:
        """Makes an authority with a new key; nothing is written.

        Args:
            cluster: Name of the cluster, part of every identity.
            validity: How long it is valid from `not_before` on.
            not_before: Five minutes ago, if not given.

        Raises:
            ValueError: The name cannot be part of an identity.
        """
        Identity(cluster, "authority", "x")
        begin = not_before or datetime.now(UTC) - CLOCK_SKEW
        key = ec.generate_private_key(ec.SECP256R1())
        # The number tells authorities of one cluster apart for those who read certificates.
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
                x509.NameAttribute(NameOID.COMMON_NAME, f"authority {secrets.token_hex(4)}"),
            ]
        )
        certificate = (
            _builder(name, name, key.public_key(), begin, begin + validity)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        return cls(cluster, certificate, key)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            CredentialsError: A file is missing, malformed or open to others, the authority has
                expired; the message names file and cause.
        """
        check_private(directory)
        path = directory / AUTHORITY_FILE
        key, certificate = load_pair(path, read_private(path))
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CredentialsError(f"{path}: not a key of an elliptic curve")
        organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        if len(organizations) != 1:
            raise CredentialsError(f"{path}: the certificate names no cluster")
        if datetime.now(UTC) >= certificate.not_valid_after_utc:
            end = certificate.not_valid_after_utc.isoformat()
            raise CredentialsError(f"{path}: the authority expired at {end}")
        path = directory / PREDECESSORS_FILE
        pem = read_private(path)
        predecessors = load_certificates(path, pem) if pem else []
        return cls(str(organizations[0].value), certificate, key, tuple(predecessors))

    def save(self, directory: Path) -> None:
        """Writes key and certificates (mode 0600) into a directory of mode 0700, made if needed.

        Raises:
            CredentialsError: The directory is open to others or cannot be written.
        """
        _make_private(directory)
        _replace(
            directory / PREDECESSORS_FILE,
            b"".join(map(_pem_of, self.predecessors)),
        )
        _replace(directory / AUTHORITY_FILE, _key_pem(self._key) + _pem_of(self.certificate))

    @property
    def bundle_pem(self) -> bytes:
        """The authorities that processes are to trust: this one and its predecessors."""
        return b"".join(map(_pem_of, (self.certificate, *self.predecessors)))

    def successor(
        self, *, validity: timedelta = AUTHORITY_VALIDITY, not_before: datetime | None = None
    ) -> Self:
        """Makes a new authority whose bundle holds this one too; see `create`."""
        new = type(self).create(self.cluster, validity=validity, not_before=not_before)
        return replace(new, predecessors=(self.certificate,))

    def without_predecessors(self) -> Self:
        """Returns this authority with a bundle of itself alone."""
        return replace(self, predecessors=())

    def issue(
        self,
        role: str,
        name: str,
        *,
        addresses: Iterable[str] = ("127.0.0.1",),
        host_names: Iterable[str] = (),
        validity: timedelta = CERTIFICATE_VALIDITY,
        not_before: datetime | None = None,
    ) -> IssuedCertificate:
        """Issues a certificate, with a new key (EC P-256), for both ends of a link.

        It is not valid for longer than the authority is.

        Args:
            role: What the process is in the cluster; peers check it.
            name: Which one it is.
            addresses: Its IP addresses. Peers go by the identity; other tools may want these.
            host_names: Its host names, likewise.
            validity: How long it is valid from `not_before` on.
            not_before: Five minutes ago, if not given.

        Raises:
            ValueError: Role or name cannot be part of an identity, or an address is none.
        """
        key = PrivateKey()
        return key.with_certificate(
            self.certify(
                Identity(self.cluster, role, name),
                key.public_pem,
                addresses=addresses,
                host_names=host_names,
                validity=validity,
                not_before=not_before,
            )
        )

    def certify(
        self,
        identity: Identity,
        public_key_pem: bytes,
        *,
        addresses: Iterable[str] = (),
        host_names: Iterable[str] = (),
        validity: timedelta = CERTIFICATE_VALIDITY,
        not_before: datetime | None = None,
    ) -> bytes:
        """Issues a certificate for a key that stays with its holder (`PrivateKey`).

        Args:
            identity: Of the holder.
            public_key_pem: The holder's public key, in PEM form.
            addresses: As for `issue`.
            host_names: As for `issue`.
            validity: As for `issue`.
            not_before: As for `issue`.

        Returns:
            The certificate, in PEM form.

        Raises:
            ValueError: The identity is of another cluster, the key is none of an elliptic curve, or
                an address is none.
        """
        if identity.cluster != self.cluster:
            raise ValueError(f"{identity.uri} is not of the cluster {self.cluster}")
        public_key = serialization.load_pem_public_key(public_key_pem)
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise ValueError("not a public key of an elliptic curve")
        begin = not_before or datetime.now(UTC) - CLOCK_SKEW
        end = min(begin + validity, self.certificate.not_valid_after_utc)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.cluster),
                x509.NameAttribute(NameOID.COMMON_NAME, identity.name),
            ]
        )
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        names += [x509.DNSName(host) for host in host_names]
        certificate = (
            _builder(subject, self.certificate.subject, public_key, begin, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return _pem_of(certificate)


class PrivateKey:
    """A new private key (EC P-256), made where it is to stay; only its public half goes out."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_pem(self) -> bytes:
        """The public half, in PEM form."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def with_certificate(self, certificate_pem: bytes) -> IssuedCertificate:
        """Puts the key and the certificate that was issued for it together.

        Raises:
            ValueError: The certificate is of another key, or of no process of a cluster.
        """
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        if certificate.public_key() != self._key.public_key():
            raise ValueError("the certificate is of another key")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return IssuedCertificate(
            Identity.parse(uri),
            certificate.not_valid_after_utc,
            _key_pem(self._key) + certificate_pem,
        )


def install(directory: Path, issued: IssuedCertificate, authorities_pem: bytes) -> None:
    """Gives a process its certificate and the authorities it trusts.

    Args:
        directory: Of that process; made with mode 0700 if needed.
        issued: Its key and certificate.
        authorities_pem: The authority's `bundle_pem`.

    Raises:
        CredentialsError: The directory is open to others or cannot be written.
    """
    # In this order, so that a process that looks in between trusts whoever issued what it has.
    install_authorities(directory, authorities_pem)
    install_identity(directory, issued)


def install_identity(directory: Path, issued: IssuedCertificate) -> None:
    """Replaces a process's key and certificate, both at once; see `install`."""
    _make_private(directory)
    _replace(directory / IDENTITY_FILE, issued.pem)


def install_authorities(directory: Path, authorities_pem: bytes) -> None:
    """Replaces the authorities that a process trusts; see `install`."""
    _make_private(directory)
    _replace(directory / AUTHORITIES_FILE, authorities_pem)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CredentialsError(f"{directory}: {error.strerror}") from error
    check_private(directory)


def _replace(path: Path, content: bytes) -> None:
    """Writes a file of mode 0600 that appears whole or not at all, also after a power cut."""
    unready = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(unready, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unready.replace(path)
        finally:
            unready.unlink(missing_ok=True)
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
