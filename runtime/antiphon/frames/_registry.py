"""Which classes may appear on the wire, by name, and how a value of each becomes plain data.

Only classes that are already defined in this process are ever found here: a name on the wire
selects an entry, it never imports or runs anything.
"""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload
from weakref import WeakKeyDictionary

from antiphon.frames._kinds import VALUE_KINDS

if TYPE_CHECKING:
    from antiphon.frames._base import Frame

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])
Key = int | str


class CodecError(ValueError):
    """A value cannot be written for the wire, or bytes from the wire are no valid record."""


class ValueType(NamedTuple):
    """How values of one class travel."""

    key: Key
    to_plain: Callable[[Any], object]
    # Takes the class too, so that an entry does not keep its class alive.
    from_plain: Callable[[Any, Any], object]


_FRAMEWORK = ("antiphon", "antiphon_actors")

_frame_classes: dict[str, type[Frame]] = {}
# A program's classes whose annotations have not been searched for value types yet.
_unsearched: list[type[Any]] = []
_classes: dict[Key, type[Any]] = {}
_value_types: WeakKeyDictionary[type[Any], ValueType] = WeakKeyDictionary()


def wire_name(cls: type[Any]) -> str:
    """Returns "module:qualname", the name of a class that has no number."""
    return f"{cls.__module__}:{cls.__qualname__}"


def register_frame_class(cls: type[Frame]) -> None:
    """Notes that a frame class exists. A later class of the same name replaces the earlier one."""
    _frame_classes[wire_name(cls)] = cls
    if not cls.__module__.startswith("antiphon."):
        _unsearched.append(cls)


def frame_class(name: str) -> type[Frame] | None:
    """Returns the frame class with this wire name, or None."""
    return _frame_classes.get(name)


def register_value_type(
    key: Key, cls: type[T], to_plain: Callable[[T], object], from_plain: Callable[[Any], T]
) -> None:
    """Makes values of a class travel in frames.

    Has to run in both processes, which it does when the module of the class calls it.

    Args:
        key: The name on the wire; a number only for a class listed in `_kinds.VALUE_KINDS`.
        cls: The class. Its subclasses are registered on their own, if at all.
        to_plain: Makes of a value anything else that can travel.
        from_plain: Makes the value again. It gets what the wire holds, so it has to check it and
            may raise any exception; it must run nothing that its argument names.

    Raises:
        ValueError: Another class has the key, or the number is not this class's.
    """
    if isinstance(key, int) and VALUE_KINDS.get(key) != cls.__qualname__:
        raise ValueError(f"number {key} is not listed for {cls.__qualname__}")
    _add(cls, ValueType(key, to_plain, lambda _cls, plain: from_plain(plain)))


@overload
def register_type(cls: C) -> C: ...
@overload
def register_type(*, name: Key) -> Callable[[C], C]: ...
def register_type(cls: C | None = None, *, name: Key | None = None) -> C | Callable[[C], C]:
    """Makes the values of an enum, a dataclass or a pydantic model travel in frames.

    A class decorator. Enum members travel by name. Dataclasses and models travel field by field
    and are built without `__init__`, `__post_init__` or validation; a field that is missing on
    the wire takes its default, an unknown one is ignored. Classes that are named in the
    annotations of a bot's own frames, or of classes registered by a bot, are registered without
    this.

    Args:
        cls: The class.
        name: A name for the wire instead of "module:qualname".

    Raises:
        TypeError: The class is of neither sort.
        ValueError: Another class has the name.
    """
    if cls is None:
        return lambda decorated: _register(decorated, name)
    return _register(cls, name)


def _register(cls: C, name: Key | None) -> C:
    key = wire_name(cls) if name is None else name
    if not _is_generic(cls):
        raise TypeError(
            f"{cls.__qualname__} is no enum, dataclass or pydantic model: use register_value_type"
        )
    if issubclass(cls, Enum):
        _add(cls, ValueType(key, _enum_to_plain, _enum_from_plain))
    elif dataclasses.is_dataclass(cls):
        _add(cls, ValueType(key, _dataclass_to_plain, _dataclass_from_plain))
    else:
        _add(cls, ValueType(key, _model_to_plain, _model_from_plain))
    if cls.__module__.split(".")[0] not in _FRAMEWORK:
        _unsearched.append(cls)
    return cls


def _is_generic(cls: type[Any]) -> bool:
    return (
        issubclass(cls, Enum)
        or dataclasses.is_dataclass(cls)
        or hasattr(cls, "__pydantic_fields_set__")
    )


def _add(cls: type[Any], entry: ValueType) -> None:
    known = _classes.get(entry.key)
    if known is not None and wire_name(known) != wire_name(cls):
        raise ValueError(f"{entry.key!r} already stands for {wire_name(known)}")
    _classes[entry.key] = cls
    _value_types[cls] = entry


def value_type(cls: type[Any]) -> ValueType | None:
    """Returns how values of a class travel, or None if they do not."""
    entry = _value_types.get(cls)
    if entry is None and _unsearched:
        _search_annotations()
        entry = _value_types.get(cls)
    return entry


