"""The input end of a transport: from received audio to frames."""

from __future__ import annotations

import asyncio

from loguru import logger

from antiphon.audio.turn.base_turn_analyzer import BaseTurnAnalyzer, EndOfTurnState
from antiphon.audio.vad.vad_analyzer import VADAnalyzer, VADState
from antiphon.frames.frames import (
    BotInterruptionFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EmulateUserStartedSpeakingFrame,
    EmulateUserStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    FilterControlFrame,
    Frame,
    InputAudioRawFrame,
    InputImageRawFrame,
    MetricsFrame,
    SpeechControlParamsFrame,
    StartFrame,
    StartInterruptionFrame,
    StopFrame,
    StopInterruptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADParamsUpdateFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import MetricsData
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.transports.base_transport import TransportParams
from antiphon.transports.caller_line import CallerLine

AUDIO_INPUT_TIMEOUT_SECS = 0.5
"""Seconds without audio after which a speaking user is taken to have stopped."""

AUDIO_QUEUE_FRAMES = 256
"""Received frames that may wait; push_audio_frame() waits when there are as many."""


class BaseInputTransport(FrameProcessor):
    """Pushes what a transport receives, and says when the user speaks.

    A transport derives from this, calls ``set_transport_ready()`` once it is connected and then
    ``push_audio_frame()`` and ``push_video_frame()`` with what it receives. One task works off the
    audio: filter, voice activity, end of turn, and then the audio itself, so that the frames come
    out in an order that depends on the samples alone.
    """

    movable = False
    pinned_reason = "holds the session's connection to the caller"

    def __init__(self, params: TransportParams, **kwargs: object) -> None:
        """Makes the processor; nothing runs before the StartFrame.

        Args:
            params: What is received.
            **kwargs: Passed to FrameProcessor.
        """
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self._params = params
        self._sample_rate = 0
        self._paused = False
        self._bot_speaking = False
        # Between UserStarted and UserStopped, other than emulated ones.
        self._user_speaking = False
        self._vad_state = VADState.QUIET
        self._audio_in_queue: asyncio.Queue[InputAudioRawFrame] = asyncio.Queue(AUDIO_QUEUE_FRAMES)
        self._audio_task: asyncio.Task[None] | None = None

    # -- facts ---------------------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:
        """Rate of received audio in Hz; 0 before the StartFrame."""
        return self._sample_rate

    @property
    def caller_line(self) -> CallerLine | None:
        """What keeps the caller's messages, so that the session can go on in another process.

        None for a transport that cannot be rejoined.
        """
        return None

    @property
    def vad_analyzer(self) -> VADAnalyzer | None:
        """What hears whether the user speaks."""
        return self._params.vad_analyzer

    @property
    def turn_analyzer(self) -> BaseTurnAnalyzer | None:
        """What judges whether the user has finished."""
        return self._params.turn_analyzer

    # -- for transports ------------------------------------------------------------------------

    def enable_audio_in_stream_on_start(self, enabled: bool) -> None:
        """Says whether audio is received from the start on."""
        self._params.audio_in_stream_on_start = enabled

    async def start_audio_in_streaming(self) -> None:
        """Begins to receive audio; for transports that can wait with it."""

    async def start(self, frame: StartFrame) -> None:
        """Prepares the analyzers and the filter; a transport connects after it."""
        self._paused = False
        self._user_speaking = False
        self._bot_speaking = False
        self._vad_state = VADState.QUIET
        self._sample_rate = self._params.audio_in_sample_rate or frame.audio_in_sample_rate
        if self._params.vad_analyzer is not None:
            # An analyzer loads its model when it learns the rate: not on the event loop.
            await asyncio.to_thread(self._params.vad_analyzer.set_sample_rate, self._sample_rate)
        if self._params.turn_analyzer is not None:
            self._params.turn_analyzer.set_sample_rate(self._sample_rate)
        await self._push_speech_control()
        if self._params.audio_in_filter is not None:
            await self._params.audio_in_filter.start(self._sample_rate)

    async def stop(self, frame: EndFrame) -> None:
        """Stops working off audio; a transport disconnects after it."""
        await self._end()

    async def pause(self, frame: StopFrame) -> None:
        """Takes no more audio or images until the next StartFrame."""
        self._paused = True
        await self._cancel_audio_task()

    async def cancel(self, frame: CancelFrame) -> None:
        """Stops working off audio, at once."""
        await self._end()

    async def set_transport_ready(self, frame: StartFrame) -> None:
        """Begins to work off received audio. A transport calls this when it is connected."""
        self._create_audio_task()

    async def push_audio_frame(self, frame: InputAudioRawFrame) -> None:
        """Takes received audio; waits while too much of it is queued.

        Audio is dropped when it is disabled, and before ``set_transport_ready()``.
        """
        if self._params.audio_in_enabled and not self._paused and self._audio_task is not None:
            await self._audio_in_queue.put(frame)

    async def push_video_frame(self, frame: InputImageRawFrame) -> None:
        """Pushes a received image, unless video is disabled."""
        if self._params.video_in_enabled and not self._paused:
            await self.push_frame(frame)

    # -- frames --------------------------------------------------------------------------------

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Follows the life of the pipeline and answers requests from processors downstream."""
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            # First of all frames, and before a connection can bring any other.
            await self.push_frame(frame, direction)
            await self.start(frame)
        elif isinstance(frame, CancelFrame):
            await self.cancel(frame)
            await self.push_frame(frame, direction)
        elif isinstance(frame, EndFrame):
            await self.push_frame(frame, direction)
            await self.stop(frame)
        elif isinstance(frame, StopFrame):
            await self.push_frame(frame, direction)
            await self.pause(frame)
        elif isinstance(frame, BotInterruptionFrame):
            await self._interrupt()
        elif isinstance(frame, EmulateUserStartedSpeakingFrame):
            await self._user_started(emulated=True)
        elif isinstance(frame, EmulateUserStoppedSpeakingFrame):
            await self._user_stopped(emulated=True)
        elif isinstance(frame, VADParamsUpdateFrame):
            if self._params.vad_analyzer is not None:
                self._params.vad_analyzer.set_params(frame.params)
                await self._push_speech_control()
        elif isinstance(frame, FilterControlFrame) and self._params.audio_in_filter is not None:
            await self._params.audio_in_filter.process_frame(frame)
        else:
            if isinstance(frame, BotStartedSpeakingFrame):
                self._bot_speaking = True
            elif isinstance(frame, BotStoppedSpeakingFrame):
                self._bot_speaking = False
            await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Ends the audio task, if the pipeline ended without an end frame."""
        await super().cleanup()
        await self._cancel_audio_task()

    # -- inside --------------------------------------------------------------------------------

    async def _end(self) -> None:
        await self._cancel_audio_task()
        if self._params.audio_in_filter is not None:
            await self._params.audio_in_filter.stop()

    async def _push_speech_control(self) -> None:
        vad, turn = self._params.vad_analyzer, self._params.turn_analyzer
        if vad is None and turn is None:
            return
        await self.push_frame(
            SpeechControlParamsFrame(
                vad_params=vad.params if vad else None, turn_params=turn.params if turn else None
            )
        )

    async def _user_started(self, *, emulated: bool = False) -> None:
        logger.debug("user started speaking", processor=self.name, emulated=emulated)
        if not emulated:
            self._user_speaking = True
        await self.push_frame(UserStartedSpeakingFrame(emulated=emulated))
        # With strategies and a speaking bot, the user aggregator decides and sends a
        # BotInterruptionFrame.
        if not (self.interruption_strategies and self._bot_speaking):
            await self._interrupt()

    async def _user_stopped(self, *, emulated: bool = False) -> None:
        logger.debug("user stopped speaking", processor=self.name, emulated=emulated)
        if not emulated:
            self._user_speaking = False
        await self.push_frame(UserStoppedSpeakingFrame(emulated=emulated))
        if self.interruptions_allowed:
            await self._stop_interruption()
            await self.push_frame(StopInterruptionFrame())

    async def _interrupt(self) -> None:
        if self.interruptions_allowed:
            await self._start_interruption()
            await self.push_frame(StartInterruptionFrame())

    # -- the audio task ------------------------------------------------------------------------

    def _create_audio_task(self) -> None:
        if self._audio_task is None and self._params.audio_in_enabled:
            # A push_audio_frame() that waited when the last task ended has added its frame since.
            self._drop_queued_audio()
            self._audio_task = self.create_task(self._audio_task_handler(), "audio")

    async def _cancel_audio_task(self) -> None:
        task, self._audio_task = self._audio_task, None
        if task is not None:
            await self.cancel_task(task)
        self._drop_queued_audio()

    def _drop_queued_audio(self) -> None:
        while not self._audio_in_queue.empty():
            self._audio_in_queue.get_nowait()
            self.statistics.frames_dropped += 1

    async def _audio_task_handler(self) -> None:
        failing = False
        while True:
            frame = await self._next_audio()
            try:
                if frame is None:
                    await self._audio_stopped()
                else:
                    await self._handle_audio(frame)
                failing = False
            except Exception as error:  # noqa: BLE001 - reported, and the stream goes on
                self.statistics.errors += 1
                # What fails for one piece of audio often fails for the next, 50 times a second.
                if not failing:
                    logger.opt(exception=error).error(
                        "received audio not processed", processor=self.name
                    )
                    await self.push_error(ErrorFrame(error=f"received audio: {error}"))
                failing = True
            self.reset_watchdog()

    async def _next_audio(self) -> InputAudioRawFrame | None:
        """The next received frame; None if none comes in time while the user is speaking."""
        if not self._user_speaking:
            return await self._audio_in_queue.get()
        try:
            async with asyncio.timeout(AUDIO_INPUT_TIMEOUT_SECS):
                return await self._audio_in_queue.get()
        except TimeoutError:
            return None

    async def _audio_stopped(self) -> None:
        # The connection may have died in mid-word: without this the bot would wait for ever.
        logger.warning("no audio received while the user speaks", processor=self.name)
        self._vad_state = VADState.QUIET
        if self._params.turn_analyzer is not None:
            self._params.turn_analyzer.clear()
        await self._user_stopped()

    async def _handle_audio(self, frame: InputAudioRawFrame) -> None:
        if self._params.audio_in_filter is not None:
            frame.audio = await self._params.audio_in_filter.filter(frame.audio)
        previous = self._vad_state
        if self._params.vad_analyzer is not None:
            await self._handle_vad(await self._vad_analyze(frame))
        if self._params.turn_analyzer is not None:
            await self._run_turn_analyzer(self._params.turn_analyzer, frame, previous)
        if self._params.audio_in_passthrough:
            await self.push_frame(frame)

    async def _vad_analyze(self, frame: InputAudioRawFrame) -> VADState:
        """The state of voice activity after this audio."""
        if self._params.vad_analyzer is None:
            return VADState.QUIET
        # On the event loop: a Silero window costs 0.1-0.2 ms, and a thread doubles that (measured:
        # 100 against 220 us for 20 ms of audio).
        return self._params.vad_analyzer.analyze_audio(frame.audio)

    async def _handle_vad(self, state: VADState) -> None:
        """Pushes the speaking frames of a change; STARTING and STOPPING are changes to come."""
        if state is self._vad_state or state in (VADState.STARTING, VADState.STOPPING):
            return
        self._vad_state = state
        turn = self._params.turn_analyzer
        # Inside a turn, the turn analyzer says when the user is done: pauses are no news.
        voice_decides = turn is None or not turn.speech_triggered
        if state is VADState.SPEAKING:
            await self.push_frame(VADUserStartedSpeakingFrame())
            if voice_decides:
                await self._user_started()
        else:
            await self.push_frame(VADUserStoppedSpeakingFrame())
            if voice_decides:
                await self._user_stopped()

    async def _run_turn_analyzer(
        self, turn: BaseTurnAnalyzer, frame: InputAudioRawFrame, previous: VADState
    ) -> None:
        verdict = turn.append_audio(frame.audio, self._vad_state is VADState.SPEAKING)
        if verdict is not EndOfTurnState.COMPLETE and (
            self._vad_state is VADState.QUIET and previous is not VADState.QUIET
        ):
            verdict, prediction = await turn.analyze_end_of_turn()
            if prediction is not None:
                await self._handle_prediction_result(prediction)
        if verdict is EndOfTurnState.COMPLETE:
            await self._user_stopped()

    async def _handle_prediction_result(self, result: MetricsData) -> None:
        """Pushes what a verdict of the turn analyzer measured."""
        await self.push_frame(MetricsFrame(data=[result]))
