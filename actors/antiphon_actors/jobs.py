"""Runs the command line as a Ray job and follows it.

Ray's submission client blocks, so it is called in threads. Its log following is a
second late (the server polls), so a log file of this machine is read directly.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import re
import shlex
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from antiphon_actors.cluster import Cluster
from antiphon_actors.errors import JobError

T = TypeVar("T")

# What Ray itself writes into a job's log.
_OF_RAY = re.compile(
    r"\d{4}-\d\d-\d\d [\d:,]+\tINFO job_manager\.py:\d+ -- |Running entrypoint for job antiphon-"
)

_FILE_POLL_SECS = 0.02
_STATUS_POLL_SECS = 0.25
_AGENT_POLL_SECS = 0.5
_NO_AGENT_YET = "No available agent"
# What the log may still receive after Ray has announced the end.
_LOG_GRACE_SECS = 0.1
_MAX_LINE_BYTES = 64 * 1024

Status = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended, or how it is.

    Attributes:
        status: As Ray names it; the last three are final.
        exit_code: Of the entrypoint; None while it runs or where Ray does not know.
        message: Ray's explanation.
    """

    status: Status
    exit_code: int | None
    message: str

    @property
    def final(self) -> bool:
        """Whether the job is over."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run.

    Attributes:
        entrypoint: The command, one argument an item; quoted for the shell Ray runs it in.
        working_dir: Directory to upload and run in (at most 100 MB by Ray's default); None for none.
        environment: Environment variables of the job and its actors. Shown by Ray to everyone who may
            list jobs: no place for secrets on a shared cluster.
        excludes: Patterns of files not to upload.
        metadata: Shown beside the job.
    """

    entrypoint: Sequence[str]
    working_dir: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    excludes: Sequence[str] = (".git", ".venv", "__pycache__", "*.pyc")
    metadata: Mapping[str, str] = field(default_factory=dict)


class Job:
    """A submitted job."""

    def __init__(self, client: Any, submission_id: str, log_file: Path | None) -> None:
        self._client = client
        self._log_file = log_file
        self.submission_id = submission_id

    async def result(self) -> JobResult:
        """Returns how the job is now.

        Raises:
            JobError: The cluster cannot be asked, or does not know the job.
        """
        info = await _call(
            f"asking for job {self.submission_id}", self._client.get_job_info, self.submission_id
        )
        status: Any = str(info.status)
        code = getattr(info, "driver_exit_code", None)
        if code is None and status == "SUCCEEDED":
            code = 0
        return JobResult(status, code, info.message or "")

    async def wait(self, deadline_secs: float | None = None) -> JobResult:
        """Waits for the end and returns it.

        Args:
            deadline_secs: After that the present state is returned; None waits as long as it runs.

        Raises:
            JobError: As `result`.
        """
        until = None if deadline_secs is None else time.monotonic() + deadline_secs
        while True:
            result = await self.result()
            if result.final or (until is not None and time.monotonic() >= until):
                return result
            await asyncio.sleep(_STATUS_POLL_SECS)

    async def lines(self) -> AsyncIterator[str]:
        """Follows what the job prints (both streams), without line ends, until it is over.

        Lines that Ray itself adds are left out.

        Raises:
            JobError: The connection was lost; the job goes on.
        """
        pieces = self._file_pieces() if self._log_file is not None else self._socket_pieces()
        rest = ""
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                *complete, rest = (rest + piece).split("\n")
                for line in complete:
                    if not _OF_RAY.match(line):
                        yield line.removesuffix("\r")
                if len(rest) > _MAX_LINE_BYTES:
                    yield rest
                    rest = ""
        if rest:
            yield rest

    async def stop(self, deadline_secs: float = 10.0) -> JobResult:
        """Asks the job to stop (SIGTERM, after some seconds SIGKILL) and waits for its end.

        Raises:
            JobError: The cluster cannot be asked.
        """
        await _call(f"stopping job {self.submission_id}", self._client.stop_job, self.submission_id)
        return await self.wait(deadline_secs)

    async def _socket_pieces(self) -> AsyncGenerator[str, None]:
        try:
            async for piece in self._client.tail_job_logs(self.submission_id):
                yield piece
        except (RuntimeError, OSError) as error:
            raise _translated(f"following job {self.submission_id}", error) from error

    async def _file_pieces(self) -> AsyncGenerator[str, None]:
        assert self._log_file is not None
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        ended = asyncio.create_task(self._ended())
        position = 0
        try:
            while True:
                over = ended.done()
                chunk = _read_from(self._log_file, position)
                if chunk:
                    position += len(chunk)
                    yield decoder.decode(chunk)
                elif over:
                    ended.result()
                    return
                else:
                    await asyncio.wait([ended], timeout=_FILE_POLL_SECS)
        finally:
            ended.cancel()
            await asyncio.wait([ended])

    async def _ended(self) -> None:
        await self.wait()
        await asyncio.sleep(_LOG_GRACE_SECS)


