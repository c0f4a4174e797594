"""What home keeps of a processor that runs elsewhere, for a successor of it."""

from __future__ import annotations

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


def slot_of(pid: int, direction: int, extra: int) -> int:
    """Numbers the streams that come to a session's processors in one process.

    Args:
        pid: The processor.
        direction: The value of the `FrameDirection` of its frames.
        extra: `BESIDE` or 0.
    """
    return (pid << 2) | ((direction - 1) << 1) | (extra & BESIDE)
