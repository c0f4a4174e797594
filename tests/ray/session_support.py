"""What tests that run real sessions on a cluster share."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon_actors.report import SessionReport
from antiphon_actors.supervisor import Failure, Output, SessionSpec

RUN_SECS = 30.0


class Session:
    """A session of a supervisor, while it runs."""

    def __init__(self, supervisor: Any, spec: SessionSpec) -> None:
        self.lines: list[str] = []
        self.report: SessionReport | None = None
        self.news = asyncio.Event()
        self._stream = supervisor.run_session.options(num_returns="streaming").remote(spec)
        self.following = asyncio.create_task(self._follow())

    async def _follow(self) -> SessionReport:
        async for reference in self._stream:
            item = await reference
            if isinstance(item, Output):
                self.lines += item.text.splitlines()
            elif isinstance(item, Failure):
                self.lines.append(f"failed: {item.text}")
            else:
                self.report = item
            self.news.set()
        assert self.report is not None
        return self.report

    async def line(self, start: str) -> str:
        """The first line that begins so."""
        async with asyncio.timeout(RUN_SECS):
            while True:
                for line in self.lines:
                    if line.startswith(start):
                        return line
                assert not self.following.done(), self.report
                self.news.clear()
                await self.news.wait()

    async def end(self) -> SessionReport:
        async with asyncio.timeout(RUN_SECS):
            return await self.following

    @property
    def heard(self) -> list[str]:
        return [line for line in self.lines if line.startswith("heard")]
