"""The command line of the benchmarks, for one scenario or all."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loguru import logger
from rich.console import Console

from benchmarks.harness.bench import Bench, Options
from benchmarks.harness.control import ProgramFailed
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.peers import PeerMissing
from benchmarks.harness.plots import draw_curves
from benchmarks.harness.report import draw, show, write_json
from benchmarks.harness.results import Result, all_bars

INTERRUPTED = 130


@dataclass(frozen=True)
class Scenario:
    """One comparison.

    Attributes:
        name: On the command line and in the JSON.
        title: For people.
        run: Measures.
        deadline_secs: After which it is given up; its processes end with it.
    """

    name: str
    title: str
    run: Callable[[Bench, Result], Awaitable[None]]
    deadline_secs: float = 300.0


# What was found out, and for each scenario that failed one line.
Outcome = tuple[list[Result], list[str]]


async def run_scenarios(
    scenarios: Sequence[Scenario], options: Options, console: Console
) -> Outcome:
    """Runs scenarios one after the other.

    Returns:
        What they found out, and for each that failed one line.
    """
    results: list[Result] = []
    failures: list[str] = []
    async with Bench(options) as bench:
        for scenario in scenarios:
            console.print(f"… {scenario.title}", style="dim", markup=False)
            result = Result(scenario.name, scenario.title)
            began = time.monotonic()
            deadline = asyncio.timeout(scenario.deadline_secs)
            try:
                async with deadline:
                    await scenario.run(bench, result)
            except PeerMissing as error:
                result.notes.append(f"skipped: {error}")
            except ProgramFailed as error:
                failures.append(f"{scenario.name}: {error}")
            except TimeoutError as error:
                # What is measured has deadlines of its own.
                late = f"not done after {scenario.deadline_secs:g} s"
                said = late if deadline.expired() else f"{type(error).__name__}: {error}"
                failures.append(f"{scenario.name}: {said}")
            except Exception as error:  # noqa: BLE001 - the other scenarios go on
                logger.opt(exception=error).error("scenario failed", scenario=scenario.name)
                failures.append(f"{scenario.name}: {type(error).__name__}: {error}")
            result.seconds = time.monotonic() - began
            result.rows = [row for row in result.rows if row.rounds]
            results.append(result)
    return results, failures


def main(
    scenarios: Sequence[Scenario],
    arguments: Sequence[str] | None = None,
    *,
    prog: str = "antiphon bench",
    strict: bool = False,
) -> int:
    """Runs what the command line asks for and returns the exit code: 1 if a scenario failed.

    Args:
        scenarios: Of which the command line names some.
        arguments: The command line; that of the process if None.
        prog: The command's name.
        strict: Whether a bar that is not met is a failure too.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description="Measures Antiphon beside other ways to do the same."
    )
    if len(scenarios) > 1:
        names = [scenario.name for scenario in scenarios]
        parser.add_argument("scenario", nargs="*", help=f"which: {', '.join(names)}; all if none")
    parser.add_argument("--quick", action="store_true", help="little of everything, one round")
    parser.add_argument("--rounds", type=int, default=0, help="measured rounds (5; 1 if --quick)")
    parser.add_argument(
        "--seed", type=int, help="from which all chance follows (another each time)"
    )
    parser.add_argument("--no-pipecat", action="store_true", help="leave Pipecat out")
    parser.add_argument("--no-ray", action="store_true", help="leave out what needs a cluster")
    parser.add_argument("--out", type=Path, default=Path("out") / "bench", help="for JSON and PNG")
    given = parser.parse_args(arguments)
    wanted = getattr(given, "scenario", [])
    unknown = set(wanted) - {scenario.name for scenario in scenarios}
    if unknown:
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    chosen = [each for each in scenarios if not wanted or each.name in wanted]
    options = Options(
        quick=given.quick,
        seed=given.seed if given.seed is not None else secrets.randbelow(1 << 30),
        rounds=given.rounds or (1 if given.quick else 5),
        pipecat=not given.no_pipecat,
        ray=not given.no_ray,
    )
    logger.remove()
    logger.add(sys.stderr, level="WARNING", diagnose=False)
    # Wide enough for the tables where the output goes to a file.
    console = Console() if sys.stdout.isatty() else Console(width=130)
    machine = describe_machine()
    try:
        results, failures = _run(run_scenarios(chosen, options, Console(stderr=True)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    machine["load_after"] = [round(value, 2) for value in os.getloadavg()]
    show(results, machine, console)
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "results.json", results, machine, asdict(options))
    written = [given.out / "results.json"]
    if draw(given.out / "results.png", results, machine):
        written.append(given.out / "results.png")
    for result in results:
        picture = given.out / f"{result.name}.png"
        if draw_curves(picture, result.title, result.curves, machine):
            written.append(picture)
    console.print(", ".join(map(str, written)), markup=False, highlight=False)
    for failure in failures:
        Console(stderr=True).print(f"error: {failure}", style="red", markup=False, soft_wrap=True)
    missed = strict and any(not bar.met for _, bar in all_bars(results))
    return 1 if failures or missed else 0


def _run(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Runs to the end; SIGTERM ends it as Ctrl-C does, with everything cleaned up."""

    async def terminable() -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    with asyncio.Runner() as runner:
        return runner.run(terminable())


def run_alone(scenario: Scenario) -> None:
    """The end of a scenario's module that is run as a program."""
    sys.exit(main([scenario]))
