from __future__ import annotations

import sys
from pathlib import Path

# The benchmarks are no part of the package, so their root is not on the path.
sys.path.append(str(Path(__file__).resolve().parents[2]))
