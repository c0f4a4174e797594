from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.audio.filters.base_audio_filter import BaseAudioFilter
from antiphon.audio.interruptions.base_interruption_strategy import BaseInterruptionStrategy
from antiphon.audio.turn.base_turn_analyzer import BaseTurnAnalyzer, EndOfTurnState
from antiphon.audio.vad.vad_analyzer import VADAnalyzer, VADParams, VADState
from antiphon.frames.frames import (
    BotInterruptionFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EmulateUserStartedSpeakingFrame,
    EmulateUserStoppedSpeakingFrame,
    ErrorFrame,
    FilterControlFrame,
    FilterEnableFrame,
    InputAudioRawFrame,
    InputImageRawFrame,
    MetricsFrame,
    SpeechControlParamsFrame,
    StartFrame,
    StopFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADParamsUpdateFrame,
)
from antiphon.metrics.metrics import MetricsData
from antiphon.processors.frame_processor import FrameDirection
from antiphon.transports.base_input import AUDIO_QUEUE_FRAMES, BaseInputTransport
from antiphon.transports.base_transport import TransportParams

pytestmark = pytest.mark.virtual_time

QUIET, STARTING, SPEAKING, STOPPING = VADState
COMPLETE, INCOMPLETE = EndOfTurnState
STARTED = ["VADUserStartedSpeaking", "UserStartedSpeaking", "StartInterruption"]
STOPPED = ["VADUserStoppedSpeaking", "UserStoppedSpeaking", "StopInterruption"]


class ScriptedVAD(VADAnalyzer):
    """Answers one state per piece of audio, then QUIET."""

    def __init__(self, *states: VADState | Exception) -> None:
        super().__init__()
        self._states = list(states)

    def num_frames_required(self) -> int:
        return 160

    def voice_confidence(self, buffer: bytes) -> float:
        return 0.0

    def analyze_audio(self, buffer: bytes) -> VADState:
        state = self._states.pop(0) if self._states else QUIET
        if isinstance(state, Exception):
            raise state
        return state


class ScriptedTurns(BaseTurnAnalyzer):
    """Gives the verdicts it is told: at pauses, and by the length of silence."""

    def __init__(self, at_pause: list[EndOfTurnState], by_length: list[EndOfTurnState]) -> None:
        super().__init__()
        self._at_pause = at_pause
        self._by_length = by_length
        self._triggered = False
        self.cleared = 0

    @property
    def speech_triggered(self) -> bool:
        return self._triggered

    @property
    def params(self) -> Any:
        return None

    def append_audio(self, buffer: bytes, is_speech: bool) -> EndOfTurnState:
        self._triggered = self._triggered or is_speech
        verdict = self._by_length.pop(0) if self._by_length else INCOMPLETE
        if verdict is COMPLETE:
            self._triggered = False
        return verdict

    async def analyze_end_of_turn(self) -> tuple[EndOfTurnState, MetricsData | None]:
        verdict = self._at_pause.pop(0)
        if verdict is COMPLETE:
            self._triggered = False
        return verdict, MetricsData(processor="turns")

    def clear(self) -> None:
        self._triggered = False
        self.cleared += 1


class Refuses(BaseInterruptionStrategy):
    async def should_interrupt(self) -> bool:
        return False

    async def reset(self) -> None:
        return


class Input(BaseInputTransport):
    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def hear(self, pieces: int = 1) -> None:
        for _ in range(pieces):
            await self.push_audio_frame(audio())
            await asyncio.sleep(0.02)


def audio() -> InputAudioRawFrame:
    return InputAudioRawFrame(bytes(640), 16000, 1)


def transport(*states: VADState | Exception, **params: Any) -> Input:
    return Input(
        TransportParams(audio_in_enabled=True, vad_analyzer=ScriptedVAD(*states), **params)
    )


def speaking(names: list[str]) -> list[str]:
    """What the user does, without audio, start and end."""
    others = {"InputAudioRaw", "Start", "End", "SpeechControlParams", "Metrics"}
    return [name for name in names if name not in others]


