"""One hop between two processes: our channels beside a bare socket pair."""

from __future__ import annotations

from pathlib import Path

from antiphon_actors.certificates import ClusterAuthority, install
from benchmarks.harness.bench import PROGRAMS, Bench
from benchmarks.harness.command import Scenario, run_alone
from benchmarks.harness.control import Contestant
from benchmarks.harness.results import Result
from benchmarks.harness.rounds import Effort, alternate
from benchmarks.programs.hub_echo import CLUSTER, ROLE

BARE = "bare socket pair"
UNIX = "channel over a Unix socket"
TLS = "channel over TLS"


async def run(bench: Bench, result: Result) -> None:
    """Measures; a figure is there and back, two hops."""
    count = bench.options.count
    async with bench.processes() as processes:
        listen = ("--listen", f"unix://{bench.directory}/hop.sock")
        contestants: list[Contestant] = [
            await bench.program(processes, BARE, PROGRAMS / "floor.py", "--processes", "1"),
            await bench.program(processes, UNIX, PROGRAMS / "hub_echo.py", *listen),
        ]
        secure = ("--listen", "tls://127.0.0.1:0", "--credentials", str(_certify(bench.directory)))
        contestants.append(await bench.program(processes, TLS, PROGRAMS / "hub_echo.py", *secure))
        effort = {each.name: Effort(count(3000), count(20_000)) for each in contestants}
        await alternate(result, contestants, bench.options.rounds, effort, frames=("output",))
    result.notes.append("p50 and p99 are there and back")
    result.compare("one hop, Unix / bare: p50", UNIX, BARE, "p50 us", 3, "at most")
    result.compare("one hop, TLS / Unix: p50", TLS, UNIX, "p50 us", 3, "at most")


def _certify(directory: Path) -> Path:
    """Makes an authority and what both ends of a link need of it."""
    credentials = directory / "credentials"
    credentials.mkdir(mode=0o700, exist_ok=True)
    authority = ClusterAuthority.create(CLUSTER)
    for end in ("near", "echo"):
        install(credentials / end, authority.issue(ROLE, end), authority.bundle_pem)
    return credentials


SCENARIO = Scenario("hop", "one hop between two processes", run, deadline_secs=90)

if __name__ == "__main__":
    run_alone(SCENARIO)
