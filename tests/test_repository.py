"""Promises of the repository as a whole."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parent.parent
_SOURCE_ROOTS = {"antiphon": _ROOT / "runtime", "antiphon_actors": _ROOT / "actors"}
# Ours, and what only type checkers see.
_IMPORTABLE = {*_SOURCE_ROOTS, "_typeshed"}
# Their packages depend on what the machine has.
_UNLOCKED_EXTRAS = {"local-smart-turn", "mlx-whisper"}
_NOT_OURS = {".git", ".venv", ".hypothesis", "__pycache__", "out", "build", "dist"}
_MAX_MODULE_LINES = 700

# Paths of one machine and hosts of packages. A class of one letter keeps this file out.
_FORBIDDEN = re.compile(
    r"/[w]ork/(main|shared)|/[t]mp/w/|/[r]oot/|[p]ypi\.org|[p]ythonhosted\.|[n]pmjs\.|[d]ebian\.org"
)

# What a bot's process must not pay for until a service starts.
_HEAVY = [
    "ctranslate2",
    "elevenlabs",
    "faster_whisper",
    "google.genai",
    "grpc",
    "huggingface_hub",
    "matplotlib",
    "mlx_whisper",
    "nltk",
    "onnxruntime",
    "openai",
    "piper",
    "pocketsphinx",
    "ray",
    "scipy",
    "torch",
    "transformers",
]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((_ROOT / "pyproject.toml").read_text())


def _files() -> Iterator[Path]:
    for folder, folders, names in os.walk(_ROOT):
        folders[:] = [
            name for name in folders if name not in _NOT_OURS and not name.endswith("_cache")
        ]
        for name in names:
            yield Path(folder, name)


def _modules(package: str) -> list[str]:
    root = _SOURCE_ROOTS[package]
    found = []
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in found if not name.endswith("__main__")]


def test_no_file_names_a_machine_or_a_package_host() -> None:
    found = []
    for path in _files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # sounds and models
        found += [
            f"{path.relative_to(_ROOT)}: {word}"
            for word in sorted({match.group() for match in _FORBIDDEN.finditer(text)})
        ]
    assert not found


def test_modules_stay_readable() -> None:
    sizes = {
        str(path.relative_to(_ROOT)): len(path.read_text().splitlines())
        for path in _files()
        if path.suffix == ".py"
    }
    assert not {name: lines for name, lines in sizes.items() if lines > _MAX_MODULE_LINES}


def test_every_folder_of_modules_is_a_package() -> None:
    found = []
    for package, root in _SOURCE_ROOTS.items():
        folders = {path.parent for path in (root / package).rglob("*.py")}
        found += [
            str(folder.relative_to(_ROOT))
            for folder in folders
            if not (folder / "__init__.py").is_file()
        ]
    assert not found


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    import antiphon

    if antiphon.__version__ == "0.0.0":
        pytest.skip("antiphon is not installed here")
    version = project["project"]["version"]
    assert antiphon.__version__ == version
    assert re.search(
        rf"^## \[?({re.escape(version)}|Unreleased)", _read("CHANGELOG.md"), re.MULTILINE
    )


def test_links_between_documents_lead_somewhere() -> None:
    dead = []
    for path in _files():
        if path.suffix != ".md":
            continue
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (path.parent / target).exists():
                dead.append(f"{path.relative_to(_ROOT)}: {target}")
    assert not dead


def test_the_console_command_is_declared(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {"antiphon": "antiphon_actors.cli:main"}


def test_the_lock_has_hashes_and_names_no_host(project: dict[str, Any]) -> None:
    lock = _read("requirements.lock")
    assert "://" not in lock
    requirements = re.split(r"\n(?=\S)", lock.strip())
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    locked = {_normal(requirement) for requirement in requirements}
    declared = {_normal(text) for text in project["project"]["dependencies"]}
    declared |= {_normal(text) for text in project["dependency-groups"]["dev"]}
    for name, extra in project["project"]["optional-dependencies"].items():
        if name not in _UNLOCKED_EXTRAS:
            declared |= {_normal(text) for text in extra}
    assert declared <= locked, "run `make lock`"


def test_what_is_imported_is_declared(project: dict[str, Any]) -> None:
    distributions = packages_distributions()
    declared = {_normal(text) for text in project["project"]["dependencies"]}
    for extra in project["project"]["optional-dependencies"].values():
        declared |= {_normal(text) for text in extra}
    missing = {}
    for name, path in _imported_packages():
        owners = {_normal(owner) for owner in distributions.get(name, [name])}
        if not owners & declared:
            missing[name] = str(path.relative_to(_ROOT))
    assert not missing


def _imported_packages() -> Iterator[tuple[str, Path]]:
    for package, root in _SOURCE_ROOTS.items():
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module]
                for name in names:
                    top = name.split(".")[0]
                    if top not in sys.stdlib_module_names and top not in _IMPORTABLE:
                        yield top, path


def test_the_contract_of_frames_names_every_sibling(project: dict[str, Any]) -> None:
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = [item for item in contracts if item.get("source_modules") == ["antiphon.frames"]]
    siblings = {
        f"antiphon.{path.parent.name}"
        for path in (_SOURCE_ROOTS["antiphon"] / "antiphon").glob("*/__init__.py")
    }
    assert siblings - {"antiphon.frames"} == set(contract["forbidden_modules"])


def test_continuous_integration_runs_the_same_verb() -> None:
    script = _ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")


_IMPORT_ALL = """
import importlib, json, sys
names, heavy = json.loads(sys.stdin.read())
found, known = {}, set()
for name in names:
    importlib.import_module(name)
    loaded = {item for item in heavy if item in sys.modules} - known
    if loaded:
        found[name] = sorted(loaded)
        known |= loaded
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        ("antiphon", _HEAVY),
        # The Ray side may import Ray, and gRPC comes with it.
        ("antiphon_actors", [name for name in _HEAVY if name not in ("ray", "grpc")]),
    ],
)
def test_importing_any_module_is_cheap(package: str, heavy: list[str]) -> None:
    found = json.loads(_run_python(_IMPORT_ALL, json.dumps([_modules(package), heavy])))
    assert not found, "import these where they are first used"


def test_the_command_line_starts_without_ray() -> None:
    found = json.loads(
        _run_python(_IMPORT_ALL, json.dumps([["antiphon_actors.cli"], ["ray", *_HEAVY]]))
    )
    assert not found


def test_a_wheel_holds_both_packages_and_their_data(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=_ROOT,
        # Compiling takes a minute, and would replace what these tests run on.
        env={**os.environ, "ANTIPHON_COMPILE": "0"},
        check=True,
        capture_output=True,
        timeout=50,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    expected = {
        path.relative_to(root).as_posix()
        for package, root in _SOURCE_ROOTS.items()
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    assert expected <= packed
    assert {"antiphon/py.typed", "antiphon_actors/py.typed"} <= packed
    assert any(name.endswith("licenses/LICENSE") for name in packed)
    assert not [name for name in packed if name.startswith(("runtime/", "actors/", "tests/"))]


def _read(name: str) -> str:
    return (_ROOT / name).read_text(encoding="utf-8")


def _normal(requirement: str) -> str:
    """The name of a distribution as indexes compare it."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match.group().strip()).lower()


def _run_python(program: str, stdin: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        input=stdin,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, _SOURCE_ROOTS.values()))},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
