"""Contracts with what Ray does not promise: each test names what breaks when Ray changes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest
import ray

from antiphon_actors import ray_internal, termination
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.processor_actor import actor_options
from antiphon_actors.ray_internal import ActorWatch, ClusterKeys, WorkerPrestarter

pytestmark = pytest.mark.ray


class Process:
    def pid(self) -> int:
        return os.getpid()


Target: Any = ray.remote(num_cpus=0)(Process)


class ToldToEnd:
    async def pid(self) -> int:
        return os.getpid()

    async def wait_until_told(self) -> bool:
        descriptor = termination.descriptor()
        if descriptor is None:
            return False
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        await readable.wait()
        loop.remove_reader(descriptor)
        return termination.was_told(descriptor)


Told: Any = ray.remote(num_cpus=0)(ToldToEnd)


def blank_workers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::IDLE"):
            found.append(process)
    return found


def test_the_release_these_contracts_are_for() -> None:
    assert ray.__version__.startswith("2.60.")


def test_knows_where_the_raylet_listens(cluster: LocalCluster) -> None:
    node_id = ray.get_runtime_context().get_node_id()
    address = ray_internal.node_address(node_id)
    assert address is not None
    assert address.host == "127.0.0.1"
    assert address.port > 0
    assert ray_internal.node_address("0" * 56) is None


def test_workers_of_a_node_are_forked_from_one_process(cluster: LocalCluster) -> None:
    targets = [Target.remote() for _ in range(3)]
    pids = ray.get([target.pid.remote() for target in targets], timeout=60)
    servers = {psutil.Process(pid).parent() for pid in pids}
    # The cluster has two nodes, each with a server of its own.
    assert 1 <= len(servers) <= 2
    for server in servers:
        assert server is not None
        assert "antiphon_actors.fork_server" in server.cmdline()
        # A worker of several threads cannot be forked.
        assert server.num_threads() == 1


LEAN = """
import os, psutil, ray
from antiphon_actors.cluster import LocalCluster
with LocalCluster() as cluster:
    @ray.remote(num_cpus=0)
    class Actor:
        async def answer(self):
            return os.environ.get("ANSWER", "none")
    assert ray.get(Actor.remote().answer.remote(), timeout=60) == "none"
    below = psutil.Process(cluster._janitor.pid).children(recursive=True)
    print("\\n".join(" ".join(process.cmdline()[:4]) for process in below))
    unlike = Actor.options(runtime_env={"env_vars": {"ANSWER": "42"}}).remote()
    assert ray.get(unlike.answer.remote(), timeout=60) == "42"
