"""From which size on a payload is better off in shared memory than in a Unix socket.

    python benchmarks/shared_memory.py [--rounds 15] [--quick]

Two processes and one link between them. A payload goes there and is acknowledged; both ways take turns,
size by size. The threshold is the smallest size at which shared memory is clearly faster, and from which on
it is nowhere clearly slower; it is what `Limits.shared_payload_bytes` should be. (Payloads above 8 MiB go
through the socket either way.)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from antiphon_actors.channels import Delivery, Hub, Limits, Link, OutStream

SIZES = [1 << exponent for exponent in range(14, 25)]
# A limit nobody reaches, and one that everything reaches.
NEVER, ALWAYS = 1 << 40, 1
DEADLINE_SECS = 120.0
# What does not count as a difference.
NOISE = 0.1


class Sink:
    """Takes what comes; the payload is there when it is called."""

    def deliver(self, delivery: Delivery) -> None:
        delivery.done()

    def closed(self, reason: Exception | None) -> None:
        """The other end goes when the benchmark does."""


async def refuse(link: Link, method: str, body: bytes) -> bytes:
    """There are no calls here."""
    raise LookupError(method)


def limits(shared_from: int) -> Limits:
    """Those of a sender; acknowledgements are not held back, as they are what is waited for."""
    return Limits(shared_payload_bytes=shared_from, ack_delay_secs=0)


def make_hub(name: str, shared_from: int = NEVER) -> Hub:
    return Hub(
        name=name, on_stream=lambda _link, _key: Sink(), on_call=refuse, limits=limits(shared_from)
    )


async def receive(uri: str) -> None:
    """The other process, until its parent goes."""
    async with make_hub("receiver") as hub:
        sys.stdout.write(f"{await hub.listen(uri)}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def once(stream: OutStream, payload: bytes) -> float:
    """Sends a payload; seconds until it is acknowledged."""
    started = time.perf_counter()
    await stream.send(payload)
    await stream.drain()
    return time.perf_counter() - started


async def measure(uri: str, rounds: int) -> None:
    """The process that sends."""
    async with make_hub("by socket", NEVER) as one, make_hub("shared", ALWAYS) as two:
        streams = [
            await (await hub.connect(uri, deadline_secs=5)).open_stream(b"x") for hub in (one, two)
        ]
        print(f"{'size':>9}  {'socket us':>10}  {'shared us':>10}  {'socket / shared':>15}")
        ratios: list[tuple[int, float]] = []
        for size in SIZES:
            payload = os.urandom(size)
            taken: tuple[list[float], list[float]] = ([], [])
            for number in range(rounds + 2):
                for way, stream in enumerate(streams):
                    secs = await once(stream, payload)
                    if number >= 2:  # the first ones make the buffers
                        taken[way].append(secs * 1e6)
            socket, shared = (statistics.median(each) for each in taken)
            ratios.append((size, socket / shared))
            print(
                f"{size >> 10:>5} KiB  {socket:>10.0f}  {shared:>10.0f}  {socket / shared:>15.2f}"
            )
        slower = max((size for size, ratio in ratios if ratio < 1 - NOISE), default=0)
        faster = [size for size, ratio in ratios if ratio > 1 + NOISE and size > slower]
        print(f"threshold: {faster[0] >> 10} KiB" if faster else "shared memory does not pay here")


async def both(rounds: int) -> None:
    """Starts the other process and measures."""
    with tempfile.TemporaryDirectory(prefix="antiphon-") as directory:
        other = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__)),
            "--receive",
            f"unix://{directory}/receiver.sock",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert other.stdout is not None
            async with asyncio.timeout(DEADLINE_SECS):
                uri = (await other.stdout.readline()).decode().strip()
                await measure(uri, rounds)
        finally:
            other.kill()
            await other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="does it work?")
    parser.add_argument("--receive", metavar="URI", help="what the other process does")
    options = parser.parse_args()
    if options.receive:
        uvloop.run(receive(options.receive))
    else:
        uvloop.run(both(3 if options.quick else options.rounds))


if __name__ == "__main__":
    main()
