"""What is done to the calls, and what must come of it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil

from antiphon_actors.models.settings import ModelRule, ModelSettings
from benchmarks import successive
from benchmarks.chaos import cancel
from benchmarks.chaos.conversation import Call, Outcome
from benchmarks.chaos.rounds import OTHERS, PROCESSORS, Round, peace, play, strike
from benchmarks.chaos.world import World, kill, kill_node
from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario
from benchmarks.harness.results import Bar, Result
from benchmarks.harness.statistics import quantile

FAR_BOT = Path(__file__).parents[1] / "programs" / "chaos_far_bot.py"

_SETTLE_SECS = 4.0
# As many as one actor has places for.
CALLS = 8
SHARED_SILERO = ModelSettings(rules=(ModelRule("SileroModel", "actor"),))


def _count(
    result: Result,
    done: Sequence[Round],
    calm: Outcome,
    *,
    exact: bool,
    overtaken: bool = False,
) -> tuple[int, int]:
    """Notes what went wrong; how many calls were disturbed, and how many of them finished right."""
    disturbed = right = 0
    for each in done:
        what = ", ".join(f"{role} at {secs:.2f} s" for role, secs in each.victims)
        result.notes += [f"seed {each.seed} ({what}): {wrong}" for wrong in each.wrong]
        for number, outcome in enumerate(each.outcomes):
            if not each.hit[number]:
                continue
            disturbed += 1
            wrong = outcome.differences(calm, exact=exact, overtaken=overtaken)
            right += not wrong
            result.notes += [f"seed {each.seed} ({what}), call {number}: {text}" for text in wrong]
    return disturbed, right


def _gaps(done: Sequence[Round], calm: Outcome, roles: Sequence[str] | None = None) -> list[float]:
    """The longest silence of each disturbed call that the others would not have had."""
    return [
        outcome.gap(calm)
        for each in done
        if roles is None or any(role in roles for role, _ in each.victims)
        for number, outcome in enumerate(each.outcomes)
        if each.hit[number]
    ]


async def _clean(world: World, result: Result, what: str) -> None:
    left = await world.left_behind()
    result.notes += [f"left behind: {each}" for each in left]
    result.bars.append(Bar(f"{what}: left behind", len(left), 0, "at most", ""))


def _finished(result: Result, what: str, disturbed: int, right: int, at_least: int) -> None:
    row = result.row(what)
    row.add("calls disturbed", disturbed)
    row.add("of them finished right", right)
    result.bars.append(Bar(f"{what}: calls disturbed", disturbed, at_least, "at least", ""))
    bar = Bar(f"{what}: calls that did not finish right", disturbed - right, 0, "at most", "")
    result.bars.append(bar)


def _silences(result: Result, what: str, gaps: Sequence[float]) -> None:
    if gaps:
        row = result.row(what)
        row.add("gap p50 s", quantile(gaps, 0.5))
        row.add("gap max s", max(gaps))


async def _rounds(
    world: World, bench: Bench, at_least: int, roles: Sequence[str], **options: object
) -> list[Round]:
    """As many rounds as disturb so many calls, or a few less in a quick run."""
    chance = random.Random(f"{bench.options.seed} {' '.join(roles)}")
    done: list[Round] = []
    wanted = CALLS if bench.options.quick else at_least
    while sum(sum(each.hit) for each in done) < wanted and len(done) < 2 * wanted:
        seed = chance.randrange(1 << 30)
        done.append(await play(world, seed, CALLS, roles, **options))  # type: ignore[arg-type]
    return done


async def processors(bench: Bench, result: Result) -> None:
    """SIGKILL of any actor but gateways and supervisors."""
    what = "an actor is killed"
    async with World(models=SHARED_SILERO) as world:
        calm = await peace(world, CALLS)
        roles = [*PROCESSORS, *OTHERS]
        done = await _rounds(world, bench, 200, roles, strikes=2)
        disturbed, right = _count(result, done, calm, exact=True)
        at_least = CALLS if bench.options.quick else 200
        _finished(result, what, disturbed, right, at_least)
        for role in roles:
            _silences(result, f"{role} is killed", _gaps(done, calm, [role]))
        gaps = _gaps(done, calm, PROCESSORS)
        _silences(result, what, gaps)
        if gaps:
            text = "audible gap after a processor's death"
            result.bars.append(Bar(f"{text}, p50", quantile(gaps, 0.5), 0.5, "at most", "s"))
            result.bars.append(Bar(f"{text}, max", max(gaps), 1.0, "at most", "s"))
        await _clean(world, result, what)


async def supervisors(bench: Bench, result: Result) -> None:
    """SIGKILL of the supervisor, which has all calls."""
    what = "the supervisor is killed"
    async with World() as world:
        calm = await peace(world, CALLS)
        done = await _rounds(world, bench, 50, ["supervisor"])
        disturbed, right = _count(result, done, calm, exact=False, overtaken=True)
        _finished(result, what, disturbed, right, CALLS if bench.options.quick else 50)
        gaps = _gaps(done, calm)
        _silences(result, what, gaps)
        result.bars.append(Bar(f"{what}: longest gap", max(gaps, default=99), 3.0, "at most", "s"))
        await _clean(world, result, what)


async def frozen(bench: Bench, result: Result) -> None:
    """SIGSTOP: the process is there, its sockets are open, and it does nothing."""
    async with World() as world:
        calm = await peace(world, CALLS)
        stop = partial(strike, how=signal.SIGSTOP)
        hold_up = partial(strike_for_a_while, chance=random.Random(bench.options.seed))
        for what, how, roles, exact in (
            ("an actor is stopped", stop, PROCESSORS, True),
            ("an actor is held up", hold_up, PROCESSORS, True),
            ("the supervisor is stopped", stop, ("supervisor",), False),
        ):
            done = await _rounds(world, bench, 24, roles, how=how)
            disturbed, right = _count(result, done, calm, exact=exact, overtaken=not exact)
            _finished(result, what, disturbed, right, CALLS if bench.options.quick else 24)
            _silences(result, what, _gaps(done, calm))
        await _clean(world, result, "processes are stopped")


async def strike_for_a_while(
    world: World, calls: Sequence[Call], role: str, *, chance: random.Random
) -> list[bool]:
    """Stops a process for up to 1.5 s: it may find that it was given up, and must do no harm then."""
    pids = [call.pid(role) for call in calls]
    hit = await strike(world, calls, role, signal.SIGSTOP)
    victim = next((pid for pid, is_hit in zip(pids, hit, strict=True) if is_hit), None)
    await asyncio.sleep(chance.uniform(0.1, 1.5))
    kill(victim, signal.SIGCONT)
    return hit


async def nodes(bench: Bench, result: Result) -> None:
    """A node dies with all that is on it."""
    what = "a node is lost"
    wanted = 2 if bench.options.quick else 20
    disturbed = right = reported = rounds = 0
    gaps: list[float] = []
    chance = random.Random(f"{bench.options.seed} nodes")
    while disturbed < wanted and rounds < wanted:
        # Two sessions have their supervisors here, and the others on nodes that may be lost.
        async with World([{"far": 4.0}] * 3, max_sessions=2, bot=FAR_BOT) as world:
            calm = await peace(world, 4)
            for role in ("ScriptLLM", "supervisor"):
                done = await play(world, chance.randrange(1 << 30), 4, [role], how=strike_node)
                rounds += 1
                reasons = await world.losses()
                for number, outcome in enumerate(done.outcomes):
                    if not done.hit[number]:
                        continue
                    disturbed += 1
                    wrong = outcome.differences(calm, exact=False, overtaken=True)
                    right += not wrong
                    if wrong and "line is closed" in outcome.failure and reasons:
                        reported += 1
                    elif wrong:
                        result.notes.append(f"seed {done.seed}, call {number}: {wrong}")
                gaps += _gaps([done], calm)
                result.notes += [f"seed {done.seed}: {wrong}" for wrong in done.wrong]
                result.notes += [f"reported as lost: {reason}" for reason in reasons]
                if disturbed >= wanted:
                    break
            await _clean(world, result, what)
    row = result.row(what)
    row.add("calls disturbed", disturbed)
    row.add("of them finished right", right)
    row.add("of them reported as lost", reported)
    _silences(result, what, gaps)
    result.bars.append(Bar(f"{what}: calls disturbed", disturbed, wanted, "at least", ""))
    silent = disturbed - right - reported
    result.bars.append(Bar(f"{what}: calls lost in silence", silent, 0, "at most", ""))


async def strike_node(world: World, calls: Sequence[Call], role: str) -> list[bool]:
    """Ends the node, which is not the gateway's, on which something has a role in one of the calls."""
    here = _raylet((await world.status())["pid"])
    victim = None
    for call in calls:
        pid = call.pid(role)
        if pid is not None and psutil.pid_exists(pid) and _raylet(pid) != here:
            victim = _raylet(pid)
            break
    if victim is None:
        return [False] * len(calls)
    roles = (*PROCESSORS, "supervisor")
    hit = [
        any(
            (pid := call.pid(each)) is not None
            and psutil.pid_exists(pid)
            and _raylet(pid) == victim
            for each in roles
        )
        for call in calls
    ]
    kill_node(victim)
    return hit


