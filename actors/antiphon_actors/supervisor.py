"""The Ray actor that runs bot programs, each with its pipeline task."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import ray
from loguru import logger

from antiphon.errors import AntiphonError, SessionError
from antiphon.pipeline.executor import Executor, use_executor
from antiphon.pipeline.keeper import use_keeper
from antiphon.runner.types import RunnerArguments, WebSocketRunnerArguments
from antiphon_actors.agent_client import AgentClient
from antiphon_actors.agent_provider import AgentProvider
from antiphon_actors.bot_program import BotError, BotFile, describe, load_bot, run_bot
from antiphon_actors.checkpoints.open_store import open_store
from antiphon_actors.checkpoints.session import KeptSession
from antiphon_actors.checkpoints.store import CheckpointStore
from antiphon_actors.errors import SessionLostError
from antiphon_actors.models.provider import use_actors_for_models
from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.placement.policy import Placement
from antiphon_actors.process_prefix import claim_process_prefix
from antiphon_actors.processor_actor import ActorFacts, WatchedActor
from antiphon_actors.report import SessionReport, output_directory
from antiphon_actors.session import console
from antiphon_actors.session.caller_websocket import CallerRequest, CallerWebSocket
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.home import ActorExecutor, SessionRecord
from antiphon_actors.session.network import Network
from antiphon_actors.session.own_tasks import (
    Tasks,
    end_session,
    end_tasks,
    own_tasks,
    tell_tasks_apart,
)

CANCEL_DEADLINE_SECS = 2.0
"""How long the cancellation of a session may take; longer if its pipeline may take longer."""
AGENT_DEADLINE_SECS = 10.0
TASKS_DEADLINE_SECS = 2.0
"""How long what a bot has left running may resist its cancellation."""
HANG_UP_DEADLINE_SECS = 2.0
"""How long the end of a caller's line may take."""
OUTPUT_LIMIT_CHARS = 4 * 1024 * 1024
"""Output that may wait for whoever follows a session; further pieces are dropped and counted."""

HAND_OVER_SECS = 5.0

_PIECE_CHARS = 64 * 1024


@dataclass(frozen=True)
class SessionSpec:
    """A session to run.

    Attributes:
        session_id: Its name.
        bot_file: The bot.
        placement: How its processors are placed; the bot file's own ``placement`` where None.
        body: ``runner_args.body``.
        collect: Whether the bot gets a directory (``runner_args.body["output_dir"]``) whose files
            the report brings back.
        log_level: Logs below it are not shown.
        directory: What becomes the working directory, if it exists there; only for a supervisor
            with one session, as a process has one. None leaves it.
        checkpoints: Whether the session is saved as it goes, so that it can go on in another
            supervisor if this one dies. Where it is saved, the environment says (`open_store`).
        resume: Whether it goes on from what was saved; it is saved further then.
        caller: Who called, for a session behind the gateway.
        attempt: How many supervisors the session has had before this one, where somebody counts.
    """

    session_id: str
    bot_file: BotFile
    placement: Placement | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    collect: bool = False
    log_level: str = "WARNING"
    directory: Path | None = None
    checkpoints: bool = False
    resume: bool = False
    caller: CallerRequest | None = None
    attempt: int = 0

    @property
    def run_id(self) -> str:
        """Tells apart what the supervisors of a session do; the session's own name for the first.

        What an earlier one had in actors is not to be taken for this one's.
        """
        return run_id(self.session_id, self.attempt)


def run_id(session_id: str, attempt: int) -> str:
    """Returns the name under which a session's supervisor holds its places."""
    return f"{session_id}~{attempt}" if attempt else session_id


@dataclass(frozen=True)
class Output:
    """Something a session printed."""

    stream: Literal["out", "err"]
    text: str

    def show(self) -> None:
        """Prints it where this process prints."""
        stream = sys.stdout if self.stream == "out" else sys.stderr
        stream.write(self.text)
        stream.flush()


@dataclass(frozen=True)
class Failure:
    """Something that went wrong in a session, for people."""

    text: str


