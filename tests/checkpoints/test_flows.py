"""Flows go on in the node in which their process died."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.checkpoints.conftest import Bot, Program, Reply, Session, World

from antiphon.flows import (
    ContextStrategy,
    ContextStrategyConfig,
    FlowArgs,
    FlowManager,
    FlowsFunctionSchema,
    NodeConfig,
    flows_direct_function,
)
from antiphon.testing import FakeToolCall

SCRIPT = [
    ("", "How many are you?"),
    ("We are four", "When would you like to come?"),
    ("At eight", "Four at eight. See you! Goodbye."),
]

log: list[str] = []
"""What functions and actions have done, whichever process they ran in."""


def task_of(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": text}]


async def record_size(args: FlowArgs, flow_manager: FlowManager) -> tuple[Any, NodeConfig]:
    log.append(f"size {args['size']}")
    flow_manager.state["size"] = args["size"]
    return {"status": "success"}, time_node()


@flows_direct_function(idempotent=True)
async def record_time(flow_manager: FlowManager, time: str) -> tuple[Any, NodeConfig]:
    """Records the time.

    Args:
        time: The time.
    """
    log.append(f"time {time}")
    flow_manager.state["time"] = time
    return {"status": "success"}, end_node()


async def close_the_book(action: dict[str, Any], flow_manager: FlowManager) -> None:
    log.append(f"closed {sorted(flow_manager.state.items())}")


def size_node() -> NodeConfig:
    return NodeConfig(
        name="size",
        role_messages=task_of("You take reservations."),
        task_messages=task_of("Ask how many."),
        functions=[
            FlowsFunctionSchema(
                "record_size", "", {"size": {"type": "integer"}}, ["size"], record_size
            )
        ],
    )


def time_node() -> NodeConfig:
    return NodeConfig(
        name="time",
        task_messages=task_of("Ask when."),
        functions=[record_time],
        pre_actions=[{"type": "tts_say", "text": "Let me see."}],
    )


def end_node() -> NodeConfig:
    return NodeConfig(
        name="end",
        task_messages=task_of("Say goodbye."),
        context_strategy=ContextStrategyConfig(ContextStrategy.APPEND),
        post_actions=[
            {"type": "function", "handler": close_the_book},
            {"type": "tts_say", "text": "Goodbye."},
        ],
    )


def reply(messages: list[Any]) -> list[Reply]:
    match messages[-1]["content"]:
        case "Ask how many.":
            return ["How many are you?"]
        case "We are four":
            return [FakeToolCall("record_size", {"size": 4})]
        case "Ask when.":
            return ["When would you like to come?"]
        case "At eight":
            return [FakeToolCall("record_time", {"time": "8"})]
        case "Say goodbye.":
            return ["Four at eight. See you!"]
        case last if "interrupted" in last:
            # The function may or may not have run: a careful model asks it again.
            call = messages[-2]["tool_calls"][0]["function"]
            name = call["name"]
            arguments: dict[str, Any] = {"size": 4} if name == "record_size" else {"time": "8"}
            return [FakeToolCall(name, arguments)]
    raise AssertionError(f"nobody should have asked about {messages[-1]}")


async def dynamic(bot: Bot) -> None:
    flow = FlowManager(task=bot.task, llm=bot.llm, context_aggregator=bot.pair)
    bot.more["flow"] = flow

    @bot.task.event_handler("on_pipeline_started")
    async def started(task: object, frame: object) -> None:
        await flow.initialize(size_node())


async def static(bot: Bot) -> None:
    def named(node: NodeConfig, handler: Any) -> NodeConfig:
        node["functions"] = [
            FlowsFunctionSchema(handler.__name__, "", {"size": {}, "time": {}}, [], handler)
        ]
        return node

    # Closures: a static flow needs no names.
    async def record_size(args: FlowArgs, flow_manager: FlowManager) -> tuple[Any, str]:
        log.append("size 4")
        flow_manager.state["size"] = args["size"]
        return {"status": "success"}, "time"

    async def record_time(args: FlowArgs, flow_manager: FlowManager) -> tuple[Any, str]:
        log.append("time 8")
        flow_manager.state["time"] = args["time"]
        return {"status": "success"}, "end"

    nodes = {
        "size": named(size_node(), record_size),
        "time": named(time_node(), record_time),
        "end": end_node(),
    }
    flow = FlowManager(
        task=bot.task,
        llm=bot.llm,
        context_aggregator=bot.pair,
        flow_config={"initial_node": "size", "nodes": nodes},
    )

    @bot.task.event_handler("on_pipeline_started")
    async def started(task: object, frame: object) -> None:
        await flow.initialize()


def converse(program: Program, *cuts: int) -> tuple[World, int]:
    log.clear()
    world = World(SCRIPT)
    turns = Session(world, reply, program).run(*cuts)
    return world, turns


def without_interrupted_calls(messages: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for role, content in messages:
        if role == "tool" and "interrupted" in content:
            kept.pop()
            continue
        if isinstance(content, list):  # ids count the calls
            content = [call["function"] for call in content]
        kept.append((role, content))
    return kept


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("program", [dynamic, static])
def test_killed_at_each_moment(program: Program) -> None:
    undisturbed, turns = converse(program)
    assert log == ["size 4", "time 8", "closed [('size', 4), ('time', '8')]"]
    expected = without_interrupted_calls(undisturbed.result)
    assert expected[-1] == ("assistant", "Four at eight. See you!")
    for cut in range(1, turns):
        world, _ = converse(program, cut)
        assert world.processes == 2
        assert without_interrupted_calls(world.result) == expected, cut
        assert world.problems == [], cut
        assert list(dict.fromkeys(log)) == [
            "size 4",
            "time 8",
            "closed [('size', 4), ('time', '8')]",
        ], cut
