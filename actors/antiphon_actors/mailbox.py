"""Hands the report of a session from the job that ran it to whoever submitted the job."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from loguru import logger
from ray.exceptions import RayError

from antiphon.errors import SessionError
from antiphon_actors.report import SessionReport

NAMESPACE = "antiphon"
TAKE_DEADLINE_SECS = 20.0
READY_MARK = "@antiphon-report-ready"
"""The line of a job's output that says that its report can be taken."""


class ReportMailbox:
    """A Ray actor that holds one report until it has been received; ends with its job."""

    def __init__(self, report: SessionReport) -> None:
        self._report = report
        self._received = asyncio.Event()

    async def take(self) -> SessionReport:
        """The report."""
        return self._report

    async def acknowledge(self) -> None:
        """Says that the report has arrived; the mailbox may be removed."""
        self._received.set()

    async def received(self) -> None:
        """Returns when the report has been received."""
        await self._received.wait()


async def offer(name: str, report: SessionReport) -> bool:
    """Offers a report under a name; returns whether somebody took it within the deadline."""
    mailbox: Any = (
        ray.remote(ReportMailbox).options(name=name, namespace=NAMESPACE, num_cpus=0).remote(report)
    )
    try:
        async with asyncio.timeout(TAKE_DEADLINE_SECS):
            await mailbox.__ray_ready__.remote()
            print(READY_MARK, flush=True)  # noqa: T201 - the job's output is read by its submitter
            await mailbox.received.remote()
    except (TimeoutError, RayError) as error:
        logger.debug("report not delivered", name=name, error=repr(error))
        return False
    else:
        return True
    finally:
        ray.kill(mailbox)


async def take(name: str) -> SessionReport:
    """Takes the report offered under a name.

    Raises:
        SessionError: If there is none, or it does not come in time.
    """
    try:
        async with asyncio.timeout(TAKE_DEADLINE_SECS):
            mailbox: Any = await asyncio.to_thread(ray.get_actor, name, namespace=NAMESPACE)
            report: SessionReport = await mailbox.take.remote()
    except (ValueError, TimeoutError, RayError) as error:
        raise SessionError(f"the session's report cannot be had: {error}") from error
    # Its answer may never come: the mailbox ends because of it.
    mailbox.acknowledge.remote()
    return report
