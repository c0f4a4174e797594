"""Where the processors of a task run."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from antiphon.frames.frames import ErrorFrame, StartFrame
from antiphon.pipeline.base_pipeline import BasePipeline
from antiphon.processors.frame_processor import FrameProcessorSetup


@dataclass(frozen=True)
class Execution:
    """What a task hands to its executor.

    Attributes:
        pipeline: The whole pipeline, the task's own source and sink included.
        setup: What every processor gets.
        fail: Reports an error of the execution itself; a fatal one ends the session.
        start_frame: The StartFrame that was pushed; None as long as none was.
        has_started: Whether it has gone through the whole pipeline.
        cancel_secs: How long a cancellation of the task may take.
    """

    pipeline: BasePipeline
    setup: FrameProcessorSetup
    fail: Callable[[ErrorFrame], None]
    start_frame: Callable[[], StartFrame | None] = lambda: None
    has_started: Callable[[], bool] = lambda: False
    cancel_secs: float = 2.0


class Executor(ABC):
    """Sets the processors of one pipeline up where they are to run, and cleans them up."""

    @abstractmethod
    async def start(self, execution: Execution) -> None:
        """Sets every processor up; when it returns, frames may flow.

        Raises:
            SessionError: If a processor cannot be set up. stop() is called all the same.
        """

    @abstractmethod
    async def stop(self, *, cleanup: bool) -> None:
        """Ends the execution, whatever state it is in.

        Args:
            cleanup: Whether the processors are cleaned up too, or stay ready for another task.
        """

    def tasks(self) -> Iterable[asyncio.Task[Any]]:
        """What it runs itself, for a session that has to be over."""
        return ()

    def hurry(self, secs: float) -> None:  # noqa: B027 - most have nothing elsewhere
        """Says how long stop(), which is under way, and what runs elsewhere still have."""

    async def abort(self, secs: float) -> None:  # noqa: B027 - most have nothing to give up
        """Ends what a stop() that was cancelled has left.

        Args:
            secs: How long it may wait for others; it may be cancelled then.
        """

    def note_error(self, error: ErrorFrame) -> None:  # noqa: B027 - most have no use for it
        """Is told of every error that reached the beginning of the pipeline."""


class LocalExecutor(Executor):
    """Runs every processor in this process."""

    def __init__(self) -> None:
        """Makes an executor for one task."""
        self._pipeline: BasePipeline | None = None

    async def start(self, execution: Execution) -> None:
        """Sets every processor up here."""
        self._pipeline = execution.pipeline
        await execution.pipeline.setup(execution.setup)

    async def stop(self, *, cleanup: bool) -> None:
        """Cleans every processor up, if asked to."""
        if cleanup and self._pipeline is not None:
            await self._pipeline.cleanup()


ExecutorFactory = Callable[[], Executor]

_factory: ContextVar[ExecutorFactory] = ContextVar("antiphon_executor", default=LocalExecutor)


def new_executor() -> Executor:
    """An executor of the kind in force here; a LocalExecutor unless use_executor() says else."""
    return _factory.get()()


@contextmanager
def use_executor(factory: ExecutorFactory) -> Iterator[None]:
    """Makes the tasks that run inside the block, and in tasks begun there, use this executor."""
    token = _factory.set(factory)
    try:
        yield
    finally:
        _factory.reset(token)
