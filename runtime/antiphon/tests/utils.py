"""Testing a processor: send frames in, see what comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.frames.frames import EndFrame, Frame, HeartbeatFrame, StartFrame, SystemFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


@dataclass
class SleepFrame(SystemFrame):
    """Makes run_test wait before it sends the next frame; it is never sent itself.

    Attributes:
        sleep: Seconds.
    """

    sleep: float = 0.1


class HeartbeatsObserver(BaseObserver):
    """Calls back for each heartbeat that a given processor pushes."""

    def __init__(
        self,
        *,
        target: FrameProcessor,
        heartbeat_callback: Callable[[FrameProcessor, HeartbeatFrame], Awaitable[None]],
        **kwargs: Any,
    ) -> None:
        """Makes the observer.

        Args:
            target: The processor to watch.
            heartbeat_callback: Gets the processor and the frame.
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        self._target = target
        self._callback = heartbeat_callback

    async def on_push_frame(self, data: FramePushed) -> None:
        """Calls back for a heartbeat of the target."""
        if data.source == self._target and isinstance(data.frame, HeartbeatFrame):
            await self._callback(self._target, data.frame)


class QueuedFrameProcessor(FrameProcessor):
    """Puts the frames of one direction in a queue and passes everything on."""

    def __init__(
        self,
        *,
        queue: asyncio.Queue[Frame],
        queue_direction: FrameDirection,
        ignore_start: bool = True,
    ) -> None:
        """Makes the processor.

        Args:
            queue: Gets the frames.
            queue_direction: The direction that is captured.
            ignore_start: Whether the StartFrame is left out.
        """
        super().__init__()
        self._queue = queue
        self._queue_direction = queue_direction
        self._ignore_start = ignore_start

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Captures the frame and passes it on."""
        await super().process_frame(frame, direction)
        if direction is self._queue_direction and not (
            isinstance(frame, StartFrame) and self._ignore_start
        ):
            await self._queue.put(frame)
        await self.push_frame(frame, direction)


async def run_test(
    processor: FrameProcessor,
    *,
    frames_to_send: Sequence[Frame],
    expected_down_frames: Sequence[type] | None = None,
    expected_up_frames: Sequence[type] | None = None,
    ignore_start: bool = True,
    observers: list[BaseObserver] | None = None,
    start_metadata: dict[str, Any] | None = None,
    send_end_frame: bool = True,
) -> tuple[Sequence[Frame], Sequence[Frame]]:
    """Sends frames through a processor (or pipeline) and returns what came out at both ends.

    System frames overtake others: put a SleepFrame between those whose order matters.

    Args:
        processor: The processor under test.
        frames_to_send: Frames to send downstream, in order.
        expected_down_frames: Types of the frames that must come out downstream; None: not looked
            at, and the returned list is empty.
        expected_up_frames: The same for upstream.
        ignore_start: Whether the StartFrame is left out of both lists.
        observers: Observers of the task.
        start_metadata: Metadata of the StartFrame.
        send_end_frame: Whether an EndFrame ends the run; it is then left out downstream.

    Returns:
        The frames that came out downstream and upstream.

    Raises:
        AssertionError: If other frames came out than expected.
    """
    down: asyncio.Queue[Frame] = asyncio.Queue()
    up: asyncio.Queue[Frame] = asyncio.Queue()
    pipeline = Pipeline(
        [
            QueuedFrameProcessor(
                queue=up, queue_direction=FrameDirection.UPSTREAM, ignore_start=ignore_start
            ),
            processor,
            QueuedFrameProcessor(
                queue=down, queue_direction=FrameDirection.DOWNSTREAM, ignore_start=ignore_start
            ),
        ]
    )
    task = PipelineTask(
        pipeline,
        params=PipelineParams(start_metadata=start_metadata or {}),
        observers=observers,
        cancel_on_idle_timeout=False,
    )

    async def send() -> None:
        await asyncio.sleep(0.01)
        for frame in frames_to_send:
            if isinstance(frame, SleepFrame):
                await asyncio.sleep(frame.sleep)
            else:
                await task.queue_frame(frame)
        if send_end_frame:
            await task.queue_frame(EndFrame())

    await asyncio.gather(PipelineRunner().run(task), send())

    down_frames = _compare("downstream", down, expected_down_frames, drop_end=send_end_frame)
    up_frames = _compare("upstream", up, expected_up_frames, drop_end=False)
    return down_frames, up_frames


def _compare(
    what: str, queue: asyncio.Queue[Frame], expected: Sequence[type] | None, *, drop_end: bool
) -> list[Frame]:
    if expected is None:
        return []
    frames = [queue.get_nowait() for _ in range(queue.qsize())]
    if drop_end:
        frames = [frame for frame in frames if not isinstance(frame, EndFrame)]
    received = [type(frame).__name__ for frame in frames]
    wanted = [kind.__name__ for kind in expected]
    assert len(frames) == len(expected), f"{what}: received {received}, expected {wanted}"
    for frame, kind in zip(frames, expected, strict=True):
        assert isinstance(frame, kind), f"{what}: received {received}, expected {wanted}"
    return frames
