"""The model calls functions. A script stands in for it: the embedded services have none that can.

antiphon run examples/guides/function_calling.py
"""

from pathlib import Path

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import EndTaskFrame, FunctionCallResultProperties, TTSSpeakFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.llm_service import FunctionCallParams
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.testing.fake_llm import FakeLLMService, FakeToolCall
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"
WEATHER = FunctionSchema(
    name="get_current_weather",
    description="Get the current weather in a location",
    properties={
        "location": {"type": "string", "description": "The city and state"},
        "format": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    required=["location", "format"],
)

SCRIPT = [
    [FakeToolCall("get_current_weather", {"location": "Oslo", "format": "celsius"})],
    ["It is ", "sunny ", "in ", "Oslo.", FakeToolCall("end_conversation", {"reason": "done"})],
]


async def get_current_weather(params: FunctionCallParams):
    print(f"weather of {params.arguments['location']}")
    await params.result_callback({"conditions": "sunny", "temperature": 21})


async def end_conversation(params: FunctionCallParams, reason: str):
    """End the conversation.

    Args:
        reason: Why it ends.
    """
    print(f"end: {reason}")
    await params.llm.push_frame(TTSSpeakFrame("Have a nice day!"))
    await params.llm.push_frame(EndTaskFrame(), FrameDirection.UPSTREAM)
    # Nothing is left to say about this result.
    await params.result_callback("ended", properties=FunctionCallResultProperties(run_llm=False))


async def bot(runner_args):
    body = runner_args.body
    transport = FileTransport(
        body.get("caller") or CALLER,
        Path(body.get("output_dir") or ".") / "conversation.wav",
        FileTransportParams(
            vad_analyzer=SileroVADAnalyzer(), tail_secs=body.get("tail_secs", 6), layout="stereo"
        ),
    )
    stt, llm, tts = PocketSphinxSTTService(), FakeLLMService(SCRIPT), EspeakTTSService()
    llm.register_function("get_current_weather", get_current_weather)
    llm.register_direct_function(end_conversation)
    tools = ToolsSchema(standard_tools=[WEATHER, end_conversation])
    context = OpenAILLMContext([{"role": "system", "content": "Tell the weather."}], tools)
    aggregator = llm.create_context_aggregator(context)
    task = PipelineTask(
        Pipeline(
            [
                transport.input(),
                stt,
                aggregator.user(),
                llm,
                tts,
                transport.output(),
                aggregator.assistant(),
            ]
        )
    )

    @llm.event_handler("on_function_calls_started")
    async def on_function_calls_started(service, function_calls):
        await tts.queue_frame(TTSSpeakFrame("One moment."))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)

    for message in context.messages:
        print(message)
