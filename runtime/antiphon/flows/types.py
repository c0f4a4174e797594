"""What flows, nodes, functions and actions are described with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, Required, TypedDict, TypeVar

from antiphon.adapters.schemas.direct_function import BaseDirectFunctionWrapper
from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.flows.exceptions import InvalidFunctionError
from antiphon.utils.checks import check_instance

if TYPE_CHECKING:
    from antiphon.flows.manager import FlowManager

FlowArgs = dict[str, Any]
"""What the model gave a function, by name."""


class FlowResult(TypedDict, total=False):
    """What a function reports to the model; further fields are allowed.

    Attributes:
        status: How it went, such as ``"success"`` or ``"error"``.
        error: What went wrong.
    """

    status: str
    error: str


ConsolidatedFunctionResult = tuple[FlowResult | None, "NodeConfig | str | None"]
"""A result for the model, and the node to go to: its configuration, its name in a static flow, or
None to stay."""

LegacyFunctionHandler = Callable[[FlowArgs], Awaitable[Any]]
FlowFunctionHandler = Callable[[FlowArgs, "FlowManager"], Awaitable[Any]]
FunctionHandler = LegacyFunctionHandler | FlowFunctionHandler
"""What runs when the model calls a function. It returns a ``ConsolidatedFunctionResult``, or only
the result."""

LegacyActionHandler = Callable[[dict[str, Any]], Awaitable[None]]
FlowActionHandler = Callable[[dict[str, Any], "FlowManager"], Awaitable[None]]
ActionHandler = LegacyActionHandler | FlowActionHandler
"""What an action runs. It gets the action as it was configured."""


class FlowsDirectFunction(Protocol):
    """An async function that describes itself; its first parameter is ``flow_manager``.

    The other parameters are what the model gives, by keyword.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Runs the function with the model's arguments."""


_Direct = TypeVar("_Direct", bound=Callable[..., Any])
_CANCEL_ON_INTERRUPTION = "_antiphon_cancel_on_interruption"
_IDEMPOTENT = "_antiphon_idempotent"


def flows_direct_function(
    *, cancel_on_interruption: bool = True, idempotent: bool = False
) -> Callable[[_Direct], _Direct]:
    """Says of a direct function how it is to be run; a decorator.

    Args:
        cancel_on_interruption: Whether an interruption by the user cancels a running call.
        idempotent: Whether a call that was in progress when its process died is run again.
    """

    def decorate(function: _Direct) -> _Direct:
        setattr(function, _CANCEL_ON_INTERRUPTION, cancel_on_interruption)
        setattr(function, _IDEMPOTENT, idempotent)
        return function

    return decorate


class FlowsDirectFunctionWrapper(BaseDirectFunctionWrapper):
    """A direct function of a flow, with the schema read from it."""

    @classmethod
    def special_first_param_name(cls) -> str:
        """Name of the parameter that receives the ``FlowManager``."""
        return "flow_manager"

    @classmethod
    def validate_function(cls, function: Callable[..., Any]) -> None:
        """Checks that a function can be used directly.

        Raises:
            InvalidFunctionError: It is not async, or its first parameter is not ``flow_manager``.
        """
        try:
            super().validate_function(function)
        except TypeError as error:
            raise InvalidFunctionError(str(error)) from error

    @property
    def cancel_on_interruption(self) -> bool:
        """Whether an interruption by the user cancels a running call."""
        return bool(getattr(self.function, _CANCEL_ON_INTERRUPTION, True))

    @property
    def idempotent(self) -> bool:
        """Whether a call that was in progress when its process died is run again."""
        return bool(getattr(self.function, _IDEMPOTENT, False))

    async def invoke(self, args: Mapping[str, Any], flow_manager: FlowManager) -> Any:
        """Calls the function with the model's arguments."""
        return await self.function(flow_manager=flow_manager, **args)


