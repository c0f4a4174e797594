"""Calls to an agent that dies and comes back, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from antiphon_actors.agent_client import AgentClient, end_agent

pytestmark = pytest.mark.virtual_time


class FakeAgent:
    """Answers as a list of functions says, one after another."""

    def __init__(self, *answers: Callable[[], Any]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[Any, ...]] = []
        self.ask = self.shutdown = self

    async def remote(self, *arguments: Any) -> Any:
        self.asked.append(arguments)
        return await self._answers.pop(0)()


async def well() -> str:
    return "well"


async def unavailable() -> str:
    await asyncio.sleep(1.5)
    raise ActorUnavailableError("restarting", None)


async def dead() -> str:
    raise ActorDiedError


async def never() -> str:
    await asyncio.Event().wait()
    raise AssertionError("not reached")


async def ask(client: AgentClient, deadline_secs: float = 10.0) -> Any:
    return await client.call("ask", 1, "two", deadline_secs=deadline_secs)


async def test_an_answer_is_passed_on() -> None:
    agent = FakeAgent(well)
    assert await ask(AgentClient(agent)) == "well"
    assert agent.asked == [(1, "two")]


async def test_what_fails_while_the_agent_restarts_is_repeated() -> None:
    agent = FakeAgent(unavailable, unavailable, well)
    assert await ask(AgentClient(agent)) == "well"
    assert len(agent.asked) == 3


async def test_what_is_under_way_is_repeated_as_soon_as_it_is_back() -> None:
    client = AgentClient(FakeAgent(never, well))
    asking = asyncio.ensure_future(ask(client))
    await asyncio.sleep(0.03)
    began = asyncio.get_running_loop().time()
    client.returned()
    assert await asking == "well"
    assert asyncio.get_running_loop().time() - began < 0.1
    # That is over for the next call.
    client.handle._answers.append(well)
    assert await ask(client) == "well"


async def test_an_agent_that_is_gone_for_good_is_an_error() -> None:
    with pytest.raises(ActorDiedError):
        await ask(AgentClient(FakeAgent(dead)))


async def test_there_is_a_deadline_for_all_of_it() -> None:
    agent = FakeAgent(unavailable, unavailable, unavailable)
    with pytest.raises(TimeoutError):
        await ask(AgentClient(agent), deadline_secs=2.0)
    assert len(agent.asked) == 2


async def test_who_is_cancelled_leaves_nothing() -> None:
    asking = asyncio.ensure_future(ask(AgentClient(FakeAgent(never))))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("answer", [well, dead, never])
async def test_an_agent_is_killed_whatever_it_answers(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any]
) -> None:
    killed: list[Any] = []

    def kill(agent: Any) -> None:
        killed.append(agent)
        raise RayError("it was gone")

    monkeypatch.setattr(ray, "kill", kill)
    agent = FakeAgent(answer)
    await end_agent(agent, 1.0)
    assert killed == [agent]
    assert agent.asked == [(0.5,)]
