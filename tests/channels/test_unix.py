"""What only Unix sockets have: files, modes, users, and processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from antiphon_actors.channels import (
    ChannelBroken,
    ChannelBusy,
    ChannelError,
    ChannelRefused,
    HandshakeError,
    Limits,
    UnsupportedAddress,
)
from antiphon_actors.channels import unix as unix_module
from antiphon_actors.channels.testing import WAIT_SECS, Node, linked, until
from antiphon_actors.channels.wire import Credentials


def path_of(uri: str) -> Path:
    return Path(uri.removeprefix("unix://"))


async def test_directory_and_socket_come_and_go(unix_uri: str) -> None:
    node = Node("node")
    async with node.hub:
        bound = await node.hub.listen(unix_uri)
        assert bound == unix_uri
        path = path_of(bound)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert list(path.parent.iterdir()) == [path]
    assert list(path.parent.iterdir()) == []


async def test_an_open_directory_is_refused(unix_uri: str) -> None:
    path_of(unix_uri).parent.mkdir(mode=0o755)
    path_of(unix_uri).parent.chmod(0o755)
    node = Node("node")
    async with node.hub:
        with pytest.raises(ChannelRefused, match="0700"):
            await node.hub.listen(unix_uri)


async def test_a_stale_socket_is_replaced(unix_uri: str) -> None:
    path = path_of(unix_uri)
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    node = Node("node")
    async with node.hub:
        with pytest.raises(ChannelBroken, match="nobody listens"):
            await node.hub.connect(unix_uri, deadline_secs=WAIT_SECS)
        await node.hub.listen(unix_uri)
        await node.hub.connect(unix_uri, deadline_secs=WAIT_SECS)


async def test_a_live_socket_and_a_plain_file_stay(unix_uri: str) -> None:
    path = path_of(unix_uri)
    path.parent.mkdir(mode=0o700)
    node = Node("node")
    async with node.hub:
        with socket.socket(socket.AF_UNIX) as live:
            live.bind(str(path))
            live.listen(1)
            with pytest.raises(ChannelBusy):
                await node.hub.listen(unix_uri)
        path.unlink()
        path.write_text("mine")
        with pytest.raises(ChannelRefused, match="not a socket"):
            await node.hub.listen(unix_uri)
    assert path.read_text() == "mine"


async def test_a_socket_that_is_no_longer_ours_is_left_alone(unix_uri: str) -> None:
    path = path_of(unix_uri)
    one, two = Node("one"), Node("two")
    async with two.hub:
        async with one.hub:
            await one.hub.listen(unix_uri)
            path.unlink()
            await two.hub.listen(unix_uri)
        assert path.exists()


async def test_foreign_users_are_refused_and_counted(
    unix_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = Node("server"), Node("client")
    async with server.hub, client.hub:
        await server.hub.listen(unix_uri)
        foreign = Credentials(pid=1, uid=os.getuid() + 1, gid=0)
        real = unix_module.peer_credentials

        def only_the_server_sees_a_foreigner(connection: socket.socket) -> Credentials:
            # The dialling end of a Unix socket has no name.
            return foreign if connection.getsockname() else real(connection)

        monkeypatch.setattr(unix_module, "peer_credentials", only_the_server_sees_a_foreigner)
        with pytest.raises((HandshakeError, ChannelBroken)):
            await client.hub.connect(unix_uri, deadline_secs=WAIT_SECS)
        await until(lambda: server.hub.statistics().refused == 1)
        assert server.hub.statistics().links == ()

        monkeypatch.setattr(unix_module, "peer_credentials", lambda connection: foreign)
        with pytest.raises(ChannelRefused, match="belongs to user"):
            await client.hub.connect(unix_uri, deadline_secs=WAIT_SECS)


async def test_credentials_of_the_peer_are_known(unix_uri: str) -> None:
    async with linked(unix_uri) as (_, far, link):
        me = Credentials(os.getpid(), os.getuid(), os.getgid())
        assert link.credentials == me
        assert far.hub.links[0].credentials == me
        assert link.peer.pid == os.getpid()


async def test_links_of_a_hub_are_bounded(unix_uri: str) -> None:
    server = Node("server", Limits(max_links=1))
    one, two = Node("one"), Node("two")
    async with server.hub, one.hub, two.hub:
        await server.hub.listen(unix_uri)
        await one.hub.connect(unix_uri, deadline_secs=WAIT_SECS)
        with pytest.raises(ChannelRefused, match="too many links"):
            await two.hub.connect(unix_uri, deadline_secs=WAIT_SECS)
        assert server.hub.statistics().refused == 1


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("tls://host", "host:port"),
        ("tls://host:70000", "a port"),
        ("tls://host:1/path", "host:port"),
        ("tls://user@host:1", "host:port"),
        ("tcp://host:1", "no transport"),
        ("unix://relative.sock", "absolute"),
        ("unix:///", "absolute"),
        ("unix:///dir/", "absolute"),
        ("unix:///" + "x" * 120, "at most"),
        ("inproc://", "name"),
        ("unix:///a.sock?x=1", "no query"),
        ("nonsense", "no transport"),
        ("unix://[", "not a channel URI"),
    ],
)
async def test_addresses_that_cannot_be(uri: str, text: str) -> None:
    node = Node("node")
    async with node.hub:
        with pytest.raises(UnsupportedAddress, match=text):
            await node.hub.listen(uri)
        with pytest.raises(UnsupportedAddress, match=text):
            await node.hub.connect(uri, deadline_secs=WAIT_SECS)


async def test_who_has_just_been_accepted_hears_that_the_hub_ends(unix_uri: str) -> None:
    near, far = Node("near"), Node("far")
    async with near.hub, far.hub:
        bound = await far.hub.listen(unix_uri)
        begun = asyncio.Event()
        acceptor = far.hub._listeners[0]._acceptor  # type: ignore[attr-defined]
        begin = acceptor._begin

        def end_at_once(connection: socket.socket, peer: object) -> None:
            begin(connection, peer)
            far.hub.abort()
            begun.set()

        acceptor._begin = end_at_once
        dialling = asyncio.create_task(near.hub.connect(bound, deadline_secs=60))
        await begun.wait()
        async with asyncio.timeout(1):
            with pytest.raises(ChannelError):
                await dialling


async def test_the_last_words_of_a_process_are_heard_whatever_it_is_told_then(
    unix_uri: str,
) -> None:
    near, far = Node("near"), Node("far")
    async with near.hub, far.hub:
        bound = await far.hub.listen(unix_uri)
        link = await near.hub.connect(bound, deadline_secs=WAIT_SECS)
        await until(lambda: len(far.hub.links) == 1)
        far.hub.links[0].notify("last", b"words")
        wire: Any = far.hub.links[0].wire
        # As the kernel does it when the process ends.
        with socket.socket(fileno=os.dup(wire._fd)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
        link.notify("too", b"late")
        async with asyncio.timeout(WAIT_SECS):
            await link.closed.wait()
        assert near.notifications == [("last", b"words")]


CHILD = """
import asyncio, sys
from antiphon_actors.channels.testing import Node

