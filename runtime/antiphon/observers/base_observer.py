"""Watching frames without being part of the pipeline."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from antiphon.utils.base_object import BaseObject

if TYPE_CHECKING:
    from antiphon.frames.frames import Frame
    from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


@dataclass(slots=True)
class FramePushed:
    """One hop of a frame.

    Attributes:
        source: The processor that pushed it.
        destination: The processor it goes to.
        frame: The frame.
        direction: Downstream or upstream.
        timestamp: Nanoseconds on the pipeline's clock.
    """

    source: FrameProcessor
    destination: FrameProcessor
    frame: Frame
    direction: FrameDirection
    timestamp: int


class BaseObserver(BaseObject):
    """Sees every hop of every frame, in order, in a task of its own.

    An observer cannot slow the pipeline down. The same frame is seen once per hop, inner sources
    and sinks of pipelines included: tell frames apart by ``frame.id``.
    """

    # False while nobody is behind the observer, so that pushes need not be described to it.
    watching: bool = True

    def __init__(self, **kwargs: Any) -> None:
        """Makes an observer; it begins to see frames when a task runs with it."""
        super().__init__(**kwargs)

    @abstractmethod
    async def on_push_frame(self, data: FramePushed) -> None:
        """Is called for each hop, in order.

        The older form ``on_push_frame(src, dst, frame, direction, timestamp)`` is accepted too.
        """
