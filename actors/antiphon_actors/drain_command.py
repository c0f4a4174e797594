"""Drains nodes, pools and apps of a running cluster, and shows how that is getting on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from antiphon.errors import AntiphonError, ConfigError
from antiphon_actors.agent_client import AgentClient
from antiphon_actors.agents import find_agent
from antiphon_actors.cluster import join_cluster
from antiphon_actors.drains import DrainProgress, DrainTarget, TargetKind
from antiphon_actors.errors import ClusterError
from antiphon_actors.interruption import renew_signal_handlers
from antiphon_actors.run import look_for_cluster

CALL_DEADLINE_SECS = 10.0
_POLL_SECS = 0.5
# As much of a node's id as people need.
_SHOWN = 8


@dataclass(frozen=True)
class DrainOptions:
    """What to drain.

    Attributes:
        what: See `DrainTarget`.
        name: See there; of a node's id as much as says which. Empty for the only node.
        deadline_secs: How long sessions may take.
        reason: Why, for people.
        wait: Whether to wait for the end.
        cancel: Call it off, or let in again what was drained before.
    """

    what: TargetKind
    name: str = ""
    deadline_secs: float = 300.0
    reason: str = "asked for"
    wait: bool = True
    cancel: bool = False


async def drain_on_cluster(
    options: DrainOptions, address: str | None, say: Callable[[str], None]
) -> None:
    """Joins a cluster and drains there; see `run_drain`.

    Raises:
        ConfigError: No address is given, or as there.
        ClusterError: The cluster cannot be joined, or as there.
    """
    if not address:
        raise ConfigError("set RAY_ADDRESS to the cluster on which something is to be drained")
    await look_for_cluster(address)
    async with await asyncio.to_thread(join_cluster, address):
        renew_signal_handlers()
        await run_drain(options, say)


async def run_drain(options: DrainOptions, say: Callable[[str], None]) -> None:
    """Drains on every node that is concerned; the process is connected to the cluster.

    Who does not wait for the end, or is cancelled, leaves the drain as it is.

    Args:
        options: What.
        say: Told how it is getting on, one line each.

    Raises:
        ConfigError: There is no such node, or nothing to be called off.
        ClusterError: An agent does not answer.
    """
    agents = await asyncio.to_thread(_agents)
    if options.what == "node":
        agents = _chosen(agents, options.name)
    if options.cancel:
        await _cancel(agents, options)
        return
    for node_id, agent in agents.items():
        await _call(
            node_id,
            agent,
            "drain",
            options.what,
            options.name,
            options.deadline_secs,
            options.reason,
        )
    if options.wait:
        await asyncio.gather(
            *(_follow(*item, _target(options, item[0]), say) for item in agents.items())
        )


def _target(options: DrainOptions, node_id: str) -> DrainTarget:
    return DrainTarget(options.what, node_id if options.what == "node" else options.name)


async def _follow(
    node_id: str, agent: AgentClient, target: DrainTarget, say: Callable[[str], None]
) -> None:
    """Shows how a drain is getting on until it is over."""
    shown = ""
    while True:
        drains: list[DrainProgress] = await _call(node_id, agent, "drains")
        # Not by its number: a restarted agent counts anew.
        progress = next((each for each in reversed(drains) if each.target == target), None)
        if progress is None:
            # One that was over when the agent was restarted.
            return
        line = f"node {node_id[:_SHOWN]}: {describe(progress)}"
        if line != shown:
            say(line)
            shown = line
        if progress.over:
            return
        await asyncio.sleep(_POLL_SECS)


def describe(progress: DrainProgress) -> str:
    """Says in a line how a drain is getting on."""
    text = f"{progress.state}, {progress.sessions} of {progress.began_with} sessions left"
    text += f" in {progress.actors} actor{'s' * (progress.actors != 1)}"
    if progress.moved:
        text += f", {progress.moved} moved"
    if progress.cut:
        text += f", {progress.cut} ended at the deadline"
    elif not progress.over:
        text += f", {progress.left_secs:.0f} s left"
    return text


async def _cancel(agents: Mapping[str, AgentClient], options: DrainOptions) -> None:
    cancelled = 0
    for node_id, agent in agents.items():
        for progress in await _call(node_id, agent, "drains"):
            about = progress.target.what == options.what
            if about and (options.what == "node" or progress.target.name == options.name):
                if progress.state != "cancelled":
                    await _call(node_id, agent, "cancel_drain", progress.number)
                    cancelled += 1
    if not cancelled:
        raise ConfigError(f"{options.what} {options.name} is not, and was not, drained".strip())


def _agents() -> dict[str, AgentClient]:
    """Finds the agents of all nodes.

    Raises:
        ClusterError: There is none.
    """
    found = {}
    for node in ray.nodes():
        # One without was never used.
        with suppress(ValueError):
            if node["Alive"]:
                found[node["NodeID"]] = AgentClient(find_agent(node["NodeID"]))
    if not found:
        raise ClusterError("no node agent runs on this cluster: no bot is deployed there")
    return found


def _chosen(agents: Mapping[str, AgentClient], name: str) -> dict[str, AgentClient]:
    matching = {node: agent for node, agent in agents.items() if node.startswith(name)}
    if len(matching) != 1:
        known = ", ".join(sorted(agents))
        what = f"{name} is the beginning of {len(matching)} nodes" if name else "which node?"
        raise ConfigError(f"{what}: name one of {known}")
    return matching


async def _call(node_id: str, agent: AgentClient, method: str, *arguments: object) -> Any:
    try:
        return await agent.call(method, *arguments, deadline_secs=CALL_DEADLINE_SECS)
    except (RayError, TimeoutError) as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, AntiphonError):
            raise cause from error
        raise ClusterError(
            f"the agent of node {node_id[:_SHOWN]} did not {method.replace('_', ' ')}: "
            f"{cause or 'no answer in time'}"
        ) from error
