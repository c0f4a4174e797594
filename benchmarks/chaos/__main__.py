"""``python -m benchmarks.chaos``: the table of faults; exit code 1 if a bar is missed."""

import sys

from benchmarks.chaos.scenarios import SCENARIOS
from benchmarks.harness import command

if __name__ == "__main__":
    sys.exit(command.main(SCENARIOS, prog="python -m benchmarks.chaos", strict=True))
