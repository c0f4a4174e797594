"""Identifiers for frames, processors and tasks.

An id is unique across all processes of a deployment: the upper bits hold the number of the
process, the lower bits a counter. A process that nobody numbered has prefix 0, so in a program
of one process ids are simply 0, 1, 2, ...
"""

from __future__ import annotations

from itertools import count
from typing import Final

PREFIX_BITS: Final = 24
COUNTER_BITS: Final = 39
_COUNTER_MASK: Final = (1 << COUNTER_BITS) - 1

# next() on an itertools.count is atomic, so threads need no lock.
_ids = count()
_counts: dict[str, count[int]] = {}


def set_process_prefix(n: int) -> None:
    """Numbers this process; ids handed out from now on carry the number.

    To be called once, before frames are made. The counter goes on where it was, so that a prefix
    set twice in one process cannot repeat an id.

    Args:
        n: The number of the process, 0 <= n < 2**24, different for every process whose frames
            may meet.

    Raises:
        ValueError: `n` is outside that range.
    """
    global _ids
    if not 0 <= n < 1 << PREFIX_BITS:
        raise ValueError(f"a process prefix is between 0 and {(1 << PREFIX_BITS) - 1}, not {n}")
    _ids = count((n << COUNTER_BITS) | (next(_ids) & _COUNTER_MASK))


def obj_id() -> int:
    """Returns the next id."""
    return next(_ids)


def counter_for(class_name: str) -> count[int]:
    """Returns the counter that numbers the objects of the classes with this name.

    Classes share a counter by name, so that "ClassName#n" stays unique in a process even if two
    modules define a class of the same name.
    """
    counter = _counts.get(class_name)
    if counter is None:
        counter = _counts.setdefault(class_name, count())
    return counter


def obj_count(obj: object) -> int:
    """Returns how many objects of the class of `obj` were numbered before it, from 0."""
    return next(counter_for(type(obj).__name__))
