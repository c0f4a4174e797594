"""One session on two nodes, without Ray: each node has a directory and a certificate of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.session.conftest import (
    RUN_SECS,
    Actors,
    LocalHost,
    Mover,
    Stay,
    Watcher,
    pipeline_of,
    started,
    texts,
    until,
)

from antiphon.frames.frames import EndFrame, Frame, TextFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon_actors import processor_host
from antiphon_actors.certificates import ClusterAuthority, install, install_identity
from antiphon_actors.channels import ChannelError, ChannelRefused, Link, UnsupportedAddress
from antiphon_actors.channels.uris import ProcessAddress
from antiphon_actors.placement.plan import PlacedProcessor
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.home import Host
from antiphon_actors.session.network import ROLE, Network


def make_network(authority: ClusterAuthority, node: str, directory: Path) -> Network:
    """A node and its certificate."""
    network = Network("test", node, "127.0.0.1", directory / node / "certificate")
    network.directory.parent.mkdir(mode=0o700)
    install(network.directory, authority.issue(ROLE, node), authority.bundle_pem)
    return network


@pytest.fixture(scope="session")
def authority() -> ClusterAuthority:
    return ClusterAuthority.create("test")


class TwoNodes(Actors):
    """Home is on node `a`; processors whose tag says so are on node `b`."""

    def __init__(self, authority: ClusterAuthority, directory: Path) -> None:
        super().__init__(directory / "a")
        self.root = directory
        self.networks = {node: make_network(authority, node, directory) for node in "ab"}
        self.endpoint = Endpoint("home", self.networks["a"])

    async def acquire_one(self, placed: PlacedProcessor, avoid: Sequence[Host] = ()) -> LocalHost:
        node = "b" if placed.processor.name.startswith("far") else "a"
        name = f"host{len(self.hosts)}"
        host = LocalHost(name, self.root / node, self.networks[node])
        self.hosts.append(host)
        self.by_processor[placed.processor.name] = host
        await host.host.start()
        return host

    def links_of(self, endpoint: Endpoint) -> list[Link]:
        return list(endpoint._hub.links)


@pytest.fixture
async def nodes(
    authority: ClusterAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TwoNodes]:
    monkeypatch.setattr(processor_host, "claim_process_prefix", lambda: 0)
    made = TwoNodes(authority, tmp_path)
    await made.start()
    try:
        yield made
        await until(lambda: not made.left_over())
    finally:
        await made.aclose()


def chain() -> tuple[list[Mover], Stay]:
    return [
        Mover("1", name="near1"),
        Mover("2", name="far2"),
        Mover("3", name="far3"),
        Mover("4", name="near4"),
    ], Stay()


async def test_processors_on_two_nodes_give_the_same_frames(nodes: TwoNodes) -> None:
    movers, home = chain()
    watcher = Watcher()
    task = pipeline_of(*movers, home, observer=watcher)
    schemes: dict[str, list[str]] = {}

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(_task: object, frame: Frame) -> None:
        endpoints = [nodes.endpoint, *(host.host._endpoint for host in nodes.hosts)]
        for endpoint in endpoints:
            schemes[endpoint._hub.facts.name] = sorted(
                f"{link.peer.name} {link.identity.name if link.identity else 'unix'}"
                for link in nodes.links_of(endpoint)
            )
        await movers[2].shout("from afar")
        await task.queue_frames(texts("x", "y"))

    await nodes.run(task)
    assert not task.errors
    assert home.texts == ["from afar4", "x1234", "y1234"]
    # Unix sockets within a node, certificates of the peer's node between two.
    assert schemes == {
        "home": ["host0 unix", "host1 b", "host2 b", "host3 unix"],
        "host0": ["home unix", "host1 b"],
        "host1": ["home a", "host0 a", "host2 unix"],
        "host2": ["home a", "host1 unix", "host3 a"],
        "host3": ["home unix", "host2 b"],
    }
    assert [
        frame.text
        for frame in watcher.between(movers[1], movers[2])
        if isinstance(frame, TextFrame)
    ] == ["x12", "y12"]
    assert all(host.host.statistics()["links"]["refused"] == 0 for host in nodes.hosts)  # type: ignore[index]


async def test_certificates_are_rotated_while_a_session_runs(
    nodes: TwoNodes, authority: ClusterAuthority
) -> None:
    successor = authority.successor()
    movers, home = chain()
    task = pipeline_of(*movers, home)

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(_task: object, frame: Frame) -> None:
        before = {id(link) for link in nodes.links_of(nodes.endpoint)}
        for node, network in nodes.networks.items():
            install(network.directory, authority.issue(ROLE, node), successor.bundle_pem)
        await task.queue_frames(texts("x", end=False))
        for node, network in nodes.networks.items():
            install_identity(network.directory, successor.issue(ROLE, node))
        # A process that begins now shows and trusts what is new.
        late = LocalHost("late", nodes.root / "b", nodes.networks["b"])
        await late.host.start()
        nodes.hosts.append(late)
        await nodes.endpoint.link(late.uri)
        await task.queue_frames(texts("y"))
        assert before < {id(link) for link in nodes.links_of(nodes.endpoint)}

    await nodes.run(task)
    assert not task.errors
    assert home.texts == ["x1234", "y1234"]


async def test_strangers_are_refused_and_counted(
    nodes: TwoNodes, authority: ClusterAuthority, tmp_path: Path
) -> None:
    other = ClusterAuthority.create("test")
    stranger = Endpoint("stranger", make_network(other, "c", tmp_path))
    await stranger.start(f"unix://{tmp_path}/c/stranger.sock")
    try:
        with pytest.raises(ChannelError):
            await stranger.link(nodes.endpoint.uri)
        await until(lambda: nodes.endpoint.statistics()["refused"] == 1)
        with pytest.raises(ChannelRefused, match="certificate is not valid"):
            await nodes.endpoint.link(stranger.uri)
        assert nodes.endpoint.statistics()["refused"] == 2
        assert nodes.endpoint.statistics()["opened"] == 0
    finally:
        await stranger.aclose()


async def test_a_process_of_another_node_than_expected_is_refused(nodes: TwoNodes) -> None:
    far = LocalHost("far", nodes.root / "b", nodes.networks["b"])
    await far.host.start()
    nodes.hosts.append(far)
    pretended = replace(ProcessAddress.parse(far.uri), node="c").text
    with pytest.raises(ChannelRefused, match="node/b, not node c"):
        await nodes.endpoint.link(pretended)
    assert nodes.endpoint.statistics()["refused"] == 1


async def test_a_processor_that_dies_on_the_other_node(nodes: TwoNodes) -> None:
    movers, home = chain()
    task = pipeline_of(*movers, home)
    session = asyncio.create_task(nodes.run(task))
    await started(task)
    first = nodes.by_processor["far3"]
    first.die()
    await task.queue_frames(texts("1"))
    async with asyncio.timeout(RUN_SECS):
        record = await session
    assert [each.processors for each in record.recoveries] == [("far3",)]
    assert nodes.by_processor["far3"] is not first
    assert len(home.texts) == 1


async def test_a_process_without_a_network_reaches_its_own_node_only(
    nodes: TwoNodes, tmp_path: Path
) -> None:
    plain = Endpoint("plain")
    await plain.start(f"unix://{tmp_path}/a/plain.sock")
    try:
        with pytest.raises(ChannelError, match="needs a certificate"):
            await plain.link(nodes.endpoint.uri)
        assert (await nodes.endpoint.link(plain.uri)).identity is None
    finally:
        await plain.aclose()


class Clocked(FrameProcessor):
    """Says what its pipeline's clock shows."""

    movable = True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            frame.text = str(self.get_clock().get_time())
        await self.push_frame(frame, direction)


