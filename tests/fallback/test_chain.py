"""What all chains have in common: life, events, metrics, what observers see."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from loguru import logger
from tests.fallback.conftest import Line

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    MetricsFrame,
    StartFrame,
    StopFrame,
    TextFrame,
    TTSTextFrame,
)
from antiphon.metrics.metrics import (
    LLMUsageMetricsData,
    ProcessingMetricsData,
    ServiceSwitchMetricsData,
    TTFBMetricsData,
)
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.sync_parallel_pipeline import SyncParallelPipeline
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.filters.identity_filter import IdentityFilter
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.fallback import (
    FallbackLLMService,
    FallbackSTTService,
    FallbackTTSService,
    MemberStatus,
)
from antiphon.testing import FakeDelay, FakeFailure, FakeLLMService, FakeSTTService, FakeTTSService
from antiphon.testing.fake_llm import FakeResponse

pytestmark = pytest.mark.virtual_time

DOWN = FakeFailure("down")
HANG = FakeDelay(3600.0)


def ask() -> OpenAILLMContextFrame:
    return OpenAILLMContextFrame(OpenAILLMContext([{"role": "user", "content": "Hello?"}]))


def model(*script: FakeResponse, **kwargs: Any) -> FakeLLMService:
    return FakeLLMService(script, **kwargs)


class Watcher(BaseObserver):
    """Keeps what is pushed, and by whom."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[FramePushed] = []

    async def on_push_frame(self, data: FramePushed) -> None:
        self.pushed.append(data)


