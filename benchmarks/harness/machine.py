"""What the figures were measured on."""

from __future__ import annotations

import importlib.util
import os
import platform
import time
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Two that every frame passes through; whoever compiles one compiles all.
COMPILED = ("antiphon.processors.inbox", "antiphon_actors.channels.framing")
PACKAGES = ("antiphon", "ray", "uvloop", "grpcio", "msgpack")


def describe_machine() -> dict[str, Any]:
    """CPU, memory, load, kernel, Python, versions, and whether the modules are compiled."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "source tree"
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / 2**20, 1),
        "load": [round(value, 2) for value in os.getloadavg()],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions,
        "compiled": all(is_compiled(module) for module in COMPILED),
    }


def is_compiled(module: str) -> bool:
    """Whether a module of that name would be loaded from machine code, not from a source."""
    spec = importlib.util.find_spec(module)
    return spec is not None and str(spec.origin).endswith(tuple(EXTENSION_SUFFIXES))


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
