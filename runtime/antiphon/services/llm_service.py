"""Language model services and the functions they may call."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter
from antiphon.adapters.schemas.direct_function import DirectFunctionWrapper
from antiphon.adapters.services.open_ai_adapter import OpenAILLMAdapter
from antiphon.errors import ConfigError
from antiphon.frames.frames import (
    CancelFrame,
    Frame,
    FunctionCallFromLLM,
    FunctionCallResultProperties,
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
from antiphon.services._function_calls import (
    FunctionCallHandler,
    FunctionCallParams,
    FunctionCallRegistryItem,
    FunctionCallResultCallback,
    FunctionCallRunnerItem,
    FunctionCalls,
    ResultCallback,
    StartCallback,
)
from antiphon.services._function_handlers import adapt_handler, adapt_start_callback
from antiphon.services.ai_service import AIService
from antiphon.utils.tracing.service_decorators import describe_llm, service_span, traces_itself

if TYPE_CHECKING:
    from antiphon.processors.aggregators.llm_response import (
        LLMAssistantAggregatorParams,
        LLMUserAggregatorParams,
    )

__all__ = [
    "FunctionCallHandler",
    "FunctionCallParams",
    "FunctionCallRegistryItem",
    "FunctionCallResultCallback",
    "FunctionCallRunnerItem",
    "LLMService",
    "StartCallback",
]


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
        self._adapter: BaseLLMAdapter = self.adapter_class()
        self._calls = FunctionCalls(
            self, in_parallel=run_in_parallel, limit_secs=function_call_timeout_secs
        )
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
        if function_name in self._calls.functions:
            self._unregister(function_name)

    def unregister_direct_function(self, handler: Any) -> None:
        """Forgets a direct function; calls that run go on."""
        self.unregister_function(handler.__name__)

    def has_function(self, function_name: str) -> bool:
        """Whether a call of that name would be run."""
        if self._calls.go_to is not None:
            return True  # not known here
        return self._calls.registered(function_name) is not None

    def may_run_again(self, function_name: str) -> bool:
        """Whether a call of that name, begun once, may be run again."""
        registration = self._calls.registered(function_name)
        return registration is not None and registration.idempotent

    def needs_mcp_alternate_schema(self) -> bool:
        """Whether schemas of MCP tools have to be simplified for this model."""
        return False

    @relayed
    def _give_calls_to(
        self, run_calls: Callable[[Sequence[FunctionCallFromLLM]], Awaitable[None]]
    ) -> None:
        """Lets somebody else announce and run the functions that the model calls."""
        self._calls.go_to = run_calls

    @relayed
    def _register(
        self,
        name: str | None,
        handler: FunctionCallHandler,
        cancel_on_interruption: bool,
        idempotent: bool = False,
    ) -> None:
        self._calls.functions[name] = FunctionCallRegistryItem(
            name, handler, cancel_on_interruption, idempotent
        )

    @relayed
    def _register_start_callback(self, name: str | None, callback: StartCallback) -> None:
        self._calls.start_callbacks[name] = callback

    @relayed
    def _unregister(self, name: str | None) -> None:
        self._calls.functions.pop(name, None)
        self._calls.start_callbacks.pop(name, None)

    # -- life ----------------------------------------------------------------------------------

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Cancels function calls on an interruption; subclasses push the frame on."""
        await super().process_frame(frame, direction)

        if isinstance(frame, StartInterruptionFrame):
            await self._calls.cancel_interruptible()

    async def cancel(self, frame: CancelFrame) -> None:
        """Cancels the function calls that run."""
        await super().cancel(frame)
        await self._calls.cancel_all()

    async def cleanup(self) -> None:
        """Cancels the function calls that still run when the pipeline is over."""
        await self._calls.cancel_all()
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

    async def _answer_or_pass(
        self,
        frame: Frame,
        direction: FrameDirection,
        respond: Callable[[OpenAILLMContext], Awaitable[None]],
    ) -> None:
        """Answers the conversation that a frame asks to answer; every other frame passes."""
        context = self._conversation_of(frame)
        if context is None:
            await self.push_frame(frame, direction)
            return
        await self._answer(lambda: respond(context))

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
        if self._calls.go_to is not None:
            await self._calls.go_to(function_calls)
            return
        await self._calls.run(function_calls)

    @relayed
    async def _take_result(
        self, of: ResultCallback, result: Any, properties: FunctionCallResultProperties | None
    ) -> None:
        await self._calls.take_result(of, result, properties)

    def snapshot(self) -> Mapping[str, Any] | None:
        """The function calls that run or wait; a subclass with a state of its own adds to it."""
        return {"version": 1, "calls": self._calls.snapshot()}

    async def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the function calls of its predecessor."""
        await self._calls.restore(state["calls"])