@dataclass
class FlowsFunctionSchema:
    """A function offered to the model in a node, in a form every provider's is made from.

    Attributes:
        name: What the model calls it.
        description: What it does, for the model.
        properties: JSON Schema of each parameter, by name.
        required: Names of the parameters without which it cannot be called.
        handler: What runs; without one a call is only acknowledged.
        transition_to: Deprecated: name of the node to go to afterwards. Return it instead.
        transition_callback: Deprecated: awaited with the arguments, the result and the flow manager
            to set the next node. Return the node instead.
        cancel_on_interruption: Whether an interruption by the user cancels a running call.
        idempotent: Whether a call that was in progress when its process died is run again.

    Raises:
        ValueError: It has two ways to the next node.
    """

    name: str
    description: str
    properties: dict[str, Any]
    required: list[str]
    handler: FunctionHandler | None = None
    transition_to: str | None = None
    transition_callback: Callable[..., Any] | None = None
    cancel_on_interruption: bool = True
    idempotent: bool = False

    def __post_init__(self) -> None:
        if self.transition_to and self.transition_callback:
            raise ValueError(
                f"function {self.name!r}: give transition_to or transition_callback, not both"
            )

    def to_function_schema(self) -> FunctionSchema:
        """What the model gets to know of it."""
        return FunctionSchema(
            name=self.name,
            description=self.description,
            properties=self.properties,
            required=self.required,
        )


class ActionConfig(TypedDict, total=False):
    """Something done when a node is entered or after its first answer.

    Further fields are allowed; the handler gets them.

    Attributes:
        type: ``tts_say``, ``end_conversation``, ``function``, or a registered type.
        handler: What a ``function`` runs. With a type of your own: registers the handler for it.
        text: What ``tts_say`` says, and ``end_conversation`` says at last.
    """

    type: Required[str]
    handler: ActionHandler
    text: str


class ContextStrategy(Enum):
    """What becomes of the conversation so far when a node is entered."""

    APPEND = "append"
    RESET = "reset"
    RESET_WITH_SUMMARY = "reset_with_summary"


@dataclass
class ContextStrategyConfig:
    """What becomes of the conversation so far when a node is entered.

    Attributes:
        strategy: Keep it, forget it, or replace it with a summary.
        summary_prompt: What to tell the model that makes the summary.

    Raises:
        TypeError: The strategy is no ContextStrategy.
        ValueError: There is no prompt for a summary.
    """

    strategy: ContextStrategy
    summary_prompt: str | None = None

    def __post_init__(self) -> None:
        check_instance("ContextStrategyConfig(strategy)", self.strategy, ContextStrategy)
        if self.strategy is ContextStrategy.RESET_WITH_SUMMARY and not self.summary_prompt:
            raise ValueError("summary_prompt is required with RESET_WITH_SUMMARY")


class NodeConfig(TypedDict, total=False):
    """One step of a conversation.

    Attributes:
        task_messages: What the bot is to do here, as messages in OpenAI's form.
        name: What it is called; a random name if left out.
        role_messages: Who the bot is; set once, usually in the first node.
        functions: What the model may call: ``FlowsFunctionSchema``s, direct functions, or functions
            in the form of OpenAI, Anthropic, Gemini or AWS Bedrock with a ``handler`` added.
        pre_actions: Done in order before the model is asked.
        post_actions: Done in order after the model's first answer has been spoken.
        context_strategy: What becomes of the conversation so far; else that of the flow manager.
        respond_immediately: Whether the bot speaks first, which is the default.
    """

    task_messages: Required[list[dict[str, Any]]]
    name: str
    role_messages: list[dict[str, Any]]
    functions: list[dict[str, Any] | FlowsFunctionSchema | FunctionSchema | FlowsDirectFunction]
    pre_actions: list[ActionConfig]
    post_actions: list[ActionConfig]
    context_strategy: ContextStrategyConfig
    respond_immediately: bool


class FlowConfig(TypedDict):
    """A whole conversation that is known beforehand: a static flow.

    Attributes:
        initial_node: Name of the node it begins with.
        nodes: The nodes by name.
    """

    initial_node: str
    nodes: dict[str, NodeConfig]
