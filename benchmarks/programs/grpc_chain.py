"""Bytes through streams of gRPC, from process to process over loopback TCP.

    python grpc_chain.py --control SOCKET --name NAME --processes N

The first process sends into a chain of N others, the last of which sends back to the first.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

SIZE = 700
METHOD = "/bench.Chain/Flow"
DEADLINE_SECS = 10.0
START_DEADLINE_SECS = 20.0


async def listen(take: Callable[[bytes], Any]) -> tuple[Any, int]:
    """A server that gives each message of a stream to a function."""

    async def flow(messages: AsyncIterator[bytes], context: Any) -> bytes:
        async for message in messages:
            waiting = take(message)
            if waiting is not None:
                await waiting
        return b""

    server = grpc.aio.server()
    handler = grpc.stream_unary_rpc_method_handler(flow)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Chain", {"Flow": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def connect(port: int) -> tuple[Any, Any]:
    """A channel to another process, and the stream in it; both have to be kept."""
    channel = grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]
    )
    return channel, channel.stream_unary(METHOD)()


async def pass_on(behind: int) -> None:
    """One stage, until it is ended."""
    channel, out = connect(behind)
    server, port = await listen(out.write)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    # The first process closes this when it ends, however it ends.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)
    await channel.close()


async def measure(control: str, name: str, processes: int) -> None:
    """The first process."""
    received = 0
    wanted = 0
    arrived_ns = 0
    reached = asyncio.Event()

    def take(message: bytes) -> None:
        nonlocal received, arrived_ns
        received += 1
        if received >= wanted:
            arrived_ns = time.monotonic_ns()
            reached.set()

    async def until(total: int) -> None:
        nonlocal wanted
        if received >= total:
            return
        wanted = total
        reached.clear()
        async with asyncio.timeout(DEADLINE_SECS):
            await reached.wait()

    server, port = await listen(take)
    for _ in range(processes):
        stage = await asyncio.create_subprocess_exec(
            *[sys.executable, __file__, "--behind", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert stage.stdout is not None
        async with asyncio.timeout(START_DEADLINE_SECS):
            port = int(await stage.stdout.readline())
    channel, out = connect(port)
    payload = bytes(SIZE)

    async def latency(count: int, **_: Any) -> dict[str, Any]:
        samples = []
        for _i in range(count):
            target = received + 1
            sent = time.monotonic_ns()
            await out.write(payload)
            await until(target)
            samples.append(arrived_ns - sent)
        return {"ns": samples}

    async def saturate(count: int, window: int = 256, **_: Any) -> dict[str, Any]:
        begin = received
        started = time.monotonic_ns()
        for sent in range(count):
            if sent - (received - begin) >= window:
                await until(begin + sent - window // 2)
            await out.write(payload)
        await until(begin + count)
        return {"per_s": count / (time.monotonic_ns() - started) * 1e9}

    commands: dict[str, Any] = {"latency": latency, "saturate": saturate}
    await latency(1)
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
    await channel.close()
    await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control")
    parser.add_argument("--name")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--behind", type=int)
    options = parser.parse_args()
    if options.behind is not None:
        asyncio.run(pass_on(options.behind))
    else:
        asyncio.run(measure(options.control, options.name, options.processes))


if __name__ == "__main__":
    main()
