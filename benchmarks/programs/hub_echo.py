"""One hop over our channels: a hub that sends back what it gets, and one that measures.

python hub_echo.py --control SOCKET --name NAME --listen unix:///path
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from loguru import logger

from antiphon_actors.channels import Delivery, Hub, Link, OutStream
from antiphon_actors.channels.credentials import TlsCredentials

SIZE = 700
CLUSTER, ROLE = "bench", "node"
DEADLINE_SECS = 10.0


class Sink:
    """Gives what arrives to a function."""

    def __init__(self, on_delivery: Callable[[Delivery], None]) -> None:
        self.deliver = on_delivery

    def closed(self, reason: Exception | None) -> None:
        """The other end goes when the benchmark does."""


async def refuse(link: Link, method: str, body: bytes) -> bytes:
    """There are no calls here."""
    raise LookupError(method)


def tls_credentials(directory: str | None, end: str) -> TlsCredentials | None:
    """Those of one end of a TLS link, in the directory the benchmark has made."""
    if directory is None:
        return None
    return TlsCredentials(Path(directory) / end, CLUSTER, frozenset({ROLE}))


async def echo(uri: str, credentials: TlsCredentials | None) -> None:
    """The other process: passes on what it gets, until its parent goes."""
    back: dict[Link, OutStream] = {}
    tasks: set[asyncio.Task[None]] = set()
    # Bounded by the window of the stream they came on: they are not done yet.
    held: deque[Delivery] = deque()

    async def pump(out: OutStream) -> None:
        while held:
            delivery = held[0]
            await out.send(delivery.payload, urgent=delivery.urgent)
            held.popleft()
            delivery.done()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_stream(link: Link, key: bytes) -> Sink:
        async def open_back() -> None:
            back[link] = await link.open_stream(b"back")

        spawn(open_back())

        def pass_on(delivery: Delivery) -> None:
            out = back[link]
            if not held and out.send_nowait(delivery.payload, urgent=delivery.urgent):
                delivery.done()
                return
            held.append(delivery)
            if len(held) == 1:
                spawn(pump(out))

        return Sink(pass_on)

    async with Hub(
        name="echo", on_stream=on_stream, on_call=refuse, credentials=credentials
    ) as hub:
        sys.stdout.write(f"{await hub.listen(uri)}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def measure(control: str, name: str, uri: str, credentials: TlsCredentials | None) -> None:
    """The process that sends."""
    received = 0
    wanted = 0
    arrived_ns = 0
    reached = asyncio.Event()
    ready = asyncio.Event()

    def on_delivery(delivery: Delivery) -> None:
        nonlocal received, arrived_ns
        received += 1
        if received >= wanted:
            arrived_ns = time.monotonic_ns()
            reached.set()
        delivery.done()

    def on_stream(link: Link, key: bytes) -> Sink:
        ready.set()
        return Sink(on_delivery)

    async with Hub(
        name="near", on_stream=on_stream, on_call=refuse, credentials=credentials
    ) as hub:
        async with asyncio.timeout(DEADLINE_SECS):
            link = await hub.connect(uri, deadline_secs=5)
            out = await link.open_stream(b"echo")
            await ready.wait()
        await asyncio.sleep(0.1)
        payload = bytes(SIZE)

        async def latency(count: int, pace_secs: float = 0.0, **_: Any) -> dict[str, Any]:
            nonlocal wanted
            samples = []
            for _i in range(count):
                wanted = received + 1
                reached.clear()
                sent = time.monotonic_ns()
                out.send_nowait(payload)
                await reached.wait()
                samples.append(arrived_ns - sent)
                if pace_secs:
                    await asyncio.sleep(pace_secs)
            return {"ns": samples}

        async def saturate(count: int, **_: Any) -> dict[str, Any]:
            nonlocal wanted
            wanted = received + count
            reached.clear()
            started = time.monotonic_ns()
            for _i in range(count):
                if not out.send_nowait(payload):
                    await out.send(payload)
            async with asyncio.timeout(DEADLINE_SECS):
                await reached.wait()
            return {"per_s": count / (time.monotonic_ns() - started) * 1e9}

        commands: dict[str, Any] = {"latency": latency, "saturate": saturate}
        reader, writer = await asyncio.open_unix_connection(control)
        writer.write(json.dumps({"hello": name, "pid": os.getpid()}).encode() + b"\n")
        gc.collect()
        gc.freeze()
        while line := await reader.readline():
            command = json.loads(line)
            what = command.pop("do")
            if what == "stop":
                break
            writer.write(json.dumps(await commands[what](**command)).encode() + b"\n")
        writer.close()


async def both(control: str, name: str, uri: str, directory: str | None) -> None:
    """Starts the other process and measures."""
    command = [sys.executable, __file__, "--listen", uri]
    if directory is not None:
        command += ["--credentials", directory]
    other = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        async with asyncio.timeout(DEADLINE_SECS):
            found = (await other.stdout.readline()).decode().strip()
        await measure(control, name, found, tls_credentials(directory, "near"))
    finally:
        other.kill()
        await other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control")
    parser.add_argument("--name")
    parser.add_argument("--listen", required=True, help="unix:///path or tls://host:0")
    parser.add_argument("--credentials", help="with a directory for each end, near and echo")
    options = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    if options.control is None:
        uvloop.run(echo(options.listen, tls_credentials(options.credentials, "echo")))
    else:
        uvloop.run(both(options.control, options.name, options.listen, options.credentials))


if __name__ == "__main__":
    main()
