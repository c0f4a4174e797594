"""When a session is saved, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from loguru import logger

from antiphon.frames.frames import (
    EndFrame,
    InputAudioRawFrame,
    LLMMessagesAppendFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.pipeline.keeper import use_keeper
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.runner import checkpointer as module
from antiphon.runner.checkpoint import CheckpointError, SessionCheckpoint
from antiphon.runner.checkpointer import SILENCE_PERIOD_SECS, Checkpointer
from antiphon.testing import FakeLLMService
from antiphon.transports.base_input import BaseInputTransport
from antiphon.transports.base_transport import TransportParams
from antiphon.transports.caller_line import CallerLine

pytestmark = pytest.mark.virtual_time

SECRET = "the secret word"


class Store:
    """Takes its time, and fails if it is told to."""

    def __init__(self) -> None:
        self.saved: list[SessionCheckpoint] = []
        self.at: list[float] = []
        self.attempts = 0
        self.secs = 0.0
        self.broken = False
        self.most_at_once = 0
        self._now = 0

    async def save(self, data: bytes) -> None:
        self.attempts += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(self.secs)
            if self.broken:
                raise ConnectionError("the store is down")
        finally:
            self._now -= 1
        self.saved.append(SessionCheckpoint.decode(data))
        self.at.append(asyncio.get_running_loop().time())

    @property
    def last_words(self) -> Any:
        return self.saved[-1].contexts[0].messages[-1]["content"]


class Line(BaseInputTransport):
    """An input whose messages are counted by the test."""

    def __init__(self) -> None:
        super().__init__(TransportParams())
        self.received = 0
        self.committed: list[int] = []

    @property
    def caller_line(self) -> CallerLine | None:
        return self

    def commit(self, received: int) -> None:
        if received not in self.committed:
            self.committed.append(received)


class Kept:
    """A bot whose session is saved."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.line = Line()
        self.context = OpenAILLMContext()
        llm = FakeLLMService(["Aha."], repeat=True)
        pair = self.pair = llm.create_context_aggregator(self.context)
        self.task = PipelineTask(Pipeline([self.line, pair.user(), llm, pair.assistant()]))
        self.keeper = Checkpointer("s", "v", store.save)

    async def say(self, text: str) -> None:
        await self.task.queue_frame(LLMMessagesAppendFrame([{"role": "user", "content": text}]))
        await asyncio.sleep(0.001)


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[Kept]:
    kept = Kept(store)
    async with kept.keeper:
        with use_keeper(kept.keeper):
            task = asyncio.create_task(PipelineRunner(handle_sigint=False).run(kept.task))
        await asyncio.sleep(0.01)
        yield kept
        await kept.task.queue_frame(EndFrame())
        await task


async def test_a_session_is_saved_at_its_start_and_when_it_changes() -> None:
    store = Store()
    async with running(store) as kept:
        assert store.saved
        assert store.saved[0].sequence == 1
        assert store.saved[-1].contexts[0].messages == []
        await kept.say("one")
        assert store.last_words == "one"
        await kept.say("two")
        assert store.last_words == "two"
    sequences = [saved.sequence for saved in store.saved]
    assert sequences == list(range(1, len(sequences) + 1))
    assert kept.keeper.statistics.saved == len(sequences)
    assert kept.keeper.statistics.last_bytes > 0
    assert {(saved.session_id, saved.bot_version) for saved in store.saved} == {("s", "v")}


async def test_one_write_at_a_time_and_the_newest_wins() -> None:
    store = Store()
    async with running(store) as kept:
        store.secs = 1.0
        begun = store.attempts
        for number in range(50):
            await kept.say(f"number {number}")
        await asyncio.sleep(2.5)
        assert store.last_words == "number 49"
        assert store.attempts == begun + 2  # the first, and all the rest
    assert store.most_at_once == 1


async def test_nothing_new_is_not_written_again() -> None:
    store = Store()
    async with running(store) as kept:
        await kept.say("one")
        before = store.attempts
        for _ in range(5):
            kept.keeper.changed()
            await asyncio.sleep(0.1)
        assert store.attempts == before


async def test_audio_costs_nothing() -> None:
    store = Store()
    async with running(store) as kept:
        before = store.attempts
        changes: list[None] = []
        for aggregator in (kept.pair.user(), kept.pair.assistant()):
            aggregator.watch(lambda: changes.append(None))
        for _ in range(100):
            kept.line.received += 1
            await kept.line.push_frame(InputAudioRawFrame(bytes(640), 16000, 1))
        await asyncio.sleep(0.01)
        assert changes == []
        assert store.attempts == before
        # Nor is every push of a frame shown to somebody.
        assert kept.task._observer.observers == [kept.task.turn_tracking_observer]


