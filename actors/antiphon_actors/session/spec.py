"""What an actor is told about the processors it hosts for a session.

These travel through Ray, from the supervisor that runs the bot to the actors it was given, and
never over a channel: they hold classes and are unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.compat import aliases
from antiphon_actors.session.kept import KeptState


@dataclass(frozen=True)
class Neighbour:
    """The processor on one side of a hosted one.

    Attributes:
        pid: Its number in the session.
        name: Its name.
        uri: The hub of the process it runs in.
    """

    pid: int
    name: str
    uri: str


@dataclass(frozen=True)
class Inheritance:
    """What a processor is to know of the one whose place it takes.

    Attributes:
        start_frame: The StartFrame of the pipeline, encoded; None if it has not been started.
        started: Whether that has gone through all of the pipeline.
        kept: What home has kept of that processor.
    """

    start_frame: bytes | None
    started: bool
    kept: KeptState


@dataclass(frozen=True)
class HostedSpec:
    """One processor to build.

    Attributes:
        pid: Its number in the session.
        name: Its name, as in the bot's process.
        obj_id: Its object id, as in the bot's process.
        blueprint: Class and constructor arguments, pickled.
        journal: Relayed calls made since its construction, in the codec's form.
        previous: Its upstream neighbour.
        next: Its downstream neighbour.
        inherits: Set if it takes the place of one that was lost.
    """

    pid: int
    name: str
    obj_id: int
    blueprint: bytes
    journal: bytes
    previous: Neighbour | None
    next: Neighbour | None
    inherits: Inheritance | None = None


@dataclass(frozen=True)
class AttachSpec:
    """The processors one actor hosts for a session.

    Attributes:
        session_id: The session.
        home_uri: The hub of the process that runs the bot.
        clock_started_ns: CLOCK_MONOTONIC when the pipeline's clock read zero.
        watchdog_timers_enabled: Whether tasks are watched by default.
        observe: Whether somebody at home watches the frames.
        processors: What to build, in pipeline order.
        classes: The bot's own classes that travel in frames, each pickled (`wire_types`).
        import_paths: Directories the bot's modules are imported from.
        absent: Processes that are gone and will be replaced; their processors will be elsewhere.
        incarnation: How often processors of the session have been replaced before.
        recovers: Whether processors that are lost with their processes get successors.
        pipecat: Whether the bot's modules know Antiphon as ``pipecat`` (`antiphon.compat`).
    """

    session_id: str
    home_uri: str
    clock_started_ns: int
    watchdog_timers_enabled: bool
    observe: bool
    processors: Sequence[HostedSpec]
    classes: Sequence[bytes] = ()
    import_paths: Sequence[str] = ()
    pipecat: aliases.Mode = "off"
    recovers: bool = False
    absent: Sequence[str] = ()
    incarnation: int = 0
