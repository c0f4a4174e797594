"""Doubles for tests of whatever uses channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar

from antiphon_actors.channels.credentials import TlsCredentials
from antiphon_actors.channels.errors import ChannelRefused
from antiphon_actors.channels.hub import Hub
from antiphon_actors.channels.in_stream import Acceptance, Delivery
from antiphon_actors.channels.limits import DEFAULT_LIMITS, Limits
from antiphon_actors.channels.link import Link

WAIT_SECS = 5.0

Handler = Callable[[Link, bytes], Awaitable[bytes]]


async def until(condition: Callable[[], bool], *, wait_secs: float = WAIT_SECS) -> None:
    """Waits until `condition()` holds, looking once a turn of the event loop.

    Raises:
        TimeoutError: It does not within `wait_secs`.
    """
    async with asyncio.timeout(wait_secs):
        while not condition():  # noqa: ASYNC110 - the conditions have no events of their own
            await asyncio.sleep(0)


class RecordingReceiver:
    """Keeps every delivery.

    Attributes:
        auto_done: Whether deliveries are done at once.
        deliveries: In the order they came.
        ended: Whether `closed` was called.
        reason: What it was given.
    """

    def __init__(self, *, auto_done: bool = True) -> None:
        self.auto_done = auto_done
        self.deliveries: list[Delivery] = []
        self.ended = False
        self.reason: Exception | None = None

    def deliver(self, delivery: Delivery) -> None:
        """Keeps a delivery."""
        self.deliveries.append(delivery)
        if self.auto_done:
            delivery.done()

    def closed(self, reason: Exception | None) -> None:
        """Notes the end."""
        assert not self.ended
        self.ended = True
        self.reason = reason

    def payloads(self, *, urgent: bool | None = None) -> list[bytes]:
        """Returns the payloads of both lanes, or of one."""
        return [
            delivery.payload
            for delivery in self.deliveries
            if urgent is None or delivery.urgent is urgent
        ]

    def finish(self) -> None:
        """Calls `done` on everything."""
        for delivery in self.deliveries:
            delivery.done()

    async def received(self, count: int) -> None:
        """Waits until there are `count` deliveries."""
        await until(lambda: len(self.deliveries) >= count)


class Node:
    """A hub whose streams and calls are recorded.

    Attributes:
        default_credentials: What nodes that are given no credentials use (a test's fixture may
            set it).
        hub: The hub.
        auto_done: Given to new receivers.
        acceptance: Further arguments of the `Acceptance` of new receivers.
        refuse: Reason to refuse streams with, if any.
        receivers: By key of the stream.
        handlers: What answers calls, by method.
        notifications: Method and body of each.
    """

    default_credentials: ClassVar[TlsCredentials | None] = None

    def __init__(
        self,
        name: str,
        limits: Limits = DEFAULT_LIMITS,
        *,
        prefix: int = 0,
        credentials: TlsCredentials | None = None,
    ) -> None:
        self.hub = Hub(
            name=name,
            on_stream=self._on_stream,
            on_call=self._on_call,
            on_notify=self._on_notify,
            limits=limits,
            prefix=prefix,
            credentials=credentials or self.default_credentials,
        )
        self.auto_done = True
        self.acceptance: dict[str, Any] = {}
        self.refuse: str | None = None
        self.receivers: dict[bytes, RecordingReceiver] = {}
        self.handlers: dict[str, Handler] = {}
        self.notifications: list[tuple[str, bytes]] = []

    def _on_stream(self, link: Link, key: bytes) -> Acceptance:
        if self.refuse is not None:
            raise ChannelRefused(self.refuse)
        receiver = RecordingReceiver(auto_done=self.auto_done)
        self.receivers[key] = receiver
        return Acceptance(receiver, **self.acceptance)

    async def _on_call(self, link: Link, method: str, body: bytes) -> bytes:
        return await self.handlers[method](link, body)

    def _on_notify(self, link: Link, method: str, body: bytes) -> None:
        self.notifications.append((method, body))


@asynccontextmanager
async def linked(
    uri: str, *, near: Limits = DEFAULT_LIMITS, far: Limits = DEFAULT_LIMITS
) -> AsyncIterator[tuple[Node, Node, Link]]:
    """Gives two nodes, of which the second listens at `uri`, and the first one's link to it."""
    async with AsyncExitStack() as stack:
        near_node, far_node = Node("near", near), Node("far", far)
        await stack.enter_async_context(far_node.hub)
        await stack.enter_async_context(near_node.hub)
        bound = await far_node.hub.listen(uri)
        link = await near_node.hub.connect(bound, deadline_secs=WAIT_SECS)
        await until(lambda: len(far_node.hub.links) == 1)
        yield near_node, far_node, link
