"""Brings home what successors of the processors here would have to know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from antiphon.frames import codec
from antiphon.frames.frames import Frame
from antiphon.processors.frame_processor import FrameProcessor
from antiphon_actors.channels import Delivery, OutStream

if TYPE_CHECKING:
    from antiphon_actors.session.edge import EdgeInbox
    from antiphon_actors.session.node import SessionNode
    from antiphon_actors.session.succession import Succession, Underway


class StateKeeper:
    """Sends snapshots of the processors of one session in this process, and their settings, home.

    A frame is reported as answered only when the state that it led to is at home, or on its way there
    in the kernel's hands, and when the next processes have processed what was pushed because of it.
    """

    def __init__(
        self,
        node: SessionNode,
        home_uri: str,
        processors: Mapping[int, FrameProcessor],
        underway: Underway,
        succession: Succession | None,
    ) -> None:
        """Begins to keep.

        Args:
            node: The session in this process.
            home_uri: Where to.
            processors: By number.
            underway: Counts what they have given each other and not answered.
            succession: Gives them the states of their predecessors, if they have any.
        """
        self._node = node
        self._home_uri = home_uri
        self._processors = processors
        self._underway = underway
        self._succession = succession
        self._last: dict[int, Any] = {}
        self._soon: asyncio.Handle | None = None
        node.incoming.mark = self._mark
        node.incoming.passed = self._passed
        node.incoming.note_setting = self._note_setting
        node.incoming.prompt = self.keeps_state

    def watch(self, pid: int) -> None:
        """Listens to a processor that says when its state has changed by itself."""
        if self.keeps_state(pid):
            self._processors[pid]._state_listener = self._save_soon

    def keeps_state(self, pid: int) -> bool:
        """Whether a processor has a state that its successor would have to know."""
        return type(self._processors[pid]).snapshot is not FrameProcessor.snapshot

    def _mark(self) -> list[tuple[OutStream, tuple[int, int]]] | None:
        """What stands for all that came of the frames so far; None if a state cannot be told now."""
        if not self._save():
            return None
        return [position for edge in self._node.edges() for position in edge.positions()]

    def _passed(self, mark: object) -> bool:
        """Whether nothing of it would be lost with this process, or with one of the next."""
        assert isinstance(mark, list)
        return self._node.flushed and all(
            stream.has_processed(position) for stream, position in mark
        )

    def _save(self) -> bool:
        """Sends the states home that have changed; False if one cannot be told now.

        What was pushed on the way to a state leaves this process before the state does: the successor
        will not push it again. What processors here have given each other is answered before: the
        successors will not do a part of it again, with the state that all of it led to.
        """
        if self._succession is not None and not self._succession.complete:
            return False
        if not all(self._is_out(edge) for edge in self._node.edges()):
            return False
        changed: dict[int, Any] = {}
        for pid, processor in self._processors.items():
            if not self.keeps_state(pid):
                continue
            if not _is_between_frames(processor):
                return False
            state = processor.snapshot()
            if state != self._last.get(pid):
                changed[pid] = state
        if not changed:
            return True
        if self._underway:
            return False
        self._last |= changed
        positions = {
            source.slot: list(source.stream.safe)
            for source in self._node.incoming.of(self._processors)
            if source.stream is not None
        }
        # In one message: a part of them does not fit the rest of what is known at home.
        states = {
            pid: codec.encode_value(state, self._node.references) for pid, state in changed.items()
        }
        self._node.notify(self._home_uri, "state", [positions, states])
        return True

    def _is_out(self, edge: EdgeInbox) -> bool:
        # What goes home takes the same way as the state, and comes before it.
        return edge.handed_over if edge.uri == self._home_uri else edge.flushed

    def _save_soon(self) -> None:
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._save_now)

    def _save_now(self) -> None:
        self._soon = None
        if not self._node.closed:
            # If it cannot be told now, it is with the next frame that is answered.
            self._save()

    def _note_setting(self, slot: int, delivery: Delivery, frame: Frame) -> None:
        self._node.notify(
            self._home_uri,
            "setting",
            [slot >> 2, slot, delivery.urgent, delivery.seq, delivery.payload],
        )


def _is_between_frames(processor: FrameProcessor) -> bool:
    inbox = processor._local_inbox
    return all(
        lane.current is None and lane.doing.receipt is None
        for lane in (inbox._system_lane, inbox._ordered_lane)
    )
