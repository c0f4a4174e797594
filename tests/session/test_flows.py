"""A flow over actors, and a bot for Pipecat whose processors run in other processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.session.conftest import Actors
from tests.session.test_processes import Children, children, forget, hosts  # noqa: F401 - fixtures

from antiphon.compat import aliases
from antiphon.flows import (
    ContextStrategy,
    ContextStrategyConfig,
    FlowArgs,
    FlowManager,
    FlowsFunctionSchema,
    NodeConfig,
)
from antiphon.frames.frames import Frame, TTSSpeakFrame, TTSTextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.testing import FakeLLMService, FakeToolCall, FakeTTSService
from antiphon_actors.bot_program import load_bot, read_bot_file

SAMPLES = Path(__file__).parents[1] / "compat" / "samples"


class Said(FrameProcessor):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSTextFrame):
            self.texts.append(frame.text.strip())
        await self.push_frame(frame, direction)


async def test_a_flow_over_actors(actors: Actors) -> None:
    log: list[str] = []
    said = Said()

    async def note(action: dict[str, Any], flow_manager: FlowManager) -> None:
        log.append(f"{action['what']} {said.texts}")

    def noting(what: str) -> Any:
        return {"type": "function", "handler": note, "what": what}

    async def choose(args: FlowArgs, flow_manager: FlowManager) -> tuple[str, NodeConfig]:
        flow_manager.state.update(args)
        return args["color"], {
            "name": "end",
            "task_messages": [{"role": "system", "content": "Thank them."}],
            "context_strategy": ContextStrategyConfig(
                ContextStrategy.RESET_WITH_SUMMARY, "Summarize it."
            ),
            "pre_actions": [{"type": "tts_say", "text": "One moment."}, noting("before")],
            "post_actions": [noting("after"), {"type": "end_conversation", "text": "Bye."}],
        }

    llm = FakeLLMService(
        [[FakeToolCall("choose", {"color": "red"})], "They like red.", "Red it is."]
    )
    pair = llm.create_context_aggregator(OpenAILLMContext())
    task = PipelineTask(Pipeline([pair.user(), llm, FakeTTSService(), said, pair.assistant()]))
    flow = FlowManager(task=task, llm=llm, context_aggregator=pair)
    function = FlowsFunctionSchema("choose", "", {"color": {"type": "string"}}, ["color"], choose)

    @task.event_handler("on_pipeline_started")
    async def started(task: PipelineTask, frame: Frame) -> None:
        await task.queue_frame(TTSSpeakFrame("Hello."))
        await flow.initialize(
            {
                "task_messages": [{"role": "system", "content": "Ask for the color."}],
                "functions": [function],
            }
        )

    await actors.run(task)
    assert len(actors.hosts) == 2
    assert (flow.current_node, flow.state) == ("end", {"color": "red"})
    assert said.texts == ["Hello.", "One moment.", "Red it is.", "Bye."]
    assert [message["content"] for message in flow.get_current_context()] == [
        "Summary of the conversation so far:\nThey like red.",
        "Thank them.",
        "Red it is.",
    ]
    assert log == [f"before {said.texts[:2]}", f"after {said.texts[:3]}"]


@pytest.fixture
def _names_of_pipecat() -> Iterator[None]:
    yield
    aliases.uninstall()


@pytest.mark.usefixtures("_names_of_pipecat")
async def test_a_bot_for_pipecat_in_other_processes(
    children: Children,  # noqa: F811 - the fixture
    capfd: pytest.CaptureFixture[str],
) -> None:
    bot_file = read_bot_file(SAMPLES / "flow_bot.py", pipecat="on")
    module = load_bot(bot_file)
    try:
        await children.run_bot(bot_file, "pooled")
    finally:
        forget(module)
        sys.path.remove(str(SAMPLES))
    assert "red RED IT IS." in capfd.readouterr().out
