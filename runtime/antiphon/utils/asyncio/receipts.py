"""Which frame the running code works on, and who is to know when that is done.

A frame that came from another process has a receipt. Its sender keeps it until it is *safe*: processed,
and not held by anybody. If the processor is lost before that, its successor is given the frame again.
In a pipeline of one process no frame has a receipt, and all of this does nothing.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Receipt(Protocol):
    """Whoever gave a frame wants to know when it is through."""

    @property
    def origin(self) -> int:
        """Names the frame; what is pushed because of it says so."""

    def next_ordinal(self, upstream: bool) -> int:
        """Numbers what is pushed because of it, in each direction from 0."""

    def done(self) -> None:
        """The frame was processed or dropped."""

    def hold(self) -> None:
        """Something is still to come of the frame; to be taken back by `release`."""

    def release(self) -> None:
        """Takes one `hold` back."""

    async def safe(self) -> None:
        """Waits until the frame will not be given again; the caller sets a deadline."""


class LooseReceipt:
    """A receipt of a frame that nobody gives again."""

    origin = 0

    def next_ordinal(self, upstream: bool) -> int:
        """Nobody compares."""
        return 0

    def done(self) -> None:
        """The frame was processed or dropped."""

    def hold(self) -> None:
        """Nobody waits."""

    def release(self) -> None:
        """Nobody waits."""

    async def safe(self) -> None:
        """It always is."""


class NamedReceipt(LooseReceipt):
    """Stands for work of its own, which goes on beside frames.

    Attributes:
        origin: Names the work. A successor that goes on with it uses the name again.
    """

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self._ordinals = [0, 0]

    def next_ordinal(self, upstream: bool) -> int:
        """Numbers what is pushed because of it, in each direction from 0."""
        self._ordinals[upstream] += 1
        return self._ordinals[upstream] - 1


class Work:
    """What the running code works on.

    Attributes:
        receipt: Of a frame; None while it is none that has a receipt.
    """

    __slots__ = ("receipt",)

    def __init__(self, receipt: Receipt | None) -> None:
        self.receipt: Receipt | None = receipt


in_progress: contextvars.ContextVar[Work | None] = contextvars.ContextVar(
    "antiphon_in_progress", default=None
)
"""Set in the context of each lane of an inbox, and of the tasks begun there."""


def current_receipt() -> Receipt | None:
    """The receipt of the frame that the running code works on; None if it has none."""
    found = in_progress.get()
    return found.receipt if found is not None else None


def context_of_work() -> contextvars.Context | None:
    """A context for a task that is begun while a frame is in progress: it works on that frame.

    None if no frame with a receipt is in progress: then any copy of the present context will do.
    """
    receipt = current_receipt()
    if receipt is None:
        return None
    context = contextvars.copy_context()
    context.run(in_progress.set, Work(receipt))
    return context


@contextmanager
def working_on(receipt: Receipt | None) -> Iterator[None]:
    """What is pushed in the block comes of the frame, or the work, that has this receipt."""
    token = in_progress.set(Work(receipt))
    try:
        yield
    finally:
        in_progress.reset(token)


class Hold:
    """Keeps the frame in progress from counting as answered, until it is released.

    Should the processor be lost with its process before that, its successor is given the frame again, and
    all that came after it.
    """

    __slots__ = ("_receipt",)

    def __init__(self) -> None:
        """Holds the frame that the running code works on."""
        self._receipt = current_receipt()
        if self._receipt is not None:
            self._receipt.hold()

    def release(self) -> None:
        """Lets go; a further call does nothing."""
        receipt, self._receipt = self._receipt, None
        if receipt is not None:
            receipt.release()

    def answering(self) -> AbstractContextManager[None]:
        """What is pushed in the block comes of that frame, whatever task pushes it.

        So a successor that does it again knows what has been pushed already.
        """
        return working_on(self._receipt)
