"""Chains of speech recognisers. Words are numbers, spoken as samples of that value."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from tests.fallback.conftest import Line, Step

from antiphon.frames.frames import (
    DataFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    StartInterruptionFrame,
    STTMuteFrame,
    STTUpdateSettingsFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.pipeline.task import PipelineParams
from antiphon.services.fallback import FallbackSTTService
from antiphon.services.stt_service import SegmentedSTTService, STTService
from antiphon.testing import FakeFault, FakeSTTService
from antiphon.testing.fake_fault import commit, fault_at
from antiphon.transcriptions.language import Language

pytestmark = pytest.mark.virtual_time

RATE = 8000
FRAME_SECS = 0.02
WORD_SECS = 0.3
VAD_SECS = 0.2
PARAMS = PipelineParams(audio_in_sample_rate=RATE)
ERROR = FakeFault("error", message="down")
HANG = FakeFault("hang")
NOTHING = FakeFault("nothing")


def words_of(samples: np.ndarray[Any, np.dtype[np.int16]]) -> list[str]:
    return [str(value) for value, _ in groupby(samples.tolist()) if value]


class Segmented(SegmentedSTTService):
    """Understands a segment as a whole."""

    def __init__(self, *faults: FakeFault | None, secs: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._faults = faults
        self._secs = secs
        self.segments: list[list[str]] = []

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        with wave.open(io.BytesIO(audio)) as wav:
            pcm = wav.readframes(wav.getnframes())
        words = words_of(np.frombuffer(pcm, "<i2"))
        fault = fault_at(self._faults, len(self.segments))
        self.segments.append(words)
        await asyncio.sleep(self._secs)
        if fault is not None:
            async for failure in commit(fault):
                yield failure
        elif words:
            yield TranscriptionFrame(" ".join(words), self._user_id, "now")


class Streaming(STTService):
    """Listens all the time: a final transcript when nothing was said for 0.4 s, or each four words."""

    def __init__(self, *faults: FakeFault | None, interim: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._faults = faults
        self._interim = interim
        self._words: list[str] = []
        self._last = 0
        self._silence = 0.0
        self.finals = 0

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        for value, run in groupby(np.frombuffer(audio, "<i2").tolist()):
            if value and value != self._last:
                self._words.append(str(value))
                if self._interim:
                    yield InterimTranscriptionFrame(" ".join(self._words), self._user_id, "now")
            self._last = value
            self._silence = 0.0 if value else self._silence + len(list(run)) / RATE
        if len(self._words) > 4:
            final, self._words = self._words[:4], self._words[4:]
        elif self._words and self._silence >= 0.4:
            final, self._words = self._words, []
        else:
            return
        fault = fault_at(self._faults, self.finals)
        self.finals += 1
        if fault is None:
            yield TranscriptionFrame(" ".join(final), self._user_id, "now")
        elif fault.kind != "hang":
            async for failure in commit(fault):
                yield failure


class Caller:
    """Speaks into a line, in time."""

    def __init__(self, line: Line, vad: bool = True) -> None:
        self.line = line
        self.vad = vad

    async def audio(self, value: int, secs: float) -> None:
        chunk = np.full(round(RATE * FRAME_SECS), value, "<i2").tobytes()
        for _ in range(round(secs / FRAME_SECS)):
            await self.line.task.queue_frame(InputAudioRawFrame(chunk, RATE, 1))
            await asyncio.sleep(FRAME_SECS)

    async def words(self, *words: int) -> None:
        """Begins to speak, and does not stop; detection comes late."""
        first = True
        for word in words:
            await self.audio(word, VAD_SECS if first else WORD_SECS)
            if first:
                await self.started()
                await self.audio(word, WORD_SECS - VAD_SECS)
            first = False

    async def started(self) -> None:
        if self.vad:
            await self.line.task.queue_frame(UserStartedSpeakingFrame())

    async def stopped(self) -> None:
        await self.audio(0, VAD_SECS)
        if self.vad:
            await self.line.task.queue_frame(UserStoppedSpeakingFrame())

    async def say(self, *words: int) -> None:
        await self.words(*words)
        await self.stopped()

    async def wait(self, secs: float) -> None:
        await self.audio(0, secs)


def chain_of(*services: STTService, **kwargs: Any) -> FallbackSTTService:
    return FallbackSTTService(services, **kwargs)


async def talk(
    chain: FallbackSTTService, talking: Callable[[Caller], Awaitable[object]], *, vad: bool = True
) -> Line:
    line = Line(chain, params=PARAMS)
    caller = Caller(line, vad)
    return await line.run(lambda: talking(caller))


def heard(line: Line) -> list[str]:
    return line.end.texts(TranscriptionFrame)


async def two_turns(caller: Caller) -> None:
    await caller.wait(1.0)
    await caller.say(1, 2, 3)
    await caller.wait(12.0)
    await caller.say(4, 5)
    await caller.wait(12.0)


# -- without failures ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Segmented, Streaming])
async def test_a_chain_is_like_its_first_service(make: Callable[..., STTService]) -> None:
    alone = Line(make(), params=PARAMS)
    await alone.run(lambda: two_turns(Caller(alone)))
    second = make()
    line = await talk(chain_of(make(), second), two_turns)
    assert heard(line) == heard(alone) == ["1 2 3", "4 5"]
    kinds = [[type(frame) for frame in one.end.down] for one in (line, alone)]
    assert sorted(map(str, kinds[0])) == sorted(map(str, kinds[1]))
    assert line.events == []


async def test_audio_passes_or_not() -> None:
    async def little(caller: Caller) -> None:
        await caller.audio(1, 0.1)

    line = await talk(chain_of(Segmented(), Segmented()), little)
    assert len(line.end.of(InputAudioRawFrame)) == 5
    line = await talk(chain_of(Segmented(), audio_passthrough=False), little)
    assert line.end.of(InputAudioRawFrame) == []


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Segmented, Streaming])
@pytest.mark.parametrize("fault", [ERROR, FakeFault("crash", message="down"), HANG], ids=str)
async def test_the_next_one_hears_all_of_it(
    make: Callable[..., STTService], fault: FakeFault
) -> None:
    if make is Streaming and fault.kind == "crash":
        fault = ERROR  # its failures are reported one way only
    line = await talk(chain_of(make(fault, name="a"), make(name="b")), two_turns)
    assert heard(line) == ["1 2 3", "4 5"]
    reason = "no answer in time" if fault.kind == "hang" else "down"
    assert line.switches[0] == ("a", "b", reason)
    assert line.errors == []


async def test_one_that_fails_in_the_middle_of_speech() -> None:
    class Breaks(Segmented):
        async def break_down(self) -> None:
            from antiphon.frames.frames import ErrorFrame

            await self.push_error(ErrorFrame("connection lost"))

    first, second = Breaks(name="a"), Segmented(name="b")

    async def talking(caller: Caller) -> None:
        await caller.wait(1.0)
        await caller.words(1, 2)
        await first.break_down()
        await caller.audio(3, WORD_SECS)
        await caller.stopped()
        await caller.wait(1.0)

    line = await talk(chain_of(first, second), talking)
    assert heard(line) == ["1 2 3"]
    assert second.segments == [["1", "2", "3"]]


async def test_what_has_a_transcript_is_not_transcribed_again() -> None:
    # Its first final transcript is of four words, in the middle of speech; then it is gone.
    first, second = Streaming(None, ERROR, name="a"), Streaming(name="b")

    async def talking(caller: Caller) -> None:
        await caller.wait(1.0)
        await caller.say(1, 2, 3, 4, 5, 6, 7)
        await caller.wait(6.0)

    line = await talk(chain_of(first, second), talking)
    assert heard(line) == ["1 2 3 4", "5 6 7"]


@pytest.mark.parametrize("make", [Segmented, Streaming])
async def test_somebody_goes_on_while_the_first_one_hangs(make: Callable[..., STTService]) -> None:
    async def talking(caller: Caller) -> None:
        await caller.wait(1.0)
        await caller.say(1, 2)
        await caller.wait(1.0)
        await caller.say(3)
        await caller.wait(8.0)

    line = await talk(chain_of(make(HANG, HANG, name="a"), make(name="b")), talking)
    assert " ".join(heard(line)) == "1 2 3"
    assert [name for name, *_ in line.events] == ["failed", "switched"]


async def test_segments_that_wait_are_not_forgotten() -> None:
    # The transcript of the first comes when the second has been said.
    first, second = Segmented(None, ERROR, secs=1.0, name="a"), Segmented(name="b")

    async def talking(caller: Caller) -> None:
        await caller.say(1)
        await caller.wait(0.1)
        await caller.say(2)
        await caller.wait(4.0)

    line = await talk(chain_of(first, second), talking)
    assert heard(line) == ["1", "2"]
    assert second.segments == [["2"]]


async def test_noise_is_nobodys_failure() -> None:
    async def cough(caller: Caller) -> None:
        await caller.wait(1.0)
        await caller.started()
        await caller.stopped()
        await caller.wait(12.0)
        await caller.say(1)
        await caller.wait(2.0)

    for make in (Segmented, Streaming):
        first, second = make(name="a"), make(name="b")
        line = await talk(chain_of(first, second), cough)
        assert heard(line) == ["1"]
        assert line.events == []
        assert line.errors == []
        # Who works from pause to pause says that there was nothing.
        assert isinstance(second, Streaming) or second.segments == []


async def test_nobody_understands() -> None:
    made = [Segmented(ERROR, name="a"), Segmented(HANG, name="b")]
    line = await talk(chain_of(*made), two_turns)
    assert line.errors == ["no service could answer: a: down; b: no answer in time"]
    assert heard(line) == ["4 5"]


async def test_one_that_fails_while_nobody_speaks() -> None:
    first = FakeSTTService(name="a")
    second = Segmented(name="b")

    async def talking(caller: Caller) -> None:
        from antiphon.frames.frames import ErrorFrame

        await caller.wait(1.0)
        # The first 0.2 s were said before it was known that somebody speaks, and before the switch.
        await caller.audio(1, 0.1)
        await first.push_error(ErrorFrame("connection lost"))
        await caller.audio(1, 0.1)
        await caller.started()
        await caller.audio(2, WORD_SECS)
        await caller.stopped()
        await caller.wait(1.0)

    line = await talk(chain_of(first, second), talking)
    assert heard(line) == ["1 2"]
    assert line.switches == [("a", "b", "connection lost")]


async def test_without_detection_of_speech() -> None:
    first, second = Streaming(None, ERROR, name="a"), Streaming(name="b")

    async def talking(caller: Caller) -> None:
        await caller.say(1, 2)
        await caller.wait(1.0)
        await caller.say(3, 4)
        await caller.wait(1.0)
        await caller.say(5)
        await caller.wait(1.0)

    line = await talk(chain_of(first, second), talking, vad=False)
    assert heard(line) == ["1 2", "3 4", "5"]


async def test_the_preferred_one_is_probed_and_returned_to() -> None:
    for make in (Segmented, Streaming):
        first, second = make(ERROR, ERROR, name="a"), make(name="b")

        async def talking(caller: Caller) -> None:
            for word in (1, 2, 3, 4, 5):
                await caller.say(word)
                await caller.wait(9.0)

        line = await talk(chain_of(first, second, probe_after_secs=5.0), talking)
        # Probed with the second word, in vain, and again when it was left alone for longer.
        assert heard(line) == ["1", "2", "3", "4", "5"]
        assert [(a, b) for a, b, _ in line.switches] == [("a", "b"), ("b", "a")]
        assert [name for name, *_ in line.events].count("failed") == 2


# -- what goes on beside ---------------------------------------------------------------------------


async def test_an_interruption_ends_no_utterance() -> None:
    for make in (Segmented, Streaming):

        async def talking(caller: Caller) -> None:
            await caller.wait(1.0)
            await caller.words(1, 2)
            await caller.line.task.queue_frame(StartInterruptionFrame())
            await caller.audio(3, WORD_SECS)
            await caller.stopped()
            await caller.line.task.queue_frame(StartInterruptionFrame())
            await caller.wait(12.0)
            # Nothing to be understood, and the mark of that is interrupted.
            await caller.started()
            await caller.stopped()
            await caller.line.task.queue_frame(StartInterruptionFrame())
            await caller.wait(12.0)

        line = await talk(chain_of(make(name="a"), make(name="b")), talking)
        assert heard(line) == ["1 2 3"]
        assert line.events == []


async def test_who_is_muted_is_not_heard() -> None:
    async def talking(caller: Caller) -> None:
        await caller.say(1)
        await caller.wait(1.0)
        await caller.line.task.queue_frame(STTMuteFrame(mute=True))
        await caller.say(2)
        await caller.wait(12.0)
        await caller.line.task.queue_frame(STTMuteFrame(mute=False))
        await caller.wait(1.0)
        await caller.say(3)
        await caller.wait(1.0)

    first, second = Segmented(name="a"), Segmented(name="b")
    line = await talk(chain_of(first, second), talking)
    assert heard(line) == ["1", "3"]
    assert line.events == []
    assert second.segments == []
    assert line.end.of(STTMuteFrame) == []


class Note(DataFrame):
    """A frame that has its place behind what was said before it."""


@pytest.mark.parametrize("second", [Segmented, Streaming])
async def test_frames_keep_their_place(second: Callable[..., STTService]) -> None:
    async def talking(caller: Caller) -> None:
        await caller.say(1)
        await caller.line.task.queue_frame(Note())
        await caller.wait(8.0)

    line = await talk(chain_of(Segmented(HANG), second()), talking)
    order = [type(frame) for frame in line.end.of(TranscriptionFrame, Note)]
    if second is Segmented:
        assert order == [TranscriptionFrame, Note]
    else:
        # Who listens all the time lets it pass.
        assert set(order) == {TranscriptionFrame, Note}


async def test_the_last_words_are_recognised_before_the_end() -> None:
    async def talking(caller: Caller) -> None:
        await caller.say(1)

    line = await talk(chain_of(Segmented(HANG), Segmented()), talking)
    assert heard(line) == ["1"]
    assert isinstance(line.end.down[-1], EndFrame)


async def test_languages_and_models() -> None:
    class Tuned(Segmented):
        language = ""

        async def set_language(self, language: Language) -> None:
            self.language = str(language)

    first, second = Tuned(), Tuned()
    chain = chain_of(first, second)
    await chain.set_model("large")
    await chain.set_language(Language.DE)
    assert (first.model_name, second.model_name) == ("large", "")
    assert (first.language, second.language) == ("de", "de")
    update: Step = STTUpdateSettingsFrame(language=Language.FR, model="small")
    await Line(chain, params=PARAMS).run(update)
    assert (first.model_name, second.model_name) == ("small", "")
    assert (first.language, second.language) == ("fr", "fr")
    assert isinstance(chain, STTService)


async def test_interim_transcripts_pass_and_show_life() -> None:
    # Each word is 0.3 s long; the deadline of 0.35 s is from one sign of life to the next.
    first = Streaming(interim=True, name="a")
    chain = chain_of(first, Streaming(name="b"), attempt_timeout_secs=0.5)
    line = await talk(chain, two_turns)
    assert heard(line) == ["1 2 3", "4 5"]
    assert line.end.texts(InterimTranscriptionFrame) == ["1", "1 2", "1 2 3", "4", "4 5"]
    assert line.events == []
