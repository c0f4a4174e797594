"""How a conversation goes on in another process: what is restored, and what is done about the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.checkpoints.conftest import Bot, Program, Reply, Session, World

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.frames.frames import (
    EndFrame,
    Frame,
    LLMMessagesAppendFrame,
    LLMUpdateSettingsFrame,
    TTSSpeakFrame,
)
from antiphon.pipeline.keeper import Restoring, SavedState
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.llm_response import CallInProgress
from antiphon.runner.checkpoint import SessionCheckpoint
from antiphon.services.llm_service import FunctionCallParams
from antiphon.testing import FakeToolCall

ASKED = "How warm is it"
UNKNOWN = "I cannot say."


def reply(messages: list[Any]) -> Sequence[Reply]:
    last = messages[-1]
    if last["role"] == "tool":
        result = json.loads(last["content"])
        return [
            UNKNOWN if result.get("status") == "interrupted" else f"{result['degrees']} degrees."
        ]
    match last["content"]:
        case "How warm is it":
            return [FakeToolCall("weather", {"city": "Oslo"})]
        case "And who are you":
            return ["A bot."]
    raise AssertionError(f"nobody should have asked about {last}")


def run(program: Program, script: list[tuple[str, str]]) -> World:
    world = World(script)
    Session(world, reply, program).run()
    return world


def die_in_a_call(calls: list[str], *, idempotent: bool, delay_secs: float = 1.0) -> Program:
    """The first process dies while its function runs."""

    async def program(bot: Bot) -> None:
        async def weather(params: FunctionCallParams) -> None:
            calls.append(params.tool_call_id)
            assert params.context is bot.context
            if bot.is_first:
                await bot.saved(lambda saved: any(call.begun for call in saved.contexts[0].calls))
                await asyncio.sleep(delay_secs)
                bot.kill()
                await asyncio.sleep(1.0)
            await params.result_callback({"degrees": 3})

        bot.llm.register_function("weather", weather, idempotent=idempotent)

    return program


def tool_messages(world: World) -> list[Any]:
    return [content for role, content in world.result if role == "tool"]


def test_the_outcome_of_a_function_that_ran_is_unknown() -> None:
    calls: list[str] = []
    world = run(die_in_a_call(calls, idempotent=False), [(ASKED, UNKNOWN)])
    assert world.processes == 2
    assert calls == ["call_0"]
    (told,) = tool_messages(world)
    assert json.loads(told)["status"] == "interrupted"
    assert "unknown" in json.loads(told)["error"]
    assert world.result[-1] == ("assistant", UNKNOWN)


def test_a_function_that_may_be_repeated_is() -> None:
    calls: list[str] = []
    world = run(die_in_a_call(calls, idempotent=True), [(ASKED, "3 degrees.")])
    assert world.processes == 2
    assert calls == ["call_0", "call_0"]
    assert tool_messages(world) == ['{"degrees": 3}']
    # Nothing of it is in the conversation twice.
    assert [role for role, _ in world.result] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]


def test_a_call_that_the_conversation_does_not_mention_yet() -> None:
    calls: list[int] = []
    die = die_after(lambda saved: saved.contexts[0].awaits_answer)

    async def program(bot: Bot) -> None:
        await die(bot)
        if bot.resume is not None:
            announced = CallInProgress("weather", "call_0", {"city": "Oslo"}, 0.0)
            (saved,) = bot.resume.contexts
            saved.calls[:] = [announced]
            del saved.messages[2:]

        async def weather(params: FunctionCallParams) -> None:
            calls.append(bot.world.processes)

        bot.llm.register_function("weather", weather)

    world = run(program, [(ASKED, UNKNOWN)])
    assert calls == [1]
    assert [role for role, _ in world.result] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert json.loads(tool_messages(world)[0])["status"] == "interrupted"


class Basket(SavedState):
    """What a bot remembers beside the conversation."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.went_on = 0

    def save(self) -> Any:
        return {"items": self.items}

    def restore(self, saved: Any, restoring: Restoring) -> None:
        self.items += saved["items"]

    async def go_on(self) -> None:
        self.went_on += 1


