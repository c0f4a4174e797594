"""Everything Antiphon uses of Ray that Ray does not promise to keep.

No other module may touch a private name of Ray. Each function here has a fallback that costs time or
comfort but not correctness, and a contract test (tests/ray/test_ray_internal.py) that notices when
a Ray release changes what lies below.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, Self

from loguru import logger

from antiphon_actors import _on_demand, _worker

LOOPBACK = "127.0.0.1"

# Ray imports these on a worker's first (de)serialisation, which costs 200 ms at the worst moment
# (ray.util.serialization_addons.apply). Workers import them before they are needed; so does a driver.
LAZY_IMPORTS_OF_RAY = (
    "ray._common.pydantic_compat",
    "pydantic.fields",
    "pydantic.v1",
    "pydantic.v1.fields",
    "starlette.datastructures",
    "ray._private.arrow_serialization",
)

_DASHBOARD_AGENTS_PORTS = (
    "METRICS_AGENT_PORT_NAME",
    "METRICS_EXPORT_PORT_NAME",
    "DASHBOARD_AGENT_LISTEN_PORT_NAME",
)

SignalHandler = Callable[[int, FrameType | None], object]

# Raised where a private name is gone or has another shape.
_CHANGED = (ImportError, AttributeError, TypeError, ValueError, KeyError)


def _private(module: str) -> Any:
    """Imports a module of Ray that has no types, or none we may rely on."""
    return importlib.import_module(module)


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where the raylet of a node listens.

    Attributes:
        node_id: Ray's id of the node, hexadecimal.
        host: Its address.
        port: Its node manager port.
    """

    node_id: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ActorChange:
    """A change of an actor's state, as Ray's control service announces it.

    Attributes:
        actor_id: Hexadecimal.
        state: "alive", "restarting" or "dead".
        pid: Process of the actor, 0 when it has none.
        reason: What Ray says about it; empty unless dead.
    """

    actor_id: str
    state: Literal["alive", "restarting", "dead"]
    pid: int
    reason: str


def bind_to_loopback() -> None:
    """Makes an already imported Ray use the loopback address for clusters of this machine.

    Ray reads RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER when it is imported; that is too early if the
    program imported Ray before it started a cluster. Without effect when Ray has changed: then
    Ray must be imported after the cluster's environment is set.
    """
    constants: Any = sys.modules.get("ray._private.ray_constants")
    if constants is not None and hasattr(constants, "ENABLE_RAY_CLUSTER"):
        constants.ENABLE_RAY_CLUSTER = False


def log_raylet_messages() -> None:
    """Sends what Ray prints into a driver's terminal (a worker died, many are starting) to the log.

    Without effect when Ray has changed: the text then goes to standard output as before.
    """

    def write(data: Mapping[str, Any], *unused: Any, **options: Any) -> None:
        logger.debug("ray reports", text=" ".join(str(line) for line in data.get("lines", ())))

    worker: Any = sys.modules.get("ray._private.worker")
    if worker is not None and hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = write


def when_worker_handles_sigterm(then: Callable[[SignalHandler], None]) -> None:
    """Has something done after a worker process has set Ray's handler of SIGTERM.

    Args:
        then: Called in the main thread, with that handler.

    Without effect when Ray has changed, and in a process that is no worker.
    """
    utilities: Any = sys.modules.get("ray._private.utils")
    if utilities is None or not hasattr(utilities, "set_sigterm_handler"):
        return
    set_handler = utilities.set_sigterm_handler

    def set_and_tell(handler: SignalHandler) -> None:
        set_handler(handler)
        worker = _private("ray._private.worker")
        if worker.global_worker.mode == worker.WORKER_MODE:
            then(handler)

    utilities.set_sigterm_handler = set_and_tell


