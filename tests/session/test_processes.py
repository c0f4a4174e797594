"""Hosts in processes of their own: what a bot file defines gets there by value."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from tests.session.conftest import RUN_SECS, started, until

from antiphon.errors import PlacementError
from antiphon.frames.frames import EndFrame
from antiphon.pipeline.executor import use_executor
from antiphon.pipeline.task import PipelineTask
from antiphon.runner.types import RunnerArguments
from antiphon_actors.bot_program import BotFile, load_bot, run_bot
from antiphon_actors.placement.plan import PlacedProcessor
from antiphon_actors.placement.policy import Placement
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.home import ActorExecutor, Host, SessionRecord
from antiphon_actors.session.spec import AttachSpec

CHILD = """
import asyncio, sys
import cloudpickle
from antiphon_actors.processor_host import ProcessorHost

async def read(reader):
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))

async def main(name, directory):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    host = ProcessorHost(name, directory)
    print(await host.start(), host.prefix, flush=True)
    while True:
        try:
            data = await read(reader)
        except asyncio.IncompleteReadError:
            break
        try:
            await host.attach(cloudpickle.loads(data))
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        else:
            print("attached", flush=True)
    await host.aclose()

asyncio.run(main(*sys.argv[1:]))
"""

BOT = """
import asyncio
from dataclasses import dataclass
from enum import Enum

from antiphon.frames.codec import register_type
from antiphon.frames.frames import ControlFrame, DataFrame, Frame, SystemFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor


class Colour(Enum):
    RED = 1
    BLUE = 2


@register_type
@dataclass
class Paint:
    colour: Colour
    litres: float = 1.0


@dataclass
class PaintFrame(DataFrame):
    paint: object = None
    seen: str = ""


def mixed(paint):
    return Paint(Colour.BLUE if paint.colour is Colour.RED else Colour.RED, paint.litres * 2)


class Painter(FrameProcessor):
    movable = True

    def __init__(self, suffix):
        super().__init__()
        self._suffix = suffix

    async def process_frame(self, frame, direction):
        import os
        await super().process_frame(frame, direction)
        if isinstance(frame, PaintFrame) and isinstance(frame.paint, Paint):
            frame.paint = mixed(frame.paint)
            frame.seen += f"{os.getpid()}{self._suffix} "
            await self.push_frame(PaintFrame(Paint(Colour.RED), "new"))
        await self.push_frame(frame, direction)


class Collector(FrameProcessor):
    def __init__(self):
        super().__init__()
        self.got = []

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        self.got.append(frame)
        await self.push_frame(frame, direction)


made = []


async def bot(runner_args):
    collector = Collector()
    task = PipelineTask(Pipeline([Painter("!"), Painter("?"), collector]))
    made.append((task, collector))
    await PipelineRunner(handle_sigint=False).run(task)
