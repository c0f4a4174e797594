"""What becomes of a caller's session: a state machine without I/O.

The session feeds it what happened, with the time, and performs the actions it returns, in order. Nothing
here waits or reads a clock. Between calls, `wake_at` says when a `Tick` is due.

A session has one supervisor at a time, each under the number of its attempt. The caller's connection is
kept while one is replaced::

    ADMITTING ---> STARTING <---> RESUMING ---> LOST
        |             |              ^
        v             v              |
     REFUSED       RUNNING ----------+
                      |
                      v
                    ENDING ---> ENDED

Every place that was granted is given back exactly once: by `Release` if its supervisor has ended or died,
by `Fence` if it may still be at work.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from antiphon_actors.gateway.session_events import (
    FAILED,
    LOST_CODE,
    NORMAL,
    Accept,
    Action,
    BotHungUp,
    CallerLeft,
    Cancel,
    CloseCaller,
    Deny,
    Event,
    Fence,
    Granted,
    HandedOver,
    HangUp,
    LineLost,
    LineOpened,
    Refused,
    Release,
    Report,
    Reserve,
    Run,
    RunEnded,
    RunFailed,
    State,
    TellBot,
    Tick,
    Withdraw,
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a session waits for what, and how often it tries; seconds.

    Attributes:
        admission_secs: For the first supervisor; a caller who would have to wait longer is refused.
        start_secs: From being granted a supervisor to its line.
        settle_secs: A session that loses its first supervisor within so long begins anew: there may be
            nothing saved of it yet, and hardly anything to be lost.
        resume_secs: From the loss of a supervisor to the line of the next.
        resume_attempts: Supervisors tried within that time.
        retry_secs: Pause after a failed attempt to resume; doubles with each further one.
        restarts: Losses of a supervisor survived within `restart_period_secs`; one more, and the
            session is lost.
        restart_period_secs: See there.
        grace_secs: How long a bot may take to end after somebody has hung up; then it is cancelled.
        cancel_secs: How long the cancellation may take; then its supervisor is fenced.
    """

    admission_secs: float = 10.0
    start_secs: float = 10.0
    settle_secs: float = 0.5
    resume_secs: float = 15.0
    resume_attempts: int = 4
    retry_secs: float = 0.2
    restarts: int = 3
    restart_period_secs: float = 60.0
    grace_secs: float = 20.0
    cancel_secs: float = 5.0


# So many of the supervisors that failed last are not asked again.
_AVOIDED = 16


