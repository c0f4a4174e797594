"""Gives the frames of each process ids of their own."""

from __future__ import annotations

import functools
import secrets

from antiphon.frames._ids import PREFIX_BITS, set_process_prefix


@functools.cache
def claim_process_prefix() -> int:
    """Puts a prefix, drawn for this process, above the ids of the frames made here.

    Drawn from 24 bits: two of the ten or so processes of a session share one once in hundreds of
    thousands of sessions. Later calls return the same prefix.
    """
    prefix = secrets.randbelow(2**PREFIX_BITS - 1) + 1
    set_process_prefix(prefix)
    return prefix
