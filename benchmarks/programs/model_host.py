"""A model in a process of its own, as a model actor has it, without Ray.

python model_host.py --control SOCKET --name NAME --directory DIR --model module:Class [--cores 0]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from loguru import logger


def resident_bytes() -> int:
    """Memory of this process that is in use, shared pages included."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def serve(control: str, name: str, directory: str, model: str, options: str) -> None:
    """Runs the model until the benchmark hangs up."""
    # After the process has been bound to its cores: libraries count them when they are imported.
    from antiphon.models.model import ModelSpec
    from antiphon_actors.models.host import ModelHost

    module, _, class_name = model.partition(":")
    spec = ModelSpec(getattr(importlib.import_module(module), class_name), json.loads(options))
    host = ModelHost(spec, directory)
    await host.start()
    gc.collect()
    gc.freeze()
    reader, writer = await asyncio.open_unix_connection(control)
    hello = {"hello": name, "pid": os.getpid(), "uri": host.uri}
    writer.write(json.dumps(hello).encode() + b"\n")
    while line := await reader.readline():
        command = json.loads(line)
        if command["do"] == "stop":
            break
        if command.get("collect"):
            gc.collect()
        said: dict[str, Any] = {
            "cpu_secs": time.process_time(),
            "resident_bytes": resident_bytes(),
            "statistics": host.statistics(),
        }
        writer.write(json.dumps(said).encode() + b"\n")
    writer.close()
    await host.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--directory", required=True, help="for its socket")
    parser.add_argument("--model", required=True, help="module:Class")
    parser.add_argument("--options", default="{}", help="its options, as JSON")
    parser.add_argument("--cores", default="", help="which it may use: 0,1")
    given = parser.parse_args()
    if given.cores:
        os.sched_setaffinity(0, [int(core) for core in given.cores.split(",")])
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    uvloop.run(serve(given.control, given.name, given.directory, given.model, given.options))


if __name__ == "__main__":
    main()
