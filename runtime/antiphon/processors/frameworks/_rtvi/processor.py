"""The processor that talks with clients."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from loguru import logger
from pydantic import BaseModel, ValidationError

from antiphon.frames.frames import (
    BotInterruptionFrame,
    CancelFrame,
    EndFrame,
    EndTaskFrame,
    ErrorFrame,
    Frame,
    FunctionCallResultFrame,
    LLMMessagesAppendFrame,
    StartFrame,
    StartInterruptionFrame,
    StopFrame,
    TransportMessageUrgentFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.processors.frameworks._rtvi import messages as wire
from antiphon.processors.frameworks._rtvi.actions import Actions
from antiphon.processors.frameworks._rtvi.audio import AUDIO_TYPES, audio_of
from antiphon.processors.frameworks._rtvi.frames import RTVIActionFrame, RTVIClientMessageFrame
from antiphon.processors.frameworks._rtvi.refusals import RefusedError, summary
from antiphon.processors.frameworks._rtvi.services import Services
from antiphon.processors.frameworks._rtvi.settings import (
    RTVIAction,
    RTVIActionRun,
    RTVIConfig,
    RTVIService,
    RTVIUpdateConfig,
)
from antiphon.utils.asyncio.watchdog_queue import WatchdogQueue
from antiphon.utils.checks import check_instance

if TYPE_CHECKING:
    from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
    from antiphon.services.llm_service import FunctionCallParams
    from antiphon.transports.base_transport import BaseTransport

MESSAGE_LIMIT = 1000
"""Messages of the client that may wait; further ones are refused."""

ACTION_LIMIT = 100
"""Actions that may wait; further ones are refused."""

EARLY_LIMIT = 100
"""Messages to the client kept until the pipeline has started; of more, the oldest are lost."""

INTERRUPTION_DEADLINE_SECS = 0.5
"""How long the input transport may take to answer a request to interrupt the bot."""

TASK_END_DEADLINE_SECS = 2.0
"""How long a handler of the bot may resist the end of the pipeline before it is left alone."""

_SHOWN_CHARACTERS = 100

Method = TypeVar("Method", bound=Callable[..., Any])


def _called_with_params(method: Method) -> Method:
    """Shows a method to ``inspect`` as one that takes ``params`` alone.

    A language model service tells by the number of parameters how to call a function handler.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [inspect.Parameter(name, kind) for name in ("self", "params")]
    method.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    return method


