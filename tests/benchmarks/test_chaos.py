"""The chaos suite: what it counts, and its short form."""

from __future__ import annotations

import pytest
from benchmarks.chaos.conversation import Outcome, Turn, lost_marks, seconds_of
from benchmarks.chaos.rounds import PROCESSORS, Round, peace, play
from benchmarks.chaos.world import World

SHORT_CALLS = 3


def marks(*numbers: int | None) -> list[tuple[int, float, float] | None]:
    return [None if number is None else (number, 0.001, 0.0) for number in numbers]


def test_marks_come_once_and_in_order() -> None:
    assert lost_marks(marks(1, 2, 3)) == []
    assert lost_marks(marks(1, 3)) == ["marks 2 to 2 are lost"]
    assert lost_marks(marks(1, 2, 2, 3)) == ["mark 2 came behind mark 2"]
    assert lost_marks(marks(1, 3, 2, 4)) == ["marks 2 to 2 are lost", "mark 2 came behind mark 3"]


def test_an_interruption_may_drop_marks_but_not_repeat_them() -> None:
    assert lost_marks(marks(1, None, 4, 5)) == []
    assert lost_marks(marks(1, 2, None, 2)) == ["mark 2 came behind mark 2"]
    assert lost_marks(marks(1, None, 2, 4)) == ["marks 3 to 3 are lost"]


def outcome(onset: float = 1.0, gap: float = 0.0, audio: float = 2.0) -> Outcome:
    return Outcome([Turn(onset, gap, audio)], [{"role": "user", "content": "hello"}], calls=1)


def test_a_gap_is_what_peace_would_not_have_had() -> None:
    assert outcome(onset=1.5, gap=0.2).gap(outcome(gap=0.1)) == pytest.approx(0.5)
    assert outcome(onset=0.9).gap(outcome()) == 0.0


def test_what_differs_from_peace() -> None:
    assert outcome(audio=2.05).differences(outcome()) == []
    assert outcome(audio=2.4).differences(outcome()) == ["answer 0 has +0.40 s of audio"]
    assert outcome(audio=2.4).differences(outcome(), exact=False) == []
    assert outcome(audio=1.4).differences(outcome(), exact=False) == [
        "answer 0 has -0.60 s of audio"
    ]
    answered, cut = outcome(), outcome()
    answered.messages = [*answered.messages, {"role": "assistant", "content": "Hello. And you?"}]
    cut.messages = [*cut.messages, {"role": "assistant", "content": "Hello."}]
    for heard in (cut, outcome()):
        assert len(heard.differences(answered, exact=False)) == 1
        assert heard.differences(answered, exact=False, overtaken=True) == []
    paused = outcome()
    for sentence in ("Hello.", "And you?"):
        paused.messages = [*paused.messages, {"role": "assistant", "content": sentence}]
    assert paused.differences(answered, exact=False, overtaken=True) == []
    cut.messages[-1]["content"] = "Good bye."
    assert len(cut.differences(answered, exact=False, overtaken=True)) == 1
    other = outcome()
    other.messages = [{"role": "user", "content": "hallo"}]
    other.calls = 2
    assert [text.split(":")[0] for text in other.differences(outcome())] == [
        "the conversation differs",
        "2 function calls",
    ]
    assert Outcome(failure="closed").differences(outcome())[:2] == ["closed", "0 of 1 answers"]


def test_the_space_between_sentences_is_not_spoken() -> None:
    assert seconds_of("Ab. Cd.") == pytest.approx(6 * 0.025)


def wrong(done: Round, calm: Outcome, *, exact: bool) -> list[str]:
    found = [
        text
        for each in done.outcomes
        for text in each.differences(calm, exact=exact, overtaken=not exact)
    ]
    return [f"seed {done.seed}, {done.victims}: {text}" for text in [*done.wrong, *found]]


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.timeout(180)
async def test_callers_do_not_notice_that_actors_die() -> None:
    async with World() as world:
        calm = await peace(world, SHORT_CALLS)
        done = await play(world, 5, SHORT_CALLS, [*PROCESSORS, "agent"], strikes=3)
        assert wrong(done, calm, exact=True) == []
        assert all(done.hit)
        done = await play(world, 6, SHORT_CALLS, ["supervisor"])
        assert wrong(done, calm, exact=False) == []
        assert all(done.hit)
        assert await world.left_behind() == []
        assert await world.losses() == []
