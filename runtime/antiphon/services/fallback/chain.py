"""What the fallback chains of all kinds of services have in common."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal

from loguru import logger

from antiphon.frames.frames import (
    AudioRawFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    HeartbeatFrame,
    ImageRawFrame,
    MetricsFrame,
    ServiceUpdateSettingsFrame,
    StartFrame,
    StartInterruptionFrame,
    StopFrame,
)
from antiphon.metrics.metrics import (
    ProcessingMetricsData,
    ServiceSwitchMetricsData,
    TTFBMetricsData,
)
from antiphon.pipeline.base_pipeline import BasePipeline, clean_up_all, with_metrics
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.services.ai_service import AIService
from antiphon.services.fallback.failover import (
    Abandon,
    Action,
    Attempt,
    Failed,
    Failover,
    GiveUp,
    Health,
    Limits,
    NothingToSay,
    Probe,
    Recovered,
    Switch,
    Try,
)
from antiphon.services.fallback.member import Member, MemberStatus, Service
from antiphon.utils.checks import check_instance, check_number, check_sequence

DOWNSTREAM = FrameDirection.DOWNSTREAM

_START_SECS = 60.0
"""How long the first member may take to start."""

_OTHERS_START_SECS = 5.0
"""How much longer the others may take: the bot can begin without them."""

_END_SECS = 10.0
"""How long a member may take to close when the pipeline ends."""

_CANCEL_SECS = 0.5
"""How long a member may take to let a CancelFrame through: a pipeline has 2 s for all of them."""

_NOT_FOR_MEMBERS = (AudioRawFrame, ImageRawFrame, MetricsFrame, ErrorFrame, HeartbeatFrame)
"""Bulky, or about others: passes by the members, unless it is what they work on."""

_OF_ONE_VENDOR = frozenset({"model", "voice", "voice_id"})
"""Settings whose values are names that one vendor has given."""


class FallbackChain(BasePipeline, AIService, Generic[Service]):
    """Several services of one kind that stand in for one another.

    To the rest of the pipeline, and to observers, it is one service. Members may run in actors of
    their own; the chain itself stays with the bot program.

    Event handlers:
        on_service_switched(chain, from_name, to_name, reason): Another member answers from now on.
        on_service_failed(chain, name, reason): A member has failed, in an attempt or a probe.
        on_service_recovered(chain, name): A member that was failing is healthy again.
        on_all_services_failed(chain, reasons): A request is over without an answer, or without the
            rest of it; ``reasons`` maps names to reasons.
    """

    member_class: ClassVar[type[AIService]]

    def __init__(
        self,
        services: Sequence[Service],
        *,
        attempt_timeout_secs: float,
        stall_timeout_secs: float | None,
        total_timeout_secs: float | None = None,
        probe_after_secs: float = 5.0,
        probe_limit_secs: float = 120.0,
        resumes: bool = True,
        **kwargs: Any,
    ) -> None:
        """Makes a chain.

        Args:
            services: Its members, the preferred one first. They belong to the chain, and are not put
                into the pipeline themselves.
            attempt_timeout_secs: Until the first piece of an answer; then the next member is asked.
            stall_timeout_secs: From one piece to the next; None for no limit.
            total_timeout_secs: For one member's whole answer; None for no limit.
            probe_after_secs: From a member's failure until it may be probed. Doubles with each
                further failure; a fifth of it more or less at random.
            probe_limit_secs: The longest such pause.
            resumes: Whether another member may go on with an answer that has begun.
            **kwargs: Passed on to the services' base class.

        Raises:
            TypeError: They are no list of services of this kind.
            ValueError: There is none, one is there twice, or a time is not above 0.
        """
        super().__init__(**kwargs)
        where = type(self).__name__
        check_sequence(f"{where}(services)", services)
        if not services:
            raise ValueError(f"{where} needs at least one service")
        for service in services:
            check_instance(f"a service of {where}", service, self.member_class)
        if len({id(service) for service in services}) < len(services):
            raise ValueError(f"{where}: a service is in the list twice")
        for name, secs in {
            "attempt_timeout_secs": attempt_timeout_secs,
            "stall_timeout_secs": stall_timeout_secs,
            "total_timeout_secs": total_timeout_secs,
            "probe_after_secs": probe_after_secs,
            "probe_limit_secs": probe_limit_secs,
        }.items():
            if secs is not None:
                check_number(f"{where}({name})", secs, above=0)
        limits = Limits(
            attempt_secs=attempt_timeout_secs,
            stall_secs=stall_timeout_secs,
            total_secs=total_timeout_secs,
            probe_secs=probe_after_secs,
            probe_limit_secs=probe_limit_secs,
            resumes=resumes,
        )
        self._failover = Failover(len(services), limits, random.random)
        self._members: list[Member[Service]] = []
        for index, service in enumerate(services):
            left = functools.partial(self._left_member, index)
            self._members.append(Member(index, service, self, left))
        # Settings that have been changed, for members that had no chance to take notice.
        self._changed: ServiceUpdateSettingsFrame | None = None
        # What the state machine wants done; the driver does it. A few at a time.
        self._actions: deque[Action] = deque()
        self._wake = asyncio.Event()
        self._driver: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ttfb_reported = False
        for event in (
            "on_service_switched",
            "on_service_failed",
            "on_service_recovered",
            "on_all_services_failed",
        ):
            self._register_event_handler(event)

    # -- facts ---------------------------------------------------------------------------------

    @property
    def processors(self) -> Sequence[FrameProcessor]:
        """The members, each between a source and a sink."""
        return [processor for member in self._members for processor in member.processors]

    def processors_with_metrics(self) -> list[FrameProcessor]:
        """The members that report metrics."""
        return with_metrics(self.services)

    @property
    def services(self) -> Sequence[Service]:
        """The members, the preferred one first."""
        return [member.service for member in self._members]

    @property
    def active_service(self) -> Service:
        """The member that answers, or would be asked first."""
        return self._active.service

    @property
    def model_name(self) -> str:
        """Name of the model of the member that answers."""
        return self.active_service.model_name

    def set_model_name(self, model: str) -> None:
        """Sets the model of the preferred member: models are named by one vendor."""
        self._members[0].service.set_model_name(model)

    def members(self) -> list[MemberStatus]:
        """How each member is doing, the preferred one first."""
        return [self._status(member) for member in self._members]

    def _status(self, member: Member[Service]) -> MemberStatus:
        probe_at = self._failover.probe_at(member.index)
        return MemberStatus(
            name=member.name,
            health=_HEALTH[self._failover.health(member.index)],
            is_active=member is self._active,
            attempts=member.attempts,
            answers=member.answers,
            failures=member.failures,
            last_failure=member.last_failure,
            probe_in_secs=None if probe_at is None else max(0.0, probe_at - self._now()),
        )

    @property
    def _active(self) -> Member[Service]:
        return self._members[self._failover.active]

    @property
    def _asked(self) -> Member[Service] | None:
        """The member whose attempt is under way."""
        attempt = self._failover.attempt
        return None if attempt is None else self._members[attempt.member]

    @property
    def _probed(self) -> Member[Service] | None:
        probing = self._failover.probing
        return None if probing is None else self._members[probing]

    # -- life ----------------------------------------------------------------------------------

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Sets up the members. Observers see what the chain does, and not what happens inside."""
        await super().setup(setup)
        unseen = dataclasses.replace(setup, observer=None)
        for processor in self.processors:
            await processor.setup(unseen)

    async def cleanup(self) -> None:
        """Cleans up the members."""
        await self._end_driver()
        await super().cleanup()
        await clean_up_all(self.processors)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Lets members answer what is theirs to answer; everything else passes."""
        # Not the services' base class: that is what the members do.
        await AIService.process_frame(self, frame, direction)
        if isinstance(frame, StartFrame):
            await self._start_members(frame)
        elif isinstance(frame, CancelFrame):
            await self._cancel_members(frame)
        elif isinstance(frame, (EndFrame, StopFrame)) and direction is DOWNSTREAM:
            await self._end_members(frame)
        elif isinstance(frame, StartInterruptionFrame):
            await self._interrupt(frame, direction)
        else:
            await self._take(frame, direction)

    async def push_frame(self, frame: Frame, direction: FrameDirection = DOWNSTREAM) -> None:
        """Pushes a frame. What a service does with its answers, a member has done already."""
        await FrameProcessor.push_frame(self, frame, direction)

    async def _start_members(self, frame: StartFrame) -> None:
        if self._driver is None:
            self._driver = self.create_task(self._drive(), "failover")
        crossings: list[asyncio.Future[bool]] = []
        for member in self._members:
            # The time to its first byte shows that a member is at work.
            copy = dataclasses.replace(frame, enable_metrics=True, report_only_initial_ttfb=False)
            copy.metadata = frame.metadata
            crossings.append(await member.cross(copy))
        if not await _settle_start(crossings):
            reasons = {member.index: member.last_failure for member in self._members}
            text = f"{self} cannot start, as none of its services can: {self._told(reasons)}"
            await self.push_error(ErrorFrame(text, fatal=True))
            return
        for member, crossing in zip(self._members, crossings, strict=True):
            if not crossing.done():
                self._member_failed(member, "not started in time")
        await self.push_frame(frame)

    async def _end_members(self, frame: Frame) -> None:
        """Lets the members end: first the one that answers, whose answer has to be complete."""
        ended = await self._end_answer(frame)
        others = [member for member in self._members if member is not ended]
        await asyncio.gather(*(self._end_member(member, frame) for member in others))
        await self._end_driver()
        await self.push_frame(frame)

    async def _end_answer(self, frame: Frame) -> Member[Service] | None:
        """Waits for what is under way, and lets the member that does it end; returns which."""
        return None

    async def _end_member(self, member: Member[Service], frame: Frame) -> None:
        crossing = await member.cross(frame)
        await asyncio.wait({crossing}, timeout=_END_SECS)
        if not crossing.done():
            logger.warning("service did not end in time", processor=self.name, service=member.name)

    async def _cancel_members(self, frame: CancelFrame) -> None:
        crossings = [await member.cross(frame) for member in self._members]
        await asyncio.wait(crossings, timeout=_CANCEL_SECS)
        await self._end_driver()
        await self.push_frame(frame)

    async def _interrupt(self, frame: StartInterruptionFrame, direction: FrameDirection) -> None:
        self._apply(self._failover.drop())
        for member in self._members:
            member.close()
            await member.give(frame, direction)
        await self.push_frame(frame, direction)

    # -- for the kinds of chains ---------------------------------------------------------------

    @abstractmethod
    async def _take(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes a frame that neither begins, ends nor interrupts."""

    @abstractmethod
    async def _begin_attempt(self, member: Member[Service], attempt: Attempt) -> None:
        """Opens a member and gives it the request under way."""

    @abstractmethod
    async def _begin_probe(self, member: Member[Service]) -> None:
        """Opens the member that is being probed and gives it the same."""

    @abstractmethod
    async def _output(
        self, member: Member[Service], frame: Frame, direction: FrameDirection
    ) -> None:
        """Takes what the member that is heard says."""

    @abstractmethod
    def _shows_health(self, frame: Frame) -> bool:
        """Whether a member that gives this in a probe works."""

    @abstractmethod
    async def _gave_up(self) -> None:
        """The request under way is over without an answer, or without the rest of it."""

    def _is_heard(self, member: Member[Service]) -> bool:
        """Whether what an open member says goes on."""
        return member is self._asked

    async def _reached_end(self, member: Member[Service]) -> None:
        """A member has dealt with all that it was given until `mark_end()`."""

    async def _came_through(self, member: Member[Service], frame: Frame) -> None:
        """A frame that a member was given has come out of it."""

    async def _switched(self) -> None:
        """Another member is the active one."""

    # -- frames --------------------------------------------------------------------------------

    async def _tell(self, frame: Frame, direction: FrameDirection) -> None:
        """Lets all members know of a frame that passes by them."""
        if not isinstance(frame, _NOT_FOR_MEMBERS):
            for member in self._members:
                await member.give(frame, direction)

    async def _change_settings(self, frame: ServiceUpdateSettingsFrame) -> None:
        """Changes settings of all members; what one vendor has named, of the first one only."""
        before = self._changed.settings if self._changed is not None else {}
        self._changed = type(frame)({**before, **frame.settings})
        for member in self._members:
            await self._give_settings(member, frame)

    async def _give_settings(
        self, member: Member[Service], frame: ServiceUpdateSettingsFrame
    ) -> None:
        settings = dict(frame.settings)
        if member.index:
            settings = {key: settings[key] for key in settings.keys() - _OF_ONE_VENDOR}
        if settings:
            await member.give(type(frame)(settings))

    async def _left_member(self, index: int, frame: Frame, direction: FrameDirection) -> None:
        """Takes what comes out of a member, in the member's task, which may end at any moment."""
        member = self._members[index]
        if isinstance(frame, ErrorFrame):
            if frame.fatal:
                member.forget_crossings()
            member.cause = frame.metadata.get("cause")
            self._member_failed(member, frame.error)
        elif member.was_given(frame):
            member.crossed(frame)
            if member.passed(frame):
                await self._reached_end(member)
            await self._came_through(member, frame)
        elif isinstance(frame, MetricsFrame):
            await self._pass_metrics(member, frame)
        elif member.is_open and member is self._probed:
            if self._shows_health(frame):
                self._apply(self._failover.probe_passed())
        elif member.is_open and self._is_heard(member):
            await self._output(member, frame, direction)
        else:
            self.statistics.frames_dropped += 1

    async def _pass_metrics(self, member: Member[Service], frame: MetricsFrame) -> None:
        """Passes measurements on, of all members; times only if they are wanted."""
        passed = []
        for data in frame.data:
            if isinstance(data, TTFBMetricsData):
                if not member.is_open or not self._is_heard(member):
                    continue  # it ends with what was broken off
                self._note_life()
                if self._ttfb_reported and self.report_only_initial_ttfb:
                    continue
                self._ttfb_reported = True
            timing = isinstance(data, (TTFBMetricsData, ProcessingMetricsData))
            if self.metrics_enabled or not timing:
                passed.append(data)
        if passed:
            frame.data = passed
            await self.push_frame(frame)

    # -- the state machine ---------------------------------------------------------------------

    def _now(self) -> float:
        return self.get_event_loop().time()

    def _member_failed(self, member: Member[Service], reason: str, *, certain: bool = True) -> None:
        self._apply(self._failover.fail(member.index, reason, self._now(), certain=certain))

    def _expect(self, *, certain: bool = True) -> None:
        """Something of an answer is due."""
        self._failover.expect(self._now(), certain=certain)
        self._set_timer()

    def _expect_more(self) -> None:
        """The member that answers is at work, and something more is due."""
        self._failover.expect_more(self._now())
        self._set_timer()

    def _note_life(self) -> None:
        """The member that answers shows that it is at work on what is due."""
        attempt = self._failover.attempt
        if attempt is not None and attempt.due_at is not None:
            self._expect_more()

    async def _pass_on(self, frame: Frame) -> None:
        """Pushes a piece of the answer. The time that the pipeline needs for it is not counted."""
        attempt = self._failover.attempt
        self._apply(self._failover.content(self._now()))
        await self.push_frame(frame)
        if attempt is not None and attempt is self._failover.attempt:
            self._expect_more()

    def _finish(self) -> None:
        """The answer under way is complete."""
        if self._asked is not None:
            self._asked.answers += 1
        self._apply(self._failover.finish())

    def _apply(self, actions: Sequence[Action]) -> None:
        """Has the driver do what the state machine wants.

        Not done at once: this may run in the task of the very member that is to be stopped.
        """
        for action in actions:
            if isinstance(action, Abandon):
                self._members[action.member].close()
            elif isinstance(action, Failed):
                member = self._members[action.member]
                member.failures += 1
                member.last_failure = action.reason
        self._actions.extend(actions)
        if actions:
            self._wake.set()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at = self._failover.wake_at
        if wake_at is not None and self._driver is not None:
            self._timer = self.get_event_loop().call_at(wake_at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._apply(self._failover.tick(self._now()))

    async def _drive(self) -> None:
        while True:
            while self._actions:
                action = self._actions.popleft()
                try:
                    await self._perform(action)
                except Exception as error:  # noqa: BLE001 - members' code runs in here
                    logger.opt(exception=error).error("failover failed", processor=self.name)
                    await self.push_error(ErrorFrame(f"{self}: {error}"))
            self._wake.clear()
            # Nothing to do until the next request, failure or deadline.
            await self._wake.wait()
            self.reset_watchdog()

    async def _perform(self, action: Action) -> None:
        match action:
            case Try(attempt=attempt):
                # Something may have ended it since.
                if attempt is self._failover.attempt:
                    member = self._members[attempt.member]
                    member.attempts += 1
                    await self._begin_attempt(member, attempt)
            case Abandon(member=index):
                await self._members[index].stop()
            case Probe(member=index):
                if self._failover.probing == index:
                    name = self._members[index].name
                    logger.debug("service probed", processor=self.name, service=name)
                    await self._begin_probe(self._members[index])
            case Failed(member=index, reason=reason):
                name = self._members[index].name
                logger.warning("service failed", processor=self.name, service=name, reason=reason)
                await self._call_event_handler("on_service_failed", name, reason)
            case Recovered(member=index):
                name = self._members[index].name
                logger.info("service recovered", processor=self.name, service=name)
                await self._call_event_handler("on_service_recovered", name)
            case Switch():
                await self._tell_switch(action)
                await self._switched()
            case GiveUp(reasons=reasons):
                await self._tell_failure(reasons)
                await self._gave_up()
            case NothingToSay():
                await self._gave_up()

    async def _open(self, member: Member[Service], *, urgent: bool = False) -> None:
        await member.open(urgent=urgent)
        if member.missed_settings and self._changed is not None:
            await self._give_settings(member, self._changed)
        member.missed_settings = False

    async def _tell_switch(self, switch: Switch) -> None:
        before, now = self._members[switch.from_member], self._members[switch.to_member]
        logger.warning(
            "service switched",
            processor=self.name,
            from_service=before.name,
            to_service=now.name,
            reason=switch.reason,
        )
        await self._call_event_handler("on_service_switched", before.name, now.name, switch.reason)
        if self.metrics_enabled:
            data = ServiceSwitchMetricsData(
                processor=self.name,
                model=now.service.model_name or None,
                from_name=before.name,
                to_name=now.name,
                reason=switch.reason,
            )
            await self.push_frame(MetricsFrame([data]))

    async def _tell_failure(self, reasons: Mapping[int, str]) -> None:
        error = ErrorFrame(f"no service could answer: {self._told(reasons)}")
        cause = self._members[list(reasons)[-1]].cause
        if cause is not None:
            error.metadata["cause"] = cause
        await self.push_error(error)
        named = {self._members[index].name: reason for index, reason in reasons.items()}
        await self._call_event_handler("on_all_services_failed", named)

    def _told(self, reasons: Mapping[int, str]) -> str:
        return "; ".join(f"{self._members[index].name}: {why}" for index, why in reasons.items())

    async def _end_driver(self) -> None:
        driver, self._driver = self._driver, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if driver is not None:
            await self.cancel_task(driver)
        self._actions.clear()


async def _settle_start(crossings: Sequence[asyncio.Future[bool]]) -> bool:
    """Waits until all have started, or one and the others take too long; whether one has."""
    until = asyncio.get_running_loop().time() + _START_SECS
    waiting = set(crossings)
    has_started = False
    while waiting:
        left = _OTHERS_START_SECS if has_started else until - asyncio.get_running_loop().time()
        done, waiting = await asyncio.wait(
            waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            break
        has_started = has_started or any(crossing.result() for crossing in done)
    return has_started


_HEALTH: dict[Health, Literal["healthy", "failing", "probing"]] = {
    Health.HEALTHY: "healthy",
    Health.FAILING: "failing",
    Health.PROBING: "probing",
}
