"""Which member of a chain answers: a state machine without I/O.

A chain feeds it what happened (a request came, a member gave something or failed, time passed) with the
time it happened, and performs the actions it returns. Nothing here waits, reads a clock or knows what a
service is.

A member is healthy, failing, or being probed: a failing member that is due gets a request beside the
one that answers it, and what it says to that is thrown away. One request is under way at a time, and
one member at a time answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto


class Health(Enum):
    """What is known of a member.

    Attributes:
        HEALTHY: It may be asked.
        FAILING: It has failed; asked only if nobody else is left, and probed when it is due.
        PROBING: It is answering a request beside the member that is heard.
    """

    HEALTHY = auto()
    FAILING = auto()
    PROBING = auto()


@dataclass(frozen=True, slots=True)
class Limits:
    """How long members may take, and how long they are left alone. All in seconds.

    Attributes:
        attempt_secs: Until the first piece of an answer.
        stall_secs: From one piece to the next; None for no limit.
        total_secs: For one member's whole answer; None for no limit.
        probe_secs: From a failure to the first probe; doubles with each further failure.
        probe_limit_secs: The longest such pause.
        jitter: Part of the pause, 0 to 1, by which it is made longer or shorter at random, so that
            many sessions do not probe at the same moment.
        resumes: Whether another member may continue an answer of which something has gone on.
    """

    attempt_secs: float
    stall_secs: float | None = None
    total_secs: float | None = None
    probe_secs: float = 5.0
    probe_limit_secs: float = 120.0
    jitter: float = 0.2
    resumes: bool = True

    @property
    def answer_secs(self) -> float:
        """For an answer that comes as a whole."""
        return self.total_secs or self.attempt_secs + (self.stall_secs or 0.0)


@dataclass(slots=True)
class Attempt:
    """A member's try at the request under way.

    Attributes:
        member: Who tries.
        resumes: Whether it continues what another member has begun.
        due_at: When it has failed unless something comes; None while nothing is expected.
        ends_at: When it has to be over; None for no limit.
        certain: Whether nothing by `due_at` means that it failed, rather than that there is nothing.
    """

    member: int
    resumes: bool
    due_at: float | None = None
    ends_at: float | None = None
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Try:
    """Ask this member; nobody else is answering."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Abandon:
    """What this member still says to the request is not wanted; stop it."""

    member: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask this member the same beside the one that answers, and throw its answer away."""

    member: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A member has failed, in an attempt, a probe or by itself."""

    member: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """A member that was failing is healthy again."""

    member: int


