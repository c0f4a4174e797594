"""A Redis server of the tests' own: with a password, over TCP, TLS and a Unix socket."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSWORD = "open-sesame"
START_SECS = 20.0


@dataclass
class RedisServer:
    """A running server.

    Attributes:
        process: Its process.
        port: Where it listens on the loopback address.
        tls_port: Where it does so with TLS.
        directory: Its files: its socket and its certificate.
    """

    process: subprocess.Popen[bytes]
    port: int
    tls_port: int
    directory: Path

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def tls_url(self) -> str:
        authority = self.directory / "certificate.pem"
        return f"rediss://:{PASSWORD}@127.0.0.1:{self.tls_port}/0?ssl_ca_certs={authority}"

    @property
    def unix_url(self) -> str:
        return f"unix://:{PASSWORD}@{self.directory}/redis.sock"


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Runs a server; without one on this machine the test is skipped, or fails in CI."""
    command, environment = _find()
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        yield from _running(command, environment, Path(directory))


def _running(command: str, environment: dict[str, str], directory: Path) -> Iterator[RedisServer]:
    _make_certificate(directory)
    port, tls_port = _free_port(), _free_port()
    options = {
        "bind": "127.0.0.1",
        "port": port,
        "tls-port": tls_port,
        "tls-cert-file": directory / "certificate.pem",
        "tls-key-file": directory / "key.pem",
        "tls-ca-cert-file": directory / "certificate.pem",
        "tls-auth-clients": "no",
        "unixsocket": directory / "redis.sock",
        "requirepass": PASSWORD,
        "dir": directory,
        "logfile": directory / "redis.log",
        "save": "",
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    process = subprocess.Popen([command, *arguments], env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECS
        while not _answers(port):
            log = directory / "redis.log"
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"redis does not start: {log.read_text() if log.exists() else '?'}")
            time.sleep(0.01)  # a process that starts has no event
        yield RedisServer(process, port, tls_port, directory)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _find() -> tuple[str, dict[str, str]]:
    found = shutil.which("redis-server")
    if found is not None:
        return found, dict(os.environ)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "antiphon" / "redis" / "usr"
    if (folder / "bin" / "redis-server").exists():
        triplet = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
        libraries = str(folder / "lib" / triplet)
        return str(folder / "bin" / "redis-server"), {**os.environ, "LD_LIBRARY_PATH": libraries}
    missing = "no redis-server on this machine: install Redis 7, or run `make redis`"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _make_certificate(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis of a test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
    )
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
