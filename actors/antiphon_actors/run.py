"""Runs one session of a bot, on a cluster or in this process, and reports on it."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.errors import SessionError
from antiphon.pipeline.executor import use_executor
from antiphon.runner.types import RunnerArguments
from antiphon_actors.bot_program import BotError, BotFile, load_bot, run_bot
from antiphon_actors.interruption import renew_signal_handlers, scratch_directory
from antiphon_actors.placement.policy import Placement
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.progress import Progress
from antiphon_actors.report import SessionReport, output_directory
from antiphon_actors.session import console
from antiphon_actors.session.home import RecordingExecutor, SessionRecord

if TYPE_CHECKING:
    from antiphon_actors.agent_types import NetworkSettings
    from antiphon_actors.models.settings import ModelSettings

SETUP_DEADLINE_SECS = 60.0
LOOK_DEADLINE_SECS = 5.0
# Together with the end of the cluster (0.3 s) they stay below the 5 s an interrupted command has.
CANCEL_DEADLINE_SECS = 2.2
AGENT_DEADLINE_SECS = 1.0
# A socket's path has at most 107 bytes, of which our directory and the socket take 45.
_MAX_TEMPORARY_LENGTH = 60


@dataclass(frozen=True)
class RunOptions:
    """How to run a session.

    Attributes:
        bot_file: The bot.
        placement: How its processors are placed; None for what the bot file says, else pooled.
        body: ``runner_args.body``.
        collect: Whether the bot gets a directory whose files the report brings back.
        address: A running cluster to join; None for a private one on this machine.
        log_level: Logs below it are not shown.
        on_failure: Told what goes wrong in the session, as it happens; the report has it too.
        across_nodes: Whether processors may run on other nodes than the bot; None if they may where
            the cluster has several.
        models: How models that sessions share run; None for what is usual.
    """

    bot_file: BotFile
    placement: Placement | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    collect: bool = False
    address: str | None = None
    log_level: str = "WARNING"
    on_failure: Callable[[str], None] | None = None
    across_nodes: bool | None = None
    models: ModelSettings | None = None


async def run_here(options: RunOptions) -> SessionReport:
    """Runs a session in this process, without Ray."""
    console.configure_logging(options.log_level)
    session_id = new_session_id()
    record = SessionRecord(on_failure=options.on_failure)
    code = 1
    here = f"this process, pid {os.getpid()}"
    files: dict[str, bytes] = {}
    try:
        module = load_bot(options.bot_file)
        with (
            use_executor(lambda: RecordingExecutor(record, here=here)),
            logger.contextualize(session_id=session_id),
            output_directory(options.body, files, collect=options.collect) as body,
        ):
            arguments = RunnerArguments(body=body, session_id=session_id)
            code = await run_bot(module, options.bot_file, arguments)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # A pipeline that is cancelled ends normally; what called this must not.
            raise asyncio.CancelledError
    except BotError as error:
        record.fail(str(error))
    return SessionReport(
        session_id,
        code or int(bool(record.failures)),
        record.failures,
        record.processors,
        files,
        record.conversations(),
    )


async def run_on_cluster(
    options: RunOptions, progress: Progress, *, report_to: str | None = None
) -> SessionReport:
    """Runs a session on a cluster: its bot in a supervisor actor, its processors in actors.

    What the bot prints appears here. Whatever happens, none of the session's actors outlives the
    call, nor does a private cluster.

    Args:
        options: What to run.
        progress: Shows what takes long.
        report_to: Name under which the report is offered to whoever submitted this as a job.

    Raises:
        AntiphonError: If the cluster or the session's actors cannot be had.
    """
    async with connected(options.address, progress) as directory:
        # Its one session takes the only supervisor.
        pools = PoolSettings(reserve=3, supervisor_reserve=0)
        async with own_agent(
            directory, progress, pools, across_nodes=options.across_nodes, models=options.models
        ) as agent:
            report = await _session(options, agent, progress)
        if report_to is not None:
            from antiphon_actors.mailbox import offer

            if not await offer(report_to, report):
                logger.warning("nobody took the report", name=report_to)
        return report


@asynccontextmanager
async def connected(address: str | None, progress: Progress) -> AsyncIterator[Path | None]:
    """A connection to a cluster; yields the directory of a private one.

    Args:
        address: Of a running one; None for a private one, which ends with the block.
        progress: Shows what takes long.
    """
    from antiphon_actors.cluster import LocalCluster, join_cluster

    async with AsyncExitStack() as stack:
        if address:
            progress.say(f"joining the Ray cluster at {address}")
            await look_for_cluster(address)
            await stack.enter_async_context(await asyncio.to_thread(join_cluster, address))
            renew_signal_handlers()
            yield None
        else:
            progress.say("starting a Ray cluster on this machine")
            own = await stack.enter_async_context(LocalCluster())
            renew_signal_handlers()
            yield own.directory


async def look_for_cluster(address: str) -> None:
    """Finds out quickly whether anybody answers at an address; Ray takes more than a minute.

    Raises:
        ClusterError: If nobody does.
    """
    from antiphon_actors.errors import ClusterError

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a form only Ray knows
    try:
        async with asyncio.timeout(LOOK_DEADLINE_SECS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.close()
    except (OSError, TimeoutError, OverflowError) as error:
        raise ClusterError(
            f"nobody answers at RAY_ADDRESS={address} ({error or 'no answer in time'}): start that "
            "cluster, or unset RAY_ADDRESS to use a private one"
        ) from error


@asynccontextmanager
async def own_agent(
    directory: Path | None,
    progress: Progress,
    pools: PoolSettings,
    *,
    across_nodes: bool | None,
    models: ModelSettings | None,
) -> AsyncIterator[Any]:
    """The agent of this node, which ends with the block, and all of its actors.

    Args:
        directory: Of a private cluster; None for one that was joined.
        progress: Shows what takes long.
        pools: Its rules of capacity.
        across_nodes: See `RunOptions`, as for `models`.
        models: As there.

    Raises:
        SessionError: It does not start in time.
    """
    from antiphon_actors.agent_client import end_agent
    from antiphon_actors.agent_types import AgentSettings
    from antiphon_actors.agents import create_agent
    from antiphon_actors.models.settings import ModelSettings

    progress.say("starting actors")
    # Inside the directory of a private cluster it goes with it, even if this process is killed.
    with scratch_directory("antiphon-", directory or _directory_for_sockets()) as hub_dir:
        settings = AgentSettings(
            hub_dir=str(hub_dir),
            pools=pools,
            network=_network(directory, across_nodes),
            models=models or ModelSettings(),
        )
        agent = create_agent(settings)
        try:
            async with asyncio.timeout(SETUP_DEADLINE_SECS):
                await agent.start.remote()
            yield agent
        except TimeoutError as error:
            raise SessionError(
                f"the node agent did not start within {SETUP_DEADLINE_SECS:.0f} s"
            ) from error
        finally:
            await end_agent(agent, AGENT_DEADLINE_SECS)


def _network(directory: Path | None, across_nodes: bool | None) -> NetworkSettings | None:
    """How the session may use other nodes than this; None if it may not."""
    from antiphon_actors.agent_types import NetworkSettings
    from antiphon_actors.neighbours import living_nodes

    if across_nodes is None:
        across_nodes = len(living_nodes()) > 1
    if not across_nodes:
        return None
    return NetworkSettings(
        cluster=f"antiphon-{secrets.token_hex(8)}",
        authority_dir=directory / "authority" if directory is not None else None,
        scratch_dir=directory,
    )


def _directory_for_sockets() -> Path | None:
    """None for the system's temporary directory, unless its path is too long."""
    if len(tempfile.gettempdir()) <= _MAX_TEMPORARY_LENGTH:
        return None
    return Path("/tmp")  # noqa: S108 - a directory of our own is made in it


