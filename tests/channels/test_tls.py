"""What only links over TLS have: certificates, refusals, rotation, strangers on the network."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loguru import logger

from antiphon_actors.certificates import (
    ClusterAuthority,
    IssuedCertificate,
    install,
    install_authorities,
    install_identity,
)
from antiphon_actors.channels import (
    ChannelBroken,
    ChannelRefused,
    CredentialsError,
    HandshakeError,
    Identity,
    Limits,
    Link,
    TlsCredentials,
)
from antiphon_actors.channels.credentials import IDENTITY_FILE
from antiphon_actors.channels.testing import WAIT_SECS, Node, linked, until
from antiphon_actors.channels.tls import TlsListener

ANY_PORT = "tls://127.0.0.1:0"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

Certificates = Callable[..., TlsCredentials]


@pytest.fixture(autouse=True)
def _default(credentials: TlsCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Node, "default_credentials", credentials)


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{message} {extra}")
    yield lines
    logger.remove(sink)
    assert "PRIVATE KEY" not in "".join(lines)


@pytest.fixture
def certified(authority: ClusterAuthority, tmp_path: Path) -> Certificates:
    """Makes a process's directory; the first name is its own, too."""

    def make(
        name: str,
        issued: IssuedCertificate | None = None,
        bundle: bytes = b"",
        *,
        cluster: str = "test",
        peer_roles: frozenset[str] = frozenset({"node"}),
    ) -> TlsCredentials:
        install(
            tmp_path / name, issued or authority.issue("node", name), bundle or authority.bundle_pem
        )
        return TlsCredentials(tmp_path / name, cluster, peer_roles)

    return make


def path_of(uri: str) -> Path:
    return Path(uri.removeprefix("unix://"))


def port_of(uri: str) -> int:
    return int(uri.rpartition(":")[2])


async def works(link: Link, far: Node) -> bool:
    key = b"key %d" % len(far.receivers)
    stream = await link.open_stream(key)
    await stream.send(b"x")
    await stream.drain()
    return far.receivers[key].payloads() == [b"x"]


# Addresses.


async def test_without_credentials_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Node, "default_credentials", None)
    node = Node("node")
    async with node.hub:
        with pytest.raises(CredentialsError, match="TlsCredentials"):
            await node.hub.listen(ANY_PORT)
        with pytest.raises(CredentialsError, match="TlsCredentials"):
            await node.hub.connect("tls://127.0.0.1:1", deadline_secs=WAIT_SECS)
        with pytest.raises(CredentialsError, match="without"):
            node.hub.rotate_credentials()
        assert node.hub.statistics().certificate_expires is None


async def test_loopback_unless_told_otherwise() -> None:
    async with linked("tls://:0") as (_, far, link):
        (uri,) = far.hub.facts.uris
        assert uri.startswith("tls://127.0.0.1:")
        assert port_of(uri) > 0
        assert await works(link, far)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
async def test_all_addresses_at_once_are_refused(host: str) -> None:
    node = Node("node")
    async with node.hub:
        with pytest.raises(ChannelRefused, match="name one"):
            await node.hub.listen(f"tls://{host}:0")


async def test_an_address_of_another_machine_is_refused() -> None:
    node = Node("node")
    async with node.hub:
        with pytest.raises(ChannelRefused, match="cannot listen"):
            await node.hub.listen("tls://192.0.2.1:0")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    async with linked("tls://[::1]:0") as (_, far, link):
        assert far.hub.facts.uris[0].startswith("tls://[::1]:")
        assert await works(link, far)


async def test_unusable_credentials_are_the_callers_to_know(tmp_path: Path) -> None:
    node = Node("n", credentials=TlsCredentials(tmp_path / "none", "test", frozenset({"node"})))
    async with node.hub:
        with pytest.raises(CredentialsError, match="No such file"):
            await node.hub.listen(ANY_PORT)
        with pytest.raises(CredentialsError, match="No such file"):
            await node.hub.connect("tls://127.0.0.1:1", deadline_secs=WAIT_SECS)


# Links.


async def test_identities_are_known_at_both_ends(certified: Certificates) -> None:
    one, two = Node("1", credentials=certified("one")), Node("2", credentials=certified("two"))
    async with one.hub, two.hub:
        link = await one.hub.connect(await two.hub.listen(ANY_PORT), deadline_secs=WAIT_SECS)
        await until(lambda: len(two.hub.links) == 1)
        assert link.identity == Identity("test", "node", "two")
        assert two.hub.links[0].identity == Identity("test", "node", "one")
        near = link.wire._connection  # type: ignore[attr-defined]
        assert near.version() == "TLSv1.3"
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        expires = one.hub.statistics().certificate_expires
        assert expires is not None
        assert timedelta(0) < datetime.fromtimestamp(expires, UTC) - datetime.now(UTC)


