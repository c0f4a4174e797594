"""Tools and messages in the forms of the vendors, as plain data."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter
from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.adapters.schemas.tools_schema import AdapterType, ToolsSchema
from antiphon.adapters.services.anthropic_adapter import AnthropicLLMAdapter
from antiphon.adapters.services.aws_nova_sonic_adapter import AWSNovaSonicLLMAdapter
from antiphon.adapters.services.bedrock_adapter import AWSBedrockLLMAdapter
from antiphon.adapters.services.gemini_adapter import GeminiLLMAdapter
from antiphon.adapters.services.open_ai_adapter import OpenAILLMAdapter
from antiphon.adapters.services.open_ai_realtime_adapter import OpenAIRealtimeLLMAdapter
from antiphon.errors import ConfigError

PROPERTIES: dict[str, Any] = {
    "location": {"type": "string", "description": "The city, e.g. San Francisco"},
    "format": {"type": "string", "enum": ["celsius", "fahrenheit"]},
}
REQUIRED = ["location", "format"]
PARAMETERS = {"type": "object", "properties": PROPERTIES, "required": REQUIRED}
WEATHER = FunctionSchema("get_weather", "Get the weather", PROPERTIES, REQUIRED)
NAMED = {"name": "get_weather", "description": "Get the weather"}


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        (OpenAILLMAdapter(), {"type": "function", "function": {**NAMED, "parameters": PARAMETERS}}),
        (OpenAIRealtimeLLMAdapter(), {"type": "function", **NAMED, "parameters": PARAMETERS}),
        (AnthropicLLMAdapter(), {**NAMED, "input_schema": PARAMETERS}),
        (AWSBedrockLLMAdapter(), {"toolSpec": {**NAMED, "inputSchema": {"json": PARAMETERS}}}),
        (
            AWSNovaSonicLLMAdapter(),
            {"toolSpec": {**NAMED, "inputSchema": {"json": json.dumps(PARAMETERS)}}},
        ),
        (GeminiLLMAdapter(), {"function_declarations": [{**NAMED, "parameters": PARAMETERS}]}),
    ],
)
def test_tools_and_custom_tools_take_the_form_of_the_vendor(
    adapter: BaseLLMAdapter, expected: dict[str, Any]
) -> None:
    assert adapter.adapter_type is not None
    custom = {kind: [{"own": kind.value}] for kind in AdapterType}
    tools = ToolsSchema(standard_tools=[WEATHER], custom_tools=custom)

    translated = adapter.from_standard_tools(tools)

    assert translated == [expected, {"own": adapter.adapter_type.value}]
    assert json.loads(json.dumps(translated)) == translated
    # Provider-specific tools pass as they are.
    assert adapter.from_standard_tools([expected]) == [expected]
    without = adapter.to_provider_tools_format(ToolsSchema(standard_tools=[WEATHER]))
    assert without == [expected]


def test_gemini_gets_no_empty_list_of_functions() -> None:
    search: dict[str, Any] = {"google_search": {}}
    tools = ToolsSchema(standard_tools=[], custom_tools={AdapterType.GEMINI: [search]})
    assert GeminiLLMAdapter().from_standard_tools(tools) == [search]


PICTURE = base64.b64encode(b"jpeg").decode()
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is this?"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "And here?"},
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PICTURE}"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "1",
                "type": "function",
                "function": {"name": "look", "arguments": '{"far": true}'},
            },
            {"id": "2", "type": "function", "function": {"name": "name", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": '{"seen": "a cat"}'},
    {"role": "tool", "tool_call_id": "2", "content": "IN_PROGRESS"},
    {"role": "assistant", "content": "A cat."},
    {"role": "system", "content": "The user is leaving."},
]


def test_openai_takes_messages_as_they_are() -> None:
    given = OpenAILLMAdapter().to_provider_messages_format(CONVERSATION)
    assert (given.system, given.messages) == (None, CONVERSATION)


def test_messages_for_anthropic() -> None:
    given = AnthropicLLMAdapter().to_provider_messages_format(CONVERSATION)
    assert given.system == "Be brief."
    assert given.messages == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "text", "text": "And here?"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/jpeg", "data": PICTURE},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "1", "name": "look", "input": {"far": True}},
                {"type": "tool_use", "id": "2", "name": "name", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": '{"seen": "a cat"}'},
                {"type": "tool_result", "tool_use_id": "2", "content": "IN_PROGRESS"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": [{"type": "text", "text": "The user is leaving."}]},
    ]


def test_messages_for_bedrock() -> None:
    given = AWSBedrockLLMAdapter().to_provider_messages_format(CONVERSATION)
    assert given.system == "Be brief."
    assert given.messages[0]["content"] == [
        {"text": "What is this?"},
        {"text": "And here?"},
        {"image": {"format": "jpeg", "source": {"bytes": b"jpeg"}}},
    ]
    assert given.messages[1]["content"][0] == {
        "toolUse": {"toolUseId": "1", "name": "look", "input": {"far": True}}
    }
    assert given.messages[2]["content"] == [
        {"toolResult": {"toolUseId": "1", "content": [{"json": {"seen": "a cat"}}]}},
        {"toolResult": {"toolUseId": "2", "content": [{"text": "IN_PROGRESS"}]}},
    ]
    assert [message["role"] for message in given.messages] == ["user", "assistant"] * 2 + ["user"]


def test_messages_for_gemini() -> None:
    given = GeminiLLMAdapter().to_provider_messages_format(CONVERSATION)
    assert given.system == "Be brief."
    assert given.messages[0]["parts"][2] == {
        "inline_data": {"mime_type": "image/jpeg", "data": PICTURE}
    }
    assert given.messages[1] == {
        "role": "model",
        "parts": [
            {"function_call": {"id": "1", "name": "look", "args": {"far": True}}},
            {"function_call": {"id": "2", "name": "name", "args": {}}},
        ],
    }
    assert given.messages[2]["parts"] == [
        {"function_response": {"id": "1", "name": "look", "response": {"seen": "a cat"}}},
        {"function_response": {"id": "2", "name": "name", "response": {"value": "IN_PROGRESS"}}},
    ]


def test_pictures_that_are_linked() -> None:
    linked = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    messages = [{"role": "user", "content": [linked]}]
    anthropic = AnthropicLLMAdapter().to_provider_messages_format(messages)
    assert anthropic.messages[0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    ]
    gemini = GeminiLLMAdapter().to_provider_messages_format(messages)
    assert gemini.messages[0]["parts"] == [{"file_data": {"file_uri": "https://x/y.png"}}]
    with pytest.raises(ValueError, match="no links"):
        AWSBedrockLLMAdapter().to_provider_messages_format(messages)


def test_empty_text_is_not_sent_empty() -> None:
    messages = [{"role": "user", "content": ""}, {"role": "assistant", "content": "ok"}]
    given = AnthropicLLMAdapter().to_provider_messages_format(messages)
    assert given.system is None
    assert given.messages[0]["content"] == [{"type": "text", "text": "(empty)"}]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"role": "robot", "content": "x"}, "role 'robot'"),
        ({"role": "user", "content": [{"type": "smell"}]}, "type 'smell'"),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "7", "function": {"name": "f", "arguments": "{"}}],
            },
            "'7' are not JSON",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "7", "function": {"name": "f", "arguments": "[1]"}}],
            },
            "'7' are not an object",
        ),
    ],
)
def test_what_is_not_openais_form_is_refused(message: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        AnthropicLLMAdapter().to_provider_messages_format([message])


# -- what cannot be offered to a model is refused when it is made ------------------------------


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"a": {"type": "strin"}}, r"properties\.a: type must be one of"),
        ({"a": {"type": []}}, "type must be one of"),
        ({"a": {"type": ["string", 5]}}, "type must be one of"),
        ({"a": "string"}, "a JSON Schema is an object"),
        ({5: {}}, "the name 5 is not text"),
        (["a"], "must map names"),
        (None, "must map names"),
        ({"a": {"type": "string", "enum": "x"}}, "enum must be a list"),
        ({"a": {"type": "array", "items": "string"}}, "items: a JSON Schema is an object"),
        ({"a": {"type": "object", "properties": {"b": {"type": 1}}}}, r"properties\.b: type"),
        ({"a": {"type": "object", "required": "b"}}, "required must be a list"),
        ({"a": {"anyOf": []}}, "anyOf must be a list"),
        ({"a": {"anyOf": [{"type": "x"}]}}, r"anyOf\[0\]: type"),
        ({"a": {"description": 5}}, "description must be text"),
        ({"a": {"minimum": "1"}}, "minimum must be a number"),
        ({"a": {"maxLength": -1}}, "maxLength must be a count"),
        ({"a": {5: 5}}, "keyword 5"),
    ],
)
def test_properties_that_are_no_json_schema(properties: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        FunctionSchema("f", "does", properties, [])
    assert "function f" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "description", "required", "problem"),
    [
        ("", "does", [], "needs a name"),
        (None, "does", [], "needs a name"),
        ("f", None, [], "must be text"),
        ("f", "does", "a", "required must be a list"),
        ("f", "does", ["a", "a"], "twice"),
        ("f", "does", [1], "required must be a list"),
    ],
)
def test_other_parts_of_a_function_schema(
    name: Any, description: Any, required: Any, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        FunctionSchema(name, description, {}, required)


def test_json_schema_beyond_the_basics_is_accepted() -> None:
    FunctionSchema(
        "f",
        "does",
        {
            "anything": {},
            "always": True,
            "several": {"type": ["string", "null"], "default": None, "x-own": object},
            "pair": {"type": "array", "items": [{"type": "string"}, {"type": "integer"}]},
            "nested": {
                "type": "object",
                "properties": {"n": {"type": "number", "minimum": 0.5, "maximum": 2}},
                "required": ["n"],
                "additionalProperties": False,
            },
            "either": {"oneOf": [{"const": 1}, {"not": {"enum": []}}], "$ref": "#/$defs/x"},
            "text": {"type": "string", "minLength": 0, "maxLength": 5, "format": "date"},
        },
        ["anything"],
    )


@pytest.mark.parametrize(
    "custom",
    [{"gemini": []}, {AdapterType.GEMINI: {"google_search": {}}}, [{"google_search": {}}]],
)
def test_custom_tools_are_lists_by_adapter(custom: Any) -> None:
    with pytest.raises(ConfigError, match="custom_tools"):
        ToolsSchema(standard_tools=[], custom_tools=custom)
    tools = ToolsSchema(standard_tools=[])
    with pytest.raises(ConfigError, match="custom_tools"):
        tools.custom_tools = custom
