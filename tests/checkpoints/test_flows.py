"""Flows go on in the node in which their process died."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import pytest
from tests.checkpoints.conftest import Bot, Program, Reply, Session, World

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.flows import (
    ContextStrategy,
    ContextStrategyConfig,
    FlowArgs,
    FlowManager,
    FlowsFunctionSchema,
    NodeConfig,
    flows_direct_function,
)
from antiphon.flows._nodes import read_node
from antiphon.flows._saved import UnsavedNodeError, restore_config, save_node
from antiphon.flows.actions import ActionManager
from antiphon.frames import codec
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.task import PipelineTask
from antiphon.runner.checkpoint import SessionCheckpoint
from antiphon.testing import FakeToolCall
from antiphon.utils.function_names import function_named

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
        # Ids count the calls.
        calls = [call["function"] for call in content] if isinstance(content, list) else None
        kept.append((role, calls or content))
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


def die_in(node: str, program: Program) -> Program:
    """The first process dies when its flow is in a node."""

    async def dying(bot: Bot) -> None:
        await program(bot)
        if bot.is_first:

            async def die() -> None:
                def is_there(saved: SessionCheckpoint) -> bool:
                    here = saved.states["flow.1"]["node"]
                    answered = not saved.contexts[0].awaits_answer
                    return here is not None and here["name"] == node and answered

                await bot.saved(is_there)
                bot.kill()

            bot.more["end"] = asyncio.create_task(die())

    return dying


def talk(program: Program, is_own: Callable[[ModuleType], bool] = lambda _: True) -> World:
    world = World(SCRIPT)
    Session(world, reply, program, is_own).run()
    assert world.processes == 2
    return world


def with_closure(bot: Bot) -> NodeConfig:
    async def nameless(args: FlowArgs, flow_manager: FlowManager) -> tuple[Any, NodeConfig]:
        return await record_size(args, flow_manager)

    node = size_node()
    node["functions"] = [
        FlowsFunctionSchema("record_size", "", {"size": {"type": "integer"}}, ["size"], nameless)
    ]
    return node


def test_a_function_without_a_name_loses_the_node_but_not_the_conversation() -> None:
    """The flow begins again, with all that was said."""

    async def program(bot: Bot) -> None:
        flow = FlowManager(task=bot.task, llm=bot.llm, context_aggregator=bot.pair)
        flow.state["begun"] = bot.world.processes if bot.is_first else None

        @bot.task.event_handler("on_pipeline_started")
        async def started(task: object, frame: object) -> None:
            await flow.initialize(with_closure(bot))
            bot.more["state"] = flow.state

    world = talk(die_in("size", program))
    (problem,) = world.problems
    assert problem.startswith("flow: node 'size' is lost: functions: function 'record_size'")
    assert "define it in a module or a class" in problem
    contents = [content for _, content in world.result]
    assert contents.count("Ask how many.") == 2
    assert contents.count("How many are you?") == 2
    assert world.bot is not None
    assert world.bot.more["state"]["begun"] == 1


def test_functions_of_other_modules_are_not_taken_from_a_checkpoint() -> None:
    world = talk(die_in("size", dynamic), is_own=lambda module: False)
    (problem,) = world.problems
    assert f"{__name__} is no module of the bot" in problem


def test_a_node_that_is_no_longer_there() -> None:
    async def program(bot: Bot) -> None:
        name = "size" if bot.is_first else "renamed"
        node = size_node()
        node["functions"] = []
        flow = FlowManager(
            task=bot.task,
            llm=bot.llm,
            context_aggregator=bot.pair,
            flow_config={"initial_node": name, "nodes": {name: node}},
        )

        @bot.task.event_handler("on_pipeline_started")
        async def started(task: object, frame: object) -> None:
            await flow.initialize()

    world = World(SCRIPT[:1])
    Session(world, reply, die_in("size", program)).run()
    assert world.problems == ["flow: node 'size' is lost: the flow has no such node"]


def test_a_transition_that_only_a_callback_knew() -> None:
    async def program(bot: Bot) -> None:
        if bot.resume is not None:
            bot.resume.states["flow.1"]["callback"] = True
        await dynamic(bot)

    world = World([SCRIPT[0]])

    def answer(messages: list[Any]) -> list[Reply]:
        return ["How many are you?"]

    Session(world, answer, die_in("size", program)).run()
    assert world.problems == ["flow: a transition_callback was due"]
    # In its node the model is asked once more, so that nothing waits for ever.
    assert world.heard == ["How many are you?"] * 2


def test_state_that_is_no_plain_data_is_named() -> None:
    async def program(bot: Bot) -> None:
        await dynamic(bot)
        if bot.is_first:
            bot.more["flow"].state.update(socket=object(), name="Anna")

    world = talk(die_in("size", program))
    assert world.problems == ["flow: state['socket'] could not be saved"]
    assert world.bot is not None
    assert world.bot.more["flow"].state["name"] == "Anna"


def test_a_flow_that_begins_before_its_task_is_resumed_all_the_same() -> None:
    async def program(bot: Bot) -> None:
        flow = FlowManager(task=bot.task, llm=bot.llm, context_aggregator=bot.pair)
        node = size_node()
        node["post_actions"] = [{"type": "function", "handler": close_the_book}]
        await flow.initialize(node)
        bot.more["flow"] = flow

    log.clear()
    undisturbed = World(SCRIPT)
    Session(undisturbed, reply, program).run()
    expected = list(log)
    log.clear()
    world = talk(die_in("time", program))
    assert world.problems == []
    assert world.result == undisturbed.result
    assert log == expected


async def on_end(action: dict[str, Any]) -> None: ...


def test_nodes_come_back_as_they_were_configured() -> None:
    config: Any = {
        "name": "everything",
        "role_messages": task_of("x"),
        "task_messages": task_of("y"),
        "functions": [
            record_time,
            FlowsFunctionSchema(
                "f", "d", {"a": {"$ref": "#"}}, ["a"], record_size, idempotent=True
            ),
            FunctionSchema("g", "d", {}, []),
            {
                "type": "function",
                "function": {"name": "h", "parameters": {}},
                "handler": record_size,
            },
        ],
        "pre_actions": [{"type": "tts_say", "text": "x"}],
        "post_actions": [{"type": "mine", "handler": on_end, "when": datetime.date(2026, 1, 1)}],
        "context_strategy": ContextStrategyConfig(ContextStrategy.RESET_WITH_SUMMARY, "Sum it up."),
        "respond_immediately": False,
    }
    task = PipelineTask(Pipeline([]))
    node = read_node(config, ActionManager(task, cast(Any, None), cast(Any, None)))
    plain = codec.decode_value(codec.encode_value(save_node(node)))
    back = restore_config(plain, lambda name: function_named(name, lambda _: True))
    tool, restored = config["functions"][2], back["functions"][2]
    assert restored.to_plain() == tool.to_plain()
    for each in (config, back):
        del each["functions"][2]
    assert back == config


@pytest.mark.parametrize(
    "plain",
    [
        None,
        {"functions": [{"$antiphon": "schema"}]},
        {"functions": [{"$antiphon": "function"}]},
        {"functions": [{"$antiphon": "function", "name": "os:system"}]},
        {"functions": [{"$antiphon": "spell"}]},
        {"context_strategy": {"$antiphon": "strategy", "of": "guess", "prompt": None}},
        {"functions": [{"$antiphon": "tool", "tool": {}}]},
    ],
)
def test_what_is_no_saved_node_is_refused(plain: Any) -> None:
    with pytest.raises(UnsavedNodeError):
        restore_config(plain, lambda name: function_named(name, lambda _: False))
