"""Model hosts with real sockets, in the test's own process, and users of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.models.stand_ins import until

from antiphon.errors import AntiphonError, ServiceError
from antiphon.models.client import ModelClient
from antiphon.models.model import ModelSpec
from antiphon.models.sharing import ModelBackend, SharedModels, deliver
from antiphon_actors.models.connection import AnswerStreams
from antiphon_actors.models.host import ModelHost
from antiphon_actors.models.remote import RemoteModel
from antiphon_actors.models.wire import Member
from antiphon_actors.session.endpoint import Endpoint


class Farm:
    """Hosts of models, and where their users look for them: a `Source`.

    Attributes:
        hosts: Those that live, by their ids.
        searches: What was asked for, each with whom to avoid.
        may_answer: Cleared: a search waits.
        refusal: What a search is answered with.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts: dict[str, ModelHost] = {}
        self.offered: list[str] = []
        self.searches: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.refusal: AntiphonError | None = None
        self._version = 0
        self._made: list[ModelHost] = []

    async def add(self, spec: ModelSpec, *, offer: bool = True) -> str:
        """Starts a host; returns its id."""
        name = f"actor{len(self._made)}"
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        host = ModelHost(spec, str(directory))
        self._made.append(host)
        await host.start()
        self.hosts[name] = host
        if offer:
            self.offered.append(name)
        return name

    def model(self, name: str) -> Any:
        """The model of a host."""
        return self.hosts[name].runner.model

    def tell_members(self, leaving: Sequence[str] = ()) -> None:
        """Tells all hosts who there is."""
        self._version += 1
        for name in leaving:
            self.offered.remove(name)
        members = [Member(name, self.hosts[name].uri) for name in self.offered]
        for name, host in self.hosts.items():
            host.set_members(self._version, members, leaving=name not in self.offered)

    def kill(self, name: str) -> None:
        """Ends a host's links as its death would; its model goes on unheard."""
        host = self.hosts.pop(name)
        if name in self.offered:
            self.offered.remove(name)
        host.abort()

    async def members(self, spec: ModelSpec, avoid: Sequence[str]) -> Sequence[Member]:
        self.searches.append(list(avoid))
        await self.may_answer.wait()
        if self.refusal is not None:
            raise self.refusal
        if not self.offered:
            raise ServiceError(f"there is no actor for {spec.name}", retryable=True)
        return [Member(name, self.hosts[name].uri) for name in self.offered]

    async def aclose(self) -> None:
        for host in self._made:
            await host.aclose()


class RemoteModels(SharedModels):
    """Gives the test's process its models from a farm, as one process of a cluster."""

    def __init__(self, farm: Farm, endpoint: Endpoint) -> None:
        super().__init__()
        self._farm = farm
        self._endpoint = endpoint
        self._streams = AnswerStreams(endpoint)
        self.backends: list[RemoteModel] = []

    def in_process(self, spec: ModelSpec) -> bool:
        return False

    def _make(self, spec: ModelSpec) -> ModelBackend:
        backend = RemoteModel(spec, deliver, self._endpoint, self._streams, self._farm)
        self.backends.append(backend)
        return backend


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    made = Farm(tmp_path)
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def models(farm: Farm, tmp_path: Path) -> AsyncIterator[RemoteModels]:
    """A process with users of models; at the end no host may hold anything of them."""
    endpoint = Endpoint("user")
    await endpoint.start(f"unix://{tmp_path}/user/user.sock")
    try:
        yield RemoteModels(farm, endpoint)
        try:
            await until(lambda: not left_over(farm))
        except TimeoutError:
            pytest.fail(f"left with the hosts: {left_over(farm)}", pytrace=False)
    finally:
        await endpoint.aclose()


def left_over(farm: Farm) -> list[str]:
    """What hosts hold of users that have gone."""
    return [
        f"{name}: {len(host._users)} users, {host.runner.counts.sessions} sessions, "
        f"{host.runner.unanswered} requests"
        for name, host in farm.hosts.items()
        if host._users or host.runner.counts.sessions or host.runner.unanswered
    ]


Connect = Callable[[ModelSpec], Any]


@pytest.fixture
async def connect(models: RemoteModels) -> AsyncIterator[Connect]:
    """Connects to a model; what is connected is closed at the end."""
    made: list[ModelClient] = []

    async def one(spec: ModelSpec) -> ModelClient:
        client = await models.connect(spec)
        made.append(client)
        return client

    yield one
    for client in made:
        await client.aclose()
