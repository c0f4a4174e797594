"""A caller, a line and a store that outlive the bot's process, and processes that are killed.

A process is an event loop with objects of its own. Killed, it stops between two turns of its loop, and
nothing it still does reaches the world outside. Time is virtual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from loguru import logger

from antiphon.frames.frames import (
    Frame,
    FunctionCallFromLLM,
    LLMTextFrame,
    OutputAudioRawFrame,
    StartFrame,
    TranscriptionFrame,
    TTSTextFrame,
)
from antiphon.pipeline.keeper import use_keeper
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.runner.checkpoint import SessionCheckpoint
from antiphon.runner.checkpointer import Checkpointer
from antiphon.services.llm_service import LLMService
from antiphon.services.openai.context_aggregator import create_openai_context_aggregator
from antiphon.testing import FakeToolCall, FakeTTSService
from antiphon.testing.virtual_time import VirtualTimeLoop
from antiphon.transports.base_input import BaseInputTransport
from antiphon.transports.base_output import BaseOutputTransport
from antiphon.transports.base_transport import TransportParams
from antiphon.transports.caller_line import CallerLine

DEADLINE_SECS = 600.0
"""Virtual time within which a conversation is over."""

MORE_LIVES = 3
STORE_SECS = 0.02
SYLLABLE_SECS = 0.1
PATIENCE_SECS = 1.0

Reply = str | FakeToolCall


class KilledError(BaseException):
    """The process was killed."""


class MortalLoop(VirtualTimeLoop):
    """A loop that is killed before one of its turns."""

    def __init__(self, last_turn: int | None) -> None:
        super().__init__()
        self.turns = 0
        self.last_turn = last_turn

    def _run_once(self) -> None:
        if self.last_turn is not None and self.turns >= self.last_turn:
            self.last_turn = None
            raise KilledError
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


@dataclass
class Life:
    """Whether what a process does still reaches the world."""

    is_alive: bool = True


class World:
    """What outlives the bot's process: the caller, the line, the store.

    Args:
        script: What the caller says, each with what the bot has to say before the next.
        polite: Whether the caller lets the bot finish.
    """

    def __init__(self, script: Sequence[tuple[str, str]], *, polite: bool = True) -> None:
        self.script = script
        self.polite = polite
        self.said = 0
        # The caller's messages, from the first on, and how many of them need not be kept.
        self.messages: list[tuple[str, str]] = []
        self.committed = 0
        self.heard: list[str] = []
        self.checkpoint: bytes | None = None
        self.saves = 0
        self.processes = 0
        self.store_secs = STORE_SECS
        self.store_is_down = False
        self.result: Any = None
        self.bot: Bot | None = None
        self.problems: list[str] = []
        self._expected_from = 0
        self._last_sound_secs = 0.0
        self._news: asyncio.Event | None = None

    def begin(self) -> None:
        """A new process."""
        self.processes += 1
        self._last_sound_secs = 0.0  # its clock begins anew
        self._news = asyncio.Event()

    def notify(self) -> None:
        if self._news is not None:
            self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something holds that depends on what happens in the world."""
        assert self._news is not None
        while not condition():
            news = self._news
            await news.wait()
            # Others wait, too: each has its turn before the event is renewed.
            await asyncio.sleep(0)
            news.clear()

    async def save(self, life: Life, data: bytes) -> None:
        await asyncio.sleep(self.store_secs)
        if self.store_is_down:
            raise ConnectionError("the store is down")
        if life.is_alive:
            self.saves += 1
            self.checkpoint = data
            self.notify()

    async def talk(self) -> None:
        """The caller: answers when the bot has said what is expected, and hangs up at the end.

        Goes on where it was, whichever process it talks to.
        """
        if self.said:
            await self._listen(self.script[self.said - 1][1])
        for number, (words, answer) in enumerate(self.script):
            if number < self.said:
                continue
            if words:
                self.messages += [("starts", ""), *(("says", word) for word in words.split())]
                self.messages.append(("stops", words))
            self.said = number + 1
            self._expected_from = len(self.heard)
            self.notify()
            await self._listen(answer)

    def hear(self, text: str) -> None:
        """The bot has said something."""
        self.heard.append(text)
        self.notify()

    def sound(self) -> None:
        """The bot is speaking."""
        self._last_sound_secs = asyncio.get_running_loop().time()

    async def _listen(self, answer: str) -> None:
        """Waits until something was said, and then for the bot to be silent."""
        await self.until(lambda: answer in " ".join(self.heard[self._expected_from :]))
        if not self.polite and self.said < len(self.script):
            return
        loop = asyncio.get_running_loop()
        while (left := self._last_sound_secs + PATIENCE_SECS - loop.time()) > 0:  # noqa: ASYNC110 - as people wait
            await asyncio.sleep(left)