def die_after(condition: Any) -> Program:
    async def program(bot: Bot) -> None:
        if bot.is_first:

            async def die() -> None:
                await bot.saved(condition)
                bot.kill()

            bot.more["end"] = asyncio.create_task(die())

    return program


SMALL_TALK = [("And who are you", "A bot."), ("And who are you", "A bot.")]


def answered(saved: SessionCheckpoint) -> bool:
    context = saved.contexts[0]
    return not context.awaits_answer and context.messages[-1]["role"] == "assistant"


def test_what_is_put_back_is_put_where_it_was() -> None:
    die = die_after(answered)
    lists: list[Any] = []
    tools = ToolsSchema([FunctionSchema("f", "", {}, [])])

    async def program(bot: Bot) -> None:
        await die(bot)
        lists.append(bot.context.messages)
        if bot.is_first:
            bot.context.set_tools(tools)
            bot.context.set_tool_choice("none")
            bot.task.params.start_metadata["caller"] = "+47"
            bot.task.params.start_metadata["socket"] = object()
        else:
            bot.task.params.start_metadata["own"] = 1

    world = run(program, SMALL_TALK)
    assert world.processes == 2
    assert world.bot is not None
    assert world.bot.context.messages is lists[-1]
    assert [role for role, _ in world.result] == ["system", *["user", "assistant"] * 2]
    assert world.bot.context.to_plain()["tools_schema"] == tools.to_plain()
    assert world.bot.context.tool_choice == "none"
    assert world.bot.task.params.start_metadata == {"caller": "+47", "own": 1}
    assert world.problems == ["start_metadata['socket'] could not be saved"]


def test_turns_go_on() -> None:
    die = die_after(answered)
    turns: list[tuple[int, int]] = []

    async def program(bot: Bot) -> None:
        await die(bot)
        assert bot.task.turn_tracking_observer is not None

        @bot.task.turn_tracking_observer.event_handler("on_turn_started")
        async def started(observer: object, number: int) -> None:
            turns.append((bot.world.processes, number))

    world = run(program, SMALL_TALK)
    assert world.bot is not None
    report = world.bot.task.session_report()
    assert report is not None
    assert [turn.number for turn in report.turns] == sorted({number for _, number in turns})
    assert max(number for process, number in turns if process == 1) <= min(
        number for process, number in turns if process == 2
    )
    assert [(said["role"], said["text"]) for said in report.transcript] == [
        ("user", "And who are you"),
        ("assistant", "A bot."),
    ] * 2
    earlier, later = report.turns[0], report.turns[-1]
    assert earlier.started_secs < 0 < later.started_secs
    assert report.duration_secs >= later.started_secs - earlier.started_secs


def test_a_beginning_is_not_repeated_but_settings_are() -> None:
    die = die_after(answered)
    reached: list[Frame] = []

    async def program(bot: Bot) -> None:
        await die(bot)
        await bot.task.queue_frames(
            [
                TTSSpeakFrame("Welcome!"),
                LLMMessagesAppendFrame([{"role": "system", "content": "More."}]),
                LLMUpdateSettingsFrame(settings={}),
            ]
        )
        if not bot.is_first:
            bot.task.set_reached_downstream_filter((LLMUpdateSettingsFrame,))

            @bot.task.event_handler("on_frame_reached_downstream")
            async def arrived(task: object, frame: Frame) -> None:
                reached.append(frame)

    world = run(program, [("", "Welcome!"), *SMALL_TALK])
    assert world.heard == ["Welcome!", "A bot.", "A bot."]
    assert len(reached) == 1
    assert [role for role, _ in world.result].count("system") == 2


async def speak_for_itself(bot: Bot) -> None:
    @bot.task.event_handler("on_pipeline_resumed")
    async def resumed(task: PipelineTask, frame: Frame) -> None:
        assert task.is_resumed
        await task.queue_frame(TTSSpeakFrame("Sorry, where were we?"))


def test_a_bot_may_say_something_of_its_own() -> None:
    die = die_after(answered)

    async def program(bot: Bot) -> None:
        await die(bot)
        await speak_for_itself(bot)

    world = run(program, SMALL_TALK)
    assert world.heard.count("Sorry, where were we?") == 1


