"""How fake speech services fail when a test wants them to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal

from antiphon.errors import ServiceError
from antiphon.frames.frames import ErrorFrame

_HANG_SECS = 3600.0


@dataclass(frozen=True)
class FakeFault:
    """What a fake service does instead of its work.

    Attributes:
        kind: ``error`` reports an error, ``crash`` raises one, ``hang`` does nothing for an hour,
            ``nothing`` ends as if all were done.
        after_secs: Speech: how much audio of the text comes before that.
        message: What the error says.
    """

    kind: Literal["error", "crash", "hang", "nothing"] = "error"
    after_secs: float = 0.0
    message: str = "the fake service was told to fail"


def fault_at(faults: Sequence[FakeFault | None], number: int) -> FakeFault | None:
    """What is to go wrong with the request of a number, from 0; None if nothing."""
    return faults[number] if number < len(faults) else None


async def commit(fault: FakeFault) -> AsyncGenerator[ErrorFrame, None]:
    """Fails.

    Yields:
        The error, if it is to be reported.

    Raises:
        ServiceError: If it is to be raised.
    """
    if fault.kind == "error":
        yield ErrorFrame(fault.message)
    elif fault.kind == "crash":
        raise ServiceError(fault.message, provider="fake")
    elif fault.kind == "hang":
        await asyncio.sleep(_HANG_SECS)