async def _session(options: RunOptions, agent: Any, progress: Progress) -> SessionReport:
    import ray

    from antiphon_actors.errors import reason_of
    from antiphon_actors.supervisor import SessionSpec

    session_id = new_session_id()
    spec = SessionSpec(
        session_id=session_id,
        bot_file=options.bot_file,
        placement=options.placement,
        body=options.body,
        collect=options.collect,
        log_level=options.log_level,
        directory=await asyncio.to_thread(Path.cwd),
    )
    try:
        lease = await agent.start_supervisor.remote(session_id, mode="dedicated")
        stream = lease.handle.run_session.options(num_returns="streaming").remote(spec)
        ending = asyncio.Event()
        following = asyncio.create_task(_follow(stream, options, progress, ending))
        try:
            # Not cancelled with this: what the bot says at its end is still shown.
            report = await asyncio.shield(following)
        finally:
            if not following.done():
                ending.set()
                await _cancel(lease.handle, session_id, following)
    except ray.exceptions.RayTaskError as error:
        raise SessionError(f"the session could not run: {error.cause}") from error
    except ray.exceptions.RayError as error:
        raise SessionError(
            "the bot's process ended unexpectedly (killed, out of memory, or crashed in native code): "
            f"{reason_of(error).rpartition('Worker exit detail: ')[2]}"
        ) from error
    if report is None:
        raise SessionError("the session ended without a report")
    return report


async def _follow(
    stream: Any, options: RunOptions, progress: Progress, ending: asyncio.Event
) -> SessionReport | None:
    """Shows what a session has to say, and returns its report.

    What fails after it has been told to end is no news.
    """
    from antiphon_actors.supervisor import Failure, Output

    async for reference in stream:
        item = await reference
        progress.done()
        if isinstance(item, Output):
            item.show()
        elif isinstance(item, Failure):
            if options.on_failure is not None and not ending.is_set():
                options.on_failure(item.text)
        elif isinstance(item, SessionReport):
            return item
    return None


async def _cancel(supervisor: Any, session_id: str, following: asyncio.Task[Any]) -> None:
    """Ends a session before its time, and what follows it."""
    cancelled = supervisor.cancel_session.remote(session_id)
    try:
        async with asyncio.timeout(CANCEL_DEADLINE_SECS):
            await asyncio.wait([following])
            await cancelled
    except Exception as error:  # noqa: BLE001 - the session's actors are killed next, whatever this is
        logger.debug("session did not end in time", session_id=session_id, error=repr(error))
    finally:
        following.cancel()
        await asyncio.wait([following])


def new_session_id() -> str:
    """A name for a session."""
    return f"session-{uuid.uuid4().hex[:12]}"
