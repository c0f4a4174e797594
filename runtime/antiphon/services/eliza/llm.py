"""A stand-in for a language model that needs no account, no network and no model file."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from typing import Any

from antiphon.errors import ConfigError
from antiphon.frames.frames import Frame, LLMTextFrame, LLMUpdateSettingsFrame, StartFrame
from antiphon.processors.aggregators.llm_response import (
    LLMAssistantAggregatorParams,
    LLMUserAggregatorParams,
)
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.eliza._rules import ElizaRules
from antiphon.services.llm_service import LLMService
from antiphon.services.openai.context_aggregator import (
    OpenAIContextAggregatorPair,
    create_openai_context_aggregator,
    message_text,
)

_TOKEN = re.compile(r"\s*\S+")


class ElizaLLMService(LLMService):
    """Answers like ELIZA, the rule-based conversation program of 1966.

    This is no language model: it matches patterns, turns the user's words around and understands
    nothing. It never calls functions and ignores instructions and tools. What it is good for:
    demonstrations, tests and load tests of everything around a language model, offline and with
    the same answers every time. It streams its answer word by word as a model would.

    It answers the last user message of a conversation; a conversation that ends with an
    instruction, or has no user message, gets a greeting. The answer follows from the conversation
    and the seed alone, so it is the same in every process and after a restart.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        token_delay_secs: float = 0.01,
        max_sentences: int = 1,
        **kwargs: Any,
    ) -> None:
        """Makes the service; the rules are loaded when it starts.

        Args:
            seed: Varies the choice among the answers a rule offers.
            token_delay_secs: Pause before each word, in seconds.
            max_sentences: Above 1, each of the user's sentences is answered, at most so many;
                with 1 the message is answered as a whole.
            **kwargs: Passed on to ``LLMService``.

        Raises:
            ConfigError: The ``nltk`` package is not installed, or a parameter is out of range.
        """
        if importlib.util.find_spec("nltk") is None:
            raise ConfigError('ElizaLLMService needs the nltk package: pip install "antiphon"')
        if token_delay_secs < 0 or max_sentences < 1:
            raise ConfigError("token_delay_secs must be at least 0 and max_sentences at least 1")
        super().__init__(**kwargs)
        self._settings = {
            "seed": seed,
            "token_delay_secs": token_delay_secs,
            "max_sentences": max_sentences,
        }
        self._rules: ElizaRules | None = None
        self.set_model_name("eliza")

    def can_generate_metrics(self) -> bool:
        """Times are reported; token usage is not, as there are no tokens."""
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

    async def start(self, frame: StartFrame) -> None:
        """Loads the rules."""
        await super().start(frame)
        if self._rules is None:
            # The import takes about a second; beside the loop, other sessions do not feel it.
            self._rules = await asyncio.to_thread(ElizaRules)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answers conversations; other frames pass."""
        await super().process_frame(frame, direction)

        if isinstance(frame, LLMUpdateSettingsFrame):
            await self._update_settings(frame.settings)
            return
        await self._answer_or_pass(frame, direction, self._respond)

    def reply_to(self, messages: list[Any]) -> str:
        """The answer to a conversation.

        Args:
            messages: Chat messages, oldest first.
        """
        if self._rules is None:
            self._rules = ElizaRules()
        seed: int = self._settings["seed"]
        said = [message for message in messages if _role(message) == "user"]
        last = _role(messages[-1]) if messages else "system"
        if not said or last in ("system", "developer"):
            return self._rules.greet(seed)
        before = [message_text(m) for m in messages if _role(m) == "assistant"]
        return self._rules.answer(
            message_text(said[-1]),
            seed=seed,
            turn=len(said),
            said_before=before[-1] if before else "",
            sentences=self._settings["max_sentences"],
        )

    async def _respond(self, context: OpenAILLMContext) -> None:
        text = self.reply_to(context.messages)
        await self.start_ttfb_metrics()
        for token in _TOKEN.findall(text):
            await asyncio.sleep(self._settings["token_delay_secs"])
            await self.stop_ttfb_metrics()
            await self.push_frame(LLMTextFrame(text=token))


def _role(message: Any) -> str:
    return str(message.get("role", "")) if isinstance(message, dict) else ""
