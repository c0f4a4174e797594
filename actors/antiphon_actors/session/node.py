"""One session in one process: its processors here, and the ways to those elsewhere."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from loguru import logger

from antiphon.clocks.system_clock import SystemClock
from antiphon.frames import codec
from antiphon.frames.frames import CancelFrame, EndFrame, Frame, StopFrame
from antiphon.observers.base_observer import FramePushed
from antiphon.pipeline.task_observer import TaskObserver
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.processors.relay import is_relayed
from antiphon.processors.statistics import ProcessorStatistics
from antiphon.utils.tracing import trace_state
from antiphon.utils.tracing.service_span import ServiceSpan
from antiphon_actors.channels import (
    Acceptance,
    ChannelBroken,
    ChannelError,
    ChannelRefused,
    Link,
    StreamReceiver,
)
from antiphon_actors.session.edge import EdgeInbox, EdgeRelay, RemoteProcessor
from antiphon_actors.session.endpoint import Endpoint, pack
from antiphon_actors.session.incoming import Incoming
from antiphon_actors.session.invocations import CallCounter, Invocations
from antiphon_actors.session.kept import KeptState
from antiphon_actors.session.receivers import ObservedReceiver
from antiphon_actors.session.references import SessionReferences

LEAVE_DEADLINE_SECS = 2.0
"""How long calls of a session that has ended may resist their cancellation."""

PeerLost = Callable[[str, Exception], None]
EndPart = Callable[[float], None]


class SessionNode:
    """The part of a session that is in this process.

    The same at home, where the bot program runs, and in every actor.
    """

    def __init__(
        self,
        session_id: str,
        endpoint: Endpoint,
        *,
        observer: TaskObserver | None = None,
        peer_lost: PeerLost,
        setup: Callable[[], FrameProcessorSetup] | None = None,
        control: Mapping[str, Callable[[Any], Awaitable[Any]]] | None = None,
        end: EndPart | None = None,
        home_uri: str | None = None,
        classes: Mapping[str, type[Any]] | None = None,
        recovers: bool = False,
    ) -> None:
        """Makes the session's part; join() lets traffic in.

        Args:
            session_id: The session.
            endpoint: The process's hub.
            observer: Told of pushes that cross into this process (at home).
            peer_lost: Told, once, of a process of the session that is gone.
            setup: What processors that run here get when their twin is set up (in an actor).
            control: What else home may ask for, by name (in an actor).
            end: Ends the part of the session that is here within so many seconds (in an actor).
            home_uri: The process that runs the bot (in an actor).
            classes: The bot's own classes that travel, by their name on the wire (in an actor,
                where several bots may have classes of the same name).
            recovers: Whether processors of lost processes get successors.
        """
        self.session_id = session_id
        self.context = contextvars.copy_context()
        self.references = SessionReferences(self)
        self.encoder = codec.Encoder(self.references)
        self.decoder = codec.Decoder(self.references, classes)
        self._endpoint = endpoint
        self.observer = observer
        self._peer_lost = peer_lost
        self._setup = setup
        self._control = dict(control or {})
        self._end = end
        self.home_uri = home_uri
        self.recovers = recovers
        self._classes = classes
        self._processors: dict[int, FrameProcessor] = {}
        self._numbers: dict[int, int] = {}
        self._links: dict[str, Link] = {}
        # Processes whose link is gone, and those that were reported as failing.
        self._lost: set[str] = set()
        self._failed: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._serving: set[asyncio.Task[Any]] = set()  # bounded by the calls of the links
        self.incoming = Incoming(self)
        # At home: what reports pushes, one for each other process of the session.
        self._observed: list[tuple[Link, StreamReceiver]] = []
        self._calls = CallCounter()
        self._invocations = Invocations(self._carry_out)
        # At home: what successors are to be told, by the processor's number.
        self.kept: dict[int, KeptState] = {}
        self._closed = False
        # At home: whether the session is about to end, so that no process joins it any more.
        self.ending = False
        self.clock_started_ns = 0

    @property
    def closed(self) -> bool:
        """Whether the session has left this process."""
        return self._closed

    @property
    def process(self) -> str:
        """Name of this process: the address of its hub."""
        return self._endpoint.uri

    # -- processors ----------------------------------------------------------------------------

    def add_local(self, pid: int, processor: FrameProcessor) -> None:
        """Makes a processor that runs here known."""
        self._processors[pid] = processor
        self._numbers[id(processor)] = pid

    def add_twin(self, pid: int, twin: FrameProcessor, uri: str) -> None:
        """Sends what a processor of the bot is given to where it runs from now on."""
        self.add_local(pid, twin)
        inbox = twin._inbox = EdgeInbox(self, pid, uri, twin)
        relay = twin._relay = EdgeRelay(self, pid, inbox, twin)
        vars(twin)["push_frame"] = relay.push_frame
        twin._journal = None

    def stub(self, pid: int, name: str, uri: str) -> FrameProcessor:
        """Stands for a processor of another process; made once per processor."""
        known = self._processors.get(pid)
        if known is not None:
            return known
        stub = RemoteProcessor(name=name)
        stub._inbox = EdgeInbox(self, pid, uri, stub)
        self.add_local(pid, stub)
        return stub

    def processor_number(self, processor: FrameProcessor) -> int | None:
        """The number of a processor of this session."""
        return self._numbers.get(id(processor))

    def processor(self, pid: int, name: str) -> FrameProcessor:
        """The processor of that number, or something that has its name."""
        known = self._processors.get(pid)
        if known is None:
            known = RemoteProcessor(name=name)
            self.add_local(pid, known)
        return known

    def dropped_on_the_way(self) -> dict[int, ProcessorStatistics]:
        """What was dropped here of the frames for processors elsewhere, by their numbers."""
        return {
            pid: processor.statistics
            for pid, processor in self._processors.items()
            if isinstance(processor._inbox, EdgeInbox)
            and (processor.statistics.audio_dropped or processor.statistics.frames_dropped)
        }

    async def open_edges(self) -> None:
        """Opens every stream frames will take out of this process."""
        for processor in list(self._processors.values()):
            for neighbour, direction in (
                (processor._next, FrameDirection.DOWNSTREAM),
                (processor._prev, FrameDirection.UPSTREAM),
            ):
                # A twin pushes nothing here; what it pushes leaves from where it runs.
                runs_here = not isinstance(processor._inbox, EdgeInbox)
                if runs_here and neighbour is not None and isinstance(neighbour._inbox, EdgeInbox):
                    await neighbour._inbox.open_as_neighbour(direction)

    # -- life ----------------------------------------------------------------------------------

    def join(self) -> None:
        """Lets the session's frames and calls into this process."""
        self._endpoint.join(self)

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """What runs here for the session, beside its processors."""
        return self._tasks | self._serving

    async def leave(self, deadline_secs: float = LEAVE_DEADLINE_SECS) -> None:
        """Ends the session's part in this process: streams, calls, tasks, references.

        Args:
            deadline_secs: How long its calls and tasks may resist their cancellation.
        """
        self._closed = True
        self._endpoint.leave(self)
        links, self._links = self._links, {}
        for link in links.values():
            link.remove_closed_callback(self._link_closed)
        tasks = self.tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=deadline_secs)
        for processor in self._processors.values():
            if isinstance(processor._inbox, EdgeInbox):
                processor._inbox.close()
                processor._inbox = processor._local_inbox
                processor._relay = None
                vars(processor).pop("push_frame", None)
        if self.home_uri is None:
            # An actor that is blocked has not ended them.
            self.incoming.stop()
            for link, receiver in self._observed:
                link.stop_stream(receiver, "the session is over")
            self._observed.clear()
        self.references.clear()
        self._invocations.clear()
        self.incoming.clear()
        self._let_go()

    def _let_go(self) -> None:
        """Refers to nothing that refers to this, so that all of it is freed without a collector."""
        self._processors.clear()
        self._numbers.clear()
        self._control.clear()
        self.kept.clear()
        self._setup = self._end = None
        self._peer_lost = _ignore

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs something in the background; it ends with the session at the latest."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    def _spawned_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("background task failed", session_id=self.session_id)

    # -- links ---------------------------------------------------------------------------------

    async def link(self, uri: str) -> Link:
        """The link to another process of the session.

        Raises:
            ChannelError: If that process is gone or cannot be reached.
        """
        link = self._links.get(uri)
        if link is not None:
            return link
        if uri not in self._lost and not self._closed:
            try:
                link = await self._endpoint.link(uri)
            except ChannelRefused as error:  # one that is ending
                raise ChannelBroken(str(error)) from error
        if link is None or uri in self._lost or self._closed:
            raise ChannelBroken(f"the process at {uri} is no longer part of the session")
        if uri not in self._links:
            self._links[uri] = link
            link.add_closed_callback(self._link_closed)
        return link

    @property
    def lost_uris(self) -> tuple[str, ...]:
        """The processes of the session that are gone."""
        return tuple(self._lost)

    def is_lost(self, uri: str) -> bool:
        """Whether a process of the session is gone."""
        return uri in self._lost

    def peer_failed(self, uri: str, error: Exception) -> None:
        """Takes note, once, that a process cannot take part any more."""
        if self._closed or uri in self._failed:
            return
        self._failed.add(uri)
        self._peer_lost(uri, error)
        if self.home_uri not in (None, uri):
            # Home may have a sound link to that process, and knows what to do.
            self.notify(self.home_uri, "failed", [uri, str(error)])

    def expel(self, uri: str) -> None:
        """Has nothing more to do with a process that was replaced, whether or not it lives."""
        self._failed.add(uri)
        self._lost.add(uri)
        link = self._links.pop(uri, None)
        if link is not None:
            link.remove_closed_callback(self._link_closed)

    def welcome(self, uri: str) -> None:
        """Takes a process into the session, perhaps again."""
        self._failed.discard(uri)
        self._lost.discard(uri)

    def edges(self, uri: str | None = None) -> list[EdgeInbox]:
        """The ways to processors elsewhere, or to those of one process."""
        inboxes = [processor._inbox for processor in self._processors.values()]
        edges = [inbox for inbox in inboxes if isinstance(inbox, EdgeInbox)]
        return [edge for edge in edges if uri is None or edge.uri == uri]

    async def relink(self, moved: Mapping[int, str]) -> None:
        """Sends what is for some processors to where they run now.

        Args:
            moved: By number of the processor, the address of its process.

        Raises:
            ChannelError: One of these cannot be reached.
        """
        steps = []
        for pid, uri in moved.items():
            processor = self._processors.get(pid)
            if processor is not None and isinstance(processor._inbox, EdgeInbox):
                if processor._inbox.uri != uri:
                    self.expel(processor._inbox.uri)
                self.welcome(uri)
                steps.append(processor._inbox.relink(uri))
        await asyncio.gather(*steps)

    def give_up(self, uri: str, error: ChannelError) -> None:
        """Nobody takes the place of a lost process: what it was to get is lost, here and elsewhere."""
        for edge in self.edges(uri):
            edge.give_up(error)
        if self.home_uri is None:
            for other in list(self._links):
                self.notify(other, "given_up", [uri, str(error)])

    @property
    def flushed(self) -> bool:
        """Whether all that this process had to say at home is out of it."""
        home = self._links.get(self.home_uri) if self.home_uri is not None else None
        return (home is None or home.flushed) and all(
            edge.flushed for edge in self.edges(self.home_uri)
        )

    def _link_closed(self, link: Link, reason: Exception | None) -> None:
        for uri in [uri for uri, known in self._links.items() if known is link]:
            del self._links[uri]
            self._lost.add(uri)
            self.peer_failed(uri, reason or ChannelBroken("the link was closed"))
            if self._closed:
                return
            if not self.recovers:
                self.give_up(uri, ChannelBroken(str(reason or "the link was closed")))

    async def request(
        self,
        uri: str,
        method: str,
        body: list[Any],
        *,
        deadline_secs: float | None,
        lasting: bool = False,
    ) -> Any:
        """Asks another process of the session and returns its answer.

        Cancelling the caller cancels what runs there.

        Args:
            uri: The process.
            method: What it is asked for.
            body: The content.
            deadline_secs: How long it may take; None: as long as it likes.
            lasting: Whether the functions and objects in the body stay reachable for the whole session.
        """
        link = await self.link(uri)
        payload = self._encode(body, lasting=lasting)
        answer = await link.call(
            method, pack(self.session_id, payload), deadline_secs=deadline_secs
        )
        return codec.decode_value(answer, self.references, classes=self._classes)

    def notify(self, uri: str, method: str, body: list[Any]) -> None:
        """Tells another process of the session something; order is kept."""
        payload = pack(self.session_id, self._encode(body, lasting=method == "post"))
        link = self._links.get(uri)
        if link is not None:
            try:
                link.notify(method, payload)
            except ChannelError as error:
                self.peer_failed(uri, error)
            return
        self.spawn(self._notify_first(uri, method, payload))

    async def _notify_first(self, uri: str, method: str, payload: bytes) -> None:
        (await self.link(uri)).notify(method, payload)

    async def invoke(
        self, process: str, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Carries out a function that another process keeps, and returns its result."""
        key = list(self._calls.key(number))
        return await self.request(process, "invoke", [key, list(args), kwargs], deadline_secs=None)

    def _encode(self, body: list[Any], *, lasting: bool) -> bytes:
        """What goes into a message.

        Args:
            body: The content.
            lasting: Whether the functions and objects in it stay reachable for the whole session:
                they may be handlers that are called much later.
        """
        if not lasting:
            return codec.encode_value(body, self.references)
        with self.references.lasting():
            return codec.encode_value(body, self.references)

    def _decode(self, data: bytes) -> Any:
        return codec.decode_value(data, self.references, classes=self._classes)

    # -- what other processes ask --------------------------------------------------------------

    async def serve(self, method: str, payload: bytes) -> bytes:
        """Answers a request of another process of the session.

        The bot's code runs with the bot's context variables, not with the hub's. Cancelling the
        caller cancels it, and so does the end of the session.
        """
        if method == "join" and self.home_uri is None:
            (uri,) = _parts(self._decode(payload), str)
            if self.ending or uri in self._lost:
                raise ChannelRefused(f"session {self.session_id} is over there")
            return codec.encode_value(None, None)
        if method in self._control:
            return codec.encode_value(await self._control[method](self._decode(payload)), None)
        if method == "invoke":
            key, args, kwargs = _parts(self._decode(payload), list, list, dict)
            cause, number, count = _parts(key, int, int, int)

            async def invoke() -> bytes:
                function = self.references.function(number)
                result = await self._invoke_here(function, args, kwargs)
                return codec.encode_value(result, self.references)

            return await self._invocations.run((cause, number, count), invoke)
        return await self._carry_out(self._answer(method, payload))

    def _carry_out(self, call: Coroutine[Any, Any, bytes]) -> asyncio.Task[bytes]:
        task = asyncio.get_running_loop().create_task(call, context=self.context.copy())
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return task

    async def _answer(self, method: str, payload: bytes) -> bytes:
        if method == "call":
            pid, name, args, kwargs = _parts(self._decode(payload), int, str, list, dict)
            if name == "setup" and self._setup is not None:
                args = [self._setup()]
            result = self._relayed_method(pid, name)(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
        else:
            raise ChannelRefused(f"unknown request {method!r}")
        return codec.encode_value(result, self.references)

    async def _invoke_here(
        self, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        try:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result
        except Exception as error:
            # Where it was asked for, only its text is known; the place is in the bot's file.
            logger.opt(exception=error).error(
                "function called by a processor failed",
                session_id=self.session_id,
                function=getattr(function, "__qualname__", type(function).__qualname__),
            )
            raise

    def noticed(self, method: str, payload: bytes) -> None:
        """Takes a notice of another process of the session."""
        if method == "post":
            pid, name, args, kwargs = _parts(self._decode(payload), int, str, list, dict)
            bound = self._relayed_method(pid, name)
            if inspect.iscoroutinefunction(inspect.unwrap(bound)):
                raise ChannelRefused(f"{name!r} has to be awaited")
            bound(*args, **kwargs)
        elif method == "setting" and self.home_uri is None:
            pid, slot, urgent, seq, frame = _parts(
                self._decode(payload), int, int, bool, int, bytes
            )
            self.kept_of(pid).add_setting((slot, urgent, seq), frame)
        elif method == "state" and self.home_uri is None:
            positions, states = _parts(self._decode(payload), dict, dict)
            for pid, state in states.items():
                self.kept_of(pid).set_state(state, positions)
        elif method == "end" and self._end is not None:
            (secs,) = _parts(self._decode(payload), float)
            self._end(secs)
        elif method == "given_up" and self.home_uri is not None:
            uri, reason = _parts(self._decode(payload), str, str)
            self.give_up(uri, ChannelBroken(reason))
        elif method == "failed" and self.home_uri is None:
            uri, reason = _parts(self._decode(payload), str, str)
            self.peer_failed(uri, ChannelBroken(reason))
        elif method == "span" and self.home_uri is None:
            (plain,) = _parts(self._decode(payload), list)
            report = self.context.run(trace_state.current).report
            if report is not None:
                try:
                    report(ServiceSpan.from_plain(plain))
                except ValueError as error:
                    raise ChannelRefused("malformed message") from error
        elif method == "pass_on" and self.home_uri is None:
            pid, direction, frame = _parts(self._decode(payload), int, int, Frame)
            self.spawn(self.pass_on(pid, frame, FrameDirection(direction)))
        else:
            raise ChannelRefused(f"unknown notice {method!r}")

    async def pass_on(self, pid: int, frame: Frame, direction: FrameDirection) -> None:
        """Gives a frame that ends a pipeline to the processor behind one that is lost."""
        if not isinstance(frame, (CancelFrame, EndFrame, StopFrame)):
            raise ChannelRefused(f"a {type(frame).__name__} is not passed on")
        if self.home_uri is not None:
            # Only home knows the whole pipeline.
            self.notify(self.home_uri, "pass_on", [pid, direction.value, frame])
            return
        lost = self._processors.get(pid)
        behind = lost and (lost._next if direction is FrameDirection.DOWNSTREAM else lost._prev)
        if behind is not None:
            await behind.queue_frame(frame, direction)

    def _relayed_method(self, pid: int, name: str) -> Callable[..., Any]:
        """A method of a processor that runs here; at home nobody has to be called from afar."""
        processor = self._processors.get(pid)
        method = getattr(type(processor), name, None)
        runs_here = processor is not None and not isinstance(processor._inbox, EdgeInbox)
        if self.home_uri is None or not runs_here or not is_relayed(method):
            raise ChannelRefused(f"processor {pid} has no method {name!r} to be called from afar")
        bound: Callable[..., Any] = getattr(processor, name)
        return bound

    def kept_of(self, pid: int) -> KeptState:
        """What a successor of a processor is to be told.

        Raises:
            ChannelRefused: There is no such processor.
        """
        if pid not in self._processors:
            raise ChannelRefused(f"there is no processor {pid}")
        return self.kept.setdefault(pid, KeptState())

    def receiver(
        self, link: Link, kind: str, pid: int, direction: int, extra: int
    ) -> StreamReceiver | Acceptance:
        """What takes the frames of a new stream into this process.

        Raises:
            ChannelRefused: If the stream goes nowhere here.
        """
        if kind == "o" and self.observer is not None:
            observed = ObservedReceiver(self)
            self._observed.append((link, observed))
            return observed
        processor = self._processors.get(pid)
        if kind != "f" or processor is None or isinstance(processor._inbox, EdgeInbox):
            raise ChannelRefused(f"processor {pid} does not run here")
        return self.incoming.accept(link, processor, pid, direction, extra)

    def observed(self, pushed: FramePushed) -> None:
        """Lets the observers at home see a push."""
        if self.observer is not None:
            self.observer.observe(pushed)

    def decode_observed(self, payload: bytes) -> FramePushed:
        """A push that another process reports."""
        source, destination, direction, sent_ns, data = _parts(
            codec.decode_value(payload, None), int, int, int, int, bytes
        )
        frame = self.decode_frame(data)
        return FramePushed(
            self.processor(source, f"processor {source}"),
            self.processor(destination, f"processor {destination}"),
            frame,
            FrameDirection(direction),
            self.pipeline_time(sent_ns),
        )

    def decode_frame(self, data: bytes) -> Frame:
        """The frame that another process has sent.

        Raises:
            CodecError: If it is none, or of a class this process does not know.
        """
        return self.decoder.frame(data)

    def decode_journal(self, data: bytes) -> list[tuple[str, list[Any], dict[str, Any]]]:
        """The calls a bot made on a processor before it was placed: method and arguments."""
        return [(method, args, kwargs) for method, args, kwargs in self._decode(data)]

    def pipeline_time(self, monotonic_ns: int) -> int:
        """A time of the machine's clock on the pipeline's clock."""
        return max(0, monotonic_ns - self.clock_started_ns) if self.clock_started_ns else 0

    def clock(self) -> SystemClock:
        """The pipeline's clock, for processors that run here."""
        clock = SystemClock()
        clock.start_at(self.clock_started_ns)
        return clock


def _ignore(uri: str, error: Exception) -> None:
    """The session is over."""


def _parts(body: Any, *kinds: type[Any]) -> list[Any]:
    """The parts of a message, checked.

    Raises:
        ChannelRefused: If the message is not made of these.
    """
    if (
        not isinstance(body, list)
        or len(body) != len(kinds)
        or not all(isinstance(part, kind) for part, kind in zip(body, kinds, strict=True))
    ):
        raise ChannelRefused("malformed message")
    return body
