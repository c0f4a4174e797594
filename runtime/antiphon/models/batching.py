"""Which requests are worked on together, and when: a state machine without threads and without a clock.

Who has it feeds it what happened (a request came or was cancelled, a batch was done) with the time in
seconds of any monotonic clock, and asks what to do next. It learns from the batches how long one takes,
`fixed + each * size`, and adapts to that and to how densely requests come:

- A request waits for others only while that costs those who wait less than the fixed part of a batch, which
  the next one would otherwise pay again. So nobody waits at low load, and batches fill up at high load by
  themselves, because requests gather while a batch is worked on.
- A batch is no larger than what is expected to be done within the time that its oldest request has left, and
  within `Limits.batch_secs`.
- A request is refused at once if the queue is full or if it is expected to be done too late.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from antiphon.models.model import Item, Model, SessionState

# Weight that a batch keeps in what is learned about their times when another one is done.
_MEMORY = 0.98
# The same for the time between two requests.
_GAP_MEMORY = 0.9
# What a refused request is told to wait at least.
_LEAST_RETRY_SECS = 0.001


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the batches and the queue; the attributes of `Model`, with the defaults filled in.

    Attributes:
        max_batch: As there.
        max_queued: As there.
        longest_wait_secs: As there.
        batch_secs: As there.
    """

    max_batch: int
    max_queued: int
    longest_wait_secs: float = 0.0
    batch_secs: float | None = None

    @property
    def most(self) -> int:
        """Requests that there may be at a time: those that wait and a batch."""
        return self.max_queued + self.max_batch

    @classmethod
    def of(cls, model: Model) -> Limits:
        """Those of a model."""
        queued = 4 * model.max_batch if model.max_queued is None else model.max_queued
        return cls(model.max_batch, queued, model.longest_wait_secs, model.batch_secs)


class Request(Item):
    """A request in the queue.

    Attributes:
        deadline: When its answer is of no use any more.
        key: Of the caller, to recognise it by.
        arrived: When it came.
        attempts: Processes that were lost while they had it.
        started: When its batch was begun; 0 before.
        result: Of the model, or the exception it failed with.
        exported: The state of its session after it, if that was asked for.
        group_key: What it shares with those that may be in its batch.
    """

    __slots__ = (
        "arrived",
        "attempts",
        "deadline",
        "exported",
        "group_key",
        "key",
        "result",
        "started",
    )

    def __init__(
        self, payload: Any, deadline: float, key: Any = None, session: SessionState | None = None
    ) -> None:
        # What `Item` does; a request is made thousands of times a second.
        self.payload = payload
        self.session = session
        self.cancelled = False
        self.deadline = deadline
        self.key = key
        self.arrived = 0.0
        self.attempts = 0
        self.started = 0.0
        self.result: Any = None
        self.exported: Any = None
        self.group_key: Hashable = None


class BatchTimes:
    """How long batches take by their size: a straight line through those seen lately.

    Attributes:
        known: Whether any batch was seen.
        fixed: Seconds of any batch, whatever its size; never negative.
        each: Seconds of each request in it besides; never negative.
    """

    __slots__ = ("_n", "_secs", "_size", "_size_secs", "_size_size", "each", "fixed", "known")

    def __init__(self) -> None:
        self._n = self._size = self._size_size = self._secs = self._size_secs = 0.0
        self.known = False
        self.fixed = self.each = 0.0

    def add(self, size: int, secs: float) -> None:
        """Takes note of a batch."""
        self._n = self._n * _MEMORY + 1
        self._size = self._size * _MEMORY + size
        self._size_size = self._size_size * _MEMORY + size * size
        self._secs = self._secs * _MEMORY + secs
        self._size_secs = self._size_secs * _MEMORY + size * secs
        self.known = True
        mean_size, mean_secs = self._size / self._n, self._secs / self._n
        spread = self._size_size / self._n - mean_size * mean_size
        # Where all are of one size nothing tells the parts apart. To have no fixed part is the cautious
        # guess: a full queue then takes longest.
        self.each = mean_secs / mean_size
        if spread > 0.05 * mean_size:
            slope = (self._size_secs / self._n - mean_size * mean_secs) / spread
            self.each = min(max(slope, 0.0), self.each)
        self.fixed = max(mean_secs - self.each * mean_size, 0.0)

    def of(self, size: int) -> float:
        """What a batch of a size is expected to take."""
        return self.fixed + self.each * size


