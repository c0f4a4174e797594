"""A processor that was cleaned up is freed with its last reference, and may be set up again."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from antiphon.clocks.system_clock import SystemClock
from antiphon.frames.frames import Frame, StartFrame, TextFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.utils.asyncio.receipts import LooseReceipt
from antiphon.utils.asyncio.task_manager import TaskManager, TaskManagerParams

DOWN = FrameDirection.DOWNSTREAM


class Keeper(FrameProcessor):
    """Keeps the texts it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self.texts.append(frame.text)


class Receipt(LooseReceipt):
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    def done(self) -> None:
        self.count += 1


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def ready(processor: FrameProcessor) -> None:
    manager = TaskManager()
    manager.setup(TaskManagerParams(loop=asyncio.get_running_loop()))
    await processor.setup(FrameProcessorSetup(clock=SystemClock(), task_manager=manager))
    await processor.queue_frame(StartFrame())


@pytest.mark.usefixtures("_no_collector")
async def test_it_is_freed_with_its_last_reference() -> None:
    processor = Keeper()
    await ready(processor)
    await processor.queue_frame(TextFrame("a"))
    await asyncio.sleep(0)
    await processor.cleanup()
    reference = weakref.ref(processor)
    del processor
    await asyncio.sleep(0)
    assert reference() is None


async def test_it_drops_what_it_is_given() -> None:
    processor = Keeper()
    await ready(processor)
    await processor.cleanup()
    await processor.queue_frame(TextFrame("late"))
    receipt = Receipt()
    processor._local_inbox.put_nowait(TextFrame("later"), DOWN, None, receipt)
    # Whoever calls it directly starts nothing.
    await processor.process_frame(StartFrame(), DOWN)
    await processor.pause_processing_frames()
    await processor.resume_processing_frames()
    await processor._start_interruption()
    assert receipt.count == 1
    assert processor._local_inbox.waiting == 0
    assert processor.texts == []


async def test_it_may_be_set_up_again() -> None:
    processor = Keeper()
    for round_number in (1, 2):
        await ready(processor)
        await processor.queue_frame(TextFrame(f"round {round_number}"))
        await asyncio.sleep(0)
        await processor.cleanup()
    assert processor.texts == ["round 1", "round 2"]
    assert processor.statistics.frames_in == 4
