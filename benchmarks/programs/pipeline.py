"""The measured bot: eight processors that pass frames on, and one that takes them.

The same text runs on Antiphon, as a program of its own or as the bot file of a session on a
cluster, and on Pipecat (``BENCH_PACKAGE=pipecat``). So it imports nothing of the benchmarks.

    python pipeline.py --control SOCKET --name NAME [--shape pass|slow] [--loop asyncio|uvloop]
        [--forks N] [--direct] [--defaults]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import sys
import time
from typing import Any

PACKAGE = os.environ.get("BENCH_PACKAGE", "antiphon")
frames = importlib.import_module(f"{PACKAGE}.frames.frames")
FrameProcessor = importlib.import_module(f"{PACKAGE}.processors.frame_processor").FrameProcessor
Pipeline = importlib.import_module(f"{PACKAGE}.pipeline.pipeline").Pipeline
PipelineTask = importlib.import_module(f"{PACKAGE}.pipeline.task").PipelineTask
PipelineRunner = importlib.import_module(f"{PACKAGE}.pipeline.runner").PipelineRunner

PROCESSORS = 8
AUDIO = bytes(700)
RATE = 16000
START_DEADLINE_SECS = 30.0
FRAME_DEADLINE_SECS = 10.0
LINE_LIMIT = 1 << 20
SLOW_SECS = 0.02
TICK_NS = 20_000_000
# In flight beyond what a full lane holds back, where nothing holds a sender back.
BACKLOG = 500


class Pass(FrameProcessor):  # type: ignore[misc, valid-type]
    """Passes everything on."""

    movable = True

    async def process_frame(self, frame: Any, direction: Any) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Slow(FrameProcessor):  # type: ignore[misc, valid-type]
    """Takes its time over the bot's audio, as a slow consumer does."""

    movable = True

    async def process_frame(self, frame: Any, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, frames.OutputAudioRawFrame):
            await asyncio.sleep(SLOW_SECS)
        await self.push_frame(frame, direction)