def reload_authentication() -> None:
    """Makes an already loaded Ray read RAY_AUTH_MODE and RAY_AUTH_TOKEN again.

    Ray caches both at first use, so a second cluster in one process would be called with the token
    of the first. Where Ray has changed, only the first cluster of a process can be reached.
    """
    if "ray" not in sys.modules:
        return
    try:
        raylet = _private("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
    except _CHANGED as error:
        logger.debug("ray authentication cannot be reloaded", error=str(error))


def actor_id_of(handle: Any) -> str:
    """Returns the hexadecimal id of the actor behind a handle; "" where Ray no longer tells."""
    try:
        return str(handle._actor_id.hex())
    except _CHANGED:
        return ""


def node_address(node_id: str) -> NodeAddress | None:
    """Returns where the raylet of a living node listens; None for an unknown or dead node."""
    for node in _private("ray").nodes():
        if node.get("NodeID") == node_id and node.get("Alive"):
            try:
                return NodeAddress(
                    node_id=node_id,
                    host=str(node["NodeManagerAddress"]),
                    port=int(node["NodeManagerPort"]),
                )
            except _CHANGED:
                return None
    return None


def _raylet_channel(address: str) -> Any:
    """Opens an asynchronous gRPC channel with the cluster's TLS and token settings."""
    try:
        return _private("ray._private.grpc_utils").init_grpc_channel(address, asynchronous=True)
    except _CHANGED:
        import grpc.aio

        return grpc.aio.insecure_channel(address)


class WorkerPrestarter:
    """Keeps blank workers started on this process's node.

    An actor that finds a blank worker starts in about 10 ms instead of 1 s. Asks the raylet
    directly (`NodeManagerService.PrestartWorkers`), which Ray has no public call for. Where
    that fails `start` returns False from then on, and actors start cold.

    Args:
        keep_alive_secs: How long an unused worker is protected from Ray's idle killer.
    """

    def __init__(self, *, keep_alive_secs: int = 600) -> None:
        self._keep_alive_secs = keep_alive_secs
        self._channel: Any = None
        self._stub: Any = None
        self._refused = ""

    @property
    def refused(self) -> str:
        """Why workers cannot be prestarted; empty while they can."""
        return self._refused

    async def start(self, count: int, *, deadline_secs: float = 5.0) -> bool:
        """Asks for `count` more workers that match this process's job and runtime environment.

        The raylet starts at most as many at once as the machine has CPUs and drops the rest
        silently, so a caller asks again. Returns when the raylet has taken the request, before the
        workers run.

        Returns:
            Whether the raylet took the request.
        """
        if self._refused:
            return False
        import grpc

        try:
            request = _private("ray.core.generated.node_manager_pb2").PrestartWorkersRequest(
                language=_private("ray.core.generated.common_pb2").PYTHON,
                num_workers=count,
                keep_alive_duration_secs=self._keep_alive_secs,
            )
            self._match_job(request)
            if self._stub is None and not self._connect():
                return False
            await self._stub.PrestartWorkers(
                request, timeout=deadline_secs, metadata=_token_metadata()
            )
        except _CHANGED as error:
            self._give_up(f"{type(error).__name__}: {error}")
            return False
        except grpc.RpcError as error:
            code = error.code()
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED):
                self._give_up(str(code))
            else:
                logger.debug("workers not prestarted", error=str(code))
            return False
        return True

    async def aclose(self) -> None:
        """Closes the connection to the raylet."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()

    def _connect(self) -> bool:
        import ray

        address = node_address(ray.get_runtime_context().get_node_id())
        if address is None:
            return False
        self._channel = _raylet_channel(f"{address.host}:{address.port}")
        service = _private("ray.core.generated.node_manager_pb2_grpc")
        self._stub = service.NodeManagerServiceStub(self._channel)
        return True

    def _match_job(self, request: Any) -> None:
        """A worker serves an actor only if their runtime environments are equal."""
        import ray

        worker = _private("ray._private.worker").global_worker
        info = worker.core_worker.get_job_config().runtime_env_info
        if info.serialized_runtime_env not in ("", "{}"):
            request.runtime_env_info.CopyFrom(info)
            request.job_id = bytes.fromhex(ray.get_runtime_context().get_job_id())

    def _give_up(self, reason: str) -> None:
        self._refused = reason
        logger.warning("workers cannot be prestarted; actors will start cold", error=reason)


def _token_metadata() -> list[tuple[str, str]] | None:
    """The authorization of a raw call; None where the channel's own interceptors add it."""
    try:
        import ray._private.grpc_utils  # noqa: F401 - its presence is the question
    except ImportError:
        token = os.environ.get("RAY_AUTH_TOKEN")
        return [("authorization", f"Bearer {token}")] if token else None
    return None