class _Outputs:
    """What a session has printed and nobody has fetched yet; small pieces are joined."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Output | Failure] = deque()
        self._chars = 0
        self._dropped = 0
        self._ended = False
        self._news = asyncio.Event()

    def write(self, stream: Literal["out", "err"], text: str) -> None:
        """Takes what was printed, in any thread."""
        self._loop.call_soon_threadsafe(self._add, Output(stream, text))

    def fail(self, text: str) -> None:
        """Takes a failure; they are few."""
        self._loop.call_soon_threadsafe(self._add, Failure(text))

    def end(self) -> None:
        """Says that nothing follows what has been written before."""
        self._loop.call_soon(self._end)

    async def __aiter__(self) -> AsyncIterator[Output | Failure]:
        """What was printed, until the end."""
        while True:
            while self._waiting:
                yield self._next()
            if self._ended:
                break
            self._news.clear()
            await self._news.wait()
        if self._dropped:
            yield Output("err", f"({self._dropped} pieces of output were dropped)\n")

    def _add(self, item: Output | Failure) -> None:
        if isinstance(item, Output):
            if self._chars + len(item.text) > OUTPUT_LIMIT_CHARS:
                self._dropped += 1
                return
            self._chars += len(item.text)
        self._waiting.append(item)
        self._news.set()

    def _end(self) -> None:
        self._ended = True
        self._news.set()

    def _next(self) -> Output | Failure:
        first = self._waiting.popleft()
        if isinstance(first, Failure):
            return first
        texts, chars = [first.text], len(first.text)
        while self._waiting and chars < _PIECE_CHARS:
            following = self._waiting[0]
            if not isinstance(following, Output) or following.stream != first.stream:
                break
            self._waiting.popleft()
            texts.append(following.text)
            chars += len(following.text)
        self._chars -= chars
        return Output(first.stream, "".join(texts))


class _Running:
    """A session in this process."""

    def __init__(self, caller: CallerWebSocket | None, tasks: Tasks) -> None:
        self.task: asyncio.Task[int]
        self.tasks = tasks
        self.caller = caller
        self.kept: KeptSession | None = None
        self.lost = ""
        self.handed_over = False
        # What runs its tasks.
        self.executors: list[ActorExecutor] = []

    def abandon(self) -> None:
        """Ends the session here, because it goes on elsewhere: what was saved of it stays."""
        self.handed_over = True
        if self.kept is not None:
            self.kept.abandon()
        self.task.cancel()

    async def cancel(self) -> bool:
        """Ends the session now; returns whether it has ended within the deadline."""
        secs = max([CANCEL_DEADLINE_SECS, *(each.cancel_secs for each in self.executors)])
        return await end_session(self.task, self.tasks, secs)


class SupervisorActor(WatchedActor):
    """Runs the bot programs of one or several sessions.

    Args:
        hub_dir: Directory of the process's Unix socket.
        agent: The node agent, which owns this actor and the processor actors.
        network: The node's place among others; None if sessions stay on one node.
        store: Where sessions are saved, or its name (`open_store`); None for what the environment
            says.
        models: How the models that sessions use run.
    """

    role = "supervisor"

    def __init__(
        self,
        hub_dir: str,
        agent: Any,
        network: Network | None = None,
        store: CheckpointStore | str | None = None,
        models: ModelSettings | None = None,
    ) -> None:
        super().__init__()
        self._models = models or ModelSettings()
        self._using_models = contextlib.ExitStack()
        self._hub_dir = hub_dir
        self._agent = AgentClient(agent)
        self._endpoint = Endpoint(f"supervisor-{os.getpid()}", network)
        self._starting = asyncio.Lock()
        self._sessions: dict[str, _Running] = {}
        self._store = store

    async def start(self) -> ActorFacts:
        """Opens the process's hub; later calls return the same facts."""
        async with self._starting:
            if self._facts is None:
                self.adopt_loop()
                tell_tasks_apart(asyncio.get_running_loop())
                console.install("WARNING")
                prefix = claim_process_prefix()
                await self._endpoint.start(f"unix://{self._hub_dir}/supervisor-{os.getpid()}.sock")
                self._using_models = use_actors_for_models(
                    self._endpoint, self._agent, self._models
                )
                # The first call to an actor connects to it, which no session shall wait for.
                await self._agent.call("start", deadline_secs=AGENT_DEADLINE_SECS)
                context = ray.get_runtime_context()
                self._facts = ActorFacts(
                    uri=self._endpoint.uri,
                    pid=os.getpid(),
                    prefix=prefix,
                    node_id=context.get_node_id(),
                )
            return self._facts

    def statistics(self) -> dict[str, Any]:
        """Numbers for the health check."""
        kept = [running.kept for running in self._sessions.values() if running.kept is not None]
        counts = [one.keeper.statistics for one in kept]
        return {
            "sessions": len(self._sessions),
            "links": self._endpoint.statistics(),
            "checkpoints": {
                name: sum(getattr(count, name) for count in counts)
                for name in ("saved", "failed", "unsavable")
            },
        }

    def session_names(self) -> list[str]:
        """The sessions that run here."""
        return list(self._sessions)

    def agent_returned(self) -> None:
        """Repeats what sessions have asked of the agent that died."""
        self._agent.returned()

    async def run_session(
        self, spec: SessionSpec
    ) -> AsyncIterator[Output | Failure | SessionReport]:
        """Runs a session; yields what it prints and what fails, and its report last."""
        if spec.run_id in self._sessions:
            raise SessionError(f"session {spec.run_id} is running already")
        _change_directory(spec.directory)
        # Here: a link belongs to the process, not to the session that asked for it first.
        caller = await self._connect(spec)
        outputs = _Outputs()
        record = SessionRecord(on_failure=outputs.fail)
        files: dict[str, bytes] = {}
        with (
            console.session_output(outputs.write, spec.log_level),
            logger.contextualize(session_id=spec.session_id),
            own_tasks() as tasks,
        ):
            running = _Running(caller, tasks)
            task = running.task = asyncio.create_task(
                self._run_to_its_end(spec, record, files, running),
                name=f"session {spec.run_id}",
            )
        self._sessions[spec.run_id] = running
        if caller is not None:
            # Either the caller is gone with the gateway, or another supervisor has the session by now.
            caller.call_when_lost(running.abandon)
        task.add_done_callback(lambda _: outputs.end())
        try:
            async for item in outputs:
                yield item
            report = _report(spec, record, files, running)
            for text in report.failures[len(record.failures) :]:
                yield Failure(text)
            yield report
        finally:
            if not task.done():
                await running.cancel()
            self._sessions.pop(spec.run_id, None)

    async def cancel_session(self, run_id: str) -> bool:
        """Ends a session now; returns whether it has ended within the deadline."""
        running = self._sessions.get(run_id)
        return running is None or await running.cancel()

    async def hand_over(self, run_id: str, deadline_secs: float = HAND_OVER_SECS) -> bool:
        """Saves a session and ends it here, so that it goes on in another supervisor.

        Its report says ``handed_over``; who runs it runs it again, with ``resume``.

        Args:
            run_id: The session.
            deadline_secs: How long saving it may take.

        Returns:
            Whether it can go on elsewhere. If not, it goes on here.
        """
        running = self._sessions.get(run_id)
        if running is None or running.kept is None or running.task.done():
            return False
        try:
            async with asyncio.timeout(deadline_secs):
                await running.kept.hand_over()
        except (AntiphonError, TimeoutError) as error:
            logger.warning(
                "session stays: it cannot be saved",
                run_id=run_id,
                error=str(error) or "no answer in time",
            )
            return False
        running.handed_over = True
        if running.caller is not None:
            # Before the bot's end could be taken for a hang-up.
            await running.caller.let_go()
        await running.cancel()
        return True

    async def abandon_session(self, run_id: str) -> bool:
        """Ends a session that goes on elsewhere by now: what was saved of it stays.

        Returns:
            Whether it has ended within the deadline.
        """
        running = self._sessions.get(run_id)
        if running is None:
            return True
        running.abandon()
        return await running.cancel()

    async def evacuate(self, uris: Sequence[str], reason: str, deadline_secs: float) -> list[str]:
        """Moves the processors of all sessions off processes that are to end.

        Args:
            uris: Of the processes' hubs.
            reason: Why, for people.
            deadline_secs: How long that may take.

        Returns:
            The sessions that still need one of them.
        """

        async def one(executor: ActorExecutor) -> bool:
            try:
                async with asyncio.timeout(deadline_secs):
                    return not await executor.evacuate(uris, reason, deadline_secs)
            except (AntiphonError, TimeoutError) as error:
                logger.warning("processors were not moved", error=repr(error))
                return False

        async def all_of(session_id: str, running: _Running) -> str | None:
            moved = await asyncio.gather(*map(one, running.executors))
            return None if all(moved) else session_id

        left = await asyncio.gather(*(all_of(*item) for item in self._sessions.items()))
        return [session_id for session_id in left if session_id is not None]

    async def stop(self) -> None:
        """Ends every session and closes the hub."""
        await asyncio.gather(*(self.cancel_session(name) for name in list(self._sessions)))
        await self._endpoint.aclose()
        self._using_models.close()
        if isinstance(self._store, CheckpointStore):
            await self._store.aclose()

    async def _connect(self, spec: SessionSpec) -> CallerWebSocket | None:
        if spec.caller is None:
            return None
        caller = CallerWebSocket(spec.caller, self._endpoint)
        await caller.connect()
        return caller

    async def _run_to_its_end(
        self,
        spec: SessionSpec,
        record: SessionRecord,
        files: dict[str, bytes],
        running: _Running,
    ) -> int:
        code = 1
        try:
            code = await self._run(spec, record, files, running)
            return code
        finally:
            try:
                await _hang_up(running, failed=code != 0)
            finally:
                left = await end_tasks(running.tasks, TASKS_DEADLINE_SECS)
                if left:
                    logger.warning("tasks of the bot do not end", count=left)

    async def _run(
        self, spec: SessionSpec, record: SessionRecord, files: dict[str, bytes], running: _Running
    ) -> int:
        try:
            module = load_bot(spec.bot_file)
            placement = spec.placement or getattr(module, "placement", None) or Placement()
            numbered = 0

            def executor() -> Executor:
                nonlocal numbered
                numbered += 1
                name = spec.run_id
                if running.kept is not None and running.kept.number:
                    # What is left of an earlier process may still be in the actors.
                    name += f"~{running.kept.number}"
                if numbered > 1:
                    name += f".{numbered}"
                made = ActorExecutor(
                    name,
                    self._endpoint,
                    AgentProvider(self._agent, spec.run_id),
                    placement,
                    here=f"supervisor, pid {os.getpid()}",
                    record=record,
                    import_paths=[spec.bot_file.directory],
                )
                running.executors.append(made)
                return made

            async with self._keep(spec, module, running) as kept:
                with output_directory(
                    spec.body, files, collect=spec.collect, parent=Path(self._hub_dir)
                ) as body:
                    arguments = _arguments(spec, body, running)
                    keeper = kept.keeper if kept is not None else None
                    with use_executor(executor), use_keeper(keeper):
                        return await run_bot(module, spec.bot_file, arguments)
        except BotError as error:
            record.fail(str(error))
            return 1
        except SessionLostError as error:
            running.lost = str(error)
            record.fail(f"the session is lost: {error}")
            return 1

    @contextlib.asynccontextmanager
    async def _keep(
        self, spec: SessionSpec, module: ModuleType, running: _Running
    ) -> AsyncIterator[KeptSession | None]:
        """Saves a session that is to be saved."""
        if not spec.checkpoints and not spec.resume:
            yield None
            return
        if not isinstance(self._store, CheckpointStore):
            self._store = open_store(self._store)
        async with KeptSession(
            self._store,
            spec.session_id,
            spec.bot_file,
            resume=spec.resume,
            anew_when_lost=bool(getattr(module, "start_anew_when_lost", False)),
        ) as kept:
            running.kept, running.lost = kept, kept.lost
            yield kept


