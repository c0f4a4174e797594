"""Speech recognisers that stand in for one another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    AudioRawFrame,
    Frame,
    InterimTranscriptionFrame,
    StartFrame,
    StartInterruptionFrame,
    STTMuteFrame,
    STTUpdateSettingsFrame,
    SystemFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.fallback.chain import DOWNSTREAM, FallbackChain
from antiphon.services.fallback.failover import Attempt
from antiphon.services.fallback.kept_audio import KeptAudio
from antiphon.services.fallback.member import Member
from antiphon.services.fallback.overlap import without_overlap
from antiphon.services.stt_service import SegmentedSTTService, STTService
from antiphon.transcriptions.language import Language
from antiphon.utils.checks import check_number

_BEFORE_SPEECH_SECS = 1.0
"""Detection of speech comes late: what came before belongs to it."""

_OVERLAP_SECS = 1.0
"""A transcript in the middle of speech comes late: the end of what it is of may not be in it."""

_LAST_WORDS_SECS = 30.0
"""How long the last transcript may take when the pipeline ends."""


class FallbackSTTService(FallbackChain[STTService], STTService):
    """Speech recognisers that stand in for one another.

    One member gets the audio at a time. What is being said is kept, so that the next member hears all
    of it if that one fails, or has no transcript in time: nothing is lost, and what had a transcript
    already is not transcribed again.

    A recogniser that works from pause to pause says when it has understood nothing; one that listens
    all the time does not. If such a member gives nothing for what was said, the next one is asked as
    well, and only if that one has understood something the first one counts as failing.
    """

    member_class = STTService

    def __init__(
        self,
        services: Sequence[STTService],
        *,
        attempt_timeout_secs: float = 5.0,
        stall_timeout_secs: float | None = 5.0,
        keep_secs: float = 60.0,
        **kwargs: Any,
    ) -> None:
        """Makes a chain.

        Args:
            services: Its members, the preferred one first.
            attempt_timeout_secs: From the end of what was said to its transcript; then the next
                member is asked.
            stall_timeout_secs: The same after an interim transcript.
            keep_secs: Length of audio without a transcript that is kept at most, the newest; never
                more than 3 MiB.
            **kwargs: Passed on to ``FallbackChain`` and ``STTService``.
        """
        super().__init__(
            services,
            attempt_timeout_secs=attempt_timeout_secs,
            stall_timeout_secs=stall_timeout_secs,
            **kwargs,
        )
        check_number("FallbackSTTService(keep_secs)", keep_secs, at_least=_BEFORE_SPEECH_SECS)
        self._kept = KeptAudio(keep_secs)
        self._fed: Member[STTService] = self._members[0]
        self._probe_fed: Member[STTService] | None = None
        self._is_speaking = False
        # Cleared from the end of speech to its transcript.
        self._settled = asyncio.Event()
        self._settled.set()
        # The last transcript, while some of its audio is still kept.
        self._heard_before = ""
        self._may_repeat = False
        # Frames that keep their place among the transcripts, on their way through a member.
        self._through: dict[int, Frame] = {}

    # -- for bots ------------------------------------------------------------------------------

    def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Members recognise, not the chain.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{self}: the services of a chain recognise")

    async def set_model(self, model: str) -> None:
        """Sets the model of the preferred member: models are named by one vendor."""
        await self._members[0].service.set_model(model)

    async def set_language(self, language: Language) -> None:
        """Sets the language of all members."""
        for service in self.services:
            await service.set_language(language)

    # -- frames --------------------------------------------------------------------------------

    async def _start_members(self, frame: StartFrame) -> None:
        await super()._start_members(frame)
        await self._feed(self._active)

    async def _take(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, AudioRawFrame):
            if self._audio_passthrough:
                await self.push_frame(frame, direction)
            await self._hear(frame, direction)
        elif isinstance(frame, STTUpdateSettingsFrame):
            await self._change_settings(frame)
        elif isinstance(frame, STTMuteFrame):
            self._muted = frame.mute
            self._kept.forget()
            await self._tell(frame, direction)
        elif isinstance(frame, (UserStartedSpeakingFrame, UserStoppedSpeakingFrame)):
            await self.push_frame(frame, direction)
            if frame.emulated:
                await self._tell(frame, direction)
            elif isinstance(frame, UserStartedSpeakingFrame):
                await self._begin_to_listen(frame)
            else:
                await self._end_of_speech(frame)
        elif isinstance(frame, SystemFrame) or direction is not DOWNSTREAM:
            await self._tell(frame, direction)
            await self.push_frame(frame, direction)
        else:
            self._through[frame.id] = frame
            await self._fed.give(frame)

    async def _hear(self, frame: AudioRawFrame, direction: FrameDirection) -> None:
        assert isinstance(frame, Frame)
        if self._muted:
            return
        self._kept.add(frame)
        if self._vad_seen and not self._is_speaking and self._settled.is_set():
            self._kept.forget(but_secs=_BEFORE_SPEECH_SECS)
        for member in self._listening():
            await member.give(frame, direction)

    async def _begin_to_listen(self, frame: UserStartedSpeakingFrame) -> None:
        self._vad_seen = self._is_speaking = True
        self._kept.start()
        for member in self._listening():
            await member.give(frame)
        if self._asked is None:
            if self._probed is None:
                self._probe_fed = None
            self._apply(self._failover.begin(self._now()))
        else:
            self._failover.settle()  # the speaker goes on
            self._set_timer()

    async def _end_of_speech(self, frame: UserStoppedSpeakingFrame) -> None:
        self._is_speaking = False
        self._kept.stop()
        for member in self._listening():
            await member.give(frame)
            await member.mark_end()
        if self._asked is None:
            return
        if self._muted:
            self._end_utterance()
            return
        self._settled.clear()
        self._expect_transcript()

    def _listening(self) -> list[Member[STTService]]:
        """Who gets what is said now: one that is to be probed gets it with all the rest."""
        probed = self._probed
        if probed is None or probed is not self._probe_fed:
            return [self._fed]
        return [self._fed, probed]

    def _expect_transcript(self) -> None:
        self._expect(certain=_tells_nothing(self._fed))

    async def _interrupt(self, frame: StartInterruptionFrame, direction: FrameDirection) -> None:
        """Passes an interruption on: it stops the bot, and nobody who listens."""
        for key, through in list(self._through.items()):
            if not through.survives_interruption:
                del self._through[key]
        for member in self._members:
            await member.give(frame, direction)
        for member in self._listening():
            # The mark of an end may have been dropped.
            await member.mark_again()
        await self.push_frame(frame, direction)

    # -- asking members ------------------------------------------------------------------------

    async def _begin_attempt(self, member: Member[STTService], attempt: Attempt) -> None:
        # Who has been listening has heard all of it.
        if member is not self._fed:
            await self._feed(member)

    async def _feed(self, member: Member[STTService]) -> None:
        """Lets a member listen, from what has no transcript yet on."""
        if member is not self._fed:
            self._fed.close()
            self._fed = member
        self._may_repeat = bool(self._heard_before)
        await self._open(member, urgent=True)
        await self._give_kept(member)
        for frame in self._through.values():
            await member.give(frame)
        if not self._settled.is_set():
            self._expect_transcript()

    async def _give_kept(self, member: Member[STTService]) -> None:
        for frame in self._kept.frames(is_speaking=self._is_speaking):
            await member.give(frame)
        if not self._settled.is_set():
            await member.mark_end()

    async def _begin_probe(self, member: Member[STTService]) -> None:
        self._probe_fed = member
        await self._open(member, urgent=True)
        await self._give_kept(member)

    def _shows_health(self, frame: Frame) -> bool:
        return isinstance(frame, TranscriptionFrame) and bool(frame.text.strip())

    async def _switched(self) -> None:
        if self._asked is None and self._fed is not self._active:
            await self._feed(self._active)

    # -- what members say ----------------------------------------------------------------------

    def _is_heard(self, member: Member[STTService]) -> bool:
        return member is self._fed

    async def _output(
        self, member: Member[STTService], frame: Frame, direction: FrameDirection
    ) -> None:
        if isinstance(frame, AudioRawFrame):
            return  # a member that passes audio on as if it were its own
        if isinstance(frame, TranscriptionFrame):
            await self._take_transcript(frame)
            return
        if isinstance(frame, InterimTranscriptionFrame):
            self._note_life()
        await self.push_frame(frame, direction)

    async def _take_transcript(self, frame: TranscriptionFrame) -> None:
        self._apply(self._failover.content(self._now()))
        text = frame.text
        if self._may_repeat:
            frame.text = without_overlap(self._heard_before, text)
        self._may_repeat = False
        self._heard_before = ""
        # It is of the first stretch of speech; without one, of what was said until about now.
        if not self._kept.forget_stretch() and (self._is_speaking or not self._vad_seen):
            self._kept.forget(but_secs=_OVERLAP_SECS)
            self._heard_before = text
        if frame.text:
            await self.push_frame(frame)
        if self._is_speaking:
            return
        if _tells_nothing(self._fed) and self._kept.stretches:
            self._expect_transcript()
        else:
            self._end_utterance()

    async def _reached_end(self, member: Member[STTService]) -> None:
        if not _tells_nothing(member) or self._is_speaking:
            return
        if member is self._probed:
            self._apply(self._failover.probe_passed())
        elif member is self._fed and not self._settled.is_set():
            self._end_utterance()  # nothing was understood

    def _end_utterance(self) -> None:
        self._settled.set()
        self._kept.forget_speech()
        self._finish()

    async def _came_through(self, member: Member[STTService], frame: Frame) -> None:
        if member is self._fed and self._through.pop(frame.id, None) is not None:
            await self.push_frame(frame)

    async def _gave_up(self) -> None:
        self._settled.set()
        self._kept.forget_speech()
        through, self._through = self._through, {}
        for frame in through.values():
            await self.push_frame(frame)
        await self._switched()

    async def _end_answer(self, frame: Frame) -> Member[STTService] | None:
        if _tells_nothing(self._fed):
            try:
                async with asyncio.timeout(_LAST_WORDS_SECS):
                    await self._settled.wait()
            except TimeoutError:
                logger.warning("last words were not recognised in time", processor=self.name)
        return None


def _tells_nothing(member: Member[STTService]) -> bool:
    """Whether a member shows that it has understood nothing, by letting later frames through."""
    return isinstance(member.service, SegmentedSTTService)
