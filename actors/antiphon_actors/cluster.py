"""Private and shared Ray clusters: start or join one, and leave nothing behind.

A private cluster belongs to one process. Its processes are children of a janitor (`_janitor.py`), a
9 MB process in a session of its own, which removes them and their directory as soon as the
owner closes its pipe, also when the owner is killed. So a Ctrl-C reaches the owner alone, and
no signal handler, exit handler or thread of the owner matters for what is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from loguru import logger

from antiphon_actors import ray_internal
from antiphon_actors.cluster_environment import (
    PatchedEnvironment,
    generate_token,
    python_path,
    ray_environment,
)
from antiphon_actors.cluster_support import (
    choose_directory,
    import_ray,
    in_thread,
    ray_directory,
    undisturbed,
    write_report,
)
from antiphon_actors.errors import ClusterError

_ABANDON_CHECK_SECS = 0.1
_RUN_HEAD = """
import sys
from antiphon_actors.ray_internal import run_head
run_head(sys.argv[1])
"""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How a private cluster is made.

    Attributes:
        num_cpus: CPUs Ray may hand out; None for those of the machine.
        resources: Custom resources of the node, and `num_gpus` if Ray shall take it for one with so many,
            whatever it has.
        further_nodes: The same of each further node. They are on this machine too, to try out
            what happens across nodes.
        dashboard: Run Ray's API server and its agent: jobs, the dashboard page and Ray's own metrics
            need them. Costs about 400 MB and seconds.
        object_store_bytes: Size of the shared-memory object store. Frames never use it.
        namespace: Ray namespace of the connection.
        temp_root: Where the cluster's directory is made; None for the system's.
        environment: Further environment variables for Ray's processes.
        start_deadline_secs: How long all of the start may take.
        stop_deadline_secs: How long the processes may take to go.
    """

    num_cpus: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    further_nodes: Sequence[Mapping[str, float]] = ()
    dashboard: bool = False
    object_store_bytes: int = 128 * 1024 * 1024
    namespace: str = "antiphon"
    temp_root: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    start_deadline_secs: float = 90.0
    stop_deadline_secs: float = 10.0


class Cluster(Protocol):
    """A cluster this process is connected to."""

    @property
    def address(self) -> str:
        """Address of the cluster's control service, host:port."""

    @property
    def dashboard_url(self) -> str | None:
        """Where jobs are submitted; None where there is no API server."""

    @property
    def token(self) -> str | None:
        """The cluster's authentication token; None where it has none that we know."""

    @property
    def log_directory(self) -> Path | None:
        """Where the cluster's processes log, if that is on this machine and known."""

    def shutdown(self) -> None:
        """Disconnects, and ends the cluster if it is this process's own; may be called again."""

    async def aclose(self) -> None:
        """Does `shutdown` without blocking the event loop; completes even if cancelled."""


