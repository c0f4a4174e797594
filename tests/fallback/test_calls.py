"""A call whose services fail one after the other, in one process and over actors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.session.conftest import Actors, actors
from tests.turns.conftest import Run, _virtual_clocks, locally

from antiphon.frames.frames import EndFrame
from antiphon.observers.session_report import SessionReport
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.services.fallback import FallbackLLMService, FallbackSTTService, FallbackTTSService
from antiphon.services.fallback.chain import FallbackChain
from antiphon.services.llm_service import FunctionCallParams
from antiphon.testing import (
    FakeDelay,
    FakeFailure,
    FakeFault,
    FakeLLMService,
    FakeSTTService,
    FakeToolCall,
    FakeTransport,
    FakeTTSService,
    FakeVADAnalyzer,
    FakeWordTTSService,
)
from antiphon.transports.base_transport import TransportParams
from antiphon_actors.placement.plan import make_plan
from antiphon_actors.placement.policy import Placement, Rule
from antiphon_actors.session.home import SessionRecord

__all__ = ["_virtual_clocks", "actors"]

pytestmark = pytest.mark.virtual_time

RATE = 16000
MS = 60
ERROR = FakeFault("error")


@pytest.fixture(params=["one process", "fused", "dedicated", "pooled"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a task in this process, and with its services placed."""
    if request.param == "one process":
        return locally
    made: Actors = request.getfixturevalue("actors")
    monkeypatch.setitem(Actors.run.__globals__, "RUN_SECS", 3600.0)  # virtual seconds

    async def run_placed(task: PipelineTask) -> SessionRecord:
        record = await made.run(task, Placement(request.param))
        assert record.failures == []
        if request.param == "dedicated":
            # Each member has an actor of its own.
            assert len(made.by_processor) == len(set(map(id, made.by_processor.values())))
        return record

    return run_placed


class Bot:
    """A bot of chains."""

    def __init__(
        self,
        stt: FallbackSTTService,
        llm: FallbackLLMService,
        tts: FallbackTTSService,
    ) -> None:
        self.transport = FakeTransport(
            TransportParams(
                audio_in_enabled=True, audio_out_enabled=True, vad_analyzer=FakeVADAnalyzer()
            )
        )
        self.context = OpenAILLMContext()
        self.chains: list[FallbackChain[Any]] = [stt, llm, tts]
        self.events: list[tuple[Any, ...]] = []
        for chain in self.chains:
            chain.add_event_handler("on_service_switched", self._switched)
        pair = llm.create_context_aggregator(self.context)
        ears = [self.transport.input(), stt, pair.user()]
        mouth = [llm, tts, self.transport.output(), pair.assistant()]
        self.pipeline = Pipeline([*ears, *mouth])
        self.task = PipelineTask(
            self.pipeline,
            params=PipelineParams(
                enable_metrics=True, audio_in_sample_rate=RATE, audio_out_sample_rate=RATE
            ),
        )

    async def _switched(self, chain: Any, before: str, now: str, reason: str) -> None:
        assert chain in self.chains
        self.events.append((before, now))

    async def talk(self, run: Run, *steps: float) -> None:
        """A caller speaks for 1 s and waits for so long, again and again, and hangs up."""

        async def caller() -> None:
            for secs in steps:
                await self.transport.make_noise(1.0)
                await self.transport.stay_silent(secs)
            await self.task.queue_frame(EndFrame())

        await asyncio.gather(run(self.task), caller())

    def said(self) -> list[tuple[str, str]]:
        return [
            (message["role"], message["content"])
            for message in self.context.messages
            if message["role"] in ("user", "assistant") and "content" in message
        ]

    @property
    def report(self) -> SessionReport:
        report = self.task.session_report()
        assert report is not None
        return report

    def heard_secs(self) -> float:
        audio = self.transport.audio
        sounding = sum(any(audio[at : at + 640]) for at in range(0, len(audio), 640))
        return sounding * 0.02


def spoken_secs(*texts: str) -> float:
    return sum(len(text) for text in texts) * MS / 1000


def recognisers(fails_at: int = 9, fault: FakeFault = ERROR) -> FallbackSTTService:
    """The first one fails at a turn, and the second one hears that turn and those after it."""
    questions = ["One?", "Two?", "Three?"]
    return FallbackSTTService(
        [
            FakeSTTService(questions, faults=[*[None] * fails_at, fault], name="stt0"),
            FakeSTTService(questions[fails_at:], name="stt1"),
        ],
        probe_after_secs=1000.0,
    )


def models(first: list[Any], second: list[Any]) -> FallbackLLMService:
    return FallbackLLMService(
        [FakeLLMService(first, name="llm0"), FakeLLMService(second, name="llm1")],
        probe_after_secs=1000.0,
    )


def voices(
    *faults: FakeFault | None, make: Callable[..., Any] = FakeTTSService, rate: int = RATE
) -> FallbackTTSService:
    return FallbackTTSService(
        [
            make(ms_per_character=MS, faults=faults, name="tts0", sample_rate=rate),
            make(ms_per_character=MS, name="tts1"),
        ],
        probe_after_secs=1000.0,
    )


async def test_all_is_well(run: Run) -> None:
    bot = Bot(recognisers(), models(["First answer.", "Second answer."], []), voices())
    await bot.talk(run, 6.0, 6.0)
    assert bot.said() == [
        ("user", "One?"),
        ("assistant", "First answer."),
        ("user", "Two?"),
        ("assistant", "Second answer."),
    ]
    assert bot.events == []
    assert bot.heard_secs() == pytest.approx(spoken_secs("First answer.Second answer."), abs=0.1)


