"""What is wrong in a constructor's arguments is said at once, with the name of the parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.audio.interruptions.min_words_interruption_strategy import (
    MinWordsInterruptionStrategy,
)
from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.flows import ContextStrategyConfig, FlowInitializationError, FlowManager
from antiphon.frames.frames import BotSpeakingFrame, TextFrame
from antiphon.observers.loggers.debug_log_observer import DebugLogObserver
from antiphon.observers.turn_tracking_observer import TurnTrackingObserver
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.dtmf_aggregator import DTMFAggregator
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.audio.audio_buffer_processor import AudioBufferProcessor
from antiphon.processors.consumer_processor import ConsumerProcessor
from antiphon.processors.filters.frame_filter import FrameFilter
from antiphon.processors.filters.function_filter import FunctionFilter
from antiphon.processors.filters.identity_filter import IdentityFilter
from antiphon.processors.filters.stt_mute_filter import (
    STTMuteConfig,
    STTMuteFilter,
    STTMuteStrategy,
)
from antiphon.processors.filters.wake_check_filter import WakeCheckFilter
from antiphon.processors.filters.wake_notifier_filter import WakeNotifierFilter
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.processors.frameworks.rtvi import RTVIObserver, RTVIProcessor
from antiphon.processors.producer_processor import ProducerProcessor
from antiphon.processors.user_idle_processor import UserIdleProcessor
from antiphon.sync.event_notifier import EventNotifier
from antiphon.utils.text.markdown_text_filter import MarkdownTextFilter
from antiphon.utils.text.pattern_pair_aggregator import PatternPairAggregator
from antiphon.utils.text.skip_tags_aggregator import SkipTagsAggregator


async def one_argument(argument: Any) -> bool:
    return argument is None


async def an_idle_callback(processor: UserIdleProcessor) -> None: ...


def no_argument() -> bool:
    return True


def a_task(**arguments: Any) -> PipelineTask:
    return PipelineTask(Pipeline([IdentityFilter()]), **arguments)


def a_flow(pair: Any) -> FlowManager:
    return FlowManager(task=a_task(), llm=None, context_aggregator=pair)


def a_consumer(**arguments: Any) -> ConsumerProcessor:
    return ConsumerProcessor(**{"producer": ProducerProcessor(filter=one_argument), **arguments})


def a_notifier(**arguments: Any) -> WakeNotifierFilter:
    given = {"notifier": EventNotifier(), "types": (TextFrame,), "filter": one_argument}
    return WakeNotifierFilter(**{**given, **arguments})


WRONG: list[tuple[type[Exception], str, Callable[[Any], object], Any]] = [
    (TypeError, r"Pipeline\(processors\)", Pipeline, IdentityFilter()),
    (TypeError, r"Pipeline\(processors\)", Pipeline, None),
    (ValueError, "one place", lambda x: Pipeline([x, x]), IdentityFilter()),
    (TypeError, r"PipelineTask\(pipeline\)", PipelineTask, "x"),
    (TypeError, r"PipelineTask\(params\)", lambda x: a_task(params=x), {"enable_metrics": True}),
    (TypeError, r"\(idle_timeout_secs\)", lambda x: a_task(idle_timeout_secs=x), "x"),
    (ValueError, r"\(idle_timeout_secs\)", lambda x: a_task(idle_timeout_secs=x), -1),
    (TypeError, r"write \(BotSp", lambda x: a_task(idle_timeout_frames=x), BotSpeakingFrame),
    (TypeError, r"\(idle_timeout_frames\)", lambda x: a_task(idle_timeout_frames=x), ("x",)),
    (TypeError, r"\(observers\)", lambda x: a_task(observers=x), ["x"]),
    (TypeError, r"\(observers\)", lambda x: a_task(observers=x), DebugLogObserver()),
    (TypeError, r"\(clock\)", lambda x: a_task(clock=x), "x"),
    (TypeError, "watchdog", lambda x: a_task(watchdog_timeout_secs=x), "x"),
    (TypeError, "reached_upstream", lambda x: a_task().set_reached_upstream_filter(x), TextFrame),
    (
        TypeError,
        "reached_downstream",
        lambda x: a_task().set_reached_downstream_filter(x),
        ("x",),
    ),
    (ValidationError, "audio_out", lambda x: PipelineParams(audio_out_sample_rate=x), -1),
    (ValidationError, "heartbeats", lambda x: PipelineParams(heartbeats_period_secs=x), 0),
    (TypeError, r"FrameFilter\(types\)", FrameFilter, TextFrame),
    (TypeError, r"FrameFilter\(types\)", FrameFilter, "TextFrame"),
    (TypeError, r"FrameFilter\(types\)", FrameFilter, (int,)),
    (TypeError, r"FunctionFilter\(filter\)", FunctionFilter, "x"),
    (TypeError, r"FunctionFilter\(filter\)", FunctionFilter, no_argument),
    (TypeError, r"\(direction\)", lambda x: FunctionFilter(one_argument, direction=x), "down"),
    (TypeError, r"STTMuteConfig\(strategies\)", lambda x: STTMuteConfig(strategies=x), "always"),
    (ValueError, r"STTMuteStrategy\.ALWAYS", lambda x: STTMuteConfig(strategies=x), {"sometimes"}),
    (
        TypeError,
        "should_mute_callback",
        lambda x: STTMuteConfig(strategies={STTMuteStrategy.CUSTOM}, should_mute_callback=x),
        no_argument,
    ),
    (TypeError, r"STTMuteFilter\(config\)", lambda x: STTMuteFilter(config=x), "x"),
    (TypeError, "wake_phrases", WakeCheckFilter, "hey robot"),
    (TypeError, "wake_phrases", WakeCheckFilter, [1]),
    (ValueError, "keepalive", lambda x: WakeCheckFilter(["hey"], keepalive_timeout=x), -1),
    (TypeError, r"\(notifier\)", lambda x: a_notifier(notifier=x), "x"),
    (TypeError, r"\(types\)", lambda x: a_notifier(types=x), ("x",)),
    (TypeError, r"\(filter\)", lambda x: a_notifier(filter=x), no_argument),
    (TypeError, r"DTMFAggregator\(timeout\)", lambda x: DTMFAggregator(timeout=x), "x"),
    (TypeError, r"\(termination_digit\)", lambda x: DTMFAggregator(termination_digit=x), 5),
    (TypeError, r"DTMFAggregator\(prefix\)", lambda x: DTMFAggregator(prefix=x), 5),
    (TypeError, "timeout", lambda x: UserIdleProcessor(callback=an_idle_callback, timeout=x), ""),
    (ValueError, "timeout", lambda x: UserIdleProcessor(callback=an_idle_callback, timeout=x), 0),
    (TypeError, r"\(producer\)", lambda x: a_consumer(producer=x), "x"),
    (TypeError, r"\(transformer\)", lambda x: a_consumer(transformer=x), no_argument),
    (TypeError, r"\(direction\)", lambda x: a_consumer(direction=x), "x"),
    (TypeError, r"ProducerProcessor\(filter\)", lambda x: ProducerProcessor(filter=x), "x"),
    (TypeError, r"\(sample_rate\)", lambda x: AudioBufferProcessor(sample_rate=x), "x"),
    (ValueError, r"\(buffer_size\)", lambda x: AudioBufferProcessor(buffer_size=x), -1),
    (TypeError, r"SileroVADAnalyzer\(params\)", lambda x: SileroVADAnalyzer(params=x), {"a": 1}),
    (TypeError, "min_words", lambda x: MinWordsInterruptionStrategy(min_words=x), "x"),
    (TypeError, r"\(frame_types\)", lambda x: DebugLogObserver(frame_types=x), ("x",)),
    (TypeError, "FrameEndpoint", lambda x: DebugLogObserver(frame_types=x), {TextFrame: "x"}),
    (ValueError, "turn_end", lambda x: TurnTrackingObserver(turn_end_timeout_secs=x), -1),
    (TypeError, "a pair of Skip", SkipTagsAggregator, ["<a>"]),
    (TypeError, r"MarkdownTextFilter\(params\)", MarkdownTextFilter, {"filter_code": True}),
    (TypeError, "'p'", lambda x: PatternPairAggregator().on_pattern_match("p", x), no_argument),
    (TypeError, "custom_tools", ToolsSchema, [{"type": "function"}]),
    (TypeError, "must be a list", OpenAILLMContext, "x"),
    (TypeError, "tools of a context", lambda x: OpenAILLMContext(tools=x), "x"),
    (TypeError, r"RTVIProcessor\(config\)", lambda x: RTVIProcessor(config=x), "x"),
    (TypeError, r"RTVIProcessor\(transport\)", lambda x: RTVIProcessor(transport=x), "x"),
    (TypeError, "register_action", lambda x: RTVIProcessor().register_action(x), "x"),
    (TypeError, "register_service", lambda x: RTVIProcessor().register_service(x), "x"),
    (TypeError, r"RTVIObserver\(rtvi\)", RTVIObserver, "x"),
    (TypeError, r"\(params\)", lambda x: RTVIObserver(RTVIProcessor(), params=x), "x"),
    (TypeError, r"\(strategy\)", lambda x: ContextStrategyConfig(strategy=x), "append"),
    (FlowInitializationError, "the pair", a_flow, "x"),
    (TypeError, "on_idle_timeout", lambda x: a_task().add_event_handler("on_idle_timeout", x), "x"),
    (
        TypeError,
        "first argument",
        lambda x: a_task().add_event_handler("on_idle_timeout", x),
        no_argument,
    ),
]


@pytest.mark.parametrize(("error", "named", "make", "value"), WRONG)
async def test_the_error_names_the_parameter(
    error: type[Exception], named: str, make: Callable[[Any], object], value: Any
) -> None:
    with pytest.raises(error, match=named):
        make(value)


async def test_only_frames_are_queued() -> None:
    wrong: Any = "hello"
    with pytest.raises(TypeError, match=r"queue_frame\(frame\) must be a Frame, not 'hello'"):
        await a_task().queue_frame(wrong)


async def test_only_tasks_are_run() -> None:
    wrong: Any = Pipeline([IdentityFilter()])
    with pytest.raises(TypeError, match=r"PipelineRunner.run\(task\)"):
        await PipelineRunner(handle_sigint=False).run(wrong)


async def test_handlers_of_many_forms_are_taken() -> None:
    task = a_task()

    class Handler:
        async def handle(self, task: PipelineTask) -> None: ...

        def __call__(self, *arguments: Any) -> None: ...

    task.add_event_handler("on_idle_timeout", Handler().handle)
    task.add_event_handler("on_idle_timeout", Handler())
    task.add_event_handler("on_idle_timeout", print)
    FunctionFilter(filter=Handler().handle)  # type: ignore[arg-type]


def test_a_processor_class_shows_its_parameters() -> None:
    class Mine(FrameProcessor):
        def __init__(self, model: str, *, speed: float = 1.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    assert list(inspect.signature(Mine).parameters) == ["model", "speed", "kwargs"]
    assert inspect.signature(FrameFilter).parameters["types"].kind.name == "POSITIONAL_OR_KEYWORD"
