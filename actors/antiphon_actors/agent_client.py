"""Calls to a node agent, also while Ray restarts it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray
from loguru import logger
from ray.exceptions import ActorUnavailableError, RayError

_RETRY_SECS = 0.05


class AgentClient:
    """A node agent, for who cannot do without it for long.

    A call that is under way when an agent dies fails after 1.5 s, though Ray has restarted the agent within 20 ms
    and calls made from then on succeed. So whoever is told that it is there again (`returned`) repeats what is
    under way; others repeat what has failed.

    Args:
        handle: Of the agent.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self._returned = asyncio.Event()

    def returned(self) -> None:
        """The agent has been restarted; calls that were made before are lost."""
        self._returned.set()
        self._returned = asyncio.Event()

    async def call(self, method: str, *arguments: Any, deadline_secs: float | None) -> Any:
        """Calls a method, again if the agent has died meanwhile: perhaps it does twice what it is asked to.

        Args:
            method: Its name.
            arguments: For it.
            deadline_secs: How long all of that may take; None where the agent itself sees to it.

        Raises:
            TimeoutError: There is no answer in time.
            RayError: What the agent raises, or that it is gone and does not come back.
        """
        async with asyncio.timeout(deadline_secs):
            while True:
                returned = self._returned
                answer = asyncio.ensure_future(getattr(self.handle, method).remote(*arguments))
                news = asyncio.ensure_future(returned.wait())
                try:
                    await asyncio.wait({answer, news}, return_when=asyncio.FIRST_COMPLETED)
                    if answer.done():
                        return answer.result()
                except ActorUnavailableError:
                    await asyncio.sleep(_RETRY_SECS)
                finally:
                    news.cancel()
                    answer.cancel()
                logger.debug("a call to the node agent is repeated", method=method)


async def end_agent(agent: Any, deadline_secs: float) -> None:
    """Ends an agent and all of its actors, as gently as the deadline allows."""
    try:
        async with asyncio.timeout(deadline_secs):
            await agent.shutdown.remote(deadline_secs / 2)
    except (RayError, TimeoutError) as error:
        # Its actors end with it, or notice that it is gone.
        logger.debug("node agent did not shut down in time", error=repr(error))
    finally:
        with contextlib.suppress(RayError):
            ray.kill(agent)
