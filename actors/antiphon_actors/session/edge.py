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
from antiphon_actors.channels.errors import ChannelBusy, ChannelError
from antiphon_actors.channels.out_stream import OutStream
from antiphon_actors.session.endpoint import pack

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

    When that process is gone, the frames that end a pipeline pass on to the neighbour behind it,
    so that the rest of the session still ends; others are counted and lost with it.
    """

    def __init__(self, node: SessionNode, pid: int, uri: str, owner: FrameProcessor) -> None:
        self._node = node
        self._pid = pid
        self.uri = uri
        self._owner = owner
        self._encoder = node.encoder
        self._down: OutStream | None = None
        self._up: OutStream | None = None
        self._opening = asyncio.Lock()
        # Upstream frames that wait for credit, and their tags; bounded by UPSTREAM_LIMIT.
        self._behind: deque[tuple[bytes, Frame | bool]] = deque()
        self._catching_up: asyncio.Task[Any] | None = None
        self._audio: deque[bytes] = deque()  # bounded by AUDIO_HELD
        self._releasing: asyncio.Task[Any] | None = None
        self._dropping = False
        self.lost = 0

    async def open(self, direction: FrameDirection) -> OutStream:
        """Opens the stream of a direction, once."""
        async with self._opening:
            stream = self._stream(direction)
            if stream is None:
                link = await self._node.link(self.uri)
                key = pack(self._node.session_id, "f", self._pid, direction.value)
                stream = await link.open_stream(key)
                if direction is _DOWNSTREAM:
                    self._down = stream
                else:
                    self._up = stream
            return stream

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
        try:
            if (
                urgent
                and (self._audio or stream.congested)
                and isinstance(frame, InputAudioRawFrame)
            ):
                self._hold_audio(stream, payload)
            elif self._behind and direction is FrameDirection.UPSTREAM and not urgent:
                self._fall_behind(stream, payload, frame.survives_interruption)
            elif not stream.send_nowait(payload, urgent, frame.survives_interruption):
                if direction is _DOWNSTREAM:
                    return self._send(stream, frame, payload)
                self._fall_behind(stream, payload, frame.survives_interruption)
        except ChannelError as error:
            return self._lost(frame, direction, error)
        return None

    async def _send(self, stream: OutStream, frame: Frame, payload: bytes) -> None:
        """Waits for credit."""
        try:
            await stream.send(payload, tag=frame.survives_interruption)
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
            if isinstance(frame, StartInterruptionFrame):
                self._drop_waiting(stream, direction)
            # False: an interruption drops it. The frame itself: it must not be lost with a process.
            tag = frame if isinstance(frame, _ENDS) else frame.survives_interruption
            if direction is FrameDirection.UPSTREAM and not urgent and self._behind:
                self._fall_behind(stream, payload, tag)
            elif not stream.send_nowait(payload, urgent=urgent, tag=tag):
                if direction is FrameDirection.UPSTREAM:
                    self._fall_behind(stream, payload, tag)
                else:
                    await stream.send(payload, urgent=urgent, tag=tag)
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

    def _fall_behind(self, stream: OutStream, payload: bytes, tag: Frame | bool) -> None:
        """Keeps an upstream frame for later, so that its sender need not wait.

        Two neighbours that both waited for the other to take frames would wait for ever.
        """
        if len(self._behind) >= UPSTREAM_LIMIT:
            raise ChannelBusy(f"{len(self._behind)} upstream frames wait for {self._owner.name}")
        self._behind.append((payload, tag))
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = self._node.spawn(self._catch_up(stream))

    def _hold_audio(self, stream: OutStream, payload: bytes) -> None:
        """Keeps input audio back until the processor takes some again."""
        self._audio.append(payload)
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
            stream.send_nowait(self._audio.popleft(), True)

    async def _catch_up(self, stream: OutStream) -> None:
        try:
            while self._behind:
                payload, tag = self._behind[0]
                if not stream.send_nowait(payload, tag=tag):
                    await stream.send(payload, tag=tag)
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

    def process_lost(self) -> None:
        """Passes on what ends the pipeline and was under way to a process that is gone."""
        for direction in FrameDirection:
            stream = self._stream(direction)
            for _, sent in stream.unacknowledged() if stream is not None else ():
                if isinstance(sent.tag, Frame):
                    self._node.spawn(self._node.pass_on(self._pid, sent.tag, direction))

    def close(self) -> None:
        """Gives the streams up; the session is over."""
        self._audio.clear()
        for stream in (self._down, self._up):
            if stream is not None:
                stream.abort()


class EdgeRelay:
    """Carries a twin's relayed calls to its processor (``antiphon.processors.relay.Relay``)."""

    def __init__(self, node: SessionNode, pid: int, uri: str, twin: FrameProcessor) -> None:
        self._node = node
        self._pid = pid
        self._uri = uri
        self._twin = twin

    async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs an async method where the processor is."""
        if method == "setup":
            setup = args[0] if args else kwargs["setup"]
            assert isinstance(setup, FrameProcessorSetup)
            await self._set_up(setup)
            return None
        if method == "cleanup":
            await self._clean_up()
            return None
        return await self._request(method, args, kwargs, deadline_secs=None)

    async def _set_up(self, setup: FrameProcessorSetup) -> None:
        self._twin._adopt(setup)
        try:
            await self._request("setup", (), {}, deadline_secs=CALL_DEADLINE_SECS)
        except ChannelError as error:
            raise PlacementError(
                f"processor {self._twin.name} could not be set up in its actor: {error}"
            ) from error

    async def _clean_up(self) -> None:
        self._twin._replace_inbox(CLOSED_INBOX)
        if self._node.is_lost(self._uri):
            return
        try:
            await self._request("cleanup", (), {}, deadline_secs=CALL_DEADLINE_SECS)
        except ChannelError as error:  # the others are cleaned up all the same
            logger.warning("processor not cleaned up", processor=self._twin.name, error=str(error))

    async def _request(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        deadline_secs: float | None,
    ) -> Any:
        return await self._node.request(
            self._uri, "call", [self._pid, method, list(args), kwargs], deadline_secs=deadline_secs
        )

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes a frame from where the processor is."""
        await self.call("push_frame", (frame, direction), {})

    def post(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Runs a plain method where the processor is, in order, without waiting."""
        self._node.notify(self._uri, "post", [self._pid, method, list(args), kwargs])
