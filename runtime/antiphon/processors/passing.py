"""Which frames a processor that drops frames must let through."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.frames.frames import ControlFrame, EndFrame, Frame, StopFrame, SystemFrame


@dataclass
class SyncFrame(ControlFrame):
    """Follows a frame through a branch of a SyncParallelPipeline.

    When it leaves the branch, the branch has dealt with all that was sent into it before.
    """


@dataclass
class UrgentSyncFrame(SystemFrame):
    """Follows a system frame through a processor, as a SyncFrame follows the others."""


_ALWAYS = (SystemFrame, EndFrame, StopFrame, SyncFrame)


def always_passes(frame: Frame) -> bool:
    """Whether a frame keeps the pipeline itself going: without it, it would wait for ever."""
    return isinstance(frame, _ALWAYS)
