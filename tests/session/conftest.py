"""Sessions without Ray: processor hosts with real sockets, in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.session.local_actors import RUN_SECS, Actors, LocalHost

from antiphon.frames.frames import EndFrame, Frame, TextFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.relay import relayed
from antiphon_actors import processor_host

__all__ = ["RUN_SECS", "Actors", "LocalHost"]


class Mover(FrameProcessor):
    """Passes frames on, marks texts, and does what a bot may ask a remote processor for."""

    movable = True

    def __init__(self, tag: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tag = tag
        self._callback: Callable[..., Any] | None = None
        self._set: list[str] = []
        self._register_event_handler("on_text")

    @relayed
    def set_tag(self, tag: str) -> None:
        self._set.append(tag)
        self._tag = tag

    @relayed
    def call_back(self, callback: Callable[..., Any]) -> None:
        self._callback = callback

    @relayed
    async def shout(self, text: str) -> str:
        await self.push_frame(TextFrame(text))
        return text.upper()

    @relayed
    async def history(self) -> list[str]:
        return self._set

    @relayed
    async def fail(self, text: str) -> None:
        raise LookupError(text)

    def not_for_others(self) -> None:
        raise AssertionError("called from afar")

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._call_event_handler("on_text", frame.text)
            if self._callback is not None:
                frame.text = await self._callback(self, frame.text)
            frame.text += self._tag
        await self.push_frame(frame, direction)


class Stay(FrameProcessor):
    """The bot's own: passes frames on and keeps them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.down: list[Frame] = []
        self.up: list[Frame] = []

    @property
    def texts(self) -> list[str]:
        return [frame.text for frame in self.down if isinstance(frame, TextFrame)]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        (self.down if direction is FrameDirection.DOWNSTREAM else self.up).append(frame)
        await self.push_frame(frame, direction)


class Watcher(BaseObserver):
    """Keeps every hop."""

    def __init__(self) -> None:
        super().__init__()
        self.hops: list[FramePushed] = []

    async def on_push_frame(self, data: FramePushed) -> None:
        self.hops.append(data)

    def between(
        self, source: FrameProcessor, destination: FrameProcessor, kind: type[Frame] = TextFrame
    ) -> list[Frame]:
        return [
            hop.frame
            for hop in self.hops
            if hop.source is source
            and hop.destination is destination
            and isinstance(hop.frame, kind)
        ]


@pytest.fixture
async def actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Actors]:
    """Hosts on real sockets; nothing of a session may be left in them at the end."""
    # The prefix would stay for the tests of other areas.
    monkeypatch.setattr(processor_host, "claim_process_prefix", lambda: 0)
    made = Actors(tmp_path)
    await made.start()
    try:
        yield made
        async with asyncio.timeout(5):
            while made.left_over():  # noqa: ASYNC110 - looked at from outside
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"left of the session: {made.left_over()}", pytrace=False)
    finally:
        await made.aclose()


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that has no event of its own."""
    async with asyncio.timeout(RUN_SECS):
        while not condition():  # noqa: ASYNC110 - for what tells nobody of itself
            await asyncio.sleep(0.001)


def texts(*words: str, end: bool = True) -> list[Frame]:
    """Text frames and the end."""
    frames: list[Frame] = [TextFrame(word) for word in words]
    return [*frames, EndFrame()] if end else frames


def pipeline_of(*processors: FrameProcessor, observer: BaseObserver | None = None) -> PipelineTask:
    """A task over a chain of processors."""
    return PipelineTask(
        Pipeline(list(processors)), observers=[observer] if observer is not None else []
    )


async def started(task: PipelineTask) -> None:
    """Waits until the StartFrame has crossed the pipeline; the handler is added at once."""
    event = asyncio.Event()
    task.add_event_handler("on_pipeline_started", lambda _task, _frame: event.set())
    async with asyncio.timeout(RUN_SECS):
        await event.wait()
