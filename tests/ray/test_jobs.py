from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from antiphon_actors.cluster import LocalCluster
from antiphon_actors.errors import JobError
from antiphon_actors.jobs import JobSpec, find, submit

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]

HELLO = """
import os, sys
print("hello", os.environ["GREETED"], sys.argv[1:], os.path.exists("bot.py"), flush=True)
print("no end of line", end="", file=sys.stderr)
sys.exit(3)
"""


@dataclass
class Elsewhere:
    """A cluster of somebody else: the same one, its logs out of reach."""

    address: str
    dashboard_url: str | None
    token: str | None
    log_directory: Path | None = None

    def shutdown(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


# Ray asks aiohttp for something deprecated.
@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")
async def test_runs_a_command_and_follows_it(cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(HELLO)
    job = await submit(
        cluster,
        JobSpec(
            ["python", "bot.py", "it's", "a b"],
            working_dir=tmp_path,
            environment={"GREETED": "world"},
        ),
    )
    lines = [line async for line in job.lines()]
    assert lines[-2:] == ["hello world [\"it's\", 'a b'] True", "no end of line"]
    result = await job.wait()
    assert (result.status, result.exit_code) == ("FAILED", 3)
    # The same through the API server, for a log that is on another machine.
    there = Elsewhere(cluster.address, cluster.dashboard_url, cluster.token)
    assert [line async for line in find(there, job.submission_id).lines()] == lines


async def test_stops_a_job(cluster: LocalCluster) -> None:
    job = await submit(cluster, JobSpec(["sh", "-c", "echo started; exec sleep 100"]))
    async for line in job.lines():
        if line == "started":
            break
    result = await job.stop()
    assert result.status == "STOPPED"


async def test_needs_an_api_server() -> None:
    with pytest.raises(JobError, match="no API server"):
        await submit(Elsewhere("127.0.0.1:1", None, None), JobSpec(["true"]))


async def test_says_what_failed(cluster: LocalCluster) -> None:
    with pytest.raises(JobError, match="antiphon-nothing"):
        await find(cluster, "antiphon-nothing").result()
    with pytest.raises(JobError) as caught:
        async with asyncio.timeout(30):
            await submit(Elsewhere("127.0.0.1:1", "http://127.0.0.1:1", None), JobSpec(["true"]))
    assert caught.value.retryable