class RTVIProcessor(FrameProcessor):
    """Answers what the client sends, and sends it messages.

    Put it behind the input transport. Messages from the client arrive as
    ``TransportMessageUrgentFrame`` and end here, also those of other protocols; they are worked
    off one after the other, beside the frames of the pipeline. Actions have a queue of their own.

    Whatever a client sends, the pipeline goes on: what cannot be understood or carried out is
    answered with ``error-response``, or with ``error`` if it has no id to refer to.

    Event handlers:
        on_bot_started(rtvi): The pipeline has started.
        on_client_ready(rtvi): The client can take messages. Handlers do what has to be done
            first and call ``set_bot_ready()``.
        on_client_message(rtvi, message: RTVIClientMessage): The client has sent a message of the
            application.
    """

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it calls the bot's handlers and stands for the client"

    def __init__(
        self,
        *,
        config: RTVIConfig | None = None,
        transport: BaseTransport | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a processor.

        Args:
            config: Values of options, given to their handlers when the bot becomes ready.
            transport: The bot's transport. With it, audio is received only once the client is
                ready, and audio that the client sends in messages is given to it.
            **kwargs: Passed to ``FrameProcessor``.

        Raises:
            TypeError: If one of them is of another type.
        """
        super().__init__(**kwargs)
        if config is not None:
            check_instance("RTVIProcessor(config)", config, RTVIConfig)
        if transport is not None and not callable(getattr(transport, "input", None)):
            raise TypeError(f"RTVIProcessor(transport) must be a transport, not {transport!r}")
        self._services = Services(config)
        self._actions = Actions()
        self._input_transport: Any = None
        if transport is not None:
            self._input_transport = transport.input()
            self._input_transport.enable_audio_in_stream_on_start(False)

        self._bot_ready = False
        self._client_ready = False
        # The client-ready that has not been answered yet; empty if it had no id.
        self._ready_id: str | None = None
        self._client_version = (0, 0, 0)
        self._errors_enabled = True

        # Between the StartFrame and cleanup(): pushing is possible.
        self._open = False
        self._ended = False
        self._early: deque[TransportMessageUrgentFrame] = deque(maxlen=EARLY_LIMIT)
        self._messages: WatchdogQueue[wire.RTVIMessage] | None = None
        self._action_runs: WatchdogQueue[RTVIActionFrame] | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._interruption_passed = asyncio.Event()
        self._audio_refused = False

        self._register_event_handler("on_bot_started")
        self._register_event_handler("on_client_ready")
        self._register_event_handler("on_client_message")

    # -- for bots ------------------------------------------------------------------------------

    def register_action(self, action: RTVIAction) -> None:
        """Lets clients run an action."""
        check_instance("register_action(action)", action, RTVIAction)
        self._actions.register(action)

    def register_service(self, service: RTVIService) -> None:
        """Lets clients set the options of a service."""
        check_instance("register_service(service)", service, RTVIService)
        self._services.register(service)

    async def set_client_ready(self) -> None:
        """Takes the client for ready, as its ``client-ready`` does, and emits the event."""
        if not self._client_ready and self._ready_id is None:
            self._ready_id = ""
        self._client_ready = True
        await self._call_event_handler("on_client_ready")
        await self._answer_client_ready()

    async def set_bot_ready(self) -> None:
        """Tells the client that the bot is ready; at once, or as soon as the client is.

        The first time, the values that the processor was made with go to the handlers of their
        options. One that fails is logged and reported to the client; the bot is ready all the
        same.
        """
        if not self._bot_ready:
            refused = await self._apply_initial_config()
            self._bot_ready = True
            await self._answer_client_ready()
            for text in refused:
                await self.send_error(text)
            return
        await self._answer_client_ready()

    def set_errors_enabled(self, enabled: bool) -> None:
        """Sets whether the client is told of errors; answers to its requests always come."""
        self._errors_enabled = enabled

    async def interrupt_bot(self) -> None:
        """Interrupts the bot, as the user would by speaking."""
        await self.push_frame(BotInterruptionFrame(), FrameDirection.UPSTREAM)

    async def send_server_message(self, data: Any) -> None:
        """Sends the client a message of the application.

        Args:
            data: What JSON can express.
        """
        await self._push_transport_message(wire.RTVIServerMessage(data=data))

    async def send_server_response(self, client_msg: wire.RTVIClientMessage, data: Any) -> None:
        """Answers a ``client-message``.

        Args:
            client_msg: The message.
            data: What JSON can express.
        """
        answer = wire.RTVIRawServerResponseData(t=client_msg.type, d=data)
        await self._push_transport_message(
            wire.RTVIServerResponse(id=client_msg.msg_id, data=answer)
        )

    async def send_error_response(self, client_msg: wire.RTVIClientMessage, error: str) -> None:
        """Refuses a ``client-message``.

        Args:
            client_msg: The message.
            error: Why.
        """
        await self._send_error_response(client_msg.msg_id, error)

    async def send_error(self, error: str) -> None:
        """Tells the client of an error that is not fatal."""
        await self._send_error_frame(ErrorFrame(error=error))

    async def handle_message(self, message: wire.RTVIMessage) -> None:
        """Takes a message as if the client had sent it.

        Raises:
            RuntimeError: The processor is not part of a running task.
        """
        if self._messages is None:
            raise RuntimeError(f"{self} takes no messages: it is not part of a running task")
        if not self._messages.full():
            self._messages.put_nowait(message)
        elif message.type not in AUDIO_TYPES:
            logger.warning("client message refused: too many wait", processor=self.name)
            await self._send_error_response(message.id, "Too many messages")
        elif not self._audio_refused:
            self._audio_refused = True
            logger.warning("audio in messages dropped: too many wait", processor=self.name)

    @_called_with_params
    async def handle_function_call(
        self,
        params: FunctionCallParams | None = None,
        *,
        function_name: str | None = None,
        tool_call_id: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Lets the client run a function that the language model has called.

        Register it as the function's handler. The client's result goes into the conversation when
        it comes; an interruption does not cancel such a call.

        Args:
            params: The call.
            function_name: The function, without ``params``.
            tool_call_id: The call's id, without ``params``.
            arguments: What the function gets, without ``params``.

        Raises:
            TypeError: Neither ``params`` nor a function and an id were given.
        """
        if params is not None:
            function_name, tool_call_id = params.function_name, params.tool_call_id
            arguments = params.arguments
        if function_name is None or tool_call_id is None:
            raise TypeError(
                "handle_function_call() needs params, or function_name and tool_call_id"
            )
        data = wire.RTVILLMFunctionCallMessageData(
            function_name=function_name, tool_call_id=tool_call_id, args=arguments or {}
        )
        # Arguments that are None are arguments.
        await self._push_transport_message(
            wire.RTVILLMFunctionCallMessage(data=data), exclude_none=False
        )

    async def handle_function_call_start(
        self, function_name: str, llm: FrameProcessor, context: OpenAILLMContext
    ) -> None:
        """Tells the client that the language model has called a function.

        Deprecated: ``handle_function_call()`` tells it, too.
        """
        warnings.warn(
            "handle_function_call_start() is deprecated, use handle_function_call()",
            DeprecationWarning,
            stacklevel=2,
        )
        data = wire.RTVILLMFunctionCallStartMessageData(function_name=function_name)
        await self._push_transport_message(wire.RTVILLMFunctionCallStartMessage(data=data))

    # -- frames --------------------------------------------------------------------------------

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Makes the processor ready to take messages."""
        await super().setup(setup)
        self._open = self._ended = False
        self._messages = WatchdogQueue(self.task_manager, maxsize=MESSAGE_LIMIT)
        self._action_runs = WatchdogQueue(self.task_manager, maxsize=ACTION_LIMIT)

    async def cleanup(self) -> None:
        """Ends what still runs."""
        await self._end_tasks()
        self._messages = self._action_runs = None
        self._open, self._ended = False, True
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes messages and actions, reports errors and passes everything else on."""
        await super().process_frame(frame, direction)

        if isinstance(frame, TransportMessageUrgentFrame):
            if direction is FrameDirection.DOWNSTREAM:
                await self._take(frame.message)
            else:
                await self.push_frame(frame, direction)
        elif isinstance(frame, RTVIActionFrame):
            await self._take_action(frame)
        elif isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)
            await self._start_tasks()
        elif isinstance(frame, (EndFrame, StopFrame, CancelFrame)):
            await self._end_tasks()
            await self.push_frame(frame, direction)
        elif isinstance(frame, StartInterruptionFrame):
            await self.push_frame(frame, direction)
            self._interruption_passed.set()
        else:
            if isinstance(frame, ErrorFrame):
                await self._send_error_frame(frame)
            await self.push_frame(frame, direction)

    async def _start_tasks(self) -> None:
        self._open = True
        while self._early:
            await self.push_frame(self._early.popleft())
        if not self._tasks and self._messages is not None and self._action_runs is not None:
            self._tasks = [
                self.create_task(self._work_off(self._messages, self._handle_message), "messages"),
                self.create_task(self._work_off(self._action_runs, self._run_action), "actions"),
            ]
        await self._call_event_handler("on_bot_started")

    async def _end_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            await self.cancel_task(task, TASK_END_DEADLINE_SECS)

    async def _work_off(
        self, queue: WatchdogQueue[Any], handle: Callable[[Any], Awaitable[None]]
    ) -> None:
        while True:
            item = await queue.get()
            await handle(item)
            queue.task_done()

    async def _take(self, message: Any) -> None:
        """Puts what the transport received in the queue, if it is a message of this protocol."""
        if not isinstance(message, Mapping) or message.get("label") != wire.RTVI_MESSAGE_LABEL:
            logger.debug("message of another protocol ignored", processor=self.name)
            return
        try:
            parsed = wire.RTVIMessage.model_validate(message)
        except ValidationError as error:
            request_id = message.get("id")
            await self._refuse(
                request_id if isinstance(request_id, str) else "",
                f"Invalid RTVI message: {summary(error)}",
            )
            return
        await self.handle_message(parsed)

    async def _take_action(self, frame: RTVIActionFrame) -> None:
        if self._action_runs is not None and not self._action_runs.full():
            self._action_runs.put_nowait(frame)
            return
        logger.warning("action refused: too many wait", processor=self.name)
        if frame.message_id is not None:
            await self._send_error_response(frame.message_id, "Too many actions")

    # -- messages ------------------------------------------------------------------------------

    async def _handle_message(self, message: wire.RTVIMessage) -> None:
        """Carries out a message; whatever goes wrong becomes an answer."""
        kind = _KINDS.get(message.type)
        if kind is None:
            shown = message.type[:_SHOWN_CHARACTERS]
            await self._refuse(message.id, f"Unsupported type {shown}")
            return
        model, handle = kind
        data = message.data
        try:
            if model is not None:
                if not isinstance(data, Mapping):
                    raise RefusedError(f"Invalid message: {message.type}: data has to be an object")
                data = model.model_validate(data)
            await handle(self, message.id, data)
        except ValidationError as error:
            await self._refuse(message.id, f"Invalid message: {message.type}: {summary(error)}")
        except RefusedError as error:
            if error.__cause__ is not None:
                logger.opt(exception=error.__cause__).error(
                    "the bot's handler failed", processor=self.name, type=message.type
                )
            await self._refuse(message.id, str(error))
        except Exception as error:  # noqa: BLE001 - the client's messages never end the session
            logger.opt(exception=error).error(
                "client message failed", processor=self.name, type=message.type
            )
            await self._refuse(message.id, f"Exception processing message: {error}")

    async def _refuse(self, request_id: str, error: str) -> None:
        logger.warning("client message refused", processor=self.name)
        await self._send_error_response(request_id, error)

    async def _handle_client_ready(self, request_id: str, data: Any) -> None:
        self._client_version = (0, 0, 0)
        # A client that says nothing of itself is an old one; it could not connect if refused.
        try:
            client = wire.RTVIClientReadyData.model_validate(data)
            major, minor, patch = (int(part) for part in client.version.split("."))
        except (ValidationError, ValueError):
            logger.warning("client says no protocol version", processor=self.name)
        else:
            self._client_version = (major, minor, patch)
            if major != int(wire.RTVI_PROTOCOL_VERSION.partition(".")[0]):
                logger.warning(
                    "client speaks another version of the protocol",
                    processor=self.name,
                    version=self._client_version,
                    spoken_here=wire.RTVI_PROTOCOL_VERSION,
                )
        self._ready_id = request_id
        if self._input_transport is not None:
            await self._input_transport.start_audio_in_streaming()
        await self.set_client_ready()

    async def _answer_client_ready(self) -> None:
        if not self._bot_ready or self._ready_id is None:
            return
        request_id, self._ready_id = self._ready_id, None
        old = self._client_version[0] < 1
        data = wire.RTVIBotReadyData(
            version=wire.RTVI_PROTOCOL_VERSION,
            config=self._services.config.config if old else None,
        )
        await self._push_transport_message(wire.RTVIBotReady(id=request_id, data=data))

    async def _handle_describe_config(self, request_id: str, _: Any) -> None:
        data = wire.RTVIDescribeConfigData(config=self._services.services)
        await self._push_transport_message(wire.RTVIDescribeConfig(id=request_id, data=data))

    async def _handle_describe_actions(self, request_id: str, _: Any) -> None:
        data = wire.RTVIDescribeActionsData(actions=self._actions.actions)
        await self._push_transport_message(wire.RTVIDescribeActions(id=request_id, data=data))

    async def _handle_get_config(self, request_id: str, _: Any) -> None:
        await self._push_transport_message(
            wire.RTVIConfigResponse(id=request_id, data=self._services.config)
        )

    async def _handle_update_config(self, request_id: str, data: RTVIUpdateConfig) -> None:
        self._services.check(data.config)
        if data.interrupt:
            await self.interrupt_bot()
        for service in data.config:
            await self._services.apply(service, self)
        await self._handle_get_config(request_id, None)

    async def _apply_initial_config(self) -> list[str]:
        refused = []
        for service in self._services.config.config:
            try:
                await self._services.apply(service, self)
            except RefusedError as error:
                logger.opt(exception=error.__cause__).error(
                    "configuration not applied", processor=self.name, service=service.service
                )
                refused.append(str(error))
        return refused

    async def _handle_disconnect_bot(self, request_id: str, _: Any) -> None:
        await self.push_frame(EndTaskFrame(), FrameDirection.UPSTREAM)

    async def _handle_client_message(
        self, request_id: str, data: wire.RTVIRawClientMessageData
    ) -> None:
        message = wire.RTVIClientMessage(msg_id=request_id, type=data.t, data=data.d)
        await self._call_event_handler("on_client_message", message)
        await self.push_frame(RTVIClientMessageFrame(msg_id=request_id, type=data.t, data=data.d))

    async def _handle_action(self, request_id: str, data: RTVIActionRun) -> None:
        await self._take_action(RTVIActionFrame(data, request_id))

    async def _handle_function_call_result(
        self, request_id: str, data: wire.RTVILLMFunctionCallResultData
    ) -> None:
        # In both directions, as a result that comes from the language model's service.
        for direction in FrameDirection:
            await self.push_frame(
                FunctionCallResultFrame(
                    function_name=data.function_name,
                    tool_call_id=data.tool_call_id,
                    arguments=data.arguments,
                    result=data.result,
                ),
                direction,
            )

    async def _handle_append_to_context(
        self, request_id: str, data: wire.RTVIAppendToContextData
    ) -> None:
        if data.run_immediately:
            await self._interrupt_and_wait()
        await self.push_frame(
            LLMMessagesAppendFrame(
                messages=[{"role": data.role, "content": data.content}],
                run_llm=data.run_immediately,
            )
        )

    async def _interrupt_and_wait(self) -> None:
        """Interrupts the bot; what is pushed afterwards is behind the interruption."""
        if not self.interruptions_allowed:
            return
        self._interruption_passed.clear()
        await self.interrupt_bot()
        try:
            async with asyncio.timeout(INTERRUPTION_DEADLINE_SECS):
                await self._interruption_passed.wait()
        except TimeoutError:
            logger.warning("no input transport answers: interrupting here", processor=self.name)
            await self._start_interruption()
            await self.push_frame(StartInterruptionFrame())

    async def _handle_raw_audio(self, request_id: str, data: Any) -> None:
        if self._input_transport is None:
            if not self._audio_refused:
                self._audio_refused = True
                logger.warning(
                    "audio in messages dropped: the processor was made without the transport",
                    processor=self.name,
                )
            return
        for frame in audio_of(data):
            await self._input_transport.push_audio_frame(frame)

    async def _run_action(self, frame: RTVIActionFrame) -> None:
        try:
            data = await self._actions.run(frame.rtvi_action_run, self)
        except RefusedError as error:
            logger.opt(exception=error.__cause__).error("action failed", processor=self.name)
            if frame.message_id is not None:
                await self._send_error_response(frame.message_id, str(error))
        else:
            if frame.message_id is not None:
                answer = wire.RTVIActionResponse(id=frame.message_id, data=data)
                await self._push_transport_message(answer)

    # -- to the client -------------------------------------------------------------------------

    async def _push_transport_message(self, model: BaseModel, exclude_none: bool = True) -> None:
        """Sends a message; before the pipeline has started it is kept, afterwards dropped."""
        frame = TransportMessageUrgentFrame(message=model.model_dump(exclude_none=exclude_none))
        if self._open:
            await self.push_frame(frame)
        elif not self._ended:
            self._early.append(frame)

    async def _send_error_frame(self, frame: ErrorFrame) -> None:
        if self._errors_enabled:
            data = wire.RTVIErrorData(error=frame.error, message=frame.error, fatal=frame.fatal)
            await self._push_transport_message(wire.RTVIError(data=data))

    async def _send_error_response(self, id: str, error: str) -> None:
        if not id:
            # Nothing to refer to.
            await self.send_error(error)
            return
        data = wire.RTVIErrorResponseData(error=error)
        await self._push_transport_message(wire.RTVIErrorResponse(id=id, data=data))


