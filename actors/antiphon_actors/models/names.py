"""Models by the names that operators give them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from antiphon.audio.vad.silero import SHARED_MODEL
from antiphon.errors import ConfigError
from antiphon.models.model import Model, ModelSpec
from antiphon.services.piper._engine import piper_spec
from antiphon.services.piper._names import is_voice
from antiphon.services.whisper._engine import whisper_spec
from antiphon.services.whisper._names import SIZES


def model_named(name: str, options: Mapping[str, Any]) -> ModelSpec:
    """The model behind a name, as the services that use it ask for it.

    Args:
        name: "silero"; a Whisper model or a Piper voice as ``antiphon models pull`` calls it; or
            "module:Class" of any other.
        options: What the service, or the class, is given that differs from its defaults.

    Raises:
        ConfigError: There is no such model, or it has no such option.
    """
    if name == "silero":
        _check_options(name, lambda: SHARED_MODEL, options)
        return SHARED_MODEL
    if ":" in name:
        model = class_named(name)
        _check_options(name, model, options)
        return ModelSpec(model, dict(options))
    if is_voice(name):
        make = partial(piper_spec, name)
    elif "/" in name or name in SIZES:
        make = partial(whisper_spec, name)
    else:
        raise ConfigError(
            f"there is no model {name!r}: give silero, a Whisper model ({', '.join(SIZES)}, or a "
            "repository as owner/name), a Piper voice (like en_US-lessac-medium), or module:Class"
        )
    _check_options(name, make, options)
    return make(**options)


def class_named(name: str) -> type[Model]:
    """The class of a model.

    Args:
        name: As "module:Class".

    Raises:
        ConfigError: There is no such class of a model.
    """
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the model {name} cannot be imported here: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ConfigError(f"{name} is no subclass of antiphon.models.model.Model")
    return found


def _check_options(name: str, maker: Callable[..., Any], options: Mapping[str, Any]) -> None:
    signature = inspect.signature(maker)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ConfigError(f"options of the model {name}: {error}; it has {known}") from error
