"""The flows of the guide, from the first word to the last."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.flows.conftest import Talk, task_message

from antiphon.flows import (
    ContextStrategy,
    ContextStrategyConfig,
    FlowArgs,
    FlowManager,
    FlowResult,
    FlowsFunctionSchema,
    NodeConfig,
    flows_direct_function,
)
from antiphon.testing import FakeDelay, FakeFailure, FakeToolCall

pytestmark = pytest.mark.virtual_time


def end_node(**more: Any) -> NodeConfig:
    node: NodeConfig = {
        "name": "end",
        "task_messages": task_message("Thank them."),
        "post_actions": [{"type": "end_conversation"}],
    }
    node.update(more)  # type: ignore[typeddict-item]
    return node


async def record_color(args: FlowArgs, flow_manager: FlowManager) -> tuple[str, NodeConfig]:
    flow_manager.state["color"] = args["color"]
    return args["color"], end_node()


def first_node(handler: Any = record_color, **more: Any) -> NodeConfig:
    node: NodeConfig = {
        "name": "initial",
        "role_messages": task_message("You are an inquisitive child."),
        "task_messages": task_message("Ask for the favorite color."),
        "functions": [
            FlowsFunctionSchema(
                name="record_color",
                description="Record the color.",
                required=["color"],
                handler=handler,
                properties={"color": {"type": "string"}},
            )
        ],
    }
    node.update(more)  # type: ignore[typeddict-item]
    return node


RED = FakeToolCall("record_color", {"color": "red"})


async def test_a_dynamic_flow_goes_from_node_to_node_and_ends() -> None:
    talk = Talk(["What color do you like?", [RED], "Red is nice. Bye!"])
    flow = talk.flow(transport=talk.transport)

    async def script() -> None:
        await flow.initialize(first_node())
        assert flow.current_node == "initial"
        await asyncio.sleep(10)
        await talk.say("I like red")

    await talk.run(script, end=False)

    assert talk.spoken == ["What color do you like?", "Red is nice.", "Bye!"]
    assert flow.state == {"color": "red"}
    assert flow.current_node == "end"
    assert (flow.task, flow.transport) == (talk.task, talk.transport)
    assert talk.requests[0] == ["You are an inquisitive child.", "Ask for the favorite color."]
    assert talk.requests[2][-2:] == ['"red"', "Thank them."]
    assert flow.get_current_context() is talk.context.messages
    # What the last node cannot do is not offered.
    assert not talk.context.tools


STATIC = {
    "initial_node": "start",
    "nodes": {
        "start": {
            "task_messages": task_message("Pizza or sushi?"),
            "functions": [
                {
                    "type": "function",
                    "function": {
                        "name": "choose",
                        "description": "The choice.",
                        "parameters": {
                            "type": "object",
                            "properties": {"what": {"type": "string"}},
                            "required": ["what"],
                        },
                    },
                }
            ],
        },
        "pizza": {"task_messages": task_message("Ask for the size."), "functions": []},
        "sushi": {
            "task_messages": task_message("Ask for the rolls."),
            "post_actions": [{"type": "end_conversation", "text": "Goodbye."}],
        },
    },
}


async def test_a_static_flow_goes_by_the_names_of_its_nodes() -> None:
    async def choose(args: FlowArgs) -> tuple[FlowResult, str]:
        return {"status": "success"}, args["what"]

    config: Any = {**STATIC, "nodes": {**STATIC["nodes"]}}  # type: ignore[dict-item]
    start = config["nodes"]["start"]
    function = {**start["functions"][0]["function"], "handler": choose}
    config["nodes"]["start"] = {**start, "functions": [{"type": "function", "function": function}]}
    talk = Talk(["Pizza or sushi?", [FakeToolCall("choose", {"what": "sushi"})], "How many?"])
    flow = talk.flow(flow_config=config)

    async def script() -> None:
        await flow.initialize()
        assert flow.current_node == "start"
        await asyncio.sleep(10)
        await talk.say("sushi")

    await talk.run(script, end=False)
    assert flow.current_node == "sushi"
    assert talk.spoken == ["Pizza or sushi?", "How many?", "Goodbye."]


async def test_deprecated_transitions_still_lead_on() -> None:
    async def choose(args: FlowArgs) -> FlowResult:
        return {"status": "success"}

    async def callback(args: dict[str, Any], result: Any, flow_manager: FlowManager) -> None:
        assert (args, result) == ({}, {"status": "success"})
        with pytest.warns(DeprecationWarning, match="set_node"):
            await flow_manager.set_node("third", {"task_messages": task_message("3")})

    def schema(name: str, **kwargs: Any) -> FlowsFunctionSchema:
        return FlowsFunctionSchema(name, "", {}, [], choose, **kwargs)

    talk = Talk(["1", [FakeToolCall("on")], [FakeToolCall("back")], "third"])
    with pytest.warns(DeprecationWarning, match="transition_to"):
        flow = talk.flow(
            flow_config={
                "initial_node": "first",
                "nodes": {
                    "first": {
                        "task_messages": task_message("1"),
                        "functions": [schema("on", transition_to="second")],
                    },
                    "second": {
                        "task_messages": task_message("2"),
                        "functions": [schema("back", transition_callback=callback)],
                    },
                },
            }
        )

    async def script() -> None:
        await flow.initialize()
        await asyncio.sleep(10)
        await talk.say("go on")

    await talk.run(script)
    assert flow.current_node == "third"
    assert talk.spoken == ["1", "third"]


async def test_a_function_that_stays_lets_the_model_answer() -> None:
    async def look_up(flow_manager: FlowManager, city: str) -> tuple[FlowResult, None]:
        """Look up the weather.

        Args:
            city: Where.
        """
        return {"status": "success"}, None

    talk = Talk(["Which city?", [FakeToolCall("look_up", {"city": "Oslo"})], "Rain."])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize({"task_messages": task_message("Weather"), "functions": [look_up]})
        assert talk.context.tools[0]["function"] == {
            "name": "look_up",
            "description": "Look up the weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Where."}},
                "required": ["city"],
            },
        }
        await asyncio.sleep(10)
        await talk.say("Oslo")

    await talk.run(script)
    assert talk.spoken == ["Which city?", "Rain."]
    assert talk.requests[-1][-1] == '{"status": "success"}'


@pytest.mark.parametrize("run_in_parallel", [True, False])
async def test_the_next_node_waits_for_all_calls_of_an_answer(run_in_parallel: bool) -> None:
    async def slow(args: FlowArgs) -> tuple[str, None]:
        await asyncio.sleep(2)
        return "slow", None

    talk = Talk(["Hello", [RED, FakeToolCall("slow")], "Bye"], run_in_parallel=run_in_parallel)
    flow = talk.flow(global_functions=[FlowsFunctionSchema("slow", "", {}, [], slow)])

    async def script() -> None:
        await flow.initialize(first_node())
        await asyncio.sleep(10)
        await talk.say("red")

    await talk.run(script, end=False)
    assert len(talk.requests) == 3
    assert talk.requests[-1][-1] == "Thank them."
    assert {'"red"', '"slow"'} <= {text for text in talk.requests[-1] if isinstance(text, str)}


@pytest.mark.parametrize("run_in_parallel", [True, False])
async def test_an_interruption_of_one_call_does_not_hold_the_transition(
    run_in_parallel: bool,
) -> None:
    async def endless(args: FlowArgs) -> tuple[None, None]:
        await asyncio.sleep(1000)
        return None, None

    talk = Talk(
        ["Hi", [RED, FakeToolCall("endless")], "Yes?", "Bye"],
        repeat=True,
        run_in_parallel=run_in_parallel,
    )
    flow = talk.flow(global_functions=[FlowsFunctionSchema("endless", "", {}, [], endless)])

    async def script() -> None:
        await flow.initialize(first_node())
        await asyncio.sleep(10)
        await talk.say("red")
        assert flow.current_node == "initial"
        await talk.say("What about it?")  # speaking cancels the call that is left

    await talk.run(script, end=False)
    assert flow.current_node == "end"


async def test_global_functions_can_be_called_in_every_node() -> None:
    calls: list[Any] = []

    @flows_direct_function(cancel_on_interruption=False)
    async def help_me(flow_manager: FlowManager) -> tuple[FlowResult, None]:
        """Help."""
        calls.append(flow_manager.current_node)
        return {"status": "success"}, None

    talk = Talk(["Hi", [FakeToolCall("help_me")], "There.", [RED], [FakeToolCall("help_me")], "So"])
    flow = talk.flow(global_functions=[help_me])

    async def script() -> None:
        await flow.initialize(first_node())
        await asyncio.sleep(10)
        await talk.say("help")
        await talk.say("red")

    await talk.run(script)
    assert calls == ["initial", "end"]


async def test_what_a_handler_raises_is_told_to_the_model() -> None:
    async def fail(args: FlowArgs) -> None:
        raise LookupError("no such color")

    talk = Talk(["Color?", [RED], "Once more, please."])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(first_node(fail))
        await asyncio.sleep(10)
        await talk.say("red")

    await talk.run(script)
    assert flow.current_node == "initial"
    assert talk.requests[-1][-1] == '{"status": "error", "error": "no such color"}'
    assert talk.spoken[-1] == "Once more, please."


@pytest.mark.parametrize(
    ("following", "error"),
    [
        ("nowhere", "leads to a node that does not exist: 'nowhere'"),
        (5, "must return a NodeConfig"),
        ({"name": "bad"}, "node 'bad': task_messages is missing"),
        ({"task_messages": [], "name": "bad", "pre_actions": [{"type": "x"}]}, "pre_actions[0]"),
    ],
)
async def test_a_next_node_that_cannot_be_used_is_an_error_for_the_model(
    following: Any, error: str
) -> None:
    async def handler(args: FlowArgs) -> tuple[str, Any]:
        return "fine", following

    talk = Talk(["Color?", [RED], "Sorry."])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(first_node(handler))
        await asyncio.sleep(10)
        await talk.say("red")

    await talk.run(script)
    assert flow.current_node == "initial"
    assert error in talk.requests[-1][-1]


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (None, '{"status": "acknowledged"}'),
        ("", '{"status": "acknowledged"}'),
        (False, '{"result": false}'),
        (0, '{"result": 0}'),
        ({"status": "ok"}, '{"status": "ok"}'),
    ],
)
async def test_every_result_is_answered(result: Any, told: str) -> None:
    async def handler(args: FlowArgs) -> Any:
        return result

    talk = Talk(["Color?", [RED], "I see."])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(first_node(handler))
        await asyncio.sleep(10)
        await talk.say("red")

    await talk.run(script)
    assert talk.requests[-1][-1] == told


async def test_a_function_of_a_node_that_was_left_is_not_run() -> None:
    talk = Talk(["Color?", [RED], [RED], "It is noted already."])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(first_node())
        await asyncio.sleep(10)
        await talk.say("red")

    await talk.run(script, end=False)
    assert "not available in node 'end'" in talk.requests[-1][-1]


async def test_the_user_may_speak_first() -> None:
    talk = Talk(["Hello!"])
    talk.context.add_message({"role": "user", "content": "from before the flow"})
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(first_node(respond_immediately=False))
        await asyncio.sleep(10)
        assert talk.requests == []
        await talk.say("Anybody there?")

    await talk.run(script)
    assert talk.requests[0][1:] == ["Ask for the favorite color.", "Anybody there?"]


SUMMARY = ContextStrategyConfig(ContextStrategy.RESET_WITH_SUMMARY, "Summarize it.")


def leading_to(node: dict[str, Any]) -> Any:
    async def handler(args: FlowArgs) -> tuple[str, Any]:
        return "fine", {"task_messages": task_message("Next"), **node}

    return handler


async def enter_second_node(talk: Talk, node: dict[str, Any], **kwargs: Any) -> list[Any]:
    flow = talk.flow(**kwargs)

    async def script() -> None:
        await flow.initialize(first_node(leading_to(node)))
        await asyncio.sleep(10)
        await talk.say("red")

    await talk.run(script)
    return talk.requests[-1]


async def test_context_is_appended_to_unless_something_else_is_said() -> None:
    request = await enter_second_node(Talk(["Color?", [RED], "Next."]), {})
    assert request[:2] == ["You are an inquisitive child.", "Ask for the favorite color."]
    assert request[2:4] == ["Color?", "red"]
    assert request[-1] == "Next"


async def test_context_is_reset() -> None:
    reset = ContextStrategyConfig(ContextStrategy.RESET)
    own = await enter_second_node(Talk(["Color?", [RED], "Next."]), {"context_strategy": reset})
    assert own == ["Next"]
    common = await enter_second_node(Talk(["Color?", [RED], "Next."]), {}, context_strategy=reset)
    assert common == ["Next"]


async def test_context_is_replaced_by_a_summary() -> None:
    talk = Talk(["Color?", [RED], "They like red.", "Next."])
    node = {"context_strategy": SUMMARY, "role_messages": task_message("You are a poet.")}
    request = await enter_second_node(talk, node)
    assert request == [
        "You are a poet.",
        "Summary of the conversation so far:\nThey like red.",
        "Next",
    ]
    asked = talk.requests[2]
    assert asked[0] == "Summarize it."
    assert '"Ask for the favorite color."' in asked[1]
    assert talk.spoken == ["Color?", "Next."]


@pytest.mark.parametrize(
    "summary", [[FakeDelay(60), "too late"], [FakeFailure("broken")], [""]], ids=str
)
async def test_without_a_summary_in_time_the_context_is_kept(summary: Any) -> None:
    talk = Talk(["Color?", [RED], summary, "Next."])
    request = await enter_second_node(talk, {"context_strategy": SUMMARY})
    assert request[2:4] == ["Color?", "red"]
    assert request[-1] == "Next"
    assert talk.spoken == ["Color?", "Next."]
