"""Many streams of a caller's voice to a Silero model in another process, in real time.

python vad_load.py --control SOCKET --name NAME --directory DIR --uri unix:///... [--cores 1]

Most of them are written to the model's wire by the program itself, as a user with its futures and deadlines
would need more of a core than the model. Some are *probes*: users as a session has them, whose latency counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from loguru import logger

RATE = 16000
WINDOW_SECS = 512 / RATE
WINDOW_BYTES = 1024
ROOT = Path(__file__).parents[2]
# Where the published model is, of which one call is one window of one bot.
PUBLISHED = ROOT / "tests" / "data" / "silero_vad.onnx"


def windows() -> list[bytes]:
    """The caller of the demonstration, in windows."""
    with wave.open(str(ROOT / "examples" / "caller.wav")) as file:
        assert file.getframerate() == RATE
        audio = file.readframes(file.getnframes())
    return [
        audio[at : at + WINDOW_BYTES]
        for at in range(0, len(audio) - WINDOW_BYTES + 1, WINDOW_BYTES)
    ]


class Load:
    """Sessions whose windows are written straight to the wire (an `Owner` of a connection)."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.sent: dict[int, float] = {}
        self.waits: list[float] = []
        self.refusals: list[float] = []
        self.others = 0

    def answered(self, connection: Any, answers: Iterable[Any]) -> None:
        now = time.perf_counter()
        for answer in answers:
            began = self.sent.pop(answer[0], None)
            if began is None:
                continue
            if answer[1] == 0:
                self.waits.append(now - began)
            elif answer[1] == 2:
                self.refusals.append(now - began)
            else:
                self.others += 1

    def told(self, connection: Any, version: int, leaving: bool, members: Any) -> None:
        """There is only one actor."""

    def lost(self, connection: Any, why: str) -> None:
        raise RuntimeError(f"the model is gone: {why}")


