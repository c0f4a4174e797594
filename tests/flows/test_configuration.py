"""What is wrong with a flow is said at the earliest moment, with node and field."""

from __future__ import annotations

from typing import Any

import pytest
from tests.flows.conftest import Talk, task_message

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.errors import AntiphonError
from antiphon.flows import (
    ActionError,
    ContextStrategy,
    ContextStrategyConfig,
    FlowError,
    FlowInitializationError,
    FlowsFunctionSchema,
    FlowTransitionError,
    InvalidFunctionError,
)
from antiphon.flows._functions import read_functions

T = task_message("T")
OWN = {"type": "own"}


async def one(args: Any) -> None: ...


async def two(args: Any, flow_manager: Any) -> None: ...


async def three(args: Any, flow_manager: Any, more: Any) -> None: ...


def function(**changes: Any) -> dict[str, Any]:
    return {"name": "f", "description": "d", "properties": {}, "required": [], **changes}


@pytest.mark.parametrize(
    ("node", "error", "text"),
    [
        ([], FlowError, "a node must be a dict"),
        ({}, FlowError, "task_messages is missing"),
        ({"task_messages": "T"}, FlowError, "task_messages must be a list"),
        ({"task_messages": ["T"]}, FlowError, r"task_messages\[0\] must be a dict with a role"),
        ({"task_messages": T, "name": 5}, FlowError, "name of a node must be text"),
        ({"task_messages": T, "name": "n", "role_messages": {}}, None, ""),
        (
            {"task_messages": T, "name": "n", "role_messages": "x"},
            FlowError,
            "node 'n': role_messages",
        ),
        ({"task_messages": T, "context_strategy": "reset"}, FlowError, "context_strategy must be"),
        ({"task_messages": T, "respond_immediately": "no"}, FlowError, "respond_immediately"),
        ({"task_messages": T, "functions": {"a": 1}}, InvalidFunctionError, "functions must be"),
        ({"task_messages": T, "name": "n", "functions": [5]}, InvalidFunctionError,
         r"node 'n': functions\[0\] must be a FlowsFunctionSchema"),
        ({"task_messages": T, "functions": [{}]}, InvalidFunctionError, "a function has a name"),
        ({"task_messages": T, "functions": [one]}, InvalidFunctionError, "'flow_manager'"),
        ({"task_messages": T, "functions": [FlowsFunctionSchema(**function(handler=three))]},
         InvalidFunctionError, r"functions\[0\] \('f'\): handler must take"),
        ({"task_messages": T, "functions": [FlowsFunctionSchema(**function(handler="one"))]},
         InvalidFunctionError, "handler must be a function"),
        ({"task_messages": T, "functions": [FlowsFunctionSchema(**function(properties=[]))]},
         InvalidFunctionError, "properties"),
        ({"task_messages": T, "functions": [
            FlowsFunctionSchema(**function(properties={"a": {"type": "word"}}))]},
         InvalidFunctionError, "properties.a: type must be one of"),
        ({"task_messages": T, "functions": [FlowsFunctionSchema(**function(handler=one)),
          FlowsFunctionSchema(**function(handler=one))]}, InvalidFunctionError, "there twice"),
        ({"task_messages": T, "pre_actions": {"type": "x"}}, ActionError, "pre_actions must be"),
        ({"task_messages": T, "pre_actions": [{"text": "x"}]}, ActionError, "with the field type"),
        ({"task_messages": T, "pre_actions": [{"type": "x"}]}, ActionError, "no such action"),
        ({"task_messages": T, "name": "n", "post_actions": [{"type": "tts_say"}]}, ActionError,
         r"node 'n': post_actions\[0\] \(tts_say\): text is missing"),
        ({"task_messages": T, "post_actions": [{"type": "end_conversation", "text": 1}]},
         ActionError, "text must be text"),
        ({"task_messages": T, "post_actions": [{"type": "function"}]}, ActionError,
         "handler is missing"),
        ({"task_messages": T, "post_actions": [{"type": "function", "handler": three}]},
         ActionError, "handler must take"),
        ({"task_messages": T, "post_actions": [{"type": "own", "handler": "h"}]}, ActionError,
         "handler must be a function"),
    ],
)  # fmt: skip
async def test_a_bad_node_is_refused(node: Any, error: Any, text: str) -> None:
    flow = Talk([]).flow()
    await flow.initialize()
    if error is None:
        await flow.set_node_from_config(node)
        return
    with pytest.raises(error, match=text):
        await flow.set_node_from_config(node)
    with pytest.raises(FlowInitializationError, match=text):
        await Talk([]).flow().initialize(node)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"initial_node": "a"}, "nodes must be a dict"),
        ({"initial_node": "a", "nodes": {}}, "nodes must be a dict"),
        ({"initial_node": "b", "nodes": {"a": {"task_messages": T}}}, "names no node: 'b'"),
        ({"nodes": {"a": {"task_messages": T}}}, "names no node: None"),
        ({"initial_node": "a", "nodes": {"a": {}}}, "node 'a': task_messages is missing"),
        (
            {
                "initial_node": "a",
                "nodes": {
                    "a": {
                        "task_messages": T,
                        "functions": [FlowsFunctionSchema(**function(transition_to="c"))],
                    }
                },
            },
            "node 'a': function 'f': transition_to names no node of the flow: 'c'",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:transition_to:DeprecationWarning")
async def test_a_bad_flow_is_refused_when_the_manager_is_made(config: Any, text: str) -> None:
    with pytest.raises(FlowInitializationError, match=text):
        Talk([]).flow(flow_config=config)


@pytest.mark.parametrize(
    "more", [{"context_strategy": "append"}, {"global_functions": [5]}, {"global_functions": 5}]
)
async def test_bad_arguments_are_refused_when_the_manager_is_made(more: dict[str, Any]) -> None:
    with pytest.raises(FlowInitializationError):
        Talk([]).flow(**more)


async def test_actions_of_a_static_flow_are_registered_before_it_begins() -> None:
    nodes: Any = {"a": {"task_messages": T}, "b": {"task_messages": T, "pre_actions": [OWN]}}
    flow = Talk([]).flow(flow_config={"initial_node": "a", "nodes": nodes})
    with pytest.raises(FlowInitializationError, match=r"node 'b': pre_actions\[0\] \(own\)"):
        await flow.initialize()
    flow.register_action("own", two)
    await flow.initialize()
    assert flow.current_node == "a"


async def test_a_node_is_set_only_after_initialize() -> None:
    flow = Talk([]).flow()
    with pytest.raises(FlowTransitionError, match="initialize"):
        await flow.set_node_from_config({"task_messages": T})


async def test_a_static_flow_takes_no_first_node() -> None:
    flow = Talk([]).flow(flow_config={"initial_node": "a", "nodes": {"a": {"task_messages": T}}})
    with pytest.raises(FlowInitializationError, match="takes none"):
        await flow.initialize({"task_messages": T})


async def test_a_flow_begins_once() -> None:
    flow = Talk([]).flow()
    await flow.initialize({"task_messages": T, "name": "a"})
    await flow.initialize({"task_messages": T, "name": "b"})
    assert flow.current_node == "a"


async def test_tts_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match="tts is deprecated"):
        Talk([]).flow(tts=object())


