"""The commands of the ``antiphon`` command line."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.console import Console

from antiphon.errors import AntiphonError, ConfigError
from antiphon_actors.command_options import (
    BotArgument,
    ModelsOption,
    PipecatOption,
    PlacementOption,
    err,
    log_level_of,
    model_settings_of,
    pipecat_mode,
    placement_of,
    preset_of,
    show_error,
)
from antiphon_actors.gateway_commands import deploy, serve, status, undeploy
from antiphon_actors.interruption import SIGNALS, Interrupted, run_command
from antiphon_actors.placement.policy import PRESETS
from antiphon_actors.progress import Progress

app = typer.Typer(
    help="Runs voice and multimodal bots, in one process or spread over a Ray cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_app = typer.Typer(
    help="Show and download the files of models that run on one's own machines.",
    no_args_is_help=True,
)
app.add_typer(models_app, name="models")


@app.command()
def run(
    bot: BotArgument,
    local: Annotated[
        bool, typer.Option("--local", help="Run everything in this process, without Ray.")
    ] = False,
    placement: PlacementOption = None,
    body: Annotated[
        str, typer.Option(metavar="JSON", help="An object for `runner_args.body`.")
    ] = "{}",
    models: ModelsOption = None,
    table: Annotated[
        bool, typer.Option("--table", help="Show at the end where each processor ran, and why.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="Show logs from this level on.")] = "WARNING",
    pipecat: PipecatOption = False,
    report_file: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write what was said, latencies, usage and errors to a JSON file at the end.",
        ),
    ] = None,
    report_to: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Run one session of a bot and exit as it does.

    Over Ray actors: on the cluster RAY_ADDRESS names, else on a private one on this machine.
    """
    from antiphon_actors.bot_program import read_bot_file
    from antiphon_actors.run import RunOptions, run_here, run_on_cluster
    from antiphon_actors.tables import session_table

    if local and models is not None:
        raise ConfigError("--models is for actors: with --local all models are in this process")
    options = RunOptions(
        bot_file=read_bot_file(bot, pipecat_mode(pipecat)),
        placement=placement_of(placement),
        body=_json_object(body),
        collect=bool(report_to),
        address=os.environ.get("RAY_ADDRESS"),
        log_level=log_level_of(log_level),
        on_failure=show_error,
        models=model_settings_of(models),
    )
    with Progress(err, quiet=bool(report_to)) as progress:
        if local:
            report = run_command(run_here(options))
        else:
            report = run_command(run_on_cluster(options, progress, report_to=report_to or None))
    if table:
        Console().print(session_table(report))
    if report_file is not None:
        try:
            report.save(report_file)
        except OSError as error:
            raise ConfigError(f"--report: {error}") from error
    raise typer.Exit(report.exit_code)


app.command()(serve)
app.command()(deploy)
app.command()(undeploy)
app.command()(status)


@app.command()
def plan(
    bot: BotArgument, placement: PlacementOption = None, pipecat: PipecatOption = False
) -> None:
    """Show where each processor of a bot would run, and why; start none of them."""
    from antiphon_actors.bot_program import read_bot_file
    from antiphon_actors.plan_command import plan_bot
    from antiphon_actors.tables import plan_table

    bot_file = read_bot_file(bot, pipecat_mode(pipecat))
    made = run_command(plan_bot(bot_file, placement_of(placement)))
    Console().print(plan_table(made, bot_file.path))


@app.command()
def demo(
    local: Annotated[
        bool, typer.Option("--local", help="Run the bot in this process, without Ray.")
    ] = False,
    placement: Annotated[str, typer.Option(metavar="|".join(PRESETS))] = "pooled",
    out: Annotated[Path, typer.Option(help="Where the recording and the picture go.")] = Path(
        "out"
    ),
) -> None:
    """Let a recorded caller talk to a bot; about a minute."""
    from antiphon_actors.demo import run_demo

    preset = preset_of(placement) or "pooled"
    with Progress(err) as progress:
        code = run_command(
            run_demo(
                local=local,
                preset=preset,
                out=out,
                console=Console(),
                progress=progress,
                on_failure=show_error,
            )
        )
    raise typer.Exit(code)


@app.command()
def drain(
    what: Annotated[str, typer.Argument(metavar="node|pool|app", help="What to empty.")],
    name: Annotated[
        str,
        typer.Argument(
            help="The node's id or its beginning; the processors' class or pool; APP or APP@VERSION."
        ),
    ] = "",
    deadline: Annotated[
        float, typer.Option(metavar="SECS", min=0.0, help="How long sessions may take.")
    ] = 300.0,
    reason: Annotated[str, typer.Option(help="Why, for status and logs.")] = "asked for",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Call it off, or let new sessions in again.")
    ] = False,
) -> None:
    """Let no new sessions in; let those that are there end, or move; then end the actors.

    On the cluster RAY_ADDRESS names. Whoever interrupts the command leaves the drain as it is.
    """
    from antiphon_actors.drain_command import DrainOptions, drain_on_cluster
    from antiphon_actors.drains import TargetKind

    if what not in get_args(TargetKind):
        raise ConfigError(f"drain {what}: choose one of {', '.join(get_args(TargetKind))}")
    if what != "node" and not name:
        raise ConfigError(f"drain {what}: name it")
    options = DrainOptions(
        what=cast(TargetKind, what),
        name=name,
        deadline_secs=deadline,
        reason=reason,
        wait=not no_wait,
        cancel=cancel,
    )
    run_command(drain_on_cluster(options, os.environ.get("RAY_ADDRESS"), err.print))


@app.command()
def doctor() -> None:
    """Check this machine and say what is missing and how to get it."""
    from antiphon_actors.doctor import examine

    raise typer.Exit(examine(Console(highlight=False)))


@models_app.command("pull")
def models_pull(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Whisper models (tiny, large-v3, owner/name, ...) and Piper voices "
            "(en_US-lessac-medium, ...).",
        ),
    ],
) -> None:
    """Download models, so that their first use does not have to.

    To ANTIPHON_MODELS, or ~/.cache/antiphon/models. Goes on where an earlier download broke off.
    """
    from antiphon_actors.models_command import pull_models

    run_command(pull_models(names, err))


@models_app.command("list")
def models_list() -> None:
    """Show the models that are on this machine."""
    from antiphon_actors.models_command import installed_models, models_table

    found = installed_models()
    if found:
        Console().print(models_table(found))
    else:
        err.print("no models are here: `antiphon models pull NAME` downloads one", soft_wrap=True)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def bench(context: typer.Context) -> None:
    """Measure Antiphon beside other ways to do the same (source tree only)."""
    from antiphon_actors.bench import run_bench

    raise typer.Exit(run_bench(context.args))


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--body: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError('--body: give a JSON object, such as {"room": "a"}')
    return value


@app.callback()
def _begin() -> None:
    from antiphon_actors.session import console

    console.configure_logging("WARNING")


def execute() -> int:
    """Runs the command line; an error of the user's is one message, not a traceback.

    Returns:
        The exit code, unless the command exits by itself.
    """
    try:
        app()
    except AntiphonError as error:
        show_error(str(error))
        return 1
    except Interrupted as signalled:
        # What is left to do is the end of the interpreter; nothing may break that.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        show_error(f"interrupted ({signalled})")
        return signalled.exit_code
    return 0