class End(FrameProcessor):  # type: ignore[misc, valid-type]
    """Takes the audio and notes when it came."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = 0
        self.system_count = 0
        self.wanted = 0
        self.system_wanted = 0
        self.arrived_ns = 0
        self.times: list[tuple[int, int]] | None = None
        self.reached = asyncio.Event()

    async def process_frame(self, frame: Any, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, frames.InputAudioRawFrame):
            self.arrived_ns = time.monotonic_ns()
            self.system_count += 1
            if self.system_count == self.system_wanted:
                self.reached.set()
        elif isinstance(frame, frames.OutputAudioRawFrame):
            self.arrived_ns = time.monotonic_ns()
            self.count += 1
            if self.count == self.wanted:
                self.reached.set()
        else:
            await self.push_frame(frame, direction)
            return
        if self.times is not None:
            self.times.append((frame.num_channels, self.arrived_ns))


class Measured:
    """One running pipeline and the commands it obeys."""

    def __init__(self, shape: str, *, direct: bool = False, defaults: bool = False) -> None:
        options = {"enable_direct_mode": True} if direct else {}
        kinds = [Slow] if shape == "slow" else [Pass] * PROCESSORS
        self.first = [kind(**options) for kind in kinds]
        self.end = End(**options)
        lean: dict[str, Any] = {} if defaults else {"enable_turn_tracking": False}
        if PACKAGE == "pipecat" and not defaults:
            lean["enable_rtvi"] = False
        self.task = PipelineTask(
            Pipeline([*self.first, self.end]),
            cancel_on_idle_timeout=False,
            idle_timeout_secs=None,
            **lean,
        )
        self.started = asyncio.Event()
        self.started_ns = 0
        self.task.add_event_handler("on_pipeline_started", self._on_started)
        self.run: asyncio.Task[None] | None = None

    async def start(self) -> None:
        runner = PipelineRunner(handle_sigint=False)
        self.run = asyncio.create_task(runner.run(self.task))
        waiting = asyncio.create_task(self.started.wait())
        await asyncio.wait(
            {self.run, waiting},
            timeout=START_DEADLINE_SECS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        waiting.cancel()
        if not self.started.is_set():
            raise RuntimeError("the pipeline did not start")

    async def stop(self) -> None:
        await self.task.cancel()
        if self.run is not None:
            await self.run

    async def _on_started(self, task: Any, *_: Any) -> None:
        self.started_ns = time.monotonic_ns()
        self.started.set()

    async def _send(self, kind: Any, channels: int = 1) -> None:
        await self.first[0].queue_frame(kind(audio=AUDIO, sample_rate=RATE, num_channels=channels))

    async def _until(self, kind: Any, more: int) -> None:
        """Waits until so many frames of a kind have come in all."""
        end = self.end
        system = kind is frames.InputAudioRawFrame
        if (end.system_count if system else end.count) >= more:
            return
        end.reached.clear()
        if system:
            end.system_wanted = more
        else:
            end.wanted = more
        async with asyncio.timeout(FRAME_DEADLINE_SECS):
            await end.reached.wait()

    def _come(self, kind: Any) -> int:
        return self.end.system_count if kind is frames.InputAudioRawFrame else self.end.count

    async def latency(self, frame: str, count: int) -> dict[str, Any]:
        """One frame at a time, from the queue of the first processor to the last."""
        kind = _kind(frame)
        samples = []
        gc.collect()
        for _ in range(count):
            target = self._come(kind) + 1
            sent = time.monotonic_ns()
            await self._send(kind)
            await self._until(kind, target)
            samples.append(self.end.arrived_ns - sent)
            # Each frame finds an idle pipeline.
            await asyncio.sleep(0)
        return {"ns": samples}

    async def saturate(self, frame: str, count: int, window: int = 256) -> dict[str, Any]:
        """As many frames as go, at most ``window`` of them under way."""
        kind = _kind(frame)
        begin = self._come(kind)
        gc.collect()
        started = time.monotonic_ns()
        for sent in range(count):
            if sent - (self._come(kind) - begin) >= window:
                await self._until(kind, begin + sent - window // 2)
            await self._send(kind)
        await self._until(kind, begin + count)
        return {"per_s": count / (time.monotonic_ns() - started) * 1e9}

    async def overtake(self, count: int, pace_secs: float) -> dict[str, Any]:
        """System frames, while the consumer's ordered lane is as full as it gets."""
        ordered, system = frames.OutputAudioRawFrame, frames.InputAudioRawFrame
        begin = self.end.count
        sent = 0

        async def fill() -> None:
            nonlocal sent
            while True:
                if sent - (self.end.count - begin) < BACKLOG:
                    sent += 1
                    await self._send(ordered)
                else:
                    await asyncio.sleep(SLOW_SECS / 2)

        filler = asyncio.create_task(fill())
        samples = []
        try:
            await asyncio.sleep(0.5)
            waiting = sent - (self.end.count - begin)
            for _ in range(count):
                target = self.end.system_count + 1
                at = time.monotonic_ns()
                await self._send(system)
                await self._until(system, target)
                samples.append(self.end.arrived_ns - at)
                await asyncio.sleep(pace_secs)
        finally:
            filler.cancel()
        return {"ns": samples, "waiting": waiting}

    async def realtime(self, start_ns: int, ticks: int) -> dict[str, Any]:
        """Audio in and audio out, a frame of each every 20 ms; how late each comes."""
        end = self.end
        end.times = []
        plan: dict[int, int] = {}
        # What the number of channels counts here is the tick.
        for tick in range(2 * ticks):
            due = start_ns + tick * TICK_NS // 2
            plan[tick + 1] = due
            pause = (due - time.monotonic_ns()) / 1e9
            if pause > 0:
                await asyncio.sleep(pause)
            await self._send(
                frames.OutputAudioRawFrame if tick % 2 else frames.InputAudioRawFrame, tick + 1
            )
        # Frames that do not come within a second are lost.
        for _ in range(50):
            if len(end.times) == len(plan):
                break
            await asyncio.sleep(0.02)
        came, end.times = end.times, None
        late = [at - plan[tick] for tick, at in came]
        return {"late_us": [ns // 1000 for ns in late], "lost": len(plan) - len(late)}


def _kind(name: str) -> Any:
    return {"output": frames.OutputAudioRawFrame, "input": frames.InputAudioRawFrame}[name]


async def serve(control: str, name: str, shape: str, **options: bool) -> None:
    """Runs a pipeline and obeys the benchmark until it hangs up."""
    measured = Measured(shape, **options)
    await measured.start()
    reader, writer = await asyncio.open_unix_connection(control, limit=LINE_LIMIT)

    def say(**what: Any) -> None:
        writer.write(json.dumps(what).encode() + b"\n")

    try:
        say(hello=name, pid=os.getpid(), started_ns=measured.started_ns)
        while line := await reader.readline():
            command = json.loads(line)
            what = command.pop("do")
            if what == "stop":
                say(stopped=True)
                break
            try:
                answer = await getattr(measured, what)(**command)
            except Exception as error:  # noqa: BLE001 - the benchmark's to report
                answer = {"error": f"{what}: {type(error).__name__}: {error}"}
            say(**answer)
            await writer.drain()
    finally:
        writer.close()
        await measured.stop()


async def bot(runner_args: Any) -> None:
    """The bot of a session on a cluster."""
    body = runner_args.body
    await serve(body["control"], body["name"], body.get("shape", "pass"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--shape", default="pass", choices=("pass", "slow"))
    parser.add_argument("--loop", default="asyncio", choices=("asyncio", "uvloop"))
    parser.add_argument("--forks", type=int, default=0, help="so many processes, NAME-0 and on")
    parser.add_argument("--direct", action="store_true", help="Pipecat's direct mode")
    parser.add_argument("--defaults", action="store_true", help="the task's own observers too")
    options = parser.parse_args()
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    name = options.name
    children = []
    gc.collect()
    gc.freeze()
    for number in range(options.forks):
        child = os.fork()
        if child == 0:
            name = f"{name}-{number}"
            break
        children.append(child)
    else:
        if children:
            for child in children:
                os.waitpid(child, 0)
            return

    async def run() -> None:
        how = {"direct": options.direct, "defaults": options.defaults}
        await serve(options.control, name, options.shape, **how)

    if options.loop == "uvloop":
        import uvloop

        uvloop.run(run())
    else:
        asyncio.run(run())


if __name__ == "__main__":
    main()
