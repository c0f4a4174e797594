"""The framework's parts give a bot the same result in one process and over actors."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from tests.session.conftest import RUN_SECS, Actors, Mover, Stay, texts, until

from antiphon.flows import FlowArgs, FlowManager, FlowsFunctionSchema, NodeConfig
from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    MetricsFrame,
    OpenAILLMContextAssistantTimestampFrame,
    StartFrame,
    STTMuteFrame,
    TextFrame,
    TranscriptionFrame,
    TranscriptionUpdateFrame,
    TransportMessageUrgentFrame,
    TTSSpeakFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import LLMUsageMetricsData, TTSUsageMetricsData
from antiphon.observers.turn_tracking_observer import TurnTrackingObserver
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.sync_parallel_pipeline import SyncParallelPipeline
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.audio.audio_buffer_processor import AudioBufferProcessor
from antiphon.processors.consumer_processor import ConsumerProcessor
from antiphon.processors.filters.stt_mute_filter import (
    STTMuteConfig,
    STTMuteFilter,
    STTMuteStrategy,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.frameworks.rtvi import (
    RTVIAction,
    RTVIActionArgument,
    RTVIObserver,
    RTVIProcessor,
)
from antiphon.processors.producer_processor import ProducerProcessor
from antiphon.processors.transcript_processor import TranscriptProcessor
from antiphon.processors.user_idle_processor import UserIdleProcessor
from antiphon.services.llm_service import FunctionCallParams
from antiphon.testing import (
    FakeLLMService,
    FakeSTTService,
    FakeToolCall,
    FakeTransport,
    FakeTTSService,
)
from antiphon_actors.placement.policy import Placement, Rule

Run = Callable[[PipelineTask], Awaitable[object]]
RATE = 16000
CONVERSATION = "shares the conversation with the bot program"
CONNECTION = "holds the session's connection to the caller"
AGGREGATORS = {
    "OpenAIUserContextAggregator": CONVERSATION,
    "OpenAIAssistantContextAggregator": CONVERSATION,
}
TRANSPORT = {"_FakeInput": CONNECTION, "_FakeOutput": CONNECTION}


@dataclass(frozen=True)
class Bot:
    """A bot, and what it gives wherever its processors run.

    Attributes:
        converse: Builds the bot, has `run` run it, and returns what came of it.
        moved: The classes of the processors that actors run.
        pinned: Those that stay, and why; the test's own probes are left out.
    """

    converse: Callable[[Run], Awaitable[Any]]
    result: Any
    moved: set[str]
    pinned: dict[str, str] = field(default_factory=dict)


def speech(*sentences: str) -> list[Frame]:
    said = [TranscriptionFrame(sentence, "user", "now") for sentence in sentences]
    return [UserStartedSpeakingFrame(), *said, UserStoppedSpeakingFrame()]


def on_start(task: PipelineTask, *frames: Frame) -> None:
    """Queues frames as soon as the pipeline runs."""

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        await task.queue_frames(list(frames))


def on_each(task: PipelineTask, kind: type[Frame], *steps: list[Frame]) -> None:
    """Queues the next step each time that a frame of a class has crossed the pipeline."""
    script = iter(steps)
    task.set_reached_downstream_filter((kind,))

    @task.event_handler("on_frame_reached_downstream")
    async def go_on(task: PipelineTask, frame: Frame) -> None:
        await task.queue_frames(next(script, []))


async def function_calls(run: Run) -> Any:
    llm = FakeLLMService(
        [
            [FakeToolCall("add", {"a": 2, "b": 3}), FakeToolCall("weather", {"city": "Oslo"})],
            "Five, and cold.",
        ]
    )
    context = OpenAILLMContext()
    pair = llm.create_context_aggregator(context)
    end = Stay()
    task = PipelineTask(Pipeline([pair.user(), llm, FakeTTSService(), end, pair.assistant()]))
    on_start(task, *speech("How much, and how warm?"))
    on_each(task, OpenAILLMContextAssistantTimestampFrame, [EndFrame()])
    asked: list[Any] = []

    async def weather(params: FunctionCallParams) -> None:
        asked.append((params.function_name, params.arguments, params.llm is llm))
        await params.result_callback({"degrees": -3})

    async def add(params: FunctionCallParams, a: int, b: int) -> None:
        """Adds two numbers."""
        asked.append(("add", a + b, params.context is context))
        await params.result_callback({"sum": a + b})

    llm.register_function("weather", weather)
    llm.register_direct_function(add)
    await run(task)
    calls = [FunctionCallInProgressFrame, FunctionCallResultFrame]
    return {
        "asked": sorted(asked, key=str),
        "roles": [message["role"] for message in context.messages],
        "results": [m["content"] for m in context.messages if m["role"] == "tool"],
        "answer": context.messages[-1]["content"],
        "frames": [sum(isinstance(frame, kind) for frame in end.down) for kind in calls],
    }


FUNCTION_CALLS = Bot(
    function_calls,
    {
        "asked": [("add", 5, True), ("weather", {"city": "Oslo"}, True)],
        "roles": ["user", "assistant", "tool", "assistant", "tool", "assistant"],
        "results": ['{"sum": 5}', '{"degrees": -3}'],
        "answer": "Five, and cold.",
        "frames": [2, 2],
    },
    {"FakeLLMService", "FakeTTSService"},
    AGGREGATORS,
)


async def flow(run: Run) -> Any:
    async def choose(args: FlowArgs, flow_manager: FlowManager) -> tuple[Any, NodeConfig]:
        flow_manager.state.update(args)
        return args["color"], {
            "name": "end",
            "task_messages": [{"role": "system", "content": "Thank them."}],
            "post_actions": [{"type": "end_conversation", "text": "Bye."}],
        }

    llm = FakeLLMService([[FakeToolCall("choose", {"color": "red"})], "Red it is."])
    context = OpenAILLMContext()
    pair = llm.create_context_aggregator(context)
    end = Stay()
    task = PipelineTask(Pipeline([pair.user(), llm, FakeTTSService(), end, pair.assistant()]))
    manager = FlowManager(task=task, llm=llm, context_aggregator=pair)
    function = FlowsFunctionSchema("choose", "", {"color": {"type": "string"}}, ["color"], choose)

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        messages = [{"role": "system", "content": "Ask for the color."}]
        await manager.initialize({"task_messages": messages, "functions": [function]})

    await run(task)
    return {
        "node": manager.current_node,
        "state": manager.state,
        "spoken": [frame.text for frame in end.down if isinstance(frame, TTSTextFrame)],
        "said": [m.get("content") for m in context.messages if m["role"] != "tool"],
    }


FLOW = Bot(
    flow,
    {
        "node": "end",
        "state": {"color": "red"},
        "spoken": ["Red it is.", "Bye."],
        "said": ["Ask for the color.", None, "Thank them.", "Red it is."],
    },
    {"FakeLLMService", "FakeTTSService"},
    AGGREGATORS,
)


async def rtvi(run: Run) -> Any:
    transport = FakeTransport(paced=False)
    processor = RTVIProcessor()
    llm = FakeLLMService([[FakeToolCall("look", {"at": "sky"})], "It is blue."])
    pair = llm.create_context_aggregator(OpenAILLMContext())
    parts = [transport.input(), processor, pair.user(), llm, FakeTTSService()]
    task = PipelineTask(
        Pipeline([*parts, transport.output(), pair.assistant()]),
        observers=[RTVIObserver(processor)],
    )
    task.set_reached_downstream_filter((BotStoppedSpeakingFrame,))

    @task.event_handler("on_frame_reached_downstream")
    async def hang_up(task: PipelineTask, frame: Frame) -> None:
        # What the client is told goes its own way: it is not behind the frames it tells of.
        await until(lambda: transport.messages[-1]["type"] == "bot-stopped-speaking")
        await task.queue_frame(EndFrame())

    processor.add_event_handler("on_client_ready", RTVIProcessor.set_bot_ready)
    # The client has this function.
    llm.register_function("look", processor.handle_function_call)

    async def shout(rtvi: RTVIProcessor, service: str, arguments: dict[str, Any]) -> str:
        shouted: str = arguments["text"].upper()
        return shouted

    argument = RTVIActionArgument(name="text", type="string")
    processor.register_action(
        RTVIAction(
            service="voice", action="shout", arguments=[argument], result="string", handler=shout
        )
    )

    async def send(kind: str, **data: Any) -> None:
        message = {"label": "rtvi-ai", "type": kind, "id": kind, "data": data}
        await transport.inject(TransportMessageUrgentFrame(message=message))

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport: Any, client: object) -> None:
        await send("client-ready", version="1.0.0", about={"library": "test"})
        arguments = [{"name": "text", "value": "hey"}]
        await send("action", service="voice", action="shout", arguments=arguments)
        await send("nonsense")
        for frame in speech("What do you see?"):
            await transport.inject(frame)

    @task.event_handler("on_frame_reached_upstream")
    async def answer(task: PipelineTask, frame: Frame) -> None:
        assert isinstance(frame, FunctionCallInProgressFrame)
        call = {"function_name": frame.function_name, "tool_call_id": frame.tool_call_id}
        result = {"result": "blue", "arguments": frame.arguments}
        await send("llm-function-call-result", **call, **result)

    task.set_reached_upstream_filter((FunctionCallInProgressFrame,))
    await run(task)
    told: defaultdict[str, list[Any]] = defaultdict(list)
    for message in transport.messages:
        told[message["type"]].append(message.get("data"))
    told.pop("metrics", None)
    for said in told["user-transcription"]:
        said.pop("timestamp")
    return dict(told)


RTVI = Bot(
    rtvi,
    {
        "action-response": [{"result": "HEY"}],
        "bot-llm-started": [None, None],
        "bot-llm-stopped": [None, None],
        "bot-llm-text": [{"text": "It"}, {"text": " is"}, {"text": " blue."}],
        "bot-ready": [{"version": "1.0.0"}],
        "bot-started-speaking": [None],
        "bot-stopped-speaking": [None],
        "bot-transcription": [{"text": "It is blue."}],
        "bot-tts-started": [None],
        "bot-tts-stopped": [None],
        "bot-tts-text": [{"text": "It is blue."}],
        "error-response": [{"error": "Unsupported type nonsense"}],
        "llm-function-call": [
            {"args": {"at": "sky"}, "function_name": "look", "tool_call_id": "fake_call_1"}
        ],
        "user-llm-text": [{"text": "What do you see?"}],
        "user-started-speaking": [None],
        "user-stopped-speaking": [None],
        "user-transcription": [{"final": True, "text": "What do you see?", "user_id": "user"}],
    },
    {"FakeLLMService", "FakeTTSService"},
    AGGREGATORS
    | TRANSPORT
    | {"RTVIProcessor": "it calls the bot's handlers and stands for the client"},
)


class Muted(FrameProcessor):
    """Goes on with a script each time that the recognition before it has been told to mute or not."""

    def __init__(self, task: Callable[[], PipelineTask], *steps: list[Frame]) -> None:
        super().__init__()
        self._script = iter(steps)
        self._task = task

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, STTMuteFrame) and direction is FrameDirection.UPSTREAM:
            await self._task().queue_frames(next(self._script))


async def mute(run: Run) -> Any:
    stt = FakeSTTService(["One.", "Two.", "Three."])
    strategies = {STTMuteStrategy.ALWAYS, STTMuteStrategy.FUNCTION_CALL}
    filtering = STTMuteFilter(config=STTMuteConfig(strategies=strategies))
    steps = [*speech(), BotStoppedSpeakingFrame()], [*speech(), EndFrame()]
    end = Stay()
    task = PipelineTask(Pipeline([stt, Muted(lambda: task, *steps), filtering, end]))
    on_start(task, *speech(), BotStartedSpeakingFrame())
    await run(task)
    kinds = (TranscriptionFrame, UserStartedSpeakingFrame, UserStoppedSpeakingFrame, STTMuteFrame)
    return [
        getattr(frame, "text", None) or getattr(frame, "mute", type(frame).__name__)
        for frame in end.down
        if isinstance(frame, kinds)
    ]


TURN = ["UserStartedSpeakingFrame", "UserStoppedSpeakingFrame"]
MUTE = Bot(
    mute,
    [*TURN, "One.", True, False, *TURN, "Three."],
    {"FakeSTTService", "STTMuteFilter"},
    {"Muted": "the bot's own class; `movable = True` in the class lets it move"},
)


async def idle(run: Run) -> Any:
    retries: list[int] = []

    async def ask(processor: UserIdleProcessor, retry_count: int) -> bool:
        retries.append(retry_count)
        await processor.push_frame(TTSSpeakFrame(f"Still there, {retry_count}?"))
        if retry_count == 3:
            await task.queue_frame(EndFrame())
        return retry_count < 3

    end = Stay()
    parts = [UserIdleProcessor(callback=ask, timeout=0.02), FakeTTSService(), end]
    task = PipelineTask(Pipeline(parts))
    on_start(task, *speech())
    await run(task)
    return retries, [frame.text for frame in end.down if isinstance(frame, TTSTextFrame)]


IDLE = Bot(
    idle,
    ([1, 2, 3], ["Still there, 1?", "Still there, 2?", "Still there, 3?"]),
    {"FakeTTSService"},
    {"UserIdleProcessor": "it calls the bot's own function"},
)


async def transcript(run: Run) -> Any:
    made = TranscriptProcessor()
    heard: list[Any] = []

    @made.event_handler("on_transcript_update")
    async def on_transcript_update(source: object, frame: TranscriptionUpdateFrame) -> None:
        own = source in (made.user(), made.assistant())
        heard.extend((own, said.role, said.content) for said in frame.messages)

    llm = FakeLLMService(["Fine. And you?"])
    pair = llm.create_context_aggregator(OpenAILLMContext())
    user, assistant = made.user(), made.assistant()
    end = Stay()
    parts = [user, pair.user(), llm, FakeTTSService(ms_per_character=1), assistant, end]
    task = PipelineTask(Pipeline([*parts, pair.assistant()]))
    on_start(task, *speech("Hi.", "How are you?"))
    on_each(task, OpenAILLMContextAssistantTimestampFrame, [EndFrame()])
    await run(task)
    updates = [frame for frame in end.down if isinstance(frame, TranscriptionUpdateFrame)]
    return heard, [said.content for frame in updates for said in frame.messages]


TRANSCRIPT = Bot(
    transcript,
    (
        [
            (True, "user", "Hi."),
            (True, "user", "How are you?"),
            (True, "assistant", "Fine. And you?"),
        ],
        ["Hi.", "How are you?", "Fine. And you?"],
    ),
    {
        "FakeLLMService",
        "FakeTTSService",
        "UserTranscriptProcessor",
        "AssistantTranscriptProcessor",
    },
    AGGREGATORS,
)


async def audio_buffer(run: Run) -> Any:
    transport = FakeTransport(paced=False)
    recorder = AudioBufferProcessor()
    tracks: list[Any] = []

    @recorder.event_handler("on_track_audio_data")
    async def on_track_audio_data(source: object, *tracks_and_format: Any) -> None:
        assert source is recorder
        tracks.extend(tracks_and_format)

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport: Any, client: object) -> None:
        await recorder.start_recording()
        for _ in range(5):
            await transport.inject(InputAudioRawFrame(b"\x10\x01" * 320, RATE, 1))
        await transport.inject(TTSSpeakFrame("Hello."))

    parts = [transport.input(), FakeTTSService(), transport.output(), recorder]
    params = PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE)
    task = PipelineTask(Pipeline(parts), params=params)
    on_each(task, BotStoppedSpeakingFrame, [EndFrame()])
    await run(task)
    user, bot, rate, channels = tracks
    return {
        "format": (rate, channels),
        "user": sounding(user),
        "bot was played": sounding(bot) == sounding(transport.audio) != [],
        "equally long": len(user) == len(bot),
    }


def sounding(audio: bytes) -> list[int]:
    """Without the silence: how much of it there is depends on when somebody spoke."""
    samples = np.frombuffer(audio, "<i2")
    return [int(sample) for sample in samples[samples != 0]]


AUDIO_BUFFER = Bot(
    audio_buffer,
    {
        "format": (RATE, 1),
        "user": [0x110] * 5 * 320,
        "bot was played": True,
        "equally long": True,
    },
    {"FakeTTSService"},
    TRANSPORT | {"AudioBufferProcessor": "the bot program gets its recordings"},
)


async def producer_consumer(run: Run) -> Any:
    async def is_text(frame: Frame) -> bool:
        return isinstance(frame, TextFrame)

    async def given(frame: Frame) -> Frame:
        assert isinstance(frame, TextFrame)
        return TextFrame(f"given {frame.text}")

    producer = ProducerProcessor(filter=is_text, transformer=given)
    end = Stay()
    consumer = ConsumerProcessor(producer=producer)
    task = PipelineTask(Pipeline([Mover("a"), producer, Mover("b"), consumer, end]))
    on_start(task, *texts("1", "2", "3"))
    await run(task)
    # Each has its order; how the two mix depends on who is quicker.
    passed = [text for text in end.texts if not text.startswith("given")]
    return passed, [text for text in end.texts if text not in passed], type(end.down[-1]).__name__


PRODUCER_CONSUMER = Bot(
    producer_consumer,
    (["1ab", "2ab", "3ab"], ["given 1a", "given 2a", "given 3a"], "EndFrame"),
    {"Mover"},
    {
        "ProducerProcessor": "it asks the bot's own function and shares queues with others",
        "ConsumerProcessor": "it shares a queue with its producer",
    },
)


class Answer(FrameProcessor):
    """Makes new texts of each one, in either direction."""

    movable: ClassVar[bool] = True

    def __init__(self, tag: str, count: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tag = tag
        self._count = count

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if type(frame) is not TextFrame or direction is FrameDirection.UPSTREAM:
            await self.push_frame(frame, direction)
            return
        for number in range(self._count):
            await self.push_frame(TextFrame(f"{frame.text}{self._tag}{number}"))
        await self.push_frame(TextFrame(f"{frame.text}{self._tag}"), FrameDirection.UPSTREAM)


async def branches(run: Run, kind: type[ParallelPipeline]) -> tuple[Stay, Stay]:
    start, end = Stay(), Stay()
    parallel = kind([Answer("l", 2), Mover("+")], [Answer("r")], [Mover(), Mover()])
    task = PipelineTask(Pipeline([start, parallel, Mover(), end]))
    on_start(task, *texts("1", "2", "3"))
    await run(task)
    return start, end


def by_branch(found: list[str]) -> list[list[str]]:
    return [[text for text in found if tag in text] for tag in "lr"] + [
        [text for text in found if not {"l", "r"} & set(text)]
    ]


def lifecycle(end: Stay) -> list[str]:
    kinds = (StartFrame, EndFrame)
    return [type(frame).__name__ for frame in end.down if isinstance(frame, kinds)]


async def parallel(run: Run) -> Any:
    start, end = await branches(run, ParallelPipeline)
    up = [frame.text for frame in start.up if isinstance(frame, TextFrame)]
    return by_branch(end.texts), by_branch(up)[:2], lifecycle(end)


DOWN = [
    [f"{number}l{part}+" for number in (1, 2, 3) for part in (0, 1)],
    ["1r0", "2r0", "3r0"],
    ["1", "2", "3"],
]
UP = [["1l", "2l", "3l"], ["1r", "2r", "3r"]]
PARALLEL = Bot(parallel, (DOWN, UP, ["StartFrame", "EndFrame"]), {"Answer", "Mover"})


async def sync_parallel(run: Run) -> Any:
    start, end = await branches(run, SyncParallelPipeline)
    up = [frame.text for frame in start.up if isinstance(frame, TextFrame)]
    rounds = "".join(text[0] for text in end.texts)
    return by_branch(end.texts), by_branch(up)[:2], lifecycle(end), rounds


SYNC_PARALLEL = Bot(
    sync_parallel,
    # What three branches make of one text comes out before what they make of the next.
    (DOWN, UP, ["StartFrame", "EndFrame"], "1" * 4 + "2" * 4 + "3" * 4),
    {"Answer", "Mover"},
)


async def observers(run: Run) -> Any:
    transport = FakeTransport(paced=False)
    llm = FakeLLMService(["Hello there.", "Good to hear."])
    context = OpenAILLMContext()
    pair = llm.create_context_aggregator(context)
    tracker = TurnTrackingObserver()
    turns: list[Any] = []

    @tracker.event_handler("on_turn_started")
    async def on_turn_started(observer: object, number: int) -> None:
        turns.append((observer is tracker, number))

    @tracker.event_handler("on_turn_ended")
    async def on_turn_ended(
        observer: object, number: int, duration: float, interrupted: bool
    ) -> None:
        turns.append((number, duration > 0, interrupted))

    tts = FakeTTSService()
    end = Stay()
    parts = [transport.input(), pair.user(), llm, tts, transport.output(), pair.assistant(), end]
    task = PipelineTask(
        Pipeline(parts),
        params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
        observers=[tracker],
    )
    on_start(task, *speech("Hi."))
    on_each(task, BotStoppedSpeakingFrame, speech("I am well."), [EndFrame()])
    await run(task)
    data = [item for frame in end.down if isinstance(frame, MetricsFrame) for item in frame.data]
    own = {llm.name: "llm", tts.name: "tts"}
    measured = {(own[item.processor], type(item).__name__) for item in data if item.model}
    tokens = [item.value for item in data if isinstance(item, LLMUsageMetricsData)]
    return {
        "turns": turns,
        "measured": measured,
        "tokens": [(usage.prompt_tokens, usage.completion_tokens) for usage in tokens],
        "characters": [item.value for item in data if isinstance(item, TTSUsageMetricsData)],
    }


OBSERVERS = Bot(
    observers,
    {
        "turns": [(True, 1), (1, True, False), (True, 2), (2, True, True)],
        "measured": {
            ("llm", "LLMUsageMetricsData"),
            ("llm", "ProcessingMetricsData"),
            ("llm", "TTFBMetricsData"),
            ("tts", "ProcessingMetricsData"),
            ("tts", "TTFBMetricsData"),
            ("tts", "TTSUsageMetricsData"),
        },
        "tokens": [(4, 2), (15, 3)],
        "characters": [12, 13],
    },
    {"FakeLLMService", "FakeTTSService"},
    AGGREGATORS | TRANSPORT,
)

BOTS = {
    "function calls": FUNCTION_CALLS,
    "flow": FLOW,
    "rtvi": RTVI,
    "mute": MUTE,
    "idle": IDLE,
    "transcript": TRANSCRIPT,
    "audio buffer": AUDIO_BUFFER,
    "producer and consumer": PRODUCER_CONSUMER,
    "parallel": PARALLEL,
    "sync parallel": SYNC_PARALLEL,
    "observers": OBSERVERS,
}


async def run_here(task: PipelineTask) -> None:
    async with asyncio.timeout(RUN_SECS):
        await PipelineRunner(handle_sigint=False).run(task)


@pytest.mark.parametrize("name", BOTS)
async def test_in_one_process(name: str) -> None:
    bot = BOTS[name]
    assert await bot.converse(run_here) == bot.result


@pytest.mark.parametrize("preset", ["dedicated", "pooled"])
@pytest.mark.parametrize("name", BOTS)
async def test_over_actors(
    name: str, preset: Literal["dedicated", "pooled"], actors: Actors
) -> None:
    await same_over_actors(BOTS[name], actors, Placement(preset))


@pytest.mark.parametrize(
    "name", ["audio buffer", "idle", "observers", "producer and consumer", "rtvi"]
)
async def test_a_rule_does_not_move_what_works_at_home_only(name: str, actors: Actors) -> None:
    bot = BOTS[name]
    rules = tuple(Rule(kind, "dedicated") for kind in bot.pinned)
    await same_over_actors(bot, actors, Placement("dedicated", rules), reasons=False)


async def same_over_actors(
    bot: Bot, actors: Actors, placement: Placement, *, reasons: bool = True
) -> None:
    moved: set[str] = set()
    pinned: dict[str, str] = {}

    async def run(task: PipelineTask) -> None:
        record = await actors.run(task, placement)
        assert record.failures == []
        for processor in record.processors:
            kind = processor.name.partition("#")[0]
            if processor.where != "home":
                moved.add(kind)
            elif kind != "Stay":
                pinned[kind] = processor.why

    assert await bot.converse(run) == bot.result
    assert moved == bot.moved
    assert pinned.keys() == bot.pinned.keys()
    # A rule may find another reason first.
    assert not reasons or pinned == bot.pinned
