# mypy: ignore-errors
"""A bot for Pipecat and Pipecat Flows, as a bot file."""

from pipecat.frames.frames import TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.aggregators.openai_llm_context import OpenAILLMContext
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.runner.types import RunnerArguments
from pipecat.testing import FakeLLMService, FakeToolCall, FakeTTSService
from pipecat_flows import FlowArgs, FlowManager, FlowsFunctionSchema, NodeConfig


class Shout(FrameProcessor):
    movable = True

    async def process_frame(self, frame, direction):
        # Where it runs, which may be a process that has never seen this file.
        from pipecat.frames.frames import TTSTextFrame

        await super().process_frame(frame, direction)
        if isinstance(frame, TTSTextFrame):
            frame.text = frame.text.upper()
        await self.push_frame(frame, direction)


async def record_color(args: FlowArgs, flow_manager: FlowManager) -> tuple[str, NodeConfig]:
    flow_manager.state["color"] = args["color"]
    return args["color"], NodeConfig(
        name="end",
        task_messages=[{"role": "system", "content": "Thank them."}],
        post_actions=[{"type": "end_conversation"}],
    )


def create_initial_node() -> NodeConfig:
    return {
        "name": "initial",
        "task_messages": [{"role": "system", "content": "Ask for the color."}],
        "functions": [
            FlowsFunctionSchema(
                name="record_color",
                description="Record the color.",
                required=["color"],
                handler=record_color,
                properties={"color": {"type": "string"}},
            )
        ],
    }


async def bot(runner_args: RunnerArguments):
    llm = FakeLLMService([[FakeToolCall("record_color", {"color": "red"})], "Red it is."])
    context = OpenAILLMContext()
    context_aggregator = llm.create_context_aggregator(context)
    task = PipelineTask(
        Pipeline(
            [
                context_aggregator.user(),
                llm,
                FakeTTSService(),
                Shout(),
                context_aggregator.assistant(),
            ]
        )
    )
    flow_manager = FlowManager(task=task, llm=llm, context_aggregator=context_aggregator)

    @task.event_handler("on_pipeline_started")
    async def started(task, frame):
        await task.queue_frame(TTSSpeakFrame("Hello."))
        await flow_manager.initialize(create_initial_node())

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
    print(flow_manager.state["color"], context.messages[-1]["content"])  # noqa: T201
