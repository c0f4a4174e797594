"""A conversation whose process is killed at any moment ends like one that was left in peace."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.checkpoints.conftest import Bot, Reply, Session, World

from antiphon.services.llm_service import FunctionCallParams
from antiphon.testing import FakeToolCall

SCRIPT = [
    ("", "Hello, who is there?"),
    ("It is me, Anna", "Nice to meet you, Anna. How are you today?"),
    ("How warm is it", "It is 3 degrees. Take a coat."),
    ("Thank you and goodbye", "Goodbye!"),
]


def reply(messages: list[Any]) -> list[Reply]:
    last = messages[-1]
    if last["role"] == "tool":
        return ["It is 3 degrees. Take a coat."]
    match last["content"]:
        case "It is me, Anna":
            return ["Nice to meet you, Anna. How are you today?"]
        case "How warm is it":
            return [FakeToolCall("weather", {"city": "Oslo"})]
        case "Thank you and goodbye":
            return ["Goodbye!"]
        case "Be kind.":
            return ["Hello, who is there?"]
    raise AssertionError(f"nobody should have asked about {last}")


async def program(bot: Bot) -> None:
    async def weather(params: FunctionCallParams) -> None:
        await params.result_callback({"degrees": 3})

    bot.llm.register_function("weather", weather, idempotent=True)
    # Each process greets, as a bot does that knows nothing of its having died.
    await bot.task.queue_frame(bot.pair.user().get_context_frame())


def converse(*cuts: int) -> tuple[World, int]:
    world = World(SCRIPT)
    turns = Session(world, reply, program).run(*cuts)
    return world, turns


UNDISTURBED, TURNS = converse()


def test_the_undisturbed_conversation() -> None:
    assert UNDISTURBED.processes == 1
    assert [words for role, words in UNDISTURBED.result if role == "user"] == [
        words for words, _ in SCRIPT[1:]
    ]
    assert UNDISTURBED.result[-1] == ("assistant", "Goodbye!")
    assert " ".join(UNDISTURBED.heard) == " ".join(answer for _, answer in SCRIPT)


def check(*cuts: int) -> World:
    world, _ = converse(*cuts)
    assert world.result == UNDISTURBED.result
    assert world.problems == []
    assert world.committed <= len(world.messages)
    # In order, though some of it twice.
    heard = iter(world.heard)
    assert all(sentence in heard for sentence in UNDISTURBED.heard)
    return world


@pytest.mark.usefixtures("quiet")
def test_killed_at_each_moment() -> None:
    for cut in range(1, TURNS):
        assert check(cut).processes == 2


@pytest.mark.usefixtures("quiet")
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, TURNS), min_size=2, max_size=5))
def test_killed_again_and_again(cuts: list[int]) -> None:
    check(*cuts)
