"""What is done before and after a node's first answer, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.flows.conftest import TURN_SECS, Talk, task_message

from antiphon.flows import ActionConfig, ActionError, FlowInitializationError, FlowManager
from antiphon.flows.actions import CROSSING_DEADLINE_SECS
from antiphon.testing import FakeDelay

pytestmark = pytest.mark.virtual_time


PIECE = 960
"""Samples of 40 ms: what is left of an utterance when it has been played in whole pieces."""


def samples(talk: Talk, *texts: str) -> int:
    """How long some texts sound."""
    return sum(len(talk.tts.tone(text)) // 2 for text in texts)


async def test_pre_actions_come_before_the_answer_and_post_actions_behind_it() -> None:
    talk = Talk(["Answer."])
    flow = talk.flow()
    flow.register_action("own", talk.noting("own"))

    async def script() -> None:
        await flow.initialize(
            {
                "task_messages": task_message("T"),
                "pre_actions": [
                    {"type": "own"},
                    {"type": "tts_say", "text": "Please hold."},
                    {"type": "function", "handler": talk.noting("first function")},
                ],
                "post_actions": [
                    {"type": "own"},
                    {"type": "tts_say", "text": "One thing more."},
                    {"type": "function", "handler": talk.noting("function")},
                    {"type": "own"},
                    {"type": "end_conversation", "text": "Goodbye."},
                ],
            }
        )

    await talk.run(script, end=False)
    assert talk.spoken == ["Please hold.", "Answer.", "One thing more.", "Goodbye."]
    held = samples(talk, "Please hold.")
    answered = samples(talk, "Please hold.", "Answer.")
    more = samples(talk, "Please hold.", "Answer.", "One thing more.")
    times = [(text.partition(" after ")[0], int(text.split()[-1])) for text in talk.log]
    assert [name for name, _ in times] == ["own", "first function", "own", "function", "own"]
    assert times[0][1] == 0
    for (_, count), least in zip(times[1:], [held, answered, more, more], strict=True):
        assert count >= least - PIECE
    assert times[1][1] < answered
    assert times[2][1] < more


async def test_post_actions_of_a_silent_node_wait_for_the_first_answer() -> None:
    talk = Talk(["Hello."])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(
            {
                "task_messages": task_message("T"),
                "respond_immediately": False,
                "pre_actions": [{"type": "tts_say", "text": "Connected."}],
                "post_actions": [
                    {"type": "function", "handler": talk.noting("function")},
                    {"type": "tts_say", "text": "Bye."},
                ],
            }
        )
        await asyncio.sleep(TURN_SECS)
        assert (talk.spoken, talk.log) == (["Connected."], [])
        await talk.say("Hi")

    await talk.run(script)
    assert talk.spoken == ["Connected.", "Hello.", "Bye."]
    assert len(talk.log) == 1


async def test_post_actions_that_wait_are_forgotten_with_their_node() -> None:
    talk = Talk(["Hello."])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(
            {
                "task_messages": task_message("T"),
                "respond_immediately": False,
                "post_actions": [{"type": "tts_say", "text": "never said"}],
            }
        )
        await asyncio.sleep(TURN_SECS)
        await flow.set_node_from_config({"task_messages": task_message("T2")})

    await talk.run(script)
    assert talk.spoken == ["Hello."]


async def test_an_interruption_drops_speech_but_no_function() -> None:
    talk = Talk([["Answer", FakeDelay(1), "that", FakeDelay(30), "lasts."], "Yes?"])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(
            {
                "task_messages": task_message("T"),
                "post_actions": [
                    {"type": "function", "handler": talk.noting("function")},
                ],
            }
        )
        await asyncio.sleep(5)
        assert talk.log == []
        await talk.say("Stop")

    await talk.run(script)
    assert talk.spoken[-1] == "Yes?"
    assert "lasts." not in " ".join(talk.spoken)
    assert len(talk.log) == 1


async def test_an_action_may_take_only_itself_and_bring_its_handler() -> None:
    seen: list[dict[str, Any]] = []

    async def notify(action: dict[str, Any]) -> None:
        seen.append(action)

    def plain(action: dict[str, Any], flow_manager: FlowManager) -> None:
        assert flow_manager is flow
        seen.append(action)

    talk = Talk(["Hi"])
    flow = talk.flow()
    notice: ActionConfig = {"type": "notify", "handler": notify, "channel": "#ops"}  # type: ignore[typeddict-unknown-key]
    again: ActionConfig = {"type": "notify"}
    last: ActionConfig = {"type": "function", "handler": plain}  # type: ignore[typeddict-item]

    async def script() -> None:
        await flow.initialize(
            {"task_messages": task_message("T"), "pre_actions": [notice, again, last]}
        )

    await talk.run(script)
    assert seen == [notice, again, last]


async def test_a_built_in_action_may_be_replaced() -> None:
    talk = Talk(["Hi"])
    flow = talk.flow()
    flow.register_action("tts_say", talk.noting("said"))

    async def script() -> None:
        await flow.initialize(
            {"task_messages": task_message("T"), "pre_actions": [{"type": "tts_say"}]}
        )

    await talk.run(script)
    assert len(talk.log) == 1
    assert talk.spoken == ["Hi"]


async def broken(action: dict[str, Any], flow_manager: FlowManager) -> None:
    raise LookupError("no such room")


async def test_a_pre_action_that_fails_keeps_the_node_from_being_entered() -> None:
    talk = Talk(["Hi"])
    flow = talk.flow()

    async def script() -> None:
        with pytest.raises(FlowInitializationError, match="'function' failed: no such room") as got:
            await flow.initialize(
                {
                    "task_messages": task_message("T"),
                    "pre_actions": [{"type": "function", "handler": broken}],
                }
            )
        assert isinstance(got.value.__cause__, ActionError)
        assert flow.current_node is None
        await flow.initialize({"task_messages": task_message("T"), "name": "second try"})

    await talk.run(script)
    assert flow.current_node == "second try"


async def test_a_post_action_that_fails_is_an_error_frame() -> None:
    talk = Talk(["Hi"])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(
            {
                "task_messages": task_message("T"),
                "post_actions": [
                    {"type": "function", "handler": broken},
                    {"type": "tts_say", "text": "never said"},
                ],
            }
        )

    await talk.run(script)
    (error,) = talk.errors.seen.values()
    assert "post-actions failed: action 'function' failed: no such room" in error
    assert talk.spoken == ["Hi"]


async def test_the_end_of_the_pipeline_ends_what_waits() -> None:
    talk = Talk([["Hi", FakeDelay(1000)]])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(
            {
                "task_messages": task_message("T"),
                "post_actions": [{"type": "function", "handler": talk.noting("function")}],
            }
        )
        await asyncio.sleep(5)
        await talk.task.cancel()

    await talk.run(script, end=False)
    assert talk.log == []
    assert talk.errors.seen == {}


async def test_an_action_that_outlives_the_pipeline_is_cancelled() -> None:
    ended: list[str] = []

    async def endless(action: dict[str, Any]) -> None:
        try:
            await talk.task.stop_when_done()
            await asyncio.sleep(1000)
        finally:
            ended.append("cancelled")

    talk = Talk(["Hi"])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize(
            {
                "task_messages": task_message("T"),
                "post_actions": [{"type": "function", "handler": endless}],
            }
        )

    await talk.run(script, end=False)
    assert ended == ["cancelled"]


async def test_a_pipeline_that_does_not_get_on_is_an_error() -> None:
    talk = Talk([["Hi", FakeDelay(CROSSING_DEADLINE_SECS + 60)], "Later."])
    flow = talk.flow()

    async def script() -> None:
        await flow.initialize({"task_messages": task_message("T")})
        with pytest.raises(ActionError, match="did not get to an action"):
            await flow.set_node_from_config(
                {
                    "task_messages": task_message("T"),
                    "pre_actions": [{"type": "function", "handler": broken}],
                }
            )
        await asyncio.sleep(60)

    await talk.run(script)
