"""Whether a processor the bot has built can be built again in another process."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Mapping
from typing import Any

import cloudpickle

from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.processors.relay import Blueprint
from antiphon.utils.base_object import BaseObject

# What linking, placing and event registration change on a processor after its construction.
_FRAMEWORK_STATE = frozenset(
    {
        "_blueprint",
        "_built_state",
        "_inbox",
        "_journal",
        "_local_inbox",
        "_next",
        "_parent",
        "_prev",
        "_recording",
        "_relay",
        "_takes_directly",
    }
)


class Unmovable(Exception):
    """A processor has to stay in the bot's process; the message says why."""


_WALK_DEPTH = 8
"""How deep in the arguments live objects are looked for; what lies deeper has to be pickled."""


def _refuse_live(value: Any, depth: int = 0, seen: set[int] | None = None) -> None:
    """Raises Unmovable for a value that must stay one object in the bot's process."""
    seen = set() if seen is None else seen
    if id(value) in seen or depth > _WALK_DEPTH:
        return
    seen.add(id(value))
    if isinstance(value, (types.FunctionType, types.MethodType)):
        if not _of_a_library(value):
            raise Unmovable(f"it was built with the bot's own function {value.__qualname__}")
        if isinstance(value, types.MethodType):
            _refuse_live(value.__self__, depth + 1, seen)
        return
    if isinstance(value, types.BuiltinMethodType):
        # `found.append` is a function of that very list.
        if value.__self__ is not None and not isinstance(value.__self__, (type, types.ModuleType)):
            raise Unmovable(f"it was built with the bot's own function {value.__qualname__}")
        return
    if isinstance(value, BaseObject):
        raise Unmovable(f"it was built with the live object {value.name}")
    if isinstance(value, OpenAILLMContext):
        raise Unmovable("it was built with the bot's conversation")
    if type(value).__module__.split(".")[0] in ("asyncio", "_asyncio"):
        # Some of these can be pickled, and would then be somebody else's.
        raise Unmovable(f"it was built with an asyncio {type(value).__name__}")
    if isinstance(value, (str, bytes, int, float, bool, type, types.ModuleType, type(None))):
        return
    if callable(value) and not isinstance(value, functools.partial):
        if not _of_a_library(type(value)):
            raise Unmovable(f"it was built with the bot's own {type(value).__qualname__}")
    inner: Iterable[Any]
    if isinstance(value, Mapping):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = value
    elif isinstance(value, functools.partial):
        inner = [value.func, *value.args, *value.keywords.values()]
    else:
        inner = list(getattr(value, "__dict__", {}).values())
    for item in inner:
        _refuse_live(item, depth + 1, seen)


def _of_a_library(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    importable = "<locals>" not in function.__qualname__ and "<lambda>" not in function.__qualname__
    return importable and module.split(".")[0] in ("antiphon", "antiphon_actors")


def class_may_move(cls: type[FrameProcessor]) -> str | None:
    """None if processors of this class may run elsewhere, else why not."""
    if cls.__module__.split(".")[0] == "antiphon":
        return None if cls.movable else cls.pinned_reason
    if "movable" in vars(cls):
        return None if cls.movable else "its class says movable = False"
    return "the bot's own class; `movable = True` in the class lets it move"


def class_cannot_move(cls: type[FrameProcessor]) -> str | None:
    """Why processors of this class would not work elsewhere, whoever asks for it; None if unknown.

    A class of Antiphon that names a reason of its own means it: such a processor could be built in
    another process, but the bot program would talk to the one that it has built.
    """
    if cls.movable or cls.pinned_reason == FrameProcessor.pinned_reason:
        return None
    return cls.pinned_reason


def pickle_blueprint(processor: FrameProcessor) -> bytes:
    """How to build the processor again.

    Raises:
        Unmovable: If that cannot be said in another process.
    """
    blueprint = processor._blueprint
    if blueprint is None:
        raise Unmovable("it was not built by calling its class")
    changed = _changed_attribute(processor)
    if changed is not None:
        raise Unmovable(f"its attribute {changed!r} was set after it was built")
    _refuse_live((blueprint.args, blueprint.kwargs))
    try:
        data: bytes = cloudpickle.dumps((blueprint.cls, blueprint.args, blueprint.kwargs))
    except Exception as error:  # whatever the bot's objects raise when they are pickled
        raise Unmovable(f"its constructor arguments cannot travel ({error})") from error
    return data


def unpickle_blueprint(data: bytes) -> Blueprint:
    """The blueprint that pickle_blueprint() wrote; only for data of this session's supervisor."""
    cls, args, kwargs = cloudpickle.loads(data)
    return Blueprint(cls, args, kwargs)


def _changed_attribute(processor: FrameProcessor) -> str | None:
    before = processor._built_state or {}
    for key, value in vars(processor).items():
        if key in _FRAMEWORK_STATE:
            continue
        if key not in before or before[key] is not value:
            return key
    return None