# -- making one ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (lambda: FallbackLLMService([]), ValueError, "at least one service"),
        (lambda: FallbackLLMService(model()), TypeError, "must be a list"),  # type: ignore[arg-type]
        (lambda: FallbackLLMService([FakeTTSService()]), TypeError, "must be a LLMService"),  # type: ignore[list-item]
        (lambda: FallbackTTSService([model()]), TypeError, "must be a TTSService"),  # type: ignore[list-item]
        (lambda: FallbackLLMService([model()] * 2), ValueError, "in the list twice"),
        (lambda: FallbackLLMService([model()], attempt_timeout_secs=0), ValueError, "above 0"),
        (lambda: FallbackLLMService([model()], probe_after_secs=-1), ValueError, "above 0"),
        (lambda: FallbackSTTService([FakeSTTService()], keep_secs=0.5), ValueError, "at least 1"),
    ],
)
def test_wrong_arguments(wrong: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        wrong()


def test_how_members_are_doing() -> None:
    chain = FallbackLLMService([model(name="a"), model(name="b")], name="chain")
    assert chain.name == "chain"
    assert chain.active_service is chain.services[0]
    assert [service.name for service in chain.services] == ["a", "b"]
    assert chain.processors_with_metrics() == chain.services


async def test_how_members_have_done() -> None:
    chain = FallbackLLMService([model([DOWN], name="a"), model("Hi.", "Hi.", name="b")])
    status: list[list[MemberStatus]] = []

    async def look() -> None:
        status.append(chain.members())

    await Line(chain).run(look, ask(), 1.0, ask(), 1.0, look)
    before, after = status
    assert before == [
        MemberStatus("a", "healthy", True, 0, 0, 0, "", None),
        MemberStatus("b", "healthy", False, 0, 0, 0, "", None),
    ]
    first, second = after
    assert first.probe_in_secs is not None
    assert 2.0 <= first.probe_in_secs <= 4.0  # of 4 to 6 s
    assert first == MemberStatus("a", "failing", False, 1, 0, 1, "down", first.probe_in_secs)
    assert second == MemberStatus("b", "healthy", True, 2, 2, 0, "", None)


# -- events and metrics ----------------------------------------------------------------------------


async def test_every_switch_is_told_and_measured() -> None:
    chain = FallbackLLMService([model([DOWN], name="a"), model("Hi.", name="b")], name="chain")
    line = await Line(chain, params=PipelineParams(enable_metrics=True)).run(ask())
    assert line.switches == [("a", "b", "down")]
    assert line.switch_metrics == [
        ServiceSwitchMetricsData(
            processor="chain", model="fake", from_name="a", to_name="b", reason="down"
        )
    ]
    log: list[Any] = []
    sink = logger.add(lambda message: log.append(message.record))
    try:
        chain = FallbackLLMService([model([DOWN], name="a"), model("Hi.", name="b")], name="chain")
        assert (await Line(chain).run(ask())).switch_metrics == []
    finally:
        logger.remove(sink)
    told = {record["message"]: record["extra"] for record in log}
    assert told["service failed"] == {"processor": "chain", "service": "a", "reason": "down"}
    assert told["service switched"] == {
        "processor": "chain",
        "from_service": "a",
        "to_service": "b",
        "reason": "down",
    }


@pytest.mark.parametrize("metrics", [False, True])
async def test_members_measure_as_the_pipeline_wants(metrics: bool) -> None:
    chain = FallbackLLMService([model([DOWN], name="a"), model("Hi.", "Hi.", name="b")])
    params = PipelineParams(
        enable_metrics=metrics,
        enable_usage_metrics=True,
        report_only_initial_ttfb=True,
        send_initial_empty_metrics=False,
    )
    line = await Line(chain, params=params).run(ask(), ask())
    data = [item for frame in line.end.of(MetricsFrame) for item in frame.data]
    by_kind = [
        [item.processor for item in data if isinstance(item, kind)]
        for kind in (TTFBMetricsData, ProcessingMetricsData, LLMUsageMetricsData)
    ]
    expected = [["b"], ["a", "b", "b"]] if metrics else [[], []]
    assert by_kind == [*expected, ["b", "b"]]


async def test_observers_see_one_service() -> None:
    watcher = Watcher()
    chain = FallbackLLMService(
        [model(["Lost", DOWN], name="a"), model("Found it.", name="b")], continue_prompt="Go on."
    )
    line = await Line(chain, observers=[watcher]).run(ask(), TextFrame("other"))
    inside = {processor for processor in chain.processors if processor is not chain}
    assert not [pushed for pushed in watcher.pushed if {pushed.source, pushed.destination} & inside]
    by_chain = [pushed for pushed in watcher.pushed if pushed.source is chain]
    assert [pushed.frame.text for pushed in by_chain if isinstance(pushed.frame, TextFrame)] == [
        frame.text for frame in line.end.of(TextFrame)
    ]
    kinds = [type(pushed.frame) for pushed in by_chain]
    assert kinds.count(LLMFullResponseStartFrame) == kinds.count(LLMFullResponseEndFrame) == 1
    assert not [kind for kind in kinds if issubclass(kind, ErrorFrame)]


# -- life ------------------------------------------------------------------------------------------


class Starter(FakeLLMService):
    """Starts, hangs or fails at that."""

    def __init__(self, how: str, *script: FakeResponse, **kwargs: Any) -> None:
        super().__init__(script, **kwargs)
        self._how = how

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        if self._how == "hangs":
            await asyncio.sleep(3600.0)
        elif self._how == "fails":
            raise ValueError("no key")
        elif self._how == "is slow":
            await asyncio.sleep(20.0)


@pytest.mark.parametrize(("how", "reason"), [("fails", "no key"), ("hangs", "not started in time")])
async def test_a_member_that_cannot_start(how: str, reason: str) -> None:
    chain = FallbackLLMService([Starter(how, "No.", name="a"), model("Hi.", name="b")])
    line = Line(chain)
    await line.run(ask())
    assert line.end.texts(LLMTextFrame) == ["Hi."]
    assert line.switches == [("a", "b", reason)]
    assert line.errors == []


async def test_no_member_can_start() -> None:
    chain = FallbackLLMService([Starter("fails", name="a"), Starter("hangs", name="b")], name="c")
    line = await Line(chain).run(ask(), end=False)
    assert line.errors == ["c cannot start, as none of its services can: a: no key; b: "]
    assert isinstance(line.end.down[0], CancelFrame)
    assert line.task.errors[0].fatal


async def test_one_that_starts_slowly_is_waited_for_if_there_is_no_other() -> None:
    chain = FallbackLLMService([Starter("is slow", "Hi."), Starter("fails")])
    line = await Line(chain).run(ask())
    assert line.end.texts(LLMTextFrame) == ["Hi."]


async def test_fatal_errors_of_a_member_are_not_fatal() -> None:
    first = model("No.", name="a")

    async def lose() -> None:
        await first.push_error(ErrorFrame("connection lost for good", fatal=True))

    line = await Line(FallbackLLMService([first, model("Hi.", name="b")])).run(1.0, lose, ask())
    assert line.end.texts(LLMTextFrame) == ["Hi."]
    assert line.errors == []
    assert line.switches == [("a", "b", "connection lost for good")]


class Stuck(FakeLLMService):
    """Lets neither the end nor a cancellation through."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, (EndFrame, CancelFrame)):
            await asyncio.sleep(3600.0)
        await super().process_frame(frame, direction)


async def test_an_end_that_a_member_keeps_passes() -> None:
    line = await Line(FallbackLLMService([model("Hi."), Stuck()])).run(ask())
    assert line.end.texts(LLMTextFrame) == ["Hi."]
    assert isinstance(line.end.down[-1], EndFrame)


@pytest.mark.parametrize("asked", [False, True])
async def test_a_cancellation_that_a_member_keeps_passes_in_time(asked: bool) -> None:
    line = Line(FallbackLLMService([Stuck([[HANG]]), model()]))
    began = asyncio.get_running_loop().time()

    async def cancel() -> None:
        await line.task.cancel()

    await line.run(*([ask()] if asked else []), 1.0, cancel, end=False)
    assert isinstance(line.end.down[-1], CancelFrame)
    assert asyncio.get_running_loop().time() - began < 2.0


async def test_a_pipeline_that_was_stopped_goes_on_in_another_task() -> None:
    chain = FallbackLLMService([model([DOWN], name="a"), model("One.", "Two.", name="b")])
    line = Line(chain)
    pipeline = Pipeline([line.start, chain, line.end])
    for _ in range(2):
        task = PipelineTask(pipeline)
        await task.queue_frames([ask(), StopFrame()])
        await PipelineRunner(handle_sigint=False).run(task)
    assert line.end.texts(LLMTextFrame) == ["One.", "Two."]
    task = PipelineTask(pipeline)
    await task.queue_frame(EndFrame())
    await PipelineRunner(handle_sigint=False).run(task)


@pytest.mark.parametrize("kind", [ParallelPipeline, SyncParallelPipeline])
async def test_in_branches(kind: type[ParallelPipeline]) -> None:
    chain = FallbackLLMService([model([DOWN]), model("Hi.")])
    line = Line(kind([chain], [IdentityFilter()]))
    await line.run(ask(), TextFrame("other"), 1.0)
    texts = line.end.texts(TextFrame)
    # Side by side, the branch that has nothing to do is the first.
    assert (texts if kind is SyncParallelPipeline else texts[::-1]) == ["Hi.", "other"]


async def test_several_chains_in_a_row() -> None:
    llm = FallbackLLMService([model([DOWN]), model("Hello there.")])
    tts = FallbackTTSService([FakeTTSService(), FakeTTSService()])
    stt = FallbackSTTService([FakeSTTService(), FakeSTTService()])
    line = Line(Pipeline([stt, llm, tts]))
    await line.run(ask(), 1.0)
    assert line.task.errors == []
    marks = (LLMFullResponseStartFrame, LLMFullResponseEndFrame)
    assert [type(frame) for frame in line.end.of(*marks)] == list(marks)
    assert line.end.texts(TTSTextFrame) == ["Hello there."]


async def test_nothing_of_a_chain_remains() -> None:
    chain = FallbackLLMService([model([HANG]), model("Hi.")])
    await Line(chain).run(ask(), 1.0)
    gone = weakref.ref(chain)
    del chain
    gc.collect()
    assert gone() is None
