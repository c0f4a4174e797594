"""Sessions that are cancelled at random moments, in random states: each is over within 2 s, and leaves nothing.

    python -m benchmarks.chaos.cancel                     # 1,000 sessions, some minutes
    python -m benchmarks.chaos.cancel --count 60 --seed 7

Every session is a whole bot, with fakes for its services, in one process or over actors without Ray (real sockets, all
in this process). It is over when `run()` has returned and nothing of it is left: no task, no part in an actor, no
stream, no place in an actor. What a blocked thread does needs a real process: see `tests/ray/test_cancel.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from loguru import logger
from tests.session.local_actors import Actors

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMMessagesAppendFrame,
    StartFrame,
    TextFrame,
    TTSSpeakFrame,
)
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.executor import use_executor
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.services.llm_service import FunctionCallParams
from antiphon.testing import FakeLLMService, FakeSTTService, FakeTransport, FakeTTSService
from antiphon.testing.fake_llm import FakeDelay, FakeToolCall
from antiphon_actors import processor_host
from antiphon_actors.placement.policy import Placement
from antiphon_actors.session.home import SessionRecord
from antiphon_actors.session.own_tasks import own_tasks, tell_tasks_apart

COUNT = 1000
LIMIT_SECS = 2.0
AT_ONCE = 6
"""Sessions that run side by side."""

_LATER_SECS = 2.0
"""How long what was frozen may take to end what it has of a session, once it goes on."""

_FOREVER_SECS = 3600.0


@dataclass
class CancelFigures:
    """What was found.

    Attributes:
        count: Sessions that were cancelled.
        within: Of these, over within 2 s.
        worst_secs: How long the slowest took.
        left_over: What was left, with the state, the way and the seed of its session.
    """

    count: int = 0
    within: int = 0
    worst_secs: float = 0.0
    left_over: list[str] = field(default_factory=list)

    @property
    def is_met(self) -> bool:
        """Whether all were in time and left nothing."""
        return self.within == self.count and not self.left_over


async def hang(how: str) -> None:
    """Goes on until it is cancelled: the first time ("gently"), the second ("once"), or for ever ("never")."""
    while True:
        try:
            await asyncio.sleep(_FOREVER_SECS)
        except asyncio.CancelledError:
            if how == "gently":
                raise
            if how == "once":
                how = "gently"


class Trouble(FrameProcessor):
    """Passes frames on, and hangs where it is told to: in the setup, the clean-up, or on a kind of frame."""

    movable = True

    def __init__(self, where: str = "", how: str = "gently", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._where = where
        self._how = how

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Hangs, perhaps."""
        await super().setup(setup)
        if self._where == "setup":
            await hang(self._how)

    async def cleanup(self) -> None:
        """Hangs, perhaps."""
        if self._where == "cleanup":
            await hang(self._how)
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Hangs, perhaps."""
        await super().process_frame(frame, direction)
        if type(frame).__name__ == self._where:
            await hang(self._how)
        if self._where == "slow" and isinstance(frame, TextFrame):
            await asyncio.sleep(0.01)
        await self.push_frame(frame, direction)


class Blind(BaseObserver):
    """Looks at one frame for ever."""

    async def on_push_frame(self, data: FramePushed) -> None:
        """Hangs."""
        await hang("once")


HOW = ("gently", "once", "never")
FRAMES = (StartFrame, InputAudioRawFrame, TextFrame, EndFrame, CancelFrame)
ANYWHERE = (
    "talks",
    "hangs in setup",
    "hangs in cleanup",
    *(f"hangs on {kind.__name__}" for kind in FRAMES),
    "function call hangs",
    "handler hangs",
    "last handler hangs",
    "handler of the transport hangs",
    "observer hangs",
    "waits for the model",
    "waits for the voice",
    "is full",
    "ends",
)
OVER_ACTORS = (
    "attaches",
    "recovers",
    "recovers again",
    "actor is frozen",
    "actor is frozen and another lost",
)
WAYS = ("cancel", "runner", "from outside", "from outside twice", "twice", "CancelFrame", "fatal")
PLACES = ("here", "dedicated", "pooled")


class Trial:
    """One session that is cancelled.

    Args:
        seed: Of all that is random.
        directory: For sockets.
    """

    def __init__(self, seed: int, directory: Path) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.where = self.chance.choice(PLACES)
        self.state = self.chance.choice((*ANYWHERE, *(OVER_ACTORS if self.where != "here" else ())))
        self.how = self.chance.choice(HOW)
        self.way = self.chance.choice(WAYS)
        self.actors = Actors(directory)
        self.secs = 0.0
        self.left: list[str] = []
        self._build()

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.where}, {self.state} ({self.how}), {self.way}"

    # -- the bot -------------------------------------------------------------------------------

    def _build(self) -> None:
        state, how = self.state, self.how
        words = ["Let", " me", " see", ".", " It", " is", " sunny", "."]
        answer: Any = [*words, FakeToolCall("weather"), FakeToolCall("weather")]
        if state == "waits for the model":
            answer = ["Well.", FakeDelay(_FOREVER_SECS)]
        llm = FakeLLMService([answer, "Good bye."], repeat=True)
        llm.register_function("weather", self._weather, cancel_on_interruption=False)
        latency_secs = _FOREVER_SECS if state == "waits for the voice" else 0.0
        tts = FakeTTSService(latency_secs=latency_secs, ms_per_character=2)
        pair = llm.create_context_aggregator(OpenAILLMContext())
        transport = self.transport = FakeTransport()
        _, _, where = state.rpartition("hangs on ") if "hangs on" in state else ("", "", "")
        if state in ("hangs in setup", "hangs in cleanup"):
            where = state.split()[-1]
        if state == "is full":
            where = "slow"
        trouble = Trouble(where, how)
        chain = [
            transport.input(),
            FakeSTTService(["hello"]),
            pair.user(),
            llm,
            tts,
            transport.output(),
            pair.assistant(),
        ]
        chain.insert(self.chance.randrange(1, len(chain)), trouble)
        observers: list[BaseObserver] = [Blind()] if state == "observer hangs" else []
        self.task = PipelineTask(Pipeline(chain), observers=observers)
        self.runner = PipelineRunner(handle_sigint=False)

        async def stuck(*_: object) -> None:
            await hang(how)

        if state == "handler hangs":
            self.task.add_event_handler("on_pipeline_started", stuck)
        elif state == "last handler hangs":
            self.task.add_event_handler("on_pipeline_cancelled", stuck)
        elif state == "handler of the transport hangs":
            transport.add_event_handler("on_client_connected", stuck)

    async def _weather(self, params: FunctionCallParams) -> None:
        if self.state == "function call hangs":
            await hang(self.how)
        await params.result_callback({"weather": "sunny"})

    # -- one after the other -------------------------------------------------------------------

    async def run(self) -> None:
        """Runs the session, cancels it, and looks what is left."""
        with own_tasks() as tasks:
            trial = asyncio.create_task(self._run())
        try:
            await trial
        finally:
            deadline = time.monotonic() + max(LIMIT_SECS - self.secs, 0.05)
            while any(not each.done() for each in tasks) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            self.left += [f"task {each.get_name()}" for each in tasks if not each.done()]
            for each in tasks:
                each.cancel()

    async def _run(self) -> None:
        await self.actors.start()
        running = asyncio.create_task(self._session(), name="who runs it")
        speaking = asyncio.create_task(self.transport.say(bytes(32_000)))
        try:
            await self._talk()
            await self._pause()
            await self._make_trouble()
            began = time.monotonic()
            cancelling = asyncio.create_task(self._cancel(running))
            while not running.done() or not cancelling.done() or self.actors.left_over():
                if time.monotonic() - began > 2 * LIMIT_SECS:
                    break
                await asyncio.sleep(0.002)
            self.secs = time.monotonic() - began
            if not running.done():
                self.left.append("run() goes on")
            if not cancelling.done():
                self.left.append("cancel() goes on")
            self.left += self.actors.left_over()
            await self._calm_down()
        finally:
            speaking.cancel()
            await self._close()

    async def _close(self) -> None:
        for host in self.actors.hosts:
            for hosted in host.host._sessions.values():  # of those that died
                hosted.ender.cancel(flows=False, secs=0.1)
        await self.actors.aclose()

    async def _session(self) -> None:
        if self.where == "here":
            await self.runner.run(self.task)
            return
        placement = Placement("dedicated" if self.where == "dedicated" else "pooled")
        record = SessionRecord()
        with use_executor(lambda: self.actors.executor(placement, record)):
            await self.runner.run(self.task)

    async def _talk(self) -> None:
        if self.state == "attaches":
            self.actors.may_attach = False
        said = [{"role": "user", "content": "How is the weather?"}]
        await self.task.queue_frame(LLMMessagesAppendFrame(said))
        await self.task.queue_frames([TextFrame("word"), TTSSpeakFrame("Hello.")])
        if self.state == "is full":
            await self.task.queue_frames([TextFrame("Word. ") for _ in range(2000)])
        if self.state in ("ends", "hangs on EndFrame"):
            await self.task.queue_frame(EndFrame())

    async def _pause(self) -> None:
        if self.chance.random() < 0.5:
            for _ in range(self.chance.randrange(200)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.chance.random() * 0.15)

    async def _make_trouble(self) -> None:
        hosts = [host for host in self.actors.hosts if not host.dead]
        if not hosts:
            return
        chosen = self.chance.sample(hosts, k=min(2, len(hosts)))
        if self.state.startswith("actor is frozen"):
            chosen[0].freeze()
            if self.state.endswith("lost") and len(chosen) > 1:
                chosen[1].die()
        elif self.state.startswith("recovers"):
            chosen[0].die()
            for _ in range(self.chance.randrange(80)):
                await asyncio.sleep(0)
            if self.state == "recovers again":
                self.actors.hosts[-1].die()

    async def _cancel(self, running: asyncio.Task[None]) -> None:
        async def twice(act: Callable[[], object]) -> None:
            act()
            await asyncio.sleep(self.chance.random() * 0.1)
            act()

        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "cancel": self.task.cancel,
            "runner": self.runner.cancel,
            "twice": lambda: asyncio.gather(self.task.cancel(), self.task.cancel()),
            "from outside twice": lambda: twice(running.cancel),
        }
        if self.way in ways:
            await ways[self.way]()
        elif self.way == "CancelFrame":
            # Read only while nothing else ends the pipeline.
            await self.task.queue_frame(CancelFrame())
            await asyncio.sleep(0)
            await self.task.cancel()
        elif self.way == "fatal":
            self.task._begin_cancel()
        else:
            running.cancel()

    async def _calm_down(self) -> None:
        """Lets what was held up go on: it has to find out by itself that the session is over."""
        self.actors.may_attach = True
        for host in self.actors.hosts:
            host.may_attach.set()
            host.thaw()
        deadline = time.monotonic() + _LATER_SECS
        attaching = [task for host in self.actors.hosts for task in host.attaching]
        if attaching:
            await asyncio.wait(attaching, timeout=_LATER_SECS)
        while (found := self.actors.left_over()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self.left += [f"later, {each}" for each in found]


async def run(count: int, seed: int) -> CancelFigures:
    """Cancels sessions, some side by side.

    Args:
        count: How many.
        seed: Of the first; each further one has the next.
    """
    figures = CancelFigures()
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    tell_tasks_apart(loop)
    before = _held()
    seeds = iter(range(seed, seed + count))

    async def some(directory: Path) -> None:
        for number in seeds:
            place = directory / str(number)
            place.mkdir(mode=0o700)
            trial = Trial(number, place)
            await trial.run()
            figures.count += 1
            figures.within += trial.secs <= LIMIT_SECS
            figures.worst_secs = max(figures.worst_secs, trial.secs)
            if trial.secs > LIMIT_SECS:
                print(f"{trial}: {trial.secs:.2f} s", file=sys.stderr)
            figures.left_over += [f"{trial}: {each}" for each in trial.left]

    try:
        with (
            tempfile.TemporaryDirectory(prefix="cancel-") as scratch,
            # Frame ids of this process stay what they are.
            mock.patch.object(processor_host, "claim_process_prefix", return_value=0),
        ):
            await asyncio.gather(*(some(Path(scratch)) for _ in range(AT_ONCE)))
    finally:
        loop.set_task_factory(factory)
    gc.collect()
    for kind, found in _held().items():
        if found > before[kind]:
            figures.left_over.append(f"after all: {found - before[kind]} {kind}")
    return figures


def _held() -> dict[str, int]:
    """What this process holds, by its kind."""
    return {"threads": threading.active_count(), "descriptors": psutil.Process().num_fds()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="chaos.cancel", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT, help=f"how many ({COUNT})")
    parser.add_argument("--seed", type=int, default=0, help="of the first (0)")
    parser.add_argument("--verbose", action="store_true", help="show the sessions' logs")
    given = parser.parse_args(arguments)
    logger.remove()
    if given.verbose:
        logger.add(sys.stderr, level="INFO")
    found = asyncio.run(run(given.count, given.seed))
    print(
        f"{found.within} of {found.count} within {LIMIT_SECS:g} s, the slowest {found.worst_secs:.2f} s"
    )
    for each in found.left_over:
        print(f"left over: {each}")
    return 0 if found.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
