"""The messages of RTVI 1.0, the protocol between a bot and its clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from antiphon.processors.frameworks._rtvi.settings import (
    ActionResult,
    RTVIAction,
    RTVIConfig,
    RTVIService,
    RTVIServiceConfig,
)

RTVI_PROTOCOL_VERSION: Final = "1.0.0"
"""The version that is spoken here."""

RTVI_MESSAGE_LABEL: Final = "rtvi-ai"
"""What marks a message as one of this protocol; clients drop all others."""

Label = Literal["rtvi-ai"]


class RTVIMessage(BaseModel):
    """A message from a client.

    Attributes:
        label: The protocol's mark.
        type: What the message is.
        id: What an answer refers to; empty if the client wants none.
        data: Depends on the type.
    """

    label: Label = RTVI_MESSAGE_LABEL
    type: str
    id: Annotated[str, BeforeValidator(lambda value: "" if value is None else value)] = ""
    data: Any = None


# -- from clients ------------------------------------------------------------------------------


class AboutClientData(BaseModel):
    """What a client says of itself."""

    library: str
    library_version: str | None = None
    platform: str | None = None
    platform_version: str | None = None
    platform_details: Any = None


class RTVIClientReadyData(BaseModel):
    """Data of ``client-ready``.

    Attributes:
        version: The protocol version the client speaks, as ``x.y.z``.
        about: The client.
    """

    version: str
    about: AboutClientData


class RTVIRawClientMessageData(BaseModel):
    """Data of ``client-message``.

    Attributes:
        t: The application's own type.
        d: The application's own data.
    """

    t: str
    d: Any = None


class RTVIClientMessage(BaseModel):
    """A ``client-message`` as the bot's handlers get it.

    Attributes:
        msg_id: What a response refers to.
        type: The application's own type.
        data: The application's own data.
    """

    msg_id: str
    type: str
    data: Any = None


class RTVIAppendToContextData(BaseModel):
    """Data of ``append-to-context``.

    Attributes:
        role: Whose message it is: ``user`` or ``assistant``.
        content: The message's content, in the language model's format.
        run_immediately: Whether the bot is interrupted and answers at once.
    """

    role: Literal["user", "assistant"] | str
    content: Any
    run_immediately: bool = False


class RTVIAppendToContext(BaseModel):
    """``append-to-context``: a client adds to the conversation."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["append-to-context"] = "append-to-context"
    data: RTVIAppendToContextData


class RTVILLMFunctionCallResultData(BaseModel):
    """Data of ``llm-function-call-result``.

    Attributes:
        function_name: The function that the client ran.
        tool_call_id: The call.
        arguments: What the function got. The standard calls this ``args``, clients send
            ``arguments``; both are read.
        result: What the function returned.
    """

    # `args` is read, and the constructor still takes `arguments`.
    model_config = ConfigDict(populate_by_name=True)

    function_name: str
    tool_call_id: str
    arguments: dict[str, Any] = Field(validation_alias=AliasChoices("arguments", "args"))
    result: Any


# -- to clients: answers -----------------------------------------------------------------------


class RTVIRawServerResponseData(BaseModel):
    """Data of ``server-response``.

    Attributes:
        t: The type of the client's message.
        d: The answer.
    """

    t: str
    d: Any = None


class RTVIServerResponse(BaseModel):
    """``server-response``: the answer to a ``client-message`` of the same id."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["server-response"] = "server-response"
    id: str
    data: RTVIRawServerResponseData


class RTVIErrorResponseData(BaseModel):
    """Data of ``error-response``."""

    error: str


class RTVIErrorResponse(BaseModel):
    """``error-response``: the client's message of the same id was refused."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["error-response"] = "error-response"
    id: str
    data: RTVIErrorResponseData


class RTVIErrorData(BaseModel):
    """Data of ``error``.

    Attributes:
        error: What went wrong.
        message: The same: clients read the one or the other.
        fatal: Whether the session is over.
    """

    error: str
    message: str = ""
    fatal: bool

    @model_validator(mode="before")
    @classmethod
    def _same_text(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            text = data.get("error", data.get("message"))
            return {"error": text, "message": text, **data}
        return data


class RTVIError(BaseModel):
    """``error``: something went wrong in the bot."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["error"] = "error"
    data: RTVIErrorData


class RTVIDescribeConfigData(BaseModel):
    """Data of ``config-available``."""

    config: list[RTVIService]


class RTVIDescribeConfig(BaseModel):
    """``config-available``: the services and their options."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["config-available"] = "config-available"
    id: str
    data: RTVIDescribeConfigData


class RTVIDescribeActionsData(BaseModel):
    """Data of ``actions-available``."""

    actions: list[RTVIAction]


class RTVIDescribeActions(BaseModel):
    """``actions-available``: the actions and what they take."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["actions-available"] = "actions-available"
    id: str
    data: RTVIDescribeActionsData


class RTVIConfigResponse(BaseModel):
    """``config``: the values of all options."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["config"] = "config"
    id: str
    data: RTVIConfig


class RTVIActionResponseData(BaseModel):
    """Data of ``action-response``."""

    result: ActionResult


class RTVIActionResponse(BaseModel):
    """``action-response``: what an action returned."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["action-response"] = "action-response"
    id: str
    data: RTVIActionResponseData


class RTVIBotReadyData(BaseModel):
    """Data of ``bot-ready``.

    Attributes:
        version: The protocol version spoken here.
        config: The values of all options; only for clients older than protocol 1.0.
        about: Whatever the bot says of itself.
    """

    version: str
    config: list[RTVIServiceConfig] | None = None
    about: Mapping[str, Any] | None = None


class RTVIBotReady(BaseModel):
    """``bot-ready``: the answer to ``client-ready``."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-ready"] = "bot-ready"
    id: str
    data: RTVIBotReadyData


