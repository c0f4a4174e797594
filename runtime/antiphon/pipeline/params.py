"""How a pipeline runs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from antiphon.audio.interruptions.base_interruption_strategy import BaseInterruptionStrategy
from antiphon.observers.base_observer import BaseObserver
from antiphon.pipeline.monitors import HEARTBEAT_SECONDS


class PipelineParams(BaseModel):
    """How a pipeline runs.

    Attributes:
        allow_interruptions: Whether the user may interrupt the bot.
        audio_in_sample_rate: Sample rate of input audio, Hz.
        audio_out_sample_rate: Sample rate of output audio, Hz.
        enable_heartbeats: Whether heartbeats watch over the flow of frames.
        enable_metrics: Whether processors report timings.
        enable_usage_metrics: Whether processors report usage.
        heartbeats_period_secs: Seconds between two heartbeats.
        interruption_strategies: What decides whether user speech interrupts the bot.
        observers: Observers of the task (give them to the task instead).
        report_only_initial_ttfb: Whether only the first time to first byte is reported.
        send_initial_empty_metrics: Whether a frame of zero metrics begins the session.
        start_metadata: Becomes the StartFrame's metadata.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    allow_interruptions: bool = True
    audio_in_sample_rate: int = Field(default=16000, gt=0)
    audio_out_sample_rate: int = Field(default=24000, gt=0)
    enable_heartbeats: bool = False
    enable_metrics: bool = False
    enable_usage_metrics: bool = False
    heartbeats_period_secs: float = Field(default=HEARTBEAT_SECONDS, gt=0)
    interruption_strategies: list[BaseInterruptionStrategy] = Field(default_factory=list)
    observers: list[BaseObserver] = Field(default_factory=list)
    report_only_initial_ttfb: bool = False
    send_initial_empty_metrics: bool = True
    start_metadata: dict[str, Any] = Field(default_factory=dict)
