"""Loads a bot file and runs its ``bot`` function."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
import tokenize
import traceback
import types
from dataclasses import dataclass
from pathlib import Path

import cloudpickle

import antiphon
import antiphon_actors
from antiphon.compat import aliases
from antiphon.errors import AntiphonError, ConfigError, SessionError
from antiphon.runner.types import RunnerArguments

_OWN_PACKAGES = tuple(
    str(Path(module.__file__ or "").parent) for module in (antiphon, antiphon_actors)
)


@dataclass(frozen=True)
class BotFile:
    """A bot file as it travels: its text, and where it was.

    Attributes:
        path: Its absolute path where it was read.
        source: Its text.
        pipecat: Whether ``pipecat`` is a name of Antiphon to it (`antiphon.compat`).
    """

    path: str
    source: str
    pipecat: aliases.Mode = "off"

    @property
    def directory(self) -> str:
        """The directory its own modules are imported from."""
        return str(Path(self.path).parent)

    @property
    def digest(self) -> str:
        """What tells this version of the file from others: a hash of its path and its text."""
        text = f"{self.path}\0{self.source}".encode()
        return hashlib.blake2b(text, digest_size=6).hexdigest()


class BotError(AntiphonError):
    """A bot program could not be loaded or failed; the message names file, place and cause."""


def read_bot_file(path: str | Path, pipecat: aliases.Mode = "off") -> BotFile:
    """Reads a bot file and checks that it is Python.

    Args:
        path: The file.
        pipecat: Whether ``pipecat`` is a name of Antiphon to it.

    Raises:
        ConfigError: If there is no such file, or it cannot be parsed.
    """
    file = Path(path)
    try:
        with tokenize.open(file) as text:  # decodes as Python itself does
            source = text.read()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; give the path of a bot file") from None
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"{path}: cannot be read as a bot file: {cause}") from error
    try:
        ast.parse(source, filename=str(path))
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid Python: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a null byte, absurd nesting
        raise ConfigError(f"{path}: not valid Python: {error}") from error
    return BotFile(str(file.resolve()), source, pipecat)


def load_bot(bot_file: BotFile) -> types.ModuleType:
    """Imports a bot file; each distinct text is imported once per process.

    Raises:
        BotError: If it does not import or has no ``async def bot(runner_args)``.
    """
    name = f"antiphon_bot_{bot_file.digest}"
    module = sys.modules.get(name)
    if module is None:
        try:
            aliases.adopt(bot_file.pipecat)
        except ConfigError as error:
            raise BotError(f"{bot_file.path}: {error}") from error
        module = _import(bot_file, name)
    bot = getattr(module, "bot", None)
    if bot is None:
        raise BotError(
            f"{bot_file.path}: has no function named bot; a bot file defines "
            "`async def bot(runner_args)`"
        )
    if not inspect.iscoroutinefunction(bot):
        raise BotError(
            f"{bot_file.path}: bot must be an async function: `async def bot(runner_args)`"
        )
    try:
        inspect.signature(bot).bind(None)
    except TypeError:
        raise BotError(
            f"{bot_file.path}: bot must take one argument: `async def bot(runner_args)`"
        ) from None
    return module


def _import(bot_file: BotFile, name: str) -> types.ModuleType:
    if bot_file.directory not in sys.path:
        sys.path.insert(0, bot_file.directory)
    spec = importlib.util.spec_from_loader(name, loader=None, origin=bot_file.path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = bot_file.path
    sys.modules[name] = module
    try:
        exec(compile(bot_file.source, bot_file.path, "exec"), vars(module))  # noqa: S102 - the user's program
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BotError(f"{bot_file.path}: does not import: {describe(error, bot_file)}") from error
    # Classes of the bot travel to actors by value: no actor has this module.
    cloudpickle.register_pickle_by_value(module)
    return module


async def run_bot(module: types.ModuleType, bot_file: BotFile, arguments: RunnerArguments) -> int:
    """Runs a bot to its end and returns its exit code.

    Raises:
        BotError: If it raised.
    """
    try:
        await module.bot(arguments)
    except SystemExit as exit_:
        if isinstance(exit_.code, int):
            return exit_.code
        if exit_.code is None:
            return 0
        print(exit_.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
        return 1
    except Exception as error:
        raise BotError(f"{bot_file.path}: bot() failed: {describe(error, bot_file)}") from error
    return 0


def describe(error: BaseException, bot_file: BotFile) -> str:
    """An exception in one line, with the last place of the bot's own files it passed."""
    if isinstance(error, SessionError):
        return str(error)  # about something elsewhere; it says where
    if isinstance(error, AntiphonError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    own = [
        place
        for place in traceback.extract_tb(error.__traceback__)
        if place.filename == bot_file.path or _beside(place.filename, bot_file)
    ]
    if own:
        text += f" ({own[-1].filename}:{own[-1].lineno})"
    return text


def is_part_of(module: types.ModuleType, bot_file: BotFile) -> bool:
    """Whether a module is a bot's file, or one that it brought along."""
    filename = getattr(module, "__file__", None) or ""
    return filename == bot_file.path or _beside(filename, bot_file)


def _beside(filename: str, bot_file: BotFile) -> bool:
    """Whether a file is one of the modules the bot brought along."""
    return (
        filename.startswith(f"{bot_file.directory}/")
        and "site-packages" not in filename
        and not filename.startswith(_OWN_PACKAGES)
    )
