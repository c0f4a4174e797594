"""What a peer may ask a process for, and what it may not."""

from __future__ import annotations

import pickle
import sys
from collections.abc import AsyncIterator
from typing import Any

import cloudpickle
import msgpack
import pytest
from tests.session.conftest import Actors, Mover, Stay, pipeline_of, until

from antiphon.frames import codec
from antiphon.frames.frames import EndFrame, Frame, TextFrame
from antiphon.pipeline.task import PipelineTask
from antiphon_actors.channels import ChannelError, ChannelRefused, Hub, Link, RemoteCallError
from antiphon_actors.session.endpoint import pack


@pytest.fixture
async def stranger() -> AsyncIterator[Hub]:
    async def nothing(link: Link, method: str, body: bytes) -> bytes:
        raise ChannelRefused("nothing here")

    def no_stream(link: Link, key: bytes) -> Any:
        raise ChannelRefused("nothing here")

    async with Hub(name="stranger", on_stream=no_stream, on_call=nothing) as hub:
        yield hub


class Running:
    """A session with one remote processor, while it runs."""

    def __init__(self, actors: Actors) -> None:
        self.actors = actors
        self.mover, self.home = Mover("a"), Stay()
        self.task = pipeline_of(self.mover, self.home)

    async def run(self, what: Any) -> None:
        failed: list[BaseException] = []

        @self.task.event_handler("on_pipeline_started")
        async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
            try:
                await what()
            except BaseException as error:
                failed.append(error)
                raise
            finally:
                await task.queue_frames([TextFrame("still here"), EndFrame()])

        await self.actors.run(self.task)
        if failed:
            raise failed[0]
        assert self.home.texts == ["still herea"]
        assert not self.task.errors


@pytest.fixture
def running(actors: Actors) -> Running:
    return Running(actors)


def body(*parts: Any, session: str = "s1") -> bytes:
    return pack(session, codec.encode_value(list(parts), None))


def numbers_of(running: Running) -> tuple[int, int]:
    """The numbers of the remote processor and of the one at home."""
    node = running.actors.endpoint.sessions["s1"]
    mover, home = node.processor_number(running.mover), node.processor_number(running.home)
    assert mover is not None
    assert home is not None
    return mover, home


async def test_calls_that_are_refused(running: Running, stranger: Hub) -> None:
    async def ask() -> None:
        host = await stranger.connect(running.actors.hosts[0].uri, deadline_secs=5)
        home = await stranger.connect(running.actors.endpoint.uri, deadline_secs=5)
        mover_pid, home_pid = numbers_of(running)

        async def refused(link: Link, method: str, data: bytes) -> str:
            with pytest.raises(RemoteCallError) as raised:
                await link.call(method, data, deadline_secs=5)
            return f"{raised.value.type_name}: {raised.value.message}"

        calls = [
            (host, "call", body(mover_pid, "not_for_others", [], {})),
            (host, "call", body(mover_pid, "process_frame", [], {})),
            (host, "call", body(mover_pid, "__class__", [], {})),
            (host, "call", body(mover_pid, "no_such_thing", [], {})),
            (host, "call", body(10_000, "set_tag", ["x"], {})),
            (host, "call", body(home_pid, "push_frame", [], {})),
            (host, "call", body("1", "set_tag", [], {})),
            (host, "call", body(mover_pid, "set_tag")),
            (host, "eval", body("1+1")),
            (host, "call", body(mover_pid, "set_tag", ["x"], {}, session="another")),
            # At home there is nothing to be called but what home itself has given out.
            (home, "call", body(mover_pid, "set_tag", ["x"], {})),
            (home, "call", body(home_pid, "push_frame", [], {})),
            (home, "invoke", body(10_000, [], {})),
            (home, "invoke", body("1", [], {})),
            (home, "detach", body()),
            (home, "open_edges", body()),
        ]
        for link, method, data in calls:
            text = await refused(link, method, data)
            assert text.startswith(("ChannelRefused: ", "UnknownReference: ")), text
        for data in (b"", b"\xc1", msgpack.packb([1, 2]), msgpack.packb("s1"), pack("s1", 5)):
            await refused(host, "call", data)
        remote = await running.actors.remote(running.mover)
        assert remote._set == []

    await running.run(ask)


