"""Runs a program that imports ``pipecat``: ``python -m antiphon.compat.pipecat script.py``."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

# Importing the package has made the names Antiphon's, or has refused to.


def main() -> None:
    """Runs the script as the interpreter would."""
    parser = argparse.ArgumentParser(
        prog="python -m antiphon.compat.pipecat",
        description="Runs a program that imports pipecat, with Antiphon in its place.",
    )
    parser.add_argument("script", help="the program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    given = parser.parse_args()
    if not Path(given.script).is_file():
        parser.error(f"{given.script}: there is no such file")
    sys.argv = [given.script, *given.arguments]
    sys.path[0] = str(Path(given.script).resolve().parent)
    runpy.run_path(given.script, run_name="__main__")


if __name__ == "__main__":
    main()
