"""Examines the machine: what is missing, and how to get it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

State = Literal["ok", "warning", "missing"]

MIN_FILES = 4096
MIN_MEMORY_BYTES = 3 * 2**30
MIN_SHM_BYTES = 150 * 2**20
MIN_DISK_BYTES = 2**30
RAY_VERSION = "2.60"
MAX_SOCKET_PATH = 107


@dataclass(frozen=True)
class Finding:
    """What one look at the machine found.

    Attributes:
        state: Whether it will do. ``missing`` makes the command fail.
        what: What was looked at, and what was found.
        advice: How to mend it.
    """

    state: State
    what: str
    advice: str = ""


def examine(console: Console) -> int:
    """Prints every finding; returns 0 if nothing needed is missing."""
    findings = [finding for check in CHECKS for finding in check()]
    marks = {
        "ok": "[green]ok[/]     ",
        "warning": "[yellow]warning[/]",
        "missing": "[red]missing[/]",
    }
    for finding in findings:
        console.print(f"{marks[finding.state]} {finding.what}", soft_wrap=True)
        if finding.advice and finding.state != "ok":
            console.print(f"         {finding.advice}", markup=False, soft_wrap=True)
    missing = sum(finding.state == "missing" for finding in findings)
    warnings = sum(finding.state == "warning" for finding in findings)
    if missing:
        console.print(f"{missing} missing: mend these first")
    elif warnings:
        console.print("everything needed is here; see the warnings")
    else:
        console.print("everything is here")
    return int(missing > 0)


def python() -> list[Finding]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - the package may be run on an older one
        return [Finding("missing", f"Python {version}", "install Python 3.11 or newer")]
    return [Finding("ok", f"Python {version}")]


def system() -> list[Finding]:
    """The operating system."""
    if sys.platform != "linux":
        return [
            Finding(
                "missing",
                f"operating system {sys.platform}",
                "actors need Linux; `antiphon run --local` may work elsewhere",
            )
        ]
    return [Finding("ok", f"Linux {os.uname().release}")]


def packages() -> list[Finding]:
    """Installed packages that Antiphon declares."""
    findings = []
    try:
        ray = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        findings.append(Finding("missing", "ray", f"pip install 'ray[default]=={RAY_VERSION}.*'"))
    else:
        fits = ray.startswith(f"{RAY_VERSION}.")
        findings.append(
            Finding(
                "ok" if fits else "warning",
                f"ray {ray}",
                f"tested with ray {RAY_VERSION}: pip install 'ray[default]=={RAY_VERSION}.*'",
            )
        )
    absent = [
        name
        for name in ("msgpack", "numpy", "onnxruntime", "soxr", "openai", "elevenlabs", "uvloop")
        if importlib.util.find_spec(name) is None
    ]
    if absent:
        findings.append(
            Finding("missing", f"packages: {', '.join(absent)}", f"pip install {' '.join(absent)}")
        )
    else:
        findings.append(Finding("ok", "packages of the runtime"))
    return findings


def embedded_services() -> list[Finding]:
    """What the demonstration speaks and hears with."""
    findings = []
    for package, module, use in (
        ("pocketsphinx", "pocketsphinx", "speech to text without a key"),
        ("espeakng-loader", "espeakng_loader", "text to speech without a key"),
        ("nltk", "nltk.chat.eliza", "the rule-based conversation partner"),
        ("matplotlib", "matplotlib", "the picture of the demonstration"),
    ):
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            findings.append(
                Finding("warning", f"{package}: {use}: {error}", f"pip install {package}")
            )
        else:
            findings.append(Finding("ok", f"{package}: {use}"))
    return findings


def voice_activity() -> list[Finding]:
    """The voice activity model, loaded and run once."""
    try:
        from antiphon.audio.vad.silero import SileroVADAnalyzer

        analyzer = SileroVADAnalyzer(sample_rate=16000)
        analyzer.set_sample_rate(16000)
        analyzer.voice_confidence(bytes(2 * analyzer.num_frames_required()))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it is the finding
        return [
            Finding(
                "missing",
                f"Silero voice activity detection does not run: {error}",
                "pip install --force-reinstall onnxruntime antiphon",
            )
        ]
    return [Finding("ok", "Silero voice activity detection runs")]


def limits() -> list[Finding]:
    """Open files, memory, disk."""
    findings = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    findings.append(
        Finding(
            "ok" if soft >= MIN_FILES else "warning",
            f"open files: at most {soft}",
            f"each actor opens about 50: ulimit -n {max(MIN_FILES, hard)}",
        )
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    findings.append(
        Finding(
            "ok" if memory >= MIN_MEMORY_BYTES else "warning",
            f"memory: {memory / 2**30:.1f} GiB",
            "a private cluster with one session takes about 1.5 GiB",
        )
    )
    shm = Path("/dev/shm")  # noqa: S108 - where Linux has its shared memory
    free = shutil.disk_usage(shm).free if shm.is_dir() else 0
    findings.append(
        Finding(
            "ok" if free >= MIN_SHM_BYTES else "warning",
            f"shared memory: {free / 2**20:.0f} MiB free in /dev/shm",
            "Ray then uses slower files: give the container --shm-size=256m",
        )
    )
    temporary = Path(tempfile.gettempdir())
    disk = shutil.disk_usage(temporary).free
    findings.append(
        Finding(
            "ok" if disk >= MIN_DISK_BYTES else "warning",
            f"disk: {disk / 2**30:.1f} GiB free in {temporary}",
            "Ray warns and may stop below 5 % of the disk: free some, or set TMPDIR",
        )
    )
    longest = len(str(temporary)) + 60
    findings.append(
        Finding(
            "ok" if longest <= MAX_SOCKET_PATH else "missing",
            f"directory for sockets: {temporary}",
            f"its path is too long for Unix sockets ({MAX_SOCKET_PATH} bytes): set TMPDIR=/tmp",
        )
    )
    return findings


def network() -> list[Finding]:
    """Loopback, and a cluster that the environment names."""
    findings = []
    try:
        with socket.create_server(("127.0.0.1", 0)):
            findings.append(Finding("ok", "loopback network"))
    except OSError as error:
        findings.append(
            Finding("missing", f"loopback network: {error}", "bring the interface `lo` up")
        )
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if address and port.isdigit():
        try:
            with socket.create_connection((host, int(port)), timeout=2):
                findings.append(Finding("ok", f"Ray cluster at RAY_ADDRESS={address}"))
        except OSError as error:
            findings.append(
                Finding(
                    "missing",
                    f"Ray cluster at RAY_ADDRESS={address}: {error}",
                    "start it, or unset RAY_ADDRESS to use a private one",
                )
            )
    return findings


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    python,
    system,
    packages,
    embedded_services,
    voice_activity,
    limits,
    network,
)
