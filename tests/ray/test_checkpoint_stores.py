"""Every store of checkpoints keeps the same promises."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from loguru import logger
from ray.exceptions import RaySystemError
from redis.asyncio import Redis
from tests.redis_server import PASSWORD, RedisServer, running_redis

from antiphon.errors import ConfigError
from antiphon_actors import ray_internal
from antiphon_actors.checkpoints import redis_store
from antiphon_actors.checkpoints.memory_store import MemoryStore
from antiphon_actors.checkpoints.open_store import VARIABLE, open_store
from antiphon_actors.checkpoints.ray_store import RayStore
from antiphon_actors.checkpoints.redis_store import RedisStore
from antiphon_actors.checkpoints.store import (
    KEPT_SECS,
    MAX_KEY_CHARS,
    MAX_VALUE_BYTES,
    CheckpointStore,
)
from antiphon_actors.errors import CheckpointStoreError
from antiphon_actors.ray_internal import ClusterKeys

LARGE = bytes(range(256)) * 4096


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


class FakeKeys(ClusterKeys):
    """Ray's store without Ray; it can be down."""

    def __init__(self) -> None:
        super().__init__("test")
        self.values: dict[str, bytes] = {}
        self.is_down = False
        self.puts: list[str] = []

    async def _call(self, name: str, *arguments: Any) -> Any:
        if self.is_down:
            raise RaySystemError("Deadline Exceeded")
        key = arguments[0].decode()
        match name:
            case "put":
                self.puts.append(key)
                self.values[key] = arguments[1]
            case "get":
                return self.values.get(key)
            case "del":
                self.values.pop(key, None)
            case "keys":
                return [found.encode() for found in self.values if found.startswith(key)]
        return None


@pytest.fixture(
    params=[
        "memory",
        "fake ray",
        pytest.param("ray", marks=pytest.mark.ray),
        pytest.param("ray, blocking", marks=pytest.mark.ray),
        "redis",
        "redis over TLS",
        "redis over a Unix socket",
    ]
)
async def store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[CheckpointStore]:
    kind = request.param
    made: CheckpointStore
    if kind == "memory":
        made = MemoryStore()
    elif kind == "fake ray":
        made = RayStore(FakeKeys())
    elif kind.startswith("ray"):
        request.getfixturevalue("cluster")
        if "blocking" in kind:
            _without_asynchronous_calls(monkeypatch)
        made = RayStore(ClusterKeys(f"test of {request.node.name}"))
    else:
        server = request.getfixturevalue("redis")
        urls = {"redis": server.url, "redis over TLS": server.tls_url}
        made = RedisStore(urls.get(kind, server.unix_url))
    async with made:
        for key in await made.list():
            await made.delete(key)
        yield made


def _without_asynchronous_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ray_internal._private

    def private(module: str) -> Any:
        if module == "ray._private.worker":
            raise ImportError("moved")
        return real(module)

    monkeypatch.setattr(ray_internal, "_private", private)


async def test_what_was_put_last_is_got(store: CheckpointStore) -> None:
    assert await store.get("session/0") is None
    await store.put("session/0", b"first")
    await store.put("session/0", LARGE)
    await store.put("session/1", b"")
    assert await store.get("session/0") == LARGE
    assert await store.get("session/1") == b""


async def test_what_is_deleted_is_gone(store: CheckpointStore) -> None:
    await store.put("a", b"1")
    await store.put("b", b"2")
    await store.delete("a")
    await store.delete("a")
    await store.delete("unknown")
    assert await store.get("a") is None
    assert await store.get("b") == b"2"


async def test_keys_are_listed_by_their_beginning(store: CheckpointStore) -> None:
    for key in ("s1/0", "s1/1", "s10/0", "other", "[s]*?"):
        await store.put(key, b"x")
    assert set(await store.list("s1/")) == {"s1/0", "s1/1"}
    assert set(await store.list("s1")) == {"s1/0", "s1/1", "s10/0"}
    assert set(await store.list("[s]*")) == {"[s]*?"}
    assert set(await store.list()) == {"s1/0", "s1/1", "s10/0", "other", "[s]*?"}
    assert list(await store.list("nobody")) == []


async def test_many_at_once(store: CheckpointStore) -> None:
    async def one(number: int) -> bytes | None:
        await store.put(f"n{number}", bytes([number]))
        return await store.get(f"n{number}")

    found = await asyncio.gather(*(one(number) for number in range(50)))
    assert found == [bytes([number]) for number in range(50)]


@pytest.mark.parametrize("key", ["", "a b", "a\n", "ä", "x" * (MAX_KEY_CHARS + 1)])
async def test_bad_keys_are_refused(store: CheckpointStore, key: str) -> None:
    for call in (store.get(key), store.delete(key), store.put(key, b"")):
        with pytest.raises(CheckpointStoreError, match="printable ASCII") as caught:
            await call
        assert not caught.value.retryable


async def test_too_large_a_value_is_refused(store: CheckpointStore) -> None:
    with pytest.raises(CheckpointStoreError, match="larger than the allowed") as caught:
        await store.put("a", bytes(MAX_VALUE_BYTES + 1))
    assert not caught.value.retryable
    assert await store.get("a") is None


