"""What home keeps of a processor that runs elsewhere, for a successor of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Position = tuple[int, bool, int]
"""A frame among those that a processor is given: slot of its stream, whether urgent, number."""

SETTINGS_KEPT = 256

# The last part of a stream's key says which of several streams to a processor it is.
BESIDE = 1
"""For frames beside the neighbour's."""
INSTEAD = 2
"""For who takes the place of a sender whose link is still there, and has been given up."""

NOT_GONE = "the link of the sender before is still there"
"""Why a sender's successor is refused as long as more may come from that one; to be tried again."""


@dataclass
class KeptState:
    """What a successor has to be told.

    Attributes:
        settings: The settings that the processor was given while it ran, each encoded, with its position;
            the last `SETTINGS_KEPT`.
        state: What its `snapshot` returned last, in the codec's form; None: it has none.
        positions: By slot, how many ordered and urgent frames had been answered then.
    """

    settings: list[tuple[Position, bytes]] = field(default_factory=list)
    state: bytes | None = None
    positions: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add_setting(self, position: Position, frame: bytes) -> None:
        """Takes note of a setting; one that is given again replaces the first."""
        self.settings = [entry for entry in self.settings if entry[0] != position]
        self.settings.append((position, frame))
        del self.settings[:-SETTINGS_KEPT]

    def set_state(self, state: bytes, positions: Mapping[int, Sequence[int]]) -> None:
        """Takes note of a state.

        Args:
            state: What `snapshot` returned, encoded.
            positions: By slot, how many frames had been answered; a successor leaves out the streams
                that have not reached it yet.
        """
        self.state = state
        merge_positions(self.positions, positions)


def merge_positions(known: dict[int, tuple[int, int]], news: Mapping[int, Sequence[int]]) -> None:
    """Raises, by slot, how many ordered and urgent frames had been answered."""
    for slot, (ordered, urgent) in news.items():
        before = known.get(slot, (0, 0))
        known[slot] = (max(before[0], ordered), max(before[1], urgent))


def slot_of(pid: int, direction: int, extra: int) -> int:
    """Numbers the streams that come to a session's processors in one process.

    Args:
        pid: The processor.
        direction: The value of the `FrameDirection` of its frames.
        extra: `BESIDE` or 0.
    """
    return (pid << 2) | ((direction - 1) << 1) | (extra & BESIDE)
