"""Whatever fails whenever: nothing is said twice, and nothing is lost while a service is left."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from tests.fallback.conftest import Line
from tests.fallback.test_stt import PARAMS as STT_PARAMS
from tests.fallback.test_stt import Caller, Segmented, heard
from tests.fallback.test_tts import MS, heard_secs, told
from tests.fallback.test_tts import PARAMS as TTS_PARAMS

from antiphon.frames.frames import (
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
)
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.services.fallback import FallbackLLMService, FallbackSTTService, FallbackTTSService
from antiphon.testing import (
    FakeDelay,
    FakeFailure,
    FakeFault,
    FakeLLMService,
    FakeTTSService,
    FakeWordTTSService,
    virtual_time,
)

WORDS = "Nobody says any of these words a second time".split()
SENTENCES = ["The first one is short.", " Then there is a longer one.", " Bye."]
EXAMPLES = settings(max_examples=30, deadline=None)

Failure = st.sampled_from(
    [FakeFailure("down"), FakeFailure("down", is_reported=True), FakeDelay(60.0)]
)
# After how many words, and how; None for never.
Model = st.none() | st.tuples(st.integers(0, len(WORDS)), Failure)


def run(main: Any) -> Any:
    logger.disable("antiphon")  # tracebacks of each failure
    try:
        return virtual_time.run(main)
    finally:
        logger.enable("antiphon")


@EXAMPLES
@given(st.lists(Model, min_size=1, max_size=4))
def test_an_answer_is_said_once(plans: list[tuple[int, Any] | None]) -> None:
    async def talk() -> Line:
        members = []
        for plan in plans:
            tokens: list[Any] = [f" {word}" for word in WORDS]
            if plan is not None:
                tokens = [*tokens[: plan[0]], plan[1]]
            members.append(FakeLLMService([tokens]))
        chain = FallbackLLMService(members)
        return await Line(chain).run(OpenAILLMContextFrame(OpenAILLMContext()))

    line = run(talk())
    said = "".join(line.end.texts(LLMTextFrame)).split()
    if None in plans:
        assert said == WORDS
        assert line.errors == []
    else:
        assert said == WORDS[: max(plan[0] for plan in plans if plan is not None)]
        assert len(line.errors) == 1
    assert len(line.end.of(LLMFullResponseStartFrame)) == 1
    assert len(line.end.of(LLMFullResponseEndFrame)) == 1


Fault = st.none() | st.builds(
    FakeFault,
    kind=st.sampled_from(["error", "crash", "hang"]),
    after_secs=st.floats(0.0, 1.5).map(lambda secs: round(secs, 2)),
)


@EXAMPLES
@given(
    st.sampled_from([FakeTTSService, FakeWordTTSService]),
    st.lists(st.lists(Fault, max_size=3), max_size=3),
)
def test_a_text_is_spoken_once(make: Any, faults: list[list[FakeFault | None]]) -> None:
    async def talk() -> Line:
        members = [make(ms_per_character=MS, faults=each) for each in [*faults, []]]
        frames: list[Frame] = [LLMTextFrame(sentence) for sentence in SENTENCES]
        line = Line(FallbackTTSService(members), params=TTS_PARAMS)
        return await line.run(LLMFullResponseStartFrame(), *frames, LLMFullResponseEndFrame(), 60.0)

    line = run(talk())
    text = "".join(SENTENCES)
    assert told(line).split() == text.split()
    assert len(line.end.of(LLMFullResponseEndFrame)) == 1
    assert line.errors == []
    # Of the audio, a few words around each break: those that were cut, and what an estimate is off.
    breaks = len(line.switches)
    secs = len(text) * MS / 1000
    assert secs - 0.5 * breaks <= heard_secs(line) <= secs + 1.0 * breaks


@EXAMPLES
@given(
    st.lists(st.lists(st.sampled_from(["ok", "error", "hang"]), max_size=3), max_size=2),
    st.lists(st.floats(0.1, 4.0), min_size=3, max_size=3),
)
def test_what_is_said_is_transcribed_once(plans: list[list[str]], pauses: list[float]) -> None:
    async def talk() -> Line:
        def fault(how: str) -> FakeFault | None:
            return None if how == "ok" else FakeFault(how)  # type: ignore[arg-type]

        members = [Segmented(*map(fault, plan)) for plan in plans]
        line = Line(
            FallbackSTTService([*members, Segmented()], probe_after_secs=1000.0), params=STT_PARAMS
        )
        caller = Caller(line)

        async def talking() -> None:
            for number, pause in enumerate(pauses):
                await caller.say(3 * number + 1, 3 * number + 2, 3 * number + 3)
                await caller.wait(pause)
            await caller.wait(30.0)

        return await line.run(talking)

    line = run(talk())
    assert " ".join(heard(line)).split() == [str(number) for number in range(1, 10)]
    assert line.errors == []
