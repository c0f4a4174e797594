"""How a cluster's nodes get certificates, keep them fresh, and change their authority; no Ray."""

from __future__ import annotations

import asyncio
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from antiphon_actors.certificates import ClusterAuthority, PrivateKey
from antiphon_actors.channels import CredentialsError, Identity, TlsCredentials
from antiphon_actors.channels.credentials import IDENTITY_FILE, TlsContexts
from antiphon_actors.issuer import Certified, Issuer, NodeCertificate

HOUR = timedelta(hours=1)


def serial(directory: Path) -> int:
    return x509.load_pem_x509_certificate((directory / IDENTITY_FILE).read_bytes()).serial_number


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Certifier:
    """Has keys certified, unless it is out of order."""

    def __init__(self) -> None:
        self.issuer = Issuer("test", validity=HOUR)
        self.asked: list[bytes] = []
        self.broken = False

    async def __call__(self, public_key_pem: bytes) -> Certified:
        self.asked.append(public_key_pem)
        if self.broken:
            raise CredentialsError("out of order")
        return self.issuer.certify("one", "127.0.0.1", public_key_pem)


async def test_a_node_gets_a_certificate_for_a_key_that_stays_with_it(tmp_path: Path) -> None:
    certifier = Certifier()
    directory = tmp_path / "certificate"
    certificate = NodeCertificate(directory, certifier)
    await certificate.ready()
    await certificate.ready()
    try:
        (asked,) = certifier.asked
        assert b"PRIVATE" not in asked
        assert stat.S_IMODE((directory / IDENTITY_FILE).stat().st_mode) == 0o600
        contexts = TlsContexts(TlsCredentials(directory, "test", frozenset({"node"})))
        contexts.reload()
        assert contexts.expires == certificate.expires > time.time()
        before = serial(directory)
        await certificate.renew()
        assert serial(directory) != before
        assert len(set(certifier.asked)) == 2
    finally:
        await certificate.aclose()


async def test_a_failed_renewal_leaves_what_there_is(tmp_path: Path) -> None:
    certifier = Certifier()
    certificate = NodeCertificate(tmp_path / "c", certifier)
    await certificate.renew()
    before, expires = serial(tmp_path / "c"), certificate.expires
    certifier.broken = True
    with pytest.raises(CredentialsError, match="out of order"):
        await certificate.renew()
    assert (serial(tmp_path / "c"), certificate.expires) == (before, expires)


async def test_a_certificate_of_another_key_is_not_taken(tmp_path: Path) -> None:
    certifier = Certifier()

    async def mixed_up(public_key_pem: bytes) -> Certified:
        return await certifier(PrivateKey().public_pem)

    with pytest.raises(CredentialsError, match="another key"):
        await NodeCertificate(tmp_path / "c", mixed_up).ready()
    assert not (tmp_path / "c").exists()


async def test_it_is_due_when_a_third_of_its_validity_is_left(tmp_path: Path) -> None:
    clock = Clock()
    certificate = NodeCertificate(tmp_path / "c", Certifier(), clock=clock)
    await certificate.renew()
    length = certificate.expires - clock.now
    assert certificate.pause_secs() == pytest.approx(length * 2 / 3)
    clock.now += length * 0.7
    assert certificate.pause_secs() < 0


@pytest.mark.virtual_time
async def test_it_is_renewed_in_time_and_again_after_a_failure(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    began = time.time()
    certifier = Certifier()
    certifier.issuer = Issuer("test", validity=timedelta(hours=24))
    certificate = NodeCertificate(tmp_path / "c", certifier, clock=lambda: began + loop.time())
    await certificate.ready()
    try:
        await asyncio.sleep(15 * 3600)
        assert len(certifier.asked) == 1
        certifier.broken = True
        await asyncio.sleep(1.5 * 3600)
        failures = len(certifier.asked) - 1
        assert 10 < failures < 100
        certifier.broken = False
        await asyncio.sleep(120)
        assert len(certifier.asked) == failures + 2
    finally:
        await certificate.aclose()


def test_only_the_holder_of_a_key_can_use_its_certificate() -> None:
    authority = ClusterAuthority.create("test")
    key = PrivateKey()
    identity = Identity("test", "node", "one")
    issued = key.with_certificate(authority.certify(identity, key.public_pem))
    assert issued.identity == identity
    with pytest.raises(ValueError, match="another key"):
        PrivateKey().with_certificate(authority.certify(identity, key.public_pem))
    with pytest.raises(ValueError, match="not of the cluster"):
        authority.certify(Identity("other", "node", "one"), key.public_pem)


def trusts(bundle: bytes, certificate_pem: bytes) -> bool:
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    for authority in x509.load_pem_x509_certificates(bundle):
        if authority.subject == certificate.issuer:
            certificate.verify_directly_issued_by(authority)
            return True
    return False


def test_an_authority_is_succeeded_without_a_moment_of_distrust(tmp_path: Path) -> None:
    """Two nodes that renew as seldom as they may trust each other all the time."""
    start = datetime.now(UTC)
    directory = tmp_path / "authority"
    life = timedelta(days=30)
    day = timedelta(days=1)
    issuer = Issuer("test", directory=directory, validity=day, authority_validity=life)
    key = PrivateKey().public_pem
    nodes: dict[str, Certified] = {}
    issuers = set()
    now = start
    for half_day in range(56):
        now = start + half_day * day / 2
        name = "even" if half_day % 2 == 0 else "odd"  # each renews once a day
        nodes[name] = issuer.certify(name, "127.0.0.1", key, now=now)
        issuers.add(x509.load_pem_x509_certificate(nodes[name].certificate_pem).issuer)
        for one in nodes.values():
            assert all(
                trusts(one.authorities_pem, other.certificate_pem) for other in nodes.values()
            )
    assert len(issuers) == 2
    # It is found again.
    again = Issuer("test", directory=directory, validity=day, authority_validity=life)
    found = again.certify("even", "127.0.0.1", key, now=now)
    assert trusts(nodes["odd"].authorities_pem, found.certificate_pem)
    assert len(x509.load_pem_x509_certificates(found.authorities_pem)) == 2
    # In the end the predecessor is forgotten.
    late = issuer.certify("even", "127.0.0.1", key, now=start + timedelta(days=31))
    assert len(x509.load_pem_x509_certificates(late.authorities_pem)) == 1


def test_certificates_live_much_shorter_than_their_authority() -> None:
    with pytest.raises(ValueError, match="too much"):
        Issuer("test", validity=timedelta(days=4))
