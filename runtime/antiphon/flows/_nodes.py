"""A node as it was configured, checked."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loguru import logger

from antiphon.flows._functions import FlowFunction, read_functions, warn_of_loose_ends
from antiphon.flows.actions import ActionManager
from antiphon.flows.exceptions import FlowError
from antiphon.flows.types import ActionConfig, ContextStrategyConfig, NodeConfig

Message = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """One step of a conversation, ready to be entered.

    Attributes:
        config: What it was made from.
        name: What it is called.
        role_messages: Who the bot is.
        task_messages: What it is to do here.
        functions: What the model may call, by name, the global ones included.
        pre_actions: Done before the model is asked.
        post_actions: Done after its first answer.
        context_strategy: What becomes of the conversation so far; None for the flow's own.
        respond_immediately: Whether the bot speaks first.
    """

    config: Mapping[str, Any]
    name: str
    role_messages: Sequence[Message]
    task_messages: Sequence[Message]
    functions: Mapping[str, FlowFunction]
    pre_actions: Sequence[ActionConfig]
    post_actions: Sequence[ActionConfig]
    context_strategy: ContextStrategyConfig | None
    respond_immediately: bool


def get_or_generate_node_name(node_config: NodeConfig) -> str:
    """What a node is called; a random name if it has none."""
    return node_config.get("name") or str(uuid.uuid4())


def read_node(
    config: Any,
    actions: ActionManager,
    *,
    name: str | None = None,
    global_functions: Sequence[FlowFunction] = (),
    nodes: Sequence[str] = (),
) -> Node:
    """Checks a node.

    Args:
        config: The node as configured.
        actions: Where the handlers of its actions are registered.
        name: What it is called in a static flow or by the program.
        global_functions: What may be called in every node; the node's own come first.
        nodes: The nodes of a static flow, by name.

    Raises:
        FlowError: It cannot be entered; the message names the node and the field.
    """
    if not isinstance(config, Mapping):
        raise FlowError(f"a node must be a dict, not {type(config).__name__}")
    given = config.get("name")
    if given is not None and not isinstance(given, str):
        raise FlowError(f"name of a node must be text, not {given!r}")
    name = name or given or str(uuid.uuid4())
    where = f"node {name!r}"
    for field in config:
        if field not in NodeConfig.__annotations__:
            logger.warning("a node has an unknown field", node=name, field=field)
    if "task_messages" not in config:
        raise FlowError(f"{where}: task_messages is missing")
    strategy = config.get("context_strategy")
    if strategy is not None and not isinstance(strategy, ContextStrategyConfig):
        raise FlowError(f"{where}: context_strategy must be a ContextStrategyConfig")
    respond_immediately = config.get("respond_immediately", True)
    if not isinstance(respond_immediately, bool):
        raise FlowError(f"{where}: respond_immediately must be True or False")
    own = [
        _edge(function, nodes)
        for function in read_functions(config.get("functions") or (), f"{where}: functions")
    ]
    for function in own:
        warn_of_loose_ends(function, where)
        if function.transition_to is not None and function.transition_to not in nodes:
            raise FlowError(
                f"{where}: function {function.name!r}: transition_to names no node of the flow: "
                f"{function.transition_to!r}"
            )
    return Node(
        config=config,
        name=name,
        role_messages=_messages(config.get("role_messages") or [], f"{where}: role_messages"),
        task_messages=_messages(config["task_messages"], f"{where}: task_messages"),
        functions={function.name: function for function in (*global_functions, *own)},
        pre_actions=actions.check(config.get("pre_actions") or [], f"{where}: pre_actions"),
        post_actions=actions.check(config.get("post_actions") or [], f"{where}: post_actions"),
        context_strategy=strategy,
        respond_immediately=respond_immediately,
    )


def require_actions(node: Node, actions: ActionManager) -> None:
    """Checks that the actions of a node can be run by now.

    Raises:
        ActionError: One is of a type that nobody has registered.
    """
    actions.require(node.pre_actions, f"node {node.name!r}: pre_actions")
    actions.require(node.post_actions, f"node {node.name!r}: post_actions")


def _edge(function: FlowFunction, nodes: Sequence[str]) -> FlowFunction:
    """A function without a handler that is called like a node leads to it."""
    if (
        function.name in nodes
        and function.handler is None
        and function.transition_to is None
        and function.transition_callback is None
    ):
        return replace(function, transition_to=function.name)
    return function


def _messages(given: Any, where: str) -> list[Message]:
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise FlowError(f"{where} must be a list of messages, not {type(given).__name__}")
    for index, message in enumerate(given):
        if not isinstance(message, Mapping) or "role" not in message:
            raise FlowError(f"{where}[{index}] must be a dict with a role")
    return list(given)
