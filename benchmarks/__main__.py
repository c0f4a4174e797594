"""``python -m benchmarks``: every comparison in one run."""

import sys

from benchmarks.suite import main

if __name__ == "__main__":
    sys.exit(main())
