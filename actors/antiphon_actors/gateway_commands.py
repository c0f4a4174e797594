"""The commands that serve callers: `antiphon serve`, `deploy`, `undeploy` and `status`."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer
from rich.console import Console

from antiphon.errors import ConfigError
from antiphon_actors.command_options import (
    BotArgument,
    ModelsOption,
    PipecatOption,
    PlacementOption,
    err,
    log_level_of,
    model_settings_of,
    pipecat_mode,
    preset_of,
    show_error,
)
from antiphon_actors.interruption import run_command
from antiphon_actors.progress import Progress

if TYPE_CHECKING:
    from antiphon_actors.gateway.settings import AppSpec

T = TypeVar("T")

HostOption = Annotated[
    str | None,
    typer.Option("--host", help="Address to listen at. Default: 127.0.0.1, this machine only."),
]
PortOption = Annotated[int | None, typer.Option("--port", help="Port to listen at. Default: 7860.")]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="ANTIPHON_API_KEY",
        help="What callers need. Default: one is made, and shown once.",
    ),
]
PublicUrlOption = Annotated[
    str | None,
    typer.Option("--public-url", help="What callers reach this at, if there is a proxy before it."),
]
SessionsOption = Annotated[
    int | None,
    typer.Option("--max-sessions", min=1, help="Sessions at once on each node. Default: 256."),
]
LogLevelOption = Annotated[
    str, typer.Option("--log-level", help="Show logs of sessions from this level on.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The bot's name.")]


def serve(
    bot: BotArgument,
    name: Annotated[
        str, typer.Option("--name", help="What callers call it. Default: the file's name.")
    ] = "",
    host: HostOption = None,
    port: PortOption = None,
    api_key: KeyOption = None,
    no_api_key: Annotated[
        bool, typer.Option("--no-api-key", help="Let everybody on this machine in.")
    ] = False,
    public_url: PublicUrlOption = None,
    max_sessions: SessionsOption = None,
    models: ModelsOption = None,
    placement: PlacementOption = None,
    log_level: LogLevelOption = "WARNING",
    pipecat: PipecatOption = False,
) -> None:
    """Serve a bot to callers over WebSockets, until Ctrl-C.

    Over Ray actors: on the cluster RAY_ADDRESS names, else on a private one on this machine.
    """
    from antiphon_actors.gateway.access import hash_key, new_key, new_secret
    from antiphon_actors.gateway.serve import ServeOptions, is_loopback, name_of, serve
    from antiphon_actors.gateway.settings import GatewaySettings

    app = _app(bot, name or name_of(bot), placement, log_level, pipecat=pipecat)
    model_settings = model_settings_of(models)
    usual = GatewaySettings()
    host = host if host is not None else usual.host
    if no_api_key and not is_loopback(host):
        raise ConfigError("--no-api-key is for the loopback address: others need a key")
    new = None if api_key or no_api_key else new_key()
    settings = GatewaySettings(
        host=host,
        port=port if port is not None else usual.port,
        key_hash="" if no_api_key else hash_key(new or api_key or ""),
        secret=new_secret(),
        public_url=_url(public_url),
    )

    def ready(address: str) -> None:
        out = Console(highlight=False)
        out.print(f"{app.name}: ws://{address}/ws/{app.name}", markup=False, soft_wrap=True)
        if new is not None:
            out.print(f"API key, shown this once: {new}", markup=False, soft_wrap=True)

    address = os.environ.get("RAY_ADDRESS")
    with Progress(err) as progress:
        options = ServeOptions(
            app, settings, max_sessions, model_settings, address, ready, show_error
        )
        run_command(serve(options, progress))


def deploy(
    bot: BotArgument,
    name: Annotated[str, typer.Option("--name", help="What callers call it.")],
    host: HostOption = None,
    port: PortOption = None,
    api_key: KeyOption = None,
    public_url: PublicUrlOption = None,
    max_sessions: SessionsOption = None,
    models: ModelsOption = None,
    placement: PlacementOption = None,
    log_level: LogLevelOption = "WARNING",
    pipecat: PipecatOption = False,
) -> None:
    """Put a bot on the cluster that RAY_ADDRESS names, or a new version of it.

    Each node gets a gateway, which stays until the last bot is taken off again.
    """
    from antiphon_actors.gateway.deployment import Wishes, deploy

    app = _app(bot, name, placement, log_level, pipecat=pipecat)
    url = _url(public_url) if public_url is not None else None
    model_settings = model_settings_of(models)
    wishes = Wishes(host, port, api_key, url, max_sessions, model_settings)
    with Progress(err) as progress:
        deployed = run_command(_on_cluster(progress, "starting gateways", deploy(app, wishes)))
    out = Console(highlight=False)
    for facts in deployed.gateways:
        url = f"ws://{facts.host}:{facts.port}/ws/{app.name}"
        out.print(f"{app.name} {app.version}: {url} (node {facts.node_id[:8]})", soft_wrap=True)
    if deployed.new_key is not None:
        out.print(f"API key, shown this once: {deployed.new_key}", markup=False, soft_wrap=True)


def undeploy(
    name: NameArgument,
    grace_secs: Annotated[
        float,
        typer.Option("--grace-secs", min=0.0, help="With the last bot: how long calls may go on."),
    ] = 30.0,
) -> None:
    """Take a bot off the cluster that RAY_ADDRESS names; calls that run go on.

    With the last bot the gateways end, and so do calls that last longer than the grace.
    """
    from antiphon_actors.gateway.deployment import undeploy

    with Progress(err) as progress:
        last = run_command(
            _on_cluster(progress, "waiting for calls to end", undeploy(name, grace_secs))
        )
    what = ": it was the last, so the gateways have ended" if last else ""
    Console(highlight=False).print(f"{name} is taken off{what}", markup=False)


def status() -> None:
    """Show gateways, bots and calls of the cluster that RAY_ADDRESS names."""
    from antiphon_actors.gateway.deployment import statuses
    from antiphon_actors.tables import gateway_tables

    with Progress(err) as progress:
        found = run_command(_on_cluster(progress, "asking the gateways", statuses()))
    out = Console()
    for table in gateway_tables(found):
        out.print(table)


def _app(bot: Path, name: str, placement: str | None, log_level: str, *, pipecat: bool) -> AppSpec:
    from antiphon_actors.bot_program import read_bot_file
    from antiphon_actors.gateway.settings import AppSpec

    bot_file = read_bot_file(bot, pipecat_mode(pipecat))
    return AppSpec(name, bot_file, preset_of(placement), log_level_of(log_level))


def _url(value: str | None) -> str:
    if value is None:
        return ""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.netloc:
        raise ConfigError(f"--public-url {value}: give a URL such as wss://bots.example.com")
    return value


async def _on_cluster(progress: Progress, step: str, work: Coroutine[Any, Any, T]) -> T:
    """Does something on the cluster that RAY_ADDRESS names."""
    from antiphon_actors.run import connected

    address = os.environ.get("RAY_ADDRESS")
    if not address:
        work.close()
        raise ConfigError(
            "RAY_ADDRESS is not set: it names the cluster, as host:port. `antiphon serve` needs none"
        )
    async with connected(address, progress):
        progress.say(step)
        found = await work
        progress.done()
        return found
