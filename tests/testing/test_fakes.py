from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from antiphon.audio.vad.vad_analyzer import VADParams, VADState
from antiphon.frames.frames import (
    EndFrame,
    ErrorFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InterimTranscriptionFrame,
    KeypadEntry,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    OutputDTMFFrame,
    STTMuteFrame,
    TranscriptionFrame,
    TransportMessageUrgentFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.services.llm_service import FunctionCallParams
from antiphon.testing import (
    FakeDelay,
    FakeFailure,
    FakeLLMService,
    FakeSTTService,
    FakeToolCall,
    FakeTransport,
    FakeTTSService,
    FakeVADAnalyzer,
)
from antiphon.testing.fake_llm import FakeStep
from antiphon.testing.virtual_time import VirtualClock
from antiphon.tests.utils import SleepFrame, run_test
from antiphon.transports.base_transport import TransportParams

pytestmark = pytest.mark.virtual_time

_RATE_HZ = 16_000


def _context(text: str) -> OpenAILLMContextFrame:
    return OpenAILLMContextFrame(OpenAILLMContext([{"role": "user", "content": text}]))


def test_a_scripted_voice_is_heard_where_the_script_says() -> None:
    vad = FakeVADAnalyzer(
        [(1.0, 2.0)], params=VADParams(start_secs=0.2, stop_secs=0.5, min_volume=0.0)
    )
    vad.set_sample_rate(_RATE_HZ)
    hundredth = bytes(_RATE_HZ // 100 * 2)
    changes: list[tuple[float, VADState]] = []
    for number in range(1, 401):
        state = vad.analyze_audio(hundredth)
        if not changes or changes[-1][1] is not state:
            changes.append((number / 100, state))
    assert changes == [
        (0.01, VADState.QUIET),
        (1.01, VADState.STARTING),
        (1.2, VADState.SPEAKING),
        (2.01, VADState.STOPPING),
        (2.5, VADState.QUIET),
    ]


def test_without_a_script_any_sound_is_a_voice() -> None:
    vad = FakeVADAnalyzer()
    vad.set_sample_rate(_RATE_HZ)
    assert vad.analyze_audio(bytes(_RATE_HZ)) is VADState.QUIET
    assert vad.analyze_audio(b"\1\0" * (_RATE_HZ // 2)) is VADState.SPEAKING


async def test_each_turn_of_the_user_gives_the_next_transcript() -> None:
    service = FakeSTTService(["one two", "", "three"], interim=True, user_id="u")
    # System frames overtake transcriptions unless they come later.
    turn = [UserStartedSpeakingFrame(), SleepFrame(), UserStoppedSpeakingFrame(), SleepFrame()]
    down, _ = await run_test(
        service,
        frames_to_send=[*turn, *turn, *turn, *turn],
        expected_down_frames=[
            UserStartedSpeakingFrame,
            InterimTranscriptionFrame,
            UserStoppedSpeakingFrame,
            TranscriptionFrame,
            UserStartedSpeakingFrame,
            UserStoppedSpeakingFrame,
            UserStartedSpeakingFrame,
            InterimTranscriptionFrame,
            UserStoppedSpeakingFrame,
            TranscriptionFrame,
            UserStartedSpeakingFrame,
            UserStoppedSpeakingFrame,
        ],
    )
    heard = [frame for frame in down if isinstance(frame, TranscriptionFrame)]
    assert [(frame.text, frame.user_id) for frame in heard] == [("one two", "u"), ("three", "u")]


async def test_a_muted_recogniser_uses_up_its_transcript() -> None:
    down, _ = await run_test(
        FakeSTTService(["lost", "kept"]),
        frames_to_send=[
            STTMuteFrame(mute=True),
            UserStoppedSpeakingFrame(),
            STTMuteFrame(mute=False),
            UserStoppedSpeakingFrame(),
        ],
        expected_down_frames=[
            UserStoppedSpeakingFrame,
            UserStoppedSpeakingFrame,
            TranscriptionFrame,
        ],
    )
    last = down[-1]
    assert isinstance(last, TranscriptionFrame)
    assert last.text == "kept"


async def test_a_model_says_its_responses_in_order() -> None:
    service = FakeLLMService(["Hello there.", ["to", "kens"]], token_delay_secs=1.0)
    down, _ = await run_test(
        service,
        frames_to_send=[_context("hi"), _context("again")],
        expected_down_frames=[
            LLMFullResponseStartFrame,
            LLMTextFrame,
            LLMTextFrame,
            LLMFullResponseEndFrame,
        ]
        * 2,
    )
    texts = [frame.text for frame in down if isinstance(frame, LLMTextFrame)]
    assert texts == ["Hello", " there.", "to", "kens"]
    assert service.requests == [
        [{"role": "user", "content": "hi"}],
        [{"role": "user", "content": "again"}],
    ]


async def test_a_model_calls_functions() -> None:
    service = FakeLLMService([[FakeToolCall("weather", {"city": "Oslo"})]])
    calls: list[FunctionCallParams] = []

    async def weather(params: FunctionCallParams) -> None:
        calls.append(params)
        await params.result_callback({"c": -3})

    service.register_function("weather", weather)
    await run_test(
        service,
        frames_to_send=[_context("hi"), SleepFrame()],
        expected_down_frames=[
            LLMFullResponseStartFrame,
            FunctionCallsStartedFrame,
            LLMFullResponseEndFrame,
            FunctionCallInProgressFrame,
            FunctionCallResultFrame,
        ],
    )
    assert [(call.function_name, call.arguments) for call in calls] == [
        ("weather", {"city": "Oslo"})
    ]


@pytest.mark.parametrize("responses", [[], [["a", FakeDelay(1.0), FakeFailure("on purpose")]]])
async def test_a_model_that_fails_says_so_upstream(responses: list[list[FakeStep]]) -> None:
    _, up = await run_test(
        FakeLLMService(responses), frames_to_send=[_context("hi")], expected_up_frames=[ErrorFrame]
    )
    (error,) = up
    assert isinstance(error, ErrorFrame)
    assert ("on purpose" if responses else "no response left") in error.error


async def test_a_script_can_repeat() -> None:
    service = FakeLLMService(["again"], repeat=True)
    await run_test(
        service,
        frames_to_send=[_context("1"), _context("2")],
        expected_down_frames=[
            LLMFullResponseStartFrame,
            LLMTextFrame,
            LLMFullResponseEndFrame,
        ]
        * 2,
    )


async def test_a_voice_hums_as_long_as_the_text() -> None:
    service = FakeTTSService(ms_per_character=10, latency_secs=0.5, sample_rate=_RATE_HZ)
    down, _ = await run_test(
        service,
        frames_to_send=[TTSSpeakFrame("Hello, you are here.")],
        expected_down_frames=[
            TTSStartedFrame,
            TTSAudioRawFrame,
            TTSAudioRawFrame,
            TTSStoppedFrame,
            TTSTextFrame,
        ],
    )
    audio = b"".join(frame.audio for frame in down if isinstance(frame, TTSAudioRawFrame))
    assert len(audio) == _RATE_HZ * 2 * 200 // 1000
    assert audio == service.tone("Hello, you are here.")
    assert service.texts == ["Hello, you are here."]


Script = Callable[[FakeTransport, PipelineTask], Coroutine[Any, Any, None]]


async def _talk(script: Script) -> tuple[FakeTransport, list[str]]:
    """Runs a whole bot of fakes against a script of the user; returns what came of it."""
    transport = FakeTransport(
        TransportParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            vad_analyzer=FakeVADAnalyzer(),
        )
    )
    llm = FakeLLMService(["A rather long answer to that.", "Good bye."])
    context = OpenAILLMContext([{"role": "system", "content": "Be brief."}])
    aggregator = llm.create_context_aggregator(context)
    task = PipelineTask(
        Pipeline(
            [
                transport.input(),
                FakeSTTService(["Who are you?", "Thank you."]),
                aggregator.user(),
                llm,
                FakeTTSService(ms_per_character=50),
                transport.output(),
                aggregator.assistant(),
            ]
        ),
        params=PipelineParams(allow_interruptions=True),
        clock=VirtualClock(),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(PipelineRunner(handle_sigint=False).run(task))
        group.create_task(script(transport, task))
    return transport, [f"{message['role']}: {message['content']}" for message in context.messages]


async def test_a_conversation() -> None:
    async def script(transport: FakeTransport, task: PipelineTask) -> None:
        await transport.make_noise(1.0)
        await transport.stay_silent(4.0)
        await transport.make_noise(1.0)
        await transport.stay_silent(4.0)
        await task.queue_frame(EndFrame())

    transport, messages = await _talk(script)
    assert messages == [
        "system: Be brief.",
        "user: Who are you?",
        "assistant: A rather long answer to that.",
        "user: Thank you.",
        "assistant: Good bye.",
    ]
    characters = len("A rather long answer to that.") + len("Good bye.")
    secs = len(transport.audio) / 2 / transport.output().sample_rate
    # What fills no piece of 40 ms waits for more.
    assert secs == pytest.approx(characters * 0.05, abs=0.08)


async def test_an_interruption_cuts_the_bot_short() -> None:
    async def script(transport: FakeTransport, task: PipelineTask) -> None:
        await transport.make_noise(1.0)
        await transport.stay_silent(1.2)
        await transport.make_noise(1.0)
        await transport.stay_silent(3.0)
        await task.queue_frame(EndFrame())

    transport, messages = await _talk(script)
    assert messages[-2:] == ["user: Thank you.", "assistant: Good bye."]
    secs = len(transport.audio) / 2 / transport.output().sample_rate
    assert secs < len("A rather long answer to that.") * 0.05 + len("Good bye.") * 0.05 - 0.3


async def test_events_messages_and_keys_of_a_transport() -> None:
    transport = FakeTransport()
    events: list[str] = []

    @transport.event_handler("on_client_connected")
    async def on_client_connected(_: FakeTransport, client: object) -> None:
        events.append("connected")

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(_: FakeTransport, client: object) -> None:
        events.append("disconnected")

    task = PipelineTask(Pipeline([transport.input(), transport.output()]), clock=VirtualClock())

    async def script() -> None:
        await transport.inject(TransportMessageUrgentFrame(message={"hello": 1}))
        await transport.inject(OutputDTMFFrame(button=KeypadEntry.POUND))
        await transport.disconnect()
        await asyncio.sleep(0.1)
        await task.queue_frame(EndFrame())

    await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), script())
    await transport.cleanup()
    assert transport.messages == [{"hello": 1}]
    assert events == ["connected", "disconnected"]


async def test_a_user_cannot_speak_to_a_pipeline_that_does_not_start() -> None:
    with pytest.raises(TimeoutError):
        await FakeTransport().make_noise(1.0)
