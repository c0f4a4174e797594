"""Which other nodes are lost, and which are not needed any more: a state machine without I/O.

Ray takes a node for lost after 4 to 60 s, depending on its settings and on how the node fails. A node's agent
answers from a thread of its own, so its silence says so much sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ASK_SECS = 0.5
"""How often each is asked for a sign of life."""

SILENT_SECS = 2.5
"""How long a node may be silent."""

IDLE_SECS = 300.0
"""How long a node without sessions keeps its agent, and with it the machine: Ray gives none back on which
there is an actor."""


@dataclass(slots=True)
class _Node:
    heard_at: float
    used_at: float


class NodeWatch:
    """The nodes that have an agent.

    Args:
        silent_secs: How long one may be silent.
        idle_secs: How long one may be without sessions.
    """

    def __init__(self, *, silent_secs: float = SILENT_SECS, idle_secs: float = IDLE_SECS) -> None:
        self._silent_secs = silent_secs
        self._idle_secs = idle_secs
        self._nodes: dict[str, _Node] = {}

    @property
    def nodes(self) -> list[str]:
        """Those that are watched."""
        return list(self._nodes)

    def joined(self, node_id: str, now: float) -> None:
        """A node's agent has started."""
        self._nodes[node_id] = _Node(now, now)

    def left(self, node_id: str) -> None:
        """A node is not watched any more."""
        self._nodes.pop(node_id, None)

    def heard(self, node_id: str, now: float) -> None:
        """A node has answered."""
        if node_id in self._nodes:
            self._nodes[node_id].heard_at = now

    def used(self, node_id: str, now: float) -> None:
        """A node has sessions, or is asked for places."""
        if node_id in self._nodes:
            self._nodes[node_id].used_at = now

    def lost(self, now: float) -> list[str]:
        """Takes the nodes off that were silent for too long, and returns them."""
        return self._take(lambda node: now - node.heard_at >= self._silent_secs)

    def idle(self, now: float) -> list[str]:
        """Takes the nodes off that nobody has used for long, and returns them."""
        return self._take(lambda node: now - node.used_at >= self._idle_secs)

    def _take(self, condition: Callable[[_Node], bool]) -> list[str]:
        found = [node_id for node_id, node in self._nodes.items() if condition(node)]
        for node_id in found:
            del self._nodes[node_id]
        return found
