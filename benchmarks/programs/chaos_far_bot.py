"""The bot of the chaos suite, two of whose processors are on other nodes than the bot's own."""

from antiphon_actors.placement.policy import Placement, Rule
from benchmarks.programs.chaos_bot import bot

__all__ = ["bot", "placement"]

placement = Placement(
    rules=(
        Rule("ScriptLLM", "pooled", {"far": 0.1}),
        Rule("ToneTTS", "pooled", {"far": 0.1}),
    )
)
