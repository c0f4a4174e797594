"""How a gateway works, and which bots it has."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from antiphon.compat import aliases
from antiphon.errors import ConfigError
from antiphon_actors.bot_program import BotFile
from antiphon_actors.gateway.session_state import Patience
from antiphon_actors.placement.policy import Placement, Preset

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How a gateway works.

    Attributes:
        host: Address to listen at; the loopback address unless others shall be let in.
        port: Port to listen at; 0 takes a free one.
        key_hash: SHA-256 of the API key, hexadecimal; empty if none is asked for.
        secret: Key of the tickets that `/connect` issues, the same for all gateways of a cluster.
        public_url: What callers reach this gateway at (``wss://bots.example.com``), where that is
            not what they have asked for; empty: that.
        cors_origins: Origins whose pages may call `/connect`; ``*`` for any.
        max_sessions: Sessions of this gateway at once, those being admitted included; how many a node
            runs is up to its agent.
        max_connections: Connections at once, of any kind.
        max_message_bytes: Largest WebSocket message of a caller.
        max_body_bytes: Largest body of a request; it has to fit in a URL, encrypted.
        handshake_secs: From a connection to the end of its first request's head.
        idle_secs: A session in which nobody sends anything for so long is ended.
        send_secs: A caller who takes nothing for so long counts as gone.
        kept_secs: What a caller has sent and no process has committed is kept for at most so long.
        kept_bytes: The same in bytes.
        patience: How long sessions wait for their supervisors.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    key_hash: str = ""
    secret: str = field(default="", repr=False)
    public_url: str = ""
    cors_origins: tuple[str, ...] = ("*",)
    max_sessions: int = 1024
    max_connections: int = 2048
    max_message_bytes: int = 1 << 20
    max_body_bytes: int = 4 << 10
    handshake_secs: float = 10.0
    idle_secs: float = 300.0
    send_secs: float = 10.0
    kept_secs: float = 30.0
    kept_bytes: int = 4 << 20
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class AppSpec:
    """A deployed bot.

    Attributes:
        name: What callers call it: lower-case letters, digits, ``.``, ``_`` and ``-``.
        bot_file: Its program.
        placement: How its processors are placed; None for what the bot file says, else pooled.
        log_level: Logs of its sessions below it are not shown.
    """

    name: str
    bot_file: BotFile
    placement: Preset | None = None
    log_level: str = "WARNING"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.name!r} is no name for a bot: it takes lower-case letters, digits and . _ - "
                "between them, at most 64"
            )

    @property
    def version(self) -> str:
        """What it is, in short: two that differ in anything have different versions."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=6).hexdigest()

    @property
    def kind(self) -> str:
        """Name of the supervisors that its sessions may share."""
        return f"{self.name}@{self.version}"

    def make_placement(self) -> Placement | None:
        """How its processors are placed, as a session is told."""
        return Placement(self.placement) if self.placement is not None else None

    def to_json(self) -> str:
        """Its form in the registry."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> AppSpec:
        """Reads it.

        Raises:
            ConfigError: It is malformed; which bot, if that can be told.
        """
        try:
            plain: dict[str, Any] = json.loads(text)
            bot = plain["bot_file"]
            placement = plain["placement"]
            if placement is not None and placement not in get_args(Preset):
                raise ValueError(f"unknown placement {placement}")
            if bot["pipecat"] not in get_args(aliases.Mode):
                raise ValueError(f"unknown mode {bot['pipecat']}")
            return cls(
                str(plain["name"]),
                BotFile(str(bot["path"]), str(bot["source"]), bot["pipecat"]),
                placement,
                str(plain["log_level"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"a deployed bot cannot be read from the registry: {error}"
            ) from error
