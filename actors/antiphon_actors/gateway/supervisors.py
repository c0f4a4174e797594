"""What a session needs of those who run bots; how to get them on a cluster is in `cluster_supervisors`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from typing import Protocol

from antiphon_actors.gateway.settings import AppSpec
from antiphon_actors.report import SessionReport
from antiphon_actors.supervisor import Failure, Output, SessionSpec


class Supervisor(Protocol):
    """A session's place in a supervisor.

    Attributes:
        actor_id: Names the supervisor, in `avoid` of the next reservation.
        where: The actor, its process and node, for people.
    """

    actor_id: str
    where: str

    def run(self, spec: SessionSpec) -> AsyncGenerator[Output | Failure | SessionReport]:
        """Runs the session; what it prints, what fails, and its report last.

        Raises:
            SupervisorLostError: The supervisor has died, or did not want the session.
        """

    async def cancel(self, run_id: str) -> None:
        """Ends the session now.

        Raises:
            SupervisorLostError: The supervisor is gone, and the session with it.
            TimeoutError: It does not answer, or the session does not end.
        """

    async def abandon(self, run_id: str) -> None:
        """Ends the session there because it goes on elsewhere: what was saved of it stays.

        Raises:
            SupervisorLostError: As `cancel`.
            TimeoutError: As `cancel`.
        """

    def kill(self) -> None:
        """Ends the supervisor, with every session in it."""

    async def release(self) -> None:
        """Gives the place back."""


class Supervisors(Protocol):
    """Where supervisors come from."""

    async def reserve(self, run_id: str, app: AppSpec, avoid: Collection[str]) -> Supervisor:
        """Gives a session a place. When cancelled, no place is held.

        Args:
            run_id: The session, and which of its supervisors.
            app: The bot.
            avoid: Supervisors that must not be chosen.

        Raises:
            NoActorError: There is none.
        """
