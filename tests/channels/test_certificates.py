"""A cluster's authority, what it issues, how that is stored, and what is wrong with bad files."""

from __future__ import annotations

import shutil
import ssl
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from antiphon_actors.certificates import (
    ClusterAuthority,
    IssuedCertificate,
    install,
    install_authorities,
    install_identity,
)
from antiphon_actors.channels import CredentialsError, Identity, TlsCredentials
from antiphon_actors.channels.credentials import AUTHORITIES_FILE, IDENTITY_FILE, TlsContexts

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def certificate_of(issued: IssuedCertificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.pem)


def key_of(issued: IssuedCertificate) -> bytes:
    return issued.pem[: issued.pem.index(b"-----BEGIN CERTIFICATE")]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_a_certificate_says(authority: ClusterAuthority) -> None:
    issued = authority.issue(
        "node", "node-1", addresses=["127.0.0.1", "::1"], host_names=["node-1.example"]
    )
    certificate = certificate_of(issued)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "antiphon://test/node/node-1"
    ]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert names.get_values_for_type(x509.DNSName) == ["node-1.example"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    validity = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert validity == timedelta(days=1)
    assert issued.not_after == certificate.not_valid_after_utc
    assert certificate_of(authority.issue("node", "node-1")) != certificate


def test_a_certificate_does_not_outlive_its_authority() -> None:
    authority = ClusterAuthority.create("test", validity=timedelta(hours=1))
    issued = authority.issue("node", "one", validity=timedelta(days=9))
    assert issued.not_after == authority.certificate.not_valid_after_utc


@pytest.mark.parametrize("part", ["", "a/b", "a b", ".a", "x" * 64, "ä", "a\n"])
def test_identities_that_cannot_be(authority: ClusterAuthority, part: str) -> None:
    with pytest.raises(ValueError, match="identity"):
        ClusterAuthority.create(part)
    with pytest.raises(ValueError, match="identity"):
        authority.issue("node", part)
    with pytest.raises(ValueError, match="identity"):
        authority.issue(part, "one")
    with pytest.raises(ValueError, match="identity"):
        Identity.parse(f"antiphon://{part}/node/one")


def test_identities_are_read_as_written() -> None:
    identity = Identity("test", "node", "one")
    assert Identity.parse(identity.uri) == identity
    for uri in ("https://test/node/one", identity.uri + "/more", identity.uri + "\n"):
        with pytest.raises(ValueError, match="not an identity"):
            Identity.parse(uri)


def test_files_are_of_their_owner_alone(authority: ClusterAuthority, tmp_path: Path) -> None:
    authority.successor().save(tmp_path / "authority")
    install(tmp_path / "node", authority.issue("node", "one"), authority.bundle_pem)
    for directory in (tmp_path / "authority", tmp_path / "node"):
        assert mode(directory) == 0o700
        files = list(directory.iterdir())
        assert len(files) == 2
        assert [mode(path) for path in files] == [0o600, 0o600]


def test_an_authority_is_kept(authority: ClusterAuthority, tmp_path: Path) -> None:
    directory = tmp_path / "authority"
    successor = authority.successor()
    for kept in (authority, successor, successor.without_predecessors()):
        kept.save(directory)
        loaded = ClusterAuthority.load(directory)
        assert loaded.cluster == "test"
        assert loaded.bundle_pem == kept.bundle_pem
        issuer = loaded.certificate
        certificate_of(loaded.issue("node", "one")).verify_directly_issued_by(issuer)
    assert successor.bundle_pem.count(b"BEGIN CERTIFICATE") == 2


def test_secrets_are_not_shown(authority: ClusterAuthority) -> None:
    shown = repr(authority) + repr(authority.issue("node", "one"))
    assert "PRIVATE" not in shown
    assert "key" not in shown.lower().replace("publickey", "")


def expired_authority(directory: Path, authority: ClusterAuthority) -> None:
    old = ClusterAuthority.create("test", not_before=LONG_AGO)
    old.save(directory)


def open_authority(directory: Path, authority: ClusterAuthority) -> None:
    authority.save(directory)
    (directory / "authority.pem").chmod(0o640)


def shared_directory(directory: Path, authority: ClusterAuthority) -> None:
    authority.save(directory)
    directory.chmod(0o755)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda directory, authority: None, "No such file"),
        (expired_authority, r"authority.pem: the authority expired at 2020"),
        (open_authority, r"authority.pem: open to other users \(mode 0640\)"),
        (shared_directory, r"open to other users \(mode 0755\); make it 0700"),
    ],
)
def test_authorities_that_cannot_be_used(
    spoil: Callable[[Path, ClusterAuthority], None],
    text: str,
    authority: ClusterAuthority,
    tmp_path: Path,
) -> None:
    directory = tmp_path / "authority"
    spoil(directory, authority)
    with pytest.raises(CredentialsError, match=text) as caught:
        ClusterAuthority.load(directory)
    assert str(directory) in str(caught.value)


