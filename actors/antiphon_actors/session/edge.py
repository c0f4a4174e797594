"""The way from a process to a processor that runs in another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.errors import PlacementError
from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    StartFrame,
    StartInterruptionFrame,
    StopFrame,
    SystemFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.processors.inbox import CLOSED_INBOX
from antiphon.processors.lane import FrameCallback
from antiphon.processors.relay import RecordedCall, is_lasting
from antiphon.utils.asyncio.receipts import current_receipt
from antiphon_actors.channels.errors import (
    ChannelBusy,
    ChannelError,
    ChannelRefused,
    RemoteCallError,
)
from antiphon_actors.channels.out_stream import OutStream
from antiphon_actors.session.endpoint import pack
from antiphon_actors.session.kept import BESIDE, INSTEAD, NOT_GONE

if TYPE_CHECKING:
    from antiphon_actors.session.node import SessionNode

_ENDS = (CancelFrame, EndFrame, StopFrame)
_SPECIAL = (StartFrame, StartInterruptionFrame, *_ENDS)
_DOWNSTREAM = FrameDirection.DOWNSTREAM

UPSTREAM_LIMIT = 10_000
"""Upstream frames that may wait for one processor; one more, and it counts as failed."""

AUDIO_HELD = 10_000
"""Frames of input audio kept for a processor that takes none, the newest."""

CALL_DEADLINE_SECS = 30.0
"""For calls of the framework's own (setup, cleanup)."""

MOVE_DEADLINE_SECS = 30.0
"""How long calls and new streams wait for a lost processor's successor; frames wait longer."""

PREDECESSOR_SECS = 0.3
"""How long a processor's successor waits until the last words of that one have arrived."""

_REFUSED_PAUSE_SECS = 0.005

POSTS_KEPT = 1_000
"""Calls that change a processor and are repeated on its successor; the oldest are forgotten."""


def is_loss(error: BaseException | None) -> bool:
    """Whether an error means that a process is gone or out of reach; not that it said no."""
    said_no = (ChannelRefused, ChannelBusy, RemoteCallError)
    return isinstance(error, ChannelError) and not isinstance(error, said_no)


class RemoteProcessor(FrameProcessor):
    """Stands for a processor of another process as a neighbour of one that runs here."""

    pinned_reason = "it stands for a processor that runs elsewhere"

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        self._replace_inbox(CLOSED_INBOX)