def _arguments(spec: SessionSpec, body: dict[str, Any], running: _Running) -> RunnerArguments:
    resume = running.kept.resume if running.kept is not None else None
    if running.caller is None:
        return RunnerArguments(body=body, session_id=spec.session_id, resume=resume)
    # A session of which nothing was saved yet begins, though another supervisor had it before.
    running.caller.resumed = resume is not None
    return WebSocketRunnerArguments(
        websocket=running.caller, body=body, session_id=spec.session_id, resume=resume
    )


async def _hang_up(running: _Running, *, failed: bool) -> None:
    """Ends the caller's line, and the call with it unless the session goes on elsewhere, or was lost."""
    caller = running.caller
    if caller is None:
        return
    code, reason = (1011, "the bot failed") if failed else (1000, "")
    try:
        async with asyncio.timeout(HANG_UP_DEADLINE_SECS):
            if running.handed_over or (failed and running.lost):
                await caller.let_go()
            else:
                await caller.finish(code, reason)
    except TimeoutError:
        logger.warning("the caller's line did not end in time", secs=HANG_UP_DEADLINE_SECS)


def _change_directory(directory: Path | None) -> None:
    if directory is not None:
        # On another machine it may not exist.
        with contextlib.suppress(OSError):
            os.chdir(directory)


def _report(
    spec: SessionSpec, record: SessionRecord, files: dict[str, bytes], running: _Running
) -> SessionReport:
    failures = list(record.failures)
    task = running.task
    if task.cancelled() or task.cancelling():
        code = 130
        if not running.handed_over:
            failures.append("the session was cancelled")
    elif (error := task.exception()) is not None:
        code = 1
        failures.append(describe(error, spec.bot_file))
    else:
        code = task.result() or int(bool(failures))
    return SessionReport(
        spec.session_id,
        code,
        failures,
        record.processors,
        files,
        record.conversations(),
        list(record.recoveries),
        lost=running.lost,
        handed_over=running.handed_over,
    )