async def test_another_user_of_the_store_sees_the_same(
    redis: RedisServer,
) -> None:
    async with RedisStore(redis.url) as one, RedisStore(redis.tls_url) as other:
        await one.put("shared", b"x")
        assert await other.get("shared") == b"x"
        await other.delete("shared")
        assert await one.get("shared") is None


# --- nothing stays for ever -----------------------------------------------------------------------


async def test_memory_forgets() -> None:
    now = 0.0
    store = MemoryStore(lambda: now)
    await store.put("old", b"1")
    now = 10.0
    await store.put("new", b"2")
    await store.put("old", b"3")
    now = KEPT_SECS + 10.0
    assert await store.get("new") is None
    assert await store.list() == []


async def test_redis_forgets(redis: RedisServer) -> None:
    client = Redis.from_url(redis.url)
    async with RedisStore(redis.url) as store:
        await store.put("short", b"1")
        ttl = await client.ttl("antiphon:checkpoint:short")
        assert KEPT_SECS - 10 <= ttl <= KEPT_SECS
    await client.aclose()


async def test_rays_store_is_swept() -> None:
    now = 1000.0
    keys = FakeKeys()
    store = RayStore(keys, clock=lambda: now)
    await store.put("old", b"1")
    now += KEPT_SECS / 2
    other = RayStore(keys, clock=lambda: now)
    await other.put("new", b"2")
    now += KEPT_SECS / 2 + 1
    # Whoever stores something next looks, once.
    await other.put("new", b"3")
    async with asyncio.timeout(5):
        while "v:old" in keys.values:  # noqa: ASYNC110 - the fake has no events
            await asyncio.sleep(0)
    assert set(keys.values) == {"v:new", "t:new"}
    await other.aclose()


async def test_the_time_of_a_value_is_written_seldom() -> None:
    now = 1000.0
    keys = FakeKeys()
    store = RayStore(keys, clock=lambda: now)
    for _ in range(10):
        await store.put("a", b"1")
    assert keys.puts == ["t:a", *["v:a"] * 10]
    now += KEPT_SECS / 3
    await store.put("a", b"1")
    assert keys.puts[11:] == ["t:a", "v:a"]
    await store.delete("a")
    assert keys.values == {}
    await store.aclose()


# --- a store that is not there --------------------------------------------------------------------


async def test_rays_store_does_not_answer() -> None:
    keys = FakeKeys()
    async with RayStore(keys) as store:
        keys.is_down = True
        calls: list[Callable[[], Any]] = [
            lambda: store.get("a"),
            lambda: store.put("a", b""),
            lambda: store.delete("a"),
            lambda: store.list(),
            lambda: store.sweep(),
        ]
        for call in calls:
            with pytest.raises(CheckpointStoreError, match="does not answer") as caught:
                await call()
            assert caught.value.retryable


async def test_redis_does_not_answer(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "DEADLINE_SECS", 0.5)
    async with RedisStore(redis.url) as store:
        await store.put("a", b"1")
        redis.process.send_signal(signal.SIGSTOP)
        with pytest.raises(CheckpointStoreError, match="Timeout"):
            await store.get("a")
        redis.process.send_signal(signal.SIGCONT)
        assert await store.get("a") == b"1"
        redis.process.terminate()
        await asyncio.to_thread(redis.process.wait, 10)
        with pytest.raises(CheckpointStoreError, match="failed") as caught:
            await store.get("a")
        assert caught.value.retryable


async def test_a_password_is_never_shown(redis: RedisServer) -> None:
    lines: list[str] = []
    sink = logger.add(lambda text: lines.append(str(text)), level=0)
    wrong = "not-the-password"
    texts = []
    try:
        for url in (
            redis.url.replace(PASSWORD, wrong),
            f"redis://:{wrong}@127.0.0.1:1/0",
            f"rediss://:{wrong}@127.0.0.1:{redis.tls_port}/0",  # an authority nobody knows
        ):
            async with RedisStore(url) as store:
                texts.append(repr(store))
                with pytest.raises(CheckpointStoreError) as caught:
                    await store.get("a")
                texts.append(str(caught.value))
        for url in (f"http://:{wrong}@host/0", f"redis://:{wrong}@host:port", f"redis://:{wrong}@"):
            with pytest.raises(ConfigError) as refused:
                RedisStore(url)
            texts.append(str(refused.value))
    finally:
        logger.remove(sink)
    assert not [text for text in [*texts, *lines] if wrong in text]
    assert "127.0.0.1" in texts[0]


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert isinstance(open_store(), RayStore)
    monkeypatch.setenv(VARIABLE, "ray")
    assert isinstance(open_store(), RayStore)
    monkeypatch.setenv(VARIABLE, "redis://:secret@localhost")
    assert isinstance(open_store(), RedisStore)
    monkeypatch.setenv(VARIABLE, "etcd")
    with pytest.raises(ConfigError, match="ANTIPHON_CHECKPOINTS must be"):
        open_store()