def test_an_action_cannot_be_registered_with_a_bad_handler() -> None:
    with pytest.raises(ActionError, match="handler must take"):
        Talk([]).flow().register_action("own", three)


def test_configurations_check_themselves() -> None:
    with pytest.raises(ValueError, match="summary_prompt"):
        ContextStrategyConfig(ContextStrategy.RESET_WITH_SUMMARY)
    with pytest.raises(ValueError, match="not both"):
        FlowsFunctionSchema(**function(transition_to="a", transition_callback=two))


def test_all_errors_are_of_one_tree() -> None:
    for error in (FlowInitializationError, FlowTransitionError, InvalidFunctionError, ActionError):
        assert issubclass(error, FlowError)
    assert issubclass(FlowError, AntiphonError)


PARAMETERS = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
NAMED = {"name": "f", "description": "d"}


@pytest.mark.parametrize(
    "form",
    [
        {"type": "function", "function": {**NAMED, "parameters": PARAMETERS, "handler": one}},
        {"type": "function", "function": {**NAMED, "parameters": PARAMETERS}, "handler": one},
        {**NAMED, "input_schema": PARAMETERS, "handler": one},
        {"function_declarations": [{**NAMED, "parameters": PARAMETERS, "handler": one}]},
        {"toolSpec": {**NAMED, "inputSchema": {"json": PARAMETERS}, "handler": one}},
        {"toolSpec": {**NAMED, "inputSchema": {"json": PARAMETERS}}, "handler": one},
        {**NAMED, "parameters": PARAMETERS, "handler": one},
        FlowsFunctionSchema("f", "d", {"a": {"type": "string"}}, ["a"], one),
    ],
)
def test_functions_may_be_in_the_form_of_each_provider(form: Any) -> None:
    (read,) = read_functions([form], "functions")
    expected = FunctionSchema("f", "d", {"a": {"type": "string"}}, ["a"])
    assert read.schema.to_plain() == expected.to_plain()
    assert read.handler is not None
    assert read.cancel_on_interruption is True


def test_one_declaration_of_gemini_may_hold_several_functions() -> None:
    declarations = [{"name": "a"}, {"name": "b", "parameters": PARAMETERS, "handler": one}]
    read = read_functions([{"function_declarations": declarations}], "functions")
    assert [function.name for function in read] == ["a", "b"]


@pytest.mark.parametrize(
    "form",
    [
        {"function_declarations": {"name": "a"}},
        {"function": []},
        {"toolSpec": {"name": "a", "inputSchema": {"json": []}}, "x": 1, "parameters": []},
        {"name": "a", "parameters": "text"},
        {"name": "a", "handler": one, "transition_to": "b", "transition_callback": two},
        {"name": "a", "transition_to": 5},
        {"name": "a", "transition_callback": "b"},
        {"name": "a", "transition_callback": one},
    ],
)
def test_malformed_functions_are_refused(form: Any) -> None:
    if "inputSchema" in str(form):
        form["toolSpec"]["inputSchema"]["json"] = "text"
    with pytest.raises(InvalidFunctionError, match=r"^functions\[0\]"):
        read_functions([form], "functions")