def _raylet(pid: int) -> int:
    """The process that stands for the node of an actor."""
    return int(psutil.Process(pid).environ()["RAY_RAYLET_PID"])


async def bystanders(bench: Bench, result: Result) -> None:
    """An actor dies; other sessions, in other actors of the same pool, go on in time."""
    count, strikes = 12, (2 if bench.options.quick else 10)
    calm: list[float] = []
    struck: list[float] = []
    async with World() as world:
        for _ in range((strikes + 3) // 4):
            done = min(4, strikes)
            strikes -= done
            calls = [await world.call(silent=True) for _ in range(count)]
            talking = [
                asyncio.create_task(call.stay(_SETTLE_SECS + 4.0 * done + 2.0)) for call in calls
            ]
            loop = asyncio.get_running_loop()
            moments: list[tuple[float, list[bool]]] = []
            # Their beginning is not what peace is like.
            await asyncio.sleep(_SETTLE_SECS)
            for _ in range(done):
                await asyncio.sleep(4.0)
                pids = [call.pid("Marker") for call in calls]
                fullest = max(pids, key=pids.count)
                moments.append((loop.time(), [pid == fullest for pid in pids]))
                kill(fullest)
            outcomes = await asyncio.gather(*talking)
            result.notes += [each.failure for each in outcomes if each.failure]
            for at, hit in moments:
                for number, outcome in enumerate(outcomes):
                    for mark in outcome.marks:
                        if mark is None:
                            continue
                        _, took, when = mark
                        if at - 2.0 <= when < at - 0.5:
                            calm.append(1e3 * took)
                        elif not hit[number] and at <= when < at + 1.5:
                            struck.append(1e3 * took)
        await _clean(world, result, "bystanders")
    for name, waits in (("in peace", calm), ("while others' actor is killed", struck)):
        row = result.row(f"sessions in the pool, {name}")
        row.add("marks", len(waits))
        row.add("lateness p50 ms", quantile(waits, 0.5))
        row.add("lateness p99 ms", quantile(waits, 0.99))
    extra = quantile(struck, 0.99) - quantile(calm, 0.99)
    text = "other sessions in the same pool during a fault: extra lateness p99"
    result.bars.append(Bar(text, extra, 20.0, "at most", "ms"))


async def cancels(bench: Bench, result: Result) -> None:
    """Sessions are cancelled at random moments, in random states."""
    count = 60 if bench.options.quick else 1000
    found = await cancel.run(count, bench.options.seed)
    row = result.row("sessions are cancelled")
    row.add("cancelled", found.count)
    row.add("within 2 s", found.within)
    row.add("longest s", found.worst_secs)
    result.notes += found.left_over
    text = "cancelled at a random moment: not within 2 s"
    result.bars.append(Bar(text, found.count - found.within, 0, "at most", ""))
    text = "cancelled at a random moment: left behind"
    result.bars.append(Bar(text, len(found.left_over), 0, "at most", ""))


async def growth(bench: Bench, result: Result) -> None:
    """Sessions one after another in one pool."""
    count = successive.SETTLED + 20 if bench.options.quick else successive.SESSIONS
    grown = await successive.successive(count)
    row = result.row(f"actors of {count} sessions, one after another")
    for megabytes in grown.values():
        row.add("growth MB", megabytes)
    text = f"{count} sessions one after another: growth of an actor's memory"
    result.bars.append(Bar(text, max(grown.values()), successive.LIMIT_MB, "at most", "MB"))


SCENARIOS = [
    Scenario("processors", "an actor of a call is killed", processors, 1500),
    Scenario("supervisors", "the supervisor of calls is killed", supervisors, 600),
    Scenario("frozen", "what serves calls is stopped", frozen, 600),
    Scenario("nodes", "a node is lost", nodes, 900),
    Scenario("bystanders", "other sessions while an actor is killed", bystanders, 300),
    Scenario("cancels", "sessions are cancelled at any moment", cancels, 1500),
    Scenario("growth", "sessions one after another in one pool", growth, 1800),
]
