"""Services that talk to their vendor over a websocket."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from loguru import logger

from antiphon.frames.frames import ErrorFrame
from antiphon.utils.network import exponential_backoff_time

_MAX_ATTEMPTS = 3
_PING_SECS = 10.0
# How long a connection has to last to count as a success.
_STABLE_SECS = 30.0

ReportError = Callable[[ErrorFrame], Awaitable[None]]


class WebsocketService(ABC):
    """Receives from a websocket and, if it breaks, connects again with growing waits.

    A mixin: the service it is mixed into provides the four verbs on connections and
    ``_receive_messages``, and runs ``_receive_task_handler`` as a task.
    """

    def __init__(self, *, reconnect_on_error: bool = True, **kwargs: Any) -> None:
        """Makes a service that is not connected.

        Args:
            reconnect_on_error: Whether to connect again after an error.
            **kwargs: Ignored: they belong to the service's other base.
        """
        self._websocket: Any = None
        self._reconnect_on_error = reconnect_on_error

    async def _verify_connection(self) -> bool:
        """Whether the peer answers a ping."""
        if self._websocket is None:
            return False
        try:
            async with asyncio.timeout(_PING_SECS):
                await (await self._websocket.ping())
        except Exception as error:  # noqa: BLE001 - whatever the reason, it is not usable
            logger.warning("websocket does not answer", service=str(self), reason=repr(error))
            return False
        return True

    async def _reconnect_websocket(self, attempt_number: int) -> bool:
        """Connects again; returns whether the new connection works."""
        logger.warning("websocket reconnecting", service=str(self), attempt=attempt_number)
        await self._disconnect_websocket()
        await self._connect_websocket()
        return await self._verify_connection()

    async def _receive_task_handler(self, report_error: ReportError) -> None:
        """Receives until the connection is closed in good order or cannot be had again.

        Args:
            report_error: Gets an ErrorFrame for each failure, fatal for the last one.
        """
        from websockets.exceptions import ConnectionClosedOK

        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._receive_messages()
                reason = "closed by the peer"
            except ConnectionClosedOK:
                reason = "closed by the peer"
            except Exception as error:  # noqa: BLE001 - reported below
                reason = repr(error)
            if self._websocket is None:  # this side closed it
                return
            # A connection that breaks again at once is no success of the last attempt.
            if time.monotonic() - began >= _STABLE_SECS:
                failures = 0
            logger.error("websocket lost", service=str(self), reason=reason)
            if not self._reconnect_on_error:
                await report_error(ErrorFrame(f"{self}: websocket lost: {reason}"))
                return
            attempts = await self._recover(failures, reason, report_error)
            if attempts is None:
                return
            failures = attempts

    async def _recover(self, failures: int, reason: str, report_error: ReportError) -> int | None:
        """Connects again, waiting longer each time.

        Returns:
            How many attempts there were since the connection was last stable; None if it is lost.
        """
        while failures < _MAX_ATTEMPTS:
            await report_error(ErrorFrame(f"{self}: websocket lost: {reason}"))
            if failures:
                await asyncio.sleep(exponential_backoff_time(failures))
            failures += 1
            try:
                if await self._reconnect_websocket(failures):
                    logger.info("websocket connected again", service=str(self), attempt=failures)
                    return failures
                reason = "no answer"
            except Exception as error:  # noqa: BLE001 - the next attempt, or the report, follows
                reason = repr(error)
            logger.error("websocket not connected", service=str(self), reason=reason)
        message = f"{self}: websocket lost, {_MAX_ATTEMPTS} attempts failed: {reason}"
        await report_error(ErrorFrame(message, fatal=True))
        return None

    @abstractmethod
    async def _connect(self) -> None:
        """Connects, and starts what runs while connected."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Ends what runs while connected, and disconnects."""

    @abstractmethod
    async def _connect_websocket(self) -> None:
        """Opens the websocket."""

    @abstractmethod
    async def _disconnect_websocket(self) -> None:
        """Closes the websocket."""

    @abstractmethod
    async def _receive_messages(self) -> None:
        """Handles messages until the websocket is closed."""
