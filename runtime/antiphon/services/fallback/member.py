"""One service of a chain: the way to it, and what it has been given."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from antiphon.frames.frames import Frame, StartInterruptionFrame
from antiphon.pipeline.pipeline import PipelineSink, PipelineSource
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.passing import SyncFrame, UrgentSyncFrame
from antiphon.services.ai_service import AIService

Service = TypeVar("Service", bound=AIService)

Left = Callable[[Frame, FrameDirection], Awaitable[None]]

DOWNSTREAM = FrameDirection.DOWNSTREAM

_REMEMBERED_IDS = 4_096
"""Frames that a service was given and that may still be inside: far more than at one time."""


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """How a member of a chain is doing.

    Attributes:
        name: Its name.
        health: ``failing`` if it has failed and not shown since that it works; ``probing`` while it
            answers a request beside the member that is heard.
        is_active: Whether it answers, or would be asked first.
        attempts: How often it was asked.
        answers: How often it has given a complete answer.
        failures: How often it has failed, probes included.
        last_failure: Why, the last time; empty if never.
        probe_in_secs: Seconds until it may be probed again; None unless it is failing.
    """

    name: str
    health: Literal["healthy", "failing", "probing"]
    is_active: bool
    attempts: int
    answers: int
    failures: int
    last_failure: str
    probe_in_secs: float | None


class Member(Generic[Service]):
    """A service, between a source and a sink of its own.

    Markers in the order of its frames tell what belongs to what: a service has dealt with all that it
    was given before a marker when the marker comes out.

    Attributes:
        index: Its place in the order of preference, from 0.
        service: The service.
        is_open: Whether what comes out now belongs to what it was opened for.
        attempts: How often it was asked.
        answers: How often it has given a complete answer.
        failures: How often it has failed.
        last_failure: Why, the last time.
        cause: Where in the program that was, if it was an exception.
        missed_settings: Whether settings that it was given may have been dropped.
    """

    def __init__(self, index: int, service: Service, chain: FrameProcessor, left: Left) -> None:
        """Links a service.

        Args:
            index: Its place in the order of preference.
            service: The service.
            chain: The chain that it is part of.
            left: Gets what leaves it, in either direction.
        """
        self.index = index
        self.service = service
        self.source = PipelineSource(left, name=f"{chain}::Source{index}")
        self.sink = PipelineSink(left, name=f"{chain}::Sink{index}")
        self.source.link(service)
        service.link(self.sink)
        for processor in self.processors:
            processor.set_parent(chain)
        self.is_open = False
        self.attempts = 0
        self.answers = 0
        self.failures = 0
        self.last_failure = ""
        self.cause: object = None
        self.missed_settings = False
        self._begin = self._end = 0
        self._given: OrderedDict[int, None] = OrderedDict()
        # Frames that begin or end a pipeline, on their way through; a few at a time.
        self._crossings: dict[int, asyncio.Future[bool]] = {}

    @property
    def processors(self) -> tuple[FrameProcessor, ...]:
        """The source, the service and the sink."""
        return self.source, self.service, self.sink

    @property
    def name(self) -> str:
        """Name of the service."""
        return self.service.name

    async def give(self, frame: Frame, direction: FrameDirection = DOWNSTREAM) -> None:
        """Gives the service a frame; does not wait for it to be taken."""
        self._given[frame.id] = None
        if len(self._given) > _REMEMBERED_IDS:
            self._given.popitem(last=False)
        end = self.source if direction is DOWNSTREAM else self.sink
        await end.queue_frame(frame, direction)

    def was_given(self, frame: Frame) -> bool:
        """Whether a frame that comes out went in, rather than being the service's own."""
        return frame.id in self._given

    async def open(self, *, urgent: bool = False) -> None:
        """Begins anew: what comes out before this point is of no interest any more.

        Args:
            urgent: Whether system frames are what it works on.
        """
        marker = UrgentSyncFrame() if urgent else SyncFrame()
        self._begin, self._end = marker.id, 0
        self.is_open = False
        await self.give(marker)

    async def mark_end(self) -> None:
        """Has `passed()` tell when the service has dealt with all that it was given so far."""
        marker = SyncFrame()
        self._end = marker.id
        await self.give(marker)

    async def mark_again(self) -> None:
        """Repeats the mark of an end: an interruption may have dropped it."""
        if self._end:
            await self.mark_end()

    def passed(self, frame: Frame) -> bool:
        """Takes note of a frame that comes out; whether it is the last mark of an end."""
        self.is_open = self.is_open or frame.id == self._begin
        if frame.id != self._end:
            return False
        self._end = 0
        return True

    def close(self) -> None:
        """Takes nothing more from it until it is opened again."""
        self._begin = self._end = 0
        self.is_open = False

    async def stop(self) -> None:
        """Makes the service stop what it is doing, as an interruption does."""
        self.missed_settings = True
        await self.give(StartInterruptionFrame())

    async def cross(self, frame: Frame) -> asyncio.Future[bool]:
        """Gives a frame that begins or ends a pipeline.

        Returns:
            True when it has come out; False if it never will.
        """
        crossing = asyncio.get_running_loop().create_future()
        self._crossings[frame.id] = crossing
        await self.give(frame)
        return crossing

    def crossed(self, frame: Frame) -> None:
        """Takes note of a frame that comes out."""
        _settle(self._crossings.pop(frame.id, None), crossed=True)

    def forget_crossings(self) -> None:
        """What has not come out never will."""
        crossings, self._crossings = self._crossings, {}
        for crossing in crossings.values():
            _settle(crossing, crossed=False)


def _settle(crossing: asyncio.Future[bool] | None, *, crossed: bool) -> None:
    if crossing is not None and not crossing.done():
        crossing.set_result(crossed)
