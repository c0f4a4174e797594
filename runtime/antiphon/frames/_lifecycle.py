"""Frames that start, end, watch, pause and measure a pipeline, and report its errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from antiphon.frames._base import ControlFrame, SystemFrame

if TYPE_CHECKING:
    from antiphon.audio.interruptions.base_interruption_strategy import BaseInterruptionStrategy
    from antiphon.metrics.metrics import MetricsData
    from antiphon.processors.frame_processor import FrameProcessor


@dataclass
class StartFrame(SystemFrame):
    """Starts a pipeline; the first frame every processor sees.

    Attributes:
        audio_in_sample_rate: Of the audio from the user, Hz.
        audio_out_sample_rate: Of the audio to the user, Hz.
        allow_interruptions: Whether the user may interrupt the bot.
        enable_metrics: Whether processors measure their times.
        enable_tracing: Whether processors write traces.
        enable_usage_metrics: Whether services count tokens and characters.
        interruption_strategies: What has to agree before the user interrupts a speaking bot.
        report_only_initial_ttfb: Whether a service reports only its first time to first byte.
    """

    audio_in_sample_rate: int = 16000
    audio_out_sample_rate: int = 24000
    allow_interruptions: bool = False
    enable_metrics: bool = False
    enable_tracing: bool = False
    enable_usage_metrics: bool = False
    interruption_strategies: list[BaseInterruptionStrategy] = field(default_factory=list)
    report_only_initial_ttfb: bool = False


@dataclass
class EndFrame(ControlFrame):
    """Ends a pipeline once everything queued before it has been handled.

    An interruption does not drop it.
    """

    survives_interruption: ClassVar[bool] = True


@dataclass
class StopFrame(ControlFrame):
    """Ends a pipeline's task once everything queued before it has been handled.

    The processors stay as they are, so that another task can go on with them. An interruption
    does not drop it.
    """

    survives_interruption: ClassVar[bool] = True


@dataclass
class CancelFrame(SystemFrame):
    """Ends a pipeline at once; what still waits is dropped."""


@dataclass
class EndTaskFrame(SystemFrame):
    """Asks, upstream, the pipeline's task to end in good order (`EndFrame`)."""


@dataclass
class StopTaskFrame(SystemFrame):
    """Asks, upstream, the pipeline's task to stop and keep its processors (`StopFrame`)."""


@dataclass
class CancelTaskFrame(SystemFrame):
    """Asks, upstream, the pipeline's task to end at once (`CancelFrame`)."""


@dataclass
class ErrorFrame(SystemFrame):
    """Reports an error, upstream.

    Attributes:
        error: What happened.
        fatal: Whether the bot has to end because of it.
        processor: Where it happened.
    """

    error: str
    fatal: bool = False
    processor: FrameProcessor | None = None

    def __str__(self) -> str:
        return f"{self.name}(error: {self.error}, fatal: {self.fatal})"


@dataclass
class FatalErrorFrame(ErrorFrame):
    """Reports, upstream, an error because of which the bot has to end."""

    fatal: bool = field(default=True, init=False)


@dataclass
class HeartbeatFrame(ControlFrame):
    """Runs through the pipeline from time to time, to show that it gets through.

    Attributes:
        timestamp: When it was sent, nanoseconds of the pipeline's clock.
    """

    timestamp: int


@dataclass
class FrameProcessorPauseFrame(ControlFrame):
    """Makes a processor hold back its frames, from this point in the order on.

    Attributes:
        processor: The one to pause.
    """

    processor: FrameProcessor


@dataclass
class FrameProcessorPauseUrgentFrame(SystemFrame):
    """Makes a processor hold back its frames as soon as possible.

    Attributes:
        processor: The one to pause.
    """

    processor: FrameProcessor


@dataclass
class FrameProcessorResumeFrame(ControlFrame):
    """Lets a paused processor handle its frames again, in the order they came.

    Attributes:
        processor: The one to resume.
    """

    processor: FrameProcessor


@dataclass
class FrameProcessorResumeUrgentFrame(SystemFrame):
    """Lets a paused processor handle its frames again, as soon as possible.

    Attributes:
        processor: The one to resume.
    """

    processor: FrameProcessor


@dataclass
class MetricsFrame(SystemFrame):
    """Carries measurements of a processor.

    Attributes:
        data: The measurements.
    """

    data: list[MetricsData]
