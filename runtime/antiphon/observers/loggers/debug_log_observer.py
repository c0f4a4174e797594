"""Every frame's fields in the log, for debugging."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.frames.frames import Frame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.processors.frame_processor import FrameDirection
from antiphon.utils.checks import check_classes

if TYPE_CHECKING:
    from antiphon.processors.frame_processor import FrameProcessor

_NANOSECONDS = 1_000_000_000

# Bytes say nothing to a reader and can be megabytes.
_BINARY_FIELDS = frozenset({"audio", "image", "images"})


class FrameEndpoint(Enum):
    """Which end of a hop a filter looks at."""

    SOURCE = auto()
    DESTINATION = auto()


FrameFilters = Mapping[type[Frame], tuple[type, FrameEndpoint] | None]


class DebugLogObserver(BaseObserver):
    """Logs each hop of each frame with the frame's fields, at level DEBUG.

    The log then holds what people said. A frame that passes n processors is logged n times; name
    frame types, and a source or destination, to see fewer.

    A line reads ``source → destination: FrameType field: value, ... at 1.24s``; the arrow of a
    frame on its way upstream is ``←``.
    """

    def __init__(
        self,
        frame_types: tuple[type[Frame], ...] | FrameFilters | None = None,
        exclude_fields: Set[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes an observer for all frames or for some.

        Args:
            frame_types: The types to log (subclasses too); None: all. As a mapping, each type has
                None (log always) or a processor class and the end of the hop it must be at.
            exclude_fields: Names of fields to leave out, instead of the binary ones.
            **kwargs: For the base class.

        Raises:
            TypeError: If the types are no classes of frames.
        """
        super().__init__(**kwargs)
        self._filters: dict[type[Frame], tuple[type, FrameEndpoint] | None] | None
        if frame_types is None:
            self._filters = None
        elif isinstance(frame_types, Mapping):
            check_classes("DebugLogObserver(frame_types)", frame_types, Frame)
            wanted: Any
            for frame_type, wanted in frame_types.items():
                if wanted is not None and not (
                    isinstance(wanted, tuple)
                    and len(wanted) == 2
                    and isinstance(wanted[0], type)
                    and isinstance(wanted[1], FrameEndpoint)
                ):
                    raise TypeError(
                        f"DebugLogObserver(frame_types)[{frame_type.__name__}] must be None or "
                        f"(processor class, FrameEndpoint), not {wanted!r}"
                    )
            self._filters = dict(frame_types)
        else:
            self._filters = dict.fromkeys(
                check_classes("DebugLogObserver(frame_types)", frame_types, Frame)
            )
        self._exclude_fields = _BINARY_FIELDS if exclude_fields is None else exclude_fields

    async def on_push_frame(self, data: FramePushed) -> None:
        """Logs the hop if the filters let it through."""
        if not self._is_wanted(data.frame, data.source, data.destination):
            return
        arrow = "→" if data.direction == FrameDirection.DOWNSTREAM else "←"
        fields = ", ".join(
            f"{field.name}: {_format(value)}"
            for field in dataclasses.fields(data.frame)
            if field.name not in self._exclude_fields
            and (value := getattr(data.frame, field.name, None)) is not None
        )
        logger.debug(
            f"{data.source} {arrow} {data.destination}: {type(data.frame).__name__} {fields} "
            f"at {data.timestamp / _NANOSECONDS:.2f}s"
        )

    def _is_wanted(self, frame: Frame, source: FrameProcessor, destination: FrameProcessor) -> bool:
        if self._filters is None:
            return True
        for frame_type, condition in self._filters.items():
            if not isinstance(frame, frame_type):
                continue
            if condition is None:
                return True
            processor_type, endpoint = condition
            end = source if endpoint is FrameEndpoint.SOURCE else destination
            if isinstance(end, processor_type):
                return True
        return False


def _format(value: object) -> str:
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(
            f"{field.name}: {_format(getattr(value, field.name, None))}"
            for field in dataclasses.fields(value)
        )
        return f"{type(value).__name__}({inner})"
    if isinstance(value, list | tuple):
        opening, closing = "[]" if isinstance(value, list) else "()"
        return opening + ", ".join(_format(item) for item in value) + closing
    messages = getattr(value, "get_messages_for_logging", None)
    if callable(messages):
        return f"{type(value).__name__} with messages: {messages()}"
    return str(value)
