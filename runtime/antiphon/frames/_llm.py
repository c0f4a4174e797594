"""Frames between context aggregators and language models, function calls included."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from antiphon.frames._base import ControlFrame, DataFrame, SystemFrame


@dataclass
class OpenAILLMContextAssistantTimestampFrame(DataFrame):
    """Tells when the assistant's last message was added to the context.

    Attributes:
        timestamp: When, ISO 8601.
    """

    timestamp: str


@dataclass
class LLMMessagesFrame(DataFrame):
    """Makes the language model answer this list of messages.

    Deprecated, as in the documented API: a context frame, or `LLMMessagesUpdateFrame` with
    `run_llm=True`, does the same.

    Attributes:
        messages: In the language model's format; aggregators may change the list in place.
    """

    messages: list[dict[str, Any]]

    def __post_init__(self) -> None:
        super().__post_init__()
        warnings.warn(
            "LLMMessagesFrame is deprecated; push an OpenAILLMContextFrame, or an "
            "LLMMessagesUpdateFrame with run_llm=True",
            DeprecationWarning,
            stacklevel=3,
        )


@dataclass
class LLMMessagesAppendFrame(DataFrame):
    """Appends messages to the conversation's context.

    Attributes:
        messages: The messages to add.
        run_llm: Whether the language model shall answer now; None leaves it to the aggregator.
    """

    messages: list[dict[str, Any]]
    run_llm: bool | None = None


@dataclass
class LLMMessagesUpdateFrame(DataFrame):
    """Replaces the messages of the conversation's context.

    Attributes:
        messages: The new messages.
        run_llm: Whether the language model shall answer now; None leaves it to the aggregator.
    """

    messages: list[dict[str, Any]]
    run_llm: bool | None = None


@dataclass
class LLMSetToolsFrame(DataFrame):
    """Sets the functions the language model may call.

    Attributes:
        tools: Descriptions in the language model's format, usually JSON Schema.
    """

    tools: list[dict[str, Any]]


@dataclass
class LLMSetToolChoiceFrame(DataFrame):
    """Sets whether, or which, function the language model has to call.

    Attributes:
        tool_choice: One of the three words, or the model's own way to name a function.
    """

    tool_choice: Literal["none", "auto", "required"] | dict[str, Any]


@dataclass
class LLMEnablePromptCachingFrame(DataFrame):
    """Turns prompt caching on or off where a language model offers it.

    Attributes:
        enable: On or off.
    """

    enable: bool


@dataclass
class LLMFullResponseStartFrame(ControlFrame):
    """Begins an answer of the language model; its text frames follow."""


@dataclass
class LLMFullResponseEndFrame(ControlFrame):
    """Ends an answer of the language model."""


@dataclass
class FunctionCallFromLLM:
    """A function call that the language model asked for.

    Attributes:
        function_name: Which function.
        tool_call_id: The model's id of this call.
        arguments: The arguments by name.
        context: The conversation's context.
    """

    function_name: str
    tool_call_id: str
    arguments: Mapping[str, Any]
    context: Any


@dataclass
class FunctionCallsStartedFrame(SystemFrame):
    """Announces that function calls are about to run.

    Attributes:
        function_calls: The calls.
    """

    function_calls: Sequence[FunctionCallFromLLM]


@dataclass
class FunctionCallInProgressFrame(SystemFrame):
    """Tells that a function call runs.

    Attributes:
        function_name: Which function.
        tool_call_id: The model's id of this call.
        arguments: The arguments by name.
        cancel_on_interruption: Whether an interruption cancels the call.
    """

    function_name: str
    tool_call_id: str
    arguments: Any
    cancel_on_interruption: bool = False


@dataclass
class FunctionCallCancelFrame(SystemFrame):
    """Tells that a running function call was cancelled.

    Attributes:
        function_name: Which function.
        tool_call_id: The model's id of this call.
    """

    function_name: str
    tool_call_id: str


@dataclass
class FunctionCallResultProperties:
    """What shall happen once a function's result is in the context.

    Attributes:
        run_llm: Whether the language model runs again; None leaves it to the aggregator.
        on_context_updated: Called after the context has the result.
    """

    run_llm: bool | None = None
    on_context_updated: Callable[[], Awaitable[None]] | None = None


@dataclass
class FunctionCallResultFrame(SystemFrame):
    """Carries the result of a function call.

    Attributes:
        function_name: Which function.
        tool_call_id: The model's id of this call.
        arguments: The arguments by name.
        result: What the function returned.
        run_llm: Whether the language model runs again; None leaves it to the aggregator.
        properties: Says the same, and more, and wins over `run_llm`.
    """

    function_name: str
    tool_call_id: str
    arguments: Any
    result: Any
    run_llm: bool | None = None
    properties: FunctionCallResultProperties | None = None
