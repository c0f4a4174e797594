"""The documented attributes of the spans of services.

``span`` is an OpenTelemetry span or a ``ServiceSpan``. What is None is left out; texts hold what
people said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

# The registry of OpenTelemetry's semantic conventions, attribute gen_ai.system.
_SYSTEMS = {
    "AWSBedrock": "aws.bedrock",
    "AWSNovaSonic": "aws.bedrock",
    "AWSPolly": "aws.polly",
    "AWSTranscribe": "aws.transcribe",
    "Azure": "az.ai.openai",
    "GeminiMultimodalLive": "gcp.gemini",
    "Google": "gcp.gemini",
    "GoogleVertex": "gcp.vertex_ai",
    "Grok": "xai",
    "OpenAIRealtime": "openai",
}
_SPEECH_SYSTEMS = {"Azure": "azure", "Google": "gcp"}
_KIND = re.compile(r"(?:LLM|TTS|STT)?Service$")
# How a service is reached says nothing about who provides it.
_MANNER = re.compile(r"(?:Http|HTTP|WebSocket|Segmented|Beta|OpenAIBeta)$")
_PARAMETERS = (
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)


class AttributeTarget(Protocol):
    """Anything that takes attributes."""

    def set_attribute(self, key: str, value: Any) -> Any:
        """Sets an attribute."""


def gen_ai_system(service_name: str) -> str:
    """The provider, as OpenTelemetry names it, of a service class of that name."""
    name = _KIND.sub("", service_name)
    while (shorter := _MANNER.sub("", name)) and shorter != name:
        name = shorter
    if not service_name.endswith("LLMService") and name in _SPEECH_SYSTEMS:
        return _SPEECH_SYSTEMS[name]
    return _SYSTEMS.get(name, name.lower())


def add_tts_span_attributes(
    span: AttributeTarget,
    service_name: str,
    model: str,
    voice_id: str,
    text: str | None = None,
    settings: Mapping[str, Any] | None = None,
    character_count: int | None = None,
    operation_name: str = "tts",
    ttfb: float | None = None,
    **kwargs: Any,
) -> None:
    """Sets the attributes of a text-to-speech span.

    Args:
        span: The span.
        service_name: Class name of the service, or its provider's name.
        model: The model.
        voice_id: The voice.
        text: What is spoken.
        settings: The service's settings; plain ones become ``settings.*``.
        character_count: Characters of the text.
        operation_name: Name of the operation.
        ttfb: Time to the first audio, in seconds.
        **kwargs: Further attributes.
    """
    _set(
        span,
        {
            "gen_ai.system": gen_ai_system(service_name),
            "gen_ai.request.model": model,
            "gen_ai.operation.name": operation_name,
            "gen_ai.output.type": "speech",
            "voice_id": voice_id,
            "text": text,
            "metrics.character_count": character_count,
            "metrics.ttfb": ttfb,
        },
        settings,
        kwargs,
    )


def add_stt_span_attributes(
    span: AttributeTarget,
    service_name: str,
    model: str,
    operation_name: str = "stt",
    transcript: str | None = None,
    is_final: bool | None = None,
    language: str | None = None,
    user_id: str | None = None,
    settings: Mapping[str, Any] | None = None,
    vad_enabled: bool = False,
    ttfb: float | None = None,
    **kwargs: Any,
) -> None:
    """Sets the attributes of a speech-to-text span.

    Args:
        span: The span.
        service_name: Class name of the service, or its provider's name.
        model: The model.
        operation_name: Name of the operation.
        transcript: What was understood.
        is_final: Whether the transcript is final.
        language: The language heard or set.
        user_id: Who spoke.
        settings: The service's settings; plain ones become ``settings.*``.
        vad_enabled: Whether voice activity is detected.
        ttfb: Time to the transcript, in seconds.
        **kwargs: Further attributes.
    """
    _set(
        span,
        {
            "gen_ai.system": gen_ai_system(service_name),
            "gen_ai.request.model": model,
            "gen_ai.operation.name": operation_name,
            "vad_enabled": vad_enabled,
            "transcript": transcript,
            "is_final": is_final,
            "language": language and str(language),
            "user_id": user_id or None,
            "metrics.ttfb": ttfb,
        },
        settings,
        kwargs,
    )


def add_llm_span_attributes(
    span: AttributeTarget,
    service_name: str,
    model: str,
    stream: bool = True,
    messages: str | None = None,
    output: str | None = None,
    tools: str | None = None,
    tool_count: int | None = None,
    tool_choice: str | None = None,
    system: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    extra_parameters: Mapping[str, Any] | None = None,
    ttfb: float | None = None,
    **kwargs: Any,
) -> None:
    """Sets the attributes of a language model span.

    Args:
        span: The span.
        service_name: Class name of the service, or its provider's name.
        model: The model.
        stream: Whether the answer is streamed.
        messages: The conversation as JSON.
        output: The whole answer.
        tools: The tools as JSON.
        tool_count: How many there are.
        tool_choice: Which one the model has to use.
        system: The system message.
        parameters: Standard parameters; those that are numbers become ``gen_ai.request.*``.
        extra_parameters: Others; the plain ones become ``param.*``.
        ttfb: Time to the first token, in seconds.
        **kwargs: Further attributes.
    """
    standard = {
        f"gen_ai.request.{key}": value
        for key, value in (parameters or {}).items()
        if key in _PARAMETERS and isinstance(value, (int, float))
    }
    extra = {
        f"param.{key}": value
        for key, value in (extra_parameters or {}).items()
        if isinstance(value, (str, bool, int, float))
    }
    _set(
        span,
        {
            "gen_ai.system": gen_ai_system(service_name),
            "gen_ai.request.model": model,
            "gen_ai.operation.name": "chat",
            "gen_ai.output.type": "text",
            "stream": stream,
            "input": messages,
            "output": output,
            "tools": tools,
            "tools.count": tool_count,
            "tool_choice": tool_choice,
            "system": system,
            "metrics.ttfb": ttfb,
            **standard,
            **extra,
        },
        None,
        kwargs,
    )


def add_gemini_live_span_attributes(
    span: AttributeTarget,
    service_name: str,
    model: str,
    operation_name: str,
    voice_id: str | None = None,
    language: str | None = None,
    modalities: str | None = None,
    settings: Mapping[str, Any] | None = None,
    tools: Sequence[Any] | None = None,
    tools_serialized: str | None = None,
    transcript: str | None = None,
    is_input: bool | None = None,
    text_output: str | None = None,
    audio_data_size: int | None = None,
    **kwargs: Any,
) -> None:
    """Sets the attributes of a span of Gemini Live.

    Args:
        span: The span.
        service_name: Class name of the service, or its provider's name.
        model: The model.
        operation_name: ``llm_setup``, ``llm_tool_call``, ``llm_tool_result`` or ``llm_response``.
        voice_id: The voice.
        language: The language.
        modalities: What it answers with.
        settings: The service's settings; plain ones become ``settings.*``.
        tools: The tools, in any provider's form.
        tools_serialized: The tools as JSON.
        transcript: What was said.
        is_input: Whether by the user.
        text_output: What it answered.
        audio_data_size: Bytes of audio.
        **kwargs: Further attributes, such as ``output_modality``.
    """
    _set(
        span,
        {
            **_of_conversation(service_name, model, operation_name, tools, tools_serialized),
            "voice_id": voice_id,
            "language": language and str(language),
            "modalities": modalities,
            "transcript": transcript,
            "is_input": is_input,
            "output": text_output,
            "audio.data_size_bytes": audio_data_size,
        },
        settings,
        kwargs,
    )


def add_openai_realtime_span_attributes(
    span: AttributeTarget,
    service_name: str,
    model: str,
    operation_name: str,
    session_properties: Mapping[str, Any] | None = None,
    transcript: str | None = None,
    is_input: bool | None = None,
    context_messages: str | None = None,
    function_calls: Sequence[Mapping[str, Any]] | None = None,
    tools: Sequence[Any] | None = None,
    tools_serialized: str | None = None,
    audio_data_size: int | None = None,
    **kwargs: Any,
) -> None:
    """Sets the attributes of a span of OpenAI Realtime.

    Args:
        span: The span.
        service_name: Class name of the service, or its provider's name.
        model: The model.
        operation_name: ``llm_setup``, ``llm_request`` or ``llm_response``.
        session_properties: Settings of the session; plain ones become ``session.*``.
        transcript: What was said.
        is_input: Whether by the user.
        context_messages: The messages that are sent, as JSON.
        function_calls: The calls it asks for, each with its ``name``.
        tools: The tools, in any provider's form.
        tools_serialized: The tools as JSON.
        audio_data_size: Bytes of audio.
        **kwargs: Further attributes, such as ``output``.
    """
    properties = dict(session_properties or {})
    calls: dict[str, Any] = {}
    if function_calls:
        calls = {
            "function_calls.count": len(function_calls),
            "function_calls.names": ",".join(str(call.get("name")) for call in function_calls),
        }
    _set(
        span,
        {
            **_of_conversation(service_name, model, operation_name, tools, tools_serialized),
            "system_instruction": properties.pop("instructions", None),
            "transcript": transcript,
            "is_input": is_input,
            "input": context_messages,
            "audio.data_size_bytes": audio_data_size,
            **calls,
            **{
                f"session.{key}": value
                for key, value in properties.items()
                if isinstance(value, (str, bool, int, float))
            },
        },
        None,
        kwargs,
    )


def _of_conversation(
    service_name: str,
    model: str,
    operation_name: str,
    tools: Sequence[Any] | None,
    tools_serialized: str | None,
) -> dict[str, Any]:
    described = tool_attributes(tools)
    definitions = tools_serialized or described.pop("tools", None)
    return {
        "gen_ai.system": gen_ai_system(service_name),
        "gen_ai.request.model": model,
        "gen_ai.operation.name": operation_name,
        "tools.definitions": definitions,
        **{key: value for key, value in described.items() if key != "tools"},
    }


def tool_attributes(tools: Any) -> dict[str, Any]:
    """The attributes that describe tools, in the forms of all providers."""
    listed = tools if isinstance(tools, (list, tuple)) else getattr(tools, "standard_tools", None)
    if not listed:
        return {}
    plain = [
        tool.to_default_dict() if hasattr(tool, "to_default_dict") else tool for tool in listed
    ]
    return {
        "tools": json.dumps(plain, ensure_ascii=False, default=str),
        "tools.count": len(plain),
        "tools.names": ",".join(filter(None, map(_tool_name, plain))),
    }


def _tool_name(tool: Any) -> str:
    if not isinstance(tool, Mapping):
        return str(getattr(tool, "name", ""))
    function = tool.get("function")
    return str((function if isinstance(function, Mapping) else tool).get("name") or "")


def _set(
    span: AttributeTarget,
    attributes: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    more: Mapping[str, Any],
) -> None:
    described = {
        f"settings.{key}": value
        for key, value in (settings or {}).items()
        if isinstance(value, (str, bool, int, float))
    }
    for key, value in {**attributes, **described, **more}.items():
        if value is not None:
            span.set_attribute(key, value)
