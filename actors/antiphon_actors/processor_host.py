"""Hosts processors of one or many sessions in a process of its own."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loguru import logger

from antiphon.compat import aliases
from antiphon.errors import ConfigError, PlacementError
from antiphon.frames import codec
from antiphon.metrics.metrics import MetricsData
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.monitors import report_watchdog
from antiphon.pipeline.task_observer import TaskObserver
from antiphon.processors.frame_processor import FrameProcessor, FrameProcessorSetup
from antiphon.utils.asyncio.task_manager import TaskManagerParams
from antiphon.utils.places import places_of
from antiphon.utils.tracing import trace_state
from antiphon.utils.tracing.service_span import ServiceSpan
from antiphon_actors.channels import ChannelError, ChannelRefused, OutStream, RemoteCallError
from antiphon_actors.hosted import Hosted
from antiphon_actors.placement.movability import unpickle_blueprint
from antiphon_actors.process_prefix import claim_process_prefix
from antiphon_actors.session.edge import EdgeInbox
from antiphon_actors.session.endpoint import Endpoint, pack
from antiphon_actors.session.network import Network
from antiphon_actors.session.node import SessionNode
from antiphon_actors.session.spec import AttachSpec, HostedSpec
from antiphon_actors.session.state_keeper import StateKeeper
from antiphon_actors.session.succession import ChainedInbox, Succession, Underway
from antiphon_actors.session.wire_types import adopt_bot_classes

JOIN_DEADLINE_SECS = 10.0


class ForwardingObserver(BaseObserver):
    """Reports pushes between processors that do not run at home to the observers there."""

    def __init__(self, node: SessionNode, spec: AttachSpec) -> None:
        super().__init__()
        self._node = node
        self._home_uri = spec.home_uri
        self._home_clock_started_ns = spec.clock_started_ns
        self._stream: OutStream | None = None
        self._lost = False

    async def on_push_frame(self, data: FramePushed) -> None:
        """Sends a push home; home sees for itself what arrives there."""
        inbox = data.destination._inbox
        if self._lost or (isinstance(inbox, EdgeInbox) and inbox.uri == self._home_uri):
            return
        node = self._node
        source = node.processor_number(data.source)
        destination = node.processor_number(data.destination)
        if source is None or destination is None:
            return
        frame = codec.encode(data.frame, node.references)
        payload = codec.encode_value(
            [
                source,
                destination,
                data.direction.value,
                data.timestamp + self._home_clock_started_ns,
                frame,
            ],
            None,
        )
        try:
            if self._stream is None:
                link = await node.link(self._home_uri)
                self._stream = await link.open_stream(pack(node.session_id, "o", 0, 1, 0))
            await self._stream.send(payload, urgent=False)
        except ChannelError as error:  # home is gone, and the session with it
            self._lost = True
            logger.debug("pushes are no longer reported", reason=str(error))

    async def drain(self) -> None:
        """Waits until home has seen everything."""
        if self._stream is not None and not self._lost:
            await self._stream.drain()

    def close(self) -> None:
        """Gives the way home up."""
        if self._stream is not None:
            self._stream.abort()


class ProcessorHost:
    """Builds processors from their blueprints and runs them for their sessions."""

    def __init__(self, name: str, hub_dir: str, network: Network | None = None) -> None:
        """Makes a host; start() opens it.

        Args:
            name: Name of the process, for logs and peers.
            hub_dir: Directory for the socket of its hub.
            network: This node's place among others; None if sessions stay on one node.
        """
        self.prefix = 0
        self._endpoint = Endpoint(name, network)
        self._socket = Path(hub_dir) / f"{name}.sock"
        self._sessions: dict[str, Hosted] = {}

    @property
    def uri(self) -> str:
        """Where other processes reach this one."""
        return self._endpoint.uri

    @property
    def endpoint(self) -> Endpoint:
        """The process's hub."""
        return self._endpoint

    @property
    def session_ids(self) -> list[str]:
        """The sessions that have processors here."""
        return list(self._sessions)

    async def start(self) -> str:
        """Opens the host and returns its hub's URI."""
        self.prefix = claim_process_prefix()
        await self._endpoint.start(f"unix://{self._socket}")
        return self._endpoint.uri

    async def attach(self, spec: AttachSpec) -> None:
        """Builds the processors of a session and lets its frames in.

        Raises:
            PlacementError: If a processor cannot be built; nothing of the session remains then.
        """
        for path in spec.import_paths:
            if path not in sys.path:
                sys.path.append(path)
        try:
            aliases.adopt(spec.pipecat)
        except ConfigError as error:
            raise PlacementError(f"in the actor: {error}") from error
        hosted = self._new_session(spec, adopt_bot_classes(spec.classes))
        for uri in spec.absent:
            hosted.node.expel(uri)
        try:
            # Its end tells that the bot's process is gone, whether or not frames go there.
            home = await hosted.node.link(spec.home_uri)
            _check_goes_on(hosted)
            if spec.clock_started_ns:  # on the clock of this machine
                hosted.node.clock_started_ns += self._endpoint.clock_offset_ns(home)
            if hosted.observer is not None:
                await hosted.observer.start()
            for hosted_spec in spec.processors:
                hosted.processors[hosted_spec.pid] = _build(hosted_spec)
            for pid, processor in hosted.processors.items():
                hosted.node.add_local(pid, processor)
            for hosted_spec in spec.processors:
                _link(hosted, hosted_spec)
            if spec.recovers:
                _prepare_for_loss(hosted, spec)
            for hosted_spec in spec.processors:
                await _replay(hosted, hosted_spec)
                _check_goes_on(hosted)
            hosted.node.spawn(self._join(hosted))
        except BaseException:
            await self.detach(spec.session_id)
            raise

    async def _join(self, hosted: Hosted) -> None:
        """Ends the session's part again if it is over at home: who asked for it did not wait."""
        node = hosted.node
        assert node.home_uri is not None
        try:
            await node.request(
                node.home_uri, "join", [node.process], deadline_secs=JOIN_DEADLINE_SECS
            )
        except (ChannelRefused, RemoteCallError) as error:
            logger.debug("session is over", session_id=node.session_id, reason=str(error))
            hosted.ender.ended()
        except ChannelError as error:  # home's end is told by its link
            logger.debug("home did not answer", session_id=node.session_id, error=str(error))

    async def detach(self, session_id: str) -> Mapping[int, Mapping[str, object]]:
        """Ends a session's part here, whatever state it is in.

        Returns:
            The statistics of each hosted processor, by its number in the session; of others what
            was dropped on the way to them.
        """
        hosted = self._sessions.get(session_id)
        if hosted is None:
            return {}
        hosted.ender.ended()
        await hosted.ender.over.wait()
        return hosted.statistics

    def statistics(self) -> dict[str, object]:
        """Numbers of this process."""
        return {
            "pid": os.getpid(),
            "sessions": len(self._sessions),
            "processors": sum(len(hosted.processors) for hosted in self._sessions.values()),
            "links": self._endpoint.statistics(),
        }

    async def aclose(self) -> None:
        """Ends every session's part and closes the hub."""
        for session_id in list(self._sessions):
            await self.detach(session_id)
        await self._endpoint.aclose()

    def _forget(self, node: SessionNode) -> None:
        hosted = self._sessions.get(node.session_id)
        if hosted is not None and hosted.node is node:
            del self._sessions[node.session_id]

    def _new_session(self, spec: AttachSpec, classes: Mapping[str, type[Any]]) -> Hosted:
        def peer_lost(uri: str, error: Exception) -> None:
            if uri == spec.home_uri:
                logger.warning("the bot's process is gone", session_id=spec.session_id)
                hosted.ender.ended()

        def setup() -> FrameProcessorSetup:
            return FrameProcessorSetup(
                clock=node.clock(),
                task_manager=hosted.tasks,
                observer=hosted.observer,
                watchdog_timers_enabled=spec.watchdog_timers_enabled,
            )

        async def open_edges(_: object) -> None:
            await node.open_edges()
            if hosted.succession is not None:
                hosted.succession.learn()

        async def relink(moved: object) -> None:
            await node.relink(_addresses(moved))

        async def go_on(_: object) -> None:
            if hosted.succession is not None:
                hosted.succession.go_on()

        node = SessionNode(
            spec.session_id,
            self._endpoint,
            peer_lost=peer_lost,
            setup=setup,
            control={
                "open_edges": open_edges,
                "relink": relink,
                "go_on": go_on,
                "detach": lambda _: self.detach(spec.session_id),
            },
            end=lambda secs: hosted.ender.cancel(flows=False, secs=secs),
            home_uri=spec.home_uri,
            classes=classes,
            recovers=spec.recovers,
        )
        node.clock_started_ns = spec.clock_started_ns
        # Services that run here report their spans; home knows the turns, and has the exporter.
        node.context.run(
            trace_state.adopt, trace_state.TraceState(report=_span_reporter(node, spec.home_uri))
        )
        hosted = Hosted(node, lambda: self._forget(node))
        processors = hosted.processors
        hosted.tasks.setup(
            TaskManagerParams(
                loop=asyncio.get_running_loop(),
                enable_watchdog_timers=spec.watchdog_timers_enabled,
                # Not `hosted`, which owns these tasks.
                on_watchdog=lambda task, secs: report_watchdog(processors.values(), task, secs),
            )
        )
        node.join()
        self._sessions[spec.session_id] = hosted
        if spec.observe:
            hosted.forward = ForwardingObserver(node, spec)
            hosted.observer = TaskObserver(observers=[hosted.forward], task_manager=hosted.tasks)
        return hosted


