"""What several commands of the ``antiphon`` command line have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.console import Console

from antiphon.compat import aliases
from antiphon.errors import ConfigError
from antiphon_actors.placement.policy import PRESETS, Placement, Preset

if TYPE_CHECKING:
    from antiphon_actors.models.settings import ModelSettings

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")

err = Console(stderr=True, highlight=False)

BotArgument = Annotated[
    Path, typer.Argument(metavar="BOT.PY", help="A file with `async def bot(runner_args)`.")
]
PlacementOption = Annotated[
    str | None,
    typer.Option(
        "--placement",
        metavar="|".join(PRESETS),
        help="Where processors run: shared actors, an actor each, or all beside the bot program. "
        "Default: `placement` of the bot file, else pooled.",
    ),
]

PipecatOption = Annotated[
    bool,
    typer.Option("--pipecat", help="Let the bot import Antiphon as `pipecat`, `pipecat_flows`."),
]

ModelsOption = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="FILE",
        help="How models that sessions share run: a TOML file, see docs/models.md.",
    ),
]


def preset_of(value: str | None) -> Preset | None:
    """The placement that an option names.

    Raises:
        ConfigError: There is none of that name.
    """
    if value is None:
        return None
    if value not in get_args(Preset):
        raise ConfigError(f"--placement {value}: choose one of {', '.join(PRESETS)}")
    return cast(Preset, value)


def placement_of(value: str | None) -> Placement | None:
    """The same as a session is told."""
    preset = preset_of(value)
    return Placement(preset) if preset is not None else None


def pipecat_mode(wanted: bool) -> aliases.Mode:
    """Whether a bot file may import Antiphon as ``pipecat``, as it travels with the file."""
    if not wanted:
        return "off"
    return "shadow" if aliases.shadowing_wanted() else "on"


def log_level_of(value: str) -> str:
    """The log level that an option names.

    Raises:
        ConfigError: There is none of that name.
    """
    level = value.upper()
    if level not in LOG_LEVELS:
        raise ConfigError(f"--log-level {value}: choose one of {', '.join(LOG_LEVELS)}")
    return level


def model_settings_of(path: Path | None) -> ModelSettings | None:
    """How models run, as the file says that an option names.

    Raises:
        ConfigError: It cannot be read, or is wrong.
    """
    if path is None:
        return None
    # It takes a while to import, and few need it.
    from antiphon_actors.models.settings_file import read_settings

    return read_settings(path)


def show_error(text: str) -> None:
    """Shows an error on standard error, one message."""
    err.print(f"error: {text}", style="red", markup=False, soft_wrap=True)
