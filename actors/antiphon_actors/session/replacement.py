"""Carries out the recovery of one session's processors: the shell around `Recovery`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.errors import AntiphonError, PlacementError
from antiphon.frames.frames import BotStoppedSpeakingFrame, ErrorFrame, Frame, TTSSpeakFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.executor import Execution
from antiphon.pipeline.task_observer import TaskObserver
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.services.tts_service import TTSService
from antiphon_actors.channels import ChannelBroken, ChannelError
from antiphon_actors.placement.plan import PlacedProcessor, Plan
from antiphon_actors.session.edge import EdgeRelay
from antiphon_actors.session.node import SessionNode
from antiphon_actors.session.recovery import Action, GiveUp, Group, Recovery, Replace

if TYPE_CHECKING:
    from antiphon_actors.session.home import Host, HostProvider

ATTEMPT_DEADLINE_SECS = 8.0
GOODBYE_DEADLINE_SECS = 0.5
"""How long an actor that lives may take to end the part of a session that is taken from it."""

APOLOGY_DEADLINE_SECS = 8.0


@dataclass(frozen=True)
class RecoveryRecord:
    """Processors that were replaced in a session, for reports.

    Attributes:
        processors: Their names.
        reason: What had become of those before them.
        secs: From the loss to the moment at which frames flowed again.
        attempts: How many it took.
    """

    processors: tuple[str, ...]
    reason: str
    secs: float
    attempts: int


Attach = Callable[[Sequence[PlacedProcessor]], Awaitable[None]]
Ask = Callable[[str, str, list[Any]], Awaitable[Any]]


class Replacements:
    """Replaces processors of one session that are lost, or whose actors are to be left.

    Args:
        session_id: The session.
        node: The session at home.
        plan: Where its processors are.
        provider: Where actors come from.
        execution: The task's.
        hosts: The actor of each processor, by number; kept true.
        attached: The actors that have a part of the session, by address; kept true.
        attach: Builds processors, anew, in the actors that `hosts` names.
        ask: Asks an actor for something.
    """

    def __init__(
        self,
        *,
        session_id: str,
        node: SessionNode,
        plan: Plan,
        provider: HostProvider,
        execution: Execution,
        hosts: MutableMapping[int, Host],
        attached: MutableMapping[str, Host],
        attach: Attach,
        ask: Ask,
    ) -> None:
        self._session_id = session_id
        self._node = node
        self._plan = plan
        self._provider = provider
        self._execution = execution
        self._hosts = hosts
        self._attached = attached
        self._attach = attach
        self._ask = ask
        self._machine = Recovery(_groups(plan))
        # The present attempt, and earlier ones that still give something back.
        self._attempts: set[asyncio.Task[None]] = set()
        # Of failed attempts: what the processors had before, to be given back when one succeeds.
        self._former: list[Host] = []
        self._timer: asyncio.TimerHandle | None = None
        self._farewell: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._settled.set()
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """The session's parts are built and joined: from now on, one can be put in another's place."""
        self._begun.set()

    @property
    def attempts(self) -> int:
        """How often processors were replaced, the present attempt included."""
        return self._machine.attempt

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What is under way."""
        found = {*self._attempts, *([self._farewell] if self._farewell is not None else [])}
        return {task for task in found if not task.done()}

    @property
    def records(self) -> list[RecoveryRecord]:
        """What was replaced so far."""
        return [
            RecoveryRecord(tuple(self._names(each.pids)), each.reason, each.secs, each.attempts)
            for each in self._machine.history
        ]

    def lost(self, uri: str, error: Exception) -> None:
        """Takes note of a process that is gone, or does not answer."""
        pids = self._pids_at(uri)
        if not pids:
            return
        names = ", ".join(self._names(pids))
        reason = f"the actor of {names} is gone: {error}"
        logger.warning(
            "processors lost", session_id=self._session_id, processors=names, error=str(error)
        )
        self._perform(self._machine.lost(pids, reason, self._now()))

    async def move(self, uris: Iterable[str], reason: str, deadline_secs: float) -> list[str]:
        """Has the processors of some actors run in others, without a loss.

        Args:
            uris: The actors.
            reason: Why, for people.
            deadline_secs: How long it may take.

        Returns:
            Names of those that could not be moved in time.
        """
        pids = {pid for uri in uris for pid in self._pids_at(uri)}
        if pids:
            self._perform(self._machine.moved(pids, reason, self._now()))
        try:
            async with asyncio.timeout(deadline_secs):
                await self._settled.wait()
        except TimeoutError:
            pass
        wanted = set(uris)
        return self._names(pid for pid in pids if self._hosts[pid].uri in wanted)

    async def aclose(self) -> None:
        """Replaces nothing more; what is under way is given up."""
        self._machine.end()
        if self._timer is not None:
            self._timer.cancel()
        tasks = self.tasks
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- inside --------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _pids_at(self, uri: str) -> list[int]:
        return [pid for pid, host in self._hosts.items() if host.uri == uri]

    def _names(self, pids: Iterable[int]) -> list[str]:
        wanted = set(pids)
        return [each.processor.name for each in self._plan.moved if each.pid in wanted]

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Replace):
                task = asyncio.get_running_loop().create_task(
                    self._attempt(action), name=f"replace processors of {self._session_id}"
                )
                self._attempts.add(task)
                task.add_done_callback(self._attempts.discard)
            elif isinstance(action, GiveUp):
                self._give_up(action.reason)
        if self._machine.missing:
            self._settled.clear()
        else:
            self._settled.set()
        if self._timer is not None:
            self._timer.cancel()
        due = self._machine.wake_at()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        self._perform(self._machine.tick(self._now()))

    async def _attempt(self, action: Replace) -> None:
        try:
            async with asyncio.timeout(ATTEMPT_DEADLINE_SECS):
                old = await self._replace(action.pids)
        except TimeoutError:
            self._failed(action, f"it took longer than {ATTEMPT_DEADLINE_SECS:g} s")
        except AntiphonError as error:
            self._failed(action, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the session has to go on or end
            logger.opt(exception=error).error(
                "an attempt to replace processors broke", session_id=self._session_id
            )
            self._failed(action, f"{type(error).__name__}: {error}")
        else:
            self._succeeded(action)
            # Frames flow again, and nobody waits for this.
            await self._provider.give_back(self._session_id, old)

    def _failed(self, action: Replace, why: str) -> None:
        logger.warning(
            "processors not replaced",
            session_id=self._session_id,
            processors=self._names(action.pids),
            error=why,
        )
        self._perform(self._machine.failed(action.attempt, why, self._now()))

    def _succeeded(self, action: Replace) -> None:
        self._perform(self._machine.replaced(action.attempt, self._now()))
        for recovered in list(self._machine.history)[-1:]:
            logger.info(
                "processors replaced",
                session_id=self._session_id,
                processors=self._names(recovered.pids),
                seconds=round(recovered.secs, 3),
                attempts=recovered.attempts,
            )

    async def _replace(self, pids: frozenset[int]) -> list[Host]:
        """Has processors run elsewhere; returns the actors that they had."""
        await self._begun.wait()
        node, hosts = self._node, self._hosts
        left = {hosts[pid].uri for pid in pids}
        # Whoever shares a process with one of them goes with it.
        moved = [each for each in self._plan.moved if hosts[each.pid].uri in left]
        await asyncio.gather(*(self._leave(uri) for uri in left))
        old = {each.pid: hosts[each.pid] for each in moved}
        found = await self._provider.acquire(
            self._session_id,
            moved,
            avoid=list({host.uri: host for host in hosts.values()}.values()),
        )
        relays = [relay for each in moved if (relay := _relay(each.processor)) is not None]
        for each, host in zip(moved, found, strict=True):
            hosts[each.pid] = host
            node.welcome(host.uri)
        new = {host.uri for host in found}
        try:
            for relay in relays:
                relay.hold_posts()
            await self._attach(moved)
            await asyncio.gather(*(self._ask(uri, "open_edges", []) for uri in new))
            for each in moved:
                if (relay := _relay(each.processor)) is not None:
                    await relay.set_up_at(hosts[each.pid].uri)
            addresses = {each.pid: hosts[each.pid].uri for each in moved}
            entries = [[pid, uri] for pid, uri in addresses.items()]
            others = [uri for uri in self._attached if uri not in new and not node.is_lost(uri)]
            await node.relink(addresses)
            await asyncio.gather(*(self._relink_at(uri, entries) for uri in others))
            # What waited for several of the new ones has been sent, and goes on in that order.
            await asyncio.gather(*(self._ask(uri, "go_on", []) for uri in new))
        except BaseException:
            for uri in new:
                await self._leave(uri)
            await self._provider.give_back(self._session_id, list(found))
            self._former += [host for host in old.values() if host not in self._former]
            raise
        finally:
            for relay in relays:
                relay.release_posts()
        former, self._former = self._former, []
        return [*former, *old.values()]

    async def _relink_at(self, uri: str, entries: list[list[Any]]) -> None:
        try:
            await self._ask(uri, "relink", [entries])
        except ChannelError as error:
            if not self._node.is_lost(uri):
                raise PlacementError(f"a neighbour was not joined again: {error}") from error
            # It is lost in its turn, and opens its own ways when it is replaced.

    async def _leave(self, uri: str) -> None:
        """Ends the session's part in an actor, if that lives, and has nothing more to do with it."""
        self._attached.pop(uri, None)
        if not self._node.is_lost(uri):
            try:
                # Cannot be called back: a blocked one does it in its own time.
                self._node.notify(uri, "end", [GOODBYE_DEADLINE_SECS])
                async with asyncio.timeout(GOODBYE_DEADLINE_SECS):
                    await self._ask(uri, "detach", [])
            except (ChannelError, TimeoutError) as error:
                logger.debug("actor left without a goodbye", uri=uri, error=str(error))
        self._node.expel(uri)

    # -- the end -------------------------------------------------------------------------------

    def _give_up(self, reason: str) -> None:
        logger.error("session cannot go on", session_id=self._session_id, reason=reason)
        self._farewell = asyncio.get_running_loop().create_task(
            self._say_goodbye(reason), name=f"end {self._session_id}"
        )

    async def _say_goodbye(self, reason: str) -> None:
        """Apologises, if the bot wants that and can, and ends the session."""
        apology = self._plan.placement.apology
        missing = self._machine.missing
        if apology:
            speaker = next(
                (
                    each.processor
                    for each in self._plan.workers
                    if isinstance(each.processor, TTSService) and each.pid not in missing
                ),
                None,
            )
            if speaker is not None:
                await self._speak(speaker, apology)
        for uri in {self._hosts[pid].uri for pid in missing}:
            self._node.give_up(uri, ChannelBroken(reason))
        self._execution.fail(ErrorFrame(error=reason, fatal=True))

    async def _speak(self, speaker: FrameProcessor, text: str) -> None:
        spoken = _Spoken()
        observer = self._execution.setup.observer
        if isinstance(observer, TaskObserver):
            observer.add_observer(spoken)
        try:
            async with asyncio.timeout(APOLOGY_DEADLINE_SECS):
                await speaker.queue_frame(TTSSpeakFrame(text))
                await spoken.over.wait()
        except TimeoutError:
            logger.warning("the apology was not spoken", session_id=self._session_id)
        finally:
            if isinstance(observer, TaskObserver):
                await observer.remove_observer(spoken)


class _Spoken(BaseObserver):
    """Notices that the bot has stopped speaking."""

    def __init__(self) -> None:
        super().__init__()
        self.over = asyncio.Event()

    async def on_push_frame(self, data: FramePushed) -> None:
        """Looks at a frame."""
        frame: Frame = data.frame
        if isinstance(frame, BotStoppedSpeakingFrame):
            self.over.set()


def _relay(processor: FrameProcessor) -> EdgeRelay | None:
    relay = processor._relay
    return relay if isinstance(relay, EdgeRelay) else None


def _groups(plan: Plan) -> list[Group]:
    """The processors in actors, by who supervises them."""
    groups: list[Group] = []
    for placed in plan.moved:
        supervision = plan.placement.supervision_for(placed.processor)
        for group in groups:
            if group.supervision is supervision:
                group.pids = (*group.pids, placed.pid)
                break
        else:
            groups.append(Group(supervision, (placed.pid,)))
    return groups
