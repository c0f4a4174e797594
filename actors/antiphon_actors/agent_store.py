"""What a detached node agent keeps in a file of its node, so that a restarted one goes on with it.

Writing all of it costs a quarter of a millisecond with 64 actors; to tell each actor instead who has a place in
it would be a Ray call of 1.5 ms at both ends, several for every session.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from loguru import logger
from pydantic import TypeAdapter, ValidationError

from antiphon_actors.drains import TargetKind
from antiphon_actors.pool_state import PoolActor
from antiphon_actors.processor_actor import ActorFacts

FILE_NAME = "agent-state.json"

_VERSION = 1


@dataclass(frozen=True, slots=True)
class KeptActor:
    """An actor that was ready.

    Attributes:
        actor: What it is for, and who uses it.
        actor_id: Ray's id, hexadecimal.
        facts: Where it is.
    """

    actor: PoolActor
    actor_id: str
    facts: ActorFacts


@dataclass(frozen=True, slots=True)
class KeptElsewhere:
    """A session's place in an actor of another node.

    Attributes:
        number: Its lease here.
        session_id: Whose.
        node_id: On which node.
        lease_id: Its lease there.
        actor_id: Of the actor there.
    """

    number: int
    session_id: str
    node_id: str
    lease_id: int
    actor_id: str


@dataclass(frozen=True, slots=True)
class KeptDrain:
    """A drain.

    Attributes:
        what: See `DrainTarget`, as for `name`.
        name: As there.
        reason: Why.
        until: Its deadline, in seconds since 1970.
    """

    what: TargetKind
    name: str
    reason: str
    until: float


@dataclass(frozen=True, slots=True)
class AgentState:
    """All that a restarted agent has to know.

    Attributes:
        actors: Of this node.
        elsewhere: Places on other nodes.
        drains: What is, or has been, drained.
        version: Of this form.
    """

    actors: tuple[KeptActor, ...] = ()
    elsewhere: tuple[KeptElsewhere, ...] = ()
    drains: tuple[KeptDrain, ...] = ()
    version: int = _VERSION


_ADAPTER = TypeAdapter(AgentState)


class AgentStore:
    """The file; who can write in its directory is trusted.

    Args:
        directory: Of the node's sockets, mode 0700.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._written = b""
        self.error = ""

    def read(self) -> AgentState | None:
        """What was written last; None if nothing was, or it cannot be used."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.error("the state of the node agent cannot be read", error=str(error))
            return None
        try:
            state = _ADAPTER.validate_json(data)
        except ValidationError as error:
            logger.error("the state of the node agent is damaged", problems=error.error_count())
            return None
        if state.version != _VERSION:
            logger.warning("the state of the node agent has another form", version=state.version)
            return None
        return state

    def write(self, state: AgentState) -> None:
        """Replaces what was written, unless it is the same; `error` says why where that fails."""
        data = _ADAPTER.dump_json(state)
        if data == self._written:
            return
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(data)
            fresh.replace(self._path)
        except OSError as error:
            if not self.error:
                logger.error("the state of the node agent cannot be written", error=str(error))
            self.error = str(error)
        else:
            self._written, self.error = data, ""

    def remove(self) -> None:
        """Forgets all."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