class EdgeInbox:
    """Takes frames for a processor in another process (``antiphon.processors.inbox.Inbox``).

    Input audio comes whether or not it is taken. For a process that takes none it is kept here, and
    the oldest of it is dropped.

    When that process is gone, frames wait for the processor's successor (`relink`). If there is none,
    those that end a pipeline pass on to the neighbour behind it, so that the rest of the session still
    ends; others are counted and lost with it.
    """

    def __init__(self, node: SessionNode, pid: int, uri: str, owner: FrameProcessor) -> None:
        self._node = node
        self._pid = pid
        self.uri = uri
        self._owner = owner
        self._encoder = node.encoder
        # At home nothing is done again, so nobody asks what caused a frame.
        self._names_causes = node.home_uri is not None
        # Nobody takes the place of home within a session.
        self._retains = uri != node.home_uri
        self._moved = asyncio.Event()
        self._given_up: ChannelError | None = None
        self._neighbour = dict.fromkeys(FrameDirection, False)
        self._down: OutStream | None = None
        self._up: OutStream | None = None
        self._opening = asyncio.Lock()
        # Upstream frames that wait for credit, their tags and causes; bounded by UPSTREAM_LIMIT.
        self._behind: deque[tuple[bytes, Frame | bool, int, int]] = deque()
        self._catching_up: asyncio.Task[Any] | None = None
        self._audio: deque[tuple[bytes, int, int]] = deque()  # bounded by AUDIO_HELD
        self._releasing: asyncio.Task[Any] | None = None
        self._dropping = False
        self.lost = 0

    async def open(self, direction: FrameDirection) -> OutStream:
        """Opens the stream of a direction, once.

        Raises:
            ChannelError: The processor's process is gone, and nobody has taken its place.
        """
        while True:
            uri = self.uri
            try:
                async with self._opening:
                    return self._stream(direction) or await self._open(uri, direction)
            except ChannelError as error:
                self._node.peer_failed(uri, error)
                if not await self.moved_from(uri):
                    raise

    async def open_as_neighbour(self, direction: FrameDirection) -> None:
        """Opens the stream that the processor's neighbour, which is here, pushes into.

        If the processor is lost, that is done when it has a successor.

        Raises:
            ChannelError: It is not lost, and does not take the stream.
        """
        self._neighbour[direction] = True
        async with self._opening:
            if self._stream(direction) is not None:
                return
            recovers = self._retains and self._node.recovers
            if recovers and self._node.is_lost(self.uri):
                return
            try:
                await self._open(self.uri, direction)
            except ChannelError as error:
                if not recovers or not is_loss(error):
                    raise
                self._node.peer_failed(self.uri, error)

    async def _open(self, uri: str, direction: FrameDirection) -> OutStream:
        link = await self._node.link(uri)
        deadline = asyncio.get_running_loop().time() + PREDECESSOR_SECS
        extra = 0 if self._neighbour[direction] else BESIDE
        while True:
            key = pack(self._node.session_id, "f", self._pid, direction.value, extra)
            try:
                stream = await link.open_stream(key, retain=self._retains)
            except ChannelRefused as error:
                if str(error) != NOT_GONE:
                    raise
                if asyncio.get_running_loop().time() >= deadline:
                    extra |= INSTEAD
                await asyncio.sleep(_REFUSED_PAUSE_SECS)
                continue
            if direction is _DOWNSTREAM:
                self._down = stream
            else:
                self._up = stream
            return stream

    # -- another process in the place of a lost one --------------------------------------------

    async def moved_from(self, uri: str) -> bool:
        """Waits until the processor runs elsewhere than at `uri`; whether it does."""
        if not self._retains or not self._node.recovers:
            return False
        deadline = asyncio.get_running_loop().time() + MOVE_DEADLINE_SECS
        while self.uri == uri and self._given_up is None and not self._node.closed:
            self._moved.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._moved.wait()
            except TimeoutError:
                return False
        return self.uri != uri and not self._node.closed

    async def relink(self, uri: str) -> None:
        """Sends to another process from now on, beginning with what may not have been answered.

        Raises:
            ChannelError: It cannot be reached, or does not take the streams; they wait on.
        """
        async with self._opening:
            self.uri = uri
            for direction in FrameDirection:
                stream = self._stream(direction)
                if stream is not None:
                    stream.detach()
                    link = await self._node.link(uri)
                    extra = 0 if self._neighbour[direction] else BESIDE
                    key = pack(self._node.session_id, "f", self._pid, direction.value, extra)
                    await link.resume_stream(stream, key)
                elif self._neighbour[direction]:
                    await self._open(uri, direction)
        self._moved.set()

    def give_up(self, error: ChannelError) -> None:
        """Nobody takes the place of the lost process; what ends the pipeline goes round it."""
        if self._given_up is not None:
            return
        self._given_up = error
        self._moved.set()
        for direction in FrameDirection:
            stream = self._stream(direction)
            if stream is None:
                continue
            for _, sent in stream.unacknowledged():
                if isinstance(sent.tag, Frame):
                    self._node.spawn(self._node.pass_on(self._pid, sent.tag, direction))
            stream.give_up(error)

    @property
    def handed_over(self) -> bool:
        """Whether all that was put in here comes before what is sent over the link from now on."""
        return (
            not self._behind
            and not self._audio
            and (self._down is None or self._down.handed_over)
            and (self._up is None or self._up.handed_over)
        )

    @property
    def flushed(self) -> bool:
        """Whether all that was put in here is out of this process."""
        return (
            not self._behind
            and not self._audio
            and (self._down is None or self._down.flushed)
            and (self._up is None or self._up.flushed)
        )

    def positions(self) -> list[tuple[OutStream, tuple[int, int]]]:
        """How far what was put in here has come, for each stream to a process that may be lost."""
        if not self._retains:
            return []
        streams = [stream for stream in (self._down, self._up) if stream is not None]
        return [(stream, stream.position) for stream in streams]

    def progress_there(self) -> list[tuple[FrameDirection, bytes]]:
        """What the processor's process said about what it has got from a predecessor of this one."""
        return [
            (direction, stream.greeting)
            for direction in FrameDirection
            if (stream := self._stream(direction)) is not None and stream.greeting
        ]

    # -- frames --------------------------------------------------------------------------------

    def _stream(self, direction: FrameDirection) -> OutStream | None:
        return self._down if direction is _DOWNSTREAM else self._up

    def put_nowait(
        self, frame: Frame, direction: FrameDirection, callback: FrameCallback | None = None
    ) -> Awaitable[None] | None:
        """Sends a frame; downstream, a data or control frame waits for a processor far behind."""
        stream = self._down if direction is _DOWNSTREAM else self._up
        if stream is None or callback is not None or isinstance(frame, _SPECIAL):
            return self._put(frame, direction, callback)
        payload = self._encoder.frame(frame)
        urgent = isinstance(frame, SystemFrame)
        cause = ordinal = 0
        # What the frame in hand came of, by which a successor's would be recognised.
        if self._names_causes and (receipt := current_receipt()) is not None:
            cause = receipt.origin
            ordinal = receipt.next_ordinal(direction is not _DOWNSTREAM)
        keep = frame.survives_interruption
        try:
            if (
                urgent
                and (self._audio or stream.congested)
                and isinstance(frame, InputAudioRawFrame)
            ):
                self._hold_audio(stream, payload, cause, ordinal)
            elif self._behind and direction is FrameDirection.UPSTREAM and not urgent:
                self._fall_behind(stream, payload, keep, cause, ordinal)
            elif not stream.send_nowait(payload, urgent, keep, cause, ordinal):
                if direction is _DOWNSTREAM:
                    return self._send(stream, frame, payload, cause, ordinal)
                self._fall_behind(stream, payload, keep, cause, ordinal)
        except ChannelError as error:
            return self._lost(frame, direction, error)
        return None

    async def _send(
        self, stream: OutStream, frame: Frame, payload: bytes, cause: int, ordinal: int
    ) -> None:
        """Waits for credit."""
        keep = frame.survives_interruption
        try:
            await stream.send(payload, tag=keep, cause=cause, ordinal=ordinal)
        except ChannelError as error:
            await self._lost(frame, _DOWNSTREAM, error)

    async def _put(
        self, frame: Frame, direction: FrameDirection, callback: FrameCallback | None
    ) -> None:
        """Sends a frame that needs more than to be sent."""
        if isinstance(frame, StartFrame):
            FrameProcessor._start(self._owner, frame)
        try:
            stream = self._stream(direction) or await self.open(direction)
            payload = self._encoder.frame(frame)
            urgent = isinstance(frame, SystemFrame)
            cause = ordinal = 0
            if self._names_causes and (receipt := current_receipt()) is not None:
                cause = receipt.origin
                ordinal = receipt.next_ordinal(direction is not _DOWNSTREAM)
            if isinstance(frame, StartInterruptionFrame):
                self._drop_waiting(stream, direction)
            # False: an interruption drops it. The frame itself: it must not be lost with a process.
            tag = frame if isinstance(frame, _ENDS) else frame.survives_interruption
            if direction is FrameDirection.UPSTREAM and not urgent and self._behind:
                self._fall_behind(stream, payload, tag, cause, ordinal)
            elif not stream.send_nowait(payload, urgent, tag, cause, ordinal):
                if direction is FrameDirection.UPSTREAM:
                    self._fall_behind(stream, payload, tag, cause, ordinal)
                else:
                    await stream.send(payload, urgent=urgent, tag=tag, cause=cause, ordinal=ordinal)
        except ChannelError as error:
            await self._lost(frame, direction, error)
            return
        if callback is not None:
            self._node.spawn(self._call_back(stream, frame, direction, callback))

    def _drop_waiting(self, stream: OutStream, direction: FrameDirection) -> None:
        """What has not left yet must not arrive after the interruption."""
        dropped = stream.drop_pending(lambda tag: tag is not False)
        if direction is FrameDirection.UPSTREAM:
            waiting = len(self._behind)
            self._behind = deque(item for item in self._behind if item[1] is not False)
            dropped += waiting - len(self._behind)
        self._owner.statistics.frames_dropped += dropped

    def _fall_behind(
        self, stream: OutStream, payload: bytes, tag: Frame | bool, cause: int, ordinal: int
    ) -> None:
        """Keeps an upstream frame for later, so that its sender need not wait.

        Two neighbours that both waited for the other to take frames would wait for ever.
        """
        if len(self._behind) >= UPSTREAM_LIMIT:
            raise ChannelBusy(f"{len(self._behind)} upstream frames wait for {self._owner.name}")
        self._behind.append((payload, tag, cause, ordinal))
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = self._node.spawn(self._catch_up(stream))

    def _hold_audio(self, stream: OutStream, payload: bytes, cause: int, ordinal: int) -> None:
        """Keeps input audio back until the processor takes some again."""
        self._audio.append((payload, cause, ordinal))
        if not stream.congested:
            self._release_audio(stream)
            return
        if len(self._audio) > AUDIO_HELD:
            self._audio.popleft()
            self._owner.statistics.audio_dropped += 1
            if not self._dropping:
                self._dropping = True
                logger.warning(
                    "input audio dropped, the process takes none", processor=self._owner.name
                )
        if self._releasing is None or self._releasing.done():
            self._releasing = self._node.spawn(self._release_when_taken(stream))

    async def _release_when_taken(self, stream: OutStream) -> None:
        """Sends what is held even if no further audio comes."""
        try:
            await stream.drain()
            self._release_audio(stream)
        except ChannelError as error:
            self._audio.clear()
            self._node.peer_failed(self.uri, error)

    def _release_audio(self, stream: OutStream) -> None:
        self._dropping = False
        while self._audio:
            payload, cause, ordinal = self._audio.popleft()
            stream.send_nowait(payload, True, None, cause, ordinal)

    async def _catch_up(self, stream: OutStream) -> None:
        try:
            while self._behind:
                payload, tag, cause, ordinal = self._behind[0]
                await stream.send(payload, tag=tag, cause=cause, ordinal=ordinal)
                # An interruption may have emptied it meanwhile.
                if self._behind and self._behind[0][0] is payload:
                    self._behind.popleft()
        except ChannelError as error:
            self._behind.clear()
            self._node.peer_failed(self.uri, error)

    async def _call_back(
        self, stream: OutStream, frame: Frame, direction: FrameDirection, callback: FrameCallback
    ) -> None:
        await stream.drain()
        await callback(self._owner, frame, direction)

    async def _lost(self, frame: Frame, direction: FrameDirection, error: ChannelError) -> None:
        self.lost += 1
        self._node.peer_failed(self.uri, error)
        if isinstance(frame, _ENDS):
            await self._node.pass_on(self._pid, frame, direction)
        elif self.lost == 1:
            logger.warning(
                "frames for a lost processor are dropped",
                processor=self._owner.name,
                error=str(error),
            )

    def close(self) -> None:
        """Gives the streams up; the session is over."""
        self._moved.set()
        self._audio.clear()
        for stream in (self._down, self._up):
            if stream is not None:
                stream.abort()


