"""Runs one pipeline: start, end, stop, cancel, heartbeats, idle detection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any

from loguru import logger

from antiphon.clocks.base_clock import BaseClock
from antiphon.clocks.system_clock import SystemClock
from antiphon.frames.frames import (
    BotSpeakingFrame,
    CancelFrame,
    CancelTaskFrame,
    EndFrame,
    EndTaskFrame,
    ErrorFrame,
    Frame,
    HeartbeatFrame,
    LLMFullResponseEndFrame,
    MetricsFrame,
    StartFrame,
    StopFrame,
    StopTaskFrame,
)
from antiphon.metrics.metrics import (
    MetricsData,
    ProcessingMetricsData,
    StallMetricsData,
    TTFBMetricsData,
)
from antiphon.observers.base_observer import BaseObserver
from antiphon.observers.session_report import SessionReport
from antiphon.observers.turn_record_observer import TurnRecordObserver
from antiphon.pipeline.base_pipeline import BasePipeline, walk
from antiphon.pipeline.base_task import BasePipelineTask, PipelineTaskParams
from antiphon.pipeline.ender import Ender
from antiphon.pipeline.ending import Ending
from antiphon.pipeline.executor import Execution, Executor, new_executor
from antiphon.pipeline.keeper import Keeper, SavedState, current_keeper
from antiphon.pipeline.monitors import (
    HEARTBEAT_MONITOR_SECONDS,
    HEARTBEAT_SECONDS,
    HeartbeatMonitor,
    IdleMonitor,
    StallObserver,
    report_watchdog,
)
from antiphon.pipeline.params import PipelineParams
from antiphon.pipeline.pipeline import Pipeline, PipelineSink, PipelineSource
from antiphon.pipeline.task_end import TaskEnd
from antiphon.pipeline.task_observer import TaskObserver
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.utils.asyncio.task_manager import (
    WATCHDOG_TIMEOUT,
    BaseTaskManager,
    TaskManager,
    TaskManagerParams,
)
from antiphon.utils.base_object import emissions
from antiphon.utils.checks import check_classes, check_instance, check_number, check_sequence
from antiphon.utils.tracing import trace_state
from antiphon.utils.tracing.turn_trace_observer import TurnTraceObserver

__all__ = [
    "HEARTBEAT_MONITOR_SECONDS",
    "HEARTBEAT_SECONDS",
    "PipelineParams",
    "PipelineTask",
]

CANCEL_TIMEOUT_SECS = 2.0
"""How long a cancellation may take in all, until run() has returned and nothing is left."""

CLEANUP_DEADLINE_SECS = 20.0
"""How long cleaning up (event handlers included) may take in a pipeline that nobody cancels."""

_ERRORS_KEPT = 100


class PipelineTask(BasePipelineTask):
    """Runs one pipeline from its StartFrame to its end.

    Events (each handler gets the task first): ``on_pipeline_started(frame)``,
    ``on_pipeline_ended(frame)``, ``on_pipeline_stopped(frame)`` and
    ``on_pipeline_cancelled(frame)`` when that frame has crossed the pipeline;
    ``on_frame_reached_upstream(frame)`` and ``on_frame_reached_downstream(frame)`` for the types
    given to the ``set_reached_*_filter`` methods; ``on_idle_timeout()``;
    ``on_pipeline_resumed(frame)`` after ``on_pipeline_started`` if the conversation goes on from
    another process; ``on_stall(processor, secs)`` with the name of the processor at which a
    heartbeat has waited, or one of whose tasks has not reset its watchdog, for so long.
    """

    def __init__(
        self,
        pipeline: BasePipeline,
        params: PipelineParams | None = None,
        *,
        additional_span_attributes: dict[str, Any] | None = None,
        cancel_on_idle_timeout: bool = True,
        cancel_timeout_secs: float = CANCEL_TIMEOUT_SECS,
        check_dangling_tasks: bool = True,
        clock: BaseClock | None = None,
        conversation_id: str | None = None,
        enable_tracing: bool = False,
        enable_turn_tracking: bool = True,
        enable_watchdog_logging: bool = False,
        enable_watchdog_timers: bool = False,
        idle_timeout_frames: tuple[type[Frame], ...] = (BotSpeakingFrame, LLMFullResponseEndFrame),
        idle_timeout_secs: float | None = 300,
        observers: list[BaseObserver] | None = None,
        task_manager: BaseTaskManager | None = None,
        watchdog_timeout_secs: float = WATCHDOG_TIMEOUT,
    ) -> None:
        """Makes a task; run() starts it.

        Args:
            pipeline: The pipeline to run.
            params: How it runs.
            additional_span_attributes: Attributes for the conversation's trace span.
            cancel_on_idle_timeout: Whether an idle pipeline is cancelled, or only reported.
            cancel_timeout_secs: How long a cancellation may take in all; what has not ended by then, event
                handlers included, is cut short.
            check_dangling_tasks: Whether tasks left at the end are logged.
            clock: The pipeline's clock.
            conversation_id: Name of the conversation in traces.
            enable_tracing: Whether the conversation is traced; needs turn tracking.
            enable_turn_tracking: Whether turns are tracked.
            enable_watchdog_logging: Whether the steps of watched tasks are logged.
            enable_watchdog_timers: Whether the pipeline's tasks are watched.
            idle_timeout_frames: Frames that show that the pipeline is not idle.
            idle_timeout_secs: Seconds without such a frame after which it is; None for never.
            observers: Watch every hop of every frame.
            task_manager: Owner of the pipeline's tasks.
            watchdog_timeout_secs: Seconds before a watched task is reported.

        Raises:
            TypeError: If one of them is of another type.
            ValueError: If a number of seconds is negative.
        """
        super().__init__()
        check_instance("PipelineTask(pipeline)", pipeline, FrameProcessor)
        if params is not None:
            check_instance("PipelineTask(params)", params, PipelineParams)
        if clock is not None:
            check_instance("PipelineTask(clock)", clock, BaseClock)
        check_sequence("PipelineTask(observers)", observers or [])
        for observer in observers or ():
            check_instance("an observer of PipelineTask(observers)", observer, BaseObserver)
        if idle_timeout_secs is not None:
            check_number("PipelineTask(idle_timeout_secs)", idle_timeout_secs, at_least=0)
        check_classes("PipelineTask(idle_timeout_frames)", idle_timeout_frames, Frame)
        check_number("PipelineTask(cancel_timeout_secs)", cancel_timeout_secs, at_least=0)
        check_number("PipelineTask(watchdog_timeout_secs)", watchdog_timeout_secs, at_least=0)
        self._params = params or PipelineParams()
        self._clock = clock or SystemClock()
        self._task_manager = task_manager or TaskManager()
        self._owns_manager = task_manager is None
        self._enable_tracing = enable_tracing
        self._cancel_timeout_secs = cancel_timeout_secs
        self._check_dangling_tasks = check_dangling_tasks
        self._enable_watchdog_logging = enable_watchdog_logging
        self._enable_watchdog_timers = enable_watchdog_timers
        self._watchdog_timeout_secs = watchdog_timeout_secs
        self._reached_upstream: tuple[type[Frame], ...] = ()
        self._reached_downstream: tuple[type[Frame], ...] = ()
        # What follows frames beside the bot's own handlers; a few, for the life of the task.
        self._sink_watchers: list[tuple[tuple[type[Frame], ...], Callable[[Frame], None]]] = []

        self._conversation_id = conversation_id
        self._turn_tracking_observer = TurnRecordObserver() if enable_turn_tracking else None
        self._turn_trace_observer: TurnTraceObserver | None = None
        if enable_tracing and self._turn_tracking_observer is not None:
            self._turn_trace_observer = TurnTraceObserver(
                self._turn_tracking_observer,
                conversation_id,
                additional_span_attributes,
                clock=self._clock,
            )
        elif enable_tracing:
            logger.warning("not traced: tracing needs turn tracking", task=self.name)
        watched = enable_watchdog_timers or self._params.enable_heartbeats
        self._stalls = (
            StallObserver(self._stalled, lambda one: one is self._sink) if watched else None
        )
        self._observer = TaskObserver(
            observers=[
                *(observers or []),
                *self._params.observers,
                *([self._turn_tracking_observer] if self._turn_tracking_observer else []),
                *([self._turn_trace_observer] if self._turn_trace_observer else []),
                *([self._stalls] if self._stalls else []),
            ],
            task_manager=self._task_manager,
        )

        self._source = PipelineSource(self._reached_source, name=f"{self}::Source")
        self._sink = PipelineSink(self._reached_sink, name=f"{self}::Sink")
        self._pipeline = Pipeline([pipeline], source=self._source, sink=self._sink)
        self._executor: Executor | None = None

        # What a bot queues; bounded by the bot, which is the only one to fill it.
        self._push_queue: asyncio.Queue[Frame] = asyncio.Queue()
        self._drive_task: asyncio.Task[None] | None = None
        self._cancel_wanted = False
        self._cancel_frame: CancelFrame | None = None
        # Of events, those in progress.
        self._emissions: set[asyncio.Task[None]] = set()
        self._ender = Ender(
            self.name,
            TaskEnd(self),
            Ending(cancel_secs=cancel_timeout_secs, clean_up_secs=CLEANUP_DEADLINE_SECS),
        )
        self._keeper: Keeper | None = None
        self._resumed = False
        self._going_on: asyncio.Task[None] | None = None
        self._saved_states: dict[str, SavedState] = {}
        self._flowing = False
        self._pushed_start: StartFrame | None = None
        self._start_arrived = False
        self._ending = False
        self._finished = False
        self._end_reached: dict[int, asyncio.Event] = {}
        self._reported: set[int] = set()
        self._cleanup_wanted = True
        self._errors: deque[ErrorFrame] = deque(maxlen=_ERRORS_KEPT)

        self._idle = IdleMonitor(idle_timeout_secs, idle_timeout_frames, self._idle_detected)
        self._cancel_on_idle_timeout = cancel_on_idle_timeout
        self._heartbeats: HeartbeatMonitor | None = None

        for event in (
            "on_frame_reached_upstream",
            "on_frame_reached_downstream",
            "on_idle_timeout",
            "on_stall",
            "on_pipeline_started",
            "on_pipeline_resumed",
            "on_pipeline_stopped",
            "on_pipeline_ended",
            "on_pipeline_cancelled",
        ):
            self._register_event_handler(event)

    # -- facts ---------------------------------------------------------------------------------

    @property
    def params(self) -> PipelineParams:
        """How the pipeline runs."""
        return self._params

    @property
    def pipeline(self) -> BasePipeline:
        """The whole pipeline, the task's own source and sink included."""
        return self._pipeline

    @property
    def turn_tracking_observer(self) -> TurnRecordObserver | None:
        """Tracks and records the turns, unless that is switched off."""
        return self._turn_tracking_observer

    @property
    def turn_trace_observer(self) -> TurnTraceObserver | None:
        """Traces the conversation and its turns, if tracing is on."""
        return self._turn_trace_observer

    def session_report(self) -> SessionReport | None:
        """What has happened so far: turns, latencies, usage, errors; None without turn tracking."""
        if self._turn_tracking_observer is None:
            return None
        traced = self._turn_trace_observer
        conversation_id = traced.conversation_id if traced is not None else self._conversation_id
        return SessionReport.of(self._turn_tracking_observer, conversation_id)

    @property
    def errors(self) -> Sequence[ErrorFrame]:
        """The last errors that reached the beginning of the pipeline."""
        return list(self._errors)

    @property
    def is_resumed(self) -> bool:
        """Whether the conversation goes on from another process."""
        return self._resumed

    @property
    def is_ending(self) -> bool:
        """Whether an EndFrame has been queued."""
        return self._ending

    @property
    def saved_states(self) -> Mapping[str, SavedState]:
        """What was registered with add_saved_state(), by kind and number, such as ``flow.1``."""
        return self._saved_states

    def has_finished(self) -> bool:
        """Whether run() is over."""
        return self._finished

    # -- what a bot sets -----------------------------------------------------------------------

    def add_observer(self, observer: BaseObserver) -> None:
        """Adds an observer; it sees what is pushed from now on."""
        self._observer.add_observer(observer)

    async def remove_observer(self, observer: BaseObserver) -> None:
        """Removes an observer; it sees nothing more."""
        await self._observer.remove_observer(observer)

    def set_reached_upstream_filter(self, types: tuple[type[Frame], ...]) -> None:
        """Says for which frames on_frame_reached_upstream is called."""
        self._reached_upstream = check_classes("set_reached_upstream_filter(types)", types, Frame)

    def set_reached_downstream_filter(self, types: tuple[type[Frame], ...]) -> None:
        """Says for which frames on_frame_reached_downstream is called."""
        self._reached_downstream = check_classes(
            "set_reached_downstream_filter(types)", types, Frame
        )

    def watch_reached_downstream(
        self, types: tuple[type[Frame], ...], callback: Callable[[Frame], None]
    ) -> None:
        """Calls a function, at once, for each frame of some types that leaves the pipeline.

        Beside ``on_frame_reached_downstream``, whose filter is the bot's own.
        """
        self._sink_watchers.append((types, callback))

    def add_saved_state(self, kind: str, state: SavedState) -> None:
        """Registers something that has to survive the bot's process, where sessions are kept.

        What was saved is given back to the state of the same kind and number, so a bot registers
        its states in the same order each time.

        Args:
            kind: What it is.
            state: Is saved, and restored when the task is resumed.
        """
        number = sum(name.rpartition(".")[0] == kind for name in self._saved_states) + 1
        name = f"{kind}.{number}"
        self._saved_states[name] = state
        if self._keeper is not None:
            self._keeper.state_added(self, name, state)

    def state_changed(self) -> None:
        """Says that something registered with add_saved_state() has changed."""
        if self._keeper is not None:
            self._keeper.changed()

    def forget_queued(self, wanted: Callable[[Frame], bool]) -> int:
        """Drops what is queued and not wanted.

        Args:
            wanted: Whether a frame stays.

        Returns:
            How many frames were dropped.
        """
        queued = [self._push_queue.get_nowait() for _ in range(self._push_queue.qsize())]
        kept = [frame for frame in queued if wanted(frame)]
        for frame in kept:
            self._push_queue.put_nowait(frame)
        return len(queued) - len(kept)

    async def queue_frame(self, frame: Frame) -> None:
        """Queues a frame at the beginning of the pipeline; also before run().

        Raises:
            TypeError: If it is no frame.
        """
        check_instance("queue_frame(frame)", frame, Frame)
        await self._push_queue.put(frame)
        if isinstance(frame, EndFrame):
            self._ending = True
            self.state_changed()

    async def queue_frames(self, frames: Iterable[Frame] | AsyncIterable[Frame]) -> None:
        """Queues frames at the beginning of the pipeline; also before run()."""
        if isinstance(frames, AsyncIterable):
            async for frame in frames:
                await self.queue_frame(frame)
        else:
            for frame in frames:
                await self.queue_frame(frame)

    async def stop_when_done(self) -> None:
        """Ends the pipeline after everything queued so far."""
        logger.debug("task ends when done", task=self.name)
        await self.queue_frame(EndFrame())

    async def cancel(self) -> None:
        """Ends the pipeline now, whatever state it is in; returns when frames have stopped.

        A CancelFrame overtakes what is queued. Whatever keeps it up, run() has returned within
        ``cancel_timeout_secs``. A second call waits for the first.
        """
        if self._finished:
            return
        self._begin_cancel()
        if self._drive_task is not None:
            await self._ender.stopped.wait()

    # -- running -------------------------------------------------------------------------------

    async def run(self, params: PipelineTaskParams | None = None) -> None:
        """Runs the pipeline until it ends; a second call returns at once.

        Cancelling the caller cancels the pipeline, and run() then returns normally.

        Raises:
            SessionError: If the processors could not be set up where they were to run.
        """
        if self._finished or self._drive_task is not None:
            return
        loop = params.loop if params is not None else asyncio.get_running_loop()
        self._task_manager.setup(
            TaskManagerParams(
                loop=loop,
                enable_watchdog_timers=self._enable_watchdog_timers,
                enable_watchdog_logging=self._enable_watchdog_logging,
                watchdog_timeout=self._watchdog_timeout_secs,
                on_watchdog=self._watchdog_due,
            )
        )
        drive = self._drive_task = loop.create_task(self._drive(), name=f"{self}::drive")
        drive.add_done_callback(lambda _: self._ender.ended())
        if self._cancel_wanted:
            self._begin_cancel()
        while not self._ender.over.is_set():
            try:
                await self._ender.over.wait()
            except asyncio.CancelledError:
                # Cancelled once more, it still cleans up, or processors would be left half alive.
                logger.debug("task cancelled from outside", task=self.name)
                self._begin_cancel()
        self._finished = True
        if (failure := self._ender.failure) is not None:
            raise failure
        # One that was ended by force has no failure of its own.
        if not (drive.cancelled() or self._ender.by_force) and (error := drive.exception()):
            raise error

    async def _drive(self) -> None:
        """Starts the pipeline and pushes what is queued until a frame ends it."""
        emissions.set(self._emissions)
        self._keeper = current_keeper()
        if self._keeper is not None:
            self._resumed = await self._keeper.begin(self)
        if self._turn_trace_observer is not None:
            # Inherited by the tasks of observers and processors, which are all started from here.
            trace_state.adopt(trace_state.TraceState(report=self._turn_trace_observer.report_span))
        await self._observer.start()
        self._clock.start()  # before the processors are placed: they share its zero
        self._executor = new_executor()
        await self._executor.start(
            Execution(
                pipeline=self._pipeline,
                setup=FrameProcessorSetup(
                    clock=self._clock,
                    task_manager=self._task_manager,
                    observer=self._observer,
                    watchdog_timers_enabled=self._enable_watchdog_timers,
                ),
                fail=self._note_error,
                start_frame=lambda: self._pushed_start,
                has_started=lambda: self._start_arrived,
                cancel_secs=self._cancel_timeout_secs,
            )
        )
        self._idle.start(asyncio.get_running_loop())
        self._flowing = True
        self._pushed_start = self._start_frame()
        await self._source.queue_frame(self._pushed_start)
        if self._params.enable_metrics and self._params.send_initial_empty_metrics:
            await self._source.queue_frame(self._initial_metrics_frame())
        while True:
            frame = await self._push_queue.get()
            if isinstance(frame, CancelFrame):
                self._begin_cancel()
                return
            reached: asyncio.Event | None = None
            if isinstance(frame, (EndFrame, StopFrame)):
                reached = self._end_reached[frame.id] = asyncio.Event()
            await self._source.queue_frame(frame)
            if reached is not None:
                await reached.wait()
                self._cleanup_wanted = isinstance(frame, EndFrame)
                return

    def _begin_cancel(self) -> None:
        self._cancel_wanted = True
        if self._drive_task is not None:
            self._ender.cancel(flows=self._flowing)

    def _start_frame(self) -> StartFrame:
        frame = StartFrame(
            allow_interruptions=self._params.allow_interruptions,
            audio_in_sample_rate=self._params.audio_in_sample_rate,
            audio_out_sample_rate=self._params.audio_out_sample_rate,
            enable_metrics=self._params.enable_metrics,
            enable_tracing=self._enable_tracing,
            enable_usage_metrics=self._params.enable_usage_metrics,
            report_only_initial_ttfb=self._params.report_only_initial_ttfb,
            interruption_strategies=self._params.interruption_strategies,
        )
        frame.metadata = self._params.start_metadata
        return frame

    def _initial_metrics_frame(self) -> MetricsFrame:
        data: list[MetricsData] = []
        for processor in self._pipeline.processors_with_metrics():
            data.append(TTFBMetricsData(processor=processor.name, value=0.0))
            data.append(ProcessingMetricsData(processor=processor.name, value=0.0))
        return MetricsFrame(data=data)

    # -- the two ends of the pipeline ----------------------------------------------------------

    async def _reached_source(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes a frame that leaves the pipeline upstream."""
        if isinstance(frame, self._reached_upstream):
            await self._call_event_handler("on_frame_reached_upstream", frame)
        # A guide of the documentation ends a session with an EndFrame upstream.
        if isinstance(frame, (EndTaskFrame, EndFrame)):
            await self.queue_frame(EndFrame())
        elif isinstance(frame, CancelTaskFrame):
            await self.queue_frame(CancelFrame())
        elif isinstance(frame, StopTaskFrame):
            await self.queue_frame(StopFrame())
        elif isinstance(frame, ErrorFrame):
            self._note_error(frame)

    def _note_error(self, error: ErrorFrame) -> None:
        self._errors.append(error)
        if self._executor is not None:
            self._executor.note_error(error)
        origin = error.processor.name if isinstance(error.processor, FrameProcessor) else None
        if error.fatal:
            logger.error("fatal error", task=self.name, processor=origin, error=error.error)
            self._begin_cancel()
        elif "cause" in error.metadata:  # the processor has logged it, with the traceback
            logger.debug("error", task=self.name, processor=origin, error=error.error)
        else:
            logger.warning("error", task=self.name, processor=origin, error=error.error)

    async def _reached_sink(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes a frame that leaves the pipeline downstream."""
        self._idle.saw(frame)
        if isinstance(frame, self._reached_downstream):
            await self._call_event_handler("on_frame_reached_downstream", frame)
        for types, callback in self._sink_watchers:
            if isinstance(frame, types):
                callback(frame)
        if isinstance(frame, StartFrame):
            self._start_arrived = True
            await self._call_event_handler("on_pipeline_started", frame)
            if self._keeper is not None and self._resumed:
                await self._call_event_handler("on_pipeline_resumed", frame)
                self._going_on = self._task_manager.create_task(
                    self._keeper.started(self), f"{self}::going_on"
                )
            self._start_heartbeats()
        elif isinstance(frame, HeartbeatFrame) and self._heartbeats is not None:
            self._heartbeats.arrived(frame)
        elif isinstance(frame, EndFrame):
            await self._ended("on_pipeline_ended", frame)
        elif isinstance(frame, StopFrame):
            await self._ended("on_pipeline_stopped", frame)
        elif isinstance(frame, CancelFrame):
            await self._ended("on_pipeline_cancelled", frame)
            if frame is self._cancel_frame:
                self._ender.crossed()

    async def _ended(self, event: str, frame: Frame) -> None:
        if frame.id in self._reported:  # it arrived after it had been given up
            return
        self._reported.add(frame.id)
        await self._call_event_handler(event, frame)
        reached = self._end_reached.pop(frame.id, None)
        if reached is not None:
            reached.set()

    def _start_heartbeats(self) -> None:
        if self._params.enable_heartbeats and self._heartbeats is None:
            self._heartbeats = HeartbeatMonitor(
                self._source.queue_frame,
                self._clock,
                self._params.heartbeats_period_secs,
                self.name,
                self._stalls,
            )
            self._heartbeats.start(self._task_manager)

    def _watchdog_due(self, task: str, secs: float) -> None:
        if self._flowing:
            report_watchdog(walk(self._pipeline), task, secs)

    async def _stalled(self, data: StallMetricsData) -> None:
        logger.warning(
            "processor holds a frame up",
            task=self.name,
            processor=data.processor,
            seconds=data.value,
            held_by=data.task,
        )
        await self._call_event_handler("on_stall", data.processor, data.value)

    async def _idle_detected(self) -> None:
        logger.warning("pipeline is idle", task=self.name)
        running = set(self._event_tasks)
        await self._call_event_handler("on_idle_timeout")
        if self._cancel_on_idle_timeout:
            self._idle.stop()
            # The handler's last word may still be on its way when it has run.
            if handlers := self._event_tasks - running:
                await asyncio.wait(handlers, timeout=self._cancel_timeout_secs)
            self._begin_cancel()
