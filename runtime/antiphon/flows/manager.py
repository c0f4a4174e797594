"""Leads a conversation from node to node."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.flows._functions import FlowFunction, finish, read_functions
from antiphon.flows._nodes import Node, read_node, require_actions
from antiphon.flows._saved import UnsavedNodeError, restore_config, save_node
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
from antiphon.pipeline.keeper import Restoring, SavedState, savable

if TYPE_CHECKING:
    from antiphon.pipeline.task import PipelineTask
    from antiphon.services.llm_service import FunctionCallParams
    from antiphon.transports.base_transport import BaseTransport

_Callback = Callable[[], Awaitable[None]]
_ACKNOWLEDGED = {"status": "acknowledged"}


class FlowManager(SavedState):
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
        self._node: Node | None = None
        # Where the calls of the present answer lead, once they are all done.
        self._pending: Node | _Callback | None = None
        # The node that is being entered.
        self._entering: Node | None = None
        self._conversation_has_begun = False
        # Saved forms of the last nodes.
        self._saved: deque[tuple[Node, dict[str, Any]]] = deque(maxlen=2)
        # Post-actions that were under way in another process, and whether they wait for speech.
        self._left_post_actions: tuple[int, bool] = (0, False)
        try:
            self._global_functions = read_functions(global_functions or (), "global_functions")
            self._initial_node, self._nodes = self._read_flow(flow_config)
        except FlowInitializationError:
            raise
        except FlowError as error:
            raise FlowInitializationError(str(error)) from error
        self._static = flow_config is not None
        self._assistant.add_event_handler("on_function_calls_settled", self._calls_settled)
        task.add_saved_state("flow", self)

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
        return self._node.name if self._node is not None else None

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
        if self._initialized and self._task.is_resumed:
            logger.debug("the flow goes on", node=self.current_node)
            return
        if self._node is not None:
            logger.warning("the flow has begun already", node=self.current_node)
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
        self._entering = node
        try:
            self._task.state_changed()
            self._actions.forget_deferred()
            await self._actions.run(node.pre_actions)
            self._register(node)
            await self._update_context(node)
            self._node = node
            self._conversation_has_begun = True
        finally:
            self._entering = None
        if node.respond_immediately:
            await self._ask()
        self._actions.schedule(node.post_actions, after_speech=not node.respond_immediately)
        self._task.state_changed()

    def _register(self, node: Node) -> None:
        for function in node.functions.values():
            self._llm.register_function(
                function.name,
                partial(self._call, function.name),
                cancel_on_interruption=function.cancel_on_interruption,
                idempotent=function.idempotent,
            )

    async def _update_context(self, node: Node) -> None:
        """Gives the model the node's messages and functions.

        Set in the conversation itself, not by frames: an interruption may drop frames that wait.
        """
        messages = [*node.role_messages, *node.task_messages]
        strategy = node.context_strategy or self._context_strategy
        if not self._conversation_has_begun or strategy.strategy is ContextStrategy.RESET:
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
        function = self._node.functions.get(name) if self._node is not None else None
        following: Node | _Callback | None = None
        try:
            if function is None:
                raise InvalidFunctionError(
                    f"function {name!r} is not available in node {self.current_node!r}"
                )
            result, following = await self._outcome(function, dict(params.arguments))
        except Exception as error:  # noqa: BLE001 - the program's function; the model is told
            logger.opt(exception=error).error(
                "function of a node failed", function_name=name, node=self.current_node
            )
            result = {"status": "error", "error": str(error)}
        if following is not None:
            if self._pending is not None:
                logger.warning("two functions name a next node: the last one is taken")
            self._pending = following
        # The model is asked once the next node is entered.
        run_llm = None if self._pending is None else False
        await params.result_callback(
            result, properties=FunctionCallResultProperties(run_llm=run_llm)
        )

    async def _outcome(
        self, function: FlowFunction, args: dict[str, Any]
    ) -> tuple[Any, Node | _Callback | None]:
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
        return result, self._find(following, function.name)

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
        following, self._pending = self._pending, None
        try:
            await (self._enter(following) if isinstance(following, Node) else following())
        except Exception as error:  # noqa: BLE001 - nobody waits for this; it is reported
            await self._report("the next node cannot be entered", error)
            # The node stays as it is, and the bot shall not fall silent.
            await self._ask()

    # -- in another process --------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """Where the flow stands, as plain data."""
        following = self._pending or self._entering
        state, lost = savable(self._state)
        return {
            "state": state,
            "lost": lost,
            "node": self._save(self._node),
            "next": self._save(following if isinstance(following, Node) else None),
            "callback": following is not None and not isinstance(following, Node),
            "post_actions": list(self._actions.left),
        }

    def restore(self, saved: Any, restoring: Restoring) -> None:
        """Takes over where the flow of another process stood.

        What cannot be restored leaves the flow as if it had not begun: initialize() begins it then.
        """
        self._actions.abandon()
        self._state.update(saved["state"])
        for key in saved["lost"]:
            restoring.problem(f"flow: state[{key!r}] could not be saved")
        # Whatever follows, what was said before stays.
        self._conversation_has_begun = saved["node"] is not None
        try:
            self._node = self._restored(saved["node"], restoring)
            self._pending = self._restored(saved["next"], restoring)
            if saved["callback"]:
                raise UnsavedNodeError("a transition_callback was due")
        except FlowError as error:
            restoring.problem(f"flow: {error}")
            # In its old node, if it is there, the model may take the step once more.
            self._user.context.pending_answers.reopen()
        self._initialized = self._node is not None or self._pending is not None
        if self._pending is not None:
            restoring.asked.append(self._user.context)
        if self._node is not None:
            self._register(self._node)
            left, after_speech = saved["post_actions"]
            self._left_post_actions = left, after_speech
            if left and self._node.post_actions[-1]["type"] == "end_conversation":
                restoring.ends = True

    async def go_on(self) -> None:
        """Enters the node that was to be entered, or goes on with post-actions."""
        (left, after_speech), self._left_post_actions = self._left_post_actions, (0, False)
        if self._pending is not None:
            await self._calls_settled(None)
        elif self._node is not None and left:
            actions = self._node.post_actions[-left:]
            self._actions.schedule(actions, after_speech=after_speech)

    def _save(self, node: Node | None) -> dict[str, Any] | None:
        if node is None:
            return None
        if self._nodes.get(node.name) is node:
            return {"name": node.name}
        for known, plain in self._saved:
            if known is node:
                return plain
        plain = {"name": node.name}
        try:
            plain["config"] = save_node(node)
        except UnsavedNodeError as error:
            logger.warning("a node cannot be saved", node=node.name, error=str(error))
            plain["error"] = str(error)
        self._saved.append((node, plain))
        return plain

    def _restored(self, saved: Any, restoring: Restoring) -> Node | None:
        """A saved node.

        Raises:
            FlowError: It cannot be entered any more.
        """
        if saved is None:
            return None
        name = saved["name"]
        try:
            if "error" in saved:
                raise UnsavedNodeError(saved["error"])
            if "config" in saved:
                return self._following(restore_config(saved["config"], restoring.function), name)
            if name not in self._nodes:
                raise UnsavedNodeError("the flow has no such node")
        except FlowError as error:
            raise UnsavedNodeError(f"node {name!r} is lost: {error}") from error
        return self._nodes[name]

    async def _report(self, what: str, error: Exception) -> None:
        logger.opt(exception=error).error(what, node=self.current_node)
        await self._assistant.push_error(ErrorFrame(error=f"flow: {what}: {error}"))


def _reportable(result: Any) -> Any:
    """A result that the model is told: one that says nothing is an acknowledgement."""
    if result is False or (isinstance(result, (int, float)) and result == 0):
        return {"result": result}
    return result or dict(_ACKNOWLEDGED)