async def test_speaking_frames_come_before_the_audio_that_shows_them(bench: Any) -> None:
    source = transport(QUIET, STARTING, SPEAKING, STOPPING, QUIET)
    b = bench(source)
    await b.run(lambda _: source.hear(5))
    assert b.below.names() == [
        "Start",
        "SpeechControlParams",
        "InputAudioRaw",
        "InputAudioRaw",
        *STARTED,
        "InputAudioRaw",
        "InputAudioRaw",
        *STOPPED,
        "InputAudioRaw",
        "End",
    ]


async def test_without_interruptions_only_the_speaking_frames_come(bench: Any) -> None:
    source = transport(SPEAKING, QUIET)
    b = bench(source, allow_interruptions=False)
    await b.run(lambda _: source.hear(2))
    assert speaking(b.below.names()) == STARTED[:2] + STOPPED[:2]


async def test_audio_is_kept_back_without_passthrough(bench: Any) -> None:
    source = transport(SPEAKING, QUIET, audio_in_passthrough=False)
    b = bench(source)
    await b.run(lambda _: source.hear(2))
    assert "InputAudioRaw" not in b.below.names()
    assert speaking(b.below.names()) == STARTED + STOPPED


@pytest.mark.parametrize("last", [SPEAKING, STOPPING])
async def test_a_speaker_who_falls_off_the_line_has_stopped(bench: Any, last: VADState) -> None:
    source = transport(SPEAKING, last)
    b = bench(source)

    async def script(_: Any) -> None:
        await source.hear(2)
        await asyncio.sleep(3.0)

    await b.run(script)
    assert speaking(b.below.names()) == STARTED + STOPPED[1:]
    ((heard_at, _), (stopped_at, _)) = [
        b.below.of(InputAudioRawFrame)[-1],
        b.below.of(UserStoppedSpeakingFrame)[0],
    ]
    assert stopped_at - heard_at == pytest.approx(0.5, abs=0.01)


async def test_strategies_leave_the_decision_open_while_the_bot_speaks(bench: Any) -> None:
    source = transport(SPEAKING, QUIET, SPEAKING, QUIET)
    b = bench(source, strategies=[Refuses()])

    async def script(b: Any) -> None:
        await b.up(BotStartedSpeakingFrame())
        await source.hear(2)
        await b.up(BotStoppedSpeakingFrame())
        await source.hear(2)
        await b.up(BotStartedSpeakingFrame(), BotInterruptionFrame())

    await b.run(script)
    assert speaking(b.below.names()) == [
        *STARTED[:2],
        *STOPPED,
        *STARTED,
        *STOPPED,
        "StartInterruption",
    ]
    assert b.above.names(FrameDirection.UPSTREAM) == [
        "BotStartedSpeaking",
        "BotStoppedSpeaking",
        "BotStartedSpeaking",
    ]


async def test_emulated_speech_interrupts_like_real_speech(bench: Any) -> None:
    source = transport()
    b = bench(source)
    await b.run(
        lambda b: b.up(EmulateUserStartedSpeakingFrame(), EmulateUserStoppedSpeakingFrame())
    )
    assert speaking(b.below.names()) == STARTED[1:] + STOPPED[1:]
    ((_, started),) = b.below.of(UserStartedSpeakingFrame)
    assert isinstance(started, UserStartedSpeakingFrame)
    assert started.emulated


async def test_a_turn_lasts_until_the_turn_analyzer_says_so(bench: Any) -> None:
    turns = ScriptedTurns(at_pause=[INCOMPLETE, COMPLETE], by_length=[])
    source = transport(SPEAKING, QUIET, QUIET, SPEAKING, QUIET, QUIET, turn_analyzer=turns)
    b = bench(source)
    await b.run(lambda _: source.hear(6))
    assert speaking(b.below.names()) == [
        *STARTED,
        "VADUserStoppedSpeaking",
        "VADUserStartedSpeaking",
        *STOPPED,
    ]
    assert len([f for _, f in b.below.of(MetricsFrame) if isinstance(f, MetricsFrame)]) >= 2


async def test_a_long_silence_ends_a_turn_that_seemed_incomplete(bench: Any) -> None:
    turns = ScriptedTurns([INCOMPLETE], [INCOMPLETE, INCOMPLETE, INCOMPLETE, COMPLETE])
    source = transport(SPEAKING, QUIET, QUIET, QUIET, turn_analyzer=turns)
    b = bench(source)
    await b.run(lambda _: source.hear(4))
    assert speaking(b.below.names()) == [*STARTED, *STOPPED]


