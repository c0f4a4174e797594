"""Where the models of a process of a cluster run: in actors, or in the process itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from ray.exceptions import RayError, RayTaskError

from antiphon.errors import ServiceError
from antiphon.models.model import ModelSpec
from antiphon.models.provider import use_models
from antiphon.models.runner import ModelRunner
from antiphon.models.sharing import ModelBackend, SharedModels, deliver
from antiphon_actors.agent_client import AgentClient
from antiphon_actors.errors import NoActorError
from antiphon_actors.models.connection import AnswerStreams
from antiphon_actors.models.remote import RemoteModel, Source
from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.models.specs import ModelWanted
from antiphon_actors.models.wire import Member
from antiphon_actors.session.endpoint import Endpoint


class ClusterModels(SharedModels):
    """Gives the users of a process their models.

    Args:
        endpoint: The process's hub.
        source: Where actors come from.
        settings: How models run.

    Attributes:
        streams: The streams of answers that the process expects.
    """

    def __init__(self, endpoint: Endpoint, source: Source, settings: ModelSettings) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._source = source
        self._settings = settings
        self.streams = AnswerStreams(endpoint)

    def in_process(self, spec: ModelSpec) -> bool:
        """Whether the settings, or its class, do not want it in actors."""
        return not self._settings.in_actor(spec.model)

    def _make(self, spec: ModelSpec) -> ModelBackend:
        if self.in_process(spec):
            return ModelRunner(spec, deliver)
        return RemoteModel(spec, deliver, self._endpoint, self.streams, self._source)


class AgentSource(Source):
    """Gets actors from the node's agent.

    Args:
        agent: The node agent.
        settings: How models run.
    """

    def __init__(self, agent: AgentClient, settings: ModelSettings) -> None:
        self._agent = agent
        self._settings = settings

    async def members(self, spec: ModelSpec, avoid: Sequence[str]) -> Sequence[Member]:
        """Asks the agent; see `Source`."""
        wanted = ModelWanted.of(spec, self._settings)
        try:
            # Without a deadline: loading a model may take minutes, and the agent has one.
            found: list[Member] = await self._agent.call(
                "acquire_model", wanted, list(avoid), deadline_secs=None
            )
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, NoActorError):
                raise NoActorError(
                    f"no actor for the model {spec.name}: {cause}",
                    cause.overloaded,
                    cause.retry_after_secs,
                ) from error
            raise ServiceError(
                f"no actor for the model {spec.name}: {cause}", retryable=True, provider=spec.name
            ) from error
        return found


def use_actors_for_models(
    endpoint: Endpoint, agent: AgentClient, settings: ModelSettings
) -> ExitStack:
    """Has this process get its models through its node's agent, until what it returns is closed."""
    stack = ExitStack()
    models = ClusterModels(endpoint, AgentSource(agent, settings), settings)
    stack.enter_context(use_models(models))
    return stack
