"""Makes node agents and finds them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray

from antiphon_actors.agent_types import NAMESPACE, AgentSettings
from antiphon_actors.node_agent import NodeAgent
from antiphon_actors.processor_actor import actor_options, remote_class


def agent_name(node_id: str) -> str:
    """Returns the name of a node's detached agent in the namespace "antiphon"."""
    return f"antiphon-agent-{node_id}"


def lasting_options(node_id: str, name: str) -> dict[str, Any]:
    """Ray's options of a detached actor that there is once on a node, and that Ray restarts.

    Args:
        node_id: The node.
        name: Under which the actor is found; who makes it again gets the one that is there.
    """
    return actor_options(node_id, {}) | {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
    }


def create_agent(
    settings: AgentSettings, *, node_id: str | None = None, detached: bool = False
) -> Any:
    """Creates the agent of a node and returns its handle; call `start` on it.

    Args:
        settings: How it works.
        node_id: Which node; None for that of this process.
        detached: It outlives the job that made it, has a name (`agent_name`), and an existing one is returned;
            it is to be ended by `agent_client.end_agent`. Ray restarts it if it dies, and it goes on with its
            actors, which are detached, too, and end by themselves if it does not come back for a minute.
            Otherwise it dies with its creator, and its actors with it.
    """
    node_id = node_id or ray.get_runtime_context().get_node_id()
    options = actor_options(node_id, {})
    if detached:
        settings = replace(settings, detached=True)
        options = lasting_options(node_id, agent_name(node_id))
    return remote_class(NodeAgent).options(**options).remote(settings)


def find_agent(node_id: str) -> Any:
    """Returns the handle of a node's detached agent.

    Raises:
        ValueError: There is none.
    """
    return ray.get_actor(agent_name(node_id), namespace=NAMESPACE)
