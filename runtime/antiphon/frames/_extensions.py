"""What the two halves of the codec agree on beyond MessagePack itself."""

from __future__ import annotations

import re
from typing import Final, Protocol

# Extension types of MessagePack. Append-only, as the numbers in `_kinds`.
TUPLE: Final = 1
SET: Final = 2
FROZENSET: Final = 3
INTEGER: Final = 4
ARRAY: Final = 5
SCALAR: Final = 6
FRAME: Final = 7
VALUE: Final = 8
REFERENCE: Final = 9

#: How deeply extension types may be nested in one another.
MAX_DEPTH: Final = 24
# Numbers can be chosen so that they all collide in a dictionary, which then takes quadratic time;
# text cannot. Hence these limits for keys (and members of sets) that are no text.
MAX_ODD_KEYS: Final = 1024
MAX_ODD_KEYS_IN_ALL: Final = 16 * 1024
MAX_INTEGER_BYTES: Final = 1024
#: Numbers, booleans, text of a fixed length and times; nothing that contains objects.
DTYPE: Final = re.compile(r"[<>|=]?[biufcSUmM]\d{1,9}(\[\d{0,9}[a-zA-Z]{1,2}\])?")


class References(Protocol):
    """A session's table of what cannot travel and stays at home while a reference travels."""

    def claims(self, obj: object) -> bool:
        """Tells whether `obj` shall travel as a reference though a registered type covers it.

        Asked for everything but plain data (numbers, text, bytes, lists, maps, tuples).
        """

    def refer(self, obj: object) -> object:
        """Returns plain data that stands for `obj`. Raises anything to refuse."""

    def resolve(self, ref: object) -> object:
        """Returns what the plain data stands for. Raises anything if it stands for nothing.

        May be called more than once for one reference in a record, and for a field that is then
        ignored.
        """
