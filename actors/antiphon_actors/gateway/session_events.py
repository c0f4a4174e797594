"""The vocabulary of `session_state`: what happens to a session, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NORMAL, GOING_AWAY, FAILED, LOST_CODE, BUSY = 1000, 1001, 1011, 1012, 1013
"""Close codes of WebSockets (RFC 6455, and the registry of IANA): LOST_CODE is "service restart", BUSY is
"try again later"."""


class State(StrEnum):
    """Where a session stands."""

    ADMITTING = "admitting"
    """Asked for a supervisor; the caller's connection is not accepted yet."""
    STARTING = "starting"
    """A supervisor has been told to run the session; its line is not there yet."""
    RUNNING = "running"
    RESUMING = "resuming"
    """Without a supervisor; another is being asked for, or about to be."""
    ENDING = "ending"
    """The bot, the caller or the gateway has hung up; the supervisor has not finished."""
    REFUSED = "refused"
    ENDED = "ended"
    LOST = "lost"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self in (State.REFUSED, State.ENDED, State.LOST)


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Granted:
    """A supervisor has a place for the session."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no place to be had.

    Attributes:
        retry_after_secs: When it makes sense to ask again; None if it does not.
    """

    attempt: int
    reason: str
    retry_after_secs: float | None = None


@dataclass(frozen=True, slots=True)
class LineOpened:
    """The supervisor has connected to the gateway."""

    attempt: int


@dataclass(frozen=True, slots=True)
class LineLost:
    """The line to the supervisor broke. It may be dead, stuck, or cut off and at work."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The supervisor has finished the session."""

    attempt: int
    exit_code: int


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The supervisor has died, or does not want the session.

    Attributes:
        final: No other supervisor could go on with it either.
    """

    attempt: int
    reason: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class BotHungUp:
    """The bot has closed the connection, or its program has ended."""

    attempt: int


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The supervisor has saved the session and ended it, for another to go on with."""

    attempt: int


@dataclass(frozen=True, slots=True)
class CallerLeft:
    """The caller's connection is closed, or broken."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """The gateway ends the session, and says so to the caller."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Granted
    | Refused
    | LineOpened
    | LineLost
    | RunEnded
    | RunFailed
    | BotHungUp
    | HandedOver
    | CallerLeft
    | HangUp
    | Tick
)


# --- actions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reserve:
    """Ask for a supervisor; answer with `Granted` or `Refused`.

    Attributes:
        avoid: Attempts whose supervisors failed.
    """

    attempt: int
    avoid: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Do not ask any more; a place that is granted all the same is released."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Accept:
    """Accept the caller's connection."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse the caller's connection; the reason is for people."""

    reason: str
    retry_after_secs: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """Have the supervisor run the session; what the caller has sent is to be sent from its beginning.

    Attributes:
        resume: Whether it goes on with what another supervisor has begun.
    """

    attempt: int
    resume: bool


@dataclass(frozen=True, slots=True)
class TellBot:
    """Tell the bot that its caller has left."""

    attempt: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class CloseCaller:
    """Close the caller's connection behind what the bot has sent."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Have the supervisor cancel the session."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Release:
    """Give the place back: its supervisor has ended or died."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Fence:
    """See to it that the supervisor does nothing more for the session, and give its place back.

    Attributes:
        goes_on: Whether another supervisor goes on with the session.
    """

    attempt: int
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """The session is over; told once, last.

    Attributes:
        state: How it ended.
        reason: Why, for people.
    """

    state: State
    reason: str


Action = (
    Reserve
    | Withdraw
    | Accept
    | Deny
    | Run
    | TellBot
    | CloseCaller
    | Cancel
    | Release
    | Fence
    | Report
)
