"""Chains of speech services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tests.fallback.conftest import Line, Step

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    ControlFrame,
    DataFrame,
    EndFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    StartInterruptionFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSUpdateSettingsFrame,
)
from antiphon.pipeline.task import PipelineParams
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.fallback import FallbackTTSService
from antiphon.services.tts_service import TTSService
from antiphon.testing import FakeFault, FakeTTSService, FakeWordTTSService
from antiphon.testing.fake_fault import commit, fault_at
from antiphon.transcriptions.language import Language

pytestmark = pytest.mark.virtual_time

RATE = 8000
# Of speech, a character.
MS = 60
PARAMS = PipelineParams(audio_out_sample_rate=RATE)
ERROR = FakeFault("error")
KINDS = (
    LLMFullResponseStartFrame,
    LLMFullResponseEndFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSAudioRawFrame,
)


@dataclass
class Note(DataFrame):
    """A frame of a bot that has its place in the answer."""

    text: str = ""


@dataclass
class Kept(ControlFrame):
    """One that an interruption does not drop."""

    survives_interruption = True


class SocketTTS(TTSService):
    """Takes a text at once; its audio comes later, by itself, at eight times the speed of speech."""

    def __init__(self, faults: Sequence[FakeFault | None] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spoken: list[str] = []
        self._faults = list(faults)
        self._queue: asyncio.Queue[str] = asyncio.Queue(100)
        self._task: asyncio.Task[Any] | None = None

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        if self._task is None:
            self._task = self.create_task(self._receive(), "receive")
        self._queue.put_nowait(text)
        yield None

    async def _receive(self) -> None:
        while True:
            text = await self._queue.get()
            await asyncio.sleep(0.2)
            fault = fault_at(self._faults, len(self.spoken))
            self.spoken.append(text)
            await self.push_frame(TTSStartedFrame())
            for number in range(len(text)):
                if fault is not None and fault.after_secs <= number * MS / 1000:
                    await self.process_generator(commit(fault))
                    return
                await self.push_frame(TTSAudioRawFrame(b"\1\0" * (RATE * MS // 1000), RATE, 1))
                await asyncio.sleep(MS / 8000)
            await self.push_frame(TTSStoppedFrame())

    async def _end(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            await self.cancel_task(task)

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        await super()._handle_interruption(frame, direction)
        await self._end()
        self._queue = asyncio.Queue(100)

    async def stop(self, frame: EndFrame) -> None:
        await asyncio.sleep(2.0)
        await super().stop(frame)
        await self._end()

    async def cleanup(self) -> None:
        await self._end()
        await super().cleanup()


def voice(**kwargs: Any) -> FakeTTSService:
    return FakeTTSService(ms_per_character=MS, **kwargs)


def word_voice(**kwargs: Any) -> FakeWordTTSService:
    return FakeWordTTSService(ms_per_character=MS, **kwargs)


def answer(*tokens: str) -> list[Step]:
    """An answer of the language model, token by token."""
    texts = [LLMTextFrame(token) for token in tokens]
    return [LLMFullResponseStartFrame(), *texts, LLMFullResponseEndFrame()]


def shown(line: Line) -> list[str]:
    """What came out; audio in seconds, joined."""
    found: list[str] = []
    for frame in line.end.of(*KINDS, Note, Kept):
        name = type(frame).__name__.removesuffix("Frame").removeprefix("TTS")
        if isinstance(frame, TTSAudioRawFrame):
            secs = len(frame.audio) / 2 / frame.sample_rate
            if found and found[-1].startswith("audio"):
                secs += float(found.pop().split()[1])
            found.append(f"audio {secs:.2f}")
        elif isinstance(frame, (TTSTextFrame, Note)):
            found.append(f"{name} {frame.text.strip()}")
        else:
            found.append(name.removeprefix("LLMFull"))
    return found


def without_marks(line: Line) -> list[str]:
    return [each for each in shown(line) if each not in ("Started", "Stopped")]


def without_times(line: Line) -> list[str]:
    for frame in [
        frame for frame in line.end.down if isinstance(frame, TTSTextFrame) and frame.pts
    ]:
        line.end.down.remove(frame)
    return shown(line)


def told(line: Line) -> str:
    return " ".join(frame.text.strip() for frame in line.end.of(TTSTextFrame))


def heard_secs(line: Line) -> float:
    secs = sum(len(f.audio) / 2 / f.sample_rate for f in line.end.of(TTSAudioRawFrame))
    return round(float(secs), 2)


async def speak(services: Sequence[TTSService], *steps: Step, **kwargs: Any) -> Line:
    return await Line(FallbackTTSService(services, **kwargs), params=PARAMS).run(*steps)


# -- without failures ------------------------------------------------------------------------------

INPUTS: dict[str, list[Step]] = {
    "answer": answer("Hello", " there.", " How", " are", " you?", " Well"),
    "speak": [TTSSpeakFrame("One. Two."), TTSSpeakFrame("Three.")],
    "text alone": [LLMTextFrame("No"), LLMTextFrame(" end")],
    "two answers": [*answer("First."), 5.0, *answer("Second.")],
    "no text": answer(),
    "signs only": answer("*** ", "..."),
    "notes": [
        Note("before"),
        LLMFullResponseStartFrame(),
        LLMTextFrame("Hello."),
        Note("between"),
        LLMTextFrame(" Bye."),
        LLMFullResponseEndFrame(),
        Note("behind"),
    ],
    "settings": [*answer("A."), TTSUpdateSettingsFrame(voice="other"), *answer("B.")],
    "interrupted": [*answer("A", " b"), 0.05, StartInterruptionFrame(), 0.1, *answer("C.")],
    "heard": [TranscriptionFrame("Not spoken.", "", "")],
}


@pytest.mark.parametrize("make", [voice, word_voice, SocketTTS])
@pytest.mark.parametrize("name", INPUTS)
async def test_a_chain_is_like_its_first_service(
    make: Callable[..., TTSService], name: str
) -> None:
    def fresh() -> list[Step]:
        import copy

        # Each frame once, so that both get frames of their own.
        return [copy.copy(step) for step in INPUTS[name]]

    alone = await Line(make(), params=PARAMS).run(*fresh(), 3.0)
    line = await speak([make(), make()], *fresh(), 3.0)
    # Words with times go with their audio, and are behind it rather than before.
    assert told(line) == told(alone)
    assert without_times(line) == without_times(alone)
    assert line.events == []
    assert line.errors == alone.errors == []


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [ERROR, FakeFault("crash"), FakeFault("hang"), FakeFault("nothing")],
    ids=lambda fault: str(fault.kind),
)
async def test_the_next_one_speaks_what_the_first_one_cannot(fault: FakeFault) -> None:
    first, second = voice(faults=[None, fault], name="a"), voice(name="b")
    line = await speak([first, second], *answer("One.", " Two.", " Three."), 10.0)
    assert first.texts[:2] == ["One.", " Two."]
    assert second.texts == ["Two.", " Three."]
    assert without_marks(line) == [
        "ResponseStart",
        *("audio 0.24", "Text One."),
        *("audio 0.24", "Text Two."),
        *("audio 0.42", "Text Three."),
        "ResponseEnd",
    ]
    assert [name for name, *_ in line.events] == ["failed", "switched"]
    assert line.errors == []


@pytest.mark.parametrize("kind", ["error", "hang"])
async def test_a_sentence_that_has_begun_goes_on_where_it_broke_off(kind: Any) -> None:
    text = "Your flight to Oslo leaves at nine."
    # One second: at 15 characters a second, that is "Your flight to".
    first = voice(faults=[FakeFault(kind, after_secs=1.0)], name="a")
    second = voice(name="b")
    line = await speak([first, second], *answer(text, " Good luck."), 5.0)
    assert second.texts == ["Oslo leaves at nine.", " Good luck."]
    assert told(line) == f"{text} Good luck."
    assert shown(line)[:4] == ["ResponseStart", "Started", "audio 1.00", "Text Your flight to"]


@pytest.mark.parametrize("kind", ["error", "hang"])
async def test_timed_words_tell_the_place_exactly(kind: Any) -> None:
    text = "Your flight to Oslo leaves at nine."
    # 1 s of audio, in which four words begin: at 0.0, 0.3, 0.72 and 0.9 s.
    first = word_voice(faults=[FakeFault(kind, after_secs=1.0)], name="a")
    second = word_voice(name="b")
    line = await speak([first, second], *answer(text, " Good luck."), 5.0)
    # The fourth word had only begun.
    assert second.texts == ["Oslo leaves at nine.", " Good luck."]
    assert told(line) == f"{text} Good luck."
    assert shown(line)[-1] == "ResponseEnd"
    assert shown(line).count("ResponseEnd") == 1
    times = [frame.pts for frame in line.end.of(TTSTextFrame)]
    assert times == sorted(times)


async def test_audio_that_comes_by_itself() -> None:
    text = "One sentence is here."
    first = SocketTTS([None, FakeFault("error", after_secs=0.5)], name="a")
    second = SocketTTS(name="b")
    line = await speak([first, second], *answer(text, " And another one."), 5.0)
    # Where it is in what comes by itself can only be estimated.
    assert second.spoken == ["And another one."] or second.spoken == ["another one."]
    assert told(line) == f"{text} And another one."
    assert line.errors == []


async def test_audio_that_comes_by_itself_and_does_not_come() -> None:
    first, second = SocketTTS([FakeFault("hang")], name="a"), SocketTTS(name="b")
    line = await speak([first, second], *answer("Hello there."), 5.0)
    assert second.spoken == ["Hello there."]
    assert told(line) == "Hello there."
    assert heard_secs(line) == 12 * MS / 1000


async def test_three_in_a_row() -> None:
    made = [
        voice(faults=[ERROR], name="a"),
        voice(faults=[FakeFault(after_secs=0.5)], name="b"),
        voice(name="c"),
    ]
    line = await speak(made, *answer("Hello there, caller."), 1.0)
    assert made[2].texts == ["there, caller."]
    assert told(line) == "Hello there, caller."


async def test_members_may_have_different_rates() -> None:
    first = voice(sample_rate=16000, faults=[None, FakeFault(after_secs=0.6)])
    second = voice(sample_rate=24000)
    line = await speak([first, second], *answer("One.", " Two or three."), 1.0)
    assert {frame.sample_rate for frame in line.end.of(TTSAudioRawFrame)} == {16000, 24000}
    assert told(line) == "One. Two or three."


async def test_nobody_can_speak() -> None:
    faults = [ERROR] * 3
    made = [voice(faults=faults, name="a"), voice(faults=faults, name="b")]
    line = await speak(
        made,
        LLMFullResponseStartFrame(),
        LLMTextFrame("One."),
        Note("kept"),
        1.0,
        LLMTextFrame(" Two."),
        LLMFullResponseEndFrame(),
        1.0,
        *answer("Three."),
        1.0,
        *answer("Four."),
    )
    assert line.errors == ["no service could answer: a: the fake service was told to fail; b: the fake service was told to fail"] * 3  # fmt: skip
    # The rest of an answer that breaks off is left out; the next one is tried anew.
    assert made[0].texts == ["One.", "Three.", "Four."]
    assert told(line) == ""
    start, end = "ResponseStart", "ResponseEnd"
    assert without_marks(line) == [start, "Note kept", end, start, end, start, end]


# -- what goes on beside ---------------------------------------------------------------------------


async def test_an_interruption_while_failing_over() -> None:
    first = voice(faults=[FakeFault("hang")], name="a")
    second = voice(latency_secs=2.0, name="b")
    line = await speak(
        [first, second], *answer("Old."), 4.0, StartInterruptionFrame(), *answer("New."), 5.0
    )
    assert second.texts == ["Old.", "New."]
    assert told(line) == "New."
    assert heard_secs(line) == 4 * MS / 1000


async def test_an_interruption_before_anybody_is_asked() -> None:
    line = await speak(
        [voice(faults=[FakeFault("hang")]), voice()],
        *answer("Old."),
        Kept(),
        1.0,
        StartInterruptionFrame(),
        1.0,
        *answer("New."),
        1.0,
    )
    assert told(line) == "New."
    assert len(line.end.of(Kept)) == 1
    assert line.events == []


async def test_frames_keep_their_place_when_another_one_goes_on() -> None:
    first = voice(faults=[None, ERROR], name="a")
    line = await speak(
        [first, voice(name="b")],
        Note("1"),
        LLMFullResponseStartFrame(),
        LLMTextFrame("One."),
        Note("2"),
        LLMTextFrame(" Two."),
        Note("3"),
        LLMFullResponseEndFrame(),
        Note("4"),
        1.0,
    )
    order = [each for each in shown(line) if each.split()[0] in ("Note", "Text", "ResponseEnd")]
    assert order == [
        "Note 1",
        "Text One.",
        "Note 2",
        "Text Two.",
        "Note 3",
        "ResponseEnd",
        "Note 4",
    ]


async def test_the_preferred_one_is_probed_and_returned_to() -> None:
    first = voice(faults=[ERROR, ERROR], name="a")
    second = voice(name="b")
    line = await speak(
        [first, second],
        *answer("One."),
        1.0,
        *answer("Two."),
        10.0,
        *answer("Three."),  # the probe fails
        15.0,
        *answer("Four. Not asked."),  # the probe passes
        1.0,
        *answer("Five."),
        probe_after_secs=5.0,
    )
    assert first.texts == ["One.", "Three.", "Four.", "Five."]
    assert told(line) == "One. Two. Three. Four. Not asked. Five."
    assert [(a, b) for a, b, _ in line.switches] == [("a", "b"), ("b", "a")]


async def test_a_member_that_waits_while_the_bot_speaks_is_no_failure() -> None:
    first = voice(pause_frame_processing=True, name="a")
    second = voice(name="b")
    chain = FallbackTTSService([first, second])
    line = Line(chain, params=PARAMS)

    async def bot(kind: type[Frame]) -> None:
        await line.end.push_frame(kind(), FrameDirection.UPSTREAM)

    await line.run(
        TTSSpeakFrame("A long text."),
        0.1,
        lambda: bot(BotStartedSpeakingFrame),
        TTSSpeakFrame("Another one."),
        20.0,
        lambda: bot(BotStoppedSpeakingFrame),
        1.0,
    )
    assert line.events == []
    assert first.texts == ["A long text.", "Another one."]
    assert second.texts == []


async def test_one_that_waits_for_ever_is() -> None:
    first = voice(pause_frame_processing=True, faults=[None, FakeFault("hang")], name="a")
    second = voice(name="b")
    line = Line(FallbackTTSService([first, second]), params=PARAMS)

    async def bot(kind: type[Frame]) -> None:
        await line.end.push_frame(kind(), FrameDirection.UPSTREAM)

    await line.run(
        TTSSpeakFrame("A long text."),
        0.1,
        lambda: bot(BotStartedSpeakingFrame),
        TTSSpeakFrame("Another one."),
        20.0,
        lambda: bot(BotStoppedSpeakingFrame),
        5.0,
    )
    assert second.texts == ["Another one."]


@pytest.mark.parametrize("make", [voice, word_voice, SocketTTS])
async def test_the_last_words_are_spoken_before_the_end(make: Callable[..., TTSService]) -> None:
    first, second = make(faults=[FakeFault("hang")], name="a"), make(name="b")
    line = await speak([first, second], LLMTextFrame("Good"), LLMTextFrame(" bye"))
    assert told(line) == "Good bye"
    assert heard_secs(line) == 8 * MS / 1000
    assert isinstance(line.end.down[-1], EndFrame)


async def test_nobody_can_speak_the_last_words() -> None:
    made = [voice(faults=[ERROR]), voice(faults=[FakeFault("hang")])]
    line = await speak(made, LLMTextFrame("Good bye"))
    assert isinstance(line.end.down[-1], EndFrame)
    assert len(line.errors) == 1


async def test_a_voice_is_that_of_the_preferred_one() -> None:
    first, second = voice(), voice()
    chain = FallbackTTSService([first, second])
    chain.set_voice("x")
    await chain.set_model("large")
    assert (first._voice_id, second._voice_id) == ("x", "")
    assert (first.model_name, second.model_name) == ("large", "fake")
    for service in (first, second):
        service._settings = {"language": "en"}
    await chain.set_language(Language.DE)
    assert first._settings == second._settings == {"language": Language.DE}
    assert isinstance(chain, TTSService)
    await Line(chain, params=PARAMS).run(lambda: chain.say("Hi."), 1.0)
    assert first.texts == ["Hi."]