class ActorWatch:
    """Announces changes of every actor of the cluster, within about 10 ms of the event.

    For an owner of actors a pending call is the better watch (it is public and does not grow with the
    cluster); this one is for those that watch actors of others. An async context manager; iterate
    it for the changes. A cancelled iteration loses nothing that was not yet returned.

    Raises:
        RuntimeError: On entering, where Ray no longer offers the subscription: use calls
            to the actors then.
    """

    _STATES: Mapping[int, Literal["alive", "restarting", "dead"]] = {
        2: "alive",
        3: "restarting",
        4: "dead",
    }

    def __init__(self) -> None:
        self._subscriber: Any = None

    async def __aenter__(self) -> Self:
        try:
            import ray

            subscriber = _private("ray._private.gcs_pubsub").GcsAioActorSubscriber
            self._subscriber = subscriber(address=ray.get_runtime_context().gcs_address)
            await self._subscriber.subscribe()
        except _CHANGED as error:
            raise RuntimeError(f"this Ray has no subscription to actor states: {error}") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._subscriber.close()

    def __aiter__(self) -> AsyncIterator[ActorChange]:
        return self._changes()

    async def _changes(self) -> AsyncIterator[ActorChange]:
        while True:
            # The timeout bounds how long a lost reply can go unnoticed; polls follow one another.
            for key, message in await self._subscriber.poll(batch_size=100, timeout=30.0):
                state = self._STATES.get(int(message.state))
                if state is not None:
                    yield ActorChange(
                        actor_id=bytes(key).hex(),
                        state=state,
                        pid=int(message.pid),
                        reason=_death_reason(message) if state == "dead" else "",
                    )


def _death_reason(message: Any) -> str:
    cause = message.death_cause
    which = cause.WhichOneof("context")
    if which is None:
        return "unknown"
    detail = getattr(cause, which)
    text = getattr(detail, "error_message", "") or getattr(detail, "preemption_message", "")
    return str(text or which).splitlines()[0]


def draining_nodes() -> dict[str, int]:
    """Returns the nodes that are going away: node id to deadline (Unix time, ms; 0 for none).

    Empty where Ray no longer tells; the loss of such a node is then noticed when it is gone.
    """
    try:
        return dict(_private("ray._private.state").state.get_draining_nodes())
    except _CHANGED as error:
        logger.debug("draining nodes are unknown", error=str(error))
        return {}


def dashboard_address() -> str | None:
    """Returns host:port of the API server of the connected cluster; None if it has none."""
    try:
        url = str(_private("ray._private.worker").global_worker.node.webui_url or "")
    except _CHANGED as error:
        logger.debug("the dashboard's address is unknown", error=str(error))
        return None
    return url.partition("://")[2] or url or None


# --- the cluster's own store ----------------------------------------------------------------------


class ClusterKeys:
    """Keys and values in the store of Ray's control service, which the whole cluster sees.

    All calls may be made at once, and raise a RayError where the service does not answer within the
    deadline; then the change may or may not have been made. They raise a RuntimeError where this process is
    connected to no cluster, or Ray no longer offers the store. Ray's public functions for this block: they run
    in threads where their asynchronous counterparts have changed.

    Args:
        namespace: Keys of other namespaces are others.
        deadline_secs: How long a call may take.
    """

    def __init__(self, namespace: str, *, deadline_secs: float = 5.0) -> None:
        self._namespace = namespace.encode()
        self._deadline_secs = deadline_secs

    async def put(self, key: str, value: bytes) -> None:
        """Sets the value of a key."""
        await self._call("put", key.encode(), value, True)

    async def get(self, key: str) -> bytes | None:
        """The value of a key; None if there is none."""
        value = await self._call("get", key.encode())
        return None if value is None else bytes(value)

    async def delete(self, key: str) -> None:
        """Removes a key, if it is there."""
        await self._call("del", key.encode(), False)

    async def list(self, prefix: str = "") -> Sequence[str]:
        """The keys that begin with a text."""
        return [bytes(key).decode() for key in await self._call("keys", prefix.encode())]

    async def _call(self, name: str, *arguments: Any) -> Any:
        try:
            client = _private("ray._private.worker").global_worker.gcs_client
            method = getattr(client, f"async_internal_kv_{name}")
            call = method(*arguments, self._namespace, timeout=self._deadline_secs)
        except _CHANGED as error:
            logger.debug("the cluster's store is called in threads", error=str(error))
            return await asyncio.to_thread(self._call_blocking, name, *arguments)
        return await call

    def _call_blocking(self, name: str, *arguments: Any) -> Any:
        try:
            public = _private("ray.experimental.internal_kv")
            connected = public._internal_kv_initialized()
        except _CHANGED as error:
            raise RuntimeError(f"this Ray has no store for values: {error}") from error
        if not connected:
            raise RuntimeError("this process is connected to no Ray cluster")
        match name:
            case "put":
                return public._internal_kv_put(*arguments, namespace=self._namespace)
            case "get":
                return public._internal_kv_get(*arguments, namespace=self._namespace)
            case "del":
                return public._internal_kv_del(arguments[0], namespace=self._namespace)
        return public._internal_kv_list(*arguments, namespace=self._namespace)


