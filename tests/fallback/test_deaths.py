"""Members whose actors die: they are replaced, or another member answers first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from tests.fallback.test_calls import Bot, spoken_secs, voices
from tests.session.conftest import Actors, LocalHost, actors
from tests.turns.conftest import _virtual_clocks

from antiphon.frames.frames import EndFrame, Frame, TTSAudioRawFrame
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.services.fallback import FallbackLLMService, FallbackSTTService
from antiphon.services.llm_service import FunctionCallParams
from antiphon.testing import (
    FakeDelay,
    FakeLLMService,
    FakeSTTService,
    FakeToolCall,
    FakeTTSService,
    FakeWordTTSService,
)
from antiphon_actors.placement.plan import PlacedProcessor
from antiphon_actors.placement.policy import Placement
from antiphon_actors.session.home import Host, SessionRecord

__all__ = ["_virtual_clocks", "actors"]

pytestmark = pytest.mark.virtual_time

ANSWERS = ["First answer, of some words.", "Second answer, which is long.", "The end."]


class Model(FakeLLMService):
    """Goes by the conversation, as models do: also if it has not heard the beginning."""

    movable = True

    def _next_steps(self, context: OpenAILLMContext) -> Sequence[Any]:
        asked = sum(message["role"] == "user" for message in context.messages)
        return [f"{word} " for word in ANSWERS[asked - 1].split()]


class CallingModel(FakeLLMService):
    """Looks the weather up before it tells it."""

    movable = True

    def _next_steps(self, context: OpenAILLMContext) -> Sequence[Any]:
        asked = sum(message["role"] == "user" for message in context.messages)
        known = sum(message["role"] == "tool" for message in context.messages)
        if known < asked:
            return ["Let me ", "look.", FakeDelay(0.2), FakeToolCall("weather", {"city": "Oslo"})]
        return ["It is ", "cold."]


class Voice(FakeTTSService):
    """Takes its time, as voices do."""

    movable = True

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        async for frame in super().run_tts(text):
            if isinstance(frame, TTSAudioRawFrame):
                await asyncio.sleep(0.05)
            yield frame


class WordVoice(FakeWordTTSService):
    """The same, and says when it speaks each word."""

    movable = True

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        async for frame in super().run_tts(text):
            if isinstance(frame, TTSAudioRawFrame):
                await asyncio.sleep(0.05)
            yield frame


class Call:
    """A call of three turns, of which each service has an actor of its own.

    Args:
        actors: The actors.
        make: The kind of voices.
        model: The kind of language models.
        turn_secs: From one turn to the next.
        late_secs: How long it takes to replace a service.
    """

    def __init__(
        self,
        actors: Actors,
        make: type[Voice | WordVoice],
        *,
        model: type[FakeLLMService] = Model,
        turn_secs: float = 8.0,
        late_secs: float = 0.0,
    ) -> None:
        self.actors = actors
        self.turn_secs = turn_secs
        self.record = SessionRecord()
        more: dict[str, Any] = {"probe_after_secs": 1000.0}
        stt = [FakeSTTService(["Go on."] * 3, name=f"stt{number}") for number in (0, 1)]
        llm = [model(token_delay_secs=0.1, name=f"llm{number}") for number in (0, 1)]
        self.llm = FallbackLLMService(llm, **more)
        self.bot = Bot(FallbackSTTService(stt, **more), self.llm, voices(make=make))
        self._late_secs = late_secs
        self._acquire_one = actors.acquire_one
        actors.acquire_one = self._acquire_late  # type: ignore[method-assign]

    async def _acquire_late(self, placed: PlacedProcessor, avoid: Sequence[Host] = ()) -> LocalHost:
        is_first = placed.processor.name not in self.actors.by_processor
        host = await self._acquire_one(placed, avoid)
        if not is_first:
            host.may_attach.clear()
            asyncio.get_running_loop().call_later(self._late_secs, host.may_attach.set)
        return host

    async def run(self, *deaths: tuple[float, str]) -> None:
        """Makes the call; at these times the actors of these services die."""
        run = self.actors.run(self.bot.task, Placement("dedicated"), self.record)
        await asyncio.gather(run, self._talk(), self._die(*deaths))

    async def _talk(self) -> None:
        for _ in ANSWERS:
            await self.bot.transport.make_noise(1.0)
            await self.bot.transport.stay_silent(self.turn_secs - 1.0)
        await self.bot.task.queue_frame(EndFrame())

    async def _die(self, *deaths: tuple[float, str]) -> None:
        begun = asyncio.get_running_loop().time()
        for at, name in deaths:
            await asyncio.sleep(begun + at - asyncio.get_running_loop().time())
            self.actors.by_processor[name].die()

    def check(self) -> None:
        """All turns were heard and answered, once."""
        assert self.record.failures == []
        assert self.bot.task.errors == []
        said = self.bot.said()
        assert [text for role, text in said if role == "user"] == ["Go on."] * 3
        # A pause in an answer makes it two messages.
        assert " ".join(text for role, text in said if role == "assistant") == " ".join(ANSWERS)
        assert self.bot.heard_secs() == pytest.approx(spoken_secs(*ANSWERS), abs=0.3)


@pytest.fixture(autouse=True)
def _virtual_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Actors.run.__globals__, "RUN_SECS", 3600.0)


@pytest.mark.parametrize("make", [Voice, WordVoice])
@pytest.mark.parametrize("seed", range(12))
async def test_whenever_an_actor_dies(
    actors: Actors, seed: int, make: type[Voice | WordVoice]
) -> None:
    chance = random.Random(seed)
    names = ["stt0", "stt0", "stt1", "llm0", "llm0", "llm1", "tts0", "tts1"]
    call = Call(actors, make)
    deaths = sorted(
        (call.turn_secs * turn + chance.uniform(0.5, 5.0), chance.choice(names))
        for turn in range(3)
    )
    await call.run(*deaths)
    call.check()
    assert len(call.record.recoveries) == 3
    assert call.bot.events == []


# While the caller speaks, before the answer, in mid-answer, in mid-sentence.
@pytest.mark.parametrize("at", [1.3, 1.7, 2.1, 3.1])
@pytest.mark.parametrize("kind", ["stt", "llm", "tts"])
@pytest.mark.parametrize("make", [Voice, WordVoice])
async def test_another_member_answers_before_a_lost_one_is_replaced(
    actors: Actors, make: type[Voice | WordVoice], kind: str, at: float
) -> None:
    call = Call(actors, make, turn_secs=24.0, late_secs=7.5)
    await call.run((call.turn_secs + at, f"{kind}0"))
    call.check()
    assert len(call.record.recoveries) == 1
    # At the later times the first services have done their part.
    needed = at < {"stt": 1.8, "llm": 2.4, "tts": 3.6}[kind]
    assert call.bot.events == ([(f"{kind}0", f"{kind}1")] if needed else [])


@pytest.mark.parametrize("late_secs", [0.0, 7.5])
@pytest.mark.parametrize("seed", range(5))
async def test_functions_run_once_though_their_model_dies(
    actors: Actors, seed: int, late_secs: float
) -> None:
    chance = random.Random(seed)
    call = Call(actors, Voice, model=CallingModel, turn_secs=30.0, late_secs=late_secs)
    called = 0

    async def weather(params: FunctionCallParams) -> None:
        nonlocal called
        called += 1
        await asyncio.sleep(0.5)
        await params.result_callback({"degrees": -3})

    call.llm.register_function("weather", weather)
    deaths = [(call.turn_secs * turn + chance.uniform(1.7, 3.5), "llm0") for turn in range(3)]
    await call.run(*deaths)
    assert call.record.failures == []
    assert call.bot.task.errors == []
    assert len(call.record.recoveries) == 3
    assert called == 3
    turn = [("user", "Go on."), ("assistant", "Let me look."), ("assistant", "It is cold.")]
    assert call.bot.said() == turn * 3
