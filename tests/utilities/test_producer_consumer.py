"""Frames on their way from one branch to another."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.frames.frames import (
    ErrorFrame,
    Frame,
    LLMTextFrame,
    TextFrame,
    TTSStartedFrame,
    TTSTextFrame,
)
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.processors.consumer_processor import ConsumerProcessor
from antiphon.processors.filters.identity_filter import IdentityFilter
from antiphon.processors.filters.null_filter import NullFilter
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.overflow import offer
from antiphon.processors.producer_processor import ProducerProcessor, identity_transformer
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time


async def is_text(frame: Frame) -> bool:
    return isinstance(frame, TextFrame)


async def spoken(frame: Frame) -> Frame:
    return TTSTextFrame(frame.text) if isinstance(frame, TextFrame) else frame


async def test_the_given_frame_comes_before_the_one_that_passes() -> None:
    producer = ProducerProcessor(filter=is_text, transformer=spoken)
    consumer = ConsumerProcessor(producer=producer)
    await run_test(
        Pipeline([producer, consumer]),
        frames_to_send=[TextFrame("a"), TextFrame("b"), TTSStartedFrame()],
        expected_down_frames=[TTSTextFrame, TextFrame, TTSTextFrame, TextFrame, TTSStartedFrame],
    )


async def test_without_passthrough_selected_frames_end_there() -> None:
    async def everything(frame: Frame) -> bool:
        return True

    producer = ProducerProcessor(filter=everything, passthrough=False)
    await run_test(producer, frames_to_send=[TextFrame("a")], expected_down_frames=[])


async def test_each_consumer_has_its_own_transformer() -> None:
    async def shout(frame: Frame) -> Frame:
        assert isinstance(frame, TextFrame)
        return LLMTextFrame(frame.text.upper())

    producer = ProducerProcessor(filter=is_text, passthrough=False)
    consumers = [
        ConsumerProcessor(producer=producer, transformer=transformer)
        for transformer in (shout, identity_transformer)
    ]
    down, _ = await run_test(
        Pipeline([producer, ParallelPipeline([consumers[0]], [consumers[1]])]),
        frames_to_send=[TextFrame("a")],
        expected_down_frames=[TextFrame, TextFrame],
    )
    assert sorted(frame.text for frame in down if isinstance(frame, TextFrame)) == ["A", "a"]


async def test_between_branches_and_upstream() -> None:
    producer = ProducerProcessor(filter=is_text)
    consumer = ConsumerProcessor(
        producer=producer, transformer=spoken, direction=FrameDirection.UPSTREAM
    )
    await run_test(
        ParallelPipeline([producer, NullFilter()], [IdentityFilter(), consumer, NullFilter()]),
        frames_to_send=[TextFrame("a"), SleepFrame()],
        expected_down_frames=[],
        expected_up_frames=[TTSTextFrame],
    )


async def test_a_slow_transformer_keeps_the_order_and_the_end_waits() -> None:
    async def slow(frame: Frame) -> Frame:
        assert isinstance(frame, TextFrame)
        await asyncio.sleep(1.0 if frame.text == "a" else 0.1)
        return TTSTextFrame(frame.text)

    producer = ProducerProcessor(filter=is_text, passthrough=False)
    down, _ = await run_test(
        Pipeline([producer, ConsumerProcessor(producer=producer, transformer=slow)]),
        frames_to_send=[TextFrame("a"), TextFrame("b"), TextFrame("c")],
        expected_down_frames=[TTSTextFrame] * 3,
    )
    assert [frame.text for frame in down if isinstance(frame, TextFrame)] == ["a", "b", "c"]


async def test_a_failing_transformer_is_an_error_and_no_more() -> None:
    async def fail(frame: Frame) -> Frame:
        raise RuntimeError("no")

    producer = ProducerProcessor(filter=is_text)
    await run_test(
        Pipeline([producer, ConsumerProcessor(producer=producer, transformer=fail)]),
        frames_to_send=[TextFrame("a"), TextFrame("b")],
        expected_down_frames=[TextFrame, TextFrame],
        expected_up_frames=[ErrorFrame, ErrorFrame],
    )


def test_a_full_queue_loses_its_oldest_item() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    for number in range(4):
        offer(queue, number, processor="test")
    assert [queue.get_nowait(), queue.get_nowait()] == [2, 3]
