"""Runs a pipeline's processors in actors: the executor of a task at home."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from loguru import logger

from antiphon.clocks.system_clock import SystemClock
from antiphon.compat import aliases
from antiphon.errors import PlacementError
from antiphon.frames import codec
from antiphon.frames.frames import ErrorFrame
from antiphon.observers.session_report import SessionReport
from antiphon.observers.turn_record_observer import TurnRecordObserver
from antiphon.pipeline.executor import Execution, Executor, LocalExecutor
from antiphon.pipeline.task_observer import TaskObserver
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.processors.relay import RecordedCall
from antiphon.processors.statistics import ProcessorStatistics
from antiphon_actors.channels import ChannelError, ChannelRefused, RemoteCallError
from antiphon_actors.errors import ActorGoneError
from antiphon_actors.placement.plan import PlacedProcessor, Plan, make_plan
from antiphon_actors.placement.policy import Placement
from antiphon_actors.session.edge import EdgeRelay, is_loss
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.kept import KeptState
from antiphon_actors.session.node import SessionNode
from antiphon_actors.session.replacement import RecoveryRecord, Replacements
from antiphon_actors.session.spec import AttachSpec, HostedSpec, Inheritance, Neighbour
from antiphon_actors.session.wire_types import pickle_bot_classes

ATTACH_DEADLINE_SECS = 30.0
ASK_DEADLINE_SECS = 10.0
_FAILURES_KEPT = 20

_ANSWER_SHARE = 0.5
"""Of the time for an abort, how much there is for the actors to answer; the rest is for giving them back."""


class Host(Protocol):
    """A process that takes processors."""

    @property
    def uri(self) -> str:
        """Address of its hub."""

    @property
    def description(self) -> str:
        """The actor and process, for people."""

    async def attach(self, spec: AttachSpec) -> None:
        """Builds the processors of a session."""


class HostProvider(Protocol):
    """Where processes for processors come from."""

    async def acquire(
        self,
        session_id: str,
        moved: Sequence[PlacedProcessor],
        avoid: Sequence[Host] = (),
    ) -> Sequence[Host]:
        """A process for each processor, in the same order; one may be named for several.

        Args:
            session_id: The session.
            moved: The processors.
            avoid: Processes that must not be chosen: what has a part of the session has only one.

        Raises:
            PlacementError: If there is none for one of them; the others get none either then.
        """

    async def give_back(self, session_id: str, hosts: Sequence[Host]) -> None:
        """Gives back some of a session's processes, also ones that are dead."""

    async def release(self, session_id: str, stuck: Sequence[Host] = ()) -> None:
        """Gives back every process of a session.

        Args:
            session_id: The session.
            stuck: Those of them that have not answered: nobody else is to get their place before it is known
                how they are.
        """


@dataclass(frozen=True)
class ProcessorRecord:
    """What became of a processor in a session, for reports.

    Attributes:
        name: Its name.
        where: The actor and process it ran in.
        why: Why it was placed there.
        statistics: Its traffic.
    """

    name: str
    where: str
    why: str
    statistics: ProcessorStatistics


@dataclass
class SessionRecord:
    """What an executor leaves behind.

    Attributes:
        processors: Every worker of the pipeline, in its order.
        failures: What went wrong in processors and actors, for people; the first of them.
        on_failure: Told of each of them as it happens.
        turns: What records the turns of each task.
        recoveries: Processors that were lost and replaced.
    """

    processors: list[ProcessorRecord] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    on_failure: Callable[[str], None] | None = None
    turns: list[TurnRecordObserver] = field(default_factory=list)
    recoveries: list[RecoveryRecord] = field(default_factory=list)

    def watch(self, execution: Execution) -> None:
        """Keeps what records a task's turns, if anything does."""
        observer = execution.setup.observer
        if isinstance(observer, TaskObserver):
            found = (one for one in observer.observers if isinstance(one, TurnRecordObserver))
            self.turns += list(found)[-1:]  # the task's own comes last

    def conversations(self) -> list[dict[str, Any]]:
        """The reports of the tasks' conversations, as plain data."""
        return [SessionReport.of(observer).to_plain() for observer in self.turns]

    def note(self, error: ErrorFrame) -> None:
        """Takes note of an error that ended a session or that a processor raised."""
        cause = error.metadata.get("cause")
        if cause is None and not error.fatal:
            return
        origin = error.processor.name if isinstance(error.processor, FrameProcessor) else ""
        text = error.error
        if isinstance(cause, Mapping):
            text = f"processor {cause.get('processor')} failed on {cause.get('frame')}: "
            if cause.get("type") == "ConfigError":  # says all, and no line of a program is at fault
                text += error.error
            else:
                text += f"{cause.get('type')}: {error.error} ({cause.get('where')})"
        elif origin:
            text = f"processor {origin}: {text}"
        self.fail(text)

    def fail(self, text: str) -> None:
        """Takes note of a failure, and tells whoever runs the session, once."""
        if len(self.failures) < _FAILURES_KEPT and text not in self.failures:
            self.failures.append(text)
            if self.on_failure is not None:
                self.on_failure(text)


