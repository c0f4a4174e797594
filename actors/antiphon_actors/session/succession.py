"""How a processor takes the place of one that was lost, in the actor that hosts it.

It was built as the lost one was. Now it is started as that was started, gets the state that was kept of
that and the settings it had been given, and then the frames that it had not answered. What the lost
one had pushed already it does not push again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack
from loguru import logger

from antiphon.frames import codec
from antiphon.frames.frames import ErrorFrame, Frame, StartFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.inbox import LocalInbox
from antiphon.processors.lane import FrameCallback
from antiphon.utils.asyncio.receipts import LooseReceipt, NamedReceipt, Receipt, current_receipt
from antiphon_actors.session.edge import EdgeInbox
from antiphon_actors.session.incoming import Source
from antiphon_actors.session.kept import merge_positions, slot_of
from antiphon_actors.session.progress import SentBefore
from antiphon_actors.session.receivers import FrameReceiver

if TYPE_CHECKING:
    from antiphon_actors.session.node import SessionNode
    from antiphon_actors.session.spec import Inheritance

START_DEADLINE_SECS = 20.0
"""How long a successor may take to start; it gets no frames before."""


class _Quiet(LooseReceipt):
    """Receipt of a frame that is repeated for the processor alone: nobody else is to hear of it.

    Attributes:
        over: Set when it is processed, with all that came of it in this process.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self._holds = 1

    def done(self) -> None:
        """The frame was processed."""
        self.release()

    def hold(self) -> None:
        """Something is still to come."""
        self._holds += 1

    def release(self) -> None:
        """Takes one `hold` back."""
        self._holds -= 1
        if self._holds <= 0:
            self.over.set()


class _Again(NamedReceipt):
    """Receipt of the StartFrame, given again, where it may not have reached the neighbours.

    Attributes:
        over: Set when it is processed.
    """

    def __init__(self, origin: int) -> None:
        super().__init__(origin)
        self.over = asyncio.Event()

    def done(self) -> None:
        """The frame was processed."""
        self.over.set()


class Underway:
    """Counts what processors of one process have given each other and not answered.

    Meanwhile the states of those that gave it are ahead of those that have it.
    """

    __slots__ = ("_holds",)

    def __init__(self) -> None:
        """Begins with nothing."""
        self._holds = 0

    def __bool__(self) -> bool:
        return self._holds > 0

    def more(self) -> None:
        """Something more is to be answered."""
        self._holds += 1

    def less(self) -> None:
        """Something is answered."""
        self._holds -= 1


class _Derived:
    """Receipt of a frame that one processor gives another in the same process."""

    __slots__ = ("_open", "_source", "_underway")

    def __init__(self, source: Receipt, underway: Underway) -> None:
        self._source = source
        self._underway = underway
        self._open = True
        self.hold()

    @property
    def origin(self) -> int:
        """That of the frame that it came of, from another process."""
        return self._source.origin

    def next_ordinal(self, upstream: bool) -> int:
        """Numbers what is pushed because of that frame."""
        return self._source.next_ordinal(upstream)

    def done(self) -> None:
        """The frame was processed or dropped."""
        if self._open:
            self._open = False
            self.release()

    def hold(self) -> None:
        """Holds the frame that it came of."""
        self._underway.more()
        self._source.hold()

    def release(self) -> None:
        """Takes one `hold` back."""
        self._underway.less()
        self._source.release()

    async def safe(self) -> None:
        """Waits for the frame that it came of."""
        await self._source.safe()


class ChainedInbox(LocalInbox):
    """The inbox of a processor with a neighbour in its process.

    What a frame from another process leads to there is not over when the first processor is done.
    """

    def __init__(self, owner: FrameProcessor, underway: Underway) -> None:
        """Makes an inbox whose tasks do not run yet.

        Args:
            owner: The processor.
            underway: Counts what its neighbours in the process give it.
        """
        super().__init__(owner)
        self._underway = underway

    def put_nowait(
        self,
        frame: Frame,
        direction: FrameDirection,
        callback: FrameCallback | None = None,
        receipt: Receipt | None = None,
        sent_ns: int | None = None,
    ) -> None:
        """Takes a frame, and holds the one that it came of until it is processed."""
        if receipt is None and (source := current_receipt()) is not None:
            receipt = _quiet_of(source) or _Derived(source, self._underway)
        super().put_nowait(frame, direction, callback, receipt, sent_ns)


