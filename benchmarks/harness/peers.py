"""Pipecat, in a virtual environment of its own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

PIPECAT_VERSION = "1.14.0"
UVLOOP_VERSION = "0.23.0"
INSTALL_DEADLINE_SECS = 900.0
# A folder whose name ends with _cache is nobody's source.
CACHE = Path(__file__).parents[2] / ".bench" / "venv_cache"


class PeerMissing(Exception):
    """A peer cannot be had on this machine; the message says why."""


async def pipecat_python() -> Path:
    """The interpreter that has Pipecat; installed at the first use, then kept.

    Raises:
        PeerMissing: If it cannot be installed.
    """
    home = CACHE / f"pipecat-{PIPECAT_VERSION}"
    python = home / "bin" / "python"
    done = home / ".installed"
    if done.exists():
        return python
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE.parent / ".gitignore").write_text("*\n")
    shutil.rmtree(home, ignore_errors=True)
    await _run([sys.executable, "-m", "venv", str(home)])
    quietly = ["--disable-pip-version-check", "install", "--quiet", "--progress-bar", "off"]
    packages = [f"pipecat-ai=={PIPECAT_VERSION}", f"uvloop=={UVLOOP_VERSION}"]
    await _run([str(python), "-m", "pip", *quietly, *packages])
    done.touch()
    return python


async def _run(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(INSTALL_DEADLINE_SECS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise PeerMissing(
            f"Pipecat {PIPECAT_VERSION} was not installed within {INSTALL_DEADLINE_SECS:g} s"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = output.decode(errors="replace").strip().splitlines()
        raise PeerMissing(f"Pipecat {PIPECAT_VERSION} cannot be installed: {' '.join(lines[-1:])}")