# --- the head process of a private cluster --------------------------------------------------------


def run_head(config_json: str) -> None:
    """Starts the processes of a cluster's head and prints one JSON line about them; never returns.

    Runs in a process of its own below the janitor. Uses Ray's own description of a node, which
    needs no driver and no API server when no dashboard is wanted (90 MB and seconds less than
    `ray start`, which also always starts a Ray Client server on a fixed port). Where that
    has changed, `ray.init` in this process does the same, and the process stays.

    Args:
        config_json: `directory`, `num_cpus` (or null), `resources`, `further_nodes` (a list of
            such), `object_store_bytes`, `dashboard` (bool), `fork_directory` (nobody else's).
    """
    config = json.loads(config_json)
    os.environ.setdefault("DASHBOARD_METRIC_PORT", str(_free_port()))
    # Ray's processes inherit standard output; only the owner's one line may go there.
    reply = os.dup(1)
    os.dup2(2, 1)
    try:
        facts = _start_node(config)
        stay = False
    except (ImportError, AttributeError, TypeError) as error:
        logger.warning("starting the head through ray.init", error=str(error))
        facts = _start_with_driver(config)
        stay = True
    os.write(reply, json.dumps(facts).encode() + b"\n")
    os.close(reply)
    if stay:
        signal.pause()
    # No interpreter shutdown: Ray's exit handlers would stop what was just started.
    os._exit(0)


def _start_node(config: dict[str, Any]) -> dict[str, object]:
    node_class = _node_class(config)
    common = _node_parameters(config)

    # The API server takes as long to start as all the rest, which does not need it.
    with ThreadPoolExecutor(max_workers=1) as beside:
        api_server: Future[None] | None = None

        class Head(node_class):  # type: ignore[misc, valid-type]
            def start_api_server(self, **options: Any) -> None:
                # Ray starts this process even without a dashboard, for usage statistics alone.
                nonlocal api_server
                if config["dashboard"]:
                    api_server = beside.submit(super().start_api_server, **options)

        node = Head(
            _private("ray._private.parameter").RayParams(
                gcs_server_port=0,
                include_dashboard=config["dashboard"],
                dashboard_host=LOOPBACK,
                dashboard_port=_free_port() if config["dashboard"] else None,
                no_monitor=True,
                **_resources(config["resources"]),
                **common,
            ),
            head=True,
            shutdown_at_exit=False,
            spawn_reaper=False,
        )
        if api_server is not None:
            api_server.result()
    for resources in config["further_nodes"]:
        _start_further_node(node.gcs_address, resources, config)
    # As `ray start` does. Without the file a job would be given the address of whichever cluster of
    # this machine Ray finds first among all processes.
    _private("ray._private.utils").write_ray_address(node.gcs_address, config["directory"])
    return {
        "address": node.gcs_address,
        "dashboard": node.webui_url if config["dashboard"] else None,
        "logs": node.get_logs_dir_path(),
    }