async def submit(cluster: Cluster, spec: JobSpec, *, deadline_secs: float = 60.0) -> Job:
    """Submits a job.

    Args:
        cluster: Where; one with a dashboard.
        spec: What.
        deadline_secs: How long the submission with its upload may take.

    Raises:
        JobError: There is no API server, it refused, or it was too slow.
    """
    runtime_env: dict[str, Any] = {}
    if spec.environment:
        runtime_env["env_vars"] = dict(spec.environment)
    if spec.working_dir is not None:
        runtime_env["working_dir"] = str(spec.working_dir)
        runtime_env["excludes"] = list(spec.excludes)
    submission_id = f"antiphon-{uuid.uuid4().hex[:12]}"

    until = time.monotonic() + deadline_secs

    def work() -> Any:
        client = _client(cluster)
        while True:
            try:
                client.submit_job(
                    entrypoint=shlex.join(spec.entrypoint),
                    submission_id=submission_id,
                    runtime_env=runtime_env,
                    metadata=dict(spec.metadata),
                )
            except RuntimeError as error:
                # The node's agent starts after the API server, on a busy machine seconds later.
                if _NO_AGENT_YET not in str(error) or time.monotonic() >= until:
                    raise
                time.sleep(_AGENT_POLL_SECS)
            else:
                return client

    try:
        client = await asyncio.wait_for(_call("submitting the job", work), deadline_secs)
    except TimeoutError:
        raise JobError(
            f"the job was not submitted within {deadline_secs:g} s", retryable=True
        ) from None
    return Job(client, submission_id, _log_file(cluster, submission_id))


def find(cluster: Cluster, submission_id: str) -> Job:
    """Returns a job that was submitted before; asks nobody whether it exists.

    Blocks while it connects to the API server.

    Raises:
        JobError: There is no API server.
    """
    try:
        client = _client(cluster)
    except (RuntimeError, OSError, ValueError) as error:
        raise _translated("connecting to the API server", error) from error
    return Job(client, submission_id, _log_file(cluster, submission_id))


def _client(cluster: Cluster) -> Any:
    if cluster.dashboard_url is None:
        raise JobError(
            "this cluster has no API server, which job submission needs; start it with a dashboard"
        )
    from ray.job_submission import JobSubmissionClient

    headers = {"Authorization": f"Bearer {cluster.token}"} if cluster.token else None
    return JobSubmissionClient(cluster.dashboard_url, headers=headers)


def _log_file(cluster: Cluster, submission_id: str) -> Path | None:
    logs = cluster.log_directory
    return logs / f"job-driver-{submission_id}.log" if logs is not None else None


async def _call(what: str, function: Callable[..., T], *arguments: object) -> T:
    try:
        return await asyncio.to_thread(function, *arguments)
    except (RuntimeError, OSError, ValueError) as error:
        raise _translated(what, error) from error


def _translated(what: str, error: Exception) -> JobError:
    # The client raises RuntimeError for every refusal, requests' errors are OSErrors.
    lines = str(error).strip().splitlines()
    detail = lines[-1] if lines else type(error).__name__
    retryable = isinstance(error, (OSError, ConnectionError))
    return JobError(f"{what} failed: {detail}", retryable=retryable)


def _read_from(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(_MAX_LINE_BYTES)
    except FileNotFoundError:
        # Ray creates it when the job's driver starts.
        return b""
