"""Bots give the same result with a chain, whose first service fails, in the place of each service."""

from __future__ import annotations

from typing import Any

import pytest
from tests.session import test_same_behaviour as same
from tests.session.conftest import Actors, actors

from antiphon.services.fallback import FallbackLLMService, FallbackTTSService
from antiphon.testing import FakeFailure, FakeFault, FakeLLMService, FakeTTSService
from antiphon_actors.placement.policy import Placement

__all__ = ["actors"]

BOTS = ["function calls", "flow", "rtvi", "transcript"]


def failing_models(script: list[Any]) -> FallbackLLMService:
    down = FakeLLMService([[FakeFailure("down")]] * 9)
    return FallbackLLMService([down, FakeLLMService(script)], probe_after_secs=1000.0)


def failing_voices(**kwargs: Any) -> FallbackTTSService:
    down = FakeTTSService(faults=[FakeFault("error")] * 9, **kwargs)
    return FallbackTTSService([down, FakeTTSService(**kwargs)], probe_after_secs=1000.0)


@pytest.fixture(autouse=True)
def _chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same, "FakeLLMService", failing_models)
    monkeypatch.setattr(same, "FakeTTSService", failing_voices)


@pytest.mark.parametrize("name", BOTS)
async def test_in_one_process(name: str) -> None:
    bot = same.BOTS[name]
    assert await bot.converse(same.run_here) == bot.result


@pytest.mark.parametrize("preset", ["dedicated", "pooled"])
@pytest.mark.parametrize("name", BOTS)
async def test_over_actors(name: str, preset: Any, actors: Actors) -> None:
    bot = same.BOTS[name]

    async def run(task: Any) -> None:
        record = await actors.run(task, Placement(preset))
        assert record.failures == []
        moved = {each.name.partition("#")[0] for each in record.processors if each.where != "home"}
        assert moved >= {"FakeLLMService", "FakeTTSService"}

    assert await bot.converse(run) == bot.result
