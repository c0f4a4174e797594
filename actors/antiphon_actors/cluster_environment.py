"""The environment variables of every Ray process of Antiphon, in one place.

Ray reads most of its settings from the environment of each process (`RAY_<key>`), so they are
given where its processes start: here for a private cluster; an operator of a shared one puts the
same into its node images (`production_environment`).
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from antiphon_actors.ray_internal import LAZY_IMPORTS_OF_RAY

# What a worker has imported before it is asked to become an actor of ours.
PRELOADED_MODULES = (
    *LAZY_IMPORTS_OF_RAY,
    "uvloop",
    "antiphon_actors._worker_setup",
    "antiphon_actors.node_agent",
    "antiphon_actors.processor_actor",
    "antiphon_actors.processor_host",
    "antiphon_actors.supervisor",
    # What nearly every bot imports.
    "antiphon.pipeline.runner",
    "antiphon.pipeline.task",
    "argparse",
)

_TUNING = {
    # Ray starts workers at niceness 15; beside two busy processes a 20 ms timer is then 37 ms late
    # (p99) instead of 8 ms.
    "RAY_worker_niceness": "0",
    # The memory monitor kills several actors at once, whoever is to blame. Sessions are limited
    # by admission and by the memory limit of the container instead.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Logs stay in files; copying them to drivers costs a process and repeats every line.
    "RAY_LOG_TO_DRIVER": "0",
    "RAY_DEDUP_LOGS": "0",
    # The behaviour Ray announces as its next default; unset it warns in every process.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_SEVERAL_NODES = {
    # A lost node is noticed in 4-9 s (defaults: 13 s when killed, 63 s when frozen).
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}

_PRODUCTION = {**_SEVERAL_NODES, "RAY_metrics_report_interval_ms": "1000"}


def generate_token() -> str:
    """Returns a new random token for one cluster."""
    return secrets.token_hex(32)


def preloadable(modules: Iterable[str] = PRELOADED_MODULES) -> list[str]:
    """Returns those of the modules that exist in this installation; imports none."""
    return [module for module in modules if _exists(module)]


def _exists(module: str) -> bool:
    # `find_spec` of a submodule would import its package, which takes a second for Ray.
    package, *names = module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not names:
        return spec is not None
    for location in spec.submodule_search_locations or ():
        path = Path(location, *names)
        if path.is_dir() or any(path.parent.glob(f"{names[-1]}.*")):
            return True
    return False


def ray_environment(
    token: str, *, several_nodes: bool = False, preload: Iterable[str] = PRELOADED_MODULES
) -> dict[str, str]:
    """Returns the environment of a private cluster on this machine.

    The token goes to Ray's processes by this environment alone; nothing writes it to a file.

    Args:
        token: Secret that every process of the cluster presents to the others.
        several_nodes: Whether one of its nodes may be lost and the others go on.
        preload: Modules that workers import ahead of need; those that are not installed are
            left out.
    """
    return {
        **_TUNING,
        **(_SEVERAL_NODES if several_nodes else {}),
        # Records of every call for the dashboard's tables: they grow with the sessions in the control
        # service, and nobody reads them.
        "RAY_task_events_report_interval_ms": "0",
        # The only switch that makes Ray listen on the loopback address alone.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_preload_python_modules": ",".join(preloadable(preload)),
    }


def production_environment() -> dict[str, str]:
    """Returns the settings for the nodes of a shared cluster, to be put into their images.

    Authentication is not among them: RAY_AUTH_MODE=token and a token or token file must be
    given to every node by whoever runs the cluster.
    """
    return {
        **_TUNING,
        **_PRODUCTION,
        "RAY_preload_python_modules": ",".join(PRELOADED_MODULES),
    }


def python_path(environment: Mapping[str, str]) -> str:
    """Returns a PYTHONPATH with which Ray's workers find the packages this process uses.

    Adds nothing for installed packages; a source tree that is not installed is added.
    """
    entries = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    for package in ("antiphon", "antiphon_actors"):
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec is not None else ():
            root = str(Path(location).parent)
            if Path(root).name not in ("site-packages", "dist-packages") and root not in entries:
                entries.append(root)
    return os.pathsep.join(entries)


class PatchedEnvironment:
    """Sets environment variables of this process and puts the former ones back.

    Args:
        variables: What to set.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self._former: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        for name, value in self._variables.items():
            self._former[name] = os.environ.get(name)
            os.environ[name] = value
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Puts the former values back; may be called again."""
        while self._former:
            name, value = self._former.popitem()
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def import_ahead() -> None:
    """Imports Ray, and what its serialisation imports at first use (200 ms)."""
    importlib.import_module("ray")
    for module in preloadable(LAZY_IMPORTS_OF_RAY):
        if module not in sys.modules:
            importlib.import_module(module)
