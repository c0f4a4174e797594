"""What a bot() function is told about the session it is to serve.

One class for each kind of transport, so that a bot can tell them apart with ``isinstance``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.runner.checkpoint import SessionCheckpoint


@dataclass
class RunnerArguments:
    """The arguments of every session.

    Attributes:
        handle_sigint: Whether the bot's PipelineRunner should react to SIGINT.
        handle_sigterm: Whether it should react to SIGTERM.
        pipeline_idle_timeout_secs: Idle timeout the operator wishes; None for the bot's own.
        body: Data of the request that started the session.
        session_id: Name of the session.
        resume: What the session goes on from, if its first process has died; None otherwise. It is
            restored by itself when the bot's task starts; a bot may change it before.
    """

    handle_sigint: bool = field(init=False, default=False, kw_only=True)
    handle_sigterm: bool = field(init=False, default=False, kw_only=True)
    pipeline_idle_timeout_secs: float | None = field(init=False, default=None, kw_only=True)
    body: dict[str, Any] = field(default_factory=dict, kw_only=True)
    session_id: str = field(default="", kw_only=True)
    resume: SessionCheckpoint | None = field(default=None, kw_only=True)


@dataclass
class DailyRunnerArguments(RunnerArguments):
    """A session in a Daily room.

    Attributes:
        room_url: The room to join.
        token: Lets the bot in.
    """

    room_url: str
    token: str | None = None


@dataclass
class WebSocketRunnerArguments(RunnerArguments):
    """A telephone call, or another session over a WebSocket that was accepted.

    Attributes:
        websocket: The connection: FastAPI's ``WebSocket``, or one with its methods.
    """

    websocket: Any


@dataclass
class SmallWebRTCRunnerArguments(RunnerArguments):
    """A session with a browser.

    Attributes:
        webrtc_connection: The peer connection, a ``SmallWebRTCConnection``.
    """

    webrtc_connection: Any
