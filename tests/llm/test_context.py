"""The conversation: identity, tools, media, and its way over the wire."""

from __future__ import annotations

import base64
import io
import json
import wave
from typing import Any

import pytest

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.adapters.services.open_ai_adapter import OpenAILLMAdapter
from antiphon.frames.codec import decode, encode
from antiphon.frames.frames import InputAudioRawFrame, LLMSetToolsFrame
from antiphon.processors.aggregators.openai_llm_context import (
    NOT_GIVEN,
    OpenAILLMContext,
    OpenAILLMContextFrame,
    is_given,
)

TOOL = FunctionSchema("f", "does", {"a": {"type": "string"}}, ["a"])


def test_the_list_passed_in_is_the_conversation() -> None:
    messages: list[Any] = [{"role": "system", "content": "x"}]
    context = OpenAILLMContext(messages)

    messages.append({"role": "user", "content": "later"})

    assert context.messages is messages
    assert context.get_messages() is messages
    assert context.get_messages()[-1]["content"] == "later"


@pytest.mark.parametrize("nothing", [None, []])
def test_an_empty_list_is_not_shared(nothing: list[Any] | None) -> None:
    context = OpenAILLMContext(nothing)

    context.add_message({"role": "user", "content": "x"})

    assert not nothing
    assert len(context.messages) == 1


def test_set_messages_replaces_in_place() -> None:
    messages: list[Any] = [{"role": "system", "content": "x"}]
    context = OpenAILLMContext(messages)
    new = [{"role": "system", "content": "y"}]

    context.set_messages(new)

    assert messages == new
    assert messages is not new
    assert context.messages is messages


def test_from_messages_copies_the_list() -> None:
    messages = [{"role": "user", "content": "hi"}]
    context = OpenAILLMContext.from_messages(messages)
    assert context.messages == messages
    assert context.messages is not messages


def test_tools_are_translated_by_the_adapter() -> None:
    context = OpenAILLMContext(tools=ToolsSchema(standard_tools=[TOOL]))
    untranslated: object = context.tools
    assert isinstance(untranslated, ToolsSchema)

    context.set_llm_adapter(OpenAILLMAdapter())
    assert context.tools[0]["function"]["name"] == "f"

    context.set_tools([])
    assert not is_given(context.tools)


def test_not_given_is_the_sdks_own_where_it_is_loaded() -> None:
    import openai

    context = OpenAILLMContext(tools=openai.NOT_GIVEN, tool_choice=NOT_GIVEN)

    assert context.tools is openai.NOT_GIVEN
    assert context.tool_choice is openai.NOT_GIVEN
    assert not is_given(context.tools)
    assert is_given(None)
    assert OpenAILLMContext(tools=None, tool_choice=None).tools is None


def test_a_picture_becomes_a_jpeg_part() -> None:
    context = OpenAILLMContext()

    context.add_image_frame_message(format="RGBA", size=(2, 2), image=bytes(16), text="what?")
    context.add_image_frame_message(format="RGB", size=(2, 2), image=bytes(12))

    text, picture = context.messages[0]["content"]
    assert text == {"type": "text", "text": "what?"}
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert len(context.messages[1]["content"]) == 1


def test_sound_becomes_a_wav_part() -> None:
    context = OpenAILLMContext()
    piece = InputAudioRawFrame(audio=b"\1\0" * 80, sample_rate=16000, num_channels=1)

    context.add_audio_frames_message(audio_frames=[piece, piece], text="hear")
    context.add_audio_frames_message(audio_frames=[])

    (message,) = context.messages
    part = message["content"][1]["input_audio"]
    with wave.open(io.BytesIO(base64.b64decode(part["data"]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16000, 1, 160)


def test_logging_leaves_media_out() -> None:
    context = OpenAILLMContext([{"role": "user", "content": "é", "data": b"1"}])
    context.messages[0]["mime_type"] = "image/jpeg"
    context.add_image_frame_message(format="RGB", size=(2, 2), image=bytes(12))
    context.add_audio_frames_message(
        audio_frames=[InputAudioRawFrame(audio=bytes(8), sample_rate=8000, num_channels=1)]
    )

    logged = json.loads(context.get_messages_for_logging())

    assert logged[0] == {"role": "user", "content": "é", "data": "...", "mime_type": "image/jpeg"}
    assert logged[1]["content"][0]["image_url"]["url"] == "data:image/..."
    assert logged[2]["content"][0]["input_audio"]["data"] == "..."
    assert context.messages[1]["content"][0]["image_url"]["url"] != "data:image/..."
    assert json.loads(context.get_messages_json())[0]["data"] == "MQ=="


def test_stored_messages_are_a_list_of_their_own() -> None:
    context = OpenAILLMContext([{"role": "user", "content": "x"}])
    stored = context.get_messages_for_persistent_storage()
    assert stored == context.messages
    assert stored is not context.messages


@pytest.mark.parametrize("tools", [NOT_GIVEN, None, [{"type": "function"}]])
@pytest.mark.parametrize("choice", [NOT_GIVEN, None, "auto", {"type": "function"}])
def test_a_context_frame_travels(tools: Any, choice: Any) -> None:
    context = OpenAILLMContext(
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}], tools, choice
    )
    frame = OpenAILLMContextFrame(context=context)

    again = decode(encode(frame))

    assert isinstance(again, OpenAILLMContextFrame)
    assert again.id == frame.id
    assert again.context.id == context.id
    assert again.context.messages == context.messages
    assert again.context.to_plain() == context.to_plain()
    assert is_given(again.context.tools) == is_given(tools)
    assert is_given(again.context.tool_choice) == is_given(choice)


def test_standard_tools_travel_untranslated() -> None:
    context = OpenAILLMContext(tools=ToolsSchema(standard_tools=[TOOL]))
    context.set_llm_adapter(OpenAILLMAdapter())

    again = OpenAILLMContext.from_plain(context.to_plain())

    assert again.get_llm_adapter() is None
    assert again.tools_for(OpenAILLMAdapter()) == context.tools

    frame = decode(encode(LLMSetToolsFrame(tools=ToolsSchema([TOOL]))))  # type: ignore[arg-type]
    assert isinstance(frame, LLMSetToolsFrame)
    assert isinstance(frame.tools, ToolsSchema)


def test_the_sdks_message_objects_travel_as_plain_data() -> None:
    from openai.types.chat import ChatCompletionMessage

    context = OpenAILLMContext([ChatCompletionMessage(role="assistant", content="hi")])
    assert context.to_plain()["messages"] == [{"role": "assistant", "content": "hi"}]


def test_live_objects_in_a_message_are_refused() -> None:
    with pytest.raises(TypeError, match="plain data"):
        OpenAILLMContext([{"role": "user", "content": object()}]).to_plain()
