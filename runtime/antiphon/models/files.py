"""Files of models: where they lie on this machine, and how they get there.

A model's files are looked for in ``ANTIPHON_MODELS`` (``~/.cache/antiphon/models`` if it is not set)
and then in the cache of the hub's own tools (``HF_HOME``). What is in neither is downloaded to the
first, at the first use or by ``antiphon models pull``. Below it the folders are those of the hub:
``<owner>/<repository>/<path>``, so files that were copied there by hand are found as well.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from loguru import logger

from antiphon.errors import ConfigError, ServiceError
from antiphon.models._hub import Hub, endpoint

_OFFLINE_VARIABLES = ("ANTIPHON_OFFLINE", "HF_HUB_OFFLINE")
_TRUE = {"1", "true", "yes", "on"}
_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
# Another process may be downloading some gigabytes.
_LOCK_SECS = 3600.0
_LOCK_LOOK_SECS = 0.2
_LOG_EVERY_SECS = 10.0
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files that a model consists of.

    Attributes:
        name: What the user calls the model; ``antiphon models pull`` understands it.
        repo: The repository of the hub that has it, ``owner/name``.
        files: Paths in the repository. The last one is the model itself, which is downloaded when
            all others are there: if it is there, so are they.
        optional: Paths that some repositories of this kind have.
    """

    name: str
    repo: str
    files: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what is no repository.

        Raises:
            ConfigError: If ``repo`` is not of the form ``owner/name``.
        """
        if not _REPO.fullmatch(self.repo):
            raise ConfigError(f"{self.repo!r} is no repository: write owner/name")

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return f"{endpoint()}/{self.repo}"

    @property
    def directory(self) -> Path:
        """Where its files lie, or would."""
        return models_directory() / self.repo


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the download of a model is.

    Attributes:
        name: The model.
        done_bytes: What is here.
        total_bytes: What there is.
    """

    name: str
    done_bytes: int
    total_bytes: int


def models_directory() -> Path:
    """Where downloaded models lie: ``ANTIPHON_MODELS``, or a folder in the user's cache."""
    if chosen := os.environ.get("ANTIPHON_MODELS"):
        return Path(chosen).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "antiphon" / "models"


def find(model: ModelFiles) -> Path | None:
    """Looks for a model on this machine, without the network.

    Returns:
        The folder below which its files lie, by their paths in the repository; None if it is not
        here, or not all of it.
    """
    directory = model.directory
    if all((directory / path).is_file() for path in model.files):
        return directory
    return _find_in_cache_of_hub(model)


def ensure(model: ModelFiles) -> Path:
    """Finds a model, or downloads it. Blocks: call it where a model is loaded, in a thread.

    The download is told in the log. It cannot be cancelled, but what has come stays.

    Returns:
        The folder below which its files lie.

    Raises:
        ConfigError: It is not here, and the machine is offline, or the hub does not have it.
        ServiceError: The download failed.
    """
    if (found := find(model)) is not None:
        return found
    try:
        return asyncio.run(pull(model, _log_progress()))
    except ServiceError as error:
        raise ServiceError(
            f"the model {model.name!r} is not in {model.directory}, and {error}. It comes from "
            f"{model.source}; `antiphon models pull {model.name}` downloads it ahead",
            retryable=error.retryable,
            provider=error.provider,
        ) from error


