"""Conversations whose services are lost at any moment: they end like one left in peace."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.session.conftest import RUN_SECS, Actors, Stay, pipeline_of, started, until

from antiphon.frames.frames import (
    EndFrame,
    Frame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    StartFrame,
    TextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.llm_response import LLMUserAggregatorParams
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.llm_service import FunctionCallParams
from antiphon.services.stt_service import SegmentedSTTService
from antiphon.services.tts_service import WebsocketTTSService
from antiphon.testing import FakeLLMService, FakeSTTService, FakeTTSService, FakeWordTTSService
from antiphon.testing.fake_llm import FakeDelay, FakeToolCall
from antiphon.utils.asyncio.held import HeldFrames
from antiphon.utils.time import time_now_iso8601
from antiphon_actors.placement.policy import Placement, Rule
from antiphon_actors.session.home import SessionRecord

RATE = 16_000
PIECE = bytes(RATE // 50 * 2)  # 20 ms

SAID = ["hello there", "what is the weather", "and tomorrow", "thank you"]
BESIDE = "Let me see."
ANSWERS: list[Any] = [
    "Hello. How may I help you today?",
    [BESIDE, FakeToolCall("weather", {"day": "today"}), FakeToolCall("weather", {"day": "2"})],
    "It is sunny. It will stay so.",
    [FakeDelay(0.01), "Tomorrow", " it", " rains.", " Take", " a", " coat!"],
    "You are welcome. Good bye.",
]


class LengthSTT(SegmentedSTTService):
    """Recognises how long somebody spoke."""

    movable = True

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        await asyncio.sleep(0.002)
        pieces = (len(audio) - 44) / len(PIECE)
        yield TranscriptionFrame(f"{pieces:g} pieces", "", time_now_iso8601())


class LateTTS(WebsocketTTSService):
    """Its audio comes in one task for all texts, some time after them."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._asked: asyncio.Queue[str | None] = asyncio.Queue()
        self._receiver: asyncio.Task[Any] | None = None

    async def start(self, frame: Any) -> None:
        await super().start(frame)
        self._receiver = self.create_task(self._receive(), "receiver")

    async def stop(self, frame: EndFrame) -> None:
        await self._asked.join()
        await super().stop(frame)

    async def cleanup(self) -> None:
        if self._receiver is not None:
            await self.cancel_task(self._receiver)
        await super().cleanup()

    async def _connect(self) -> None:
        pass

    async def _disconnect(self) -> None:
        pass

    async def _connect_websocket(self) -> None:
        pass

    async def _disconnect_websocket(self) -> None:
        pass

    async def _receive_messages(self) -> None:
        pass

    async def flush_audio(self) -> None:
        self._asked.put_nowait(None)

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        self._asked.put_nowait(text)
        yield None

    async def process_frame(self, frame: Frame, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if type(frame).__name__ == "LLMFullResponseEndFrame":
            await self.flush_audio()

    async def _receive(self) -> None:
        while True:
            text = await self._asked.get()
            await asyncio.sleep(0.001)
            if text is None:
                await self.push_frame(TTSStoppedFrame())
            for character in text or "":
                await asyncio.sleep(0)
                audio = ord(character).to_bytes(2, "little") * 100
                await self.push_frame(TTSAudioRawFrame(audio, RATE, 1))
            self._asked.task_done()


@dataclass
class Outcome:
    """What is left of a conversation."""

    transcripts: list[str] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    spoken: bytes = b""
    words: list[str] = field(default_factory=list)
    results: int = 0
    calls: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    recoveries: int = 0


class Chaos:
    """Kills actors of a conversation, now and then."""

    def __init__(
        self, conversation: Conversation, victims: Sequence[FrameProcessor], seed: int
    ) -> None:
        self._conversation = conversation
        self._victims = victims
        self._chance = random.Random(seed)

    async def __call__(self) -> None:
        actors, chance = self._conversation.actors, self._chance
        await until(lambda: all(each.name in actors.by_processor for each in self._victims))
        for _ in range(4):  # five within a minute are too many
            await asyncio.sleep(chance.random() * 0.05)
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
            before = len(self._recoveries())
            actors.by_processor[chance.choice(self._victims).name].die()
            await until(lambda: len(self._recoveries()) > before)  # noqa: B023 - waited for here

    def _recoveries(self) -> Sequence[Any]:
        executor: Any = self._conversation.task._executor
        return executor.recoveries if executor is not None else ()


class Conversation:
    """A user who speaks when the bot has answered."""

    def __init__(self, actors: Actors, stt: FrameProcessor, tts: FrameProcessor) -> None:
        self.actors = actors
        self.stt, self.tts = stt, tts
        self.llm = FakeLLMService(ANSWERS)
        self.context = OpenAILLMContext()
        self.calls: list[str] = []
        self.llm.register_function("weather", self._weather)
        pair = self.llm.create_context_aggregator(
            self.context, user_params=LLMUserAggregatorParams(aggregation_timeout=0.02)
        )
        self.heard, self.spoken = Stay(), Stay()
        self.task: PipelineTask = pipeline_of(
            stt, self.heard, pair.user(), self.llm, tts, self.spoken, pair.assistant()
        )
        self.record = SessionRecord()
        self.placement: Placement | None = None

    @property
    def victims(self) -> Sequence[FrameProcessor]:
        return [self.stt, self.llm, self.tts]

    async def _weather(self, params: FunctionCallParams) -> None:
        day = params.arguments["day"]
        self.calls.append(f"begin {day}")
        await asyncio.sleep(0.003)
        # Otherwise it were left to chance what comes first in the conversation.
        await until(lambda: self.answered(2))
        self.calls.append(f"end {day}")
        await params.result_callback({"weather": f"sunny {day}"})

    async def speak(self, pieces: int) -> None:
        await self.task.queue_frame(UserStartedSpeakingFrame())
        for _ in range(pieces):
            await self.task.queue_frame(InputAudioRawFrame(PIECE, RATE, 1))
            await asyncio.sleep(0)
        await self.task.queue_frame(UserStoppedSpeakingFrame())

    def answered(self, turn: int) -> bool:
        """Whether the answer to a turn is complete in the conversation."""
        return sum(self._is_said(message) for message in self.context.messages) >= turn

    def _is_said(self, message: Any) -> bool:
        return message["role"] == "assistant" and bool(message.get("content"))

    async def run(self, chaos: Chaos | None = None) -> Outcome:
        running = asyncio.create_task(self.actors.run(self.task, self.placement, self.record))
        killer = asyncio.create_task(chaos()) if chaos is not None else None
        answers = 0
        for turn in range(len(SAID)):
            await self.speak(5 + turn)
            answers += 2 if turn == 1 else 1  # one before the calls, and one with their results
            await until(lambda: self.answered(answers))  # noqa: B023 - waited for here
            await asyncio.sleep(0.005)
        if killer is not None:
            killer.cancel()
            await asyncio.wait({killer})
        await self.task.queue_frame(EndFrame())
        async with asyncio.timeout(RUN_SECS):
            await running
        return self.outcome()

    def outcome(self) -> Outcome:
        down = self.spoken.down
        return Outcome(
            transcripts=[f.text for f in self.heard.down if isinstance(f, TranscriptionFrame)],
            # What is said beside the calls has its place among them by chance.
            messages=sorted(self.context.messages, key=lambda each: each.get("content") == BESIDE),
            spoken=b"".join(f.audio for f in down if isinstance(f, TTSAudioRawFrame)),
            words=[frame.text for frame in down if isinstance(frame, TTSTextFrame)],
            results=sum(isinstance(frame, FunctionCallResultFrame) for frame in down),
            calls=sorted(self.calls),
            failures=self.record.failures,
            recoveries=len(self.record.recoveries),
        )


def services(kind: str) -> tuple[FrameProcessor, FrameProcessor]:
    match kind:
        case "fakes":
            return FakeSTTService(SAID), FakeTTSService(sample_rate=RATE, ms_per_character=5)
        case "words":
            return (
                FakeSTTService(SAID, latency_secs=0.003),
                FakeWordTTSService(sample_rate=RATE, ms_per_character=1, latency_secs=0.001),
            )
        case _:
            return LengthSTT(), LateTTS(sample_rate=RATE)


KINDS = ("fakes", "words", "beside the frames")


def assert_same(disturbed: Outcome, peaceful: Outcome) -> None:
    assert disturbed.transcripts == peaceful.transcripts
    assert disturbed.messages == peaceful.messages
    assert disturbed.spoken == peaceful.spoken
    assert disturbed.words == peaceful.words
    assert disturbed.calls == peaceful.calls
    assert disturbed.results == peaceful.results
    assert disturbed.failures == []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_lost_at_any_moment_changes_nothing(
    actors: Actors, kind: str, seed: int
) -> None:
    peaceful = await Conversation(actors, *services(kind)).run()
    conversation = Conversation(actors, *services(kind))
    chaos = Chaos(conversation, [conversation.victims[seed % 3]], seed)
    disturbed = await conversation.run(chaos)
    assert disturbed.recoveries > 0
    assert_same(disturbed, peaceful)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
async def test_services_that_share_an_actor(actors: Actors, kind: str, seed: int) -> None:
    peaceful = await Conversation(actors, *services(kind)).run()
    conversation = Conversation(actors, *services(kind))
    conversation.placement = Placement(
        "dedicated", rules=(Rule(type(conversation.tts), with_previous=True),)
    )
    disturbed = await conversation.run(Chaos(conversation, [conversation.llm], seed))
    llm, tts = (actors.by_processor[each.name] for each in (conversation.llm, conversation.tts))
    assert llm is tts
    assert disturbed.recoveries > 0
    assert_same(disturbed, peaceful)


class Starts(FrameProcessor):
    """Counts how often it was started."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.starts = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.starts += isinstance(frame, StartFrame)
        await self.push_frame(frame, direction)


async def lose(actors: Actors, task: PipelineTask, processor: FrameProcessor) -> None:
    """Kills the actor of a processor, and waits until it has another one."""
    executor: Any = task._executor
    before = len(executor.recoveries)
    actors.by_processor[processor.name].die()
    await until(lambda: len(executor.recoveries) > before)


async def test_a_neighbour_that_is_lost_later_does_not_start_it_again(actors: Actors) -> None:
    before, after, end = Starts(), Starts(), Stay()
    task = pipeline_of(before, after, end)
    running = asyncio.create_task(actors.run(task))
    await started(task)
    for lost in (after, before, before):
        await lose(actors, task, lost)
        await task.queue_frame(TextFrame(lost.name))
        await until(lambda: end.texts[-1:] == [lost.name])  # noqa: B023 - waited for here
        assert (await actors.remote(after)).starts == 1
    await task.queue_frame(EndFrame())
    await running
    assert end.texts == [after.name, before.name, before.name]


class Counts(FrameProcessor):
    """Numbers texts."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = 0

    def snapshot(self) -> Mapping[str, Any]:
        return {"version": 1, "count": self.count}

    async def restore(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self.count += 1
            frame = TextFrame(f"{frame.text} {self.count}")
        await self.push_frame(frame, direction)


class InPairs(FrameProcessor):
    """Keeps a text until there is another one."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept = ""
        self._held = HeldFrames()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, TextFrame):
            await self.push_frame(frame, direction)
        elif not self.kept:
            self.kept = frame.text
            self._held.add()
        else:
            await self.push_frame(TextFrame(f"{self.kept}, {frame.text}"))
            self.kept = ""
            self._held.release()


async def test_a_state_is_not_ahead_of_what_a_neighbour_in_the_actor_holds(actors: Actors) -> None:
    counts, pairs, end = Counts(), InPairs(), Stay()
    task = pipeline_of(counts, pairs, end)
    placement = Placement("dedicated", rules=(Rule(InPairs, with_previous=True),))
    running = asyncio.create_task(actors.run(task, placement))
    await started(task)
    for number, text in enumerate("abcd"):
        await task.queue_frame(TextFrame(text))
        if number % 2 == 0:
            expected = f"{text} {number + 1}"
            await until(lambda: _kept(actors, pairs) == expected)  # noqa: B023 - waited for here
            # Something else that is answered, and time in which the state would be told then.
            await task.queue_frame(UserStartedSpeakingFrame())
            await asyncio.sleep(0.03)
            await lose(actors, task, counts)
    await task.queue_frame(EndFrame())
    await running
    assert end.texts == ["a 1, b 2", "c 3, d 4"]


def _kept(actors: Actors, pairs: InPairs) -> str:
    found: Any = actors.by_processor[pairs.name].processor(pairs.name)
    return found.kept if found is not None else ""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
async def test_one_after_the_other_is_lost(actors: Actors, kind: str, seed: int) -> None:
    peaceful = await Conversation(actors, *services(kind)).run()
    conversation = Conversation(actors, *services(kind))
    disturbed = await conversation.run(Chaos(conversation, conversation.victims, seed))
    assert disturbed.recoveries > 0
    assert_same(disturbed, peaceful)


class Sees(FrameProcessor):
    """Keeps what comes from both sides."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: list[str] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self.seen.append(frame.text)
        await self.push_frame(frame, direction)


async def test_what_waits_on_both_sides_goes_in_as_it_was_sent(actors: Actors) -> None:
    sees, end = Sees(), Stay()
    task = pipeline_of(sees, end)
    running = asyncio.create_task(actors.run(task))
    await started(task)
    lost = asyncio.create_task(lose(actors, task, sees))
    words = ["one", "two", "three", "four", "five", "six"]
    await asyncio.sleep(0)
    for number, word in enumerate(words):
        if number % 2 == 0:
            await end.push_frame(TextFrame(word), FrameDirection.UPSTREAM)
        else:
            await task.queue_frame(TextFrame(word))
            await asyncio.sleep(0)
    await lost
    remote = await actors.remote(sees)
    await until(lambda: len(remote.seen) == len(words))
    assert remote.seen == words
    await task.queue_frame(EndFrame())
    await running
