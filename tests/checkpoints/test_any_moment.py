"""A conversation whose process is killed at any moment ends like one that was left in peace."""

from __future__ import annotations

import functools
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


@functools.cache
def undisturbed() -> tuple[World, int]:
    return converse()


def test_the_undisturbed_conversation() -> None:
    world, _ = undisturbed()
    assert world.processes == 1
    assert [words for role, words in world.result if role == "user"] == [
        words for words, _ in SCRIPT[1:]
    ]
    assert world.result[-1] == ("assistant", "Goodbye!")
    assert " ".join(world.heard) == " ".join(answer for _, answer in SCRIPT)


def check(*cuts: int) -> World:
    expected, _ = undisturbed()
    world, _ = converse(*cuts)
    assert world.result == expected.result
    assert world.problems == []
    assert world.committed <= len(world.messages)
    # In order, though some of it twice.
    heard = iter(world.heard)
    assert all(sentence in heard for sentence in expected.heard)
    return world


@pytest.mark.usefixtures("quiet")
def test_killed_at_each_moment() -> None:
    for cut in range(1, undisturbed()[1]):
        assert check(cut).processes == 2


@pytest.mark.usefixtures("quiet")
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=5))
def test_killed_again_and_again(moments: list[float]) -> None:
    _, turns = undisturbed()
    check(*(1 + round(moment * turns) for moment in moments))


STORY = "Once upon a time. There was a king. He had a daughter. She had a ball. It was golden."
RUDE = [("Tell me a story", "Once upon a time."), ("Stop it", "As you like.")]


def tell(messages: list[Any]) -> list[Reply]:
    asked = [message["content"] for message in messages if message["role"] == "user"]
    return ["As you like." if asked[-1] == "Stop it" else STORY]


async def nothing_special(bot: Bot) -> None: ...


def interrupt(*cuts: int) -> tuple[World, int]:
    world = World(RUDE, polite=False)
    turns = Session(world, tell, nothing_special).run(*cuts)
    return world, turns


@pytest.mark.usefixtures("quiet")
def test_killed_around_an_interruption() -> None:
    """The caller cuts the bot off; how much of the answer was heard by then may differ."""
    expected, turns = interrupt()
    assert [role for role, _ in expected.result] == ["system", *["user", "assistant"] * 2]
    assert expected.result[2][1] != STORY
    for cut in range(1, turns):
        world, _ = interrupt(cut)
        assert world.processes == 2
        said = [content for role, content in world.result if role == "user"]
        assert said == ["Tell me a story", "Stop it"], cut
        assert world.result[-1] == ("assistant", "As you like."), cut
        answers = [content for role, content in world.result[:-1] if role == "assistant"]
        assert len(answers) <= 1, cut
        assert all(STORY.startswith(answer) for answer in answers), cut
        assert world.problems == []