class _ClusterBase(ABC):
    """Context management shared by both kinds of cluster."""

    @abstractmethod
    def shutdown(self) -> None:
        """Ends what this cluster stands for; see `Cluster`."""

    async def aclose(self) -> None:
        """Does `shutdown` without blocking the event loop; completes even if cancelled."""
        await in_thread(self.shutdown)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class LocalCluster(_ClusterBase):
    """A private cluster on the loopback address, ended with this object or this process.

    A context manager, plain or asynchronous. May be started in any thread.

    Args:
        settings: How to make it.

    Attributes:
        start_secs: How long the start took.
        stop_secs: How long the shutdown took.
    """

    def __init__(self, settings: ClusterSettings | None = None) -> None:
        self.settings = settings or ClusterSettings()
        self.start_secs = 0.0
        self.stop_secs = 0.0
        self._token = generate_token()
        self._directory: Path | None = None
        self._janitor: subprocess.Popen[bytes] | None = None
        self._leash: int | None = None
        self._facts: dict[str, Any] = {}
        self._environment: PatchedEnvironment | None = None
        self._connected = False
        self._lock = threading.Lock()
        self._abandoned = threading.Event()

    @property
    def address(self) -> str:
        """Address of the cluster's control service, host:port."""
        return str(self._fact("address"))

    @property
    def dashboard_url(self) -> str | None:
        """Where jobs are submitted; None without a dashboard."""
        address = self._fact("dashboard")
        return f"http://{address}" if address else None

    @property
    def token(self) -> str:
        """The cluster's authentication token."""
        return self._token

    @property
    def log_directory(self) -> Path:
        """Where the cluster's processes log, until the shutdown."""
        return Path(str(self._fact("logs")))

    @property
    def directory(self) -> Path:
        """The cluster's own directory (mode 0700, short enough for sockets), until the shutdown."""
        if self._directory is None:
            raise ClusterError("the cluster has not been started")
        return self._directory

    def __enter__(self) -> Self:
        self.start()
        return self

    async def __aenter__(self) -> Self:
        # A thread cannot be interrupted, so the start looks whether it is still wanted.
        try:
            await in_thread(self.start, self._abandoned.set)
        except BaseException:
            # It may have finished just then.
            await self.aclose()
            raise
        return self

    def start(self) -> None:
        """Starts the cluster and connects this process to it.

        Raises:
            ClusterError: It did not start: why, and a file with what its processes said. Nothing
                of it is left, as after an interruption of this call.
        """
        import_started = time.monotonic()
        if self._janitor is not None:
            raise ClusterError("the cluster has been started already")
        if _is_connected():
            raise ClusterError(
                "this process is connected to a Ray cluster already; disconnect it first"
            )
        try:
            self._launch()
            self._facts = self._await_head(import_started + self.settings.start_deadline_secs)
            self._connect()
        except BaseException:
            self.shutdown()
            raise
        self.start_secs = time.monotonic() - import_started
        logger.debug("ray cluster started", address=self.address, secs=round(self.start_secs, 2))

    def shutdown(self) -> None:
        """Disconnects and ends every process of the cluster; may be called again, by any thread."""
        with self._lock:
            started = time.monotonic()
            try:
                if self._connected:
                    self._disconnect()
            finally:
                # Whatever happens above, letting go of the leash ends the cluster.
                self._let_go()
            if self._janitor is not None and self._janitor.returncode is None:
                self._await_end()
                self.stop_secs = time.monotonic() - started
                logger.debug("ray cluster stopped", secs=round(self.stop_secs, 2))

    def _launch(self) -> None:
        settings = self.settings
        # `_janitor.py` makes the directory, so that none exists before somebody is there to
        # remove it.
        self._directory = choose_directory(settings.temp_root)
        several = bool(settings.further_nodes)
        variables = ray_environment(self._token, several_nodes=several)
        environment = {**os.environ, **variables, **settings.environment}
        environment["PYTHONPATH"] = python_path(environment)
        # Ray's processes must not believe that they belong to another cluster.
        environment.pop("RAY_ADDRESS", None)
        head = {
            "directory": str(ray_directory(self._directory)),
            "fork_directory": str(self._directory),
            "num_cpus": settings.num_cpus,
            "resources": dict(settings.resources),
            "further_nodes": [dict(resources) for resources in settings.further_nodes],
            "object_store_bytes": settings.object_store_bytes,
            "dashboard": settings.dashboard,
        }
        config = {
            "directory": str(self._directory),
            "command": [
                sys.executable,
                "-P",
                "-c",
                _RUN_HEAD,
                json.dumps(head),
            ],
        }
        leash, self._leash = os.pipe()
        try:
            self._janitor = subprocess.Popen(  # noqa: S603 - our own script
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(Path(__file__).with_name("_janitor.py")),
                    json.dumps(config),
                ],
                stdin=leash,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(leash)
        self._environment = PatchedEnvironment(variables).__enter__()
        os.environ.pop("RAY_ADDRESS", None)

    def _await_head(self, deadline: float) -> dict[str, Any]:
        # The import takes a second, in which the head starts anyway.
        import_ray()
        ray_internal.bind_to_loopback()
        ray_internal.log_raylet_messages()
        ray_internal.reload_authentication()
        assert self._janitor is not None
        assert self._janitor.stdout is not None
        output = self._janitor.stdout.fileno()
        received = b""
        while b"\n" not in received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._failure(
                    f"it was not ready after {self.settings.start_deadline_secs:g} s"
                )
            if self._abandoned.is_set():
                raise ClusterError("the start of the cluster was abandoned")
            if not select.select([output], [], [], min(left, _ABANDON_CHECK_SECS))[0]:
                continue
            chunk = os.read(output, 65536)
            if not chunk:
                raise self._failure("its janitor ended unexpectedly")
            received += chunk
        facts: dict[str, Any] = json.loads(received.partition(b"\n")[0])
        if "error" in facts:
            raise self._failure(str(facts["error"]))
        return facts

    def _connect(self) -> None:
        import ray

        # Set first: an interrupted connection is taken down like a finished one.
        self._connected = True
        try:
            with undisturbed():
                ray.init(
                    address=self.address,
                    namespace=self.settings.namespace,
                    log_to_driver=False,
                    configure_logging=False,
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise self._failure(f"connecting to it failed: {error}") from error

    def _disconnect(self) -> None:
        import ray

        self._connected = False
        with contextlib.suppress(ConnectionError, RuntimeError):
            ray.shutdown()

    def _let_go(self) -> None:
        leash, self._leash = self._leash, None
        if leash is not None:
            os.close(leash)
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.restore()
            ray_internal.reload_authentication()

    def _await_end(self) -> None:
        assert self._janitor is not None
        assert self._janitor.stdout is not None
        try:
            status = self._janitor.wait(self.settings.stop_deadline_secs)
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"the processes below process {self._janitor.pid} did not end within"
                f" {self.settings.stop_deadline_secs:g} s"
            ) from None
        finally:
            self._janitor.stdout.close()
        if status != 0:
            raise ClusterError(
                f"the cluster was not removed completely (status {status}); look at"
                f" {self._directory} and at processes that mention it"
            )

    def _failure(self, what: str) -> ClusterError:
        report, last_lines = write_report(self.directory, what)
        message = f"the Ray cluster did not start: {what}"
        if last_lines:
            message += "\n" + "\n".join(f"  {line}" for line in last_lines)
        if report is not None:
            message += f"\nAll of its logs: {report}"
        return ClusterError(message, log_path=report)

    def _fact(self, name: str) -> object:
        if not self._facts:
            raise ClusterError("the cluster has not been started")
        return self._facts[name]