async def pull(model: ModelFiles, on_progress: Callable[[Progress], None] | None = None) -> Path:
    """Makes the model on this machine the same as on the hub, and downloads what is not.

    Of several processes that want the same model one downloads it, and the others wait. A download
    that was broken off is gone on with. If this is cancelled, what has come stays.

    Args:
        model: Which.
        on_progress: Called again and again.

    Returns:
        The folder below which its files lie.

    Raises:
        ConfigError: The machine is offline, or the hub does not have the model.
        ServiceError: The hub cannot be reached or failed, a checksum is wrong, or another process
            has been downloading for an hour.
        OSError: The files cannot be written.
    """
    refuse_offline(model)
    directory = model.directory
    async with _lock(directory), Hub() as hub:
        remote = {
            file.path: file
            for file in await hub.describe(model.repo, [*model.optional, *model.files])
        }
        if missing := [path for path in model.files if path not in remote]:
            raise ConfigError(
                f"{model.source} has no {missing[0]}: {model.name!r} is no model of that kind"
            )
        ordered = [remote[p] for p in (*model.optional, *model.files) if p in remote]
        done, total = 0, sum(file.size for file in ordered)
        wanted = []
        for file in ordered:
            if file.is_at(directory / file.path):
                done += file.size
            else:
                wanted.append(file)
        _check_space(directory, sum(file.size for file in wanted))
        for file in wanted:
            before = done

            def tell(here: int, before: int = before) -> None:
                if on_progress is not None:
                    on_progress(Progress(model.name, before + here, total))

            await hub.download(model.repo, file, directory / file.path, tell)
            done += file.size
    return directory


def offline_variable() -> str | None:
    """The variable of the environment that says that there is no network; None if none does."""
    for variable in _OFFLINE_VARIABLES:
        if os.environ.get(variable, "").strip().lower() in _TRUE:
            return variable
    return None


def refuse_offline(model: ModelFiles) -> None:
    """Says what is missing, where it comes from and what to do, if there is no network to get it.

    Raises:
        ConfigError: The machine is offline.
    """
    if (variable := offline_variable()) is None:
        return
    missing = [path for path in model.files if not (model.directory / path).is_file()]
    what = missing[-1] if missing else model.files[-1]
    raise ConfigError(
        f"the model {model.name!r} cannot be downloaded, as {variable} is set: {what} is not in "
        f"{model.directory}. It comes from {model.source}: run `antiphon models pull {model.name}` "
        "with a network, and copy the folder if that was elsewhere"
    )


def _find_in_cache_of_hub(model: ModelFiles) -> Path | None:
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = None
    for path in model.files:
        cached = try_to_load_from_cache(model.repo, path)
        if not isinstance(cached, str):
            return None
        found = Path(cached).parents[path.count("/")]
    return found


@asynccontextmanager
async def _lock(directory: Path) -> AsyncIterator[None]:
    """Holds the model's lock, over processes; the system frees that of a process that ends.

    Raises:
        ServiceError: Another process has held it for an hour.
    """
    deadline = time.monotonic() + _LOCK_SECS
    with _open_lock(directory) as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            if not told:
                told = True
                logger.info("another process downloads this model, waiting", path=str(directory))
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"another process has been downloading to {directory} for an hour: "
                    f"find out which one holds {file.name} and end it"
                )
            await asyncio.sleep(_LOCK_LOOK_SECS)
        yield


def _open_lock(directory: Path) -> BinaryIO:
    directory.mkdir(parents=True, exist_ok=True)
    return (directory / ".lock").open("ab")


def _check_space(directory: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed_bytes and needed_bytes + _SPARE_BYTES > free:
        raise ConfigError(
            f"{directory} has {free / 1e6:,.0f} MB free, and {needed_bytes / 1e6:,.0f} MB are to be "
            "downloaded: make room, or set ANTIPHON_MODELS to another disk"
        )


def _log_progress() -> Callable[[Progress], None]:
    last: float | None = None

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        megabytes = round(progress.total_bytes / 1e6)
        if last is None:
            # Whoever has started a bot wonders why it does not begin.
            logger.warning(
                "a model is being downloaded for its first use",
                model=progress.name,
                megabytes=megabytes,
            )
        elif now - last < _LOG_EVERY_SECS and progress.done_bytes < progress.total_bytes:
            return
        else:
            percent = round(100 * progress.done_bytes / max(1, progress.total_bytes))
            logger.info("model download", model=progress.name, percent=percent)
        last = now

    return tell
