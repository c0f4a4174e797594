"""Channels are tested on both event loops, and the conformance suite over every transport."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import msgpack
import pytest
import uvloop

from antiphon.testing.virtual_time import VirtualTimeLoop
from antiphon_actors.certificates import ClusterAuthority, install
from antiphon_actors.channels import TlsCredentials
from antiphon_actors.channels.framing import LENGTH_BYTES, Record
from antiphon_actors.channels.testing import Node

_names = itertools.count()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualTimeLoop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def _libuv_opened_its_pipes() -> None:
    """libuv makes one signal pipe per process with its first loop and keeps it."""
    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.fixture(scope="session")
def authority() -> ClusterAuthority:
    return ClusterAuthority.create("test")


@pytest.fixture(scope="session")
def credentials(
    authority: ClusterAuthority, tmp_path_factory: pytest.TempPathFactory
) -> TlsCredentials:
    """Of a process of the cluster `test` in the role `node`, which talks to such."""
    directory = tmp_path_factory.mktemp("credentials")
    directory.chmod(0o700)
    install(directory, authority.issue("node", "one"), authority.bundle_pem)
    return TlsCredentials(directory, "test", frozenset({"node"}))


def read_records(data: bytes) -> tuple[list[Record], bytes]:
    """Returns the records that bytes begin with, read by no code of ours, and the rest."""
    records: list[Record] = []
    while len(data) >= LENGTH_BYTES:
        end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
        if len(data) < end:
            break
        records.append(msgpack.unpackb(data[LENGTH_BYTES:end]))
        data = data[end:]
    return records, data


def free_port() -> int:
    """Returns a port that nobody listens at, below those that the kernel gives to connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@pytest.fixture(params=["unix", "inproc", "tls"])
def new_uri(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], str]:
    """Makes fresh addresses of each transport."""
    if request.param == "unix":
        return lambda: f"unix://{tmp_path}/sockets/{next(_names)}.sock"
    if request.param == "inproc":
        return lambda: f"inproc://test-{next(_names)}"
    monkeypatch.setattr(Node, "default_credentials", request.getfixturevalue("credentials"))
    return lambda: f"tls://127.0.0.1:{free_port()}"


@pytest.fixture
def uri(new_uri: Callable[[], str]) -> str:
    """A fresh address of each transport."""
    return new_uri()


@pytest.fixture
def other_uri(new_uri: Callable[[], str]) -> str:
    """Another one of the same transport."""
    return new_uri()


@pytest.fixture
def unix_uri(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/sockets/{next(_names)}.sock"
