"""Calls that reach a processor wherever it runs, and the journal of those made before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.frames.frames import EndFrame, Frame, TextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.processors.relay import is_relayed, relayed

pytestmark = pytest.mark.virtual_time


class Voice(FrameProcessor):
    def __init__(self, *, voice: str = "low") -> None:
        super().__init__()
        self.voice = voice
        self.speed = 1.0

    @relayed
    def set_voice(self, voice: str) -> None:
        self.voice = voice

    @relayed
    async def set_speed(self, speed: float) -> float:
        self.set_voice("fast")  # part of this call
        await asyncio.sleep(0)
        before, self.speed = self.speed, speed
        return before

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Loud(Voice):
    def set_voice(self, voice: str) -> None:
        super().set_voice(voice.upper())

    async def setup(self, setup: FrameProcessorSetup) -> None:
        self.set_voice("ready")
        await super().setup(setup)


def _calls(processor: FrameProcessor) -> list[tuple[str, tuple[Any, ...]]]:
    return [(call.method, call.args) for call in processor._journal or []]


async def test_calls_before_the_run_are_carried_out_and_noted() -> None:
    voice = Voice(voice="deep")
    assert voice._blueprint is not None
    assert voice._blueprint.kwargs == {"voice": "deep"}
    voice.set_voice("high")
    assert await voice.set_speed(2.0) == 1.0
    assert (voice.voice, voice.speed) == ("fast", 2.0)
    assert _calls(voice) == [("set_voice", ("high",)), ("set_speed", (2.0,))]


async def test_a_call_that_failed_is_not_noted() -> None:
    voice = Voice()
    with pytest.raises(TypeError):
        voice.set_voice()  # type: ignore[call-arg]
    assert _calls(voice) == []
    voice.set_voice("a")
    assert _calls(voice) == [("set_voice", ("a",))]


def test_overrides_are_relayed_too_and_noted_once() -> None:
    loud = Loud()
    assert is_relayed(Loud.set_voice)
    loud.set_voice("high")
    assert loud.voice == "HIGH"
    assert _calls(loud) == [("set_voice", ("high",))]


def test_a_handler_added_before_the_run_is_noted() -> None:
    voice = Voice()
    voice._register_event_handler("on_text")

    @voice.event_handler("on_text")
    def handler(*_: object) -> None:
        return

    assert _calls(voice) == [("add_event_handler", ("on_text", handler))]


@pytest.mark.parametrize("cls", [Voice, Loud])
async def test_nothing_is_noted_once_the_processor_runs(cls: type[Voice]) -> None:
    voice = cls()
    task = PipelineTask(Pipeline([voice]))
    await task.queue_frames([TextFrame("a"), TextFrame("b"), EndFrame()])

    @task.event_handler("on_pipeline_started")
    async def started(task: PipelineTask, frame: Frame) -> None:
        voice.set_voice("running")
        await voice.set_speed(3.0)

    await task.run()
    assert voice._journal is None
    assert voice.speed == 3.0


class Recorder:
    """A relay that writes down what goes to where the processor runs."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, tuple[Any, ...]]] = []

    async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calls.append(("call", method, args))
        return "from afar"

    def post(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls.append(("post", method, args))


async def test_a_placed_processor_gets_its_calls_through_the_relay() -> None:
    voice, relay = Voice(), Recorder()
    voice._relay = relay
    voice._journal = None
    voice.set_voice("high")
    assert voice.voice == "high"  # a bot may read back what it has set
    answer: object = await voice.set_speed(2.0)
    assert answer == "from afar"
    assert voice.speed == 1.0
    assert relay.calls == [("post", "set_voice", ("high",)), ("call", "set_speed", (2.0,))]