def encrypted(issued: IssuedCertificate) -> bytes:
    key = serialization.load_pem_private_key(issued.pem, None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    ) + certificate_of(issued).public_bytes(serialization.Encoding.PEM)


def other_cluster(authority: ClusterAuthority) -> IssuedCertificate:
    return replace(authority, cluster="other").issue("node", "one")


SPOILED: list[tuple[Callable[[Path, ClusterAuthority], object], str, str]] = [
    (lambda d, a: shutil.rmtree(d), "", "No such file"),
    (lambda d, a: d.chmod(0o750), "", r"mode 0750\); make it 0700"),
    (lambda d, a: (d / IDENTITY_FILE).unlink(), IDENTITY_FILE, "No such file"),
    (lambda d, a: (d / AUTHORITIES_FILE).unlink(), AUTHORITIES_FILE, "No such file"),
    (lambda d, a: (d / IDENTITY_FILE).chmod(0o604), IDENTITY_FILE, r"mode 0604\); make it 0600"),
    (lambda d, a: (d / AUTHORITIES_FILE).chmod(0o620), AUTHORITIES_FILE, "mode 0620"),
    (lambda d, a: (d / IDENTITY_FILE).write_text("nonsense"), IDENTITY_FILE, "no certificate"),
    (lambda d, a: (d / AUTHORITIES_FILE).write_text(""), AUTHORITIES_FILE, "no certificate"),
    (
        lambda d, a: (d / IDENTITY_FILE).write_bytes(a.bundle_pem),
        IDENTITY_FILE,
        "no private key",
    ),
    (
        lambda d, a: (d / IDENTITY_FILE).write_bytes(encrypted(a.issue("node", "x"))),
        IDENTITY_FILE,
        "encrypted",
    ),
    (
        lambda d, a: (d / IDENTITY_FILE).write_bytes(
            key_of(a.issue("node", "x")) + a.issue("node", "x").pem.split(b"KEY-----\n")[2]
        ),
        IDENTITY_FILE,
        "do not belong together",
    ),
    (
        lambda d, a: install_identity(d, a.issue("node", "x", not_before=LONG_AGO)),
        IDENTITY_FILE,
        "expired at 2020-01-02",
    ),
    (
        lambda d, a: install_identity(
            d, a.issue("node", "x", not_before=datetime.now(UTC) + timedelta(hours=1))
        ),
        IDENTITY_FILE,
        "not valid before",
    ),
    (lambda d, a: install_identity(d, other_cluster(a)), IDENTITY_FILE, "not of the cluster test"),
    (
        lambda d, a: install_authorities(d, ClusterAuthority.create("test").bundle_pem),
        IDENTITY_FILE,
        "no authority in",
    ),
    (
        lambda d, a: install_identity(d, replace(a.issue("node", "x"), pem=authority_pem(a))),
        IDENTITY_FILE,
        "states no identity",
    ),
]


def authority_pem(authority: ClusterAuthority) -> bytes:
    key = authority._key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key + authority.bundle_pem


@pytest.mark.parametrize(("spoil", "file", "text"), SPOILED)
def test_files_that_cannot_be_used(
    spoil: Callable[[Path, ClusterAuthority], object],
    file: str,
    text: str,
    authority: ClusterAuthority,
    tmp_path: Path,
) -> None:
    directory = tmp_path / "node"
    install(directory, authority.issue("node", "one"), authority.bundle_pem)
    credentials = TlsCredentials(directory, "test", frozenset({"node"}))
    TlsContexts(credentials).server()
    spoil(directory, authority)
    with pytest.raises(CredentialsError, match=text) as caught:
        TlsContexts(credentials).server()
    assert str(directory / file) in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


def test_foreign_files_are_refused(
    credentials: TlsCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(CredentialsError, match="belongs to another user"):
        TlsContexts(credentials).server()


def test_only_tls_13_and_only_with_a_certificate(credentials: TlsCredentials) -> None:
    contexts = TlsContexts(credentials)
    for context in (contexts.server(), contexts.client()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode == ssl.CERT_REQUIRED
    assert contexts.server().num_tickets == 0


def test_credentials_need_sensible_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="peer_roles"):
        TlsCredentials(tmp_path, "test", frozenset())
    with pytest.raises(ValueError, match="identity"):
        TlsCredentials(tmp_path, "te/st", frozenset({"node"}))
