"""The same bot in one process and over actors: same frames, same order, everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tests.session.conftest import Actors, Mover, Stay, Watcher, pipeline_of, texts

from antiphon.frames.frames import (
    EndFrame,
    Frame,
    MetricsFrame,
    OpenAILLMContextAssistantTimestampFrame,
    StartFrame,
    SystemFrame,
    TextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import MetricsData
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.testing import FakeLLMService, FakeTTSService
from antiphon_actors.placement.policy import Placement, Rule

Event = tuple[str, object]


async def test_texts_cross_hosts_in_order(actors: Actors) -> None:
    first, second, home, third = Mover("a"), Mover("b"), Stay(), Mover("c")
    task = pipeline_of(first, second, home, third)
    await task.queue_frames(texts("1", "2"))
    record = await actors.run(task)
    assert home.texts == ["1ab", "2ab"]
    assert len(actors.hosts) == 3
    assert [entry.where for entry in record.processors] == ["host0", "host1", "home", "host2"]
    assert [entry.statistics.frames_in for entry in record.processors] == [4, 4, 4, 4]
    assert actors.released == ["s1"]


class Received(BaseObserver):
    """Notes what each processor of a list is given, in order, without what makes two runs differ."""

    def __init__(self, names: dict[FrameProcessor, str]) -> None:
        super().__init__()
        self._names = names
        self.log: dict[str, list[Event]] = {name: [] for name in names.values()}
        self.frames: dict[str, list[Frame]] = {name: [] for name in names.values()}

    async def on_push_frame(self, data: FramePushed) -> None:
        name = self._names.get(data.destination)
        if name is None or data.direction is not FrameDirection.DOWNSTREAM:
            return
        self.frames[name].append(data.frame)
        if not isinstance(data.frame, SystemFrame):
            self.log[name].append((type(data.frame).__name__, payload(data.frame)))


def payload(frame: Frame) -> object:
    if isinstance(frame, TTSAudioRawFrame):
        return frame.audio
    if isinstance(frame, TextFrame):
        return frame.text
    return None


@dataclass
class Conversation:
    log: dict[str, list[Event]]
    frames: dict[str, list[Frame]]
    messages: list[Any]


def speech(*sentences: str) -> list[Frame]:
    said = [TranscriptionFrame(sentence, "user", "now") for sentence in sentences]
    return [UserStartedSpeakingFrame(), *said, UserStoppedSpeakingFrame()]


async def converse(run: Callable[[PipelineTask], Awaitable[object]]) -> Conversation:
    """Two turns: the user speaks, the bot answers and speaks."""
    context = OpenAILLMContext([{"role": "system", "content": "Be brief."}])
    llm = FakeLLMService(["Hello there. How are you?", "Good to hear."])
    tts = FakeTTSService(ms_per_character=2)
    pair = llm.create_context_aggregator(context)
    parts = [Stay(), pair.user(), llm, tts, pair.assistant(), Stay()]
    names = ["start", "user", "llm", "tts", "assistant", "end"]
    observer = Received(dict(zip(parts, names, strict=True)))
    task = PipelineTask(Pipeline(parts), observers=[observer])
    task.set_reached_downstream_filter((OpenAILLMContextAssistantTimestampFrame,))
    turns = 0

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        await task.queue_frames(speech("Hi.", "It is me."))

    @task.event_handler("on_frame_reached_downstream")
    async def on_answered(task: PipelineTask, frame: Frame) -> None:
        nonlocal turns
        turns += 1
        await task.queue_frames(speech("Very well.") if turns == 1 else [EndFrame()])

    await run(task)
    return Conversation(observer.log, observer.frames, context.messages)


async def run_here(task: PipelineTask) -> None:
    await PipelineRunner(handle_sigint=False).run(task)


async def test_a_conversation_is_the_same_over_actors(actors: Actors) -> None:
    here = await converse(run_here)
    there = await converse(actors.run)
    assert len(actors.hosts) == 2
    assert there.messages == here.messages
    assert there.log == here.log
    assert ("LLMTextFrame", "Hello") in there.log["tts"]
    assert any(kind == "TTSAudioRawFrame" for kind, _ in there.log["end"])


async def test_ids_and_names_survive_and_are_unique(actors: Actors) -> None:
    there = await converse(actors.run)
    for name, frames in there.frames.items():
        ids = [frame.id for frame in frames]
        assert len(set(ids)) == len(ids), name
        assert isinstance(frames[-1], EndFrame), name
    by_id: dict[int, Frame] = {}
    for frames in there.frames.values():
        for frame in frames:
            known = by_id.setdefault(frame.id, frame)
            assert (known.name, type(known)) == (frame.name, type(frame))
    end = [frames[-1].id for frames in there.frames.values()]
    assert len(set(end)) == 1


@pytest.mark.parametrize("preset", ["fused", "dedicated", "pooled"])
async def test_every_placement_gives_the_same_frames(actors: Actors, preset: Any) -> None:
    home = Stay()
    task = pipeline_of(Mover("a"), Mover("b"), home)
    await task.queue_frames(texts(*(str(number) for number in range(200))))
    record = await actors.run(task, Placement(preset))
    assert home.texts == [f"{number}ab" for number in range(200)]
    assert isinstance(home.down[-1], EndFrame)
    assert len(actors.hosts) == {"fused": 0, "dedicated": 2, "pooled": 1}[preset]
    assert not record.failures


async def test_assigned_attributes_survive(actors: Actors) -> None:
    home = Stay()
    frame = TextFrame("x")
    frame.pts = 17
    frame.metadata = {"who": "me"}
    frame.transport_destination = "left"
    task = pipeline_of(Mover(), home)
    await task.queue_frames([frame, EndFrame()])
    await actors.run(task)
    [arrived] = [each for each in home.down if isinstance(each, TextFrame)]
    assert arrived == frame
    assert arrived is not frame


async def test_parallel_and_nested_pipelines(actors: Actors) -> None:
    home = Stay()
    left, right, inner = Mover("l"), Mover("r"), Mover("i")
    task = pipeline_of(
        Pipeline([Mover("n"), Pipeline([inner])]),
        ParallelPipeline([left], [right, Stay()]),
        home,
    )
    await task.queue_frames(texts("1", "2"))
    await actors.run(task)
    # One frame, two branches: the first to pass it wins, and it leaves once.
    assert [text[:3] for text in home.texts] == ["1ni", "2ni"]
    assert len([frame for frame in home.down if isinstance(frame, EndFrame)]) == 1
    assert len([frame for frame in home.down if isinstance(frame, StartFrame)]) == 1
    assert isinstance(home.down[-1], EndFrame)
    assert len(actors.hosts) == 4


async def test_every_hop_is_seen_once_and_in_order(actors: Actors) -> None:
    first, second, home, last = Mover(), Mover(), Stay(), Mover()
    watcher = Watcher()
    task = pipeline_of(first, second, home, last, observer=watcher)
    words = [str(number) for number in range(20)]
    await task.queue_frames(texts(*words))
    await actors.run(task)
    for source, destination in ((first, second), (second, home), (home, last)):
        seen = watcher.between(source, destination)
        assert [frame.text for frame in seen if isinstance(frame, TextFrame)] == words
        assert len(watcher.between(source, destination, EndFrame)) == 1
    into = [hop for hop in watcher.hops if hop.destination is first]
    assert len([hop for hop in into if isinstance(hop.frame, TextFrame)]) == len(words)
    out = [hop for hop in watcher.hops if hop.source is last]
    assert len([hop for hop in out if isinstance(hop.frame, TextFrame)]) == len(words)
    times = [hop.timestamp for hop in watcher.hops if hop.source is first]
    assert times == sorted(times)
    assert all(time > 0 for time in times)


async def test_pooled_neighbours_in_one_host_are_watched_too(actors: Actors) -> None:
    first, second = Mover(), Mover()
    watcher = Watcher()
    task = pipeline_of(first, second, observer=watcher)
    await task.queue_frames(texts("1", "2"))
    await actors.run(task, Placement("pooled"))
    assert len(actors.hosts) == 1
    assert len(watcher.between(first, second)) == 2


async def test_sessions_in_one_host_do_not_meet(actors: Actors) -> None:
    async def session(tag: str) -> list[str]:
        home = Stay()
        task = pipeline_of(Mover(tag), Mover(tag), home)
        await task.queue_frames(texts(*(f"{tag}{number}" for number in range(50))))
        await actors.run(task, Placement("pooled"))
        return home.texts

    got = await asyncio.gather(*(session(tag) for tag in "abc"))
    assert len(actors.hosts) == 1
    for tag, arrived in zip("abc", got, strict=True):
        assert arrived == [f"{tag}{number}{tag}{tag}" for number in range(50)]


async def test_metrics_name_the_bots_processor_and_its_model(actors: Actors) -> None:
    llm = FakeLLMService(["Yes."])
    home = Stay()
    context = OpenAILLMContext([{"role": "user", "content": "Well?"}])
    pair = llm.create_context_aggregator(context)
    task = PipelineTask(
        Pipeline([pair.user(), llm, home]),
        params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
    )
    await task.queue_frames([pair.user().get_context_frame(), EndFrame()])
    await actors.run(task)
    data: Sequence[MetricsData] = [
        item for frame in home.down if isinstance(frame, MetricsFrame) for item in frame.data
    ]
    measured = [item for item in data if item.model is not None]
    assert {(item.processor, item.model) for item in measured} == {(llm.name, "fake")}
    assert {type(item).__name__ for item in measured} >= {
        "TTFBMetricsData",
        "LLMUsageMetricsData",
        "ProcessingMetricsData",
    }


async def test_a_rule_moves_a_processor_that_would_stay(actors: Actors) -> None:
    stay, home = Stay(name="mine"), Stay()
    task = pipeline_of(stay, home)
    await task.queue_frames(texts("1"))
    await actors.run(task, Placement("dedicated", (Rule("mine", "dedicated"),)))
    assert home.texts == ["1"]
    assert stay.texts == []  # it was another one that saw them
