"""The base class of frames and the three families every frame belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from antiphon.frames import _ids
from antiphon.frames._registry import register_frame_class

if TYPE_CHECKING:
    from itertools import count


def format_pts(pts: int | None) -> str | None:
    """Writes a presentation time as `hours:minutes:seconds.microseconds`.

    Args:
        pts: Nanoseconds, or None.

    Returns:
        The text, or None if there is no presentation time. Zero counts as none.
    """
    if not pts:
        return None
    seconds, rest = divmod(pts, 1_000_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}.{rest // 1000:06}"


class _LazyName:
    """Computes "ClassName#n" when it is asked for: most frames never show their name."""

    __slots__ = ()

    def __get__(self, frame: Frame | None, owner: type[Frame]) -> str:
        if frame is None:
            # A dataclass that redeclares the field must not take this object for its default.
            raise AttributeError("name")
        name: str | None = frame.__dict__.get("_name")
        return f"{type(frame).__name__}#{frame._count}" if name is None else name

    def __set__(self, frame: Frame, value: str) -> None:
        frame.__dict__["_name"] = value


class _LazyMetadata:
    """Makes the metadata dictionary at its first use; afterwards it is a plain attribute."""

    __slots__ = ()

    def __get__(self, frame: Frame | None, owner: type[Frame]) -> dict[str, Any]:
        if frame is None:
            raise AttributeError("metadata")
        value: dict[str, Any] = {}
        frame.__dict__["metadata"] = value
        return value


@dataclass
class Frame:
    """One unit of what flows through a pipeline: audio, text, an image, a command, an event.

    The attributes below are no arguments of the constructor. Code sets them afterwards, and they
    stay with the frame on its whole way, also across processes.

    A bot's own frame is a dataclass deriving from one of the three families below (or from any
    frame), or a plain class whose `__init__` calls `super().__init__()`.

    Attributes:
        id: Unique among the frames of a deployment.
        name: "ClassName#n", n counting the frames of that class.
        pts: When to present the frame, in nanoseconds of the pipeline's clock; None for at once.
        metadata: Whatever a bot wants to attach.
        transport_source: Which of an input transport's several sources the frame came from.
        transport_destination: Which of an output transport's several destinations it is for.
    """

    id: int = field(init=False)
    name: str = field(init=False)
    # Defaults that the generated __init__ need not store: they live in the class.
    pts: int | None = field(init=False, default=None)
    metadata: dict[str, Any] = field(init=False)
    transport_source: str | None = field(init=False, default=None)
    transport_destination: str | None = field(init=False, default=None)

    #: Whether a frame that still waits in a queue outlives an interruption.
    survives_interruption: ClassVar[bool] = False
    #: Whether it changes how a processor works from then on. One that takes the place of another,
    #: which was lost with its process, is given such frames too.
    is_setting: ClassVar[bool] = False

    _counter: ClassVar[count[int]] = _ids.counter_for("Frame")
    #: How the codec writes this class; made at first use (see `_plan`).
    _wire_plan: ClassVar[Any] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._counter = _ids.counter_for(cls.__name__)
        cls._wire_plan = None
        if "__slots__" in cls.__dict__:
            # dataclass(slots=True) makes slots of inherited fields too; they would hide the
            # defaults and the lazy attributes of this class.
            for name in _COMMON.intersection(cls.__dict__):
                delattr(cls, name)
        register_frame_class(cls)

    def __post_init__(self) -> None:
        self.id = next(_ids._ids)
        self._count = next(self._counter)

    def __str__(self) -> str:
        return self.name


_COMMON = frozenset(f.name for f in fields(Frame))
Frame.name = _LazyName()  # type: ignore[assignment]
Frame.metadata = _LazyMetadata()  # type: ignore[assignment]
register_frame_class(Frame)


@dataclass
class SystemFrame(Frame):
    """A frame that overtakes: it is handled on arrival and outlives interruptions."""


@dataclass
class DataFrame(Frame):
    """A frame with content (text, audio, images, messages), handled in order of arrival.

    An interruption drops the ones that still wait.
    """


@dataclass
class ControlFrame(Frame):
    """A frame that commands or marks something, handled in order with the data frames.

    An interruption drops the ones that still wait, unless the class says otherwise
    (`survives_interruption`).
    """
