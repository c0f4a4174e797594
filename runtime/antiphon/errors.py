"""The exceptions Antiphon raises, as one tree.

Whether a failed operation may be tried again travels in the error, so that a caller decides by
attribute and never by the text of a message.
"""

from __future__ import annotations

from typing import Any


class AntiphonError(Exception):
    """Base of every exception Antiphon raises on its own account."""


class ConfigError(AntiphonError):
    """What the user gave (a file, a parameter, the environment) cannot be used as it is."""


class ChannelError(AntiphonError):
    """A link or stream between two processes failed."""


class SessionError(AntiphonError):
    """A bot session could not start, or ended for a reason that is not the bot's wish."""


class PlacementError(SessionError):
    """A processor could not be placed where the plan wants it."""


class ServiceError(AntiphonError):
    """A service (speech, language model, ...) failed.

    Attributes:
        retryable: Whether the same request may succeed later.
        retry_after: Seconds to wait before trying again, when the provider said so.
        provider: Name of the service or vendor.
        status: The provider's status code, if there was one.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        provider: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
        self.provider = provider
        self.status = status


class OverloadedError(ServiceError):
    """A request was refused early because the service has no capacity left for it."""

    def __init__(self, message: str, *, retry_after: float, provider: str | None = None) -> None:
        super().__init__(message, retryable=True, retry_after=retry_after, provider=provider)

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets the error cross processes: its constructor needs more than the message."""
        return _overloaded, (str(self), self.retry_after, self.provider)


class DeadlineExceededError(ServiceError, TimeoutError):
    """A request was not answered within the time that its caller had given it."""

    def __init__(self, message: str, *, provider: str | None = None) -> None:
        super().__init__(message, retryable=True, provider=provider)


def _overloaded(message: str, retry_after: float, provider: str | None) -> OverloadedError:
    return OverloadedError(message, retry_after=retry_after, provider=provider)
