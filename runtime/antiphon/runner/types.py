"""What a bot() function is told about the session it is to serve."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class RunnerArguments:
    """The arguments of every session.

    Attributes:
        handle_sigint: Whether the bot's PipelineRunner should react to SIGINT.
        handle_sigterm: Whether it should react to SIGTERM.
        pipeline_idle_timeout_secs: Idle timeout the operator wishes; None for the bot's own.
        body: Data of the request that started the session.
        session_id: Name of the session.
    """

    handle_sigint: bool = field(init=False, default=False, kw_only=True)
    handle_sigterm: bool = field(init=False, default=False, kw_only=True)
    pipeline_idle_timeout_secs: float | None = field(init=False, default=None, kw_only=True)
    body: dict[str, Any] = field(default_factory=dict, kw_only=True)
    session_id: str = field(default="", kw_only=True)
