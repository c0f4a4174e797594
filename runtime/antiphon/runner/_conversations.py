"""What of a task belongs to its conversations, how it is saved, and how it is put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from antiphon.frames.frames import (
    FunctionCallFromLLM,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
)
from antiphon.pipeline.base_pipeline import walk
from antiphon.pipeline.keeper import Restoring
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.llm_response import (
    CallInProgress,
    LLMAssistantContextAggregator,
    LLMContextResponseAggregator,
    LLMUserContextAggregator,
)
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection
from antiphon.runner.checkpoint import SavedContext
from antiphon.services.llm_service import LLMService

UNKNOWN_OUTCOME = {
    "status": "interrupted",
    "error": "The call was interrupted by a technical fault: whether it took effect is unknown.",
}
"""What the model is told of a call that was in progress when its process died."""


@dataclass
class Conversation:
    """One conversation of a pipeline.

    Attributes:
        context: Its messages.
        users: The aggregators of what users say.
        assistants: The aggregators of what the bot says.
    """

    context: OpenAILLMContext
    users: list[LLMUserContextAggregator] = field(default_factory=list)
    assistants: list[LLMAssistantContextAggregator] = field(default_factory=list)

    def save(self) -> SavedContext:
        """What is to be restored of it.

        Raises:
            TypeError: A message holds something that is no plain data.
        """
        opened = [each.open_response_from for each in self.assistants]
        return SavedContext(
            self.context.to_plain(),
            bool(self.context.pending_answers),
            min((number for number in opened if number is not None), default=None),
            [call for each in self.assistants for call in each.calls_in_progress],
        )

    def restore(self, saved: SavedContext) -> None:
        """Puts back what was said, in place.

        An answer that was not complete is taken out: the model is asked for it again.
        """
        content = dict(saved.content)
        if saved.awaits_answer and saved.open_response_from is not None:
            content["messages"] = _without_answer(saved.messages, saved.open_response_from)
        self.context.restore(content)
        self.context.pending_answers.cancelled()  # what was asked here before is not under way
        if saved.awaits_answer:
            self.context.pending_answers.reopen()

    async def resolve(
        self, calls: Sequence[CallInProgress], services: Sequence[LLMService]
    ) -> list[RepeatedCall]:
        """Settles the calls that were in progress.

        The model is told that the outcome is unknown, unless a call may be run again.

        Returns:
            What to run again.
        """
        repeated: list[RepeatedCall] = []
        if not self.assistants:
            return repeated
        assistant = self.assistants[0]
        for call in calls:
            service = next((one for one in services if one.has_function(call.function_name)), None)
            if service is not None and service.may_run_again(call.function_name):
                assistant.expect_call(call)
                repeated.append(RepeatedCall(service, call, self.context))
                continue
            if not call.begun:
                await assistant.handle_function_call_in_progress(
                    FunctionCallInProgressFrame(
                        call.function_name, call.tool_call_id, call.arguments
                    )
                )
            await assistant.handle_function_call_result(
                FunctionCallResultFrame(
                    call.function_name, call.tool_call_id, call.arguments, dict(UNKNOWN_OUTCOME)
                )
            )
            self.context.pending_answers.reopen()
        return repeated

    async def ask(self) -> None:
        """Asks the model to answer."""
        if self.users:
            await self.users[0].push_context_frame()
        elif self.assistants:
            await self.assistants[0].push_context_frame(FrameDirection.UPSTREAM)


@dataclass(frozen=True)
class RepeatedCall:
    """A function call that is run again.

    Attributes:
        service: Runs it.
        call: Which one.
        context: The conversation it belongs to.
    """

    service: LLMService
    call: CallInProgress
    context: OpenAILLMContext

    async def run(self) -> None:
        """Starts the call."""
        call = FunctionCallFromLLM(
            self.call.function_name, self.call.tool_call_id, self.call.arguments, self.context
        )
        await self.service.run_function_calls([call])


def conversations_of(task: PipelineTask) -> list[Conversation]:
    """The conversations of a task, in the order of its pipeline."""
    found: dict[int, Conversation] = {}
    for processor in walk(task.pipeline):
        if not isinstance(processor, LLMContextResponseAggregator):
            continue
        # Older aggregators have a context of their own around the same list.
        context = processor.context
        conversation = found.setdefault(id(context.messages), Conversation(context))
        context.pending_answers = conversation.context.pending_answers
        if isinstance(processor, LLMUserContextAggregator):
            conversation.users.append(processor)
        elif isinstance(processor, LLMAssistantContextAggregator):
            conversation.assistants.append(processor)
    return list(found.values())


def services_of(task: PipelineTask) -> list[LLMService]:
    """The language models of a task, in the order of its pipeline."""
    return [one for one in walk(task.pipeline) if isinstance(one, LLMService)]


def restore_conversations(
    conversations: Sequence[Conversation], saved: Sequence[SavedContext], restoring: Restoring
) -> None:
    """Puts back what was said in each conversation."""
    if len(conversations) != len(saved):
        restoring.problem(
            f"{len(saved)} conversations were saved, and the pipeline has {len(conversations)}"
        )
    for number, (conversation, content) in enumerate(zip(conversations, saved, strict=False)):
        try:
            conversation.restore(content)
        except (KeyError, TypeError, ValueError) as error:
            restoring.problem(f"conversation {number + 1}: {type(error).__name__}")


def _without_answer(messages: list[Any], start: int) -> list[Any]:
    """The messages without what an answer that begins there has said so far.

    With function calls among it, it stays: their results have to follow what was said.
    """
    answer = [each for each in messages[start:] if each.get("role") == "assistant"]
    if any(not isinstance(each.get("content"), str) or "tool_calls" in each for each in answer):
        return messages
    return [*messages[:start], *(each for each in messages[start:] if each not in answer)]
