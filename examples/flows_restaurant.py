"""A table is booked, step by step: a flow of four nodes.

The guest's words are below, and a script stands in for the language model: the embedded services
have none that calls functions. With OpenAILLMService in its place the flow is the same.

antiphon run examples/flows_restaurant.py
"""

from antiphon.flows import FlowArgs, FlowManager, FlowResult, FlowsFunctionSchema, NodeConfig
from antiphon.frames.frames import (
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesAppendFrame,
    TTSTextFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.testing.fake_llm import FakeLLMService, FakeToolCall

FULL = {"19:00"}

GUEST = ["There are four of us.", "At seven.", "Eight is fine too.", "No, that is all."]
SCRIPT = [
    "Good evening! How many are you?",
    [FakeToolCall("collect_party_size", {"size": 4})],
    "When would you like to come?",
    [FakeToolCall("check_availability", {"time": "19:00"})],
    "Seven is taken. Would eight do?",
    [FakeToolCall("check_availability", {"time": "20:00"})],
    "A table for four at eight. Anything else?",
    [FakeToolCall("end_conversation", {})],
    "See you tonight!",
]


def task_of(text: str) -> list[dict]:
    return [{"role": "system", "content": text}]


def initial_node() -> NodeConfig:
    return NodeConfig(
        name="initial",
        role_messages=task_of("You take reservations for a restaurant. You speak briefly."),
        task_messages=task_of("Greet the guest and ask how many people are in their party."),
        functions=[
            FlowsFunctionSchema(
                name="collect_party_size",
                description="Record the number of people.",
                properties={"size": {"type": "integer", "minimum": 1, "maximum": 12}},
                required=["size"],
                handler=collect_party_size,
            )
        ],
    )


def time_node() -> NodeConfig:
    return NodeConfig(
        name="time",
        task_messages=task_of("Ask for the time, and offer another one if it is taken."),
        functions=[check_availability],
        pre_actions=[{"type": "tts_say", "text": "Let me open the book."}],
    )


def confirm_node(size: int, time: str) -> NodeConfig:
    return NodeConfig(
        name="confirm",
        task_messages=task_of(f"Confirm: {size} people at {time}. Ask if there is more."),
        functions=[end_conversation],
    )


def end_node() -> NodeConfig:
    return NodeConfig(
        name="end",
        task_messages=task_of("Thank the guest and say goodbye."),
        post_actions=[
            {"type": "function", "handler": close_the_book},
            {"type": "end_conversation"},
        ],
    )


async def collect_party_size(
    args: FlowArgs, flow_manager: FlowManager
) -> tuple[FlowResult, NodeConfig]:
    flow_manager.state["size"] = args["size"]
    return {"status": "success"}, time_node()


async def check_availability(
    flow_manager: FlowManager, time: str
) -> tuple[FlowResult, NodeConfig | None]:
    """Check whether a table is free.

    Args:
        time: The time in 24 hours, such as 19:30.
    """
    if time in FULL:
        return {"status": "error", "error": "taken"}, None
    flow_manager.state["time"] = time
    return {"status": "success"}, confirm_node(flow_manager.state["size"], time)


async def end_conversation(flow_manager: FlowManager) -> tuple[None, NodeConfig]:
    """End the conversation when the guest wants nothing else."""
    return None, end_node()


async def close_the_book(action: dict, flow_manager: FlowManager) -> None:
    print("booked:", flow_manager.state)


class Guest(FrameProcessor):
    """Listens to the bot, and says the next thing when it has finished."""

    def __init__(self, words):
        super().__init__()
        self._words = list(words)
        self._answered = False

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, LLMFullResponseStartFrame):
            self._answered = False
        elif isinstance(frame, TTSTextFrame):
            print("bot:  ", frame.text)
            self._answered = True
        elif isinstance(frame, LLMFullResponseEndFrame) and self._answered and self._words:
            self._answered = False
            words = self._words.pop(0)
            print("guest:", words)
            message = {"role": "user", "content": words}
            said = LLMMessagesAppendFrame(messages=[message], run_llm=True)
            await self.push_frame(said, FrameDirection.UPSTREAM)


async def bot(runner_args):
    llm, tts = FakeLLMService(SCRIPT), EspeakTTSService()
    aggregator = llm.create_context_aggregator(OpenAILLMContext())
    pipeline = Pipeline([aggregator.user(), llm, tts, Guest(GUEST), aggregator.assistant()])
    task = PipelineTask(pipeline)
    flow_manager = FlowManager(task=task, llm=llm, context_aggregator=aggregator)

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task, frame):
        await flow_manager.initialize(initial_node())

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