class Driver:
    """Answers the benchmark's commands."""

    def __init__(self, endpoint: Any, uri: str) -> None:
        from antiphon_actors.models.connection import AnswerStreams

        self._endpoint = endpoint
        self._uri = uri
        self._streams = AnswerStreams(endpoint)
        self._audio = windows()

    async def run(self, sessions: int, secs: float, probes: int = 0, **_: Any) -> dict[str, Any]:
        """Has so many sessions send their windows for so long, each every 32 ms.

        Returns:
            ``waits_ms``: from sending to the answer, of every window answered; ``refusals_ms``: of every
            one refused; ``probes_ms``: of the probes; ``lost``: without an answer; ``late_ms``: by how much
            windows were sent too late, at the 99th of 100.
        """
        from antiphon_actors.models import wire
        from antiphon_actors.models.connection import Connection
        from antiphon_actors.models.wire import Member

        load = Load()
        connection = Connection(load, Member("model", self._uri), self._streams)
        await connection.open(self._endpoint)
        for number in range(1, sessions + 1):
            connection.send(wire.write_open(number, RATE, (0, None)))
        audio, loop = self._audio, asyncio.get_running_loop()
        stop = asyncio.Event()
        probing = [loop.create_task(self._probe(number, probes, stop)) for number in range(probes)]
        gap = WINDOW_SECS / sessions
        started = time.perf_counter() + 0.05
        ends = started + secs
        numbers = 0
        lateness: list[float] = []
        send, sent = connection.send, load.sent
        while (now := time.perf_counter()) < ends:
            due = int((now - started) / gap) + 1 if now >= started else 0
            if numbers < due:
                lateness.append(now - started - numbers * gap)
            # Not all at once: answers are to be taken meanwhile.
            for _turn in range(min(due - numbers, 16)):
                numbers += 1
                session = numbers % sessions
                window = audio[(numbers // sessions + 7 * session) % len(audio)]
                sent[numbers] = time.perf_counter()
                send(wire.write_request(numbers, session + 1, 1.0, (0, window)))
            await asyncio.sleep(0)
        waited = time.perf_counter() + 1.0
        while sent and time.perf_counter() < waited:  # noqa: ASYNC110 - it is measured, not told
            await asyncio.sleep(0.001)
        stop.set()
        found = await asyncio.gather(*probing)
        connection.close()
        lateness.sort()
        return {
            "windows": numbers,
            "waits_ms": [1e3 * wait for wait in load.waits],
            "refusals_ms": [1e3 * wait for wait in load.refusals],
            "probes_ms": [wait for waits, _ in found for wait in waits],
            "probes_failed": sum(failed for _, failed in found),
            "lost": len(sent) + load.others,
            "late_ms": 1e3 * lateness[int(0.99 * len(lateness))] if lateness else 0.0,
        }

    async def _probe(self, number: int, of: int, stop: asyncio.Event) -> tuple[list[float], int]:
        """One session as a bot has it; the milliseconds it waits for each window, and how many it did not get."""
        from antiphon.audio.vad.silero import SHARED_MODEL
        from antiphon.errors import AntiphonError
        from antiphon.models.batching import Request
        from antiphon.models.model import SessionState
        from antiphon.models.sharing import deliver
        from antiphon_actors.models.remote import RemoteModel
        from antiphon_actors.models.wire import Member

        uri = self._uri

        class There:
            async def members(self, spec: Any, avoid: Sequence[str]) -> Sequence[Member]:
                return [Member("model", uri)]

        model = RemoteModel(SHARED_MODEL, deliver, self._endpoint, self._streams, There())
        await model.start()
        state = SessionState(RATE)
        model.open(state)
        waits: list[float] = []
        failed = 0
        loop = asyncio.get_running_loop()
        due = time.perf_counter() + WINDOW_SECS * number / of
        at = number
        while not stop.is_set():
            pause = due - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            answer = loop.create_future()
            began = time.perf_counter()
            model.submit(
                Request(self._audio[at % len(self._audio)], time.monotonic() + 1, answer, state)
            )
            try:
                async with asyncio.timeout(1.0):
                    await answer
                waits.append(1e3 * (time.perf_counter() - began))
            except (AntiphonError, TimeoutError):
                failed += 1
            at += 1
            due += WINDOW_SECS
        model.forget(state)
        model.close()
        return waits, failed

    async def direct(self, count: int, **_: Any) -> dict[str, Any]:
        """Microseconds of single windows: the published model, and an analyzer as it is now."""
        import onnxruntime

        from antiphon.audio.vad.silero import SileroVADAnalyzer

        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        published = onnxruntime.InferenceSession(str(PUBLISHED), options)
        rate = np.array(RATE, np.int64)
        state = np.zeros((2, 1, 128), np.float32)
        audio = np.zeros((1, 576), np.float32)
        scale = np.float32(1 / 32768)
        analyzer = SileroVADAnalyzer()
        analyzer.set_sample_rate(RATE)
        theirs, ours = [], []
        for number in range(count):
            window = self._audio[number % len(self._audio)]
            began = time.perf_counter()
            audio[0, :64] = audio[0, -64:]
            np.multiply(np.frombuffer(window, "<i2"), scale, out=audio[0, 64:])
            _, state = published.run(None, {"input": audio, "state": state, "sr": rate})
            theirs.append(1e6 * (time.perf_counter() - began))
            began = time.perf_counter()
            analyzer.voice_confidence(window)
            ours.append(1e6 * (time.perf_counter() - began))
        return {"published_us": theirs, "analyzer_us": ours}


async def drive(control: str, name: str, directory: str, uri: str) -> None:
    """Does what the benchmark says until it hangs up."""
    from antiphon_actors.session.endpoint import Endpoint

    endpoint = Endpoint(name)
    await endpoint.start(f"unix://{directory}/user-{os.getpid()}.sock")
    driver = Driver(endpoint, uri)
    commands: dict[str, Any] = {"run": driver.run, "direct": driver.direct}
    gc.collect()
    gc.freeze()
    reader, writer = await asyncio.open_unix_connection(control)
    writer.write(json.dumps({"hello": name, "pid": os.getpid()}).encode() + b"\n")
    while line := await reader.readline():
        command = json.loads(line)
        what = command.pop("do")
        if what == "stop":
            break
        writer.write(json.dumps(await commands[what](**command)).encode() + b"\n")
    writer.close()
    await endpoint.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--directory", required=True, help="for its socket")
    parser.add_argument("--uri", required=True, help="of the model's process")
    parser.add_argument("--cores", default="", help="which it may use: 0,1")
    given = parser.parse_args()
    if given.cores:
        os.sched_setaffinity(0, [int(core) for core in given.cores.split(",")])
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    uvloop.run(drive(given.control, given.name, given.directory, given.uri))


if __name__ == "__main__":
    main()
