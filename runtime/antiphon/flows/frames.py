"""The frame a flow marks a place in the pipeline with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from antiphon.frames.frames import ControlFrame


@dataclass
class ActionFrame(ControlFrame):
    """Shows, when it leaves the pipeline, that everything queued before it has been worked off.

    What was to be said has been said then. An interruption does not drop it: somebody waits for it.
    """

    survives_interruption: ClassVar[bool] = True