def _check_goes_on(hosted: Hosted) -> None:
    if hosted.is_ending:
        raise PlacementError("the session has ended")


def _span_reporter(node: SessionNode, home_uri: str) -> Callable[[ServiceSpan], None]:
    # Contexts live on in timers of what is long over.
    weak_node = weakref.ref(node)

    def report(span: ServiceSpan) -> None:
        node = weak_node()
        if node is not None and not node.closed:
            node.notify(home_uri, "span", [span.to_plain()])

    return report


def _build(spec: HostedSpec) -> FrameProcessor:
    try:
        blueprint = unpickle_blueprint(spec.blueprint)
        processor = blueprint.cls(*blueprint.args, **blueprint.kwargs)
    except Exception as error:
        last = places_of(error.__traceback__)[-1]
        raise PlacementError(
            f"processor {spec.name} could not be built in its actor: "
            f"{type(error).__name__}: {error} ({last})"
        ) from error
    assert isinstance(processor, FrameProcessor)
    processor._name = spec.name
    processor._id = spec.obj_id
    # Nobody asks here whether it could be built again.
    processor._blueprint = processor._built_state = None
    # Keeps the model, which constructors may have named already.
    metrics = processor._metrics
    metrics.set_core_metrics_data(MetricsData(processor=spec.name, model=metrics._model_name()))
    return processor


