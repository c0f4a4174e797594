"""Directories for the sockets of a node's actors."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

# A socket's path has at most 107 bytes, of which our directory and the socket take 45.
_MAX_TEMPORARY_LENGTH = 60


def make_hub_dir(node_id: str, parent: Path | None = None) -> str:
    """Makes a directory (mode 0700) that no agent has had before, and returns its path.

    Args:
        node_id: Ray's id of the node.
        parent: Where; None for the system's temporary directory.
    """
    return tempfile.mkdtemp(prefix=f"antiphon-{node_id[:8]}-", dir=_parent(parent))


def fixed_hub_dir(node_id: str, parent: Path | None = None) -> str:
    """Makes a directory (mode 0700), the same for all agents that a node has one after another.

    Raises:
        PermissionError: What is there could be somebody else's.
    """
    path = _parent(parent) / f"antiphon-{node_id[:20]}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not ours or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(
            f"{path} is not a directory that only this user can enter: remove it, or set another"
            " directory for sockets"
        )
    return str(path)


def _parent(parent: Path | None) -> Path:
    if parent is not None:
        return parent
    found = tempfile.gettempdir()
    return Path(found if len(os.fsencode(found)) <= _MAX_TEMPORARY_LENGTH else "/tmp")  # noqa: S108
