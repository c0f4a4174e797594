"""Running the functions that a language model calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from loguru import logger

from antiphon.frames.codec import register_type
from antiphon.frames.frames import (
    ErrorFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallFromLLM,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallResultProperties,
    FunctionCallsStartedFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.utils.asyncio.receipts import NamedReceipt, Receipt, current_receipt, working_on

if TYPE_CHECKING:
    from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
    from antiphon.services.llm_service import LLMService

_CANCEL_DEADLINE_SECS = 2.0
"""How long a function handler may resist its cancellation before it is left alone."""

_SAFE_DEADLINE_SECS = 5.0
"""How long a call waits until it is certain that the model will not be asked for it again."""


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


@register_type
@dataclass(frozen=True)
class ResultCallback:
    """Takes the result of one call, wherever the service that asked for it runs by then.

    Attributes:
        llm: The service.
        function_name: Name the model called.
        tool_call_id: Id of the call.
        arguments: What the model gave.
        run_llm: Whether the model answers the result; None leaves it to the aggregator.
        work: Names the call, see `_Call`.
    """

    llm: LLMService
    function_name: str
    tool_call_id: str
    arguments: Mapping[str, Any]
    run_llm: bool | None
    work: int

    async def __call__(
        self, result: Any, *, properties: FunctionCallResultProperties | None = None
    ) -> None:
        await self.llm._take_result(self, result, properties)


class _Call:
    """A call that runs, or waits for the one before it.

    Attributes:
        item: What to run.
        work: Names all that is done and pushed because of the call. It is the same when a successor
            of the service goes on with the call: so a handler that runs is not begun again.
        asked_by: Receipt of the frame that the model answered with this call.
        has_result: Whether a result has been given.
        task: Runs it; None while it waits.
    """

    __slots__ = ("asked_by", "has_result", "item", "task", "work")

    def __init__(self, item: FunctionCallRunnerItem, work: int, asked_by: Receipt | None) -> None:
        self.item = item
        self.work = work
        self.asked_by = asked_by
        self.has_result = False
        self.task: asyncio.Task[Any] | None = None


class FunctionCalls:
    """The calls of one service: they run beside the frames, at the same time or one by one.

    A service that is lost with its process does not lose them: they are part of its snapshot, and the
    handlers, which run where the bot program runs, do not even notice.

    Attributes:
        functions: What may be called, by name; None stands for every name not registered itself.
        start_callbacks: What is called before the handlers, likewise. Deprecated.
        go_to: Announces and runs the calls instead, for a service that is part of a fallback chain.
    """

    def __init__(self, service: LLMService, *, in_parallel: bool, limit_secs: float | None) -> None:
        """Begins without calls.

        Args:
            service: Whose calls they are.
            in_parallel: Whether several run at the same time.
            limit_secs: How long a handler may take; None leaves it to the handlers.
        """
        self._service = service
        self._in_parallel = in_parallel
        self._limit_secs = limit_secs
        self.functions: dict[str | None, FunctionCallRegistryItem] = {}
        self.start_callbacks: dict[str | None, StartCallback] = {}
        self.go_to: Callable[[Sequence[FunctionCallFromLLM]], Awaitable[None]] | None = None
        # Those that run or wait, in the order in which they were asked for; bounded by what the model
        # asks for.
        self._calls: list[_Call] = []
        self._sequencer: asyncio.Task[Any] | None = None

    def registered(self, function_name: str) -> FunctionCallRegistryItem | None:
        """What is run when the model calls a name; None if nothing is."""
        return self.functions.get(function_name) or self.functions.get(None)

    # -- running -------------------------------------------------------------------------------

    async def run(self, function_calls: Sequence[FunctionCallFromLLM]) -> None:
        """Announces calls and starts them; returns without waiting for them."""
        service = self._service
        await service._call_event_handler("on_function_calls_started", function_calls)
        await self._push_both(lambda: FunctionCallsStartedFrame(function_calls=function_calls))
        asked_by = current_receipt()
        for call in function_calls:
            registration = self.registered(call.function_name)
            if registration is None:
                logger.warning(
                    "the model called a function that is not registered",
                    processor=service.name,
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
            self._begin(_Call(item, random.getrandbits(63) | 1, asked_by))

    def _begin(self, call: _Call) -> None:
        self._calls.append(call)
        if self._in_parallel:
            self._start(call)
        elif self._sequencer is None or self._sequencer.done():
            self._sequencer = self._service.create_task(self._run_in_turn(), "function_calls")

    def _start(self, call: _Call) -> asyncio.Task[Any]:
        name = f"function_call::{call.item.function_name}"
        task = call.task = self._service.create_task(self._run(call), name)
        task.add_done_callback(lambda _: self._ended(call))
        return task

    def _ended(self, call: _Call) -> None:
        if call in self._calls:
            self._calls.remove(call)
            self._service.state_changed()

    async def _run_in_turn(self) -> None:
        try:
            while waiting := [call for call in self._calls if call.task is None]:
                # asyncio.wait leaves the call alone when this task is cancelled, and takes no
                # part in how the call ends. Handlers decide how long they take.
                await asyncio.wait({self._start(waiting[0])})
        finally:
            # At once, not when the task is seen to have ended: calls may come in between.
            self._sequencer = None

    async def _run(self, call: _Call) -> None:
        service, item = self._service, call.item
        await self._until_safe(call)
        with working_on(NamedReceipt(call.work)):
            try:
                await self._run_handler(call)
            except Exception as error:  # noqa: BLE001 - the bot's code; its failure is reported
                logger.opt(exception=error).error(
                    "function handler failed",
                    processor=service.name,
                    function_name=item.function_name,
                    tool_call_id=item.tool_call_id,
                )
                await service.push_error(
                    ErrorFrame(error=f"function call {item.function_name} failed: {error}")
                )
                if not call.has_result:
                    # Otherwise the call would count as running for the rest of the conversation.
                    await self._push_given_up(item)

    async def _until_safe(self, call: _Call) -> None:
        """Waits until a successor of the service would go on with the call, not ask the model again."""
        if call.asked_by is None:
            return
        try:
            async with asyncio.timeout(_SAFE_DEADLINE_SECS):
                await call.asked_by.safe()
        except TimeoutError:
            logger.warning(
                "function call begins although its service could lose it",
                processor=self._service.name,
                function_name=call.item.function_name,
            )

    async def _run_handler(self, call: _Call) -> None:
        service, item = self._service, call.item
        started = self.start_callbacks.get(item.function_name) or self.start_callbacks.get(None)
        if started is not None:
            await started(item.function_name, service, item.context)
        await self._push_both(
            lambda: FunctionCallInProgressFrame(
                function_name=item.function_name,
                tool_call_id=item.tool_call_id,
                arguments=item.arguments,
                cancel_on_interruption=item.registry_item.cancel_on_interruption,
            )
        )
        callback = ResultCallback(
            service, item.function_name, item.tool_call_id, item.arguments, item.run_llm, call.work
        )
        params = FunctionCallParams(
            function_name=item.function_name,
            tool_call_id=item.tool_call_id,
            arguments=item.arguments,
            llm=service,
            context=item.context,
            result_callback=callback,
        )
        deadline = asyncio.timeout(self._limit_secs)
        try:
            async with deadline:
                await item.registry_item.handler(params)
        except TimeoutError:
            if not deadline.expired():
                raise  # the handler's own
            await self._report_slow(item)
            if not call.has_result:
                await callback({"error": f"{item.function_name} took too long"})

    async def take_result(
        self, of: ResultCallback, result: Any, properties: FunctionCallResultProperties | None
    ) -> None:
        """Puts the result of a call into the conversation."""
        for call in self._calls:
            if call.work == of.work:
                call.has_result = True
        with working_on(NamedReceipt(of.work)):
            await self._push_both(
                lambda: FunctionCallResultFrame(
                    function_name=of.function_name,
                    tool_call_id=of.tool_call_id,
                    arguments=of.arguments,
                    result=result,
                    run_llm=of.run_llm,
                    properties=properties,
                )
            )

    async def _report_slow(self, item: FunctionCallRunnerItem) -> None:
        logger.error(
            "function handler took too long",
            processor=self._service.name,
            function_name=item.function_name,
            tool_call_id=item.tool_call_id,
            limit_secs=self._limit_secs,
        )
        await self._service.push_error(
            ErrorFrame(
                error=f"function call {item.function_name} took longer than {self._limit_secs:g} s"
            )
        )

    # -- cancelling ----------------------------------------------------------------------------

    async def cancel_interruptible(self) -> None:
        """Cancels the calls that an interruption cancels, those that wait included."""
        cancelled = [call for call in self._calls if call.item.registry_item.cancel_on_interruption]
        # Before anything is awaited: the next one in turn must not begin.
        self._calls = [call for call in self._calls if call not in cancelled]
        self._service.state_changed()
        await self._cancel_tasks(cancelled)
        for call in cancelled:
            await self._service.push_frame(_cancel_frame(call.item))

    async def cancel_all(self) -> None:
        """Cancels all calls, and tells nobody."""
        calls, self._calls = self._calls, []
        sequencer = self._sequencer
        if sequencer is not None:
            await self._service.cancel_task(sequencer, timeout=_CANCEL_DEADLINE_SECS)
        await self._cancel_tasks(calls)

    async def _cancel_tasks(self, calls: Sequence[_Call]) -> None:
        cancel = self._service.cancel_task
        tasks = [call.task for call in calls if call.task is not None]
        await asyncio.gather(*(cancel(task, timeout=_CANCEL_DEADLINE_SECS) for task in tasks))

    # -- succession ----------------------------------------------------------------------------

    def snapshot(self) -> list[dict[str, Any]]:
        """The calls that run or wait, as plain data but for their conversation."""
        return [
            {
                "function_name": call.item.function_name,
                "tool_call_id": call.item.tool_call_id,
                "arguments": call.item.arguments,
                "context": call.item.context,
                "run_llm": call.item.run_llm,
                "work": call.work,
                "has_result": call.has_result,
            }
            for call in self._calls
        ]

    async def restore(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Goes on with what another one's snapshot says."""
        for saved in calls:
            registration = self.registered(saved["function_name"])
            if registration is None:  # unregistered meanwhile
                await self._push_given_up(_called(saved))
                continue
            item = FunctionCallRunnerItem(
                registry_item=registration,
                function_name=saved["function_name"],
                tool_call_id=saved["tool_call_id"],
                arguments=saved["arguments"],
                context=saved["context"],
                run_llm=saved["run_llm"],
            )
            call = _Call(item, saved["work"], None)
            call.has_result = saved["has_result"]
            self._begin(call)

    # -- frames --------------------------------------------------------------------------------

    async def _push_given_up(self, item: FunctionCallRunnerItem | FunctionCallFromLLM) -> None:
        # Both ways, as the frames that announced the call went: filters upstream wait for its end.
        await self._push_both(lambda: _cancel_frame(item))

    async def _push_both(self, make: Callable[[], Frame]) -> None:
        """Pushes one new frame in each direction: a frame travels only one way."""
        await self._service.push_frame(make(), FrameDirection.DOWNSTREAM)
        await self._service.push_frame(make(), FrameDirection.UPSTREAM)


def _called(saved: Mapping[str, Any]) -> FunctionCallFromLLM:
    return FunctionCallFromLLM(
        function_name=saved["function_name"],
        tool_call_id=saved["tool_call_id"],
        arguments=saved["arguments"],
        context=saved["context"],
    )


def _cancel_frame(item: FunctionCallRunnerItem | FunctionCallFromLLM) -> FunctionCallCancelFrame:
    return FunctionCallCancelFrame(function_name=item.function_name, tool_call_id=item.tool_call_id)
