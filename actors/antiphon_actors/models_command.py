"""Shows and downloads the files of models: ``antiphon models``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from antiphon.errors import ConfigError
from antiphon.models import files
from antiphon.models.files import ModelFiles
from antiphon.services.piper._names import VOICES_REPO, is_voice, voice_files
from antiphon.services.whisper._names import SIZES, Model, whisper_files


@dataclass(frozen=True)
class Installed:
    """A model that is on this machine.

    Attributes:
        name: What services, and ``antiphon models pull``, call it.
        kind: What it is for.
        path: Where it lies.
        size: Of its files, in bytes.
    """

    name: str
    kind: str
    path: Path
    size: int


def model_files(name: str) -> ModelFiles:
    """The files behind a name, of whatever kind the model is.

    Raises:
        ConfigError: No kind of model has such names.
    """
    if is_voice(name):
        return voice_files(name)
    if "/" in name or name in SIZES:
        return whisper_files(name)
    raise ConfigError(
        f"there is no model {name!r}: give a Whisper model ({', '.join(SIZES)}, or a repository as "
        "owner/name), or a Piper voice (like en_US-lessac-medium)"
    )


async def pull_models(names: Sequence[str], console: Console) -> None:
    """Downloads models, one after the other; what is here already is only compared with the hub.

    Args:
        names: Which.
        console: Where progress shows.

    Raises:
        ConfigError: There is no such model, or the machine is offline.
        ServiceError: The hub cannot be reached or failed, or a checksum is wrong.
    """
    wanted = [model_files(name) for name in names]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        for model in wanted:
            task = progress.add_task(model.name, total=None)

            def show(state: files.Progress, task: TaskID = task) -> None:
                progress.update(task, completed=state.done_bytes, total=state.total_bytes)

            directory = await files.pull(model, show)
            progress.remove_task(task)
            console.print(
                f"{model.name} is in {directory / Path(model.files[-1]).parent}",
                highlight=False,
                soft_wrap=True,
            )


def installed_models() -> list[Installed]:
    """The models that are on this machine, in Antiphon's folder and in the hub's own."""
    return sorted([*_whisper_models(), *_voices()], key=lambda one: (one.kind, one.name))


def models_table(models: Sequence[Installed]) -> Table:
    """Shows models as a table."""
    table = Table(box=None)
    for column in ("model", "kind", "size", "where"):
        table.add_column(column, overflow="fold")
    for one in models:
        table.add_row(one.name, one.kind, f"{one.size / 1e6:,.0f} MB", str(one.path))
    return table


def _whisper_models() -> Iterator[Installed]:
    names = [*SIZES, *(model.value for model in Model if "/" in model.value)]
    folders: dict[Path, str] = {}
    for name in names:
        if (found := files.find(whisper_files(name))) is not None:
            folders.setdefault(found, name)
    root = files.models_directory()
    for model in root.glob("*/*/model.bin"):
        folders.setdefault(model.parent, str(model.parent.relative_to(root)))
    for folder, name in folders.items():
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        yield Installed(name, "Whisper", folder, size)


def _voices() -> Iterator[Installed]:
    root = files.models_directory() / VOICES_REPO
    for model in root.rglob("*.onnx"):
        description = model.with_name(f"{model.name}.json")
        if is_voice(model.stem) and description.is_file():
            size = model.stat().st_size + description.stat().st_size
            yield Installed(model.stem, "Piper", model.parent, size)
