"""What bot programs do, as documented, with their processors in other processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
from tests.session.conftest import RUN_SECS, Actors, Mover, Stay, pipeline_of, texts, until

from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.frames.frames import (
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeUrgentFrame,
    FunctionCallCancelFrame,
    FunctionCallResultProperties,
    LLMFullResponseEndFrame,
    OpenAILLMContextAssistantTimestampFrame,
    StartInterruptionFrame,
    SystemFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSTextFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.llm_service import FunctionCallParams
from antiphon.testing import FakeDelay, FakeLLMService, FakeToolCall, FakeTTSService
from antiphon_actors.channels import RemoteCallError


@dataclass
class Bot:
    """A bot with a conversation and a remote language model."""

    task: PipelineTask
    llm: FakeLLMService
    context: OpenAILLMContext
    messages: list[Any]
    pair: Any
    end: Stay


def bot_of(*responses: Any, after: FrameProcessor | None = None, **llm_options: Any) -> Bot:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}]
    llm = FakeLLMService(list(responses), **llm_options)
    context = OpenAILLMContext(messages)
    pair = llm.create_context_aggregator(context)
    end = Stay()
    parts = [pair.user(), llm, *([after] if after else []), pair.assistant(), end]
    task = PipelineTask(Pipeline(parts))
    return Bot(task, llm, context, messages, pair, end)


def ends_after_answer(bot: Bot, answers: int = 1) -> None:
    left = answers
    bot.task.set_reached_downstream_filter((OpenAILLMContextAssistantTimestampFrame,))

    @bot.task.event_handler("on_frame_reached_downstream")
    async def on_answered(task: PipelineTask, frame: Frame) -> None:
        nonlocal left
        left -= 1
        if not left:
            await task.queue_frame(EndFrame())


async def test_a_handler_that_appends_to_the_messages_it_gave(actors: Actors) -> None:
    bot = bot_of(["Hello", "there."])
    ends_after_answer(bot)

    @bot.task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        bot.messages.append({"role": "system", "content": "Greet the user."})
        await task.queue_frames([bot.pair.user().get_context_frame()])

    await actors.run(bot.task)
    assert [message["role"] for message in bot.messages] == ["system", "system", "assistant"]
    assert bot.messages[-1]["content"] == "Hello there."
    assert bot.context.messages is bot.messages


async def test_a_function_handler_uses_the_bots_own_objects(actors: Actors) -> None:
    bot = bot_of(["Wait.", FakeToolCall("weather", {"city": "Oslo"})], ["It is", "cold."])
    ends_after_answer(bot, answers=2)
    asked: list[FunctionCallParams] = []
    updated = asyncio.Event()

    async def weather(params: FunctionCallParams) -> None:
        asked.append(params)
        await params.llm.push_frame(TTSSpeakFrame("One moment."))

        async def on_update() -> None:
            updated.set()

        await params.result_callback(
            {"degrees": -3},
            properties=FunctionCallResultProperties(run_llm=True, on_context_updated=on_update),
        )

    started_calls: list[object] = []

    @bot.llm.event_handler("on_function_calls_started")
    async def on_function_calls_started(service: object, calls: Any) -> None:
        started_calls.append((service, calls[0].function_name, calls[0].context))

    bot.llm.register_function("weather", weather)
    await bot.task.queue_frame(bot.pair.user().get_context_frame())
    await actors.run(bot.task)
    [params] = asked
    assert params.llm is bot.llm
    assert params.context is bot.context
    assert params.arguments == {"city": "Oslo"}
    assert started_calls == [(bot.llm, "weather", bot.context)]
    assert updated.is_set()
    assert bot.messages[-1] == {"role": "assistant", "content": "It is cold."}
    assert any(message.get("content") == '{"degrees": -3}' for message in bot.messages)
    spoken = [frame.text for frame in bot.end.down if isinstance(frame, TTSSpeakFrame)]
    assert spoken == ["One moment."]


async def test_a_result_that_asks_for_no_answer(actors: Actors) -> None:
    bot = bot_of([FakeToolCall("note")])
    done = asyncio.Event()

    async def note(params: FunctionCallParams) -> None:
        async def on_update() -> None:
            done.set()
            await bot.task.queue_frame(EndFrame())

        properties = FunctionCallResultProperties(run_llm=False, on_context_updated=on_update)
        await params.result_callback({"noted": True}, properties=properties)

    bot.llm.register_function("note", note)
    await bot.task.queue_frame(bot.pair.user().get_context_frame())
    await actors.run(bot.task)
    assert done.is_set()
    assert bot.messages[-1]["role"] == "tool"


async def test_direct_functions(actors: Actors) -> None:
    bot = bot_of([FakeToolCall("add", {"a": 2, "b": 3})], "Five.")
    ends_after_answer(bot)
    sums: list[int] = []

    async def add(params: FunctionCallParams, a: int, b: int) -> None:
        """Adds two numbers.

        Args:
            a: One.
            b: The other.
        """
        sums.append(a + b)
        await params.result_callback({"sum": a + b})

    bot.llm.register_direct_function(add)
    bot.context.set_tools(ToolsSchema(standard_tools=[add]))
    await bot.task.queue_frame(bot.pair.user().get_context_frame())
    await actors.run(bot.task)
    assert sums == [5]
    assert bot.messages[-1]["content"] == "Five."


async def test_a_handler_registered_while_the_bot_runs(actors: Actors) -> None:
    bot = bot_of([FakeToolCall("late")], "Done.")
    ends_after_answer(bot)

    async def late(params: FunctionCallParams) -> None:
        await params.result_callback("ok")

    @bot.task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        bot.llm.register_function("late", late)
        assert bot.llm.has_function("late")
        await task.queue_frame(bot.pair.user().get_context_frame())

    await actors.run(bot.task)
    assert bot.messages[-1]["content"] == "Done."


async def test_a_handler_that_fails_does_not_end_the_session(actors: Actors) -> None:
    bot = bot_of([FakeToolCall("bad")])

    async def bad(params: FunctionCallParams) -> None:
        raise KeyError("nothing there")

    @bot.task.event_handler("on_frame_reached_upstream")
    async def on_error(task: PipelineTask, frame: ErrorFrame) -> None:
        assert frame.processor is bot.llm
        assert "nothing there" in frame.error
        await task.queue_frame(EndFrame())

    bot.task.set_reached_upstream_filter((ErrorFrame,))
    bot.llm.register_function("bad", bad)
    await bot.task.queue_frame(bot.pair.user().get_context_frame())
    await actors.run(bot.task)
    assert len(bot.task.errors) == 1


async def test_an_interruption_cancels_a_running_handler_at_home(actors: Actors) -> None:
    bot = bot_of([FakeToolCall("wait")])
    running, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(params: FunctionCallParams) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    bot.llm.register_function("wait", wait)
    await bot.task.queue_frame(bot.pair.user().get_context_frame())
    session = asyncio.create_task(actors.run(bot.task))
    async with asyncio.timeout(RUN_SECS):
        await running.wait()
        await bot.task.queue_frame(StartInterruptionFrame())
        await cancelled.wait()
        await bot.task.queue_frame(EndFrame())
        await session
    assert any(message.get("content") == "CANCELLED" for message in bot.messages)


async def test_an_event_handler_gets_the_bots_object(actors: Actors) -> None:
    mover, home = Mover(), Stay()
    seen: list[tuple[object, str]] = []

    @mover.event_handler("on_text")
    def plain(processor: object, text: str) -> None:
        seen.append((processor, f"plain {text}"))

    @mover.event_handler("on_text")
    async def awaited(processor: object, text: str) -> None:
        await asyncio.sleep(0)
        seen.append((processor, f"awaited {text}"))

    task = pipeline_of(mover, home)
    await task.queue_frames(texts("1"))
    await actors.run(task)
    assert [(processor is mover, text) for processor, text in seen] == [
        (True, "plain 1"),
        (True, "awaited 1"),
    ]


async def test_speaking_and_settings_before_and_after_the_start(actors: Actors) -> None:
    tts, home = FakeTTSService(ms_per_character=1), Stay()
    tts.set_voice("first")
    tts.set_voice("second")
    task = pipeline_of(tts, home)

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        remote = await actors.remote(tts)
        assert remote is not tts
        assert remote._voice_id == "second"
        tts.set_voice("third")
        await tts.say("Hello.")
        assert remote._voice_id == "third"
        await tts.set_model("large")
        assert remote.model_name == "large"
        await task.queue_frame(EndFrame())

    await actors.run(task)
    assert [frame.text for frame in home.down if isinstance(frame, TTSTextFrame)] == ["Hello."]
    assert any(isinstance(frame, TTSAudioRawFrame) for frame in home.down)


async def test_the_journal_is_replayed_in_order_awaited_calls_included(actors: Actors) -> None:
    mover, home = Mover(), Stay()

    async def answer(processor: FrameProcessor, text: str) -> str:
        return f"{text}{processor is mover}"

    mover.set_tag("x")
    await mover.shout("too early")
    mover.call_back(answer)
    mover.set_tag("y")
    history: list[str] = []
    task = pipeline_of(mover, home)

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        mover.set_tag("z")
        history.extend(await mover.history())
        assert await mover.shout("hi") == "HI"
        await task.queue_frames(texts("1"))

    await actors.run(task)
    assert history == ["x", "y", "z"]
    assert home.texts == ["hi", "1Truez"]


async def test_what_a_remote_call_raises_reaches_the_bot(actors: Actors) -> None:
    mover = Mover()
    task = pipeline_of(mover)
    raised: list[Exception] = []

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        try:
            await mover.fail("no such thing")
        except RemoteCallError as error:
            raised.append(error)
        await task.queue_frame(EndFrame())

    await actors.run(task)
    [error] = raised
    assert str(error) == "LookupError: no such thing"


async def test_queue_frame_with_a_callback_on_a_remote_processor(actors: Actors) -> None:
    mover, home = Mover("a"), Stay()
    task = pipeline_of(mover, home)
    called: list[tuple[object, ...]] = []
    frame = TextFrame("1")

    async def processed(processor: object, frame: Frame, direction: FrameDirection) -> None:
        called.append((processor, frame, direction))
        await task.queue_frame(EndFrame())

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, start: Frame) -> None:
        await mover.queue_frame(frame, FrameDirection.DOWNSTREAM, processed)

    await actors.run(task)
    assert called == [(mover, frame, FrameDirection.DOWNSTREAM)]
    assert home.texts == ["1a"]


async def test_pausing_a_remote_processor_by_frames_that_name_it(actors: Actors) -> None:
    mover, home = Mover("a"), Stay()
    task = pipeline_of(mover, home)
    paused_texts: list[str] = []

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        remote = await actors.remote(mover)
        inbox = remote._local_inbox
        await task.queue_frame(FrameProcessorPauseUrgentFrame(processor=mover))
        await until(lambda: inbox._paused)
        # 0.0.79 lets a waiting task have one more frame; here a pause is a pause at once or so.
        await task.queue_frames(texts("1", "2", "3", end=False))
        await until(lambda: inbox.waiting >= 2)
        paused_texts.extend(home.texts)
        await task.queue_frame(FrameProcessorResumeUrgentFrame(processor=mover))
        await task.queue_frame(EndFrame())

    await actors.run(task)
    assert len(paused_texts) <= 1
    assert home.texts == ["1a", "2a", "3a"]


class Mood(Enum):
    GLAD = "glad"
    SAD = "sad"


@dataclass
class Feeling:
    mood: Mood
    strength: int = 1


@dataclass
class MoodFrame(DataFrame):
    mood: Mood = Mood.GLAD
    feelings: list[Feeling] | None = None
    callback: Any = None


@dataclass
class UrgentMoodFrame(SystemFrame):
    mood: Mood = Mood.GLAD


async def test_a_bots_own_frames_cross_with_their_enums_and_live_objects(actors: Actors) -> None:
    home = Stay()
    live = object()

    async def callback() -> str:
        return "called"

    frame = MoodFrame(Mood.SAD, [Feeling(Mood.GLAD, 3)], callback)
    frame.metadata["live"] = live
    task = pipeline_of(Mover(), Mover(), home)
    await task.queue_frames([UrgentMoodFrame(Mood.SAD), frame, EndFrame()])
    await actors.run(task)
    [arrived] = [each for each in home.down if isinstance(each, MoodFrame)]
    assert arrived is not frame
    assert arrived.mood is Mood.SAD
    assert arrived.feelings == [Feeling(Mood.GLAD, 3)]
    assert arrived.callback is callback
    assert arrived.metadata["live"] is live
    [urgent] = [each for each in home.down if isinstance(each, UrgentMoodFrame)]
    assert urgent.mood is Mood.SAD


class Gate(FrameProcessor):
    """Holds the first text until a callback of the bot says go."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.held = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self.held.set()
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        await self.push_frame(frame, direction)


