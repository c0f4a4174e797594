"""Leads a conversation from node to node."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.flows._functions import FlowFunction, finish, read_functions
from antiphon.flows._nodes import Node, read_node, require_actions
from antiphon.flows._summary import summarize, summary_message
from antiphon.flows.actions import ActionManager
from antiphon.flows.exceptions import (
    FlowError,
    FlowInitializationError,
    FlowTransitionError,
    InvalidFunctionError,
)
from antiphon.flows.types import (
    ContextStrategy,
    ContextStrategyConfig,
    FlowConfig,
    FlowsDirectFunction,
    FlowsFunctionSchema,
    NodeConfig,
)
from antiphon.frames.frames import ErrorFrame, FunctionCallResultProperties

if TYPE_CHECKING:
    from antiphon.pipeline.task import PipelineTask
    from antiphon.services.llm_service import FunctionCallParams
    from antiphon.transports.base_transport import BaseTransport

_Transition = Callable[[], Awaitable[None]]
_ACKNOWLEDGED = {"status": "acknowledged"}


class FlowManager:
    """Gives the model, node by node, what it is to do and what it may call.

    A function that the model calls may name the next node. It is entered once the results of all
    calls of that answer are in the conversation: pre-actions run, the node's messages and functions
    take effect, the model is asked, and post-actions follow its answer. Only one node's functions,
    and the global ones, can be called at a time.
    """

    def __init__(
        self,
        *,
        task: PipelineTask,
        llm: Any,
        context_aggregator: Any,
        tts: Any = None,
        flow_config: FlowConfig | None = None,
        context_strategy: ContextStrategyConfig | None = None,
        transport: BaseTransport | None = None,
        global_functions: Sequence[FlowsFunctionSchema | FlowsDirectFunction] | None = None,
    ) -> None:
        """Makes a manager; initialize() begins the conversation.

        Args:
            task: Runs the pipeline.
            llm: The language model service.
            context_aggregator: The pair its ``create_context_aggregator()`` made.
            tts: Deprecated and not used.
            flow_config: A static flow; without one each function names the next node.
            context_strategy: What becomes of the conversation so far when a node is entered that
                does not say so itself; it is kept if this is left out.
            transport: For the program's own use, as ``transport``.
            global_functions: What the model may call in every node.

        Raises:
            FlowInitializationError: The configuration cannot be used; the message names node and
                field.
        """
        if tts is not None:
            warnings.warn(
                "tts is deprecated: tts_say goes through the pipeline",
                DeprecationWarning,
                stacklevel=2,
            )
        if context_strategy is not None and not isinstance(context_strategy, ContextStrategyConfig):
            raise FlowInitializationError("context_strategy must be a ContextStrategyConfig")
        for part in ("user", "assistant"):
            if not callable(getattr(context_aggregator, part, None)):
                raise FlowInitializationError(
                    "context_aggregator must be the pair that create_context_aggregator() of the "
                    f"language model service made, not {context_aggregator!r}"
                )
        self._task = task
        self._llm = llm
        self._user = context_aggregator.user()
        self._assistant = context_aggregator.assistant()
        self._transport = transport
        self._context_strategy = context_strategy or ContextStrategyConfig(ContextStrategy.APPEND)
        self._state: dict[str, Any] = {}
        self._actions = ActionManager(task, self, self._report)

        self._initialized = False
        self._current_node: str | None = None
        self._functions: Mapping[str, FlowFunction] = {}
        # Where the calls of the present answer lead, once they are all done.
        self._pending: _Transition | None = None
        try:
            self._global_functions = read_functions(global_functions or (), "global_functions")
            self._initial_node, self._nodes = self._read_flow(flow_config)
        except FlowInitializationError:
            raise
        except FlowError as error:
            raise FlowInitializationError(str(error)) from error
        self._static = flow_config is not None
        self._assistant.add_event_handler("on_function_calls_settled", self._calls_settled)

    # -- for the program -----------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """What the program remembers across nodes."""
        return self._state

    @property
    def task(self) -> PipelineTask:
        """The task that runs the pipeline."""
        return self._task

    @property
    def transport(self) -> BaseTransport | None:
        """The transport that was given."""
        return self._transport

    @property
    def current_node(self) -> str | None:
        """Name of the node the conversation is in; None before the first."""
        return self._current_node

    async def initialize(self, initial_node: NodeConfig | None = None) -> None:
        """Begins the conversation.

        Args:
            initial_node: The first node of a dynamic flow. Without it the program sets one with
                set_node_from_config(). A static flow begins with its own.

        Raises:
            FlowInitializationError: The first node cannot be entered; it may be tried again.
        """
        if self._static and initial_node is not None:
            raise FlowInitializationError(
                "a static flow begins with its own initial_node: initialize() takes none"
            )
        if self._current_node is not None:
            logger.warning("the flow has begun already", node=self._current_node)
            return
        self._initialized = True
        try:
            if self._static:
                for node in self._nodes.values():
                    require_actions(node, self._actions)
                await self._enter(self._nodes[self._initial_node])
            elif initial_node is not None:
                await self._enter(self._following(initial_node))
        except Exception as error:
            self._initialized = False
            raise FlowInitializationError(f"the flow cannot begin: {error}") from error

    async def set_node_from_config(self, node_config: NodeConfig) -> None:
        """Goes to a node now; usually a function returns it instead.

        Args:
            node_config: The node.

        Raises:
            FlowTransitionError: The flow has not been initialized.
            FlowError: The node cannot be entered.
        """
        await self._set_node(node_config, None)

    async def set_node(self, node_id: str, node_config: NodeConfig) -> None:
        """Goes to a node now. Deprecated: return the node from a function.

        Args:
            node_id: What the node is called.
            node_config: The node.

        Raises:
            FlowTransitionError: The flow has not been initialized.
            FlowError: The node cannot be entered.
        """
        warnings.warn(
            "set_node() is deprecated: return the next node from a function, or use "
            "set_node_from_config()",
            DeprecationWarning,
            stacklevel=2,
        )
        await self._set_node(node_config, node_id)

    def register_action(self, action_type: str, handler: Callable[..., Any]) -> None:
        """Registers what actions of a type run.

        Args:
            action_type: The type.
            handler: ``async handler(action, flow_manager)``, or only ``(action)``.

        Raises:
            ActionError: The handler cannot be called like that.
        """
        self._actions.register(action_type, handler)

    def get_current_context(self) -> list[Any]:
        """The messages of the conversation so far: the list itself, not a copy."""
        messages: list[Any] = self._user.messages
        return messages

    # -- nodes ---------------------------------------------------------------------------------

    def _read_flow(self, config: Any) -> tuple[str, dict[str, Node]]:
        """The nodes of a static flow, and which is the first; none for a dynamic one."""
        if config is None:
            return "", {}
        nodes = config.get("nodes") if isinstance(config, Mapping) else None
        if not isinstance(nodes, Mapping) or not nodes:
            raise FlowInitializationError("flow_config: nodes must be a dict of nodes by name")
        initial = config.get("initial_node")
        if initial not in nodes:
            raise FlowInitializationError(f"flow_config: initial_node names no node: {initial!r}")
        return initial, {name: self._read(nodes[name], name, list(nodes)) for name in nodes}

    def _read(self, config: Any, name: str | None = None, nodes: Sequence[str] = ()) -> Node:
        return read_node(
            config,
            self._actions,
            name=name,
            global_functions=self._global_functions,
            nodes=nodes,
        )

    def _following(self, config: Any, name: str | None = None) -> Node:
        """A node that is to be entered next."""
        node = self._read(config, name, list(self._nodes))
        require_actions(node, self._actions)
        return node

    async def _set_node(self, config: NodeConfig, name: str | None) -> None:
        if not self._initialized:
            raise FlowTransitionError("initialize() the flow before a node is set")
        await self._enter(self._following(config, name))

    async def _enter(self, node: Node) -> None:
        logger.debug("entering node", node=node.name)
        self._actions.forget_deferred()
        await self._actions.run(node.pre_actions)
        for function in node.functions.values():
            self._llm.register_function(
                function.name,
                partial(self._call, function.name),
                cancel_on_interruption=function.cancel_on_interruption,
            )
        await self._update_context(node)
        self._functions = node.functions
        self._current_node = node.name
        if node.respond_immediately:
            await self._ask()
        self._actions.schedule(node.post_actions, after_speech=not node.respond_immediately)

    async def _update_context(self, node: Node) -> None:
        """Gives the model the node's messages and functions.

        Set in the conversation itself, not by frames: an interruption may drop frames that wait.
        """
        messages = [*node.role_messages, *node.task_messages]
        strategy = node.context_strategy or self._context_strategy
        if self._current_node is None or strategy.strategy is ContextStrategy.RESET:
            self._user.set_messages(messages)
        elif strategy.strategy is ContextStrategy.APPEND:
            self._user.add_messages(messages)
        else:
            await self._replace_by_summary(node, strategy.summary_prompt or "")
        tools = [function.schema for function in node.functions.values()]
        self._user.set_tools(ToolsSchema(standard_tools=tools) if tools else [])

    async def _replace_by_summary(self, node: Node, prompt: str) -> None:
        known = len(self._user.messages)
        summary = await summarize(self._llm, prompt, self._user.context)
        if summary is None:
            # What was said is better than neither it nor a summary.
            self._user.add_messages([*node.role_messages, *node.task_messages])
            return
        self._user.set_messages(
            [
                *node.role_messages,
                summary_message(self._llm, summary),
                *self._user.messages[known:],  # said while the summary was made
                *node.task_messages,
            ]
        )

    async def _ask(self) -> None:
        """Lets the model answer, after everything queued before."""
        await self._task.queue_frame(self._user.get_context_frame())

    # -- function calls ------------------------------------------------------------------------

    async def _call(self, name: str, params: FunctionCallParams) -> None:
        """Runs a function of the node for the model."""
        function = self._functions.get(name)
        transition: _Transition | None = None
        try:
            if function is None:
                raise InvalidFunctionError(
                    f"function {name!r} is not available in node {self._current_node!r}"
                )
            result, transition = await self._outcome(function, dict(params.arguments))
        except Exception as error:  # noqa: BLE001 - the program's function; the model is told
            logger.opt(exception=error).error(
                "function of a node failed", function_name=name, node=self._current_node
            )
            result = {"status": "error", "error": str(error)}
        if transition is not None:
            if self._pending is not None:
                logger.warning("two functions name a next node: the last one is taken")
            self._pending = transition
        # The model is asked once the next node is entered.
        run_llm = None if self._pending is None else False
        await params.result_callback(
            result, properties=FunctionCallResultProperties(run_llm=run_llm)
        )

    async def _outcome(
        self, function: FlowFunction, args: dict[str, Any]
    ) -> tuple[Any, _Transition | None]:
        """A call's result, and where it leads.

        Raises:
            FlowError: The next node cannot be used.
        """
        given: Any = None
        if function.handler is not None:
            given = await function.handler(args, self)
        result, following = given, None
        if isinstance(given, tuple):
            if len(given) != 2:
                raise InvalidFunctionError(
                    f"function {function.name!r} must return (result, next node), "
                    f"not {len(given)} values"
                )
            result, following = given
        result = _reportable(result)
        if following is None and function.transition_callback is not None:
            # With the result as the handler returned it.
            callback = function.transition_callback
            return result, lambda: finish(callback(args, result, self))
        following = following or function.transition_to
        if following is None:
            return result, None
        return result, partial(self._enter, self._find(following, function.name))

    def _find(self, following: Any, function_name: str) -> Node:
        if isinstance(following, Mapping):
            return self._following(following)
        if isinstance(following, str):
            if following not in self._nodes:
                raise FlowTransitionError(
                    f"function {function_name!r} leads to a node that does not exist: {following!r}"
                )
            return self._nodes[following]
        raise InvalidFunctionError(
            f"function {function_name!r} must return a NodeConfig, the name of a node or None as "
            f"the next node, not {type(following).__name__}"
        )

    async def _calls_settled(self, _assistant: Any) -> None:
        """Goes to the next node when no call is in progress any more."""
        if self._pending is None or self._assistant.has_function_calls_in_progress:
            return
        transition, self._pending = self._pending, None
        try:
            await transition()
        except Exception as error:  # noqa: BLE001 - nobody waits for this; it is reported
            await self._report("the next node cannot be entered", error)
            # The node stays as it is, and the bot shall not fall silent.
            await self._ask()

    async def _report(self, what: str, error: Exception) -> None:
        logger.opt(exception=error).error(what, node=self._current_node)
        await self._assistant.push_error(ErrorFrame(error=f"flow: {what}: {error}"))


def _reportable(result: Any) -> Any:
    """A result that the model is told: one that says nothing is an acknowledgement."""
    if result is False or (isinstance(result, (int, float)) and result == 0):
        return {"result": result}
    return result or dict(_ACKNOWLEDGED)