async def test_a_turn_whose_line_goes_dead_is_forgotten(bench: Any) -> None:
    turns = ScriptedTurns([INCOMPLETE], [])
    source = transport(SPEAKING, QUIET, turn_analyzer=turns)
    b = bench(source)

    async def script(_: Any) -> None:
        await source.hear(2)
        await asyncio.sleep(1.0)

    await b.run(script)
    assert speaking(b.below.names()) == [*STARTED, *STOPPED]
    assert turns.cleared == 1


async def test_new_vad_parameters_are_announced(bench: Any) -> None:
    source = transport()
    b = bench(source)
    await b.run(lambda b: b.down(VADParamsUpdateFrame(params=VADParams(stop_secs=0.3))))
    announced = [
        frame.vad_params.stop_secs
        for _, frame in b.below.of(SpeechControlParamsFrame)
        if isinstance(frame, SpeechControlParamsFrame) and frame.vad_params is not None
    ]
    assert announced == [0.8, 0.3]
    assert "VADParamsUpdate" not in b.below.names()


class Doubler(BaseAudioFilter):
    """Says each piece twice, and notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def start(self, sample_rate: int) -> None:
        self.calls.append(f"start {sample_rate}")

    async def stop(self) -> None:
        self.calls.append("stop")

    async def process_frame(self, frame: FilterControlFrame) -> None:
        self.calls.append(type(frame).__name__)

    async def filter(self, audio: bytes) -> bytes:
        return audio * 2


async def test_a_filter_hears_audio_first_and_gets_its_control_frames(bench: Any) -> None:
    doubler = Doubler()
    source = transport(audio_in_filter=doubler)
    b = bench(source)

    async def script(b: Any) -> None:
        await source.hear(1)
        await b.down(FilterEnableFrame(enable=False))

    await b.run(script)
    ((_, heard),) = b.below.of(InputAudioRawFrame)
    assert isinstance(heard, InputAudioRawFrame)
    assert len(heard.audio) == 1280
    assert doubler.calls == ["start 16000", "FilterEnableFrame", "stop"]


async def test_a_stopped_input_takes_nothing_until_it_starts_again(bench: Any) -> None:
    source = transport(video_in_enabled=True)
    b = bench(source)

    async def script(b: Any) -> None:
        await source.hear(1)
        await source.pause(StopFrame())
        await source.hear(2)
        await source.push_video_frame(InputImageRawFrame(b"", (0, 0), None))

    await b.run(script)
    assert b.below.names().count("InputAudioRaw") == 1
    assert "InputImageRaw" not in b.below.names()


async def test_images_pass_if_enabled(bench: Any) -> None:
    source = transport(video_in_enabled=True)
    b = bench(source)
    await b.run(lambda _: source.push_video_frame(InputImageRawFrame(b"", (0, 0), None)))
    assert "InputImageRaw" in b.below.names()


async def test_a_failing_analyzer_is_reported_once_and_audio_goes_on(bench: Any) -> None:
    broken = RuntimeError("no model")
    source = transport(broken, broken, broken, SPEAKING)
    b = bench(source)
    await b.run(lambda _: source.hear(4))
    assert len(b.above.of(ErrorFrame)) == 1
    assert speaking(b.below.names()) == STARTED


async def test_a_flood_of_audio_waits_for_room(bench: Any) -> None:
    class SlowInput(Input):
        async def _vad_analyze(self, frame: InputAudioRawFrame) -> VADState:
            await asyncio.sleep(0.001)
            return QUIET

    source = SlowInput(TransportParams(audio_in_enabled=True, vad_analyzer=ScriptedVAD()))
    b = bench(source)
    most = 0

    async def script(_: Any) -> None:
        nonlocal most
        for _ in range(AUDIO_QUEUE_FRAMES * 2):
            await source.push_audio_frame(audio())
            most = max(most, source._audio_in_queue.qsize())
        await asyncio.sleep(1.0)

    await b.run(script)
    assert most == AUDIO_QUEUE_FRAMES
    assert b.below.names().count("InputAudioRaw") == AUDIO_QUEUE_FRAMES * 2
