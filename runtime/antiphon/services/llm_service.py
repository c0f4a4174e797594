"""Language model services and the functions they may call."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from loguru import logger

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter
from antiphon.adapters.schemas.direct_function import DirectFunctionWrapper
from antiphon.adapters.services.open_ai_adapter import OpenAILLMAdapter
from antiphon.errors import ConfigError
from antiphon.frames.codec import register_type
from antiphon.frames.frames import (
    CancelFrame,
    ErrorFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallFromLLM,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallResultProperties,
    FunctionCallsStartedFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesFrame,
    LLMTextFrame,
    StartInterruptionFrame,
    UserImageRequestFrame,
    VisionImageRawFrame,
)
from antiphon.metrics.metrics import LLMTokenUsage
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.relay import relayed
from antiphon.services._function_handlers import adapt_handler, adapt_start_callback
from antiphon.services.ai_service import AIService
from antiphon.utils.tracing.service_decorators import describe_llm, service_span, traces_itself

if TYPE_CHECKING:
    from antiphon.processors.aggregators.llm_response import (
        LLMAssistantAggregatorParams,
        LLMUserAggregatorParams,
    )

_CANCEL_DEADLINE_SECS = 2.0
"""How long a function handler may resist its cancellation before it is left alone."""


class FunctionCallResultCallback(Protocol):
    """What a handler calls with its result."""

    async def __call__(
        self, result: Any, *, properties: FunctionCallResultProperties | None = None
    ) -> None:
        """Puts the result into the conversation.

        Args:
            result: Anything JSON can express; nothing (None, empty) ends the call without an
                answer by the model.
            properties: Whether the model answers, and what to call afterwards.
        """


@register_type
@dataclass
class FunctionCallParams:
    """What a function handler gets.

    Attributes:
        function_name: Name the model called.
        tool_call_id: Id of this call.
        arguments: What the model gave.
        llm: The service that runs the call.
        context: The conversation: the bot's own object.
        result_callback: Takes the result.
    """

    function_name: str
    tool_call_id: str
    arguments: Mapping[str, Any]
    llm: LLMService
    context: OpenAILLMContext
    result_callback: FunctionCallResultCallback


FunctionCallHandler = Callable[[FunctionCallParams], Awaitable[None]]
"""A function handler; it reports through ``params.result_callback``."""

StartCallback = Callable[[str, "LLMService", "OpenAILLMContext"], Awaitable[None]]


@dataclass(frozen=True)
class FunctionCallRegistryItem:
    """A registered function.

    Attributes:
        function_name: Name the model uses; None stands for every name not registered itself.
        handler: Its handler, whatever form it was given in.
        cancel_on_interruption: Whether an interruption by the user cancels a running call.
        idempotent: Whether a call may be run again when it is not known how far it came.
    """

    function_name: str | None
    handler: FunctionCallHandler
    cancel_on_interruption: bool
    idempotent: bool = False


@dataclass(frozen=True)
class FunctionCallRunnerItem:
    """A call to be run.

    Attributes:
        registry_item: The function's registration when the model called it.
        function_name: Name the model called.
        tool_call_id: Id of this call.
        arguments: What the model gave.
        context: The conversation.
        run_llm: Whether the model answers the result; None leaves it to the aggregator.
    """

    registry_item: FunctionCallRegistryItem
    function_name: str
    tool_call_id: str
    arguments: Mapping[str, Any]
    context: OpenAILLMContext
    run_llm: bool | None = None


class LLMService(AIService):
    """Base of language model services: runs the functions the model calls.

    Handlers always run where the bot program runs, also when the service itself was placed in
    another process.

    Event handlers:
        on_function_calls_started(service, function_calls: Sequence[FunctionCallFromLLM]): The
            model has asked for calls; none has begun yet.
        on_completion_timeout(service): The model took too long to answer.
    """

    adapter_class: ClassVar[type[BaseLLMAdapter]] = OpenAILLMAdapter

    def __init__(
        self,
        run_in_parallel: bool = True,
        *,
        function_call_timeout_secs: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            run_in_parallel: Whether several calls of one answer run at the same time, instead of
                one after the other.
            function_call_timeout_secs: A handler that takes longer is cancelled, and the model is
                told so; None leaves it to the handlers.
            **kwargs: Passed on to ``AIService``.
        """
        super().__init__(**kwargs)
        if function_call_timeout_secs is not None and function_call_timeout_secs <= 0:
            raise ConfigError("function_call_timeout_secs must be above 0, or None")
        self._run_in_parallel = run_in_parallel
        self._function_call_timeout_secs = function_call_timeout_secs
        self._adapter: BaseLLMAdapter = self.adapter_class()
        self._functions: dict[str | None, FunctionCallRegistryItem] = {}
        self._start_callbacks: dict[str | None, StartCallback] = {}
        # Calls that run; bounded by what the model asks for.
        self._calls: dict[asyncio.Task[Any], FunctionCallRunnerItem] = {}
        # Calls that wait for the one before them, in sequential mode. Bounded likewise.
        self._waiting: list[FunctionCallRunnerItem] = []
        self._sequencer: asyncio.Task[Any] | None = None
        # What runs the functions instead, for a service that is part of a fallback chain.
        self._calls_go_to: Callable[[Sequence[FunctionCallFromLLM]], Awaitable[None]] | None = None
        # The conversation that was last asked about, for the trace.
        self._asked_about: OpenAILLMContext | None = None
        self._register_event_handler("on_function_calls_started")
        self._register_event_handler("on_completion_timeout")

    def get_llm_adapter(self) -> BaseLLMAdapter:
        """What translates tools to the provider's form."""
        return self._adapter

    def create_context_aggregator(
        self,
        context: OpenAILLMContext,
        *,
        user_params: LLMUserAggregatorParams | None = None,
        assistant_params: LLMAssistantAggregatorParams | None = None,
    ) -> Any:
        """Makes the pair of aggregators that connect a conversation with this service.

        Args:
            context: The conversation.
            user_params: Settings of the user's half.
            assistant_params: Settings of the assistant's half.

        Returns:
            An object with ``user()`` and ``assistant()``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no context aggregators")

    # -- registering functions -----------------------------------------------------------------

    def register_function(
        self,
        function_name: str | None,
        handler: Any,
        start_callback: Any = None,
        *,
        cancel_on_interruption: bool = True,
        idempotent: bool = False,
    ) -> None:
        """Registers what to run when the model calls a function.

        Args:
            function_name: Name the model uses; None registers a handler for every name that has
                none of its own.
            handler: ``async handler(params: FunctionCallParams)``. The older form with six
                arguments (function name, tool call id, arguments, service, context, result
                callback) is deprecated.
            start_callback: Deprecated. Awaited with (function name, service, context) before the
                handler.
            cancel_on_interruption: Whether an interruption by the user cancels a running call.
            idempotent: Whether a call may be run again: one that was in progress when its process
                died is then repeated, where otherwise the model is told that its outcome is
                unknown.

        Raises:
            TypeError: A handler cannot be called like that.
        """
        # The bot's function is brought into one form here, where the bot's code lives: the place
        # that calls it may be another process, which cannot look at its signature.
        adapted = adapt_handler(handler)
        started = None
        if start_callback is not None:
            started = adapt_start_callback(start_callback)
            warnings.warn(
                "start_callback is deprecated, use the on_function_calls_started event",
                DeprecationWarning,
                stacklevel=2,
            )
        self._register(function_name, adapted, cancel_on_interruption, idempotent)
        if started is not None:
            self._register_start_callback(function_name, started)

    def register_direct_function(
        self, handler: Any, *, cancel_on_interruption: bool = True, idempotent: bool = False
    ) -> None:
        """Registers a function that describes itself by its signature and docstring.

        Args:
            handler: ``async handler(params: FunctionCallParams, **arguments)``.
            cancel_on_interruption: Whether an interruption by the user cancels a running call.
            idempotent: As for ``register_function``.

        Raises:
            TypeError: The function cannot be used directly.
        """
        wrapper = DirectFunctionWrapper(handler)

        async def invoke(params: FunctionCallParams) -> None:
            await wrapper.invoke(params.arguments, params)

        self._register(wrapper.name, invoke, cancel_on_interruption, idempotent)

    def unregister_function(self, function_name: str | None) -> None:
        """Forgets a function; calls that run go on."""
        if function_name in self._functions:
            self._unregister(function_name)

    def unregister_direct_function(self, handler: Any) -> None:
        """Forgets a direct function; calls that run go on."""
        self.unregister_function(handler.__name__)

    def has_function(self, function_name: str) -> bool:
        """Whether a call of that name would be run."""
        if self._calls_go_to is not None:
            return True  # not known here
        return function_name in self._functions or None in self._functions

    def may_run_again(self, function_name: str) -> bool:
        """Whether a call of that name, begun once, may be run again."""
        registration = self._functions.get(function_name) or self._functions.get(None)
        return registration is not None and registration.idempotent

    def needs_mcp_alternate_schema(self) -> bool:
        """Whether schemas of MCP tools have to be simplified for this model."""
        return False

    @relayed
    def _give_calls_to(
        self, run_calls: Callable[[Sequence[FunctionCallFromLLM]], Awaitable[None]]
    ) -> None:
        """Lets somebody else announce and run the functions that the model calls."""
        self._calls_go_to = run_calls

    @relayed
    def _register(
        self,
        name: str | None,
        handler: FunctionCallHandler,
        cancel_on_interruption: bool,
        idempotent: bool = False,
    ) -> None:
        self._functions[name] = FunctionCallRegistryItem(
            name, handler, cancel_on_interruption, idempotent
        )

    @relayed
    def _register_start_callback(self, name: str | None, callback: StartCallback) -> None:
        self._start_callbacks[name] = callback

    @relayed
    def _unregister(self, name: str | None) -> None:
        self._functions.pop(name, None)
        self._start_callbacks.pop(name, None)

    # -- life ----------------------------------------------------------------------------------

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Cancels function calls on an interruption; subclasses push the frame on."""
        await super().process_frame(frame, direction)

        if isinstance(frame, StartInterruptionFrame):
            await self._cancel_interruptible_calls()

    async def cancel(self, frame: CancelFrame) -> None:
        """Cancels the function calls that run."""
        await super().cancel(frame)
        await self._cancel_all_calls()

    async def cleanup(self) -> None:
        """Cancels the function calls that still run when the pipeline is over."""
        await self._cancel_all_calls()
        await super().cleanup()

    def _conversation_of(self, frame: Frame) -> OpenAILLMContext | None:
        """The conversation that a frame asks to answer; None for every other frame."""
        if isinstance(frame, OpenAILLMContextFrame):
            context = frame.context
        elif isinstance(frame, LLMMessagesFrame):
            context = OpenAILLMContext.from_messages(frame.messages)
        elif isinstance(frame, VisionImageRawFrame):
            context = OpenAILLMContext()
            context.add_image_frame_message(
                format=frame.format or "RGB", size=frame.size, image=frame.image, text=frame.text
            )
        else:
            return None
        self._asked_about = context
        return context

    async def _answer(self, produce: Callable[[], Awaitable[None]]) -> None:
        """Runs what answers a conversation, between the frames that mark a response.

        The end is marked whatever happens, also when an interruption cancels the answer.
        """
        try:
            await self.push_frame(LLMFullResponseStartFrame())
            await self.start_processing_metrics()
            await self._run_traced(produce)
        finally:
            await self.stop_processing_metrics()
            await self.push_frame(LLMFullResponseEndFrame())

    async def _run_traced(self, produce: Callable[[], Awaitable[None]]) -> None:
        if self.report_span is None or traces_itself(type(self), "llm"):
            await produce()
            return
        with service_span(self, "llm") as span:
            if span is not None:
                describe_llm(self, span, self._asked_about)
            await produce()

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes a frame, and notes the text of an answer in the trace."""
        span = self.open_span
        if span is not None and isinstance(frame, LLMTextFrame):
            span.set_attribute("output", f"{span.attributes.get('output', '')}{frame.text}")
        await super().push_frame(frame, direction)

    async def start_llm_usage_metrics(self, tokens: LLMTokenUsage) -> None:
        """Pushes the tokens of one completion, and notes them in the trace."""
        if self.open_span is not None:
            self.open_span.set_attributes(
                {
                    "gen_ai.usage.input_tokens": tokens.prompt_tokens,
                    "gen_ai.usage.output_tokens": tokens.completion_tokens,
                    "gen_ai.usage.cache_read_input_tokens": tokens.cache_read_input_tokens,
                    "gen_ai.usage.cache_creation_input_tokens": tokens.cache_creation_input_tokens,
                    "gen_ai.usage.reasoning_tokens": tokens.reasoning_tokens,
                }
            )
        await super().start_llm_usage_metrics(tokens)

    # -- running functions ---------------------------------------------------------------------

    @relayed
    async def request_image_frame(
        self,
        user_id: str,
        *,
        function_name: str | None = None,
        tool_call_id: str | None = None,
        text_content: str | None = None,
        video_source: str | None = None,
    ) -> None:
        """Asks the input transport for a picture of a user.

        Args:
            user_id: Whose picture.
            function_name: The function call that wants it.
            tool_call_id: Id of that call.
            text_content: What to say about the picture to the model.
            video_source: Which of the user's videos.
        """
        await self.push_frame(
            UserImageRequestFrame(
                user_id=user_id,
                function_name=function_name,
                tool_call_id=tool_call_id,
                context=text_content,
                video_source=video_source,
            ),
            FrameDirection.UPSTREAM,
        )

    @relayed
    async def run_inference(self, context: OpenAILLMContext) -> str | None:
        """Answers a conversation beside the pipeline: no frames, no function calls, no metrics.

        Args:
            context: The conversation; it is not changed.

        Returns:
            The whole answer; None if there is none.

        Raises:
            NotImplementedError: This service cannot.
            ServiceError: The service failed.
        """
        raise NotImplementedError(f"{type(self).__name__} answers only in a pipeline")

    @relayed
    async def run_function_calls(self, function_calls: Sequence[FunctionCallFromLLM]) -> None:
        """Starts the calls the model asked for and returns without waiting for them.

        A function nobody registered is a warning and a FunctionCallCancelFrame.
        """
        if not function_calls:
            return
        if self._calls_go_to is not None:
            await self._calls_go_to(function_calls)
            return
        await self._call_event_handler("on_function_calls_started", function_calls)
        await self._push_both(lambda: FunctionCallsStartedFrame(function_calls=function_calls))

        for call in function_calls:
            registration = self._functions.get(call.function_name) or self._functions.get(None)
            if registration is None:
                logger.warning(
                    "the model called a function that is not registered",
                    processor=self.name,
                    function_name=call.function_name,
                    tool_call_id=call.tool_call_id,
                )
                # It was announced, and would count as running for the rest of the conversation.
                await self._push_given_up(call)
                continue
            item = FunctionCallRunnerItem(
                registry_item=registration,
                function_name=call.function_name,
                tool_call_id=call.tool_call_id,
                arguments=call.arguments,
                context=call.context,
            )
            if self._run_in_parallel:
                self._start_call(item)
            else:
                self._waiting.append(item)
        if self._waiting and (self._sequencer is None or self._sequencer.done()):
            self._sequencer = self.create_task(self._run_waiting(), "function_calls")

    async def _call_start_function(self, context: OpenAILLMContext, function_name: str) -> None:
        callback = self._start_callbacks.get(function_name) or self._start_callbacks.get(None)
        if callback is not None:
            await callback(function_name, self, context)

    def _start_call(self, item: FunctionCallRunnerItem) -> set[asyncio.Task[Any]]:
        """Starts a call; the set holds its task, which ends when the call has."""
        task = self.create_task(self._run_call(item), f"function_call::{item.function_name}")
        self._calls[task] = item
        task.add_done_callback(self._call_ended)
        return {task}

    def _call_ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.pop(task, None)

    async def _run_waiting(self) -> None:
        try:
            while self._waiting:
                # asyncio.wait leaves the call alone when this task is cancelled, and takes no
                # part in how the call ends. Handlers decide how long they take.
                await asyncio.wait(self._start_call(self._waiting.pop(0)))
        finally:
            # At once, not when the task is seen to have ended: calls may come in between.
            self._sequencer = None

    async def _run_call(self, item: FunctionCallRunnerItem) -> None:
        delivered = False

        async def deliver(
            result: Any, *, properties: FunctionCallResultProperties | None = None
        ) -> None:
            nonlocal delivered
            delivered = True
            await self._push_both(
                lambda: FunctionCallResultFrame(
                    function_name=item.function_name,
                    tool_call_id=item.tool_call_id,
                    arguments=item.arguments,
                    result=result,
                    run_llm=item.run_llm,
                    properties=properties,
                )
            )

        try:
            await self._call_start_function(item.context, item.function_name)
            await self._push_both(
                lambda: FunctionCallInProgressFrame(
                    function_name=item.function_name,
                    tool_call_id=item.tool_call_id,
                    arguments=item.arguments,
                    cancel_on_interruption=item.registry_item.cancel_on_interruption,
                )
            )
            params = FunctionCallParams(
                function_name=item.function_name,
                tool_call_id=item.tool_call_id,
                arguments=item.arguments,
                llm=self,
                context=item.context,
                result_callback=deliver,
            )
            deadline = asyncio.timeout(self._function_call_timeout_secs)
            try:
                async with deadline:
                    await item.registry_item.handler(params)
            except TimeoutError:
                if not deadline.expired():
                    raise  # the handler's own
                await self._report_slow_call(item)
                if not delivered:
                    await deliver({"error": f"{item.function_name} took too long"})
        except Exception as error:  # noqa: BLE001 - the bot's code; its failure is reported
            logger.opt(exception=error).error(
                "function handler failed",
                processor=self.name,
                function_name=item.function_name,
                tool_call_id=item.tool_call_id,
            )
            await self.push_error(
                ErrorFrame(error=f"function call {item.function_name} failed: {error}")
            )
            if not delivered:
                # Otherwise the call would count as running for the rest of the conversation.
                await self._push_given_up(item)

    async def _report_slow_call(self, item: FunctionCallRunnerItem) -> None:
        limit = self._function_call_timeout_secs
        logger.error(
            "function handler took too long",
            processor=self.name,
            function_name=item.function_name,
            tool_call_id=item.tool_call_id,
            limit_secs=limit,
        )
        await self.push_error(
            ErrorFrame(error=f"function call {item.function_name} took longer than {limit:g} s")
        )

    async def _cancel_interruptible_calls(self) -> None:
        keep: list[FunctionCallRunnerItem] = []
        dropped: list[FunctionCallRunnerItem] = []
        for item in self._waiting:
            interruptible = item.registry_item.cancel_on_interruption
            (dropped if interruptible else keep).append(item)
        # In place: the sequencer holds the list.
        self._waiting[:] = keep

        running = [
            (task, item)
            for task, item in self._calls.items()
            if item.registry_item.cancel_on_interruption
        ]
        await self._cancel_tasks([task for task, _ in running])
        for item in [*(item for _, item in running), *dropped]:
            await self._push_cancelled(item)

    async def _cancel_all_calls(self) -> None:
        self._waiting.clear()
        tasks = list(self._calls)
        if self._sequencer is not None:
            tasks.append(self._sequencer)
        await self._cancel_tasks(tasks)

    async def _cancel_tasks(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        await asyncio.gather(
            *(self.cancel_task(task, timeout=_CANCEL_DEADLINE_SECS) for task in tasks)
        )

    async def _push_cancelled(self, item: FunctionCallRunnerItem | FunctionCallFromLLM) -> None:
        await self.push_frame(_cancel_frame(item))

    async def _push_given_up(self, item: FunctionCallRunnerItem | FunctionCallFromLLM) -> None:
        # Both ways, as the frames that announced the call went: filters upstream wait for its end.
        await self._push_both(lambda: _cancel_frame(item))

    async def _push_both(self, make: Callable[[], Frame]) -> None:
        """Pushes one new frame in each direction: a frame travels only one way."""
        await self.push_frame(make(), FrameDirection.DOWNSTREAM)
        await self.push_frame(make(), FrameDirection.UPSTREAM)


def _cancel_frame(item: FunctionCallRunnerItem | FunctionCallFromLLM) -> FunctionCallCancelFrame:
    return FunctionCallCancelFrame(function_name=item.function_name, tool_call_id=item.tool_call_id)