# -- to clients: functions ---------------------------------------------------------------------


class RTVILLMFunctionCallMessageData(BaseModel):
    """Data of ``llm-function-call``."""

    function_name: str
    tool_call_id: str
    args: Mapping[str, Any]


class RTVILLMFunctionCallMessage(BaseModel):
    """``llm-function-call``: the client is to run a function."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["llm-function-call"] = "llm-function-call"
    data: RTVILLMFunctionCallMessageData


class RTVILLMFunctionCallStartMessageData(BaseModel):
    """Data of ``llm-function-call-start``."""

    function_name: str


class RTVILLMFunctionCallStartMessage(BaseModel):
    """``llm-function-call-start``: the language model has called a function."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["llm-function-call-start"] = "llm-function-call-start"
    data: RTVILLMFunctionCallStartMessageData


# -- to clients: what happens in the conversation ----------------------------------------------


class RTVIBotLLMStartedMessage(BaseModel):
    """``bot-llm-started``: the language model begins to answer."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-llm-started"] = "bot-llm-started"


class RTVIBotLLMStoppedMessage(BaseModel):
    """``bot-llm-stopped``: the answer is complete."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-llm-stopped"] = "bot-llm-stopped"


class RTVIBotTTSStartedMessage(BaseModel):
    """``bot-tts-started``: speech synthesis begins."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-tts-started"] = "bot-tts-started"


class RTVIBotTTSStoppedMessage(BaseModel):
    """``bot-tts-stopped``: speech synthesis is done."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-tts-stopped"] = "bot-tts-stopped"


class RTVITextMessageData(BaseModel):
    """Data of the messages that are a text."""

    text: str


class RTVIBotTranscriptionMessage(BaseModel):
    """``bot-transcription``: a sentence of the bot."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-transcription"] = "bot-transcription"
    data: RTVITextMessageData


class RTVIBotLLMTextMessage(BaseModel):
    """``bot-llm-text``: a token of the language model."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-llm-text"] = "bot-llm-text"
    data: RTVITextMessageData


class RTVIBotTTSTextMessage(BaseModel):
    """``bot-tts-text``: text that is being spoken."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-tts-text"] = "bot-tts-text"
    data: RTVITextMessageData


class RTVIAudioMessageData(BaseModel):
    """Data of ``bot-tts-audio``.

    Attributes:
        audio: Base64 of int16 little-endian PCM.
        sample_rate: In Hz.
        num_channels: Interleaved channels.
    """

    audio: str
    sample_rate: int
    num_channels: int


class RTVIBotTTSAudioMessage(BaseModel):
    """``bot-tts-audio``: the bot's voice, for bots that send it in messages."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-tts-audio"] = "bot-tts-audio"
    data: RTVIAudioMessageData


class RTVIUserTranscriptionMessageData(BaseModel):
    """Data of ``user-transcription``.

    Attributes:
        text: What the user said.
        user_id: Who.
        timestamp: When, ISO 8601.
        final: Whether the text will not change any more.
    """

    text: str
    user_id: str
    timestamp: str
    final: bool


class RTVIUserTranscriptionMessage(BaseModel):
    """``user-transcription``: what the user says."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["user-transcription"] = "user-transcription"
    data: RTVIUserTranscriptionMessageData


class RTVIUserLLMTextMessage(BaseModel):
    """``user-llm-text``: what the language model gets as the user's message."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["user-llm-text"] = "user-llm-text"
    data: RTVITextMessageData


class RTVIUserStartedSpeakingMessage(BaseModel):
    """``user-started-speaking``."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["user-started-speaking"] = "user-started-speaking"


class RTVIUserStoppedSpeakingMessage(BaseModel):
    """``user-stopped-speaking``."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["user-stopped-speaking"] = "user-stopped-speaking"


class RTVIBotStartedSpeakingMessage(BaseModel):
    """``bot-started-speaking``."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-started-speaking"] = "bot-started-speaking"


class RTVIBotStoppedSpeakingMessage(BaseModel):
    """``bot-stopped-speaking``."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["bot-stopped-speaking"] = "bot-stopped-speaking"


class RTVIMetricsMessage(BaseModel):
    """``metrics``: lists of measurements under ``ttfb``, ``processing``, ``tokens``, ``characters``."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["metrics"] = "metrics"
    data: Mapping[str, Any]


class RTVIServerMessage(BaseModel):
    """``server-message``: a message of the application."""

    label: Label = RTVI_MESSAGE_LABEL
    type: Literal["server-message"] = "server-message"
    data: Any