def _addresses(moved: object) -> dict[int, str]:
    """Which processors run where now, checked.

    Raises:
        ChannelRefused: It says something else.
    """
    match moved:
        case [[*entries]]:
            found = {}
            for entry in entries:
                match entry:
                    case [int(pid), str(uri)]:
                        found[pid] = uri
                    case _:
                        raise ChannelRefused("malformed message")
            return found
    raise ChannelRefused("malformed message")


def _prepare_for_loss(hosted: Hosted, spec: AttachSpec) -> None:
    """Has home know what a successor would have to; and takes the place of predecessors."""
    hosted.node.incoming.first_number = spec.incarnation << 32
    underway = Underway()
    here = list(hosted.processors.values())
    for processor in here:
        if processor._prev in here or processor._next in here:
            processor._replace_inbox(ChainedInbox(processor, underway))
    inherited = {each.pid: each.inherits for each in spec.processors if each.inherits is not None}
    if inherited:
        hosted.succession = Succession(hosted.node, hosted.processors, inherited)
    keeper = StateKeeper(hosted.node, spec.home_uri, hosted.processors, underway, hosted.succession)
    for pid in hosted.processors:
        keeper.watch(pid)


def _link(hosted: Hosted, spec: HostedSpec) -> None:
    processor = hosted.processors[spec.pid]
    if spec.previous is not None:
        processor._prev = hosted.node.stub(spec.previous.pid, spec.previous.name, spec.previous.uri)
    if spec.next is not None:
        processor._next = hosted.node.stub(spec.next.pid, spec.next.name, spec.next.uri)


async def _replay(hosted: Hosted, spec: HostedSpec) -> None:
    """Repeats what the bot called on the processor between building and starting it."""
    processor = hosted.processors[spec.pid]
    processor._journal = None
    for method, args, kwargs in hosted.node.decode_journal(spec.journal):
        result = getattr(processor, method)(*args, **kwargs)
        if inspect.isawaitable(result):
            await result
