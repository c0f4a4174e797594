"""How the frames of one class are laid out in a record, worked out once a class."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from operator import attrgetter
from typing import Any, Final, Literal, Union

from antiphon.frames import frames
from antiphon.frames._base import Frame
from antiphon.frames._kinds import FRAME_KINDS
from antiphon.frames._registry import CodecError, field_type, wire_name

#: What precedes the fields in a record, by the attribute it stands for.
HEAD: Final = ("kind", "id", "name", "pts", "metadata", "transport_source", "transport_destination")
#: A record always has a kind, an id and a name.
SHORTEST_HEAD: Final = 3
#: The attributes among them; a bot's frame may well have a field called "kind".
COMMON: Final = HEAD[1:]

MISSING: Final = dataclasses.MISSING

_NUMBERS: Final = {name: number for number, (name, _) in FRAME_KINDS.items()}
_PLAIN: Final = frozenset(
    {bytes, bytearray, memoryview, str, int, float, bool, list, dict, tuple, set, frozenset}
)
# A default of another type is left out of a record only if the field holds that very object.
_COMPARED: Final = frozenset({bool, int, str, bytes})


class Plan:
    """The layout of one frame class.

    Attributes:
        cls: The class.
        kind: What stands for it on the wire.
        is_own: Whether it is Antiphon's own, which has a number and whose fields are checked.
        names: The fields, in their order on the wire.
        rejected: For each field, the plain types that it cannot hold.
        defaults: For each field, its default, or MISSING.
        factories: For each field, what makes its default, or MISSING.
    """

    __slots__ = (
        "_get",
        "_known",
        "_required",
        "cls",
        "defaults",
        "factories",
        "is_own",
        "kind",
        "names",
        "rejected",
    )

    def __init__(self, cls: type[Frame]) -> None:
        fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in COMMON}
        self.cls = cls
        self.is_own = getattr(frames, cls.__name__, None) is cls
        if self.is_own:
            number = _NUMBERS[cls.__name__]
            self.kind: int | str = number
            self.names: Sequence[str] = tuple(FRAME_KINDS[number][1].split())
        else:
            self.kind = wire_name(cls)
            self.names = tuple(fields)
        ordered = [fields[name] for name in self.names]
        self.rejected = [
            _rejected(field_type(f, cls)) if self.is_own else frozenset[type]() for f in ordered
        ]
        self.defaults: list[Any] = [f.default for f in ordered]
        self.factories: list[Any] = [f.default_factory for f in ordered]
        self._required = max(
            (
                position
                for position, f in enumerate(ordered, 1)
                if f.default is MISSING and f.default_factory is MISSING
            ),
            default=0,
        )
        self._get = _getter(self.names)
        # Attributes that need no mention among a bot's own.
        self._known = frozenset({*fields, *COMMON, "_count", "_name"})

    def __reduce__(self) -> tuple[Any, ...]:
        # A class that travels takes none along: where it arrives, frames may be laid out by other code.
        return type(None), ()

    def record(self, frame: Frame) -> list[Any]:
        """Returns the record of a frame, its values still as they are.

        Raises:
            CodecError: A field of one of Antiphon's own frames holds what it cannot hold.
            AttributeError: A field has no value.
        """
        if self.is_own:
            return self._own_record(frame)
        attributes = frame.__dict__
        values = self._get(frame)
        end = len(values)
        while end > self._required and self._is_default(end - 1, values[end - 1]):
            end -= 1
        record = [
            self.kind,
            frame.id,
            attributes.get("_name", frame._count),
            frame.pts,
            attributes.get("metadata") or None,
            frame.transport_source,
            frame.transport_destination,
        ]
        # A plain class has attributes that no field declares, and so may a dataclass.
        undeclared = attributes.keys() - self._known
        record.append({name: attributes[name] for name in undeclared} or None)
        record += values[:end]
        self.check_head(record)
        return record

    def _own_record(self, frame: Frame) -> list[Any]:
        # This is on the way of every frame. Antiphon's own classes have neither slots nor
        # properties, so nearly everything is in the instance's dictionary.
        attributes = frame.__dict__
        names = self.names
        values = []
        position = 0
        for name in names:
            value = attributes.get(name, MISSING)
            if value is MISSING:
                value = getattr(frame, name)
            if type(value) in self.rejected[position]:
                raise CodecError(self.complaint(name, value))
            values.append(value)
            position += 1
        end = position
        while end > self._required and self._is_default(end - 1, values[end - 1]):
            end -= 1
            values.pop()
        number = attributes["id"]
        count = attributes.get("_name")
        if count is None:
            count = attributes["_count"]
        pts = attributes.get("pts")
        metadata = attributes.get("metadata") or None
        source = attributes.get("transport_source")
        destination = attributes.get("transport_destination")
        record = [self.kind, number, count, pts, metadata, source, destination]
        if pts is None and metadata is None and source is None and destination is None:
            if type(number) is int and type(count) is int:
                if not values:
                    return record[:SHORTEST_HEAD]
                record += values
                return record
        record += values
        while record[-1] is None and SHORTEST_HEAD < len(record) <= len(HEAD):
            record.pop()
        self.check_head(record)
        return record

    def check_head(self, record: list[Any]) -> None:
        """Checks the part of a record that all frames have.

        Raises:
            CodecError: Something in it is of the wrong type.
        """
        if type(record[1]) is int and type(record[2]) is int:
            for at in range(SHORTEST_HEAD, min(len(record), len(HEAD))):
                if record[at] is not None:
                    break
            else:
                return
        for value, accepted, name in zip(record[1:], _HEAD_TYPES, COMMON, strict=False):
            if type(value) is bool or not isinstance(value, accepted):
                raise CodecError(self.complaint(name, value))

    def complaint(self, name: str, value: object) -> str:
        """Says that a field, or an attribute all frames have, holds what it cannot hold."""
        return f"{self.cls.__name__}.{name} cannot hold a value of type {type(value).__name__}"

    def is_undeclared(self, name: str) -> bool:
        """Tells whether an attribute of this name is no field and nothing all frames have."""
        return name not in self._known

    def _is_default(self, position: int, value: object) -> bool:
        default = self.defaults[position]
        if value is default:
            return True
        if default is MISSING:
            # A factory may make anything; only the usual ones are known to make nothing much.
            factory = self.factories[position]
            return type(value) is factory and factory in (list, dict, set) and not value
        return type(value) is type(default) and type(value) in _COMPARED and value == default


_Nothing: Final = type(None)
_HEAD_TYPES: Final[tuple[tuple[type, ...], ...]] = (
    (int,),
    (int, str),
    (_Nothing, int, float),
    (_Nothing, dict),
    (_Nothing, str),
    (_Nothing, str),
)


def plan_for(cls: type[Frame]) -> Plan:
    """Returns the layout of a frame class."""
    plan: Plan | None = cls._wire_plan
    if plan is None:
        plan = cls._wire_plan = Plan(cls)
    return plan


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda _frame: ()
    get = attrgetter(*names)
    if len(names) == 1:
        return lambda frame: (get(frame),)
    return typing.cast("Callable[[Any], tuple[Any, ...]]", get)


def _rejected(annotation: object) -> frozenset[type]:
    """Returns the plain types that a field with this annotation cannot hold.

    It is about confusion (text where bytes belong), not about full checking: None, and objects of
    other classes, pass everywhere, because bots are as sloppy as Python lets them be.
    """
    accepted = _accepted(annotation)
    return frozenset() if accepted is None else _PLAIN - accepted


def _accepted(annotation: object) -> frozenset[type] | None:
    origin = typing.get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        parts = [_accepted(part) for part in typing.get_args(annotation)]
        return None if None in parts else frozenset[type]().union(*(p for p in parts if p))
    if origin is Literal:
        return frozenset(type(value) for value in typing.get_args(annotation))
    if not isinstance(origin, type) or origin in (Any, object):
        return frozenset() if annotation is None else None
    for base, accepted in _ACCEPTED:
        if issubclass(origin, base):
            return frozenset(accepted)
    if issubclass(origin, Enum):
        # A text enum's member and its text are interchangeable.
        return frozenset(_PLAIN.intersection(origin.__mro__))
    return frozenset()


# bool comes before int, of which it is a subclass; text is a sequence, and so are bytes.
_ACCEPTED: Final[tuple[tuple[type, tuple[type, ...]], ...]] = (
    (bool, (bool, int)),
    (int, (int, float, bool)),
    (float, (int, float, bool)),
    (Enum, ()),
    (str, (str,)),
    (bytes, (bytes, bytearray, memoryview)),
    (Mapping, (dict,)),
    (Sequence, (list, tuple)),
)
