"""A language model that says what a test has written down."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from antiphon.errors import ServiceError
from antiphon.frames.frames import ErrorFrame, Frame, FunctionCallFromLLM, LLMTextFrame
from antiphon.metrics.metrics import LLMTokenUsage
from antiphon.processors.aggregators.llm_response import (
    LLMAssistantAggregatorParams,
    LLMUserAggregatorParams,
)
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.llm_service import LLMService
from antiphon.services.openai.context_aggregator import (
    OpenAIContextAggregatorPair,
    create_openai_context_aggregator,
)

_TOKEN = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class FakeToolCall:
    """A step of a response: the model calls a function.

    Attributes:
        name: The function.
        arguments: What it is given.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeDelay:
    """A step of a response: the model takes its time.

    Attributes:
        secs: How long.
    """

    secs: float


@dataclass(frozen=True)
class FakeFailure:
    """A step of a response: the service fails.

    Attributes:
        message: What the error says.
        is_reported: Whether it reports the error and ends, instead of raising one.
    """

    message: str = "the fake language model was told to fail"
    is_reported: bool = False


FakeStep = str | FakeToolCall | FakeDelay | FakeFailure
FakeResponse = str | Sequence[FakeStep]
"""Either a text, streamed word by word, or steps, of which each text is one token as it stands."""


class FakeLLMService(LLMService):
    """Answers each context with the next response of its script.

    Functions are called after the rest of a response, as models do. A context that comes after the
    last response is an error, unless the script repeats.
    """

    def __init__(
        self,
        responses: Sequence[FakeResponse] = (),
        *,
        repeat: bool = False,
        token_delay_secs: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            responses: What it says, request by request.
            repeat: Whether the script begins again after its end.
            token_delay_secs: Time before each token.
            **kwargs: Passed on to ``LLMService``.
        """
        super().__init__(**kwargs)
        self._responses = list(responses)
        self._repeat = repeat
        self._token_delay_secs = token_delay_secs
        self._calls_made = 0
        # Requests made before this one took another one's place.
        self._requests_before = 0
        self._requests: list[list[Any]] = []
        self.set_model_name("fake")

    @property
    def requests(self) -> list[list[Any]]:
        """The messages of each request so far, as they were when it was made.

        Kept where the service runs: empty in the bot's process if that is another one.
        """
        return self._requests

    def snapshot(self) -> Mapping[str, Any]:
        """Where in the script it is, besides the function calls."""
        return {
            **(super().snapshot() or {}),
            "requests": self._requests_before + len(self._requests),
            "calls_made": self._calls_made,
        }

    async def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on in the script."""
        self._requests_before = state["requests"]
        self._calls_made = state["calls_made"]
        await super().restore(state)

    def can_generate_metrics(self) -> bool:
        """It reports times and tokens like a real one."""
        return True

    def create_context_aggregator(
        self,
        context: OpenAILLMContext,
        *,
        user_params: LLMUserAggregatorParams | None = None,
        assistant_params: LLMAssistantAggregatorParams | None = None,
    ) -> OpenAIContextAggregatorPair:
        """Makes the pair of aggregators that connect a conversation with this service.

        Args:
            context: The conversation.
            user_params: Settings of the user's half.
            assistant_params: Settings of the assistant's half.
        """
        return create_openai_context_aggregator(self, context, user_params, assistant_params)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answers conversations; other frames pass."""
        await super().process_frame(frame, direction)
        await self._answer_or_pass(frame, direction, self._respond)

    async def run_inference(self, context: OpenAILLMContext) -> str | None:
        """Answers with the texts of the next response of the script, beside the pipeline."""
        texts: list[str] = []
        for step in self._next_steps(context):
            match step:
                case FakeDelay():
                    await asyncio.sleep(step.secs)
                case FakeFailure():
                    raise ServiceError(step.message, provider="fake")
                case str():
                    texts.append(step)
        return "".join(texts) or None

    def _next_steps(self, context: OpenAILLMContext) -> Sequence[FakeStep]:
        number = self._requests_before + len(self._requests)
        self._requests.append(deepcopy(list(context.messages)))
        if not self._responses or (number >= len(self._responses) and not self._repeat):
            raise ServiceError(
                f"{self.name} has no response left: request {number + 1}, "
                f"{len(self._responses)} responses",
                provider="fake",
            )
        response = self._responses[number % len(self._responses)]
        return _TOKEN.findall(response) if isinstance(response, str) else response

    async def _respond(self, context: OpenAILLMContext) -> None:
        steps = self._next_steps(context)
        await self.start_ttfb_metrics()
        calls: list[FunctionCallFromLLM] = []
        tokens = 0
        for step in steps:
            match step:
                case FakeDelay():
                    await asyncio.sleep(step.secs)
                case FakeFailure(is_reported=True):
                    await self.push_error(ErrorFrame(step.message))
                    return
                case FakeFailure():
                    raise ServiceError(step.message, provider="fake")
                case FakeToolCall():
                    await self.stop_ttfb_metrics()
                    calls.append(self._call(step, context))
                case str():
                    await asyncio.sleep(self._token_delay_secs)
                    await self.stop_ttfb_metrics()
                    tokens += 1
                    await self.push_frame(LLMTextFrame(step))
        await self.start_llm_usage_metrics(_usage(context, tokens))
        await self.run_function_calls(calls)

    def _call(self, step: FakeToolCall, context: OpenAILLMContext) -> FunctionCallFromLLM:
        self._calls_made += 1
        return FunctionCallFromLLM(
            function_name=step.name,
            tool_call_id=f"fake_call_{self._calls_made}",
            arguments=dict(step.arguments),
            context=context,
        )


def _usage(context: OpenAILLMContext, completion_tokens: int) -> LLMTokenUsage:
    """One token a word, so that a test can count them."""
    prompt_tokens = sum(len(str(message).split()) for message in context.messages)
    return LLMTokenUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )
