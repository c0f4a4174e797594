"""What happens when a processor is lost with its process: who is replaced, and how often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from antiphon.errors import ConfigError
from antiphon.processors.frame_processor import FrameProcessor

Match = type[FrameProcessor] | str
Strategy = Literal["one_for_one", "rest_for_one", "one_for_all"]


@dataclass(frozen=True)
class Supervision:
    """How a group of processors is kept alive, as supervisors of Erlang/OTP keep theirs.

    Attributes:
        match: Whom it is about: classes, their names, or names of processors. Empty: all that no
            supervision before it is about.
        strategy: Who of the group is replaced when one of it is lost: only that one
            (``one_for_one``), it and those behind it in the pipeline (``rest_for_one``), or all of
            them (``one_for_all``). Processors in the bot's process are never replaced.
        max_restarts: Losses that are borne within `within_secs`; one more ends the session. 0: the
            first ends it.
        within_secs: The period, in seconds.
    """

    match: tuple[Match, ...] = ()
    strategy: Strategy = "one_for_one"
    max_restarts: int = 5
    within_secs: float = 60.0

    def __post_init__(self) -> None:
        """Refuses values that cannot be.

        Raises:
            ConfigError: One of them.
        """
        if self.strategy not in get_args(Strategy):
            choices = ", ".join(get_args(Strategy))
            raise ConfigError(f"supervision: strategy {self.strategy!r} is none of {choices}")
        if not isinstance(self.match, tuple):
            raise ConfigError(f"supervision: match={self.match!r} must be a tuple")
        if isinstance(self.max_restarts, bool) or not isinstance(self.max_restarts, int):
            raise ConfigError(f"supervision: max_restarts={self.max_restarts!r} is no number")
        if self.max_restarts < 0:
            raise ConfigError("supervision: max_restarts must not be negative")
        if not 0 < self.within_secs < math.inf:
            raise ConfigError("supervision: within_secs must be a positive number of seconds")
