"""The least it can cost: bytes through bare socket pairs, in a ring of processes.

    python floor.py --control SOCKET --name NAME --processes N

The first process sends; each of the N others passes on what it gets; what comes round has made
N + 1 hops.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import socket
import time
from typing import Any

import uvloop

SIZE = 700
DEADLINE_SECS = 10.0


class Stage(asyncio.Protocol):
    """Passes bytes on, as they come."""

    def __init__(self, out: asyncio.Transport, gone: asyncio.Event) -> None:
        self._out = out
        self._gone = gone

    def data_received(self, data: bytes) -> None:
        self._out.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()


class Counter(asyncio.Protocol):
    """Counts what has come round."""

    def __init__(self) -> None:
        self.received = 0
        self.wanted = 0
        self.arrived_ns = 0
        self.reached = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.received >= self.wanted:
            self.arrived_ns = time.monotonic_ns()
            self.reached.set()

    async def until(self, total: int) -> None:
        """Waits until so many bytes have come in all."""
        if self.received >= total:
            return
        self.wanted = total
        self.reached.clear()
        async with asyncio.timeout(DEADLINE_SECS):
            await self.reached.wait()


async def _connect(factory: Any, end: socket.socket) -> tuple[Any, Any]:
    return await asyncio.get_running_loop().create_unix_connection(factory, sock=end)


async def pass_on(left: socket.socket, right: socket.socket) -> None:
    """One stage, until its neighbour goes."""
    gone = asyncio.Event()
    out, _ = await _connect(asyncio.Protocol, right)
    await _connect(lambda: Stage(out, gone), left)
    await gone.wait()


async def measure(control: str, name: str, right: socket.socket, left: socket.socket) -> None:
    """The first process of the ring."""
    out, _ = await _connect(asyncio.Protocol, right)
    _, counter = await _connect(Counter, left)
    payload = bytes(SIZE)

    async def latency(count: int, **_: Any) -> dict[str, Any]:
        samples = []
        for _i in range(count):
            counter.wanted = counter.received + SIZE
            counter.reached.clear()
            sent = time.monotonic_ns()
            out.write(payload)
            await counter.reached.wait()
            samples.append(counter.arrived_ns - sent)
        return {"ns": samples}

    async def saturate(count: int, window: int = 256, **_: Any) -> dict[str, Any]:
        begin = counter.received
        started = time.monotonic_ns()
        for sent in range(count):
            if sent - (counter.received - begin) // SIZE >= window:
                await counter.until(begin + (sent - window // 2) * SIZE)
            out.write(payload)
        await counter.until(begin + count * SIZE)
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
    out.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    pairs = [socket.socketpair() for _ in range(options.processes + 1)]
    for number in range(options.processes):
        if os.fork() == 0:
            left, right = pairs[number][1], pairs[number + 1][0]
            _keep(pairs, left, right)
            uvloop.run(pass_on(left, right))
            return
    first, last = pairs[0][0], pairs[-1][1]
    _keep(pairs, first, last)
    uvloop.run(measure(options.control, options.name, first, last))


def _keep(pairs: list[tuple[socket.socket, socket.socket]], *mine: socket.socket) -> None:
    for pair in pairs:
        for end in pair:
            if end not in mine:
                end.close()


if __name__ == "__main__":
    main()