@pytest.mark.parametrize("make", [FakeTTSService, FakeWordTTSService])
async def test_each_service_fails_in_its_turn(run: Run, make: Callable[..., Any]) -> None:
    bot = Bot(
        recognisers(0),
        models(["First answer.", [FakeFailure("down")]], ["Second answer, which is long.", "End."]),
        voices(None, FakeFault("error", after_secs=0.9), make=make),
    )
    await bot.talk(run, 6.0, 8.0, 6.0)
    assert bot.said() == [
        ("user", "One?"),
        ("assistant", "First answer."),
        ("user", "Two?"),
        ("assistant", "Second answer, which is long."),
        ("user", "Three?"),
        ("assistant", "End."),
    ]
    assert bot.events == [("stt0", "stt1"), ("llm0", "llm1"), ("tts0", "tts1")]
    assert bot.task.errors == []
    texts = ("First answer.", "Second answer, which is long.", "End.")
    # A word that was cut is spoken again.
    assert bot.heard_secs() == pytest.approx(spoken_secs(*texts), abs=0.6)
    assert [turn.bot_text for turn in bot.report.turns] == list(texts)


async def test_services_that_hang(run: Run) -> None:
    bot = Bot(
        recognisers(1, FakeFault("hang")),
        models(["One.", ["Half of", FakeDelay(600.0)]], ["Half of it is said."]),
        voices(FakeFault("hang")),
    )
    await bot.talk(run, 10.0, 40.0)
    assert bot.said() == [
        ("user", "One?"),
        ("assistant", "One."),
        ("user", "Two?"),
        ("assistant", "Half of it is said."),
    ]
    assert bot.events == [("tts0", "tts1"), ("stt0", "stt1"), ("llm0", "llm1")]
    assert bot.heard_secs() == pytest.approx(spoken_secs("One.", "Half of it is said."), abs=0.1)


async def test_voices_of_different_rates(run: Run) -> None:
    bot = Bot(
        recognisers(),
        models(["This is said by two voices."], []),
        voices(FakeFault("error", after_secs=0.7), rate=8000),
    )
    await bot.talk(run, 8.0)
    assert bot.said()[-1] == ("assistant", "This is said by two voices.")
    secs = spoken_secs("This is said by two voices.")
    assert bot.heard_secs() == pytest.approx(secs, abs=0.5)
    # It is a tone of the same pitch, whatever the rate.
    assert {frame.sample_rate for frame in bot.transport.played} == {RATE}


async def test_a_caller_who_interrupts_while_a_service_hangs(run: Run) -> None:
    bot = Bot(
        recognisers(),
        models([[FakeDelay(600.0)]], ["Nobody hears this.", "This is heard."]),
        voices(FakeFault("hang")),
    )
    # The model is given up after 5 s, its successor answers; the voice hangs when the caller speaks.
    await bot.talk(run, 6.5, 8.0)
    assert [text for role, text in bot.said() if role == "assistant"] == ["This is heard."]
    assert bot.heard_secs() == pytest.approx(spoken_secs("This is heard."), abs=0.1)


async def test_functions_run_once_where_the_bot_is(run: Run) -> None:
    llm = models(
        [[FakeFailure("down")]],
        [["Let me look.", FakeToolCall("weather", {"city": "Oslo"})], "It is cold."],
    )
    bot = Bot(recognisers(), llm, voices())
    called: list[Any] = []

    async def weather(params: FunctionCallParams) -> None:
        called.append((params.arguments, params.llm is llm, params.context is bot.context))
        await params.result_callback({"degrees": -3})

    llm.register_function("weather", weather)
    await bot.talk(run, 8.0)
    assert called == [({"city": "Oslo"}, True, True)]
    assert [message["role"] for message in bot.context.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "assistant",
    ]
    assert bot.said()[-1] == ("assistant", "It is cold.")
    assert bot.report.turns[0].function_calls == ["weather"]


async def test_back_to_the_preferred_ones(run: Run) -> None:
    llm = FallbackLLMService(
        [
            FakeLLMService([[FakeFailure("down")], "Probed.", "Three."], name="llm0"),
            FakeLLMService(["One.", "Two."], name="llm1"),
        ],
        probe_after_secs=4.0,
    )
    bot = Bot(recognisers(), llm, voices())
    await bot.talk(run, 8.0, 8.0, 8.0)
    assert [text for role, text in bot.said() if role == "assistant"] == ["One.", "Two.", "Three."]
    assert bot.events == [("llm0", "llm1"), ("llm1", "llm0")]
    assert bot.report.turns[-1].bot_text == "Three."


def test_members_are_placed_like_any_service() -> None:
    bot = Bot(recognisers(), models([], []), voices())
    plan = make_plan(bot.pipeline, Placement("dedicated"))
    places = {placed.processor.name: placed.where for placed in plan.workers}
    members = [f"{kind}{number}" for kind in ("stt", "llm", "tts") for number in (0, 1)]
    assert [places[name] for name in members] == ["dedicated"] * 6
    apart = Placement("pooled", (Rule(FakeLLMService, apart_from=FakeLLMService),))
    plan = make_plan(bot.pipeline, apart)
    kinds = {placed.processor.name: placed.kind for placed in plan.workers}
    assert kinds["llm0"] != kinds["llm1"]
    assert kinds["tts0"] == kinds["tts1"]