async def main():
    node = Node("child")
    async with node.hub:
        print(await node.hub.listen(sys.argv[1]), flush=True)
        async def hang(link, body):
            await asyncio.Event().wait()
        node.handlers["hang"] = hang
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.chaos
async def test_a_killed_process_is_noticed_at_once(unix_uri: str) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        unix_uri,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    node = Node("parent")
    try:
        assert child.stdout is not None
        async with asyncio.timeout(30):
            bound = (await child.stdout.readline()).decode().strip()
        async with node.hub:
            link = await node.hub.connect(bound, deadline_secs=WAIT_SECS)
            assert link.peer.pid == child.pid
            stream = await link.open_stream(b"key")
            call = asyncio.ensure_future(link.call("hang", b"", deadline_secs=None))
            await stream.send(b"x")
            await stream.drain()
            noticed: list[float] = []
            link.add_closed_callback(lambda link, reason: noticed.append(time.monotonic()))
            killed = time.monotonic()
            child.send_signal(signal.SIGKILL)
            async with asyncio.timeout(WAIT_SECS):
                await link.closed.wait()
            assert isinstance(link.close_reason, ChannelBroken)
            assert noticed[0] - killed < 1.0  # milliseconds, on a machine that is not overloaded
            with pytest.raises(ChannelBroken):
                await call
            with pytest.raises(ChannelBroken):
                await stream.send(b"y")
            # Its socket file is still there; a successor takes the address over.
            successor = Node("successor")
            async with successor.hub:
                assert await successor.hub.listen(bound) == bound
                again = await node.hub.connect(bound, deadline_secs=WAIT_SECS)
                assert again.peer.name == "successor"
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await child.wait()
        child._transport.close()  # type: ignore[attr-defined]
