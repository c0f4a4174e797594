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
from collections import deque
from collections.abc import Callable, Iterable, Sequence
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
    """Sessions whose windows are written straight to the wire (an `Owner` of a connection).

    Told that the actor has too much to do, it asks nothing more before the time it was told, as every user:
    what comes meanwhile is refused here. If it is patient, as voice activity is, that is asked again then.
    """

    def __init__(self, *, patient: bool) -> None:
        self.patient = patient
        # By number: when it was first asked, by which session, and what.
        self.sent: dict[int, tuple[float, int, bytes]] = {}
        # Refused for the moment: since when, by which session, and what.
        self.again: deque[tuple[float, int, bytes]] = deque()
        self.waits: list[float] = []
        self.refusals: list[float] = []
        self.others = 0
        self.full_until = 0.0
        self.limit = 0

    def answered(self, connection: Any, answers: Iterable[Any]) -> None:
        now = time.perf_counter()
        for answer in answers:
            asked = self.sent.pop(answer[0], None)
            if asked is None:
                continue
            if answer[1] == 0:
                self.waits.append(now - asked[0])
            elif answer[1] == 2:
                self.full_until = now + answer[3]
                self.refused(asked, now)
            else:
                self.others += 1

    def refused(self, asked: tuple[float, int, bytes], now: float) -> None:
        """Counts a refusal, or keeps what was refused to be asked again while it is of use."""
        if self.patient and now - asked[0] < WINDOW_SECS:
            self.again.append(asked)
        else:
            self.refusals.append(now - asked[0])

    def told(self, connection: Any, said: Any) -> None:
        self.limit = said.limit

    def lost(self, connection: Any, why: str) -> None:
        raise RuntimeError(f"the model is gone: {why}")