_Handler = Callable[[RTVIProcessor, str, Any], Awaitable[None]]

# What each message of a client holds, and what carries it out.
_KINDS: dict[str, tuple[type[BaseModel] | None, _Handler]] = {
    "client-ready": (None, RTVIProcessor._handle_client_ready),
    "describe-actions": (None, RTVIProcessor._handle_describe_actions),
    "describe-config": (None, RTVIProcessor._handle_describe_config),
    "get-config": (None, RTVIProcessor._handle_get_config),
    "update-config": (RTVIUpdateConfig, RTVIProcessor._handle_update_config),
    "disconnect-bot": (None, RTVIProcessor._handle_disconnect_bot),
    "client-message": (wire.RTVIRawClientMessageData, RTVIProcessor._handle_client_message),
    "action": (RTVIActionRun, RTVIProcessor._handle_action),
    "llm-function-call-result": (
        wire.RTVILLMFunctionCallResultData,
        RTVIProcessor._handle_function_call_result,
    ),
    "append-to-context": (
        wire.RTVIAppendToContextData,
        RTVIProcessor._handle_append_to_context,
    ),
    "raw-audio": (None, RTVIProcessor._handle_raw_audio),
    "raw-audio-batch": (None, RTVIProcessor._handle_raw_audio),
}
