"""How models run, as an operator's file says it: `ModelSettings` in TOML, and in the plain form of it.

The keys are the fields of the settings. Models to preload have names there (`names.model_named`), since a
class cannot be written down.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from antiphon.errors import ConfigError
from antiphon.models.model import ModelSpec
from antiphon_actors.models.names import class_named, model_named
from antiphon_actors.models.settings import ModelRule, ModelSettings, Scaling

_PRELOAD = "preload"
_CLASSES = {(): ModelSettings, ("rules",): ModelRule, ("rules", "scaling"): Scaling}
"""The classes of the settings, by where they stand."""

_ADAPTER = TypeAdapter(ModelSettings)


def read_settings(path: Path) -> ModelSettings:
    """Reads a file of settings.

    Raises:
        ConfigError: It cannot be read, or is wrong; where, and what is allowed there.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--models {path}: {error.strerror or error}") from error
    except ValueError as error:  # of the encoding, too
        raise ConfigError(f"--models {path}: this is not TOML: {error}") from error
    try:
        settings = settings_of_plain(plain)
        _check_preload(settings)
    except ConfigError as error:
        raise ConfigError(f"--models {path}: {error}") from error
    return settings


def settings_of_plain(plain: Mapping[str, Any]) -> ModelSettings:
    """Settings from maps and lists of plain data.

    Raises:
        ConfigError: A key or a value is wrong; which, and what is allowed.
    """
    rest = {name: value for name, value in plain.items() if name != _PRELOAD}
    _check_keys(rest, ())
    try:
        settings = _ADAPTER.validate_python(rest)
    except ValidationError as error:
        raise ConfigError(_reasons(error)) from error
    return replace(settings, preload=_preload(plain.get(_PRELOAD, [])))


def settings_to_plain(settings: ModelSettings) -> dict[str, Any]:
    """The plain form of settings, from which `settings_of_plain` makes equal ones.

    Raises:
        ConfigError: The class of a model cannot be found by its name.
    """
    plain: dict[str, Any] = _ADAPTER.dump_python(settings, mode="json", exclude={_PRELOAD})
    return {**plain, _PRELOAD: [_preload_to_plain(spec) for spec in settings.preload]}


def _check_preload(settings: ModelSettings) -> None:
    """Raises for a model whose actors nobody would use."""
    for spec in settings.preload:
        if not settings.in_actor(spec.model):
            raise ConfigError(
                f"{_PRELOAD}: {spec.name} runs in the processes that use it, and not in actors; that "
                f'takes a rule: [[rules]] match = "{spec.name}", place = "actor"'
            )


def _preload(items: object) -> tuple[ModelSpec, ...]:
    if not isinstance(items, list):
        raise ConfigError(f"{_PRELOAD}: this has to be a list of models")
    return tuple(_one_to_preload(item, f"{_PRELOAD}[{n}]") for n, item in enumerate(items))


def _one_to_preload(item: object, where: str) -> ModelSpec:
    match item:
        case str(name):
            options: Mapping[str, Any] = {}
        case {"model": str(name), "options": Mapping() as options, **rest} if not rest:
            pass
        case _:
            raise ConfigError(
                f"{where}: give the name of a model, or "
                '{ model = "NAME", options = { OPTION = VALUE } }'
            )
    try:
        return model_named(name, options)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _preload_to_plain(spec: ModelSpec) -> dict[str, Any]:
    name = f"{spec.model.__module__}:{spec.model.__qualname__}"
    if class_named(name) is not spec.model:
        raise ConfigError(f"{_PRELOAD}: {name} is another class than the one to be loaded")
    return {"model": name, "options": dict(spec.options)}


def _check_keys(value: object, where: tuple[str, ...], shown: str = "") -> None:
    """Raises for a key that none of the settings has; their values are checked elsewhere."""
    known = _CLASSES.get(where)
    if known is None:
        return
    if isinstance(value, Sequence) and not isinstance(value, str):
        for number, item in enumerate(value):
            _check_keys(item, where, f"{shown}[{number}]")
    elif isinstance(value, Mapping):
        names = [field.name for field in fields(known)]
        for name, inner in value.items():
            key = f"{shown}.{name}" if shown else str(name)
            if name not in names:
                raise ConfigError(f"{key}: unknown; allowed are {', '.join(names)}")
            _check_keys(inner, (*where, name), key)


def _reasons(error: ValidationError) -> str:
    found = []
    for each in error.errors(include_url=False, include_context=False):
        where = ""
        for part in each["loc"]:
            where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else part
        if each["type"] == "missing":
            found.append(f"{where}: this is needed")
        else:
            wrong = each["msg"].replace("a valid tuple", "a list")
            found.append(f"{where}: {wrong}, and not {each['input']!r}")
    return "; ".join(found)