"""


class ChildHost:
    """A processor host in a child process, for any number of sessions."""

    def __init__(self, name: str, directory: Path) -> None:
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, name, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=directory,
            env={**os.environ, "PYTHONPATH": f"{root}/runtime:{root}/actors"},
        )
        self.uri = ""
        self.prefix = 0
        self.description = f"child {self.process.pid}"

    def wait_until_started(self) -> None:
        uri, prefix = self._line().split()
        self.uri, self.prefix = uri, int(prefix)

    async def attach(self, spec: AttachSpec) -> None:
        answer = await asyncio.to_thread(self._attach, cloudpickle.dumps(spec))
        if answer != "attached":
            raise PlacementError(answer)

    def _attach(self, data: bytes) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(len(data).to_bytes(4, "big") + data)
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def stop(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(RUN_SECS)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ChildHost]]:
    """Two child processes: starting one takes longer than all else here."""
    directory = tmp_path_factory.mktemp("hosts")
    started_hosts = [ChildHost(f"host{number}", directory) for number in range(2)]
    try:
        for host in started_hosts:
            host.wait_until_started()
        yield started_hosts
    finally:
        for host in started_hosts:
            host.stop()


class Children:
    """Child processes as hosts: ``pooled`` processors share the first, ``dedicated`` ones do not."""

    def __init__(self, hosts: list[ChildHost]) -> None:
        self.hosts = hosts
        self.endpoint = Endpoint("home")
        self._given: dict[str, int] = {}
        self._sessions = 0

    async def acquire(
        self, session_id: str, moved: Sequence[PlacedProcessor], avoid: Sequence[Host] = ()
    ) -> list[ChildHost]:
        found = []
        for placed in moved:
            number = self._given.get(session_id, 0)
            if placed.where == "dedicated":
                self._given[session_id] = number + 1
            while self.hosts[number] in avoid:
                number += 1
            found.append(self.hosts[number])
        return found

    async def give_back(self, session_id: str, hosts: Sequence[Host]) -> None:
        """Every child serves until the end."""

    async def release(self, session_id: str, stuck: Sequence[Host] = ()) -> None:
        """Every child serves until the end."""

    async def run_bot(self, bot_file: BotFile, placement: str) -> None:
        module = load_bot(bot_file)
        self._sessions += 1
        name = f"s{self._sessions}"

        def executor() -> ActorExecutor:
            preset: Any = placement
            return ActorExecutor(
                name,
                self.endpoint,
                self,
                Placement(preset),
                here="home",
                record=SessionRecord(),
            )

        with use_executor(executor):
            async with asyncio.timeout(RUN_SECS):
                await run_bot(module, bot_file, RunnerArguments(session_id=name))


@pytest.fixture
async def children(hosts: list[ChildHost], tmp_path: Path) -> AsyncIterator[Children]:
    made = Children(hosts)
    await made.endpoint.start(f"unix://{tmp_path}/home.sock")
    try:
        yield made
    finally:
        await made.endpoint.aclose()


def forget(module: Any) -> None:
    """Makes the next load of the bot file a load as in another process."""
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[module.__name__]


async def begin(
    children: Children, bot_file: BotFile, placement: str
) -> tuple[asyncio.Task[None], Any, PipelineTask, Any]:
    session = asyncio.create_task(children.run_bot(bot_file, placement))
    module = load_bot(bot_file)
    await until(lambda: module.made or session.done())
    task, collector = module.made.pop()
    await started(task)
    return session, module, task, collector


async def test_what_a_bot_file_defines_works_in_other_processes(children: Children) -> None:
    bot_file = BotFile("/nowhere/paint_bot.py", BOT)
    session, module, task, collector = await begin(children, bot_file, "dedicated")
    await task.queue_frames([module.PaintFrame(module.Paint(module.Colour.BLUE, 2.0)), EndFrame()])
    await session
    frames: list[Any] = [frame for frame in collector.got if isinstance(frame, module.PaintFrame)]
    old = [frame for frame in frames if frame.paint.litres == 8.0]
    assert [frame.paint.colour for frame in old] == [module.Colour.BLUE]
    first, second = children.hosts
    pids = {host.process.pid for host in children.hosts}
    assert {int(word[:-1]) for word in old[0].seen.split()} == pids
    assert os.getpid() not in pids
    # Ids made in three processes, none of them twice.
    ids = [frame.id for frame in collector.got]
    assert len(set(ids)) == len(ids)
    prefixes = {frame.id >> 39 for frame in frames if "new" in frame.seen}
    assert prefixes == {first.prefix, second.prefix}
    forget(module)


async def test_two_bots_with_classes_of_the_same_name_share_a_host(children: Children) -> None:
    bot_file = BotFile("/nowhere/twice_bot.py", BOT)
    session1, module1, task1, collector1 = await begin(children, bot_file, "pooled")
    forget(module1)
    session2, module2, task2, collector2 = await begin(children, bot_file, "pooled")
    assert module1.PaintFrame is not module2.PaintFrame
    for module, task in ((module1, task1), (module2, task2)):
        await task.queue_frames([module.PaintFrame(module.Paint(module.Colour.RED)), EndFrame()])
    await asyncio.gather(session1, session2)
    for collector in (collector1, collector2):
        seen = [frame.seen for frame in collector.got if hasattr(frame, "seen")]
        # Every painter has recognised the frame as one of its own bot's.
        assert len([text for text in seen if text.endswith("? ")]) == 2
    forget(module2)


async def test_a_class_that_other_processes_cannot_import(children: Children) -> None:
    source = (
        BOT
        + """
from vanished import Helper
"""
    )
    helper = sys.modules["vanished"] = type(sys)("vanished")
    helper.Helper = type("Helper", (), {"__module__": "vanished"})  # type: ignore[attr-defined]
    source = source.replace('Painter("!")', "Painter(Helper())")
    bot_file = BotFile("/nowhere/vanished_bot.py", source)
    try:
        with pytest.raises(Exception, match=r"Painter#\d+ could not be built.*vanished"):
            await children.run_bot(bot_file, "dedicated")
    finally:
        del sys.modules["vanished"]
        forget(load_bot(bot_file))


async def test_a_host_process_that_is_killed(children: Children) -> None:
    bot_file = BotFile("/nowhere/killed_bot.py", BOT)
    session, module, task, collector = await begin(children, bot_file, "pooled")
    children.hosts[0].process.kill()
    await task.queue_frame(module.PaintFrame(module.Paint(module.Colour.RED, 1.0)))
    await task.queue_frame(EndFrame())
    async with asyncio.timeout(RUN_SECS):
        await session
    seen = [frame.seen for frame in collector.got if hasattr(frame, "seen")]
    other = children.hosts[1].process.pid
    assert f"{other}! {other}? " in seen
    assert not task.errors
    forget(module)