async def test_a_store_that_is_down_is_tried_again_later_and_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    lines: list[str] = []
    sink = logger.add(
        lambda text: lines.append(str(text)), level="DEBUG", format="{message} {extra}"
    )
    try:
        async with running(store) as kept:
            store.broken = True
            before = store.attempts
            await kept.say(SECRET)
            await asyncio.sleep(100.0)
            failed = store.attempts - before
            assert 10 <= failed <= 20
            assert kept.keeper.statistics.failed == failed
            # The conversation has gone on meanwhile, and the newest of it is saved.
            await kept.say("still there")
            store.broken = False
            await asyncio.sleep(11.0)
            assert store.last_words == "still there"
    finally:
        logger.remove(sink)
    warnings = [line for line in lines if line.startswith("checkpoint not saved")]
    assert len(warnings) == failed
    assert "the store is down" in warnings[0]
    assert not any(SECRET in line for line in lines)


async def test_a_store_that_does_not_answer_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_DEADLINE_SECS", 2.0)
    store = Store()
    async with running(store) as kept:
        store.secs = 1000.0
        await kept.say("one")
        await asyncio.sleep(3.0)
        assert kept.keeper.statistics.failed == 1
        store.secs = 0.0
        await asyncio.sleep(3.0)
        assert store.last_words == "one"


async def test_what_cannot_be_saved_is_no_reason_to_end() -> None:
    store = Store()
    async with running(store) as kept:
        kept.context.add_message({"role": "user", "content": object()})
        kept.keeper.changed()
        await asyncio.sleep(5.0)
        # It is not tried again until something has changed.
        assert kept.keeper.statistics.unsavable == 1
        kept.context.messages.clear()
        await kept.say("better")
        assert store.last_words == "better"


async def test_nothing_is_written_after_closing() -> None:
    store = Store()
    async with running(store) as kept:
        store.secs = 1.0
        await kept.say("one")
        await kept.keeper.aclose()  # a write under way may end
        assert store.last_words == "one"
        before = store.attempts
        await kept.say("two")
        kept.keeper.changed()
        await asyncio.sleep(5.0)
        assert store.attempts == before


async def test_closing_does_not_wait_for_ever() -> None:
    store = Store()
    async with running(store) as kept:
        store.secs = 1000.0
        await kept.say("one")
        async with asyncio.timeout(module.CLOSE_DEADLINE_SECS + 0.1):
            await kept.keeper.aclose()
        assert store.saved[-1].contexts[0].messages == []


async def test_a_session_can_be_saved_now() -> None:
    store = Store()
    async with running(store) as kept:
        kept.context.add_message({"role": "user", "content": "unnoticed"})
        await kept.keeper.flush()
        assert store.last_words == "unnoticed"
        store.broken = True
        kept.context.add_message({"role": "user", "content": "more"})
        with pytest.raises(ConnectionError):
            await kept.keeper.flush()
        store.broken = False
        kept.context.add_message({"role": "user", "content": object()})
        with pytest.raises(CheckpointError, match="plain data"):
            await kept.keeper.flush()
        kept.context.messages.pop()


async def test_what_was_heard_is_committed_when_it_is_saved() -> None:
    store = Store()
    async with running(store) as kept:
        line = kept.line
        assert line.committed == [0]
        store.secs = 0.5
        line.received = 10
        await line.push_frame(UserStartedSpeakingFrame())
        await asyncio.sleep(0.7)
        line.received = 30
        await line.push_frame(TranscriptionFrame("hello", "", ""))
        await line.push_frame(UserStoppedSpeakingFrame())
        line.received = 31  # whatever comes next
        await asyncio.sleep(0.4)
        assert line.committed == [0]
        await asyncio.sleep(0.7)
        assert line.committed == [0, 30]
        assert store.saved[-1].received == 30
        assert "hello" in str(store.saved[-1].contexts[0].messages)


async def test_silence_is_committed_but_not_while_the_store_is_down() -> None:
    store = Store()
    async with running(store) as kept:
        line = kept.line
        await asyncio.sleep(SILENCE_PERIOD_SECS)
        line.received = 50
        await asyncio.sleep(SILENCE_PERIOD_SECS)
        line.received = 100
        await asyncio.sleep(SILENCE_PERIOD_SECS)
        assert line.committed[-1] == 50
        before = store.attempts
        store.broken = True
        await kept.say("one")
        line.received = 150
        await asyncio.sleep(30 * SILENCE_PERIOD_SECS)
        assert line.committed[-1] == 50
        store.broken = False
        await asyncio.sleep(30 * SILENCE_PERIOD_SECS)
        assert line.committed[-1] == 150
        assert store.attempts > before
