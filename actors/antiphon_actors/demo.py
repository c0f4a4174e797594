"""The demonstration: a recorded caller talks to a bot."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger
from rich.console import Console

from antiphon.errors import AntiphonError, ConfigError, SessionError
from antiphon_actors.bot_program import read_bot_file
from antiphon_actors.interruption import renew_signal_handlers, scratch_directory
from antiphon_actors.placement.policy import Preset
from antiphon_actors.progress import Progress
from antiphon_actors.report import SessionReport
from antiphon_actors.run import RunOptions, look_for_cluster, run_here
from antiphon_actors.tables import latency_table, session_table
from antiphon_actors.timeline import draw_timeline

if TYPE_CHECKING:
    from antiphon_actors.cluster import Cluster, ClusterSettings
    from antiphon_actors.jobs import Job

BOT = "demo_bot.py"
STOP_DEADLINE_SECS = 3.5
_RUN_ANTIPHON = (
    'if [ -x "$0" ]; then exec "$0" -P -m antiphon_actors.cli "$@"; fi; exec antiphon "$@"'
)


def examples_dir() -> Path:
    """Where the examples are: beside the installed package, or in the source tree.

    Raises:
        ConfigError: If neither has them.
    """
    package = Path(__file__).parent
    for candidate in (package / "examples", package.parent.parent / "examples"):
        if (candidate / BOT).is_file():
            return candidate
    raise ConfigError(f"{BOT} is missing from this installation; install antiphon again")


async def run_demo(
    *,
    local: bool,
    preset: Preset,
    out: Path,
    console: Console,
    progress: Progress,
    on_failure: Callable[[str], None],
) -> int:
    """Runs the demonstration and shows what happened.

    Args:
        local: Run the bot in this process instead of on a cluster.
        preset: How its processors are placed on the cluster.
        out: Directory for the recording and the picture.
        console: Where the tables go.
        progress: Shows what takes long.
        on_failure: Told what goes wrong in the conversation.

    Returns:
        The exit code.

    Raises:
        AntiphonError: If the conversation could not take place at all.
    """
    examples = examples_dir()
    _make_directory(out)
    if local:
        bot_file = read_bot_file(examples / BOT)
        report = await run_here(RunOptions(bot_file, collect=True, on_failure=on_failure))
    else:
        report = await _on_cluster(examples, preset, progress)
    for name, content in report.files.items():
        (out / name).write_bytes(content)
    console.print(session_table(report))
    if "timeline.json" not in report.files:
        return report.exit_code or 1
    conversation: dict[str, Any] = json.loads(report.files["timeline.json"])
    console.print(latency_table(conversation["turn_latencies"]))
    await asyncio.to_thread(draw_timeline, conversation, out / "timeline.png")
    console.print(
        f"recording: {out / 'conversation.wav'} (caller left, bot right)\n"
        f"picture:   {out / 'timeline.png'}",
        markup=False,
        highlight=False,
    )
    kinds = {event["kind"] for event in conversation["events"]}
    if not report.exit_code and not {"user_said", "bot_started"} <= kinds:
        console.print("error: the caller was not heard or not answered", style="red")
        return 1
    return report.exit_code


def _make_directory(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be a directory: {error.strerror}") from error


async def _on_cluster(examples: Path, preset: Preset, progress: Progress) -> SessionReport:
    """Submits the bot as a job to a cluster and follows it."""
    from antiphon_actors.cluster import ClusterSettings, join_cluster

    address = os.environ.get("RAY_ADDRESS")
    if address:
        progress.say(f"joining the Ray cluster at {address}")
        await look_for_cluster(address)
        async with await asyncio.to_thread(join_cluster, address) as cluster:
            renew_signal_handlers()
            return await _run_job(cluster, None, examples, preset, progress)
    progress.say("starting a Ray cluster on this machine")
    # Ray's API server leaves temporary files behind.
    with scratch_directory("antiphon-") as temporary_of_ray:
        settings = ClusterSettings(dashboard=True, environment={"TMPDIR": str(temporary_of_ray)})
        return await _on_own_cluster(settings, examples, preset, progress)


async def _on_own_cluster(
    settings: ClusterSettings, examples: Path, preset: Preset, progress: Progress
) -> SessionReport:
    from antiphon_actors.cluster import LocalCluster

    async with LocalCluster(settings) as own:
        renew_signal_handlers()
        # What the job writes goes with the cluster, even if all is killed.
        temporary = own.directory / "tmp"
        temporary.mkdir()
        return await _run_job(own, temporary, examples, preset, progress)


async def _run_job(
    cluster: Cluster, temporary: Path | None, examples: Path, preset: Preset, progress: Progress
) -> SessionReport:
    from antiphon_actors.jobs import JobSpec, submit

    name = f"antiphon-report-{uuid.uuid4().hex[:12]}"
    command = ["run", BOT, "--placement", preset, "--report-to", name]
    spec = JobSpec(
        # On a cluster of several machines this interpreter may not be where the job runs.
        entrypoint=["sh", "-c", _RUN_ANTIPHON, sys.executable, *command],
        working_dir=examples,
        environment={"TMPDIR": str(temporary)} if temporary is not None else {},
    )
    progress.say("submitting the bot as a job")
    submission = asyncio.create_task(submit(cluster, spec))
    report: SessionReport | None = None
    ended = False
    try:
        job = await asyncio.shield(submission)
        progress.say(f"job {job.submission_id} starts the bot's actors")
        report = await _follow(job, name, progress)
        ended = True
    finally:
        if temporary is not None:
            # A job on a cluster of our own ends with it.
            submission.cancel()
            await asyncio.wait([submission])
        elif not ended:
            await _stop_job(submission)
    if report is None:
        result = await job.wait(STOP_DEADLINE_SECS)
        raise SessionError(f"the job ended without a report: {result.status}: {result.message}")
    return report


async def _follow(job: Job, name: str, progress: Progress) -> SessionReport | None:
    """Shows what the job prints; returns its report when it has ended."""
    from antiphon_actors import mailbox

    report: SessionReport | None = None
    async for line in job.lines():
        progress.done()
        if line.strip() == mailbox.READY_MARK:
            report = await mailbox.take(name)
        else:
            print(line, flush=True)  # noqa: T201 - what the bot prints
    return report


async def _stop_job(submission: asyncio.Task[Job]) -> None:
    try:
        async with asyncio.timeout(STOP_DEADLINE_SECS):
            job = await submission
            await job.stop(STOP_DEADLINE_SECS)
    except (TimeoutError, AntiphonError) as error:
        logger.warning("the job may still be running", error=repr(error))
