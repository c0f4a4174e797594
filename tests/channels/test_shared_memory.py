"""Payloads that travel by shared memory: whole, bounded, and gone whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from antiphon_actors.channels import ChannelBroken, Limits
from antiphon_actors.channels.errors import ProtocolViolation
from antiphon_actors.channels.shared_memory import SharedMemory, SharedReceiver, SharedSender
from antiphon_actors.channels.testing import WAIT_SECS, Node, linked, until
from antiphon_actors.channels.wire import Credentials

ID = b"\x07" * 16
ME = Credentials(os.getpid(), os.getuid(), os.getgid())
LARGE = bytes(range(256)) * 4096


def memory(max_bytes: int = 64 << 20) -> SharedMemory:
    return SharedMemory(Limits(max_shared_bytes=max_bytes), ID)


def receiver(max_bytes: int = 32 << 20) -> SharedReceiver:
    return SharedReceiver(os.getpid(), max_bytes)


def open_files() -> int:
    return sum("memfd:antiphon" in name for name in map(_target, Path("/proc/self/fd").iterdir()))


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:  # the listing's own descriptor
        return ""


@given(st.lists(st.binary(max_size=5000), max_size=20))
def test_what_is_put_there_is_read_and_files_are_used_again(payloads: list[bytes]) -> None:
    files = memory()
    sender = SharedSender(files)
    for seq, payload in enumerate(payloads, 1):
        where = sender.put(seq, payload, urgent=False)
        assert receiver().read(where) == payload
        sender.acknowledged(seq, 0)
    assert files.in_use == 0
    assert open_files() <= 1
    files.close()
    assert open_files() == 0
    assert files.held_bytes == 0


def test_a_payload_stays_until_its_own_lane_is_acknowledged() -> None:
    files = memory()
    sender = SharedSender(files)
    places = [
        sender.put(1, b"first", urgent=False),
        sender.put(2, b"second", urgent=False),
        sender.put(1, b"now", urgent=True),
    ]
    assert [receiver().read(where) for where in places] == [b"first", b"second", b"now"]
    sender.acknowledged(1, 0)
    assert files.in_use == 2
    assert receiver().read(places[1]) == b"second"
    sender.acknowledged(1, 1)
    assert files.in_use == 1
    sender.close()
    sender.close()
    assert files.in_use == 0
    files.close()


def test_the_total_is_bounded() -> None:
    files = memory(max_bytes=3 * len(LARGE))
    sender = SharedSender(files)
    taken = [sender.put(seq, LARGE, urgent=False) for seq in range(1, 6)]
    assert [where is not None for where in taken] == [True] * 3 + [False] * 2
    assert files.held_bytes == 3 * len(LARGE)
    sender.acknowledged(1, 0)
    assert sender.put(6, LARGE, urgent=False) is not None
    sender.close()
    files.close()
    assert files.held_bytes == 0
    assert files.take(b"late") is None


def test_files_in_use_are_bounded() -> None:
    files = memory()
    sender = SharedSender(files)
    taken = [sender.put(seq, b"x", urgent=True) for seq in range(1, 70)]
    assert sum(where is not None for where in taken) == 64
    sender.close()
    files.close()


def test_idle_files_hold_little() -> None:
    files = memory()
    sender = SharedSender(files)
    for seq in range(1, 5):
        assert sender.put(seq, bytes(4 << 20), urgent=False) is not None
    sender.close()
    assert files.held_bytes == 8 << 20
    files.close()


def test_closing_first_and_giving_back_later() -> None:
    files = memory()
    sender = SharedSender(files)
    sender.put(1, LARGE, urgent=False)
    files.close()
    assert open_files() == 1
    sender.close()
    assert open_files() == 0


def test_a_peer_shows_that_it_can_read() -> None:
    files = memory()
    probe = files.probe()
    assert len(probe) == 2
    assert files.probe() == probe
    assert SharedReceiver.of(ME, ID, probe, 1 << 20) is not None
    assert SharedReceiver.of(None, ID, probe, 1 << 20) is None
    assert SharedReceiver.of(Credentials(0, 0, 0), ID, probe, 1 << 20) is None
    assert SharedReceiver.of(ME, b"\x08" * 16, probe, 1 << 20) is None
    assert SharedReceiver.of(ME, ID, [], 1 << 20) is None
    assert SharedReceiver.of(ME, ID, [probe[0], probe[1] + 1], 1 << 20) is None
    files.close()
    assert files.probe() == ()
    assert SharedReceiver.of(ME, ID, probe, 1 << 20) is None


def test_a_system_without_such_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert memory().probe() == ()


def test_a_full_machine_sends_payloads_through_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    files = memory()

    def full(fd: int, payload: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert files.take(LARGE) is None
    monkeypatch.setattr(os, "pwrite", lambda fd, payload, offset: 1)
    assert files.take(LARGE) is None
    assert (files.in_use, files.held_bytes, open_files()) == (0, 0, 0)


@pytest.mark.parametrize(
    "words",
    [None, "text", 5, [], [1, 2], [1, "2", 3], [1, 2, -3], [True, 2, 3], [1, 2, 1 << 40]],
)
def test_malformed_words_are_a_violation(words: object) -> None:
    with pytest.raises(ProtocolViolation):
        receiver().read(words)


def test_what_is_not_the_file_that_was_meant(tmp_path: Path) -> None:
    files = memory()
    sender = SharedSender(files)
    number, inode, size = sender.put(1, b"payload", urgent=False) or []
    with pytest.raises(ChannelBroken, match="any more"):
        receiver().read([number, inode + 1, size])
    with pytest.raises(ChannelBroken, match="any more"):
        receiver().read([number, inode, size + 1])
    with pytest.raises(ChannelBroken, match="cannot be read"):
        receiver().read([1 << 20, inode, size])
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    left, right = socket.socketpair()
    with left, right, (tmp_path / "file").open("w+b") as plain:
        for fd in (fifo, left.fileno(), plain.fileno()):
            with pytest.raises(ChannelBroken):
                receiver().read([fd, os.fstat(fd).st_ino, 1])
    os.close(fifo)
    sender.close()
    files.close()


# Over links.

LIMITS = Limits(shared_payload_bytes=50_000, window_bytes=4 << 20, window_frames=8)


async def test_large_payloads_go_by_shared_memory(unix_uri: str) -> None:
    async with linked(unix_uri, near=LIMITS, far=LIMITS) as (near, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        small = bytes(40_000)
        for payload in (LARGE, small, LARGE):
            assert stream.send_nowait(payload)
        stream.send_nowait(LARGE, urgent=True)
        receiver = far.receivers[b"key"]
        await receiver.received(4)
        assert receiver.payloads(urgent=False) == [LARGE, small, LARGE]
        assert receiver.payloads(urgent=True) == [LARGE]
        assert near.hub.statistics().shared_payloads == 3
        assert link.statistics().bytes_sent < 2 * len(small)
        # What would be replayed is here, not there.
        assert [sent.payload for _, sent in stream.unacknowledged()] == [LARGE, LARGE, small, LARGE]
        receiver.finish()
        await stream.drain()
        assert near.hub.statistics().shared_payloads == 0


async def test_other_links_know_nothing_of_it(uri: str) -> None:
    async with linked(uri, near=LIMITS, far=LIMITS) as (near, far, link):
        stream = await link.open_stream(b"key")
        await stream.send(LARGE)
        await stream.drain()
        assert far.receivers[b"key"].payloads() == [LARGE]
        by_socket = link.statistics().bytes_sent > len(LARGE)
        assert by_socket is not uri.startswith("unix:")
        assert near.hub.statistics().shared_bytes == (0 if by_socket else len(LARGE))


async def test_a_peer_that_cannot_read_gets_payloads_through_the_socket(
    unix_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedReceiver, "of", lambda *_: None)
    async with linked(unix_uri, near=LIMITS, far=LIMITS) as (near, far, link):
        stream = await link.open_stream(b"key")
        await stream.send(LARGE)
        await stream.drain()
        assert far.receivers[b"key"].payloads() == [LARGE]
        assert near.hub.statistics().shared_bytes == 0


async def test_more_than_may_be_shared_goes_through_the_socket(unix_uri: str) -> None:
    limits = replace(LIMITS, max_shared_bytes=2 * len(LARGE))
    async with linked(unix_uri, near=limits, far=limits) as (near, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        for _ in range(4):
            assert stream.send_nowait(LARGE)
        receiver = far.receivers[b"key"]
        await receiver.received(4)
        assert receiver.payloads() == [LARGE] * 4
        assert near.hub.statistics().shared_payloads == 2
        receiver.finish()
        await stream.drain()


@pytest.mark.parametrize("end", ["stop", "abort", "aclose", "link", "receiver fails"])
async def test_nothing_stays_in_use_however_a_stream_ends(unix_uri: str, end: str) -> None:
    async with linked(unix_uri, near=LIMITS, far=LIMITS) as (near, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        assert stream.send_nowait(LARGE)
        receiver = far.receivers[b"key"]
        await receiver.received(1)
        assert near.hub.statistics().shared_payloads == 1
        if end == "stop":
            far.hub.links[0].stop_stream(receiver, "enough")
        elif end == "abort":
            stream.abort()
        elif end == "aclose":
            await stream.aclose()
        elif end == "link":
            far.hub.links[0].wire.abort()
        else:
            logger.disable("antiphon_actors.channels")
            receiver.deliver = None  # type: ignore[method-assign, assignment]
            stream.send_nowait(b"x")
        await until(lambda: near.hub.statistics().shared_payloads == 0)
        logger.enable("antiphon_actors.channels")
        assert receiver.payloads() == [LARGE]
    assert open_files() == 0


async def test_a_payload_that_is_gone_ends_its_stream_only(
    unix_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(unix_uri, near=LIMITS, far=LIMITS) as (near, far, link):
        lost, other = await link.open_stream(b"lost"), await link.open_stream(b"other")
        with monkeypatch.context() as patch:
            patch.setattr(SharedSender, "put", lambda *_, **__: [1 << 20, 1, len(LARGE)])
            lost.send_nowait(LARGE)
        await until(lambda: far.receivers[b"lost"].ended)
        assert isinstance(far.receivers[b"lost"].reason, ChannelBroken)
        await until(lambda: lost.error is not None)
        await other.send(LARGE)
        await other.drain()
        assert far.receivers[b"other"].payloads() == [LARGE]
        assert near.hub.links == (link,)


CHILD = """
import asyncio, sys
from antiphon_actors.channels import Limits
from antiphon_actors.channels.testing import Node

