"""``python -m benchmarks.models``: the table of shared models; exit code 1 if a bar is missed."""

import sys

from benchmarks.models.suite import main

if __name__ == "__main__":
    sys.exit(main())
