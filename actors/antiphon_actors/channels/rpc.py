"""Calls over a link: who waits for an answer here, and which handlers run here for the peer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from loguru import logger

from antiphon_actors.channels.errors import (
    CallDeadlineExceeded,
    ChannelBusy,
    ChannelError,
    PlainValue,
    ProtocolViolation,
    RemoteCallError,
    again,
)
from antiphon_actors.channels.framing import Kind, pack_record

# An exception that travels is cut to this, so that an error about a large thing stays small.
_MAX_TEXT = 4096
_MAX_ATTRIBUTES = 32
_MAX_METHOD = 200

Handle = Callable[[str, bytes], Awaitable[bytes]]

LINK_LOST = "the link is lost"
"""Message of the cancellation of a handler whose caller has not given up, but is gone."""


def describe_exception(error: BaseException) -> tuple[str, str, dict[str, PlainValue]]:
    """Returns the class name, the text and the plain public attributes of an exception.

    One that came from a further call travels on as what it was there.
    """
    if isinstance(error, RemoteCallError):
        return error.type_name, error.message, error.data
    data: dict[str, PlainValue] = {}
    for name, value in vars(error).items():
        if name.startswith("_") or len(data) >= _MAX_ATTRIBUTES:
            continue
        if isinstance(value, str):
            data[name] = value[:_MAX_TEXT]
        elif value is None or isinstance(value, bool | float):
            data[name] = value
        elif isinstance(value, int) and value.bit_length() < 64:
            data[name] = int(value)
    return type(error).__name__, str(error)[:_MAX_TEXT], data


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """Counters of the calls of one link.

    Attributes:
        started: Calls made here.
        waiting: Of these, without an answer yet.
        handled: Calls of the peer begun here.
        running: Of these, still running.
        refused: Calls of the peer refused because too many ran.
    """

    started: int
    waiting: int
    handled: int
    running: int
    refused: int


class Calls:
    """Both directions of the calls of one link."""

    def __init__(
        self,
        *,
        send: Callable[[bytes], None],
        handle: Handle,
        spawn: Callable[[Any, str], asyncio.Task[None]],
        max_calls: int,
        max_body_bytes: int,
    ) -> None:
        """Starts with none.

        Args:
            send: Sends an express record.
            handle: Runs a call of the peer.
            spawn: Starts a task under the hub's ownership.
            max_calls: Bound for each direction.
            max_body_bytes: Largest body.
        """
        self._send = send
        self._handle = handle
        self._spawn = spawn
        self._max_calls = max_calls
        self._max_body_bytes = max_body_bytes
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last_id = 0
        self._running: dict[int, asyncio.Task[None]] = {}
        # Handlers told to stop by the peer: they end in their own time and answer nobody.
        self._cancelled: set[asyncio.Task[None]] = set()
        self._last_peer_id = 0
        self._refused = 0
        self._error: ChannelError | None = None

    def check_size(self, method: str, body: bytes) -> None:
        """Raises ValueError unless both fit in a record."""
        if len(method) > _MAX_METHOD:
            raise ValueError(f"the name of a method has at most {_MAX_METHOD} characters")
        if len(body) > self._max_body_bytes:
            raise ValueError(
                f"a body of {len(body)} bytes exceeds the limit of {self._max_body_bytes}"
            )

    async def call(self, method: str, body: bytes, deadline_secs: float | None) -> bytes:
        """Calls the peer; see `Link.call`."""
        if self._error is not None:
            raise again(self._error)
        self.check_size(method, body)
        if len(self._waiting) >= self._max_calls:
            raise ChannelBusy(f"{self._max_calls} calls wait for an answer already")
        self._last_id += 1
        call_id = self._last_id
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = future
        deadline = asyncio.timeout(deadline_secs)
        try:
            self._send(pack_record(Kind.CALL, call_id, method, body))
            async with deadline:
                return await future
        except TimeoutError as error:
            if deadline.expired():
                raise CallDeadlineExceeded(
                    f"{method} had no answer within {deadline_secs} s"
                ) from error
            raise
        finally:
            # Still listed means unanswered: deadline or cancellation.
            if self._waiting.pop(call_id, None) is not None and self._error is None:
                self._send(pack_record(Kind.CANCEL, call_id))

    def result(self, call_id: int, body: bytes) -> None:
        """Takes the peer's answer to one of our calls."""
        future = self._answered(call_id)
        if future is not None and not future.done():
            future.set_result(body)

    def failed(self, call_id: int, error: Exception) -> None:
        """Takes the peer's refusal or exception for one of our calls."""
        future = self._answered(call_id)
        if future is not None and not future.done():
            future.set_exception(error)

    def _answered(self, call_id: int) -> asyncio.Future[bytes] | None:
        if not 0 < call_id <= self._last_id:
            raise ProtocolViolation(f"an answer to call {call_id}, which was never made")
        # None: the answer crossed our CANCEL.
        return self._waiting.pop(call_id, None)

    def begin(self, call_id: int, method: str, body: bytes) -> None:
        """Runs a call of the peer."""
        if call_id <= self._last_peer_id:
            raise ProtocolViolation(f"call {call_id} follows call {self._last_peer_id}")
        self._last_peer_id = call_id
        # Cancelled handlers that have not ended yet count too: they still hold resources.
        if len(self._running) + len(self._cancelled) >= self._max_calls:
            self._refused += 1
            text = f"{self._max_calls} calls run already"
            self._send(pack_record(Kind.ERROR, call_id, ChannelBusy.__name__, text, {}))
            return
        task = self._spawn(self._run(call_id, method, body), f"call {method}")
        self._running[call_id] = task
        task.add_done_callback(lambda task: self._finished(call_id, task))

    async def _run(self, call_id: int, method: str, body: bytes) -> None:
        try:
            result = await self._handle(method, body)
            if len(result) > self._max_body_bytes:
                raise ValueError(
                    f"a result of {len(result)} bytes exceeds the limit of {self._max_body_bytes}"
                )
            record = pack_record(Kind.RESULT, call_id, bytes(result))
        except asyncio.CancelledError as error:
            self._answer(call_id, pack_record(Kind.ERROR, call_id, *describe_exception(error)))
            raise
        except Exception as error:  # noqa: BLE001 - the caller gets it
            record = pack_record(Kind.ERROR, call_id, *describe_exception(error))
        self._answer(call_id, record)

    def _answer(self, call_id: int, record: bytes) -> None:
        # Not listed: the peer cancelled or is gone, and nobody waits for an answer.
        if self._error is None and call_id in self._running:
            self._send(record)

    def _finished(self, call_id: int, task: asyncio.Task[None]) -> None:
        self._running.pop(call_id, None)
        self._cancelled.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("call handler broke")

    def cancel(self, call_id: int) -> None:
        """The peer no longer waits for one of its calls."""
        if not 0 < call_id <= self._last_peer_id:
            raise ProtocolViolation(f"CANCEL of call {call_id}, which was never made")
        task = self._running.pop(call_id, None)
        if task is not None:
            self._cancelled.add(task)
            task.cancel()

    def lose(self, error: ChannelError) -> None:
        """The link is gone: fails who waits here and cancels what runs for the peer."""
        self._error = error
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(again(error))
        running, self._running = self._running, {}
        for task in running.values():
            self._cancelled.add(task)
            task.cancel(LINK_LOST)

    def statistics(self) -> CallStatistics:
        """Returns the counters as they are now."""
        return CallStatistics(
            started=self._last_id,
            waiting=len(self._waiting),
            handled=self._last_peer_id - self._refused,
            running=len(self._running) + len(self._cancelled),
            refused=self._refused,
        )
