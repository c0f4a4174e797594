"""Lets ``pipecat`` and ``pipecat_flows`` be imported as Antiphon.

``import pipecat.a.b`` gives the module ``antiphon.a.b`` itself, under two names in ``sys.modules``.
So there is one class of each name: ``isinstance``, patching and pickling work whichever name is
used, and a pickle names Antiphon.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from antiphon.errors import ConfigError

SHADOW_VARIABLE = "ANTIPHON_SHADOW_PIPECAT"
"""Environment variable that, set to 1, lets an installed Pipecat be shadowed."""

Mode = Literal["off", "on", "shadow"]
"""Whether the names are Antiphon's here, and whether although Pipecat is installed."""

_TARGETS = {"pipecat": "antiphon", "pipecat_flows": "antiphon.flows"}
_ANYTHING = DistributionFinder.Context()
# The releases whose interface this is, for programs that ask which is installed.
_VERSIONS = {"pipecat-ai": "0.0.79", "pipecat-ai-flows": "0.0.19"}


def install(*, shadow: bool | None = None) -> None:
    """Makes ``pipecat`` and ``pipecat_flows`` names of Antiphon in this process.

    A second call changes nothing.

    Args:
        shadow: Whether to do so although Pipecat itself is installed; None to do what the
            environment variable ``ANTIPHON_SHADOW_PIPECAT`` says.

    Raises:
        ConfigError: Pipecat is installed and not to be shadowed, or has been imported already.
    """
    if _installed() is not None:
        return
    if shadow is None:
        shadow = shadowing_wanted()
    for name in _TARGETS:
        if name in sys.modules:
            raise ConfigError(
                f"{name} itself has been imported already: import antiphon.compat.pipecat before it"
            )
        if not shadow and importlib.util.find_spec(name) is not None:
            raise ConfigError(
                f"{name} itself is installed here, and would be shadowed by Antiphon: uninstall "
                f"it, or set {SHADOW_VARIABLE}=1 to have Antiphon instead"
            )
    sys.meta_path.insert(0, _AliasFinder(shadow=shadow))
    importlib.invalidate_caches()


def uninstall() -> None:
    """Takes the names away again; what was imported by them stays usable."""
    sys.meta_path[:] = [found for found in sys.meta_path if not isinstance(found, _AliasFinder)]
    for name in list(sys.modules):
        if name.partition(".")[0] in _TARGETS:
            del sys.modules[name]


def mode() -> Mode:
    """How the names are used in this process, for another one to do the same."""
    finder = _installed()
    if finder is None:
        return "off"
    return "shadow" if finder.shadow else "on"


def adopt(mode: Mode) -> None:
    """Does as another process does.

    Raises:
        ConfigError: Pipecat is installed here and not to be shadowed.
    """
    if mode != "off":
        install(shadow=mode == "shadow")


def shadowing_wanted() -> bool:
    """Whether the environment says that an installed Pipecat may be shadowed."""
    return os.environ.get(SHADOW_VARIABLE, "").lower() in ("1", "true", "yes")


def _installed() -> _AliasFinder | None:
    return next((found for found in sys.meta_path if isinstance(found, _AliasFinder)), None)


class _AliasFinder(DistributionFinder):
    """Finds Antiphon's modules by Pipecat's names."""

    def __init__(self, *, shadow: bool) -> None:
        self.shadow = shadow

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module ``antiphon.a.b`` for ``pipecat.a.b``.

        Raises:
            ModuleNotFoundError: Antiphon has no such module.
        """
        top, _, rest = fullname.partition(".")
        if top not in _TARGETS:
            return None
        ours = f"{_TARGETS[top]}.{rest}" if rest else _TARGETS[top]
        found = importlib.util.find_spec(ours)  # the parents have been imported
        if found is None:
            raise ModuleNotFoundError(
                f"Antiphon has no module {ours}, so {fullname} cannot be imported; docs/status.md "
                "lists what exists",
                name=fullname,
            )
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _AliasLoader(ours), origin=found.origin, is_package=is_package)

    def find_distributions(
        self, context: DistributionFinder.Context = _ANYTHING
    ) -> Iterator[Distribution]:
        """The release whose interface this is, if it is asked for by name."""
        name = (context.name or "").lower().replace("_", "-").replace(".", "-")
        if name in _VERSIONS:
            yield _Release(name)


class _AliasLoader(Loader):
    def __init__(self, ours: str) -> None:
        self._ours = ours

    def create_module(self, spec: ModuleSpec) -> None:
        """Lets the import machinery make its own module, which is then put aside."""
        # Given the real module it would replace the module's own spec.

    def exec_module(self, module: ModuleType) -> None:
        """Puts Antiphon's module in place: an import gives what is in ``sys.modules`` then."""
        sys.modules[module.__name__] = importlib.import_module(self._ours)


class _Release(Distribution):
    def __init__(self, name: str) -> None:
        self._name = name

    def read_text(self, filename: str) -> str | None:
        """The metadata; there are no other files."""
        if filename != "METADATA":
            return None
        return f"Metadata-Version: 2.1\nName: {self._name}\nVersion: {_VERSIONS[self._name]}\n"

    def locate_file(self, path: Any) -> Any:
        """A file of the release would be beside Antiphon's; there is none."""
        return Path(__file__).parents[2] / path