class Line:
    """A ``CallerLine``."""

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life
        self.received = world.committed

    def commit(self, received: int) -> None:
        if self._life.is_alive:
            self._world.committed = max(self._world.committed, received)
        self.received = max(self.received, received)


class LineInput(BaseInputTransport):
    """Delivers the messages of the line: the caller speaks word by word."""

    def __init__(self, world: World, life: Life) -> None:
        super().__init__(TransportParams())
        self._world = world
        self._line = Line(world, life)
        self._delivery: asyncio.Task[Any] | None = None

    @property
    def caller_line(self) -> CallerLine | None:
        return self._line

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        self._delivery = self.create_task(self._deliver(), "delivery")

    async def cleanup(self) -> None:
        if self._delivery is not None:
            await self.cancel_task(self._delivery)
        await super().cleanup()

    async def _deliver(self) -> None:
        while True:
            await self._world.until(lambda: len(self._world.messages) > self._line.received)
            kind, words = self._world.messages[self._line.received]
            self._line.received += 1
            if kind == "starts":
                await self._user_started()
            elif kind == "stops":
                await self.push_frame(TranscriptionFrame(words, "caller", ""))
                await self._user_stopped()
            await asyncio.sleep(SYLLABLE_SECS)


class LineOutput(BaseOutputTransport):
    """Plays, and lets the caller hear what was played."""

    def __init__(self, world: World, life: Life) -> None:
        super().__init__(TransportParams(audio_out_enabled=True))
        self._world, self._life = world, life

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> None:
        await asyncio.sleep(len(frame.audio) / 2 / frame.sample_rate)
        self._world.sound()

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        await super().push_frame(frame, direction)
        if isinstance(frame, TTSTextFrame) and self._life.is_alive:
            self._world.hear(frame.text.strip())


class ReplyingLLM(LLMService):
    """Answers what a conversation holds, whichever process asks."""

    def __init__(self, reply: Callable[[list[Any]], Sequence[Reply]]) -> None:
        super().__init__()
        self._reply = reply

    def create_context_aggregator(self, context: OpenAILLMContext, **options: Any) -> Any:
        return create_openai_context_aggregator(self, context, None, None)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self._answer_or_pass(frame, direction, self._respond)

    async def _respond(self, context: OpenAILLMContext) -> None:
        calls = []
        for step in self._reply(context.messages):
            if isinstance(step, FakeToolCall):
                number = sum("tool_calls" in message for message in context.messages)
                calls.append(
                    FunctionCallFromLLM(step.name, f"call_{number}", step.arguments, context)
                )
                continue
            for word in step.split():
                await asyncio.sleep(SYLLABLE_SECS)
                await self.push_frame(LLMTextFrame(f" {word}"))
        await self.run_function_calls(calls)


