"""Where the time between the user's last word and the bot's first goes, in the log."""

from __future__ import annotations

from typing import Any

from loguru import logger

from antiphon.observers.turn_record import STAGES, TurnRecord, summary
from antiphon.observers.turn_record_observer import TurnRecordObserver


class LatencyBreakdownLogObserver(TurnRecordObserver):
    """Logs, for each turn that the bot answered, the latency and its stages, and their averages.

    The stages are those of ``TurnRecord.stages``. The averages are logged when the pipeline ends.
    """

    async def cleanup(self) -> None:
        """Logs the averages."""
        await super().cleanup()
        averages = {
            stage: round(figures["average"], 3)
            for stage in STAGES
            if (figures := summary(record.stages.get(stage) for record in self.records))
        }
        total = summary(record.latency_secs for record in self.records)
        if total:
            logger.info(
                "latency of all turns",
                turns=int(total["count"]),
                seconds=round(total["average"], 3),
                stages=averages,
            )

    async def _recorded(self, record: TurnRecord) -> None:
        await super()._recorded(record)
        if record.latency_secs is not None:
            stages: dict[str, Any] = {
                stage: round(secs, 3) for stage, secs in record.stages.items()
            }
            logger.info(
                "latency of a turn",
                turn=record.number,
                seconds=round(record.latency_secs, 3),
                stages=stages,
            )
