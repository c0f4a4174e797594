"""Leak checks around every test, and the event loops tests run on.

After a test nothing of it may remain: no asyncio task, thread, child process or open file
descriptor. A test that has to leave something says what and why::

    @pytest.mark.leaks("threads", reason="the vendor's SDK keeps its own pool")

With ANTIPHON_PURE=1 in the environment the tests run on the Python sources alone, whatever has been
compiled; without it, compiled modules that are older than their sources are an error.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.machinery
import logging
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

_ROOT = Path(__file__).parent.parent
_PACKAGES = (_ROOT / "runtime", _ROOT / "actors")


def _import_sources_only() -> None:
    sources = importlib.machinery.FileFinder.path_hook(
        (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES)
    )

    def of_ours(path: str) -> Any:
        if not any(Path(path).is_relative_to(root) for root in _PACKAGES):
            raise ImportError("not one of ours")
        return sources(path)

    sys.path_hooks.insert(0, of_ours)
    sys.path_importer_cache.clear()


if os.environ.get("ANTIPHON_PURE") == "1":
    _import_sources_only()

from antiphon.testing.virtual_time import VirtualTimeLoop  # noqa: E402 - see above

_KINDS = frozenset({"tasks", "threads", "children", "fds"})

# Real seconds that threads, children and descriptors get to go away by themselves.
_GRACE_SECS = 2.0
# Turns of the event loop that cancelled tasks get.
_GRACE_TURNS = 20

# Threads that libraries keep for the life of the process.
_LIBRARY_THREADS = re.compile(
    r"^(asyncio_\d+$"  # the loop's default executor: joined when the loop closes
    r"|ThreadPoolExecutor-\d+_\d+$"
    r"|OtelBatch|OtelPeriodicExporting"
    r"|ray_|grpc|_serve$"
    r"|pytest_timeout"
    r"|tqdm)"
)

# A worker that Ray starts ahead, whenever it likes, for the cluster that all tests share.
_IDLE_WORKER = "ray::IDLE"

# Descriptors that libraries open once and keep, and those of the loop itself.
_LIBRARY_FDS = re.compile(
    r"^(/dev/(null|urandom|random|shm/)"
    r"|/proc/|/sys/"
    r"|.*\.(py|pyc|so|onnx|pyi)$"
    r"|.*\.so\.\d"
    r"|anon_inode:\[(io_uring|perf_event)\])"
)


def pytest_configure(config: pytest.Config) -> None:
    """Refuses to test what was compiled from other sources than these."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        for compiled in (path for root in _PACKAGES for path in root.rglob(f"*{suffix}")):
            module = compiled.with_name(compiled.name.removesuffix(suffix))
            sources = [module.with_suffix(end) for end in (".py", ".pyx", ".pxd")]
            newest = max((path.stat().st_mtime for path in sources if path.exists()), default=0.0)
            if newest > compiled.stat().st_mtime:
                raise pytest.UsageError(f"{compiled} is older than its source: run `make compile`")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Runs tests marked ``virtual_time`` on a loop whose clock jumps over waits."""
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualTimeLoop}
    return {"asyncio": asyncio.new_event_loop}


def _checked_kinds(node: pytest.Item) -> frozenset[str]:
    # Ray keeps threads, sockets and workers as long as the driver is connected.
    kinds = {"tasks"} if node.get_closest_marker("ray") is not None else set(_KINDS)
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        # A raylet connects to a driver whenever it likes: ten seconds after the start, for one.
        kinds.discard("fds")
    for marker in node.iter_markers("leaks"):
        if not marker.kwargs.get("reason"):
            pytest.fail("the marker `leaks` needs a reason", pytrace=False)
        unknown = set(marker.args) - _KINDS
        if unknown:
            pytest.fail(f"the marker `leaks` knows no {sorted(unknown)}", pytrace=False)
        kinds -= set(marker.args) or _KINDS
    return frozenset(kinds)


@pytest.fixture(autouse=True)
def _no_leaks_of_the_process(request: pytest.FixtureRequest) -> Iterator[None]:
    kinds = _checked_kinds(request.node)
    threads_before = set(threading.enumerate())
    children_before = _children()
    fds_before = _fds()
    yield

    def left_over() -> list[str]:
        found: list[str] = []
        if "threads" in kinds:
            found += [f"thread {name}" for name in _new_threads(threads_before)]
        if "children" in kinds:
            found += [f"child process {text}" for text in _new_children(children_before)]
        if "fds" in kinds:
            found += [f"descriptor {target}" for target in _new_fds(fds_before)]
        return found

    if not left_over():
        return
    gc.collect()  # what nobody holds any more is not a leak
    deadline = time.monotonic() + _GRACE_SECS
    while (found := left_over()) and time.monotonic() < deadline:
        time.sleep(0.01)
    if found:
        pytest.fail("left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture(autouse=True)
def _no_leaked_tasks(request: pytest.FixtureRequest, _no_leaks_of_the_process: None) -> None:
    if asyncio.iscoroutinefunction(getattr(request.node, "obj", None)) and (
        "tasks" in _checked_kinds(request.node)
    ):
        request.getfixturevalue("_no_leaked_tasks_on_the_loop")


@pytest.fixture
async def _no_leaked_tasks_on_the_loop() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    current = asyncio.current_task()

    def left_over() -> list[asyncio.Task[object]]:
        return [task for task in asyncio.all_tasks() if task not in before and task is not current]

    for _ in range(_GRACE_TURNS):
        if not left_over():
            return
        await asyncio.sleep(0)
    # Work in threads ends in real time only.
    deadline = time.monotonic() + _GRACE_SECS / 4
    while (found := left_over()) and time.monotonic() < deadline:
        await asyncio.wait(found, timeout=0.02)
    if found:
        names = "; ".join(f"{task.get_name()} ({task.get_coro()})" for task in found)
        for task in found:
            task.cancel()
        await asyncio.wait(found, timeout=1.0)
        pytest.fail(f"tasks left behind: {names}", pytrace=False)


@pytest.fixture(autouse=True)
def _quiet_libraries() -> None:
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _new_threads(before: set[threading.Thread]) -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread not in before and not _LIBRARY_THREADS.match(thread.name)
    ]


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _new_children(before: set[int]) -> list[str]:
    found = []
    for pid in _children() - before:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                command = " ".join(process.cmdline())
                if process.status() != psutil.STATUS_ZOMBIE and not command.startswith(
                    _IDLE_WORKER
                ):
                    found.append(f"{pid} {command[:120]}")
        except psutil.NoSuchProcess:
            continue
    return found


def _fds() -> Counter[str]:
    targets: Counter[str] = Counter()
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return targets
    for entry in folder.iterdir():
        try:
            targets[str(entry.readlink())] += 1
        except OSError:
            continue  # the descriptor of this very listing
    return targets


def _new_fds(before: Counter[str]) -> list[str]:
    return [
        f"{target} ({count})"
        for target, count in (_fds() - before).items()
        if not _LIBRARY_FDS.match(target)
    ]
