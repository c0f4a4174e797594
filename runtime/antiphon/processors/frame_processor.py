"""The base of everything that works on frames."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from abc import ABCMeta
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from loguru import logger

from antiphon.audio.interruptions.base_interruption_strategy import BaseInterruptionStrategy
from antiphon.clocks.base_clock import BaseClock
from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameProcessorPauseFrame,
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeFrame,
    FrameProcessorResumeUrgentFrame,
    StartFrame,
    StartInterruptionFrame,
    StopFrame,
)
from antiphon.metrics.metrics import LLMTokenUsage, MetricsData
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.processors.inbox import CLOSED_INBOX, Inbox, LocalInbox
from antiphon.processors.lane import FrameCallback
from antiphon.processors.metrics.frame_processor_metrics import FrameProcessorMetrics
from antiphon.processors.relay import (
    Blueprint,
    RecordedCall,
    Relay,
    mark_overrides,
    reachable,
    relayed,
)
from antiphon.processors.statistics import ProcessorStatistics
from antiphon.utils.asyncio.receipts import Hold, context_of_work, current_receipt, in_progress
from antiphon.utils.asyncio.task_manager import BaseTaskManager
from antiphon.utils.base_object import BaseObject
from antiphon.utils.places import file_of, places_of


class FrameDirection(Enum):
    """Where a frame is going.

    Attributes:
        DOWNSTREAM: From the pipeline's source to its sink, as the conversation flows.
        UPSTREAM: From the sink to the source: errors, requests, acknowledgements.
    """

    DOWNSTREAM = 1
    UPSTREAM = 2


# Looking a member up in its enum costs more than the rest of the line it is used in.
_DOWNSTREAM = FrameDirection.DOWNSTREAM


@dataclass
class FrameProcessorSetup:
    """What a processor gets from the task that runs it.

    Attributes:
        clock: The pipeline's clock.
        task_manager: Owner of the processor's tasks.
        observer: Sees every push, if anybody watches.
        watchdog_timers_enabled: Whether the processor's tasks are watched by default.
    """

    clock: BaseClock
    task_manager: BaseTaskManager
    observer: BaseObserver | None = None
    watchdog_timers_enabled: bool = False


class _FrameProcessorMeta(ABCMeta):
    """Remembers how each processor was built, so that another process can build it again."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        processor = super().__call__(*args, **kwargs)
        processor._blueprint = Blueprint(cls, args, kwargs)
        processor._journal = []
        processor._note_state()
        return processor

    @property
    def __signature__(cls) -> inspect.Signature:
        """What the class's own constructor takes: for editors, and for whoever inspects it."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class FrameProcessor(BaseObject, metaclass=_FrameProcessorMeta):
    """Takes frames, works on them and pushes frames to its neighbours.

    Subclasses override ``process_frame``, call ``await super().process_frame(frame, direction)``
    first, and push on every frame they do not consume: the base pushes nothing.

    Data and control frames are processed one at a time, in order. System frames overtake them, and
    are processed beside a data frame whose ``process_frame`` is suspended. An interruption cancels
    the data frame in progress and drops those that wait.

    Attributes:
        movable: Whether processors of this class may run in another process than the bot program.
            False here: code of a bot may lean on the bot's own objects.
        pinned_reason: Why they may not, for people.
    """

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it works on the bot's own objects"

    # Set by the metaclass and by placement, not by constructors.
    _blueprint: Blueprint | None = None
    _journal: list[RecordedCall] | None = None
    _relay: Relay | None = None
    _recording: bool = False
    _built_state: dict[str, Any] | None = None
    # Set where the processor may have a successor: told of a changed state.
    _state_listener: Callable[[], None] | None = None
    # Set while it does again what its predecessor had begun: gives what of a frame is new.
    _pushed_before: Callable[[Frame, FrameDirection], Frame | None] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keeps overrides of relayed methods relayed."""
        super().__init_subclass__(**kwargs)
        mark_overrides(cls)

    def __init__(
        self,
        *,
        name: str | None = None,
        enable_watchdog_logging: bool | None = None,
        enable_watchdog_timers: bool | None = None,
        metrics: FrameProcessorMetrics | None = None,
        watchdog_timeout_secs: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a processor; nothing runs before setup().

        Args:
            name: Name for logs, metrics and pause frames; ``ClassName#n`` when left out.
            enable_watchdog_logging: Log the steps of this processor's tasks.
            enable_watchdog_timers: Watch this processor's tasks.
            metrics: Where timings and usage go.
            watchdog_timeout_secs: Seconds before a watched task is reported.
            **kwargs: Ignored, so that subclasses may pass on what they were given.
        """
        super().__init__(name=name)
        self._parent: FrameProcessor | None = None
        self._prev: FrameProcessor | None = None
        self._next: FrameProcessor | None = None

        self._enable_watchdog_logging = enable_watchdog_logging
        self._enable_watchdog_timers = enable_watchdog_timers
        self._watchdog_timeout_secs = watchdog_timeout_secs

        self._clock: BaseClock | None = None
        self._task_manager: BaseTaskManager | None = None
        self._observer: BaseObserver | None = None

        self._allow_interruptions = False
        self._enable_metrics = False
        self._enable_usage_metrics = False
        self._report_only_initial_ttfb = False
        self._interruption_strategies: list[BaseInterruptionStrategy] = []

        self._started = False
        self._cancelling = False
        self._last_pushed: Frame | None = None

        self._metrics = metrics or FrameProcessorMetrics()
        self._metrics.set_processor_name(self.name)

        self.statistics = ProcessorStatistics()
        self._local_inbox = LocalInbox(self)
        self._inbox: Inbox = self._local_inbox
        # Whether a neighbour may skip queue_frame(): nobody overrides it.
        self._takes_directly = type(self).queue_frame is FrameProcessor.queue_frame

    # -- facts ---------------------------------------------------------------------------------

    @property
    def interruptions_allowed(self) -> bool:
        """Whether the user may interrupt the bot."""
        return self._allow_interruptions

    @property
    def metrics_enabled(self) -> bool:
        """Whether timings are reported."""
        return self._enable_metrics

    @property
    def usage_metrics_enabled(self) -> bool:
        """Whether usage is reported."""
        return self._enable_usage_metrics

    @property
    def report_only_initial_ttfb(self) -> bool:
        """Whether only the first time to first byte is reported."""
        return self._report_only_initial_ttfb

    @property
    def interruption_strategies(self) -> Sequence[BaseInterruptionStrategy]:
        """What decides whether user speech interrupts the bot."""
        return self._interruption_strategies

    @property
    def task_manager(self) -> BaseTaskManager:
        """Owner of this processor's tasks.

        Raises:
            RuntimeError: Before setup().
        """
        if self._task_manager is None:
            raise RuntimeError(f"{self} has no task manager yet: it is not part of a running task")
        return self._task_manager

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """The loop this processor runs on.

        Raises:
            RuntimeError: Before setup().
        """
        return self.task_manager.get_event_loop()

    def get_clock(self) -> BaseClock:
        """The pipeline's clock.

        Raises:
            RuntimeError: Before setup().
        """
        if self._clock is None:
            raise RuntimeError(f"{self} has no clock yet: it is not part of a running task")
        return self._clock

    def set_parent(self, parent: FrameProcessor) -> None:
        """Says which pipeline this processor belongs to."""
        self._parent = parent

    def get_parent(self) -> FrameProcessor | None:
        """The pipeline this processor belongs to."""
        return self._parent

    def link(self, processor: FrameProcessor) -> None:
        """Makes another processor the next one downstream."""
        self._next = processor
        processor._prev = self
        logger.debug("linked", source=self.name, destination=processor.name)

    # -- life ----------------------------------------------------------------------------------

    @relayed
    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Makes the processor ready to take frames; before any frame."""
        self._journal = None
        await self._local_inbox.suspend()
        self._adopt(setup)
        self._cancelling = False
        if self._local_inbox is CLOSED_INBOX:
            self._replace_inbox(LocalInbox(self))
        self._local_inbox.open()
        await self._metrics.setup(self.task_manager)

    def _adopt(self, setup: FrameProcessorSetup) -> None:
        """Takes over the services of the task that runs this processor."""
        self._clock = setup.clock
        self._task_manager = setup.task_manager
        self._observer = setup.observer
        if self._enable_watchdog_timers is None:
            self._enable_watchdog_timers = setup.watchdog_timers_enabled

    @relayed
    async def cleanup(self) -> None:
        """Waits for running event handlers and ends the processor's own tasks."""
        await super().cleanup()
        await self._local_inbox.close()
        self._started = False
        await self._metrics.cleanup()
        self._replace_inbox(CLOSED_INBOX)

    def _replace_inbox(self, inbox: LocalInbox) -> None:
        if self._inbox is self._local_inbox:
            self._inbox = inbox
        self._local_inbox = inbox

    # -- tasks ---------------------------------------------------------------------------------

    def create_task(
        self,
        coroutine: Coroutine[Any, Any, Any],
        name: str | None = None,
        *,
        enable_watchdog_logging: bool | None = None,
        enable_watchdog_timers: bool | None = None,
        watchdog_timeout_secs: float | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """Starts a task named ``<processor>::<name>``; an exception in it is logged.

        Args:
            coroutine: What it runs.
            name: Name of the task; the coroutine's name when left out.
            enable_watchdog_logging: Overrides the processor's setting.
            enable_watchdog_timers: Overrides the processor's setting.
            watchdog_timeout_secs: Overrides the processor's setting.
            context: The task's context variables; a copy of the caller's when left out.
        """
        if self._task_manager is None:
            coroutine.close()
        if context is None:
            context = context_of_work()
        # Task managers of others need not know of contexts.
        more: dict[str, Any] = {} if context is None else {"context": context}
        return self.task_manager.create_task(
            coroutine,
            f"{self}::{name or getattr(coroutine, '__name__', 'task')}",
            **more,
            enable_watchdog_logging=_or(enable_watchdog_logging, self._enable_watchdog_logging),
            enable_watchdog_timers=_or(enable_watchdog_timers, self._enable_watchdog_timers),
            watchdog_timeout=_or(watchdog_timeout_secs, self._watchdog_timeout_secs),
        )

    async def cancel_task(self, task: asyncio.Task[Any], timeout: float | None = None) -> None:
        """Cancels a task and waits for its end, at most ``timeout`` seconds."""
        await self.task_manager.cancel_task(task, timeout)

    async def wait_for_task(self, task: asyncio.Task[Any], timeout: float | None = None) -> None:
        """Waits for a task to end by itself, at most ``timeout`` seconds."""
        await self.task_manager.wait_for_task(task, timeout)

    def reset_watchdog(self) -> None:
        """Tells the watchdog of the running task that it is alive."""
        if self._task_manager is not None:
            self._task_manager.task_reset_watchdog()

    # -- loss and succession -------------------------------------------------------------------

    # A processor may be lost with its process. Another one like it is then built in its place, is
    # started, gets the settings that came meanwhile, and is given again the frames that were not
    # answered. What those made the lost one push already is not pushed again.

    def hold_frame(self) -> Hold:
        """Keeps the frame in progress from counting as answered when ``process_frame`` returns.

        For a processor that collects frames, or answers them later: what it holds is given again to
        its successor, should it be lost. ``release()`` what is answered or dropped. Where it cannot be
        lost alone, this does nothing.
        """
        return Hold()

    @property
    def _is_processing(self) -> bool:
        """Whether the running code is the processing of a frame, and no task beside it."""
        return self._local_inbox.is_doing(in_progress.get())

    async def until_safe(self) -> None:
        """Waits until the frame in progress will not be given to a successor, whatever happens.

        To be awaited in a task that the processing of the frame has begun, before what must not
        happen twice: within ``process_frame`` itself it would wait for ever. In one process it
        returns at once.
        """
        receipt = current_receipt()
        if receipt is not None:
            await receipt.safe()

    def snapshot(self) -> Mapping[str, Any] | None:
        """What a successor has to know of the frames that are answered; None: nothing.

        Asked between two frames, when nothing is held, and after ``state_changed()``. To be quick.

        Returns:
            Plain data (what MessagePack can express), with the number of its form as ``version``.
        """
        return None

    async def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over what its predecessor knew; after the StartFrame and before any other frame.

        Args:
            state: What ``snapshot()`` has returned, perhaps that of an earlier version of the class.
        """

    def state_changed(self) -> None:
        """Says that ``snapshot()`` would return something new although no frame was processed."""
        if self._state_listener is not None:
            self._state_listener()

    # -- events --------------------------------------------------------------------------------

    @relayed
    def add_event_handler(self, event_name: str, handler: Callable[..., Any]) -> None:
        """Adds a handler for an event; it runs where the bot program runs."""
        super().add_event_handler(event_name, handler)

    # -- metrics -------------------------------------------------------------------------------

    def can_generate_metrics(self) -> bool:
        """Whether this processor reports metrics; subclasses that do say True."""
        return False

    def set_core_metrics_data(self, data: MetricsData) -> None:
        """Sets the processor and model that every measurement names."""
        self._metrics.set_core_metrics_data(data)

    async def start_ttfb_metrics(self) -> None:
        """Begins measuring the time to the first piece of an answer."""
        if self.can_generate_metrics() and self.metrics_enabled:
            await self._metrics.start_ttfb_metrics(self._report_only_initial_ttfb)

    async def stop_ttfb_metrics(self) -> None:
        """Ends that measurement and pushes it."""
        if self.can_generate_metrics() and self.metrics_enabled:
            await self._push_metrics(await self._metrics.stop_ttfb_metrics())

    async def start_processing_metrics(self) -> None:
        """Begins measuring the time of a whole request."""
        if self.can_generate_metrics() and self.metrics_enabled:
            await self._metrics.start_processing_metrics()

    async def stop_processing_metrics(self) -> None:
        """Ends that measurement and pushes it."""
        if self.can_generate_metrics() and self.metrics_enabled:
            await self._push_metrics(await self._metrics.stop_processing_metrics())

    async def start_llm_usage_metrics(self, tokens: LLMTokenUsage) -> None:
        """Pushes the tokens of one completion."""
        if self.can_generate_metrics() and self.usage_metrics_enabled:
            await self._push_metrics(await self._metrics.start_llm_usage_metrics(tokens))

    async def start_tts_usage_metrics(self, text: str) -> None:
        """Pushes the number of characters of a text to be spoken."""
        if self.can_generate_metrics() and self.usage_metrics_enabled:
            await self._push_metrics(await self._metrics.start_tts_usage_metrics(text))

    async def stop_all_metrics(self) -> None:
        """Ends every measurement that runs."""
        await self.stop_ttfb_metrics()
        await self.stop_processing_metrics()

    async def _push_metrics(self, frame: Frame | None) -> None:
        if frame is not None:
            await self.push_frame(frame)

    # -- frames --------------------------------------------------------------------------------

    async def queue_frame(
        self,
        frame: Frame,
        direction: FrameDirection = FrameDirection.DOWNSTREAM,
        callback: FrameCallback | None = None,
    ) -> None:
        """Gives the processor a frame to process.

        Args:
            frame: The frame.
            direction: The direction process_frame() is told.
            callback: Awaited as ``callback(processor, frame, direction)`` after process_frame().
        """
        if self._cancelling:
            return
        waits = self._inbox.put_nowait(frame, direction, callback)
        if waits is not None:
            await waits

    @relayed
    async def pause_processing_frames(self) -> None:
        """Holds data and control frames back from now on; system frames go on."""
        self._local_inbox.pause()

    @relayed
    async def resume_processing_frames(self) -> None:
        """Goes on with the data and control frames held back."""
        self._local_inbox.resume()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Works on a frame. Overrides call this first and push on what they do not consume."""
        action = _ACTIONS.get(type(frame), _UNKNOWN)
        if action is None:
            return
        if action is _UNKNOWN:
            action = _action_of(type(frame))
            if action is None:
                return
        await action(self, frame)

    async def _on_start(self, frame: Frame) -> None:
        assert isinstance(frame, StartFrame)
        # Not through self: bots call methods of their own processors `_start`.
        FrameProcessor._start(self, frame)

    async def _on_interruption(self, frame: Frame) -> None:
        await self._start_interruption()
        await self.stop_all_metrics()

    async def _on_cancel(self, frame: Frame) -> None:
        self._cancelling = True
        await self._local_inbox.refuse()

    async def _on_pause(self, frame: Frame) -> None:
        assert isinstance(frame, (FrameProcessorPauseFrame, FrameProcessorPauseUrgentFrame))
        if frame.processor.name == self.name:
            await self.pause_processing_frames()

    async def _on_resume(self, frame: Frame) -> None:
        assert isinstance(frame, (FrameProcessorResumeFrame, FrameProcessorResumeUrgentFrame))
        if frame.processor.name == self.name:
            await self.resume_processing_frames()

    @relayed
    async def push_error(self, error: ErrorFrame) -> None:
        """Pushes an error upstream; names this processor as its origin unless one is named."""
        if error.processor is None:
            error.processor = self
        await self.push_frame(error, FrameDirection.UPSTREAM)

    @reachable
    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes a frame to the neighbour in that direction.

        Without a neighbour there, nothing happens. A frame pushed before this processor has seen
        the StartFrame is dropped, and logged as an error.
        """
        if not self._started and not isinstance(frame, (StartFrame, CancelFrame, ErrorFrame)):
            logger.error(
                "frame pushed before the StartFrame was processed: is super().process_frame() "
                "called?",
                processor=self.name,
                frame=frame.name,
            )
            return
        if direction is _DOWNSTREAM:
            destination = self._next
            self._last_pushed = frame
        else:
            destination = self._prev
        if destination is None:
            return
        if self._pushed_before is not None:
            rest = self._pushed_before(frame, direction)
            if rest is None:
                return
            frame = rest
        self.statistics.frames_out += 1
        observer = self._observer
        if observer is not None and observer.watching:
            await observer.on_push_frame(
                FramePushed(
                    source=self,
                    destination=destination,
                    frame=frame,
                    direction=direction,
                    timestamp=self._clock.get_time() if self._clock else 0,
                )
            )
        if destination._takes_directly:
            if not destination._cancelling:
                waits = destination._inbox.put_nowait(frame, direction)
                if waits is not None:
                    await waits
        else:
            await destination.queue_frame(frame, direction)

    # -- inside --------------------------------------------------------------------------------

    def _start(self, frame: StartFrame) -> None:
        self._started = True
        self._allow_interruptions = frame.allow_interruptions
        self._enable_metrics = frame.enable_metrics
        self._enable_usage_metrics = frame.enable_usage_metrics
        self._interruption_strategies = list(frame.interruption_strategies)
        self._report_only_initial_ttfb = frame.report_only_initial_ttfb
        if self._inbox is self._local_inbox and self._inbox is not CLOSED_INBOX:
            self._local_inbox.start()

    async def _start_interruption(self) -> None:
        """Drops waiting data and control frames and cancels the one in progress."""
        await self._local_inbox.interrupt()

    async def _stop_interruption(self) -> None:
        """The user stopped interrupting; nothing to do here."""

    async def _report_failure(
        self, error: Exception, frame: Frame, direction: FrameDirection
    ) -> None:
        """Makes an ErrorFrame of an exception in process_frame()."""
        self.statistics.errors += 1
        logger.opt(exception=error).error(
            "processor failed on a frame", processor=self.name, frame=frame.name
        )
        await self.push_error(self._error_frame(error, frame))
        await self._pass_lifecycle(frame, direction)

    def _error_frame(self, error: Exception, frame: Frame) -> ErrorFrame:
        # A processor that failed to start would hold the whole pipeline up for ever.
        report = ErrorFrame(error=str(error), fatal=isinstance(frame, StartFrame))
        places = places_of(error.__traceback__)
        # What the processor's author can change, rather than the depths of a library.
        method = type(self).process_frame
        code = getattr(method, "__code__", None)
        file = file_of(code, method.__globals__) if code is not None else None
        last = ([place for place in places if place.file == file] or places)[-1:]
        report.metadata["cause"] = {
            "type": type(error).__name__,
            "frame": frame.name,
            "processor": self.name,
            "where": str(last[0]) if last else "",
        }
        return report

    async def _pass_lifecycle(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes on an end that a failing processor kept, or the session could never finish."""
        if (
            isinstance(frame, (EndFrame, StopFrame, CancelFrame))
            and direction is FrameDirection.DOWNSTREAM
            and self._last_pushed is not frame
        ):
            await self.push_frame(frame, direction)

    def _note_state(self) -> None:
        """Remembers the attributes, to tell later whether the bot changed one from outside."""
        state = self._built_state = dict(vars(self))
        # Not the bot's to change, and it refers back to this processor.
        del state["_local_inbox"], state["_inbox"]

    def _note_changes(self, before: dict[str, Any]) -> None:
        """Takes the attributes that a recorded call has changed as if they had been built so."""
        if self._built_state is not None:
            for key, value in vars(self).items():
                if key not in before or before[key] is not value:
                    self._built_state[key] = value


def _or(own: Any, default: Any) -> Any:
    return default if own is None else own


Action = Callable[[FrameProcessor, Frame], Coroutine[Any, Any, None]]

_UNKNOWN: Any = object()
_ACTION_OF_KIND: tuple[tuple[tuple[type[Frame], ...], Action], ...] = (
    ((StartFrame,), FrameProcessor._on_start),
    ((StartInterruptionFrame,), FrameProcessor._on_interruption),
    ((CancelFrame,), FrameProcessor._on_cancel),
    ((FrameProcessorPauseFrame, FrameProcessorPauseUrgentFrame), FrameProcessor._on_pause),
    ((FrameProcessorResumeFrame, FrameProcessorResumeUrgentFrame), FrameProcessor._on_resume),
)
# What the base does with frames of a class; filled in as classes are met.
_ACTIONS: dict[type[Frame], Action | None] = {}


def _action_of(kind: type[Frame]) -> Action | None:
    action = next((do for kinds, do in _ACTION_OF_KIND if issubclass(kind, kinds)), None)
    _ACTIONS[kind] = action
    return action
