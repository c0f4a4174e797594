from __future__ import annotations

import stat
from pathlib import Path

import pytest

from antiphon_actors.hub_directory import fixed_hub_dir, make_hub_dir

NODE = "0123456789abcdef" * 3


def test_every_agent_gets_its_own(tmp_path: Path) -> None:
    first, second = make_hub_dir(NODE, tmp_path), make_hub_dir(NODE, tmp_path)
    assert first != second
    assert stat.S_IMODE(Path(first).stat().st_mode) == 0o700


def test_a_restarted_agent_finds_that_of_the_one_before(tmp_path: Path) -> None:
    first = fixed_hub_dir(NODE, tmp_path)
    assert fixed_hub_dir(NODE, tmp_path) == first
    assert fixed_hub_dir("f" + NODE, tmp_path) != first
    assert stat.S_IMODE(Path(first).stat().st_mode) == 0o700


def test_what_others_could_have_made_is_refused(tmp_path: Path) -> None:
    path = Path(fixed_hub_dir(NODE, tmp_path))
    path.chmod(0o755)
    with pytest.raises(PermissionError, match="remove it"):
        fixed_hub_dir(NODE, tmp_path)
    path.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    path.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="remove it"):
        fixed_hub_dir(NODE, tmp_path)
    path.unlink()
    path.touch(mode=0o700)
    with pytest.raises(FileExistsError):
        fixed_hub_dir(NODE, tmp_path)
