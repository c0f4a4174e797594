"""How many threads a model's native code gets."""

from __future__ import annotations

import os


def cpu_threads(wanted: int) -> int:
    """Settles a number of threads.

    Args:
        wanted: By the user; 0 for what ``OMP_NUM_THREADS`` says (Ray sets it to the CPUs that are reserved
            for an actor, and to 1 if none are), or one per core.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    return wanted or (int(told) if told.isdecimal() else 0) or os.cpu_count() or 1