def _quiet_of(receipt: Receipt) -> Receipt | None:
    if isinstance(receipt, _Quiet) and not receipt.over.is_set():
        receipt.hold()
        return receipt
    return None


class Succession:
    """The processors of one session in this process that have predecessors."""

    def __init__(
        self,
        node: SessionNode,
        processors: Mapping[int, FrameProcessor],
        inheritances: Mapping[int, Inheritance],
    ) -> None:
        """Takes over; frames may come in from now on.

        Args:
            node: The session in this process.
            processors: The processors here, by number.
            inheritances: What those with predecessors are to know of them.
        """
        self._node = node
        self._processors = processors
        self._inheritances = dict(inheritances)
        self._sent: dict[tuple[int, FrameDirection], SentBefore] = {}
        self._answered: dict[int, tuple[int, int]] = {}
        self._restored: set[int] = set()
        # Of those with a kept state, the ones that do not have it yet.
        self._unrestored = {
            pid for pid, each in inheritances.items() if each.kept.state is not None
        }
        # Streams by which neighbours have joined, by slot: whether what starts a processor has been
        # taken over; None where there was nothing to take over.
        self._joined: dict[int, bool | None] = {}
        # What has been taken over, to be let in when that is so with all, and the neighbours' other
        # streams are there: frames of several go in as they were sent.
        self._waiting: list[tuple[FrameReceiver, bool]] = []
        self._taking_over = 0
        self._all_joined = False
        # Set when a processor is started and has its state.
        self._ready = {pid: asyncio.Event() for pid in inheritances}
        for inheritance in inheritances.values():
            # Processors of one process tell of their states together, but only of those that have
            # changed: the newest positions are those of all.
            merge_positions(self._answered, inheritance.kept.positions)
        for pid in inheritances:
            processors[pid]._pushed_before = partial(self._new_part, pid)
        node.incoming.began = self._began

    @property
    def complete(self) -> bool:
        """Whether every processor has the state that was kept for it."""
        return not self._unrestored

    def learn(self) -> None:
        """Takes in what the neighbours said when the ways to them were opened."""
        for pid in self._inheritances:
            processor = self._processors[pid]
            for neighbour, direction in (
                (processor._next, FrameDirection.DOWNSTREAM),
                (processor._prev, FrameDirection.UPSTREAM),
            ):
                inbox = neighbour._inbox if neighbour is not None else None
                if not isinstance(inbox, EdgeInbox):
                    continue
                for way, greeting in inbox.progress_there():
                    if way is direction:
                        self._sent[pid, direction] = SentBefore(msgpack.unpackb(greeting))

    def go_on(self) -> None:
        """All neighbours have joined: lets their frames in as soon as all is taken over."""
        self._all_joined = True
        self._let_in()

    def _let_in(self) -> None:
        if not self._all_joined or self._taking_over:
            return
        waiting, self._waiting = self._waiting, []
        queues = [
            [(receiver, *kept) for kept in receiver.stop_waiting(started=started)]
            for receiver, started in waiting
        ]
        for receiver, frame, delivery in heapq.merge(*queues, key=lambda each: each[2].sent_ns):
            receiver.take(frame, delivery)

    def _new_part(self, pid: int, frame: Frame, direction: FrameDirection) -> Frame | None:
        receipt = current_receipt()
        if receipt is None or isinstance(frame, ErrorFrame):
            return frame
        if isinstance(receipt, _Quiet):
            if receipt.over.is_set():
                return frame
            # Within the process it goes on, as quietly.
            neighbour = self._neighbour(pid, direction)
            return frame if neighbour in self._processors.values() else None
        sent = self._sent.get((pid, direction))
        if sent is None:
            return frame
        rest = sent.new_part(receipt.origin, frame)
        if rest is None:
            # It has a number all the same, as it had with the predecessor.
            receipt.next_ordinal(direction is FrameDirection.UPSTREAM)
        if not sent:
            del self._sent[pid, direction]
        return rest

    def _neighbour(self, pid: int, direction: FrameDirection) -> FrameProcessor | None:
        processor = self._processors[pid]
        return processor._next if direction is FrameDirection.DOWNSTREAM else processor._prev

    def _began(self, pid: int, way: FrameDirection, source: Source) -> None:
        """A stream to a successor begins: first comes what it has to know."""
        inheritance = self._inheritances.get(pid)
        receiver = source.receiver
        if inheritance is None or receiver is None:
            return
        answered = self._answered.get(source.slot, (0, 0))
        receiver.skip(*answered)
        if source.slot in self._joined:
            # The neighbour was lost in its turn, and this is its successor.
            started = self._joined[source.slot]
            if started is not None:
                receiver.wait()
                self._waiting.append((receiver, started))
                self._let_in()
            return
        ordered, urgent = source.progress.ordered, source.progress.urgent
        self._joined[source.slot] = None
        settings = [
            frame
            for (slot, is_urgent, seq), frame in inheritance.kept.settings
            if slot == source.slot and seq <= (urgent if is_urgent else ordered)
        ]
        has_started = inheritance.started or inheritance.kept.state is not None
        if source.slot == slot_of(pid, FrameDirection.DOWNSTREAM.value, 0):
            # A StartFrame that has not been answered comes by itself.
            start = inheritance.started or urgent > 0 or answered[1] > 0
            if inheritance.start_frame is None or not start:
                self._unrestored.clear()
                for ready in self._ready.values():
                    ready.set()
            else:
                self._wait_for(source.slot, receiver, self._begin(pid, source, settings), True)
        elif has_started or settings:
            taken = self._take_over(pid, way, settings)
            self._wait_for(source.slot, receiver, taken, False)

    def _wait_for(
        self, slot: int, receiver: FrameReceiver, taken: Coroutine[Any, Any, bool], started: bool
    ) -> None:
        """Lets frames in when what was before them has been taken over."""
        receiver.wait()
        self._joined[slot] = started
        self._taking_over += 1

        async def take_over() -> None:
            # If it fails, the session ends.
            if await taken:
                self._taking_over -= 1
                self._waiting.append((receiver, started))
                self._let_in()

        self._node.spawn(take_over())

    async def _begin(self, pid: int, source: Source, settings: list[bytes]) -> bool:
        """Starts a successor, gives it what was kept, and repeats settings; whether it could."""
        processor, inheritance = self._processors[pid], self._inheritances[pid]
        assert inheritance.start_frame is not None
        frame = self._node.decode_frame(inheritance.start_frame)
        assert isinstance(frame, StartFrame)
        # Of the first frame on the urgent lane; what it led to is known there, or is new.
        again = None if inheritance.started else _Again(source.slot << 48 | 1 << 1 | 1)
        try:
            async with asyncio.timeout(START_DEADLINE_SECS):
                await self._repeat(processor, frame, FrameDirection.DOWNSTREAM, again)
                await self._restore()
        except Exception as error:  # noqa: BLE001 - code of a bot's processors
            await self._failed(processor, error)
            return False
        for each, ready in self._ready.items():
            if self._processors[each]._started:
                ready.set()
        return await self._take_over(pid, FrameDirection.DOWNSTREAM, settings)

    async def _take_over(self, pid: int, way: FrameDirection, settings: list[bytes]) -> bool:
        """Gives a successor its settings when it has started; whether it could."""
        processor = self._processors[pid]
        try:
            async with asyncio.timeout(START_DEADLINE_SECS):
                await self._ready[pid].wait()
                for setting in settings:
                    await self._repeat(processor, self._node.decode_frame(setting), way)
        except Exception as error:  # noqa: BLE001 - code of a bot's processors
            await self._failed(processor, error)
            return False
        return True

    async def _failed(self, processor: FrameProcessor, error: Exception) -> None:
        logger.opt(exception=error).error(
            "a processor could not take the place of a lost one",
            session_id=self._node.session_id,
            processor=processor.name,
        )
        text = f"processor {processor.name} could not be started anew: {error!r}"
        await processor.push_error(ErrorFrame(error=text, fatal=True))

    async def _repeat(
        self,
        processor: FrameProcessor,
        frame: Frame,
        direction: FrameDirection,
        receipt: _Quiet | _Again | None = None,
    ) -> None:
        receipt = receipt or _Quiet()
        processor._local_inbox.put_nowait(frame, direction, None, receipt)
        await receipt.over.wait()

    async def _restore(self) -> None:
        """Gives the processors here that are started what was kept of their predecessors' states."""
        for pid, inheritance in self._inheritances.items():
            processor, state = self._processors[pid], inheritance.kept.state
            if state is not None and processor._started and pid not in self._restored:
                self._restored.add(pid)
                await processor.restore(codec.decode_value(state, self._node.references))
                self._unrestored.discard(pid)
