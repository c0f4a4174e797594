"""A language model, its context and a client."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from antiphon.frames import codec
from antiphon.frames.frames import Frame
from antiphon.processors import rtvi as alias
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frameworks import rtvi
from antiphon.processors.frameworks.rtvi import (
    RTVIActionFrame,
    RTVIActionRun,
    RTVIActionRunArgument,
    RTVIClientMessageFrame,
    RTVIError,
    RTVIErrorData,
    RTVILLMFunctionCallResultData,
    RTVIProcessor,
    RTVIServerMessageFrame,
    RTVIServerResponseFrame,
)
from antiphon.services.google.frames import LLMSearchOrigin, LLMSearchResponseFrame, LLMSearchResult
from antiphon.services.llm_service import FunctionCallParams
from antiphon.testing import FakeLLMService
from antiphon.testing.fake_llm import FakeDelay, FakeToolCall


def talk(make_bot: Any, llm: FakeLLMService) -> tuple[Any, OpenAILLMContext]:
    context = OpenAILLMContext()
    pair = llm.create_context_aggregator(context)
    bot = make_bot(pair.user(), llm, tail=[pair.assistant()])
    return bot, context


@pytest.mark.virtual_time
async def test_the_client_runs_a_function_of_the_model(make_bot: Any) -> None:
    llm = FakeLLMService([[FakeToolCall("color", {"of": "sky"})], "It is blue."])
    bot, context = talk(make_bot, llm)
    llm.register_function("color", bot.rtvi.handle_function_call)
    async with bot:
        await bot.send(
            "append-to-context", {"role": "user", "content": "Color?", "run_immediately": True}
        )
        (call,) = bot.of("llm-function-call")
        assert call["data"]["args"] == {"of": "sky"}
        result = {**call["data"], "arguments": call["data"]["args"], "result": {"color": "blue"}}
        await bot.send("llm-function-call-result", result)
        await bot.settle(1)
        assert [message["data"]["text"] for message in bot.of("bot-transcription")] == [
            "It is blue."
        ]
    roles = [message["role"] for message in context.messages]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert context.messages[2]["content"] == '{"color": "blue"}'


@pytest.mark.virtual_time
async def test_a_client_s_question_interrupts_the_answer_and_is_answered(make_bot: Any) -> None:
    llm = FakeLLMService([["Well,", FakeDelay(3600), " never."], "Sure."])
    bot, _ = talk(make_bot, llm)
    async with bot:
        question = {"role": "user", "content": "One?", "run_immediately": True}
        await bot.send("append-to-context", question)
        await bot.settle(1)
        assert bot.of("bot-llm-stopped") == []
        await bot.send("append-to-context", {**question, "content": "Two?"})
        await bot.settle(1)
        assert [message["data"]["text"] for message in bot.of("bot-transcription")] == [
            "Well,",
            "Sure.",
        ]
        assert [message["data"]["text"] for message in bot.of("user-llm-text")] == ["One?", "Two?"]
        assert len(bot.of("bot-llm-stopped")) == 2


@pytest.mark.virtual_time
async def test_where_no_input_transport_interrupts_the_processor_does(
    make_bot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> None:
        pass

    bot = make_bot()
    monkeypatch.setattr(bot.transport.input(), "_interrupt", nothing)
    async with bot:
        data = {"role": "user", "content": "x", "run_immediately": True}
        await bot.send("append-to-context", data)
        await bot.settle(1)
        kinds = [type(frame).__name__ for frame in bot.down.frames]
        assert kinds.index("StartInterruptionFrame") < kinds.index("LLMMessagesAppendFrame")


def test_a_function_handler_is_seen_to_take_its_parameters_alone() -> None:
    assert list(inspect.signature(RTVIProcessor().handle_function_call).parameters) == ["params"]


def test_the_documented_import_is_the_same_module() -> None:
    assert alias.RTVIProcessor is rtvi.RTVIProcessor
    assert alias.RTVIConfig is rtvi.RTVIConfig
    assert alias.RTVIServiceConfig is rtvi.RTVIServiceConfig
    assert all(getattr(alias, name) is getattr(rtvi, name) for name in rtvi.__all__)


def test_the_processor_stays_with_the_bot() -> None:
    assert RTVIProcessor.movable is False
    assert RTVIProcessor.pinned_reason


@pytest.mark.parametrize(
    "frame",
    [
        RTVIActionFrame(
            RTVIActionRun(
                service="s", action="a", arguments=[RTVIActionRunArgument(name="n", value=[1])]
            ),
            "m",
        ),
        RTVIClientMessageFrame("m", "t", {"d": 1}),
        RTVIServerResponseFrame(RTVIClientMessageFrame("m", "t"), {"d": 1}, "e"),
        RTVIServerMessageFrame({"x": [None]}),
        LLMSearchResponseFrame(
            "a", None, [LLMSearchOrigin("u", "t", [LLMSearchResult("p", [1.0])])]
        ),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_frames_travel(frame: Frame) -> None:
    copy = codec.decode(codec.encode(frame))
    assert copy == frame
    assert copy.id == frame.id


def test_frames_do_not_show_what_they_carry() -> None:
    assert "secret" not in str(RTVIServerMessageFrame("secret"))
    assert "secret" not in str(RTVIClientMessageFrame("m", "t", "secret"))


def test_errors_carry_both_names_of_their_text() -> None:
    data = {"error": "x", "message": "x", "fatal": True}
    assert RTVIError(data=RTVIErrorData(error="x", fatal=True)).model_dump()["data"] == data
    assert RTVIErrorData.model_validate({"message": "x", "fatal": True}).model_dump() == data


def test_results_are_made_with_the_documented_name() -> None:
    result = RTVILLMFunctionCallResultData(
        function_name="f", tool_call_id="t", arguments={"a": 1}, result="r"
    )
    assert result.model_dump()["arguments"] == {"a": 1}


@pytest.mark.virtual_time
async def test_a_call_is_taken_from_its_parameters(make_bot: Any) -> None:
    async with make_bot() as bot:
        params = FunctionCallParams(
            function_name="f",
            tool_call_id="t",
            arguments={"a": 1},
            llm=FakeLLMService(),
            context=OpenAILLMContext(),
            result_callback=None,  # type: ignore[arg-type]
        )
        await bot.rtvi.handle_function_call(params)
        await bot.settle()
        assert bot.last["data"] == {"function_name": "f", "tool_call_id": "t", "args": {"a": 1}}
