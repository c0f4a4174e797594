"""Finds the store that an operator wants."""

from __future__ import annotations

import os

from antiphon.errors import ConfigError
from antiphon_actors.checkpoints.store import CheckpointStore

VARIABLE = "ANTIPHON_CHECKPOINTS"
"""Environment variable that names the store: ``ray`` (the default), or the URL of a Redis."""


def open_store(name: str | None = None) -> CheckpointStore:
    """The store of a name.

    Args:
        name: ``ray`` or a URL; None for what the environment says.

    Raises:
        ConfigError: There is no such store, or its package is missing.
    """
    name = name or os.environ.get(VARIABLE) or "ray"
    if name == "ray":
        from antiphon_actors.checkpoints.ray_store import RayStore

        return RayStore()
    if "://" in name:
        from antiphon_actors.checkpoints.redis_store import RedisStore

        return RedisStore(name)
    raise ConfigError(f"{VARIABLE} must be 'ray' or the URL of a Redis (redis://HOST)")