def test_a_bot_may_change_what_is_restored() -> None:
    die = die_after(lambda saved: saved.contexts[0].awaits_answer)

    async def program(bot: Bot) -> None:
        await die(bot)
        if bot.resume is not None:
            assert bot.resume.session_id == "session"
            (saved,) = bot.resume.contexts
            assert saved.awaits_answer
            saved.awaits_answer = False
            saved.messages[-1]["content"] = "And who are you"
            await speak_for_itself(bot)

    world = run(program, [(ASKED, "Sorry, where were we?"), ("And who are you", "A bot.")])
    assert world.heard == ["Sorry, where were we?", "A bot."]
    assert [content for _, content in world.result][1:] == [
        "And who are you",
        "And who are you",
        "A bot.",
    ]


@pytest.mark.parametrize("late", [False, True])
def test_a_bots_own_state_is_kept(late: bool) -> None:
    die = die_after(lambda saved: answered(saved) and saved.states["basket.2"]["items"] == ["b"])

    async def program(bot: Bot) -> None:
        await die(bot)
        baskets = bot.more["baskets"] = [Basket(), Basket()]

        def register() -> None:
            for basket in baskets:
                bot.task.add_saved_state("basket", basket)

        if late and not bot.is_first:

            @bot.task.event_handler("on_pipeline_resumed")
            async def resumed(task: PipelineTask, frame: Frame) -> None:
                register()
        else:
            register()
        if bot.is_first:
            baskets[0].items.append("a")
            baskets[1].items.append("b")
            bot.task.state_changed()

    world = run(program, SMALL_TALK)
    assert world.bot is not None
    assert [basket.items for basket in world.bot.more["baskets"]] == [["a"], ["b"]]
    assert [basket.went_on for basket in world.bot.more["baskets"]] == [1, 1]
    assert set(world.bot.task.saved_states) == {"basket.1", "basket.2"}
    assert world.problems == []


def test_what_cannot_be_restored_is_named() -> None:
    die = die_after(answered)

    class Broken(Basket):
        def restore(self, saved: Any, restoring: Restoring) -> None:
            raise RuntimeError("of another version")

    async def program(bot: Bot) -> None:
        await die(bot)
        if bot.is_first:
            bot.task.add_saved_state("basket", Basket())
            bot.task.add_saved_state("purse", Basket())
        else:
            assert bot.resume is not None
            bot.resume.contexts.append(bot.resume.contexts[0])
            bot.task.add_saved_state("basket", Broken())

    world = run(program, SMALL_TALK)
    assert world.problems == [
        "2 conversations were saved, and the pipeline has 1",
        "basket.1: RuntimeError",
        "purse.1 was saved, and the bot has registered no such state",
    ]
    # The conversation went on all the same.
    assert world.heard == ["A bot.", "A bot."]


def test_a_pipeline_that_was_ending_ends() -> None:
    async def program(bot: Bot) -> None:
        if bot.is_first:

            async def die() -> None:
                await bot.saved(lambda saved: saved.is_ending)
                bot.kill()

            bot.more["end"] = asyncio.create_task(die())
            await bot.task.queue_frames([TTSSpeakFrame("A long farewell."), EndFrame()])

    world = World([("", "A bot.")])  # which it never says
    Session(world, reply, program).run()
    assert world.processes == 2


async def test_only_the_first_pipeline_is_kept() -> None:
    results = []

    async def program(bot: Bot) -> None:
        other = PipelineTask(Pipeline([]))
        other.add_saved_state("basket", Basket())
        results.append(await bot.keeper.begin(other))
        bot.keeper.state_added(other, "x.1", Basket())

    async def later(bot: Bot) -> None:
        @bot.task.event_handler("on_pipeline_started")
        async def started(task: object, frame: object) -> None:
            await program(bot)

    await asyncio.to_thread(run, later, [("And who are you", "A bot.")])
    assert results == [False]


async def test_without_a_keeper_nothing_is_restored() -> None:
    task = PipelineTask(Pipeline([]))
    basket = Basket()
    task.add_saved_state("basket", basket)
    task.state_changed()
    await task.queue_frame(EndFrame())
    await PipelineRunner(handle_sigint=False).run(task)
    assert not task.is_resumed
    assert basket.went_on == 0