class Driver:
    """Answers the benchmark's commands."""

    def __init__(self, endpoint: Any, uri: str) -> None:
        from antiphon_actors.models.provider import ClusterModels
        from antiphon_actors.models.settings import ModelRule, ModelSettings
        from antiphon_actors.models.wire import Member

        class There:
            """The one actor there is."""

            async def members(self, spec: Any, avoid: Sequence[str]) -> Sequence[Member]:
                return [Member("model", uri)]

        self._endpoint = endpoint
        self._uri = uri
        everything = ModelSettings(rules=(ModelRule("Model", "actor"),))
        self._models = ClusterModels(endpoint, There(), everything)
        self._audio = windows()

    async def run(
        self, sessions: int, secs: float, probes: int = 0, patient: bool = True, **_rest: Any
    ) -> dict[str, Any]:
        """Has so many sessions send their windows for so long, each every 32 ms.

        Returns:
            ``waits_ms``: from sending to the answer, of every window answered; ``refusals_ms``: of every
            one refused; ``probes_ms``: of the probes; ``lost``: without an answer; ``late_ms``: by how much
            windows were sent too late, at the 99th of 100.
        """
        from antiphon_actors.models import wire
        from antiphon_actors.models.connection import Connection
        from antiphon_actors.models.wire import Member

        load = Load(patient=patient)
        connection = Connection(load, Member("model", self._uri), self._models.streams)
        await connection.open(self._endpoint)
        for number in range(1, sessions + 1):
            connection.send(wire.write_open(number, RATE, (0, None)))
            if number % 256 == 0:
                await asyncio.sleep(0.01)  # nobody opens thousands at once
        audio, loop = self._audio, asyncio.get_running_loop()
        stop = asyncio.Event()
        probing = [loop.create_task(self._probe(number, probes, stop)) for number in range(probes)]
        gap = WINDOW_SECS / sessions
        started = time.perf_counter() + 0.05
        ends = started + secs
        numbers = 0
        lateness: list[float] = []
        windows_sent = 0
        while (now := time.perf_counter()) < ends or load.again:
            due = int((min(now, ends) - started) / gap) + 1 if now >= started else 0
            if windows_sent < due:
                lateness.append(now - started - windows_sent * gap)
            # Not all at once: answers are to be taken meanwhile.
            for _turn in range(16):
                now = time.perf_counter()
                open_now = now >= load.full_until and len(load.sent) < load.limit
                if load.again and (open_now or now - load.again[0][0] >= WINDOW_SECS):
                    asked = load.again.popleft()
                elif windows_sent < due:
                    windows_sent += 1
                    session = windows_sent % sessions
                    window = audio[(windows_sent // sessions + 7 * session) % len(audio)]
                    asked = (now, session + 1, window)
                else:
                    break
                if not open_now:
                    load.refused(asked, now)
                    continue
                numbers += 1
                load.sent[numbers] = asked
                connection.send(wire.write_request(numbers, asked[1], 1.0, (0, asked[2])))
            await asyncio.sleep(0)
        waited = time.perf_counter() + 1.0
        while load.sent and time.perf_counter() < waited:  # noqa: ASYNC110 - it is measured, not told
            await asyncio.sleep(0.001)
        stop.set()
        found = await asyncio.gather(*probing)
        connection.close()
        lateness.sort()
        return {
            "windows": windows_sent,
            "waits_ms": [1e3 * wait for wait in load.waits],
            "refusals_ms": [1e3 * wait for wait in load.refusals],
            "probes_ms": [wait for waits, _ in found for wait in waits],
            "probes_failed": sum(failed for _, failed in found),
            "lost": len(load.sent) + load.others,
            "late_ms": 1e3 * lateness[int(0.99 * len(lateness))] if lateness else 0.0,
        }

    async def _probe(self, number: int, of: int, stop: asyncio.Event) -> tuple[list[float], int]:
        """One session as a bot has it; the milliseconds it waits for each window, and how many it lacks."""
        from antiphon.audio.vad.silero import SHARED_MODEL, ask
        from antiphon.errors import AntiphonError

        waits: list[float] = []
        failed = 0
        async with await self._models.connect(SHARED_MODEL) as client:
            session = client.open_session(RATE)
            due = time.perf_counter() + WINDOW_SECS * number / of
            at = number
            while not stop.is_set():
                pause = due - time.perf_counter()
                if pause > 0:
                    await asyncio.sleep(pause)
                began = time.perf_counter()
                try:
                    await ask(session, self._audio[at % len(self._audio)])
                    waits.append(1e3 * (time.perf_counter() - began))
                except AntiphonError:
                    failed += 1
                at += 1
                due += WINDOW_SECS
        return waits, failed

    async def compare(self, sessions: int, count: int, **_: Any) -> dict[str, Any]:
        """How far the confidences of many sessions at once are from those of each alone.

        Args:
            sessions: How many.
            count: Windows of each; less than it takes until a stream forgets.
            **_: Nothing.
        """
        from antiphon.audio.vad._silero_network import SileroStream, silero_network
        from antiphon.audio.vad.silero import SHARED_MODEL

        parts = [
            [self._audio[(at + 9 * number) % len(self._audio)] for at in range(count)]
            for number in range(sessions)
        ]
        network = silero_network(RATE)

        def alone(part: Sequence[bytes]) -> list[float]:
            stream = SileroStream(RATE)
            found = []
            for window in part:
                network.hear([stream], [window])
                found.append(stream.confidence)
            return found

        async with await self._models.connect(SHARED_MODEL) as client:

            async def there(part: Sequence[bytes]) -> list[float]:
                session = client.open_session(RATE)
                return [await session.request(window, deadline_secs=5.0) for window in part]

            together = await asyncio.gather(*map(there, parts))
        run = _published()
        return {
            "to_alone": max(
                _difference(one, alone(part)) for one, part in zip(together, parts, strict=True)
            ),
            "to_published": max(
                _difference(one, run(part)) for one, part in zip(together, parts, strict=True)
            ),
        }

    async def analyzers(self, number: int, secs: float, shared: bool, **_: Any) -> dict[str, Any]:
        """So many analyzers, as the transports of a process have them, on pieces of 20 ms in real time.

        Returns:
            Processor time of this process, and what a piece that holds a window's end waits.
        """
        from antiphon.audio.vad.silero import SileroVADAnalyzer
        from antiphon.models.local import LocalModels
        from antiphon.models.provider import use_models

        with use_models(self._models if shared else LocalModels()):
            analyzers = [SileroVADAnalyzer() for _ in range(number)]
            for analyzer in analyzers:
                analyzer.set_sample_rate(RATE)
                await analyzer.connect_model()
            audio = b"".join(self._audio)
            pieces = [audio[at : at + 640] for at in range(0, len(audio) - 639, 640)]
            waits: list[float] = []

            async def listen(analyzer: Any, place: int) -> None:
                due = time.perf_counter() + 0.02 * place / number
                for at in range(round(secs / 0.02)):
                    await asyncio.sleep(max(due - time.perf_counter(), 0))
                    began = time.perf_counter()
                    await analyzer.analyze_audio_async(pieces[(at + 50 * place) % len(pieces)])
                    waits.append(1e3 * (time.perf_counter() - began))
                    due += 0.02

            began = time.process_time()
            await asyncio.gather(*(listen(each, n) for n, each in enumerate(analyzers)))
            cpu_secs = time.process_time() - began
            for analyzer in analyzers:
                await analyzer.disconnect_model()
        # Five pieces of eight complete a window; the others return at once.
        waits.sort()
        return {"cpu_secs": cpu_secs, "waits_ms": waits[len(waits) * 3 // 8 :]}

    async def direct(self, count: int, **_: Any) -> dict[str, Any]:
        """Microseconds of single windows: the published model, and an analyzer as it is now."""
        from antiphon.audio.vad.silero import SileroVADAnalyzer
        from antiphon.models.local import LocalModels
        from antiphon.models.provider import use_models

        with use_models(LocalModels()):
            analyzer = SileroVADAnalyzer()
            analyzer.set_sample_rate(RATE)
        run = _published()
        theirs, ours = [], []
        for number in range(count):
            window = self._audio[number % len(self._audio)]
            began = time.perf_counter()
            run([window])
            theirs.append(1e6 * (time.perf_counter() - began))
            began = time.perf_counter()
            analyzer.voice_confidence(window)
            ours.append(1e6 * (time.perf_counter() - began))
        return {"published_us": theirs, "analyzer_us": ours}


def _published() -> Callable[[Sequence[bytes]], list[float]]:
    """The published model, as a bot calls it; it goes on from call to call of one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(PUBLISHED), options)
    rate = np.array(RATE, np.int64)
    scale = np.float32(1 / 32768)

    def run(windows: Sequence[bytes]) -> list[float]:
        state = np.zeros((2, 1, 128), np.float32)
        audio = np.zeros((1, 576), np.float32)
        found = []
        for window in windows:
            audio[0, :64] = audio[0, -64:]
            np.multiply(np.frombuffer(window, "<i2"), scale, out=audio[0, 64:])
            confidence, state = session.run(None, {"input": audio, "state": state, "sr": rate})
            found.append(float(confidence[0, 0]))
        return found

    return run


def _difference(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


async def drive(control: str, name: str, directory: str, uri: str) -> None:
    """Does what the benchmark says until it hangs up."""
    from antiphon_actors.session.endpoint import Endpoint

    endpoint = Endpoint(name)
    await endpoint.start(f"unix://{directory}/user-{os.getpid()}.sock")
    driver = Driver(endpoint, uri)
    commands: dict[str, Any] = {
        "run": driver.run,
        "direct": driver.direct,
        "compare": driver.compare,
        "analyzers": driver.analyzers,
    }
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