async def test_an_interruption_drops_what_waits_on_both_sides(actors: Actors) -> None:
    gate, home = Gate(), Stay()
    task = pipeline_of(Stay(), gate, home)
    session = asyncio.create_task(actors.run(task))
    async with asyncio.timeout(RUN_SECS):
        await task.queue_frames(texts(*(str(number) for number in range(300)), end=False))
        remote = await actors.remote(gate)
        await remote.held.wait()
        # More than a window is under way: the sender waits, the rest is on both sides.
        await until(lambda: remote._local_inbox.waiting > 50)
        await task.queue_frame(EndFrame())
        first = task.pipeline.processors[0]
        await first.queue_frame(StartInterruptionFrame())
        await until(lambda: remote.cancelled)
        remote.open.set()
        await session
    # Queued behind the interruption or not, the end arrives; the interrupted words do not.
    assert remote.cancelled == 1
    assert "0" not in home.texts
    assert len(home.texts) < 300
    assert isinstance(home.down[-1], EndFrame)


async def test_an_interrupted_answer_ends_and_the_end_survives(actors: Actors) -> None:
    bot = bot_of(["One", "two", FakeDelay(60.0), "three"])
    seen = asyncio.Event()
    bot.task.set_reached_downstream_filter((StartInterruptionFrame,))

    @bot.task.event_handler("on_frame_reached_downstream")
    async def on_interrupted(task: PipelineTask, frame: Frame) -> None:
        seen.set()

    await bot.task.queue_frame(bot.pair.user().get_context_frame())
    session = asyncio.create_task(actors.run(bot.task))
    async with asyncio.timeout(RUN_SECS):
        await until(lambda: bot.pair.assistant()._aggregation.strip() == "One two")
        await bot.task.queue_frames([StartInterruptionFrame(), EndFrame()])
        await session
    assert seen.is_set()
    assert bot.messages[-1] == {"role": "assistant", "content": "One two"}


@pytest.mark.parametrize("kind", [LLMFullResponseEndFrame, FunctionCallCancelFrame])
async def test_ordinary_frames_of_the_bot_pass_upstream_too(
    actors: Actors, kind: type[Frame]
) -> None:
    home = Stay()
    last = Mover()
    task = pipeline_of(home, Mover(), last)
    frame = (
        FunctionCallCancelFrame(function_name="f", tool_call_id="1")
        if kind is FunctionCallCancelFrame
        else LLMFullResponseEndFrame()
    )

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, start: Frame) -> None:
        await last.push_frame(frame, FrameDirection.UPSTREAM)

    task.set_reached_upstream_filter((kind,))

    @task.event_handler("on_frame_reached_upstream")
    async def on_frame_reached_upstream(task: PipelineTask, frame: Frame) -> None:
        await task.queue_frame(EndFrame())

    await actors.run(task)
    [arrived] = [each for each in home.up if isinstance(each, kind)]
    assert arrived.id == frame.id
