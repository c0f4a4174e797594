"""Which new sessions a node refuses although it could serve them: it, or their bot, is being drained."""

from __future__ import annotations

from antiphon_actors.drains import TargetKind
from antiphon_actors.pool_state import Request
from antiphon_actors.pool_types import Role, is_version


class Admission:
    """Whom a node lets in; everybody at first."""

    def __init__(self) -> None:
        self._node = ""
        # By app; as many as are being drained.
        self._apps: dict[str, str] = {}

    @property
    def closed(self) -> bool:
        """Whether all are refused that are not here yet."""
        return bool(self._node)

    @property
    def reasons(self) -> list[str]:
        """Why some, or all, are refused."""
        return [reason for reason in (self._node, *self._apps.values()) if reason]

    def close(self, what: TargetKind, name: str, reason: str) -> None:
        """Refuses sessions: all that are not here yet, or those of an app in all its versions or one."""
        if what == "node":
            self._node = reason
        elif what == "app":
            self._apps[name] = reason

    def open(self, what: TargetKind, name: str) -> None:
        """Lets them in again."""
        if what == "node":
            self._node = ""
        elif what == "app":
            self._apps.pop(name, None)

    def objection(self, request: Request, *, carried: bool) -> str:
        """Why a request is refused; empty if it is not.

        Args:
            request: What is asked for.
            carried: Whether the session's supervisor is here. Such a session still gets what it lacks:
                it is to end well.
        """
        supervisors = [w.key for w in request.wanted if w.key.role is Role.SUPERVISOR]
        if self._node and (supervisors or not carried):
            return self._node
        for app, reason in self._apps.items():
            if any(is_version(key.kind, app) for key in supervisors):
                return reason
        return ""