class EdgeRelay:
    """Carries a twin's relayed calls to its processor (``antiphon.processors.relay.Relay``).

    Calls that change the processor for good are noted, for it may get a successor.
    """

    def __init__(self, node: SessionNode, pid: int, inbox: EdgeInbox, twin: FrameProcessor) -> None:
        self._node = node
        self._pid = pid
        self._inbox = inbox
        self._twin = twin
        self.lasting: deque[RecordedCall] = deque(maxlen=POSTS_KEPT)
        # While a successor is being made: calls that its journal does not have.
        self._held: list[RecordedCall] | None = None

    async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs an async method where the processor is.

        If the processor is lost meanwhile, the method runs once more, in its successor.
        """
        if method == "setup":
            setup = args[0] if args else kwargs["setup"]
            assert isinstance(setup, FrameProcessorSetup)
            await self._set_up(setup)
            return None
        if method == "cleanup":
            await self._clean_up()
            return None
        result = await self._request(method, args, kwargs)
        if is_lasting(getattr(type(self._twin), method, None)):
            self.lasting.append(RecordedCall(method, args, kwargs))
        return result

    async def _set_up(self, setup: FrameProcessorSetup) -> None:
        self._twin._adopt(setup)
        uri = self._inbox.uri
        try:
            await self.set_up_at(uri)
        except PlacementError as error:
            # A successor has been set up by the time it is known here.
            if not is_loss(error.__cause__) or not await self._inbox.moved_from(uri):
                raise

    async def set_up_at(self, uri: str) -> None:
        """Has the processor set up where it was built.

        Raises:
            PlacementError: It was not; why.
        """
        try:
            await self._node.request(
                uri, "call", [self._pid, "setup", [], {}], deadline_secs=CALL_DEADLINE_SECS
            )
        except ChannelError as error:
            raise PlacementError(
                f"processor {self._twin.name} could not be set up in its actor: {error}"
            ) from error

    async def _clean_up(self) -> None:
        self._twin._replace_inbox(CLOSED_INBOX)
        if self._node.is_lost(self._inbox.uri):
            return
        try:
            await self._ask("cleanup", (), {}, deadline_secs=CALL_DEADLINE_SECS)
        except ChannelError as error:  # the others are cleaned up all the same
            logger.warning("processor not cleaned up", processor=self._twin.name, error=str(error))

    async def _ask(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        deadline_secs: float | None = None,
    ) -> Any:
        return await self._node.request(
            self._inbox.uri,
            "call",
            [self._pid, method, list(args), kwargs],
            deadline_secs=deadline_secs,
            lasting=is_lasting(getattr(type(self._twin), method, None)),
        )

    async def _request(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            uri = self._inbox.uri
            try:
                return await self._ask(method, args, kwargs)
            except RemoteCallError:
                raise
            except ChannelError:
                if not await self._inbox.moved_from(uri):
                    raise

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes a frame from where the processor is."""
        await self.call("push_frame", (frame, direction), {})

    def post(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Runs a plain method where the processor is, in order, without waiting."""
        call = RecordedCall(method, args, kwargs)
        self.lasting.append(call)
        if self._held is not None:
            self._held.append(call)
        else:
            self._send(call)

    def hold_posts(self) -> None:
        """Keeps further posts until `release_posts`: a successor is made with those before."""
        self._held = []

    def release_posts(self) -> None:
        """Sends what was kept to where the processor is now."""
        held, self._held = self._held, None
        for call in held or ():
            self._send(call)

    def _send(self, call: RecordedCall) -> None:
        self._node.notify(
            self._inbox.uri, "post", [self._pid, call.method, list(call.args), call.kwargs]
        )
