"""Antiphon's modules under Pipecat's names."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pickle
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from antiphon.compat import aliases
from antiphon.errors import ConfigError

SAMPLES = Path(__file__).parent / "samples"
BLOCKS = (SAMPLES / "imports.txt").read_text().split("\n\n")[1:]


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    aliases.uninstall()
    sys.modules.pop("antiphon.compat.pipecat", None)


@pytest.fixture
def pipecat() -> None:
    importlib.import_module("antiphon.compat.pipecat")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which Pipecat itself is installed."""
    (tmp_path / "pipecat").mkdir()
    (tmp_path / "pipecat" / "__init__.py").write_text("WHOSE = 'their own'\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("pipecat")
@pytest.mark.parametrize("block", BLOCKS, ids=lambda text: text.split()[1])
def test_the_imports_of_programs_for_pipecat_work(block: str) -> None:
    names: dict[str, object] = {}
    exec(block, names)
    for name, value in names.items():
        if isinstance(value, type):
            assert value.__module__.startswith("antiphon."), name


@pytest.mark.usefixtures("pipecat")
def test_modules_are_the_same_objects() -> None:
    import antiphon.flows.types
    import antiphon.frames.frames

    ours = antiphon.frames.frames
    theirs = importlib.import_module("pipecat.frames.frames")
    assert theirs is ours
    assert importlib.import_module("pipecat") is antiphon
    assert importlib.import_module("pipecat_flows") is antiphon.flows
    assert importlib.import_module("pipecat_flows.types") is antiphon.flows.types
    assert ours.__name__ == "antiphon.frames.frames"
    assert ours.__spec__ is not None
    assert ours.__spec__.name == "antiphon.frames.frames"


@pytest.mark.usefixtures("pipecat")
def test_a_patch_by_either_name_is_seen_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    from antiphon.utils import time

    monkeypatch.setattr("pipecat.utils.time.time_now_iso8601", lambda: "now")
    assert time.time_now_iso8601() == "now"


@pytest.mark.usefixtures("pipecat")
def test_a_module_imported_for_the_first_time_by_its_other_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = (f"{top}.processors.aggregators.vision_image_frame" for top in
                    ("antiphon", "pipecat"))  # fmt: skip
    monkeypatch.delitem(sys.modules, ours, raising=False)
    module = importlib.import_module(theirs)
    assert sys.modules[ours] is sys.modules[theirs] is module
    assert importlib.import_module(ours) is module


@pytest.mark.usefixtures("pipecat")
def test_reloading_keeps_one_module() -> None:
    module = importlib.import_module("pipecat.utils.string")
    assert importlib.reload(module) is module
    assert sys.modules["pipecat.utils.string"] is sys.modules["antiphon.utils.string"] is module
    importlib.reload(importlib.import_module("antiphon.compat.pipecat"))
    assert sum(isinstance(finder, aliases._AliasFinder) for finder in sys.meta_path) == 1


@pytest.mark.usefixtures("pipecat")
def test_pickles_name_antiphon() -> None:
    frame = importlib.import_module("pipecat.frames.frames").TextFrame
    for pickler in (pickle, cloudpickle):
        data = pickler.dumps(frame)
        assert b"antiphon" in data
        assert b"pipecat" not in data
    # A pickle made where Pipecat was used is read as Antiphon's.
    assert pickle.loads(b"cpipecat.frames.frames\nTextFrame\n.") is frame


@pytest.mark.usefixtures("pipecat")
def test_looking_around() -> None:
    assert importlib.util.find_spec("pipecat.clocks") is not None
    package = importlib.import_module("pipecat")
    names = [found.name for found in pkgutil.iter_modules(package.__path__, "pipecat.")]
    assert {"pipecat.frames", "pipecat.processors"} <= set(names)
    assert pkgutil.resolve_name("pipecat.frames.frames:TextFrame").__name__ == "TextFrame"


@pytest.mark.usefixtures("pipecat")
def test_the_release_can_be_asked_for() -> None:
    assert importlib.metadata.version("pipecat-ai") == "0.0.79"
    assert importlib.metadata.version("pipecat_ai_flows")
    assert importlib.metadata.metadata("pipecat-ai")["Name"] == "pipecat-ai"
    assert importlib.metadata.version("antiphon") != "0.0.79"
    listed = {found.metadata["Name"] for found in importlib.metadata.distributions()}
    assert "pipecat-ai" not in listed
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("pipecat-ai-other")


@pytest.mark.usefixtures("pipecat")
@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("pipecat.nothing", "antiphon.nothing"),
        ("pipecat.services.nothing.llm", "antiphon.services.nothing"),
        ("pipecat_flows.nothing", "antiphon.flows.nothing"),
    ],
)
def test_what_antiphon_lacks_is_said(name: str, missing: str) -> None:
    with pytest.raises(ImportError, match=rf"Antiphon has no module {missing}.*docs/status.md"):
        importlib.import_module(name)
    assert not [found for found in sys.modules if found.startswith(name)]


def test_without_the_import_nothing_is_found() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'pipecat'"):
        importlib.import_module("pipecat")
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("pipecat-ai")


@pytest.mark.usefixtures("installed")
def test_an_installed_pipecat_is_not_shadowed() -> None:
    with pytest.raises(ConfigError, match="ANTIPHON_SHADOW_PIPECAT=1"):
        importlib.import_module("antiphon.compat.pipecat")
    assert importlib.import_module("pipecat").WHOSE == "their own"
    with pytest.raises(ConfigError, match="imported already"):
        aliases.install(shadow=True)


@pytest.mark.usefixtures("installed")
def test_an_installed_pipecat_is_shadowed_by_argument() -> None:
    import antiphon

    aliases.install(shadow=True)
    assert importlib.import_module("pipecat") is antiphon
    assert aliases.mode() == "shadow"


@pytest.mark.usefixtures("installed")
def test_an_installed_pipecat_is_shadowed_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import antiphon

    monkeypatch.setenv(aliases.SHADOW_VARIABLE, "1")
    importlib.import_module("antiphon.compat.pipecat")
    assert importlib.import_module("pipecat") is antiphon


def test_another_process_does_the_same() -> None:
    assert aliases.mode() == "off"
    aliases.adopt("off")
    assert aliases.mode() == "off"
    aliases.adopt("on")
    assert aliases.mode() == "on"
