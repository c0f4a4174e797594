"""Says where a bot's processors would go, without starting any of them."""

from __future__ import annotations

from antiphon.errors import ConfigError, SessionError
from antiphon.pipeline.executor import Execution, Executor, use_executor
from antiphon.runner.types import RunnerArguments
from antiphon_actors.bot_program import BotError, BotFile, load_bot, run_bot
from antiphon_actors.placement.plan import Plan, make_plan
from antiphon_actors.placement.policy import Placement


class _PlanMade(Exception):
    """Ends the bot program once its pipeline is known."""


class _PlanningExecutor(Executor):
    def __init__(self, placement: Placement, plans: list[Plan]) -> None:
        self._placement = placement
        self._plans = plans

    async def start(self, execution: Execution) -> None:
        """Makes the plan and ends the task."""
        self._plans.append(make_plan(execution.pipeline, self._placement))
        raise _PlanMade

    async def stop(self, *, cleanup: bool) -> None:
        """Nothing was started."""


async def plan_bot(bot_file: BotFile, placement: Placement | None) -> Plan:
    """The plan of a bot: its program is run until it runs a pipeline task.

    Args:
        bot_file: The bot.
        placement: How to place; None for what the bot file says, else pooled.

    Raises:
        BotError: If the bot cannot be loaded or fails before that, or if its rules contradict one
            another.
        ConfigError: If a rule is about nothing in the pipeline.
        SessionError: If it ends without running a task.
    """
    module = load_bot(bot_file)
    chosen = placement or getattr(module, "placement", None) or Placement()
    plans: list[Plan] = []
    try:
        with use_executor(lambda: _PlanningExecutor(chosen, plans)):
            await run_bot(module, bot_file, RunnerArguments(session_id="plan"))
    except BotError:
        if not plans:
            raise
    if not plans:
        raise SessionError(f"{bot_file.path}: bot() ended without running a PipelineTask")
    plan = plans[0]
    if plan.unknown:
        has = ", ".join(placed.processor.name for placed in plan.workers)
        raise ConfigError(
            f"placement: rules name {', '.join(plan.unknown)}, which the pipeline does not have; "
            f"it has {has}"
        )
    return plan