class SessionMachine:
    """The life of one session.

    Attributes:
        state: Where it stands.
        attempt: Number of the present supervisor, from 0.
        resumed: How often the session went on with another supervisor.
        resuming: Whether it has lost a supervisor and the next is not there yet.
    """

    def __init__(self, patience: Patience, now: float) -> None:
        self.state = State.ADMITTING
        self.attempt = 0
        self.resumed = 0
        self._patience = patience
        # What the present state waits for ends then.
        self._deadline: float | None = now + patience.admission_secs
        # From the loss of a supervisor to the line of the next: all of it ends then, a pause then.
        self.resuming = False
        self._resume_by = 0.0
        self._retry_at: float | None = None
        self._attempts_left = 0
        # Whether the present attempt has a place that is to be given back.
        self._placed = False
        # Whether a bot has run for long enough to be resumed; since when one has run.
        self._begun = False
        self._opened_at: float | None = None
        self._cancelled = False
        self._caller_there = True
        self._reason = ""
        self._failed: deque[int] = deque(maxlen=_AVOIDED)
        self._losses: deque[float] = deque()  # bounded by restarts

    def start(self) -> list[Action]:
        """Begins; to be called once."""
        return [Reserve(0, ())]

    def wake_at(self) -> float | None:
        """When a `Tick` is due; None while nothing depends on time."""
        times = [time for time in (self._deadline, self._retry_at) if time is not None]
        return None if self.state.final else min(times, default=None)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes an event and returns what is to be done."""
        match event:
            case Granted():
                return self._granted(event, now)
            case CallerLeft():
                return self._caller_left(event, now)
            case HangUp():
                return self._hang_up(event, now)
            case Tick():
                return self._tick(now)
        # The others are about a supervisor; what is said of an earlier one is no news.
        if self.state.final or event.attempt != self.attempt:
            return []
        match event:
            case Refused():
                return self._refused(event, now)
            case LineOpened():
                return self._line_opened(now)
            case LineLost():
                return self._supervisor_lost(event.reason, now, self._fence())
            case RunFailed():
                if event.final and self.state is not State.ENDING:
                    return [*self._give_back(Release(self.attempt)), *self._lose(event.reason)]
                return self._supervisor_lost(event.reason, now, Release(self.attempt))
            case RunEnded():
                return self._run_ended(event)
            case BotHungUp():
                return self._bot_hung_up(now)
            case HandedOver():
                return self._handed_over(now)

    # --- the way up -----------------------------------------------------------------------------

    def _granted(self, event: Granted, now: float) -> list[Action]:
        if event.attempt != self.attempt or not self._asking:
            # It was withdrawn when the place was on its way.
            return [Release(event.attempt)]
        self._placed = True
        actions: list[Action] = [Accept()] if self.state is State.ADMITTING else []
        deadline = now + self._patience.start_secs
        if self.resuming:
            deadline = min(deadline, self._resume_by)
        self.state = State.STARTING
        self._deadline = deadline
        return [*actions, Run(self.attempt, resume=self._begun)]

    def _refused(self, event: Refused, now: float) -> list[Action]:
        if self.state is State.ADMITTING:
            self._deadline = None
            return [*self._deny(event.reason, event.retry_after_secs)]
        if self._asking:
            return self._try_again(event.reason, now)
        return []

    def _line_opened(self, now: float) -> list[Action]:
        if self.state is State.STARTING:
            self.state = State.RUNNING
            self._deadline = None
            self.resumed += self._begun
            self.resuming = False
            self._opened_at = now
        return []

    # --- supervisors that fail -----------------------------------------------------------------

    def _supervisor_lost(self, reason: str, now: float, back: Release | Fence) -> list[Action]:
        if self.state is State.ENDING:
            close = self._close(NORMAL, "")
            return [*self._give_back(back), *close, *self._end(State.ENDED)]
        if self.resuming:
            return [*self._give_back(back), *self._try_again(reason, now)]
        if self.state not in (State.STARTING, State.RUNNING):
            return []
        actions = self._give_back(back)
        period = self._patience.restart_period_secs
        while self._losses and self._losses[0] <= now - period:
            self._losses.popleft()
        if len(self._losses) >= self._patience.restarts:
            count = len(self._losses) + 1
            return [
                *actions,
                *self._lose(f"{count} supervisors lost within {period:g} s: {reason}"),
            ]
        self._losses.append(now)
        return [*actions, *self._resume(now)]

    def _fence(self) -> Fence:
        return Fence(self.attempt, goes_on=self.state is not State.ENDING)

    def _handed_over(self, now: float) -> list[Action]:
        if self.state is not State.RUNNING:
            return self._supervisor_lost("the session was handed over", now, Release(self.attempt))
        return [*self._give_back(Release(self.attempt)), *self._resume(now)]

    def _resume(self, now: float) -> list[Action]:
        if self._opened_at is not None and now >= self._opened_at + self._patience.settle_secs:
            self._begun = True
        self.resuming = True
        self._resume_by = now + self._patience.resume_secs
        self._attempts_left = self._patience.resume_attempts
        return self._next_attempt()

    def _try_again(self, reason: str, now: float) -> list[Action]:
        """Makes a further attempt, after a pause."""
        made = self._patience.resume_attempts - self._attempts_left
        pause = self._patience.retry_secs * 2.0 ** (made - 1)
        if self._attempts_left <= 0 or now + pause >= self._resume_by:
            return self._lose(reason)
        self.state = State.RESUMING
        self._retry_at = now + pause
        self._deadline = self._resume_by
        return []

    def _next_attempt(self) -> list[Action]:
        self.state = State.RESUMING
        self._retry_at = None
        self._deadline = self._resume_by
        self._attempts_left -= 1
        self.attempt += 1
        return [Reserve(self.attempt, tuple(self._failed))]

    def _give_back(self, how: Release | Fence) -> list[Action]:
        """Gives the present place back, if there is one."""
        if not self._placed:
            return []
        self._placed = False
        self._failed.append(self.attempt)
        return [how]

    def _withdraw(self) -> list[Action]:
        """Gives up whatever the present attempt has or asks for."""
        if self._placed:
            return self._give_back(Fence(self.attempt))
        return [Withdraw(self.attempt)] if self._asking else []

    @property
    def _asking(self) -> bool:
        """Whether a place has been asked for, and neither granted nor refused."""
        waiting = self.state in (State.ADMITTING, State.RESUMING)
        return waiting and self._retry_at is None

    # --- the end ----------------------------------------------------------------------------------

    def _run_ended(self, event: RunEnded) -> list[Action]:
        if self.state not in (State.STARTING, State.RUNNING, State.ENDING):
            return []
        actions = self._give_back(Release(self.attempt))
        if event.exit_code:
            self._reason = self._reason or "the bot failed"
            close = self._close(FAILED, "the bot failed")
        else:
            self._reason = self._reason or "the bot has ended"
            close = self._close(NORMAL, "")
        return [*actions, *close, *self._end(State.ENDED)]

    def _bot_hung_up(self, now: float) -> list[Action]:
        if self.state is not State.RUNNING:
            return []
        self._reason = "the bot hung up"
        return self._await_end(now)

    def _caller_left(self, event: CallerLeft, now: float) -> list[Action]:
        if self.state.final or not self._caller_there:
            return []
        self._caller_there = False
        self._reason = self._reason or "the caller left"
        return self._end_bot(event.code, event.reason, now)

    def _hang_up(self, event: HangUp, now: float) -> list[Action]:
        if self.state is State.ADMITTING:
            return [*self._withdraw(), *self._deny(event.reason, None)]
        if self.state.final or self.state is State.ENDING:
            return []
        self._reason = event.reason
        close = self._close(event.code, event.reason)
        return [*close, *self._end_bot(event.code, event.reason, now)]

    def _end_bot(self, code: int, reason: str, now: float) -> list[Action]:
        if self.state is State.RUNNING:
            return [TellBot(self.attempt, code, reason), *self._await_end(now)]
        if self.state is State.ENDING:
            return []
        # There is no bot yet that could be told.
        return [*self._withdraw(), *self._end(State.ENDED)]

    def _await_end(self, now: float) -> list[Action]:
        self.state = State.ENDING
        self._deadline = now + self._patience.grace_secs
        return []

    def _tick(self, now: float) -> list[Action]:
        if self.state.final:
            return []
        if self._deadline is not None and now >= self._deadline:
            return self._overdue(now)
        if self._retry_at is not None and now >= self._retry_at:
            return self._next_attempt()
        return []

    def _overdue(self, now: float) -> list[Action]:
        if self.state is State.ADMITTING:
            return [*self._withdraw(), *self._deny("no supervisor became free in time", 1.0)]
        if self.state is State.STARTING:
            reason = "the supervisor did not begin in time"
            return self._supervisor_lost(reason, now, self._fence())
        if self.state is State.RESUMING:
            return [*self._withdraw(), *self._lose("no supervisor could go on in time")]
        if not self._cancelled:
            self._cancelled = True
            self._deadline = now + self._patience.cancel_secs
            return [Cancel(self.attempt)]
        self._reason += "; the bot did not end"
        fence = self._give_back(Fence(self.attempt))
        return [*fence, *self._close(FAILED, "the bot did not end"), *self._end(State.ENDED)]

    def _deny(self, reason: str, retry_after_secs: float | None) -> list[Action]:
        self.state = State.REFUSED
        return [Deny(reason, retry_after_secs), Report(State.REFUSED, reason)]

    def _lose(self, reason: str) -> list[Action]:
        self._reason = reason
        close = self._close(LOST_CODE, "the session was lost")
        return [*close, *self._end(State.LOST)]

    def _close(self, code: int, reason: str) -> list[Action]:
        if not self._caller_there:
            return []
        self._caller_there = False
        return [CloseCaller(code, reason)]

    def _end(self, state: State) -> list[Action]:
        self.state = state
        return [Report(state, self._reason)]
