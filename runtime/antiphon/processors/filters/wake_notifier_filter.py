"""Telling another part of a bot that certain frames came by."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar

from antiphon.frames.frames import Frame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.sync.base_notifier import BaseNotifier
from antiphon.utils.checks import check_callable, check_classes, check_instance


class WakeNotifierFilter(FrameProcessor):
    """Notifies for the frames of some classes for which a function says True; all frames pass."""

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it asks the bot's own function"

    def __init__(
        self,
        notifier: BaseNotifier,
        *,
        types: Iterable[type[Frame]],
        filter: Callable[[Frame], Awaitable[bool]],
        **kwargs: Any,
    ) -> None:
        """Makes the filter.

        Args:
            notifier: Notified before the frame goes on.
            types: The classes of frames to ask about.
            filter: Says whether such a frame is reason to notify.
            **kwargs: Passed to the base.

        Raises:
            TypeError: If one of them is of another type.
        """
        super().__init__(**kwargs)
        check_instance("WakeNotifierFilter(notifier)", notifier, BaseNotifier)
        check_callable("WakeNotifierFilter(filter)", filter, "frame")
        self._notifier = notifier
        self._types = check_classes("WakeNotifierFilter(types)", types, Frame)
        self._filter = filter

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Notifies if there is reason to, and passes the frame on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, self._types):
            answer: Any = self._filter(frame)
            if await answer if inspect.isawaitable(answer) else answer:
                await self._notifier.notify()
        await self.push_frame(frame, direction)