class Batcher:
    """The queue of one model.

    Args:
        limits: Its bounds.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.times = BatchTimes()
        # Who may be in a batch now, in the order of arrival; empty groups are removed. An OrderedDict,
        # because taking the first of a plain one costs more with each that was taken before.
        self._groups: dict[Hashable, OrderedDict[Request, None]] = {}
        # Behind an earlier request of the same session, which waits or is worked on.
        self._behind: dict[SessionState, deque[Request]] = {}
        self._queued = 0
        self._running: list[Request] = []
        self._started = 0.0
        self._last_arrival = -math.inf
        self._gap = math.inf

    # --- events ---------------------------------------------------------------------------------

    def add(self, request: Request, now: float) -> float | None:
        """A request comes.

        Returns:
            None if it was taken; for one that is refused, after how many seconds another attempt makes
            sense.
        """
        wait = self.expected_wait_secs(now)
        if self._queued >= self.limits.max_queued or now + wait > request.deadline:
            # By then half of those that wait have been served: later, there might be nothing to do.
            return max(wait / 2, _LEAST_RETRY_SECS)
        gap = now - self._last_arrival
        if gap < math.inf:
            known = self._gap < math.inf
            self._gap = _GAP_MEMORY * self._gap + (1 - _GAP_MEMORY) * gap if known else gap
        self._last_arrival = now
        request.arrived = now
        self._queued += 1
        session = request.session
        if session is None:
            self._line_up(request)
        elif session in self._behind:
            self._behind[session].append(request)
        else:
            self._behind[session] = deque()
            self._line_up(request)
        return None

    def cancel(self, request: Request) -> bool:
        """Nobody waits for a request any more.

        Returns:
            Whether it has left the queue. If not, it is being worked on, or was never in it.
        """
        request.cancelled = True
        group = self._groups.get(request.group_key)
        if group is not None and request in group:
            self._take_out(request)
            self._let_next_in(request)
            return True
        behind = self._behind.get(request.session) if request.session is not None else None
        if behind is not None and request in behind:
            behind.remove(request)
            self._queued -= 1
            return True
        return False

    def take(self, now: float) -> tuple[list[Request], list[Request]]:
        """Asks what to do next.

        Returns:
            The batch to begin with now, empty if none; and requests whose time was over before they were
            worked on.
        """
        batch: list[Request] = []
        late: list[Request] = []
        while self._groups and not batch and not self._running:
            group = self._oldest_group()
            oldest = next(iter(group))
            limit = self._size_limit(oldest, now)
            in_time = oldest.deadline > now
            if in_time and len(group) < limit and self._wait_until(group, now) > now:
                break
            while group and len(batch) < limit:
                request = next(iter(group))
                self._take_out(request)
                if request.deadline > now:
                    request.started = now
                    batch.append(request)
                    continue
                late.append(request)
                self._let_next_in(request)
                if not batch:
                    break  # another one is the oldest now
        if batch:
            self._running = batch
            self._started = now
        return batch, late

    def finished(self, now: float, secs: float) -> list[Request]:
        """The batch is done.

        Args:
            now: The time.
            secs: How long the model took for it.

        Returns:
            The requests of the batch.
        """
        batch, self._running = self._running, []
        self.times.add(len(batch), secs)
        for request in batch:
            self._let_next_in(request)
        return batch

    def clear(self) -> list[Request]:
        """Empties the queue; returns who waited in it."""
        waiting = [request for group in self._groups.values() for request in group]
        waiting += [request for behind in self._behind.values() for request in behind]
        self._groups.clear()
        self._behind = {
            request.session: deque() for request in self._running if request.session is not None
        }
        self._queued = 0
        return waiting

    # --- questions ------------------------------------------------------------------------------

    def wake_at(self, now: float) -> float | None:
        """When `take` has to be asked again if nothing happens; None if only an event changes anything."""
        if self._running or not self._groups:
            return None
        return self._wait_until(self._oldest_group(), now)

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self._queued

    @property
    def running(self) -> int:
        """How many are worked on."""
        return len(self._running)

    def longest_wait_secs(self, now: float) -> float:
        """How long the first of those in line has been waiting; 0 if nobody is."""
        return now - next(iter(self._oldest_group())).arrived if self._groups else 0.0

    def batch_secs(self, now: float) -> float:
        """How long the present batch has been worked on; 0 if there is none."""
        return now - self._started if self._running else 0.0

    def expected_wait_secs(self, now: float) -> float:
        """From now until a further request would be answered, if all are worked on in full batches."""
        ahead = self._queued + 1
        batches = -(-ahead // self.limits.max_batch)
        secs = self.times.fixed * batches + self.times.each * ahead
        if self._running:
            secs += max(self.times.of(len(self._running)) - (now - self._started), 0.0)
        return secs

    # --- inside ---------------------------------------------------------------------------------

    def _line_up(self, request: Request) -> None:
        group = self._groups.get(request.group_key)
        if group is None:
            group = self._groups[request.group_key] = OrderedDict()
        group[request] = None

    def _take_out(self, request: Request) -> None:
        """Takes one that waits in its group out of the queue."""
        group = self._groups[request.group_key]
        del group[request]
        if not group:
            del self._groups[request.group_key]
        self._queued -= 1

    def _let_next_in(self, request: Request) -> None:
        """Lines up the next request of the session of one that is over."""
        session = request.session
        if session is None:
            return
        behind = self._behind.get(session)
        if behind:
            self._line_up(behind.popleft())
        else:
            self._behind.pop(session, None)

    def _oldest_group(self) -> OrderedDict[Request, None]:
        if len(self._groups) == 1:
            return next(iter(self._groups.values()))
        return min(self._groups.values(), key=lambda group: next(iter(group)).arrived)

    def _size_limit(self, oldest: Request, now: float) -> int:
        """The largest batch that is done in time, as far as is known; at least one."""
        secs = oldest.deadline - now
        if self.limits.batch_secs is not None:
            secs = min(secs, self.limits.batch_secs)
        if self.times.of(self.limits.max_batch) <= secs:
            return self.limits.max_batch
        if secs <= self.times.of(1):
            return 1
        return int((secs - self.times.fixed) / self.times.each)

    def _wait_until(self, group: OrderedDict[Request, None], now: float) -> float:
        """Until when a group that is not full is held back for more."""
        if self.limits.longest_wait_secs <= 0 or not self.times.known:
            return now
        oldest = next(iter(group))
        # Since the last arrival it may have become quiet.
        gap = max(self._gap, now - self._last_arrival)
        if gap * len(group) >= self.times.fixed:
            return now
        pays_until = self._last_arrival + self.times.fixed / len(group)
        in_time = oldest.deadline - self.times.of(len(group) + 1)
        return min(oldest.arrived + self.limits.longest_wait_secs, pays_until, in_time)
