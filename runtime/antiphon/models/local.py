"""Models in this process: the provider where there is no other."""

from __future__ import annotations

from antiphon.models.model import ModelSpec
from antiphon.models.runner import ModelRunner
from antiphon.models.sharing import ModelBackend, SharedModels, deliver


class LocalModels(SharedModels):
    """Runs each model in a thread of this process, once for all its users in one event loop.

    It is loaded for the first user and freed behind the last one.
    """

    def in_process(self, spec: ModelSpec) -> bool:
        """Always."""
        return True

    def _make(self, spec: ModelSpec) -> ModelBackend:
        return ModelRunner(spec, deliver)