class JoinedCluster(_ClusterBase):
    """A connection to a cluster that somebody else runs; leaves it alone at the end.

    Made by `join_cluster`. Where the process was connected already (inside an actor, or by
    the program itself), that connection is used and kept.
    """

    def __init__(self, address: str, dashboard_url: str | None, *, own_connection: bool) -> None:
        self._address = address
        self._dashboard_url = dashboard_url
        self._own_connection = own_connection

    @property
    def address(self) -> str:
        """Address of the cluster's control service, host:port."""
        return self._address

    @property
    def dashboard_url(self) -> str | None:
        """Where jobs are submitted; None where there is no API server."""
        return self._dashboard_url

    @property
    def token(self) -> str | None:
        """The token this process presents; None where Ray reads one from a file or needs none."""
        return os.environ.get("RAY_AUTH_TOKEN")

    @property
    def log_directory(self) -> Path | None:
        """Unknown for a cluster of somebody else."""
        return None

    def __enter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    def shutdown(self) -> None:
        """Disconnects this process; the cluster goes on."""
        own, self._own_connection = self._own_connection, False
        if own:
            import ray

            ray.shutdown()


def start_local_cluster(settings: ClusterSettings | None = None) -> LocalCluster:
    """Starts a private cluster; the result is a context manager that ends it.

    Raises:
        ClusterError: It did not start; nothing of it is left.
    """
    cluster = LocalCluster(settings)
    cluster.start()
    return cluster


def join_cluster(address: str | None = None, *, namespace: str = "antiphon") -> JoinedCluster:
    """Connects this process to a running cluster.

    Args:
        address: host:port of its control service; None for RAY_ADDRESS, and without that for a
            cluster on this machine.
        namespace: Ray namespace of the connection.

    Raises:
        ClusterError: There is no such cluster, or it refuses our token.
    """
    import ray

    own = not _is_connected()
    if own:
        ray_internal.log_raylet_messages()
        try:
            with undisturbed():
                ray.init(
                    address=address or os.environ.get("RAY_ADDRESS") or "auto",
                    namespace=namespace,
                    log_to_driver=False,
                    configure_logging=False,
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            ray.shutdown()
            raise ClusterError(
                f"cannot join the Ray cluster at {address or 'RAY_ADDRESS'}: {error}. Is it"
                " running, and are RAY_AUTH_MODE and its token those of the cluster?"
            ) from error
    dashboard = ray_internal.dashboard_address()
    return JoinedCluster(
        ray.get_runtime_context().gcs_address,
        f"http://{dashboard}" if dashboard else None,
        own_connection=own,
    )


def _is_connected() -> bool:
    # Not imported means not connected, and the import takes a second.
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