async def test_another_machines_clock(nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of node `b` was started an hour after that of node `a`."""
    hour_ns = 3600 * 10**9
    ask = Endpoint._ask_clock

    async def of_another_machine(self: Endpoint, link: Link) -> int:
        assert abs(await ask(self, link)) < 10**9
        ahead = hour_ns if self._network is nodes.networks["a"] else -hour_ns
        link.notify("clock_offset", (-ahead).to_bytes(8, "big", signed=True))
        return ahead

    monkeypatch.setattr(Endpoint, "_ask_clock", of_another_machine)
    clocked, home = Clocked(name="far"), Stay()
    watcher = Watcher()
    task = pipeline_of(clocked, home, observer=watcher)

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(_task: object, frame: Frame) -> None:
        await task.queue_frames([TextFrame("?"), EndFrame()])

    await nodes.run(task)
    # Its clock joins that of home, an hour back on its own.
    assert 3500 * 10**9 < int(home.texts[0]) < 3700 * 10**9
    (hop,) = [
        hop for hop in watcher.hops if hop.destination is home and isinstance(hop.frame, TextFrame)
    ]
    assert abs(hop.timestamp - hour_ns) < 100 * 10**9


@pytest.mark.parametrize(
    "address",
    [
        ProcessAddress("unix:///run/x.sock"),
        ProcessAddress("unix:///run/x.sock", "tls://10.0.0.1:7000", "3f"),
        ProcessAddress("unix:///run/x.sock", "tls://[fd00::1]:7000", "a.b-c_d"),
    ],
)
def test_an_address_is_one_text(address: ProcessAddress) -> None:
    assert ProcessAddress.parse(address.text) == address


@pytest.mark.parametrize(
    "text",
    [
        "tls://h:1?",
        "tls://h:1?node=a",
        "tls://h:1?unix=/x",
        "unix:///x?node=a&unix=/x",
        "tls://h:1?node=a&node=b&unix=/x",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UnsupportedAddress):
        ProcessAddress.parse(text)
