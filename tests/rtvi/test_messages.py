"""What clients send, and what they get for it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from antiphon.frames.frames import (
    BotInterruptionFrame,
    EndTaskFrame,
    ErrorFrame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    LLMMessagesAppendFrame,
    StartInterruptionFrame,
    StopFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.frameworks._rtvi import processor as rtvi_processor
from antiphon.processors.frameworks.rtvi import (
    RTVIAction,
    RTVIActionArgument,
    RTVIActionFrame,
    RTVIActionRun,
    RTVIActionRunArgument,
    RTVIClientMessage,
    RTVIClientMessageFrame,
    RTVIConfig,
    RTVIMessage,
    RTVIProcessor,
    RTVIService,
    RTVIServiceConfig,
    RTVIServiceOption,
    RTVIServiceOptionConfig,
)

pytestmark = pytest.mark.virtual_time

CLIENT = {"version": "1.0.0", "about": {"library": "js"}}
OLD_CLIENT = {"version": "0.3.0", "about": {"library": "js"}}


def bot_ready(id: str, **more: Any) -> dict[str, Any]:
    data = {"version": "1.0.0", **more}
    return {"label": "rtvi-ai", "type": "bot-ready", "id": id, "data": data}


def refusal(id: str, error: str) -> dict[str, Any]:
    return {"label": "rtvi-ai", "type": "error-response", "id": id, "data": {"error": error}}


# -- readiness ---------------------------------------------------------------------------------


async def test_the_bot_is_ready_for_a_client_that_is(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.send("client-ready", CLIENT, id="r1")
        assert bot.sent == [bot_ready("r1")]


async def test_a_client_that_is_early_waits_for_the_bot(make_bot: Any) -> None:
    async with make_bot(ready=False) as bot:
        await bot.send("client-ready", CLIENT, id="r1")
        assert bot.sent == []
        await bot.rtvi.set_bot_ready()
        await bot.settle()
        assert bot.sent == [bot_ready("r1")]


async def test_a_bot_that_is_early_answers_when_the_client_comes(make_bot: Any) -> None:
    bot = make_bot(ready=False)
    await bot.rtvi.set_bot_ready()
    async with bot:
        assert bot.sent == []
        await bot.send("client-ready", CLIENT, id="r1")
        assert bot.sent == [bot_ready("r1")]


async def test_each_client_that_connects_is_answered_once(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.send("client-ready", CLIENT, id="r1")
        await bot.rtvi.set_bot_ready()
        await bot.send("client-ready", CLIENT, id="r2")
        assert bot.sent == [bot_ready("r1"), bot_ready("r2")]


async def test_the_application_may_declare_the_client_ready(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.rtvi.set_client_ready()
        await bot.settle()
        assert bot.sent == [bot_ready("", config=[])]


@pytest.mark.parametrize(
    "data", [None, {"foo": 1}, OLD_CLIENT, {**CLIENT, "version": "new"}, 5], ids=str
)
async def test_a_client_of_an_old_protocol_gets_the_configuration(make_bot: Any, data: Any) -> None:
    async with make_bot() as bot:
        await bot.send("client-ready", data)
        assert bot.sent == [bot_ready("1", config=[])]


async def test_a_client_of_a_newer_protocol_is_noticed(make_bot: Any, log: list[str]) -> None:
    async with make_bot() as bot:
        await bot.send("client-ready", {**CLIENT, "version": "2.1.0"})
        assert bot.sent == [bot_ready("1")]
        assert any("speaks another version" in line for line in log)


async def test_events_are_emitted(make_bot: Any) -> None:
    bot = make_bot(ready=False)
    rtvi: RTVIProcessor = bot.rtvi
    events: list[Any] = []

    @rtvi.event_handler("on_bot_started")
    async def on_bot_started(rtvi: RTVIProcessor) -> None:
        events.append(("started", rtvi))

    @rtvi.event_handler("on_client_ready")
    async def on_client_ready(rtvi: RTVIProcessor) -> None:
        events.append(("ready", rtvi))

    @rtvi.event_handler("on_client_message")
    async def on_client_message(rtvi: RTVIProcessor, message: RTVIClientMessage) -> None:
        events.append((message.msg_id, message.type, message.data))

    async with bot:
        assert events == [("started", bot.rtvi)]
        await bot.send("client-ready", CLIENT)
        assert events[1:] == [("ready", bot.rtvi)]
        await bot.send("client-message", {"t": "color", "d": {"c": [1]}}, id="m")
        assert events[2:] == [("m", "color", {"c": [1]})]
        (frame,) = bot.down.of(RTVIClientMessageFrame)
        assert (frame.msg_id, frame.type, frame.data) == ("m", "color", {"c": [1]})


# -- messages of the application ---------------------------------------------------------------


async def test_the_bot_answers_messages_of_the_application(make_bot: Any) -> None:
    async with make_bot() as bot:
        rtvi: RTVIProcessor = bot.rtvi

        @rtvi.event_handler("on_client_message")
        async def answer(rtvi: RTVIProcessor, message: RTVIClientMessage) -> None:
            if message.type == "ask":
                await rtvi.send_server_response(message, {"n": None})
            else:
                await rtvi.send_error_response(message, "no")

        await bot.send("client-message", {"t": "ask"}, id="m1")
        await bot.send("client-message", {"t": "other", "d": 1}, id="m2")
        response = {"label": "rtvi-ai", "type": "server-response", "id": "m1"}
        assert bot.sent == [
            {**response, "data": {"t": "ask", "d": {"n": None}}},
            refusal("m2", "no"),
        ]


async def test_server_messages_are_anything(make_bot: Any) -> None:
    async with make_bot() as bot:
        for data in ({"a": None}, "text", [1, 2], 0, None):
            await bot.rtvi.send_server_message(data)
        await bot.settle()
        assert [message.get("data") for message in bot.sent] == [
            {"a": None},
            "text",
            [1, 2],
            0,
            None,
        ]
        assert {message["type"] for message in bot.sent} == {"server-message"}


async def test_what_is_sent_before_the_start_is_kept(make_bot: Any) -> None:
    bot = make_bot()
    await bot.rtvi.send_server_message("early")
    async with bot:
        assert bot.of("server-message")[0]["data"] == "early"
    await bot.rtvi.send_server_message("late")
    assert len(bot.sent) == 1


async def test_the_client_may_end_the_session(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.send("disconnect-bot")
        async with asyncio.timeout(5):
            await bot._run
        assert bot.task.has_finished()
        assert len(bot.up.of(EndTaskFrame)) == 1


# -- configuration -----------------------------------------------------------------------------


def voice(*, fail: bool = False) -> tuple[RTVIService, list[Any]]:
    seen: list[Any] = []

    async def handler(
        processor: RTVIProcessor, service: str, option: RTVIServiceOptionConfig
    ) -> None:
        if fail:
            raise ValueError("broken")
        seen.append((type(processor).__name__, service, option.name, option.value))

    names = ("id", "speed")
    options = [RTVIServiceOption(name=name, type="number", handler=handler) for name in names]
    return RTVIService(name="voice", options=options), seen


def values(**options: Any) -> RTVIConfig:
    pairs = [RTVIServiceOptionConfig(name=name, value=value) for name, value in options.items()]
    return RTVIConfig(config=[RTVIServiceConfig(service="voice", options=pairs)])


async def test_the_configuration_is_described_read_and_changed(make_bot: Any) -> None:
    config = values(id=1)
    service, seen = voice()
    bot = make_bot(config=config)
    bot.rtvi.register_service(service)
    async with bot:
        await bot.send("describe-config")
        assert bot.last["type"] == "config-available"
        options = [{"name": "id", "type": "number"}, {"name": "speed", "type": "number"}]
        assert bot.last["data"] == {"config": [{"name": "voice", "options": options}]}

        await bot.send("client-ready", OLD_CLIENT)
        assert seen == [("RTVIProcessor", "voice", "id", 1)]
        assert bot.last["data"]["config"] == config.model_dump()["config"]

        change = values(id=7, speed=2).model_dump()
        await bot.send("update-config", {**change, "interrupt": True}, id="u")
        assert [entry[2:] for entry in seen[1:]] == [("id", 7), ("speed", 2)]
        expected = {"label": "rtvi-ai", "type": "config", "id": "u", "data": change}
        assert bot.last == expected
        assert len(bot.up.of(BotInterruptionFrame)) == 1
        await bot.send("get-config", id="g")
        assert bot.last == {**expected, "id": "g"}
    assert config == values(id=1)


async def test_an_unknown_option_changes_nothing(make_bot: Any) -> None:
    service, seen = voice()
    bot = make_bot()
    bot.rtvi.register_service(service)
    async with bot:
        await bot.send("update-config", {**values(id=1, pitch=2).model_dump(), "interrupt": True})
        assert bot.sent == [refusal("1", "Service voice has no option pitch")]
        other = {"config": [{"service": "x", "options": [{"name": "y", "value": 1}]}]}
        await bot.send("update-config", other)
        assert bot.last == refusal("1", "Service x not registered")
        assert seen == []
        assert bot.up.of(BotInterruptionFrame) == []


async def test_a_handler_that_fails_is_an_answer(make_bot: Any) -> None:
    service, _ = voice(fail=True)
    bot = make_bot(config=values(id=1))
    bot.rtvi.register_service(service)
    async with bot:
        await bot.send("client-ready", CLIENT)
        text = "Option voice.id was not set: broken"
        assert bot.sent[0] == bot_ready("1")
        assert bot.sent[1]["data"] == {"error": text, "message": text, "fatal": False}
        await bot.send("update-config", values(id=2).model_dump())
        assert bot.last == refusal("1", text)
        await bot.send("get-config")
        assert bot.last["data"] == values(id=1).model_dump()


# -- actions -----------------------------------------------------------------------------------


async def test_actions_are_described_and_run(make_bot: Any) -> None:
    got: list[Any] = []

    async def handler(processor: RTVIProcessor, service: str, arguments: dict[str, Any]) -> Any:
        got.append((service, arguments))
        if arguments.get("fail"):
            raise ValueError("broken")
        return arguments.get("result", True)

    def plain(processor: RTVIProcessor, service: str, arguments: dict[str, Any]) -> list[int]:
        return [1, 2]

    bot = make_bot()
    argument = RTVIActionArgument(name="message", type="string")
    bot.rtvi.register_action(
        RTVIAction(
            service="talk", action="print", arguments=[argument], result="bool", handler=handler
        )
    )
    bot.rtvi.register_action(
        RTVIAction(service="talk", action="plain", result="array", handler=plain)
    )

    async with bot:

        async def run(action: str, **arguments: Any) -> Any:
            pairs = [{"name": name, "value": value} for name, value in arguments.items()]
            data = {"service": "talk", "action": action, "arguments": pairs}
            await bot.send("action", data, id="a")
            return bot.last

        await bot.send("describe-actions")
        assert bot.last["type"] == "actions-available"
        assert bot.last["data"]["actions"][0] == {
            "service": "talk",
            "action": "print",
            "arguments": [{"name": "message", "type": "string"}],
            "result": "bool",
        }

        answer = {"label": "rtvi-ai", "type": "action-response", "id": "a"}
        assert await run("print", message="hi") == {**answer, "data": {"result": True}}
        assert got == [("talk", {"message": "hi"})]
        assert await run("plain") == {**answer, "data": {"result": [1, 2]}}
        assert await run("other") == refusal("a", "Action talk:other not registered")
        assert await run("print", fail=1) == refusal("a", "Action talk:print failed: broken")
        no_result = refusal("a", "Action talk:print has no result of a documented type")
        assert await run("print", result=None) == no_result
        assert await run("print", result={"x": 1}) == {**answer, "data": {"result": {"x": 1}}}

        # From the pipeline, with and without anybody who waits for the result.
        count = len(bot.sent)
        arguments = [RTVIActionRunArgument(name="message", value="frame")]
        wish = RTVIActionRun(service="talk", action="print", arguments=arguments)
        await bot.push(RTVIActionFrame(wish), RTVIActionFrame(wish, message_id="f"))
        assert got[-2:] == [("talk", {"message": "frame"})] * 2
        assert [message["id"] for message in bot.sent[count:]] == ["f"]
        assert bot.down.of(RTVIActionFrame) == []


async def test_a_long_action_holds_nothing_up(make_bot: Any) -> None:
    ended: list[str] = []

    async def handler(processor: RTVIProcessor, service: str, arguments: dict[str, Any]) -> bool:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("cancelled")
        return True

    bot = make_bot()
    bot.rtvi.register_action(RTVIAction(service="s", action="long", result="bool", handler=handler))
    async with bot:
        await bot.send("action", {"service": "s", "action": "long"})
        await bot.send("get-config")
        assert bot.last["type"] == "config"
        for _ in range(rtvi_processor.ACTION_LIMIT + 1):
            await bot.send("action", {"service": "s", "action": "long"}, id="many")
        assert bot.last == refusal("many", "Too many actions")
    assert ended == ["cancelled"]


async def test_a_cancelled_session_cancels_its_action(make_bot: Any) -> None:
    running = asyncio.Event()
    ended: list[str] = []

    async def handler(processor: RTVIProcessor, service: str, arguments: dict[str, Any]) -> bool:
        try:
            running.set()
            await asyncio.sleep(3600)
        finally:
            ended.append("cancelled")
        return True

    bot = make_bot()
    bot.rtvi.register_action(RTVIAction(service="s", action="long", result="bool", handler=handler))
    async with bot:
        await bot.send("action", {"service": "s", "action": "long"})
        assert running.is_set()
        await bot.task.cancel()
        await bot._run
    assert ended == ["cancelled"]
    assert bot.sent == []


async def test_the_same_pipeline_runs_again(make_bot: Any) -> None:
    bot = make_bot()
    for name in ("first", "second"):
        run = asyncio.create_task(bot.new_task().run())
        await bot.settle()
        await bot.send("client-ready", CLIENT, id=name)
        await bot.task.queue_frame(StopFrame())
        async with asyncio.timeout(5):
            await run
    assert bot.sent == [bot_ready("first"), bot_ready("second")]
    await bot.pipeline.cleanup()


# -- the conversation --------------------------------------------------------------------------


async def test_clients_add_to_the_conversation(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.send("append-to-context", {"role": "assistant", "content": [{"x": 1}]})
        (frame,) = bot.down.of(LLMMessagesAppendFrame)
        assert frame.messages == [{"role": "assistant", "content": [{"x": 1}]}]
        assert frame.run_llm is False
        assert bot.sent == []
        assert bot.up.of(BotInterruptionFrame) == []


async def test_an_interruption_comes_before_what_is_to_be_answered(make_bot: Any) -> None:
    data = {"role": "user", "content": "hello", "run_immediately": True}
    async with make_bot() as bot:
        await bot.send("append-to-context", data)
        kinds = (StartInterruptionFrame, LLMMessagesAppendFrame)
        frames = [frame for frame in bot.down.frames if isinstance(frame, kinds)]
        assert [type(frame) for frame in frames] == list(kinds)
        assert isinstance(frames[1], LLMMessagesAppendFrame)
        assert frames[1].run_llm is True


async def test_without_interruptions_nothing_is_interrupted(make_bot: Any) -> None:
    data = {"role": "user", "content": "hello", "run_immediately": True}
    async with make_bot(allow_interruptions=False) as bot:
        await bot.send("append-to-context", data)
        assert len(bot.down.of(LLMMessagesAppendFrame)) == 1
        assert bot.up.of(BotInterruptionFrame) == []


@pytest.mark.parametrize("name", ["arguments", "args"])
async def test_results_of_functions_go_both_ways(make_bot: Any, name: str) -> None:
    data = {"function_name": "f", "tool_call_id": "t", name: {"a": 1}, "result": {"ok": None}}
    async with make_bot() as bot:
        await bot.send("llm-function-call-result", data)
        for capture in (bot.up, bot.down):
            (frame,) = capture.of(FunctionCallResultFrame)
            assert (frame.function_name, frame.tool_call_id) == ("f", "t")
            assert (frame.arguments, frame.result) == ({"a": 1}, {"ok": None})


async def test_functions_are_called_in_the_documented_form(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.rtvi.handle_function_call(
            function_name="f", tool_call_id="t", arguments={"a": None}
        )
        await bot.settle()
        data = {"function_name": "f", "tool_call_id": "t", "args": {"a": None}}
        assert bot.sent == [{"label": "rtvi-ai", "type": "llm-function-call", "data": data}]
        with pytest.raises(TypeError, match="needs params"):
            await bot.rtvi.handle_function_call(function_name="f")


async def test_the_start_of_a_function_is_told(make_bot: Any) -> None:
    async with make_bot() as bot:
        with pytest.deprecated_call():
            await bot.rtvi.handle_function_call_start("f", bot.rtvi, None)
        await bot.settle()
        assert bot.last["type"] == "llm-function-call-start"
        assert bot.last["data"] == {"function_name": "f"}


# -- audio -------------------------------------------------------------------------------------


def encoded(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


async def test_audio_in_messages_goes_to_the_transport(make_bot: Any) -> None:
    async with make_bot(knows_transport=True) as bot:
        form = {"sampleRate": 8000, "numChannels": 1}
        await bot.send("raw-audio", {**form, "base64Audio": encoded(b"\1\0")})
        batch = [encoded(b"\2\0"), encoded(b"\3\0")]
        await bot.send("raw-audio-batch", {**form, "base64AudioBatch": batch})
        frames = bot.down.of(InputAudioRawFrame)
        assert [frame.audio for frame in frames] == [b"\1\0", b"\2\0", b"\3\0"]
        assert {(frame.sample_rate, frame.num_channels) for frame in frames} == {(8000, 1)}
        assert bot.sent == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (None, "no data"),
        ({"base64Audio": "AA=="}, "sampleRate has to be a positive whole number"),
        (
            {"base64Audio": "AA==", "sampleRate": 8000, "numChannels": True},
            "numChannels has to be a positive whole number",
        ),
        ({"sampleRate": 1, "numChannels": 1}, "not base64"),
        ({"base64Audio": "ä", "sampleRate": 1, "numChannels": 1}, "not base64"),
        (
            {"base64Audio": "AA==", "sampleRate": 1, "numChannels": 1},
            "not a whole number of samples",
        ),
    ],
)
async def test_audio_that_is_none_is_refused(make_bot: Any, data: Any, error: str) -> None:
    async with make_bot(knows_transport=True) as bot:
        await bot.send("raw-audio", data)
        assert bot.sent == [refusal("1", f"Invalid audio: {error}")]


async def test_audio_waits_for_the_client(make_bot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = make_bot(knows_transport=True)
    begun: list[bool] = []

    async def begin() -> None:
        begun.append(True)

    monkeypatch.setattr(bot.transport.input(), "start_audio_in_streaming", begin)
    assert bot.transport.input()._params.audio_in_stream_on_start is False
    async with bot:
        assert begun == []
        await bot.send("client-ready", CLIENT)
        assert begun == [True]


async def test_audio_in_messages_without_a_transport_is_dropped(
    make_bot: Any, log: list[str]
) -> None:
    async with make_bot() as bot:
        form = {"sampleRate": 8000, "numChannels": 1}
        for _ in range(3):
            await bot.send("raw-audio", {**form, "base64Audio": encoded(b"\1\0")})
        assert bot.sent == []
        assert bot.down.of(InputAudioRawFrame) == []
        assert sum("made without the transport" in line for line in log) == 1


# -- errors ------------------------------------------------------------------------------------


async def test_errors_are_told_and_passed_on(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.rtvi.queue_frame(ErrorFrame("bad", fatal=False), FrameDirection.UPSTREAM)
        await bot.rtvi.send_error("worse")
        await bot.settle()
        assert [message["type"] for message in bot.sent] == ["error", "error"]
        texts = [message["data"] for message in bot.sent]
        assert {"error": "bad", "message": "bad", "fatal": False} in texts
        assert {"error": "worse", "message": "worse", "fatal": False} in texts
        assert len(bot.up.of(ErrorFrame)) == 1

        bot.rtvi.set_errors_enabled(False)
        await bot.rtvi.send_error("hidden")
        await bot.send("nonsense")
        assert bot.last == refusal("1", "Unsupported type nonsense")
        assert len(bot.sent) == 3


async def test_a_flood_of_messages_is_refused(make_bot: Any) -> None:
    async with make_bot() as bot:
        message = RTVIMessage(type="get-config", id="m")
        for _ in range(rtvi_processor.MESSAGE_LIMIT + 1):
            await bot.rtvi.handle_message(message)
        await bot.settle()
        assert bot.of("error-response") == [refusal("m", "Too many messages")]
        assert len(bot.of("config")) == rtvi_processor.MESSAGE_LIMIT


async def test_a_processor_outside_a_task_takes_no_messages() -> None:
    with pytest.raises(RuntimeError, match="not part of a running task"):
        await RTVIProcessor().handle_message(RTVIMessage(type="get-config"))


async def test_a_bot_is_interrupted(make_bot: Any) -> None:
    async with make_bot() as bot:
        await bot.rtvi.interrupt_bot()
        await bot.settle()
        assert len(bot.up.of(BotInterruptionFrame)) == 1
        assert len(bot.down.of(StartInterruptionFrame)) == 1