async def main(uri):
    limits = Limits(shared_payload_bytes=50_000, window_bytes=4 << 20)
    node = Node("child", limits)
    node.auto_done = False
    async with node.hub:
        print(await node.hub.listen(uri), flush=True)
        while not node.receivers:
            await asyncio.sleep(0.001)
        back = await node.hub.links[0].open_stream(b"back")
        for _ in range(3):
            await back.send(bytes(range(256)) * 4096)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.chaos
async def test_nothing_is_left_of_a_killed_process(unix_uri: str) -> None:
    """Whichever end dies: the files have no names, and the kernel closes a process's own."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        unix_uri,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    node = Node("parent", LIMITS)
    node.auto_done = False
    try:
        assert child.stdout is not None
        async with asyncio.timeout(30):
            bound = (await child.stdout.readline()).decode().strip()
        async with node.hub:
            link = await node.hub.connect(bound, deadline_secs=WAIT_SECS)
            stream = await link.open_stream(b"key")
            assert stream.send_nowait(LARGE)
            await until(lambda: b"back" in node.receivers)
            receiver = node.receivers[b"back"]
            await receiver.received(3)
            child.send_signal(signal.SIGKILL)
            async with asyncio.timeout(WAIT_SECS):
                await link.closed.wait()
            assert node.hub.statistics().shared_payloads == 0
            # What was read is the reader's own.
            assert receiver.payloads() == [LARGE] * 3
            assert [sent.payload for _, sent in stream.unacknowledged()] == [LARGE]
        assert open_files() == 0
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await child.wait()
        child._transport.close()  # type: ignore[attr-defined]