@dataclass
class Bot:
    """A bot in one process.

    Attributes:
        world: The world around it.
        life: Whether that notices it.
        task: Its task.
        context: Its conversation.
        llm: Its model.
        pair: Its aggregators.
        keeper: Keeps it.
        resume: What it goes on from.
        more: What a test adds.
    """

    world: World
    life: Life
    task: PipelineTask
    context: OpenAILLMContext
    llm: ReplyingLLM
    pair: Any
    keeper: Checkpointer
    resume: SessionCheckpoint | None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether this is the first process."""
        return self.world.processes == 1

    def kill(self) -> None:
        """Kills the process before the next turn of its loop."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MortalLoop)
        loop.last_turn = 0

    async def saved(self, condition: Callable[[SessionCheckpoint], object]) -> SessionCheckpoint:
        """The first checkpoint in the store of which a condition holds."""
        found: list[SessionCheckpoint] = []

        def is_there() -> bool:
            if self.world.checkpoint is not None:
                latest = SessionCheckpoint.decode(self.world.checkpoint)
                if condition(latest):
                    found.append(latest)
            return bool(found)

        await self.world.until(is_there)
        return found[0]


Program = Callable[[Bot], Awaitable[None]]
"""What a bot does before its task runs."""


def roles_and_words(context: OpenAILLMContext) -> list[Any]:
    return [
        (message["role"], message.get("content") or message.get("tool_calls"))
        for message in context.messages
    ]


class Session:
    """Runs a bot in one process after the other, until the conversation is over.

    Args:
        world: The world around it.
        reply: What the model says.
        program: What the bot does before its task runs.
        is_own: Whether a module is one of the bot's own.
    """

    def __init__(
        self,
        world: World,
        reply: Callable[[list[Any]], Sequence[Reply]],
        program: Program,
        is_own: Callable[[ModuleType], bool] = lambda _: True,
    ) -> None:
        self.world = world
        self._reply = reply
        self._program = program
        self._is_own = is_own

    def run(self, *cuts: int) -> int:
        """Runs to the end.

        Args:
            *cuts: After how many turns of its loop each process is killed; those after them only if
                the bot wants to be.

        Returns:
            How many turns the last process has made.
        """
        for cut in (*cuts, *[None] * MORE_LIVES):
            loop = MortalLoop(cut)
            life = Life()
            loop.set_exception_handler(lambda _, context: None)  # the dead have no complaints
            with asyncio.Runner(loop_factory=lambda loop=loop: loop) as runner:  # type: ignore[misc]
                try:
                    return runner.run(self._live(life, loop))
                except KilledError:
                    life.is_alive = False
        raise AssertionError("no process was left alive")

    async def _live(self, life: Life, loop: MortalLoop) -> int:
        async with asyncio.timeout(DEADLINE_SECS):
            await self._run_bot(life)
        loop.last_turn = None
        return loop.turns

    async def _run_bot(self, life: Life) -> None:
        world = self.world
        world.begin()
        resume = SessionCheckpoint.decode(world.checkpoint) if world.checkpoint else None
        keeper = Checkpointer(
            "session",
            "1",
            lambda data: world.save(life, data),
            resume=resume,
            is_own=self._is_own,
        )
        bot = self._build(life, keeper, resume)
        async with keeper:
            with use_keeper(keeper):
                await self._program(bot)
                caller = asyncio.create_task(self._call(bot))
                await PipelineRunner(handle_sigint=False).run(bot.task)
            caller.cancel()
            await asyncio.wait({caller})
        if not life.is_alive:
            return
        if not caller.cancelled() and (error := caller.exception()) is not None:
            raise error
        world.bot = bot
        world.problems += resume.problems if resume is not None else []
        world.result = roles_and_words(bot.context)

    async def _call(self, bot: Bot) -> None:
        await self.world.talk()
        await bot.task.stop_when_done()

    def _build(self, life: Life, keeper: Checkpointer, resume: SessionCheckpoint | None) -> Bot:
        llm = ReplyingLLM(self._reply)
        context = OpenAILLMContext([{"role": "system", "content": "Be kind."}])
        pair = llm.create_context_aggregator(context)
        tts = FakeTTSService()
        ears: list[FrameProcessor] = [LineInput(self.world, life), pair.user()]
        mouth: list[FrameProcessor] = [llm, tts, LineOutput(self.world, life), pair.assistant()]
        task = PipelineTask(Pipeline([*ears, *mouth]))
        return Bot(self.world, life, task, context, llm, pair, keeper, resume)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nothing is logged: hundreds of conversations would be."""
    logger.disable("antiphon")
    yield
    logger.enable("antiphon")