async def test_paths_of_another_machine_are_not_paths_here(unix_uri: str) -> None:
    near, far, neighbour = Node("near"), Node("far"), Node("neighbour")
    async with near.hub, far.hub, neighbour.hub:
        await far.hub.listen(unix_uri)
        bound = await far.hub.listen(ANY_PORT)
        link = await near.hub.connect(bound, deadline_secs=WAIT_SECS)
        assert unix_uri in link.peer.uris
        # As it would be on this machine, where that path is of somebody else.
        path_of(unix_uri).unlink()
        await neighbour.hub.listen(unix_uri)
        here = await near.hub.connect(unix_uri, deadline_secs=WAIT_SECS)
        assert here.peer.name == "neighbour"


# Who is refused. The hub and its other links go on.


@asynccontextmanager
async def server(
    limits: Limits = Limits(),  # noqa: B008
) -> AsyncIterator[tuple[Node, str]]:
    """A listening hub with a friend, whose link works before and after."""
    victim, friend = Node("victim", limits), Node("friend")
    async with victim.hub, friend.hub:
        bound = await victim.hub.listen(ANY_PORT)
        link = await friend.hub.connect(bound, deadline_secs=WAIT_SECS)
        yield victim, bound
        assert link.closed.is_set() is False
        assert await works(link, victim)
        assert len(victim.hub.links) == 1
        assert victim.hub.statistics().handshaking == 0


def context_of(directory: Path | None, *, server_side: bool = False) -> ssl.SSLContext:
    """TLS settings of somebody who checks nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if directory is not None:
        context.load_cert_chain(directory / IDENTITY_FILE)
    return context


async def knock(uri: str, context: ssl.SSLContext) -> None:
    """Connects and waits to be cut off."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(WAIT_SECS):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port_of(uri), ssl=context, server_hostname=""
            )
            assert await reader.read() == b""
    except (ssl.SSLError, ConnectionError):
        pass  # the end came in the handshake
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def foreign(authority: ClusterAuthority) -> IssuedCertificate:
    return ClusterAuthority.create("test").issue("node", "x")


REFUSED: dict[str, tuple[Callable[[ClusterAuthority], IssuedCertificate | None], str]] = {
    "none": (lambda authority: None, "showed no certificate"),
    "other authority": (foreign, "not valid: "),
    "expired": (lambda a: a.issue("node", "x", not_before=LONG_AGO), "has expired"),
    "too early": (
        lambda a: a.issue("node", "x", not_before=datetime.now(UTC) + timedelta(hours=1)),
        "not yet valid",
    ),
    "other cluster": (
        lambda a: replace(a, cluster="other").issue("node", "x"),
        "antiphon://other/node/x is not of the cluster test",
    ),
    "other role": (lambda a: a.issue("visitor", "x"), r"none of the roles ['node']"),
    "other identity": (
        lambda a: self_made(a, "https://example.com/node"),
        "of something else",
    ),
    "two identities": (
        lambda a: self_made(a, "antiphon://test/node/x", "antiphon://test/node/y"),
        "2 identities",
    ),
    "self-signed": (
        lambda a: self_made(None, "antiphon://test/node/x"),
        "not valid: self-signed certificate",
    ),
}


