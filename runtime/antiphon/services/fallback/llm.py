"""Language models that stand in for one another."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter
from antiphon.errors import ConfigError, ServiceError
from antiphon.frames.frames import (
    Frame,
    FunctionCallFromLLM,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    LLMUpdateSettingsFrame,
    StartInterruptionFrame,
    TextFrame,
)
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.fallback.chain import FallbackChain
from antiphon.services.fallback.failover import Attempt, Health
from antiphon.services.fallback.member import Member
from antiphon.services.fallback.overlap import Continuation
from antiphon.services.llm_service import LLMService

if TYPE_CHECKING:
    from antiphon.processors.aggregators.llm_response import (
        LLMAssistantAggregatorParams,
        LLMUserAggregatorParams,
    )

CONTINUE_PROMPT = (
    "Your last message was cut off by a technical fault. Go on exactly where it ends: repeat nothing "
    "of it, do not greet, do not mention the fault."
)
"""What a model is told that is to finish the answer of another one."""


@dataclass(eq=False)
class _Answer:
    """A request, and what has gone on of its answer.

    Attributes:
        context: The conversation.
        said: The text that has gone on.
        continuation: Takes the repetitions out of what a second member says.
        is_begun: Whether the member that answers has announced its answer.
        is_complete: Whether it has announced the end of it.
        over: Set when nothing more comes.
    """

    context: OpenAILLMContext
    said: list[str] = field(default_factory=list)
    continuation: Continuation | None = None
    is_begun: bool = False
    is_complete: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


class FallbackLLMService(FallbackChain[LLMService], LLMService):
    """Language models that stand in for one another.

    A member that fails, or says nothing in time, is followed by the next one. As long as nothing of
    an answer has gone on, nobody notices but for the time. If a member fails in the middle of one, the next
    one gets the conversation with what was said so far, and goes on from there; the words that it
    repeats are left out.

    Functions are registered here, not with the members, and run here: once, whichever member calls
    them. When a function has been called, no other member goes on with that answer.
    """

    member_class = LLMService

    def __init__(
        self,
        services: Sequence[LLMService],
        *,
        attempt_timeout_secs: float = 5.0,
        stall_timeout_secs: float | None = 10.0,
        continue_prompt: str | None = CONTINUE_PROMPT,
        **kwargs: Any,
    ) -> None:
        """Makes a chain.

        Args:
            services: Its members, the preferred one first.
            attempt_timeout_secs: Until a member's first token; then the next one is asked.
            stall_timeout_secs: From then on without a token. Arguments of functions are not seen
                while they come: leave time for them.
            continue_prompt: What a member is told that is to finish the answer of another one. None:
                an answer that breaks off ends there, with an error.
            **kwargs: Passed on to ``FallbackChain`` and ``LLMService``.

        Raises:
            ConfigError: A function is registered with a member.
        """
        super().__init__(
            services,
            attempt_timeout_secs=attempt_timeout_secs,
            stall_timeout_secs=stall_timeout_secs,
            resumes=continue_prompt is not None,
            **kwargs,
        )
        self._continue_prompt = continue_prompt or ""
        self._answer_under_way: _Answer | None = None
        for member in self._members:
            if member.service._calls.functions:
                raise ConfigError(
                    f"{member.name} has functions of its own: register them with {self.name}"
                )
            member.service._give_calls_to(functools.partial(self._run_calls_of, member.index))
            member.service.add_event_handler("on_completion_timeout", self._member_timed_out)

    # -- for bots ------------------------------------------------------------------------------

    def get_llm_adapter(self) -> BaseLLMAdapter:
        """What translates tools to the form of the preferred member; each has its own as well."""
        return self._members[0].service.get_llm_adapter()

    def create_context_aggregator(
        self,
        context: OpenAILLMContext,
        *,
        user_params: LLMUserAggregatorParams | None = None,
        assistant_params: LLMAssistantAggregatorParams | None = None,
    ) -> Any:
        """Makes the pair of aggregators of the preferred member.

        Args:
            context: The conversation; all members have to understand its messages.
            user_params: Settings of the user's half.
            assistant_params: Settings of the assistant's half.
        """
        return self._members[0].service.create_context_aggregator(
            context, user_params=user_params, assistant_params=assistant_params
        )

    def needs_mcp_alternate_schema(self) -> bool:
        """Whether schemas of MCP tools have to be simplified for one of the members."""
        return any(service.needs_mcp_alternate_schema() for service in self.services)

    async def run_inference(self, context: OpenAILLMContext) -> str | None:
        """Answers a conversation beside the pipeline, by the first member that can.

        Each has ``total_timeout_secs``, or else ``attempt_timeout_secs`` and ``stall_timeout_secs``
        together.

        Args:
            context: The conversation; it is not changed.

        Raises:
            ServiceError: No member could.
        """
        reasons: dict[int, str] = {}
        healthy_first = sorted(
            self._members,
            key=lambda member: self._failover.health(member.index) is not Health.HEALTHY,
        )
        for member in healthy_first:
            try:
                async with asyncio.timeout(self._failover.limits.answer_secs):
                    return await member.service.run_inference(context)
            except TimeoutError:
                reasons[member.index] = "no answer in time"
            except Exception as error:  # noqa: BLE001 - whatever it is, the next one may do better
                reasons[member.index] = str(error)
            logger.warning(
                "inference failed",
                processor=self.name,
                service=member.name,
                reason=reasons[member.index],
            )
        raise ServiceError(f"no service could answer: {self._told(reasons)}", retryable=True)

    # -- frames --------------------------------------------------------------------------------

    async def _take(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, LLMUpdateSettingsFrame):
            await self._change_settings(frame)
            return
        context = self._conversation_of(frame)
        if context is not None:
            await self._have_answered(context)
            return
        await self._tell(frame, direction)
        await self.push_frame(frame, direction)

    async def _have_answered(self, context: OpenAILLMContext) -> None:
        answer = self._answer_under_way = _Answer(context)
        try:
            await self.push_frame(LLMFullResponseStartFrame())
            self._apply(self._failover.begin(self._now()))
            self._expect()
            # Each member has its deadlines.
            await answer.over.wait()
        finally:
            self._answer_under_way = None
            await self.push_frame(LLMFullResponseEndFrame())

    async def _interrupt(self, frame: StartInterruptionFrame, direction: FrameDirection) -> None:
        await self._calls.cancel_interruptible()
        await super()._interrupt(frame, direction)

    async def _begin_attempt(self, member: Member[LLMService], attempt: Attempt) -> None:
        answer = self._answer_under_way
        if answer is None:
            return
        answer.is_begun = answer.is_complete = False
        context = answer.context
        if attempt.resumes:
            said = "".join(answer.said)
            answer.continuation = Continuation(said)
            context = self._broken_off(context, said)
        await self._open(member)
        await member.give(OpenAILLMContextFrame(context))
        await member.mark_end()
        self._expect()

    def _broken_off(self, context: OpenAILLMContext, said: str) -> OpenAILLMContext:
        """A conversation that ends with what was said of its last message."""
        copy = OpenAILLMContext(
            [
                *context.messages,
                {"role": "assistant", "content": said},
                {"role": "user", "content": self._continue_prompt},
            ],
            context._tools,
            context._tool_choice,
        )
        adapter = context.get_llm_adapter()
        if adapter is not None:
            copy.set_llm_adapter(adapter)
        return copy

    async def _begin_probe(self, member: Member[LLMService]) -> None:
        if self._answer_under_way is not None:
            await self._open(member)
            await member.give(OpenAILLMContextFrame(self._answer_under_way.context))

    def _shows_health(self, frame: Frame) -> bool:
        return isinstance(frame, TextFrame) and bool(frame.text)

    async def _output(
        self, member: Member[LLMService], frame: Frame, direction: FrameDirection
    ) -> None:
        answer = self._answer_under_way
        if answer is None:
            return
        if isinstance(frame, LLMFullResponseStartFrame):
            answer.is_begun = True
        elif isinstance(frame, LLMFullResponseEndFrame):
            answer.is_complete = True
        elif isinstance(frame, TextFrame):
            if answer.continuation is not None:
                frame.text = answer.continuation.feed(frame.text)
            await self._say(answer, frame)
        else:
            await self.push_frame(frame, direction)

    async def _say(self, answer: _Answer, frame: TextFrame) -> None:
        if frame.text:
            answer.said.append(frame.text)
            await self._pass_on(frame)
        else:
            self._expect_more()

    async def _reached_end(self, member: Member[LLMService]) -> None:
        """The member has dealt with the request; if it has announced an end, this is it."""
        answer = self._answer_under_way
        if answer is None or member is not self._asked:
            return
        if answer.is_complete or (answer.said and not answer.is_begun):
            if answer.continuation is not None:
                await self._say(answer, LLMTextFrame(answer.continuation.rest()))
            self._finish()
            answer.over.set()

    async def _gave_up(self) -> None:
        if self._answer_under_way is not None:
            self._answer_under_way.over.set()

    # -- functions -----------------------------------------------------------------------------

    async def _run_calls_of(self, index: int, calls: Sequence[FunctionCallFromLLM]) -> None:
        """Runs the functions that a member calls, if it is the one that is heard."""
        answer, member = self._answer_under_way, self._members[index]
        if answer is None or member is not self._asked or not member.is_open:
            logger.info("function calls ignored", processor=self.name, service=member.name)
            return
        self._apply(self._failover.content(self._now(), final=True))
        # The conversation, even if the member was given a copy that says what to go on with.
        own = [dataclasses.replace(call, context=answer.context) for call in calls]
        await self.run_function_calls(own)

    async def _member_timed_out(self, service: LLMService) -> None:
        await self._call_event_handler("on_completion_timeout")