def _start_further_node(
    gcs_address: str, resources: dict[str, float], config: dict[str, Any]
) -> None:
    """Starts the processes of another node on this machine."""
    _node_class(config)(
        _private("ray._private.parameter").RayParams(
            gcs_address=gcs_address,
            node_manager_port=0,
            **_resources(resources),
            **_node_parameters(config),
        ),
        head=False,
        shutdown_at_exit=False,
        spawn_reaper=False,
    )


def _resources(resources: dict[str, float]) -> dict[str, Any]:
    """Custom resources of a node, and its GPUs, which Ray names apart; as many as are said to be there."""
    custom = dict(resources)
    gpus = custom.pop("num_gpus", None)
    return {"resources": custom, "num_gpus": gpus if gpus is None else int(gpus)}


def _node_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """What all nodes of a private cluster have in common."""
    parameters = {
        "node_ip_address": LOOPBACK,
        "num_cpus": config["num_cpus"],
        "object_store_memory": config["object_store_bytes"],
        "temp_dir": config["directory"],
        # Its default is one fixed port: a second cluster's API server would talk to the first one's
        # agent.
        "dashboard_agent_listen_port": _free_port(),
        "include_log_monitor": False,
    }
    script = Path(_private("ray").__file__).parent / "_private" / "workers" / "default_worker.py"
    if script.exists():
        os.environ[_worker.SCRIPT_VARIABLE] = str(script)
        os.environ[_worker.DIRECTORY_VARIABLE] = config["fork_directory"]
        parameters["worker_path"] = _worker.__file__
    return parameters


def _node_class(config: dict[str, Any]) -> Any:
    """Ray's description of a node, without the agents that only jobs and a dashboard need.

    They take 150 MB, and a raylet waits for seconds until they run.
    """
    node_class = _private("ray._private.node").Node
    if config["dashboard"]:
        return node_class
    services, raylet = _private("ray._private.services"), _private("ray._raylet")

    class LeanNode(node_class):  # type: ignore[misc, valid-type]
        def start_raylet(self, *arguments: Any, **options: Any) -> None:
            port = self._ray_params.runtime_env_agent_port = _free_port()
            # The raylet waits until its agents have said where they listen: -1 for nowhere.
            ports = {
                **dict.fromkeys(_DASHBOARD_AGENTS_PORTS, -1),
                "RUNTIME_ENV_AGENT_PORT_NAME": port,
            }
            for name, number in ports.items():
                raylet.persist_port(self._session_dir, self._node_id, getattr(raylet, name), number)
            start_process = services.start_ray_process

            def start(command: list[str], *rest: Any, **more: Any) -> Any:
                lean = [_without_agent(argument, port) for argument in command]
                return start_process(lean, *rest, **more)

            services.start_ray_process = start
            try:
                super().start_raylet(*arguments, **options)
            finally:
                services.start_ray_process = start_process

    return LeanNode


def _without_agent(argument: str, port: int) -> str:
    """Changes an argument of a raylet that is the command of an agent.

    A raylet ends with its agents, so something runs in their place: for the dashboard's, what waits
    for ever; for that of runtime environments, what waits for the first who asks for one.
    """
    name, _, command = argument.partition("=")
    if name == "--dashboard_agent_command":
        return f"{name}=sleep infinity"
    if name == "--runtime_env_agent_command":
        on_demand = [sys.executable, "-I", "-S", _on_demand.__file__, str(port)]
        return f"{name}={subprocess.list2cmdline(on_demand)} {command}"
    return argument


def _start_with_driver(config: dict[str, Any]) -> dict[str, object]:
    context = _private("ray").init(
        address="local",
        num_cpus=config["num_cpus"],
        **_resources(config["resources"]),
        object_store_memory=config["object_store_bytes"],
        include_dashboard=config["dashboard"],
        dashboard_host=LOOPBACK,
        dashboard_port=_free_port() if config["dashboard"] else None,
        log_to_driver=False,
        _temp_dir=config["directory"],
    )
    return {
        "address": context.address_info["gcs_address"],
        "dashboard": context.dashboard_url if config["dashboard"] else None,
        "logs": os.path.join(context.address_info["session_dir"], "logs"),  # noqa: PTH118
    }


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