class RecordingExecutor(LocalExecutor):
    """Runs every processor in this process, and keeps a record."""

    def __init__(self, record: SessionRecord, *, here: str) -> None:
        """Makes an executor for one task.

        Args:
            record: Filled in when the task has ended.
            here: This process, for people.
        """
        super().__init__()
        self._record = record
        self._here = here
        self._plan: Plan | None = None

    async def start(self, execution: Execution) -> None:
        """Sets every processor up here."""
        self._record.watch(execution)
        self._plan = make_plan(execution.pipeline, Placement("fused"))
        await super().start(execution)

    async def stop(self, *, cleanup: bool) -> None:
        """Cleans every processor up, if asked to."""
        await super().stop(cleanup=cleanup)
        for placed in self._plan.workers if self._plan is not None else []:
            self._record.processors.append(
                ProcessorRecord(
                    name=placed.processor.name,
                    where=self._here,
                    why="everything runs in one process",
                    statistics=placed.processor.statistics,
                )
            )

    def note_error(self, error: ErrorFrame) -> None:
        """Takes note of an error of the pipeline."""
        self._record.note(error)


class ActorExecutor(Executor):
    """Places the processors of one task, and runs those that stay here."""

    def __init__(
        self,
        session_id: str,
        endpoint: Endpoint,
        provider: HostProvider,
        placement: Placement,
        *,
        here: str,
        record: SessionRecord,
        import_paths: Sequence[str] = (),
    ) -> None:
        """Makes an executor for one task.

        Args:
            session_id: The session.
            endpoint: This process's hub.
            provider: Where actors come from.
            placement: How processors are placed.
            here: This actor and process, for people.
            record: Filled in when the task has ended.
            import_paths: Directories the bot's modules are imported from.
        """
        self._session_id = session_id
        self._endpoint = endpoint
        self._provider = provider
        self._placement = placement
        self._here = here
        self._record = record
        self._import_paths = import_paths
        self._plan: Plan | None = None
        self._node: SessionNode | None = None
        self._hosts: dict[int, Host] = {}
        self._attached: dict[str, Host] = {}
        # Those that were ever asked to take a part of the session, and may have one.
        self._asked: dict[str, Host] = {}
        self._starting: list[asyncio.Task[None]] = []
        self._stopping = False
        self._execution: Execution | None = None
        # What bots called on processors before these were placed.
        self._journals: dict[int, list[RecordedCall]] = {}
        self._observe = False
        self._replacements: Replacements | None = None

    async def start(self, execution: Execution) -> None:
        """Places, builds and sets up every processor.

        Raises:
            PlacementError: If a processor cannot be built where it was to run.
        """
        self._execution = execution
        self._record.watch(execution)
        plan = self._plan = make_plan(execution.pipeline, self._placement)
        observer = execution.setup.observer
        self._observe = isinstance(observer, TaskObserver) and bool(observer.observers)
        node = self._node = SessionNode(
            self._session_id,
            self._endpoint,
            observer=observer if isinstance(observer, TaskObserver) else None,
            peer_lost=self._peer_lost,
            recovers=True,
        )
        clock = execution.setup.clock
        node.clock_started_ns = clock.started_at if isinstance(clock, SystemClock) else 0
        for placed in plan.processors:
            node.add_local(placed.pid, placed.processor)
        node.join()
        # Losses are dealt with from here on; successors are made when the way to them is known.
        replacements = self._replacements = Replacements(
            session_id=self._session_id,
            node=node,
            plan=plan,
            provider=self._provider,
            execution=execution,
            hosts=self._hosts,
            attached=self._attached,
            attach=self._attach,
            ask=self._ask,
        )
        try:
            async with asyncio.timeout(ATTACH_DEADLINE_SECS):
                await self._acquire(plan)
                for placed in plan.moved:
                    self._journals[placed.pid] = list(placed.processor._journal or [])
                await self._attach(plan.moved)
                for placed in plan.moved:
                    node.add_twin(placed.pid, placed.processor, self._hosts[placed.pid].uri)
                await node.open_edges()
                await self._all(self._open_edges_at(uri) for uri in list(self._attached))
        except ChannelError as error:
            raise PlacementError(f"an actor of the session cannot be reached: {error}") from error
        except TimeoutError as error:
            raise PlacementError(
                f"the actors of the session were not ready within {ATTACH_DEADLINE_SECS:.0f} s"
            ) from error
        replacements.begin()
        await execution.pipeline.setup(execution.setup)

    async def _open_edges_at(self, uri: str) -> None:
        assert self._node is not None
        try:
            await self._ask(uri, "open_edges")
        except ChannelError as error:
            if not is_loss(error):
                raise
            self._node.peer_failed(uri, error)

    @property
    def cancel_secs(self) -> float:
        """How long a cancellation of the task may take; 0 if it does not run."""
        return self._execution.cancel_secs if self._execution is not None else 0.0

    @property
    def recoveries(self) -> list[RecoveryRecord]:
        """The replacements of processors in the running session."""
        return self._replacements.records if self._replacements is not None else []

    async def evacuate(self, uris: Sequence[str], reason: str, deadline_secs: float) -> list[str]:
        """Has the processors of some actors run in others.

        Args:
            uris: The actors.
            reason: Why, for people.
            deadline_secs: How long it may take.

        Returns:
            Names of processors that could not be moved.
        """
        if self._replacements is None:
            return []
        return await self._replacements.move(uris, reason, deadline_secs)

    async def stop(self, *, cleanup: bool) -> None:
        """Ends the session in every process and gives the actors back."""
        execution, node, plan = self._execution, self._node, self._plan
        if execution is None or node is None or plan is None:
            return
        self._stopping = node.ending = True
        if self._replacements is not None:
            await self._replacements.aclose()
        # If this is cancelled, abort() does the rest.
        failure: Exception | None = None
        if cleanup:
            try:
                await execution.pipeline.cleanup()
            except Exception as error:  # noqa: BLE001 - raised below: nothing may stay in the actors
                failure = error
        statistics: dict[int, ProcessorStatistics] = {}
        await self._detach(statistics)
        await node.leave()
        await self._provider.release(self._session_id)
        self._note_end(plan, statistics)
        if failure is not None:
            raise failure

    def tasks(self) -> Iterable[asyncio.Task[Any]]:
        """What runs here for the session, beside its processors."""
        found: set[asyncio.Task[Any]] = {task for task in self._starting if not task.done()}
        if self._replacements is not None:
            found |= self._replacements.tasks
        return found | self._node.tasks if self._node is not None else found

    def hurry(self, secs: float) -> None:
        """Tells the session's parts in actors how long they still have."""
        if self._node is not None and not self._node.closed:
            for uri in self._asked:
                if not self._node.is_lost(uri):
                    self._node.notify(uri, "end", [secs])

    async def abort(self, secs: float) -> None:
        """Leaves the actors; one that does not say that it has ended its part counts as stuck."""
        node, plan = self._node, self._plan
        if node is None or plan is None:
            return
        statistics: dict[int, ProcessorStatistics] = {}
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_SHARE * secs):
                    await self._detach_from_all(statistics)
            stuck = [host for uri, host in self._asked.items() if not node.is_lost(uri)]
            for host in stuck:
                logger.error(
                    "actor does not answer: the session ends without it",
                    session_id=self._session_id,
                    actor=host.description,
                )
            await node.leave(0.0)
            # It hears of it even if there is no time for its answer.
            await self._provider.release(self._session_id, stuck)
        finally:
            self._note_end(plan, statistics)

    def _note_end(self, plan: Plan, statistics: Mapping[int, ProcessorStatistics]) -> None:
        """Makes the record of a session that has ended, once."""
        if self._execution is None:
            return
        if self._replacements is not None:
            self._record.recoveries += self._replacements.records
        for placed in plan.workers:
            seen = statistics.get(placed.pid, ProcessorStatistics())
            seen.add(placed.processor.statistics)
            host = self._hosts.get(placed.pid)
            self._record.processors.append(
                ProcessorRecord(
                    name=placed.processor.name,
                    where=host.description if host is not None else self._here,
                    why=placed.why,
                    statistics=seen,
                )
            )
        self._execution = self._node = self._replacements = None

    async def _acquire(self, plan: Plan) -> None:
        moved = plan.moved

        async def acquire() -> None:
            hosts = await self._provider.acquire(self._session_id, moved)
            self._hosts.update(zip((placed.pid for placed in moved), hosts, strict=True))

        if moved:
            await self._all([acquire()])

    async def _attach(self, moved: Sequence[PlacedProcessor]) -> None:
        """Builds processors in their actors; in the place of others, if the session runs."""
        assert self._execution is not None
        assert self._node is not None
        setup, node = self._execution.setup, self._node
        assert self._replacements is not None
        incarnation = self._replacements.attempts
        by_host: dict[str, list[PlacedProcessor]] = {}
        for placed in moved:
            by_host.setdefault(self._hosts[placed.pid].uri, []).append(placed)
        classes = pickle_bot_classes() if by_host else []

        async def one(uri: str, group: list[PlacedProcessor]) -> None:
            host = self._asked[uri] = self._hosts[group[0].pid]
            await host.attach(
                AttachSpec(
                    session_id=self._session_id,
                    home_uri=self._endpoint.uri,
                    clock_started_ns=self._clock_started_ns(),
                    watchdog_timers_enabled=setup.watchdog_timers_enabled,
                    observe=self._observe,
                    processors=[self._spec(placed, incarnation) for placed in group],
                    classes=classes,
                    import_paths=list(self._import_paths),
                    pipecat=aliases.mode(),
                    recovers=True,
                    absent=node.lost_uris,
                    incarnation=incarnation,
                )
            )
            self._attached[uri] = host

        async def one_or_its_successor(uri: str, group: list[PlacedProcessor]) -> None:
            try:
                await one(uri, group)
            except ActorGoneError as error:
                if incarnation:
                    raise
                node.peer_failed(uri, error)

        await self._all(one_or_its_successor(uri, group) for uri, group in by_host.items())

    async def _all(self, steps: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Runs steps of the start side by side, until all are done or one fails.

        An actor cannot be kept from doing what it was asked to: what is not done then goes on, and
        stop() waits for it.
        """
        tasks = [asyncio.get_running_loop().create_task(step) for step in steps]
        self._starting += tasks
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()

    def _spec(self, placed: PlacedProcessor, incarnation: int) -> HostedSpec:
        assert self._node is not None
        processor = placed.processor
        calls = list(self._journals[placed.pid])
        if isinstance(processor._relay, EdgeRelay):
            calls += processor._relay.lasting
        journal = [[call.method, list(call.args), call.kwargs] for call in calls]
        with self._node.references.lasting():  # handlers, above all
            encoded = codec.encode_value(journal, self._node.references)
        return HostedSpec(
            pid=placed.pid,
            name=processor.name,
            obj_id=processor.id,
            blueprint=placed.blueprint,
            journal=encoded,
            previous=self._neighbour(processor._prev),
            next=self._neighbour(processor._next),
            inherits=self._inheritance(placed.pid) if incarnation else None,
        )

    def _inheritance(self, pid: int) -> Inheritance:
        assert self._node is not None
        assert self._execution is not None
        started = self._execution.start_frame()
        frame = self._node.encoder.frame(started) if started is not None else None
        reached_end = self._execution.has_started()
        return Inheritance(frame, reached_end, self._node.kept.get(pid, KeptState()))

    def _neighbour(self, processor: FrameProcessor | None) -> Neighbour | None:
        assert self._node is not None
        if processor is None:
            return None
        pid = self._node.processor_number(processor)
        if pid is None:
            return None
        host = self._hosts.get(pid)
        return Neighbour(pid, processor.name, host.uri if host else self._endpoint.uri)

    def _clock_started_ns(self) -> int:
        assert self._node is not None
        return self._node.clock_started_ns

    async def _detach(self, statistics: dict[int, ProcessorStatistics]) -> None:
        """Ends the session's part in the actors; adds what they have counted, by processor."""
        if self._starting:
            _, late = await asyncio.wait(self._starting, timeout=ASK_DEADLINE_SECS)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._starting, return_exceptions=True)
        await self._detach_from_all(statistics)

    async def _detach_from_all(self, statistics: dict[int, ProcessorStatistics]) -> None:
        async def one(uri: str, host: Host) -> None:
            assert self._node is not None
            if self._node.is_lost(uri):
                return
            try:
                counted = await self._ask(uri, "detach")
                self._asked.pop(uri, None)
                for pid, plain in counted.items():
                    found = statistics.setdefault(pid, ProcessorStatistics())
                    found.add(ProcessorStatistics.from_plain(plain))
            except (
                ChannelRefused,
                RemoteCallError,
            ):  # it has ended it already, or finds out that it must not begin
                self._asked.pop(uri, None)
            except ChannelError as error:
                logger.warning(
                    "actor did not end its part of the session",
                    session_id=self._session_id,
                    actor=host.description,
                    error=str(error),
                )

        await asyncio.gather(*(one(uri, host) for uri, host in self._asked.items()))

    async def _ask(self, uri: str, what: str, body: list[Any] | None = None) -> Any:
        assert self._node is not None
        return await self._node.request(uri, what, body or [], deadline_secs=ASK_DEADLINE_SECS)

    def _peer_lost(self, uri: str, error: Exception) -> None:
        if self._replacements is not None and not self._stopping:
            self._replacements.lost(uri, error)

    def note_error(self, error: ErrorFrame) -> None:
        """Takes note of an error of the pipeline."""
        self._record.note(error)