async def test_notices_that_are_refused(running: Running, stranger: Hub) -> None:
    async def tell() -> None:
        host = await stranger.connect(running.actors.hosts[0].uri, deadline_secs=5)
        home = await stranger.connect(running.actors.endpoint.uri, deadline_secs=5)
        mover_pid, home_pid = numbers_of(running)
        host.notify("post", body(mover_pid, "not_for_others", [], {}))
        host.notify("post", body(mover_pid, "shout", ["x"], {}))  # has to be awaited
        host.notify("post", b"\x00")
        host.notify("failed", body(running.actors.hosts[0].uri, "lies"))
        home.notify("post", body(home_pid, "push_frame", [], {}))
        home.notify("pass_on", body(mover_pid, 1, TextFrame("words")))
        home.notify("pass_on", body(mover_pid, 1, "EndFrame"))
        home.notify("failed", body(1, 2))
        home.notify("failed", body("unix:///nowhere", "not of this session"))
        for link in (host, home):  # notices are taken in order, so these are through
            with pytest.raises(RemoteCallError):
                await link.call("eval", body(), deadline_secs=5)

    await running.run(tell)


async def test_streams_that_are_refused(running: Running, stranger: Hub) -> None:
    async def open_streams() -> None:
        host = await stranger.connect(running.actors.hosts[0].uri, deadline_secs=5)
        home = await stranger.connect(running.actors.endpoint.uri, deadline_secs=5)
        mover_pid, home_pid = numbers_of(running)
        keys = [
            (host, pack("another", "f", mover_pid, 1)),
            (host, pack("s1", "f", home_pid, 1, 0)),
            (host, pack("s1", "o", 0, 1, 0)),
            (host, pack("s1", "f", mover_pid, 3, 0)),
            (home, pack("s1", "f", mover_pid, 1, 0)),
            (home, pack("s1", "x", home_pid, 1, 0)),
            (home, b"nonsense"),
        ]
        for link, key in keys:
            with pytest.raises(ChannelError):
                await link.open_stream(key)

    await running.run(open_streams)


HOSTILE = [
    msgpack.packb(["os:system", 1, "echo"]),
    msgpack.packb(["subprocess:Popen", 1, 0, None, None, None, None, ["true"]]),
    msgpack.packb(["this:s", 1, 0]),
    msgpack.packb(msgpack.ExtType(8, msgpack.packb(["antigravity:fly", {}]))),
    msgpack.packb([1, 2, [3, 4, {"x": msgpack.ExtType(8, msgpack.packb(["os:system", "ls"]))}]]),
    pickle.dumps(print),
    cloudpickle.dumps(lambda: None),
]


async def test_nothing_from_a_peer_is_imported_or_unpickled(
    running: Running, stranger: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send() -> None:
        host = await stranger.connect(running.actors.hosts[0].uri, deadline_secs=5)
        home = await stranger.connect(running.actors.endpoint.uri, deadline_secs=5)
        mover_pid, _ = numbers_of(running)
        modules = set(sys.modules)

        def forbidden(*_: object, **__: object) -> object:
            raise AssertionError("unpickled something")

        with monkeypatch.context() as patch:
            for module in (pickle, cloudpickle):
                patch.setattr(module, "loads", forbidden)
                patch.setattr(module, "load", forbidden)
            patch.setattr(pickle, "Unpickler", forbidden)
            for data in HOSTILE:
                for link in (host, home):
                    for method in ("call", "invoke"):
                        with pytest.raises(RemoteCallError) as raised:
                            await link.call(method, pack("s1", data), deadline_secs=5)
                        assert raised.value.type_name != "AssertionError"
                watch = await home.open_stream(pack("s1", "o", 0, 1, 0))
                await watch.send(data)
                await until(lambda watch=watch: watch.error)  # type: ignore[misc]
            call = codec.encode_value([mover_pid, "shout", ["quietly"], {}], None)
            await host.call("call", pack("s1", call), deadline_secs=5)
        assert set(sys.modules) == modules
        running.home.down[:] = [
            frame for frame in running.home.down if not isinstance(frame, TextFrame)
        ]

    await running.run(send)