def program_frame_classes() -> list[type[Frame]]:
    """Returns the frame classes that a program, not the framework, has defined here."""
    return [
        cls
        for name, cls in _frame_classes.items()
        if name.partition(":")[0].split(".")[0] not in _FRAMEWORK
    ]


def program_value_types() -> list[tuple[type[Any], ValueType]]:
    """Returns the other classes of a program whose values travel, and how."""
    if _unsearched:
        _search_annotations()
    return [
        (cls, entry)
        for cls, entry in list(_value_types.items())
        if cls.__module__.split(".")[0] not in _FRAMEWORK
    ]


def adopt_value_type(cls: type[Any], entry: ValueType) -> None:
    """Makes values of a class travel as they do in the process that `entry` comes from.

    Raises:
        ValueError: Another class has its key.
    """
    _add(cls, entry)


def value_class(key: Key) -> type[Any] | None:
    """Returns the class registered under a key, or None."""
    cls = _classes.get(key)
    if cls is None and _unsearched:
        _search_annotations()
        cls = _classes.get(key)
    return cls


def _search_annotations() -> None:
    """Registers the value types named in the annotations of the bot's own classes."""
    # Not done when the class is defined: its annotations may name what comes further down.
    while _unsearched:
        cls = _unsearched.pop()
        if dataclasses.is_dataclass(cls):
            for f in dataclasses.fields(cls):
                _register_named(field_type(f, cls))
        elif not issubclass(cls, Enum):
            for model_field in _model_fields(cls).values():
                _register_named(model_field.annotation)


def _register_named(annotation: object) -> None:
    waiting = [annotation]
    while waiting:
        item = waiting.pop()
        waiting += typing.get_args(item)
        if (
            not isinstance(item, type)
            or typing.get_origin(item) is not None
            or item in _value_types
            or wire_name(item) in _frame_classes
            or not _is_generic(item)
        ):
            continue
        _register(item, None)


def _model_fields(cls: Any) -> dict[str, Any]:
    fields: dict[str, Any] = cls.__pydantic_fields__
    return fields


class _Names(dict[str, Any]):
    """Names of a module; one that is imported for type checkers only stands for anything."""

    def __missing__(self, name: str) -> object:
        return Any


def field_type(field: dataclasses.Field[Any], cls: type[Any]) -> object:
    """Returns the type that a field's annotation means, `Any` where that cannot be told.

    Args:
        field: The field.
        cls: The class it was found in; it may come from one of the bases.
    """
    if not isinstance(field.type, str):
        return field.type
    owner = next(c for c in cls.__mro__ if field.name in inspect.get_annotations(c))
    module = sys.modules.get(owner.__module__)
    names = _Names({**vars(builtins), **(vars(module) if module is not None else {})})
    try:
        # The text is the program's own source; typing.get_type_hints does the same, but gives
        # up on the whole class for one name that is imported for type checkers only.
        return eval(field.type, {"__builtins__": {}}, names)  # noqa: S307
    except (TypeError, AttributeError, SyntaxError):
        # Something imported for type checkers only, used in a way that Any does not allow.
        return Any


def _enum_to_plain(value: Enum) -> object:
    return value.name


def _enum_from_plain(cls: type[Enum], plain: object) -> object:
    member = cls.__members__.get(plain) if isinstance(plain, str) else None
    if member is None:
        raise CodecError(f"{cls.__qualname__} has no member {plain!r}")
    return member


def _dataclass_to_plain(value: Any) -> object:
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}


def _dataclass_from_plain(cls: type[Any], plain: object) -> object:
    if not isinstance(plain, Mapping):
        raise CodecError(f"{cls.__qualname__} needs a map of its fields")
    value = object.__new__(cls)
    for f in dataclasses.fields(cls):
        if f.name in plain:
            item = plain[f.name]
        elif f.default is not dataclasses.MISSING:
            item = f.default
        elif f.default_factory is not dataclasses.MISSING:
            item = f.default_factory()
        else:
            raise CodecError(f"{cls.__qualname__}.{f.name} is missing")
        # Also right for frozen classes and for ones with slots.
        object.__setattr__(value, f.name, item)
    return value


def _model_to_plain(value: Any) -> object:
    return [
        {**value.__dict__, **(value.__pydantic_extra__ or {})},
        sorted(value.__pydantic_fields_set__),
    ]


def _model_from_plain(cls: Any, plain: object) -> object:
    if not (
        isinstance(plain, list)
        and len(plain) >= 2
        and isinstance(plain[0], dict)
        and isinstance(plain[1], list)
    ):
        raise CodecError(f"{cls.__qualname__} needs a map of its fields and their names")
    values, given = plain[:2]
    fields = _model_fields(cls)
    for name, f in fields.items():
        if name not in values and f.is_required():
            raise CodecError(f"{cls.__qualname__}.{name} is missing")
    if cls.model_config.get("extra") != "allow":
        values = {name: value for name, value in values.items() if name in fields}
    return cls.model_construct({name for name in given if name in values}, **values)
