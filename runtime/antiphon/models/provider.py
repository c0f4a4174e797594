"""Where the models of this process run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from antiphon.models.client import ModelClient
from antiphon.models.model import ModelSpec


class ModelProvider(ABC):
    """Gives the users of this process their models."""

    @abstractmethod
    async def connect(self, spec: ModelSpec) -> ModelClient:
        """Connects a user to a model that is loaded and warm; see `connect_model`."""

    @abstractmethod
    def in_process(self, spec: ModelSpec) -> bool:
        """Whether the model would run in this process; see `runs_in_process`."""


_local: ModelProvider | None = None
# Those that `use_models` was given; the last counts.
_given: list[ModelProvider] = []


def model_provider() -> ModelProvider:
    """The provider of this process; models run in the process itself unless `use_models` said else."""
    global _local
    if _given:
        return _given[-1]
    if _local is None:
        from antiphon.models.local import LocalModels

        _local = LocalModels()
    return _local


async def connect_model(spec: ModelSpec) -> ModelClient:
    """Connects to a model, which is loaded first if nobody uses it yet.

    A cancelled caller does not stop the loading if others wait for it.

    Args:
        spec: Which one.

    Returns:
        The connection, to be closed by the caller.

    Raises:
        AntiphonError: The model cannot be loaded, or there is no place for it; the message says why.
    """
    return await model_provider().connect(spec)


def runs_in_process(spec: ModelSpec) -> bool:
    """Whether a model runs in this process, so that a user may as well call it without a connection.

    For users whose inference is so short that handing it to a thread would cost more.
    """
    return model_provider().in_process(spec)


@contextmanager
def use_models(provider: ModelProvider) -> Iterator[None]:
    """Makes this process get its models from a provider, until the block is left.

    It holds for the process and not for a task, unlike `pipeline.executor.use_executor`: a model belongs
    to all sessions of a process. Blocks may be left in any order.
    """
    _given.append(provider)
    try:
        yield
    finally:
        _given.remove(provider)
