"""Exceptions of the Ray side, within the tree of `antiphon.errors`."""

from __future__ import annotations

from pathlib import Path

from antiphon.errors import AntiphonError, PlacementError, SessionError


class ClusterError(AntiphonError):
    """A Ray cluster could not be started, joined or stopped.

    Attributes:
        log_path: A file with what the processes of the cluster had to say, if there is one.
    """

    def __init__(self, message: str, *, log_path: Path | None = None) -> None:
        super().__init__(message)
        self.log_path = log_path


class JobError(AntiphonError):
    """A Ray job could not be submitted, followed or stopped.

    Attributes:
        retryable: Whether the same request may succeed later.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class CheckpointStoreError(AntiphonError):
    """A store of checkpoints did not do what it was asked to.

    It may have done it all the same, if no answer came.

    Attributes:
        retryable: Whether the same request may succeed later.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class SessionLostError(SessionError):
    """A session was to go on from a checkpoint, and cannot."""


class NoActorError(PlacementError):
    """A node agent could not give a session an actor.

    Attributes:
        overloaded: Whether capacity is what lacks; then another node, or this one later, may serve.
        retry_after_secs: When asking again makes sense.
    """

    def __init__(
        self, message: str, overloaded: bool = False, retry_after_secs: float = 1.0
    ) -> None:
        super().__init__(message)
        self.overloaded = overloaded
        self.retry_after_secs = retry_after_secs

    def __reduce__(self) -> tuple[type[NoActorError], tuple[str, bool, float]]:
        # It travels from the agent to who asked.
        return type(self), (str(self), self.overloaded, self.retry_after_secs)