def self_made(authority: ClusterAuthority | None, *uris: str) -> IssuedCertificate:
    """A certificate that says anything, of the authority or of its own."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.now(UTC)
    public = key.public_key()
    signer = authority._key if authority is not None else key
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(authority.certificate.subject if authority is not None else name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris]),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(issuer, critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    return IssuedCertificate(Identity("test", "node", "x"), now, pem)


@pytest.mark.parametrize("case", REFUSED)
async def test_who_dials_without_a_valid_certificate_is_refused(
    case: str, authority: ClusterAuthority, certified: Certificates, log: list[str]
) -> None:
    make, text = REFUSED[case]
    issued = make(authority)
    directory = certified("stranger", issued).directory if issued is not None else None
    async with server() as (victim, bound):
        await knock(bound, context_of(directory))
        await until(lambda: victim.hub.statistics().refused == 1)
        assert victim.hub.statistics().opened == 1
    assert [line for line in log if "connection refused" in line and text in line]


@pytest.mark.parametrize("case", [case for case in REFUSED if case != "none"])
async def test_who_listens_without_a_valid_certificate_is_refused(
    case: str, authority: ClusterAuthority, certified: Certificates, log: list[str]
) -> None:
    make, text = REFUSED[case]
    issued = make(authority)
    context = context_of(certified("stranger", issued).directory, server_side=True)
    seen: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            seen.append(await reader.read())
        writer.close()

    impostor = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    node = Node("node")
    async with impostor, node.hub:
        port = impostor.sockets[0].getsockname()[1]
        with pytest.raises(ChannelRefused) as caught:
            await node.hub.connect(f"tls://127.0.0.1:{port}", deadline_secs=WAIT_SECS)
        assert text in str(caught.value)
        assert node.hub.statistics().refused == 1
        impostor.close()
    assert b"".join(seen) == b""
    assert [line for line in log if "connection refused" in line and text in line]


async def test_hubs_of_two_clusters_refuse_each_other(certified: Certificates) -> None:
    other = ClusterAuthority.create("other")
    stranger = Node(
        "stranger",
        credentials=certified("s", other.issue("node", "s"), other.bundle_pem, cluster="other"),
    )
    async with server() as (victim, bound), stranger.hub:
        with pytest.raises(ChannelRefused, match="certificate is not valid"):
            await stranger.hub.connect(bound, deadline_secs=WAIT_SECS)
        await until(lambda: victim.hub.statistics().refused == 1)


async def test_a_dialler_that_is_not_trusted_hears_why_it_may_be(
    authority: ClusterAuthority, certified: Certificates
) -> None:
    visitor = Node("visitor", credentials=certified("v", authority.issue("visitor", "v")))
    async with server() as (victim, bound), visitor.hub:
        with pytest.raises((HandshakeError, ChannelBroken), match="may not accept the certificate"):
            await visitor.hub.connect(bound, deadline_secs=WAIT_SECS)
        await until(lambda: victim.hub.statistics().refused == 1)


async def test_tls_12_is_refused(credentials: TlsCredentials, log: list[str]) -> None:
    context = context_of(credentials.directory)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with server() as (victim, bound):
        await knock(bound, context)
        await until(lambda: victim.hub.statistics().refused == 1)
    assert [line for line in log if "no TLS 1.3 handshake" in line]


# Strangers on the network.


@asynccontextmanager
async def plain(uri: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(uri))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def cut_off(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(WAIT_SECS):
        with contextlib.suppress(ConnectionResetError):
            await reader.read()


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01" + b"\xff" * 2000, b"\xff" * 100_000],
    ids=["http", "zeros", "record", "much"],
)
async def test_garbage_is_cut_off(garbage: bytes, log: list[str]) -> None:
    async with server(Limits(handshake_secs=0.5)) as (victim, bound):
        async with plain(bound) as (reader, writer):
            writer.write(garbage)
            await cut_off(reader)
        await until(lambda: victim.hub.statistics().refused == 1)
    assert [line for line in log if "connection refused" in line]


async def test_silence_is_cut_off_in_time(log: list[str]) -> None:
    async with server(Limits(handshake_secs=0.1)) as (victim, bound):
        async with plain(bound) as (reader, _):
            await until(lambda: victim.hub.statistics().handshaking == 1)
            await cut_off(reader)
        await until(lambda: victim.hub.statistics().refused == 1)
    assert [line for line in log if "no TLS handshake within 0.1 s" in line]


async def test_a_trickle_is_cut_off_in_time() -> None:
    hello = ssl.MemoryBIO()
    shaking = context_of(None).wrap_bio(ssl.MemoryBIO(), hello)
    with contextlib.suppress(ssl.SSLWantReadError):
        shaking.do_handshake()
    async with (
        server(Limits(handshake_secs=0.2)) as (victim, bound),
        plain(bound) as (reader, writer),
    ):
        async with asyncio.timeout(WAIT_SECS):
            while victim.hub.statistics().refused == 0:
                writer.write(hello.read(1))
                await asyncio.sleep(0.01)
        assert hello.pending > 0
        await cut_off(reader)


@pytest.mark.parametrize("reset", [False, True])
async def test_hanging_up_in_the_tls_handshake(reset: bool, log: list[str]) -> None:
    async with server() as (victim, bound):
        async with plain(bound) as (_, writer):
            await until(lambda: victim.hub.statistics().handshaking == 1)
            if reset:
                writer.transport.abort()
        await until(lambda: victim.hub.statistics().refused == 1)
    assert [line for line in log if "hung up" in line]


async def test_a_certified_peer_that_says_nothing_is_cut_off_in_time(
    credentials: TlsCredentials,
) -> None:
    context = context_of(credentials.directory)
    async with server(Limits(handshake_secs=0.2)) as (victim, bound):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port_of(bound), ssl=context, server_hostname=""
        )
        await until(lambda: len(victim.hub.statistics().links) == 2)
        await cut_off(reader)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        assert victim.hub.statistics().handshakes_failed == 1


async def test_handshakes_under_way_are_bounded(
    monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    async with server(Limits(max_handshakes=2)) as (victim, bound):
        async with plain(bound) as (first, _), plain(bound) as (_, _):
            await until(lambda: victim.hub.statistics().handshaking == 2)
            async with plain(bound) as (third, _):
                await cut_off(third)
            assert victim.hub.statistics().refused == 1
            assert victim.hub.statistics().handshaking == 2
            # Those who dawdle give way, so that they keep nobody out.
            monkeypatch.setattr("antiphon_actors.channels.tls._OLD_SHARE", 0.0)
            late = Node("late")
            async with late.hub:
                link = await late.hub.connect(bound, deadline_secs=WAIT_SECS)
                assert await works(link, victim)
                await cut_off(first)
                assert victim.hub.statistics().refused == 2
        await until(lambda: len(victim.hub.links) == 1)
        await until(lambda: victim.hub.statistics().handshaking == 0)
    assert [line for line in log if "gave way" in line]


async def test_a_flood_is_counted_and_not_logged_one_by_one(log: list[str]) -> None:
    never = Limits(heartbeat_period_secs=1000.0, heartbeat_dead_secs=5000.0)
    async with server(never) as (victim, bound):
        for _ in range(12):
            async with plain(bound) as (reader, writer):
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await cut_off(reader)
        await until(lambda: victim.hub.statistics().refused == 12)
        assert len([line for line in log if "connection refused" in line]) == 8
        for _ in range(2):
            assert victim.hub._ticker is not None
            victim.hub._ticker.cancel()
            victim.hub._tick()
    assert len([line for line in log if "more connections refused" in line and "4" in line]) == 1


async def test_closing_gives_up_handshakes() -> None:
    node = Node("node")
    async with contextlib.AsyncExitStack() as strangers:
        async with node.hub:
            bound = await node.hub.listen(ANY_PORT)
            readers = [(await strangers.enter_async_context(plain(bound)))[0] for _ in range(3)]
            await until(lambda: node.hub.statistics().handshaking == 3)
        for reader in readers:
            await cut_off(reader)


async def test_running_out_of_descriptors_is_survived(
    monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    monkeypatch.setattr("antiphon_actors.channels.acceptor._EXHAUSTED_SECS", 0.05)

    class Exhausted:
        def __init__(self, real: socket.socket) -> None:
            self.real = real
            self.left = 2

        def accept(self) -> object:
            if self.left:
                self.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.real.accept()

        def fileno(self) -> int:
            return self.real.fileno()

        def close(self) -> None:
            self.real.close()

    async with server() as (victim, bound):
        listener = victim.hub._listeners[0]
        assert isinstance(listener, TlsListener)
        real = listener._acceptor._socket
        listener._acceptor._socket = Exhausted(real)  # type: ignore[assignment]
        late = Node("late")
        async with late.hub:
            link = await late.hub.connect(bound, deadline_secs=WAIT_SECS)
            assert await works(link, victim)
        await until(lambda: len(victim.hub.links) == 1)
        listener._acceptor._socket = real
    assert len([line for line in log if "cannot accept" in line]) == 2


async def test_who_listens_without_tls_is_no_peer() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    other = await asyncio.start_server(listen, "127.0.0.1", 0)
    node = Node("node")
    async with other, node.hub:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(HandshakeError, match=r"no TLS 1\.3"):
            await node.hub.connect(f"tls://127.0.0.1:{port}", deadline_secs=WAIT_SECS)
        assert node.hub.statistics().handshakes_failed == 1
        other.close()


async def test_who_listens_and_says_nothing_has_a_deadline() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        uri = f"tls://127.0.0.1:{silent.getsockname()[1]}"
        slow, quick = Node("slow", Limits(handshake_secs=0.1)), Node("quick")
        async with slow.hub, quick.hub:
            with pytest.raises(HandshakeError, match="no TLS handshake within"):
                await slow.hub.connect(uri, deadline_secs=WAIT_SECS)
            with pytest.raises(ChannelBroken, match=r"within 0\.1 s"):
                await quick.hub.connect(uri, deadline_secs=0.1)


# Rotation.


def serial(link: Link) -> str:
    """Number of the certificate that the peer of a link has shown."""
    connection = link.wire._connection  # type: ignore[attr-defined]
    return str(connection.getpeercert()["serialNumber"])


async def test_new_certificates_are_used_for_new_links_only(
    authority: ClusterAuthority, certified: Certificates
) -> None:
    credentials = certified("far")
    far, one, two, three = Node("far", credentials=credentials), Node("1"), Node("2"), Node("3")
    async with far.hub, one.hub, two.hub, three.hub:
        bound = await far.hub.listen(ANY_PORT)
        first = await one.hub.connect(bound, deadline_secs=WAIT_SECS)
        install_identity(credentials.directory, authority.issue("node", "far"))
        second = await two.hub.connect(bound, deadline_secs=WAIT_SECS)
        assert serial(first) != serial(second)
        install_identity(credentials.directory, authority.issue("node", "far"))
        far.hub.rotate_credentials()
        third = await three.hub.connect(bound, deadline_secs=WAIT_SECS)
        assert len({serial(first), serial(second), serial(third)}) == 3
        for link in (first, second, third):
            assert await works(link, far)


async def test_bad_new_certificates_leave_the_old_in_use(
    certified: Certificates, log: list[str]
) -> None:
    credentials = certified("far")
    far, one, two = Node("far", credentials=credentials), Node("1"), Node("2")
    async with far.hub, one.hub, two.hub:
        bound = await far.hub.listen(ANY_PORT)
        path = credentials.directory / IDENTITY_FILE
        path.write_text("half a cert")
        with pytest.raises(CredentialsError, match=r"identity\.pem: holds no certificate"):
            far.hub.rotate_credentials()
        assert await works(await one.hub.connect(bound, deadline_secs=WAIT_SECS), far)
        assert await works(await two.hub.connect(bound, deadline_secs=WAIT_SECS), far)
    assert len([line for line in log if "the old one stays" in line]) == 1


async def test_a_new_authority_takes_over_without_cutting_anything_off(
    certified: Certificates,
) -> None:
    old = ClusterAuthority.create("test")
    new = old.successor()
    names = ("a", "b", "c", "d", "e", "f")
    owned = {name: certified(name, old.issue("node", name), old.bundle_pem) for name in names}
    a, b, c, d, e, f = (Node(name, credentials=owned[name]) for name in names)
    async with a.hub, b.hub, c.hub, d.hub, e.hub, f.hub:
        bound = await a.hub.listen(ANY_PORT)
        links = [await b.hub.connect(bound, deadline_secs=WAIT_SECS)]
        # All learn to trust both.
        for name in names:
            install_authorities(owned[name].directory, new.bundle_pem)
        links.append(await c.hub.connect(bound, deadline_secs=WAIT_SECS))
        # They change one after another; old and new understand each other, either way.
        install_identity(owned["a"].directory, new.issue("node", "a"))
        links.append(await d.hub.connect(bound, deadline_secs=WAIT_SECS))
        bound_e = await e.hub.listen(ANY_PORT)
        links.append(await a.hub.connect(bound_e, deadline_secs=WAIT_SECS))
        # The old authority is forgotten.
        for name in ("a", "f"):
            install_authorities(owned[name].directory, new.without_predecessors().bundle_pem)
        with pytest.raises(CredentialsError, match="no authority"):
            await f.hub.connect(bound, deadline_secs=WAIT_SECS)
        install_authorities(owned["f"].directory, new.bundle_pem)
        with pytest.raises((HandshakeError, ChannelBroken), match="may not accept"):
            await f.hub.connect(bound, deadline_secs=WAIT_SECS)
        assert a.hub.statistics().refused == 1
        for link, node in zip(links, (a, a, a, e), strict=True):
            assert await works(link, node)


async def test_an_own_certificate_that_expires_ends_new_links_only(
    certified: Certificates, log: list[str]
) -> None:
    far, one, two = Node("far", credentials=certified("far")), Node("1"), Node("2")
    async with far.hub, one.hub, two.hub:
        bound = await far.hub.listen(ANY_PORT)
        link = await one.hub.connect(bound, deadline_secs=WAIT_SECS)
        assert far.hub._tls is not None
        contexts = far.hub._tls.contexts
        assert contexts._loaded is not None
        contexts._loaded = replace(contexts._loaded, not_after=LONG_AGO)
        with pytest.raises(HandshakeError):
            await two.hub.connect(bound, deadline_secs=WAIT_SECS)
        await until(lambda: far.hub.statistics().refused == 1)
        with pytest.raises(CredentialsError, match="expired"):
            await far.hub.connect("tls://127.0.0.1:1", deadline_secs=WAIT_SECS)
        assert await works(link, far)
    assert [line for line in log if "the certificate expired at 2020" in line]
