"""What processors report about their own work."""

from __future__ import annotations

from pydantic import BaseModel

from antiphon.frames.codec import register_type


@register_type
class MetricsData(BaseModel):
    """One measurement of one processor.

    Attributes:
        processor: Name of the processor.
        model: The model it used, if any.
    """

    processor: str
    model: str | None = None


@register_type
class TTFBMetricsData(MetricsData):
    """Time from a request to the first piece of its answer, in seconds."""

    value: float


@register_type
class ProcessingMetricsData(MetricsData):
    """Time one request took as a whole, in seconds."""

    value: float


@register_type
class LLMTokenUsage(BaseModel):
    """Tokens of one completion.

    Attributes:
        prompt_tokens: Tokens of the context.
        completion_tokens: Tokens generated.
        total_tokens: Both together.
        cache_read_input_tokens: Context tokens read from the provider's cache.
        cache_creation_input_tokens: Context tokens written to the provider's cache.
        reasoning_tokens: Generated tokens spent on reasoning.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_tokens: int | None = None


@register_type
class LLMUsageMetricsData(MetricsData):
    """Token usage of a language model."""

    value: LLMTokenUsage


@register_type
class TTSUsageMetricsData(MetricsData):
    """Characters a speech synthesis was asked to speak."""

    value: int


@register_type
class SmartTurnMetricsData(MetricsData):
    """A verdict of an end-of-turn model.

    Attributes:
        is_complete: Whether the turn was judged complete.
        probability: The model's probability of that, 0 to 1.
        inference_time_ms: Time of the model alone.
        server_total_time_ms: Time the model's server spent, 0 when it ran here.
        e2e_processing_time_ms: Time from the request to the verdict.
    """

    is_complete: bool
    probability: float
    inference_time_ms: float
    server_total_time_ms: float
    e2e_processing_time_ms: float


@register_type
class StallMetricsData(MetricsData):
    """How long a processor has held a frame, or a task of it has shown no life, in seconds.

    Attributes:
        task: The task, if its watchdog reports; empty if a heartbeat does.
    """

    value: float
    task: str = ""


@register_type
class ServiceSwitchMetricsData(MetricsData):
    """A fallback chain has changed the service that answers.

    ``processor`` is the chain, ``model`` the model of the service that answers from now on.

    Attributes:
        from_name: Name of the service that has answered so far.
        to_name: Name of the one that answers from now on.
        reason: Why, for people.
    """

    from_name: str
    to_name: str
    reason: str
