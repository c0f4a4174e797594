"""Rounds of calls in which something dies at a random moment."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.conversation import Call, Outcome, Turn
from benchmarks.chaos.world import World, kill
from benchmarks.harness.statistics import median

PROCESSORS = ("Marker", "ToneSTT", "ScriptLLM", "ToneTTS")
"""The bot's processors in actors."""

OTHERS = ("model", "agent")
"""Actors that are nobody's alone: the shared model's, and the node's agent."""

# The caller of a round's first call has been greeted by then; the last one's has not said all.
_FIRST_KILL_SECS = 1.5
_LAST_KILL_SECS = 14.0
_STAGGER_SECS = 0.3
# One fault at a time: this is more than any of them lasts.
_APART_SECS = 1.0


@dataclass
class Round:
    """What came of some calls at once.

    Attributes:
        seed: By which it can be repeated.
        victims: What was killed, and how many seconds after the beginning.
        outcomes: Of the calls.
        hit: For each call, whether it had to do with a victim.
        wrong: What went wrong, for people.
    """

    seed: int
    victims: list[tuple[str, float]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    hit: list[bool] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


Strike = Callable[[World, Sequence[Call], str], Awaitable[list[bool]]]
"""Kills what has a role; for each call, whether it had to do with it."""


async def strike(
    world: World, calls: Sequence[Call], role: str, how: signal.Signals = signal.SIGKILL
) -> list[bool]:
    """Sends a signal to the process that has a role in one of the calls."""
    if role in OTHERS:
        status = await world.status()
        pids = [each["pid"] for each in status["model_processes"]]
        pid = status["pid"] if role == "agent" else next(iter(pids), None)
        return [kill(pid, how)] * len(calls)
    pids = [call.pid(role) for call in calls]
    victim = next((pid for pid in pids if pid is not None and kill(pid, how)), None)
    return [victim is not None and pid == victim for pid in pids]


async def play(
    world: World,
    seed: int,
    count: int,
    roles: Sequence[str],
    *,
    strikes: int = 1,
    how: Strike = strike,
    **body: object,
) -> Round:
    """Has so many callers talk, and so many victims of these roles die meanwhile.

    Args:
        world: Where.
        seed: What dies and when follows from it.
        count: Calls at once.
        roles: Which victims may be chosen.
        strikes: How many are.
        how: Does it.
        body: Of the calls' requests.
    """
    chance = random.Random(seed)
    found = Round(seed)
    calls = [await world.call(**body) for _ in range(count)]
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def talk(number: int, call: Call) -> Outcome:
        await asyncio.sleep(number * _STAGGER_SECS)
        return await call.run()

    talking = [asyncio.create_task(talk(*item)) for item in enumerate(calls)]
    found.hit = [False] * count
    for moment in _moments(chance, strikes):
        await asyncio.sleep(began + moment - loop.time())
        role = chance.choice(list(roles))
        hit = await how(world, calls, role)
        if not any(hit):
            found.wrong.append(f"there was no {role} to be killed")
        found.hit = [a or b for a, b in zip(found.hit, hit, strict=True)]
        found.victims.append((role, loop.time() - began))
    found.outcomes = list(await asyncio.gather(*talking))
    return found


def _moments(chance: random.Random, count: int) -> list[float]:
    """So many moments, apart from each other."""
    span = _LAST_KILL_SECS - _FIRST_KILL_SECS - (count - 1) * _APART_SECS
    found = sorted(chance.uniform(0.0, span) for _ in range(count))
    return [_FIRST_KILL_SECS + at + number * _APART_SECS for number, at in enumerate(found)]


async def peace(world: World, count: int) -> Outcome:
    """An undisturbed call: of so many at once the medians, with what all of them have said.

    Raises:
        AssertionError: Even undisturbed they are not alike.
    """
    calm = await play(world, 0, count, (), strikes=0)
    model = calm.outcomes[0]
    for outcome in calm.outcomes:
        assert not (wrong := outcome.differences(model)), wrong
    turns = [
        Turn(*(median([getattr(turn, name) for turn in same]) for name in Turn.__slots__))
        for same in zip(*(outcome.turns for outcome in calm.outcomes), strict=True)
    ]
    return Outcome(turns, model.messages, model.marks, model.calls)
