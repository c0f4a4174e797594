"""A caller who talks to a bot as a test tells it to, and hears what the bot says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from antiphon.frames.frames import BotStartedSpeakingFrame, BotStoppedSpeakingFrame, EndFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.observers.session_report import SessionReport
from antiphon.observers.turn_record import TurnRecord
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection
from antiphon.testing.fake_stt import FakeSTTService
from antiphon.testing.fake_transport import FakeTransport

CHARACTERS_PER_SEC = 15.0
"""How fast a caller speaks."""

_QUIET_SECS = 0.8
"""A bot that has been silent for so long has finished its answer."""

_ANSWER_DEADLINE_SECS = 600.0
_SILENCE_SECS = 0.1
_END_DEADLINE_SECS = 60.0


class Caller:
    """Somebody on the line with a bot: made by ``call()``.

    The line carries silence while the caller does not speak, so that the bot's detection of speech
    works as in a real call.
    """

    def __init__(self, task: PipelineTask, transport: FakeTransport, stt: FakeSTTService) -> None:
        """Makes a caller who has not called yet; use ``call()``."""
        self._task = task
        self._transport = transport
        self._stt = stt
        self._ears = _Ears()
        task.add_observer(self._ears)
        # Who sends on the line at present: the caller, or the silence.
        self._line = asyncio.Lock()
        self._answers_heard = 0

    # -- talking -------------------------------------------------------------------------------

    async def say(self, text: str, *, secs: float | None = None) -> None:
        """Says something; returns when it has been said.

        Args:
            text: What the bot's recognition will understand.
            secs: How long it takes; if left out, as long as people take for such a text.
        """
        self._stt.will_hear(text)
        self._answers_heard = self._ears.started
        async with self._line:
            await self._transport.make_noise(secs or max(0.5, len(text) / CHARACTERS_PER_SEC))

    async def wait(self, secs: float) -> None:
        """Says nothing for a while."""
        await asyncio.sleep(secs)

    async def wait_for_bot(self, *, within_secs: float = 30.0) -> None:
        """Waits until the bot speaks; at once if it does already.

        Raises:
            AssertionError: If it does not within that time.
        """
        await self._until(lambda: self._ears.speaking, within_secs, "the bot does not speak")

    async def hear(self, contains: str = "", *, within_secs: float = 30.0) -> str:
        """Waits for the bot's answer to what was said last, and hears it to its end.

        Args:
            contains: What the answer must contain, upper and lower case alike.
            within_secs: How long the bot may take to begin.

        Returns:
            What the bot has said in this turn.

        Raises:
            AssertionError: If it does not answer in time, or otherwise.
        """
        await self._until(
            lambda: self._ears.speaking or self._ears.started > self._answers_heard,
            within_secs,
            "the bot does not answer",
        )
        try:
            async with asyncio.timeout(_ANSWER_DEADLINE_SECS):
                await self._ears.wait_for_quiet(_QUIET_SECS)
        except TimeoutError:
            raise AssertionError("the bot does not stop speaking") from None
        self._answers_heard = self._ears.started
        answer = self.turns[-1].bot_text
        assert contains.lower() in answer.lower(), f"the bot said {answer!r}"
        return answer

    # -- looking back --------------------------------------------------------------------------

    @property
    def report(self) -> SessionReport:
        """The call so far."""
        report = self._task.session_report()
        assert report is not None, "the task has to be made with enable_turn_tracking=True"
        return report

    @property
    def turns(self) -> list[TurnRecord]:
        """The turns so far."""
        return list(self.report.turns)

    @property
    def transcript(self) -> list[tuple[str, str]]:
        """What was said so far: role and text."""
        return [(entry["role"], entry["text"]) for entry in self.report.transcript]

    @property
    def tool_calls(self) -> list[str]:
        """The functions that the model has called so far."""
        return [name for turn in self.turns for name in turn.function_calls]

    def expect_latency(self, most_secs: float) -> None:
        """Checks that no answer has kept the caller waiting for longer.

        Raises:
            AssertionError: If one has; its stages are in the message.
        """
        for turn in self.turns:
            latency = turn.latency_secs
            assert latency is None or latency <= most_secs, (
                f"turn {turn.number} took {latency:.3f} s: {turn.stages}"
            )

    def expect_tool_calls(self, *names: str) -> None:
        """Checks which functions were called, in order.

        Raises:
            AssertionError: If they were others.
        """
        assert self.tool_calls == list(names), f"the model called {self.tool_calls}"

    def expect_interruptions(self, count: int) -> None:
        """Checks how often the caller has cut the bot off.

        Raises:
            AssertionError: If it was another number of times.
        """
        found = self.report.interruptions
        assert found == count, f"the bot was interrupted {found} times"

    # -- inside --------------------------------------------------------------------------------

    async def _until(self, done: Callable[[], bool], within_secs: float, failure: str) -> None:
        try:
            async with asyncio.timeout(within_secs):
                while not done():
                    self._ears.changed.clear()
                    await self._ears.changed.wait()
        except TimeoutError:
            raise AssertionError(f"{failure} within {within_secs} s") from None

    async def _be_silent(self) -> None:
        while True:
            async with self._line:
                await self._transport.stay_silent(_SILENCE_SECS)


class _Ears(BaseObserver):
    """Knows whether the bot speaks."""

    def __init__(self) -> None:
        super().__init__()
        self.speaking = False
        self.started = 0
        self.changed = asyncio.Event()
        self._stopped_at = 0.0

    async def wait_for_quiet(self, secs: float) -> None:
        loop = asyncio.get_running_loop()
        while self.speaking or loop.time() < self._stopped_at + secs:
            self.changed.clear()
            with suppress(TimeoutError):
                left = None if self.speaking else self._stopped_at + secs - loop.time()
                async with asyncio.timeout(left):
                    await self.changed.wait()

    async def on_push_frame(self, data: FramePushed) -> None:
        if data.direction is not FrameDirection.DOWNSTREAM:
            return
        if isinstance(data.frame, BotStartedSpeakingFrame) and not self.speaking:
            self.speaking = True
            self.started += 1
            self.changed.set()
        elif isinstance(data.frame, BotStoppedSpeakingFrame) and self.speaking:
            self.speaking = False
            self._stopped_at = asyncio.get_running_loop().time()
            self.changed.set()


async def _run_here(task: PipelineTask) -> None:
    await PipelineRunner(handle_sigint=False).run(task)


@asynccontextmanager
async def call(
    task: PipelineTask,
    transport: FakeTransport,
    stt: FakeSTTService,
    *,
    run: Callable[[PipelineTask], Awaitable[Any]] = _run_here,
) -> AsyncIterator[Caller]:
    """Calls a bot; at the end of the block the caller hangs up and the bot ends.

    Args:
        task: The bot, with turn tracking.
        transport: Its transport.
        stt: Its speech recognition, which understands what the caller says.
        run: What runs the task.

    Raises:
        TimeoutError: If the bot does not end.
    """
    caller = Caller(task, transport, stt)
    silence = asyncio.create_task(caller._be_silent(), name="silence on the line")
    running = asyncio.ensure_future(run(task))
    try:
        yield caller
        await transport.disconnect()
        await task.queue_frame(EndFrame())
        async with asyncio.timeout(_END_DEADLINE_SECS):
            await running
    finally:
        silence.cancel()
        running.cancel()  # a pipeline ends in good order all the same
        await asyncio.wait({silence, running}, timeout=_END_DEADLINE_SECS)
