"""What the documents say about the tree is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PAGES = sorted((_ROOT / "docs").glob("*.md"))
_SOURCES = ("runtime/antiphon", "actors/antiphon_actors", ".")
# Folders whose files the pages name.
_PATH = re.compile(
    r"`((?:tests|examples|frames|processors|pipeline|session|channels|services|transports)"
    r"/[\w./]+\.py)`"
)
_CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_readme_shows_the_example_bot() -> None:
    assert (_ROOT / "examples" / "bot.py").read_text(encoding="utf-8") in _CODE.findall(
        _text(_ROOT / "README.md")
    )


def test_every_page_is_in_the_index() -> None:
    index = _text(_ROOT / "docs" / "README.md")
    assert not [page.name for page in _PAGES if page.name != "README.md" and page.name not in index]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.stem))
def test_files_that_a_page_names_exist(page: Path) -> None:
    missing = [
        name
        for name in _PATH.findall(_text(page))
        if not any((_ROOT / source / name).is_file() for source in _SOURCES)
    ]
    assert not missing


@pytest.mark.parametrize(
    "page",
    [page for page in _PAGES if page.name != "testing-your-bot.md"],
    ids=lambda page: str(page.stem),
)
def test_the_python_of_a_page_runs(page: Path) -> None:
    blocks = _CODE.findall(_text(page))
    if not blocks:
        return
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n\n".join(blocks)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stderr