@dataclass(frozen=True, slots=True)
class Switch:
    """Another member answers from now on."""

    from_member: int
    to_member: int
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The request is over without an answer, or without the rest of it.

    Attributes:
        reasons: Why each member that tried has failed.
    """

    reasons: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class NothingToSay:
    """The request is over: the members that tried have nothing to say to it."""


Action = Try | Abandon | Probe | Failed | Recovered | Switch | GiveUp | NothingToSay


@dataclass(slots=True)
class _Member:
    health: Health = Health.HEALTHY
    failures: int = 0  # since its last complete answer
    probe_at: float = 0.0


@dataclass(slots=True)
class _Request:
    tried: dict[int, str] = field(default_factory=dict)
    # Tried, and silent: only if another member has an answer have they failed.
    suspects: list[int] = field(default_factory=list)
    has_gone_on: bool = False
    is_final: bool = False


class Failover:
    """The members of one chain, and who of them answers.

    Methods that take `now` (seconds of any monotonic clock) return the actions to perform, in order.
    Between calls, `wake_at` says when `tick` is due.

    Attributes:
        limits: Deadlines and pauses.
    """

    def __init__(self, members: int, limits: Limits, jitter: Callable[[], float]) -> None:
        """Makes a machine whose members are all healthy.

        Args:
            members: How many there are; number 0 is preferred, then 1, and so on.
            limits: Deadlines and pauses.
            jitter: Gives a random number from 0 to 1.
        """
        self._members = [_Member() for _ in range(members)]
        self.limits = limits
        self._jitter = jitter
        self._request: _Request | None = None
        self._attempt: Attempt | None = None
        self._probing: int | None = None
        self._probe_due_at: float | None = None
        self._active = 0

    # -- facts ---------------------------------------------------------------------------------

    @property
    def active(self) -> int:
        """The member that answers, or would be asked first."""
        return self._active

    @property
    def attempt(self) -> Attempt | None:
        """The try under way."""
        return self._attempt

    @property
    def probing(self) -> int | None:
        """The member that is being probed."""
        return self._probing

    @property
    def is_in_doubt(self) -> bool:
        """Whether members have been silent, and another one is asked to find out why."""
        return self._request is not None and bool(self._request.suspects)

    def may_answer(self, now: float) -> bool:
        """Whether anybody can be expected to answer: a healthy member, or one that is due."""
        return any(
            member.health is Health.HEALTHY or member.probe_at <= now for member in self._members
        )

    def health(self, member: int) -> Health:
        """What is known of a member."""
        return self._members[member].health

    def probe_at(self, member: int) -> float | None:
        """When a failing member is to be probed: with the first request from then on."""
        known = self._members[member]
        return known.probe_at if known.health is Health.FAILING else None

    @property
    def wake_at(self) -> float | None:
        """When the next deadline passes; None if there is none."""
        deadlines = [self._probe_due_at]
        if self._attempt is not None:
            deadlines += [self._attempt.due_at, self._attempt.ends_at]
        return min((each for each in deadlines if each is not None), default=None)

    # -- a request and its answer --------------------------------------------------------------

    def begin(self, now: float) -> list[Action]:
        """A request has come; one that is still under way is given up."""
        dropped = self.drop() if self._request is not None else []
        self._request = _Request()
        return dropped + self._try_next(now, "no member is healthy") + self._probe(now)

    def expect(self, now: float, *, certain: bool = True) -> None:
        """Something of an answer is due.

        Args:
            now: The time.
            certain: Whether it has failed who does not give it in time. Otherwise there may be
                nothing to say, which the next member is asked to find out.
        """
        if self._attempt is not None:
            self._attempt.due_at = now + self.limits.attempt_secs
            self._attempt.certain = certain

    def expect_probe(self, now: float) -> None:
        """Something is due from the member that is being probed."""
        if self._probing is not None:
            self._probe_due_at = now + self.limits.attempt_secs

    def expect_more(self, now: float) -> None:
        """The member is at work, and something more is due."""
        if self._attempt is not None:
            stall_secs = self.limits.stall_secs
            self._attempt.due_at = None if stall_secs is None else now + stall_secs
            self._attempt.certain = True

    def content(self, now: float, *, final: bool = False) -> list[Action]:
        """A piece of the answer goes on; no more is due until that is said.

        Args:
            now: The time.
            final: Whether nobody else may go on with this answer, whatever happens.
        """
        attempt, request = self._attempt, self._request
        if attempt is None or request is None:
            return []
        request.has_gone_on = True
        request.is_final = request.is_final or final
        attempt.due_at = None
        actions: list[Action] = []
        suspects, request.suspects = request.suspects, []
        for suspect in suspects:
            reason = request.tried[suspect]
            actions += self._mark_failing(suspect, reason, now)
        if suspects:
            actions += self._switch_to(attempt.member, request.tried[suspects[0]])
        return actions

    def settle(self) -> None:
        """Nothing more is due from the member for now."""
        if self._attempt is not None:
            self._attempt.due_at = None

    def finish(self) -> list[Action]:
        """The answer is complete."""
        attempt = self._attempt
        if attempt is None:
            return []
        member = self._members[attempt.member]
        member.failures = 0
        actions: list[Action] = []
        if member.health is not Health.HEALTHY:
            member.health = Health.HEALTHY
            actions.append(Recovered(attempt.member))
        return actions + self._end_request()

    def drop(self) -> list[Action]:
        """Nobody wants the answer any more; the chain has stopped all members itself."""
        if self._probing is not None:
            # It has shown nothing either way: the next request probes again.
            self._members[self._probing].health = Health.FAILING
            self._end_probe()
        return self._end_request()

    # -- failures ------------------------------------------------------------------------------

    def fail(self, member: int, reason: str, now: float, *, certain: bool = True) -> list[Action]:
        """A member has failed, whatever it was doing.

        Args:
            member: Who.
            reason: Why, for people.
            now: The time.
            certain: Whether that is known. Otherwise it may have had nothing to say.
        """
        if self._attempt is not None and self._attempt.member == member:
            return self._attempt_failed(reason, now, certain)
        if self._probing == member:
            return self._probe_failed(reason, now)
        if self._members[member].health is not Health.HEALTHY:
            return []
        actions = self._mark_failing(member, reason, now)
        return actions if self._request is not None else actions + self._settle_active(reason)

    def probe_passed(self) -> list[Action]:
        """The member that is being probed has shown that it works."""
        if self._probing is None:
            return []
        member = self._probing
        self._members[member].health = Health.HEALTHY
        self._end_probe()
        actions: list[Action] = [Abandon(member), Recovered(member)]
        return actions if self._request is not None else actions + self._settle_active("recovered")

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        if self._probing is not None and _is_past(self._probe_due_at, now):
            actions += self._probe_failed(f"no answer within {self.limits.attempt_secs:g} s", now)
        attempt, request = self._attempt, self._request
        if attempt is None or request is None:
            return actions
        if _is_past(attempt.ends_at, now):
            reason = f"not done within {self.limits.total_secs:g} s"
            actions += self.fail(attempt.member, reason, now)
        elif _is_past(attempt.due_at, now):
            what = "stalled" if request.has_gone_on and attempt.certain else "no answer in time"
            actions += self.fail(attempt.member, what, now, certain=attempt.certain)
        return actions

    # -- inside --------------------------------------------------------------------------------

    def _attempt_failed(self, reason: str, now: float, certain: bool) -> list[Action]:
        attempt, request = self._attempt, self._request
        assert attempt is not None
        assert request is not None
        actions: list[Action] = []
        request.tried[attempt.member] = reason
        if certain:
            actions += self._mark_failing(attempt.member, reason, now)
        else:
            request.suspects.append(attempt.member)
        actions.append(Abandon(attempt.member))
        self._attempt = None
        cannot_resume = request.is_final or (request.has_gone_on and not self.limits.resumes)
        if not cannot_resume and (further := self._try_next(now, reason if certain else "")):
            return actions + further
        over: Action = GiveUp(dict(request.tried)) if certain else NothingToSay()
        return [*actions, over, *self._end_request()]

    def _try_next(self, now: float, reason: str) -> list[Action]:
        """Asks the best member that has not been asked; nothing if there is none."""
        request = self._request
        assert request is not None
        left = [number for number in range(len(self._members)) if number not in request.tried]
        if not left:
            return []
        # The first of the healthy ones, else the first of all: better late than no answer.
        member = min(left, key=lambda one: self._members[one].health is not Health.HEALTHY)
        actions: list[Action] = []
        if self._probing == member:
            self._members[member].health = Health.FAILING
            self._end_probe()
            actions.append(Abandon(member))
        total_secs = self.limits.total_secs
        self._attempt = Attempt(
            member,
            request.has_gone_on,
            ends_at=None if total_secs is None else now + total_secs,
        )
        if reason:
            actions += self._switch_to(member, reason)
        return [*actions, Try(self._attempt)]

    def _probe(self, now: float) -> list[Action]:
        """Begins to probe the first member that is due."""
        if self._probing is not None or self._attempt is None:
            return []
        for number, member in enumerate(self._members):
            due = member.health is Health.FAILING and member.probe_at <= now
            if due and number != self._attempt.member:
                member.health = Health.PROBING
                self._probing = number
                return [Probe(number)]
        return []

    def _probe_failed(self, reason: str, now: float) -> list[Action]:
        member = self._probing
        assert member is not None
        self._end_probe()
        return [*self._mark_failing(member, reason, now), Abandon(member)]

    def _end_probe(self) -> None:
        self._probing = self._probe_due_at = None

    def _mark_failing(self, number: int, reason: str, now: float) -> list[Action]:
        member = self._members[number]
        member.health = Health.FAILING
        member.failures += 1
        # A long outage must not make a number that no float can hold.
        pause_secs = self.limits.probe_secs * 2.0 ** min(member.failures - 1, 64)
        pause_secs = min(pause_secs, self.limits.probe_limit_secs)
        spread = 1.0 + self.limits.jitter * (2.0 * self._jitter() - 1.0)
        member.probe_at = now + pause_secs * spread
        return [Failed(number, reason)]

    def _end_request(self) -> list[Action]:
        self._request = self._attempt = None
        return self._settle_active("recovered")

    def _settle_active(self, reason: str) -> list[Action]:
        """Lets the best member be the one to ask; if none is healthy it stays as it is."""
        for number, member in enumerate(self._members):
            if member.health is Health.HEALTHY:
                return self._switch_to(number, reason)
        return []

    def _switch_to(self, member: int, reason: str) -> list[Action]:
        before, self._active = self._active, member
        return [] if before == member else [Switch(before, member, reason)]


def _is_past(deadline: float | None, now: float) -> bool:
    return deadline is not None and deadline <= now