"""


def test_a_cluster_without_a_dashboard_has_no_agents_until_one_is_needed() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LEAN], capture_output=True, text=True, timeout=150, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "sleep infinity" in ran.stdout
    assert "_on_demand.py" in ran.stdout
    assert "Agent" not in ran.stdout


async def test_prestarted_workers_start_and_stay(cluster: LocalCluster) -> None:
    prestarter = WorkerPrestarter(keep_alive_secs=60)
    before = len(blank_workers())
    wanted = before + 2
    deadline = time.monotonic() + 20
    try:
        while len(blank_workers()) < wanted and time.monotonic() < deadline:
            assert await prestarter.start(1)
            await asyncio.sleep(0.5)
        assert len(blank_workers()) >= wanted
        assert prestarter.refused == ""
    finally:
        await prestarter.aclose()


async def test_prestarting_gives_up_where_the_raylet_refuses(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import grpc.aio

    monkeypatch.setattr(ray_internal, "_raylet_channel", grpc.aio.insecure_channel)
    prestarter = WorkerPrestarter()
    assert not await prestarter.start(1)
    assert "UNAUTHENTICATED" in prestarter.refused
    assert not await prestarter.start(1)
    await prestarter.aclose()


async def test_prestarting_gives_up_where_ray_has_changed(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(module: str) -> None:
        raise ImportError(f"no {module}")

    monkeypatch.setattr(ray_internal, "_private", gone)
    prestarter = WorkerPrestarter()
    assert not await prestarter.start(1)
    assert "ImportError" in prestarter.refused
    assert ray_internal.draining_nodes() == {}
    assert ray_internal.dashboard_address() is None
    ray_internal.reload_authentication()
    with pytest.raises(RuntimeError, match="no subscription"):
        async with ActorWatch():
            pass


async def test_announces_deaths(cluster: LocalCluster) -> None:
    async with ActorWatch() as watch:
        target = Target.remote()
        pid = await target.pid.remote()
        actor_id = ray_internal.actor_id_of(target)
        changes = aiter(watch)
        async with asyncio.timeout(20):
            os.kill(pid, 9)
            async for change in changes:
                if change.actor_id == actor_id and change.state == "dead":
                    break
        assert change.pid in (0, pid)
        assert change.reason


def test_an_actor_without_resources_keeps_its_node(cluster: LocalCluster) -> None:
    """So an autoscaler takes no node away under a call, though actors reserve nothing."""
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    raylet: Any = importlib.import_module("ray._raylet")
    far = next(str(n["NodeID"]) for n in ray.nodes() if "elsewhere" in n["Resources"])

    def idle_ms() -> int:
        state: Any = get_cluster_resource_state(raylet.GcsClient(cluster.address))
        return next(int(n.idle_duration_ms) for n in state.node_states if n.node_id.hex() == far)

    def wait_until_idle(wanted: bool) -> None:
        deadline = time.monotonic() + 20
        while (idle_ms() > 0) is not wanted:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait_until_idle(True)
    target = Target.options(**actor_options(far, {})).remote()
    ray.get(target.pid.remote())
    wait_until_idle(False)
    ray.kill(target)
    wait_until_idle(True)


def test_a_worker_learns_at_once_that_it_is_to_end(cluster: LocalCluster) -> None:
    """Ray's own handler waits for the next call, and ends the process with it."""
    target = Told.remote()
    pid = ray.get(target.pid.remote())
    told = target.wait_until_told.remote()
    os.kill(pid, signal.SIGTERM)
    assert ray.get(told, timeout=10) is True
    # It goes on, until somebody ends it.
    assert ray.get(target.pid.remote(), timeout=10) == pid
    ray.kill(target)


def test_tells_no_draining_nodes(cluster: LocalCluster) -> None:
    assert ray_internal.draining_nodes() == {}


def test_tells_the_dashboard(cluster: LocalCluster) -> None:
    assert f"http://{ray_internal.dashboard_address()}" == cluster.dashboard_url


async def test_keeps_small_values_for_the_whole_cluster(cluster: LocalCluster) -> None:
    store, others = ClusterKeys("test"), ClusterKeys("others")
    await store.put("app:a", b"1")
    await store.put("app:b", b"2")
    await store.put("app:a", b"\x00\xff")
    await others.put("app:c", b"3")
    assert await store.get("app:a") == b"\x00\xff"
    assert await store.get("app:c") is None
    assert sorted(await store.list("app:")) == ["app:a", "app:b"]
    await store.delete("app:a")
    await store.delete("app:a")
    assert await store.list() == ["app:b"]
    await store.delete("app:b")
    await others.delete("app:c")


def test_everything_listens_on_loopback(cluster: LocalCluster) -> None:
    janitor = cluster._janitor
    assert janitor is not None
    listening = []
    for process in psutil.Process(janitor.pid).children(recursive=True):
        # An actor of the test before may just be going.
        with contextlib.suppress(psutil.NoSuchProcess):
            listening += [
                connection.laddr.ip
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            ]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_the_token_is_in_no_file_and_no_command_line(cluster: LocalCluster) -> None:
    for path in cluster.directory.rglob("*"):
        if path.is_file():
            assert cluster.token.encode() not in path.read_bytes(), path
    for process in psutil.process_iter(["cmdline"]):
        assert cluster.token not in " ".join(process.info["cmdline"] or ())


def test_a_worker_runs_at_ordinary_priority(cluster: LocalCluster) -> None:
    target = Target.remote()
    assert psutil.Process(ray.get(target.pid.remote())).nice() == 0
    ray.kill(target)
