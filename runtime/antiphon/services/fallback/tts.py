"""Speech services that stand in for one another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    StartInterruptionFrame,
    StopFrame,
    SystemFrame,
    TextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSUpdateSettingsFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.heard_text import text_begun
from antiphon.services.fallback.chain import DOWNSTREAM, FallbackChain
from antiphon.services.fallback.failover import Attempt
from antiphon.services.fallback.member import Member
from antiphon.services.fallback.speech import Speech
from antiphon.services.tts_service import TTSService
from antiphon.transcriptions.language import Language

_LAST_WORDS_SECS = 60.0
"""How long the last words may take when the pipeline ends."""

_ANSWER = (LLMFullResponseStartFrame, LLMFullResponseEndFrame)


class FallbackTTSService(FallbackChain[TTSService], TTSService):
    """Speech services that stand in for one another.

    A member that fails, or gives no audio in time, is followed by the next one, which speaks from the
    first word on that was not spoken: nothing is spoken twice, and nothing is left out. Where a
    service does not time its words, that place is estimated by the length of the audio.

    Members may have different sample rates. The voice changes with the service.
    """

    member_class = TTSService

    def __init__(
        self,
        services: Sequence[TTSService],
        *,
        attempt_timeout_secs: float = 3.0,
        stall_timeout_secs: float | None = 3.0,
        **kwargs: Any,
    ) -> None:
        """Makes a chain.

        Args:
            services: Its members, the preferred one first.
            attempt_timeout_secs: From a complete sentence to its first audio; then the next member
                is asked.
            stall_timeout_secs: From one piece of audio to the next within a sentence.
            **kwargs: Passed on to ``FallbackChain`` and ``TTSService``. If members collect their text
                otherwise than in sentences, give their kind of ``text_aggregator`` here too: it tells
                when audio has to be expected.
        """
        super().__init__(
            services,
            attempt_timeout_secs=attempt_timeout_secs,
            stall_timeout_secs=stall_timeout_secs,
            **kwargs,
        )
        self._speech: Speech | None = None
        # Frames that keep their place among the audio, and are on their way through a member.
        self._through: dict[int, Frame] = {}
        # Those that an interruption has left in a member; its own lane passes them on.
        self._survivors: dict[int, Frame] = {}
        # Members that say with which audio a text begins.
        self._marking: set[int] = set()
        self._ended: asyncio.Future[Member[TTSService] | None] | None = None
        self._bot_speaking = False
        # Whether the rest of an answer that nobody could speak is left out.
        self._skips_answer = False
        self._probe_waits = False

    # -- for bots ------------------------------------------------------------------------------

    def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Members speak, not the chain.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{self}: the services of a chain speak")

    async def set_model(self, model: str) -> None:
        """Sets the model of the preferred member: models are named by one vendor."""
        await self._members[0].service.set_model(model)

    def set_voice(self, voice: str) -> None:
        """Sets the voice of the preferred member: voices are named by one vendor."""
        self._members[0].service.set_voice(voice)

    async def set_language(self, language: Language) -> None:
        """Sets the language of all members."""
        for service in self.services:
            await service.set_language(language)

    async def flush_audio(self) -> None:
        """Makes a member that waits for more text speak what it has."""
        await self.active_service.flush_audio()

    # -- text ----------------------------------------------------------------------------------

    async def _take(self, frame: Frame, direction: FrameDirection) -> None:
        heard = isinstance(frame, (InterimTranscriptionFrame, TranscriptionFrame))
        if isinstance(frame, TTSUpdateSettingsFrame):
            await self._change_settings(frame)
        elif isinstance(frame, (TextFrame, TTSSpeakFrame)) and not heard:
            await self._add(frame)
        elif isinstance(frame, SystemFrame) or direction is not DOWNSTREAM:
            await self._tell(frame, direction)
            await self._note_bot(frame)
            await self.push_frame(frame, direction)
        elif self._speech is not None or isinstance(frame, _ANSWER):
            await self._add(frame)
        else:
            self._through[frame.id] = frame
            await self._active.give(frame)

    async def _add(self, frame: Frame) -> None:
        """Adds a frame to what is spoken now, or begins with it."""
        if self._skips_answer and isinstance(frame, TextFrame):
            return
        if self._skips_answer and isinstance(frame, LLMFullResponseEndFrame):
            self._skips_answer = False
            await self.push_frame(frame)
            return
        if self._speech is None:
            # What a member has not passed on by now it never will.
            self._through.clear()
            self._speech = Speech(self._text_aggregator)
            self._apply(self._failover.begin(self._now()))
        speech = self._speech
        if not isinstance(frame, (TextFrame, TTSSpeakFrame)):
            self._through[frame.id] = frame
        sentence = await speech.add(frame)
        if sentence:
            self._expect_audio()
            await self._ask_waiting_probe()
        member = self._asked
        if speech.is_fed and member is not None:
            await self._give_part(member, frame)
            if sentence or not isinstance(frame, TextFrame):
                speech.is_taken = False
                await member.mark_end()

    async def _note_bot(self, frame: Frame) -> None:
        if isinstance(frame, BotStartedSpeakingFrame):
            self._bot_speaking = True
        elif isinstance(frame, BotStoppedSpeakingFrame) and self._bot_speaking:
            self._bot_speaking = False
            speech, member = self._speech, self._asked
            if speech is None or member is None:
                return
            if member.service._pause_frame_processing and not speech.spoken.is_all:
                self._expect_audio()
            elif speech.is_taken and not speech.spoken.is_in_text and speech.spoken.spoken:
                # What was asked for has been heard, although the service does not say so.
                await self._push_all(speech.complete())
                self._note_rest(speech)

    def _expect_audio(self) -> None:
        member = self._asked
        # A member that pauses while the bot speaks cannot begin before that.
        waits = member is not None and member.service._pause_frame_processing and self._bot_speaking
        if not waits:
            self._expect()

    # -- asking members ------------------------------------------------------------------------

    async def _begin_attempt(self, member: Member[TTSService], attempt: Attempt) -> None:
        speech = self._speech
        if speech is None:
            return
        await self._push_all(speech.hand_over())
        await self._open(member)
        speech.is_fed, speech.is_taken = True, False
        for frame in speech.rest(lambda frame: frame.id in self._through):
            await self._give_part(member, frame)
        await member.mark_end()
        if not speech.spoken.is_all:
            self._expect_audio()

    async def _give_part(self, member: Member[TTSService], frame: Frame) -> None:
        if isinstance(frame, (EndFrame, StopFrame)):
            await self._end_with(member, frame)
        else:
            await member.give(frame)

    async def _begin_probe(self, member: Member[TTSService]) -> None:
        await self._open(member)
        self._probe_waits = True
        await self._ask_waiting_probe()

    async def _ask_waiting_probe(self) -> None:
        """Gives a member that is probed what is to be spoken, once there is a sentence."""
        speech, member = self._speech, self._probed
        if self._probe_waits and member is not None and speech is not None:
            if text := speech.script.first_sentence:
                self._probe_waits = False
                await member.give(TTSSpeakFrame(text))
                self._expect_audio()

    def _shows_health(self, frame: Frame) -> bool:
        return isinstance(frame, TTSAudioRawFrame)

    # -- what members say ----------------------------------------------------------------------

    def _is_heard(self, member: Member[TTSService]) -> bool:
        # Something may come behind the end, such as the silence after it.
        return member is (self._asked or self._active)

    async def _output(
        self, member: Member[TTSService], frame: Frame, direction: FrameDirection
    ) -> None:
        speech = self._speech
        if isinstance(frame, LLMFullResponseEndFrame):
            await self._take_end(speech, frame)
        elif speech is None or direction is not DOWNSTREAM:
            await self.push_frame(frame, direction)
        elif isinstance(frame, TTSAudioRawFrame):
            if text_begun(frame) is not None:
                self._marking.add(member.index)
            self._apply(self._failover.content(self._now()))
            await self._push_all(speech.take_audio(frame, self.get_clock().get_time() / 1e9))
            if speech is self._speech and speech.spoken.is_in_text:
                self._expect_more()
        elif isinstance(frame, TTSTextFrame):
            await self._take_text(member, speech, frame)
        else:
            await self._push_all(speech.take_other(frame))
            if isinstance(frame, TTSStoppedFrame):
                self._note_rest(speech)

    async def _take_text(
        self, member: Member[TTSService], speech: Speech, frame: TTSTextFrame
    ) -> None:
        tells_all = member.index in self._marking and not frame.pts
        if (
            tells_all
            and not speech.spoken.has_begun(frame.text)
            and any(character.isalnum() for character in frame.text)
        ):
            self._member_failed(member, "no audio for a text")
            return
        frames, is_spoken = speech.take_text(frame)
        await self._push_all(frames)
        if is_spoken:
            self._note_rest(speech)

    async def _take_end(self, speech: Speech | None, frame: LLMFullResponseEndFrame) -> None:
        """Passes on the end of an answer that a member has made itself, instead of what it got."""
        ends = (one for one in self._through.values() if isinstance(one, LLMFullResponseEndFrame))
        if (got := next(ends, None)) is None:
            return
        del self._through[got.id]
        if speech is None:
            await self.push_frame(frame)
            return
        await self._push_all([*speech.complete(), *speech.take_other(frame)])
        self._note_rest(speech)

    async def _came_through(self, member: Member[TTSService], frame: Frame) -> None:
        if isinstance(frame, (EndFrame, StopFrame)):
            return  # not yet: the other members have to end too
        waits = self._through
        if frame.id in self._survivors:
            waits = self._survivors
        elif self._speech is not None and not (member.is_open and member is self._asked):
            return  # the member that goes on passes it on
        if waits.pop(frame.id, None) is not None:
            await self.push_frame(frame)

    async def _reached_end(self, member: Member[TTSService]) -> None:
        speech = self._speech
        if speech is not None and member is self._asked:
            speech.is_taken = True
            self._end_if_over(speech)

    def _note_rest(self, speech: Speech) -> None:
        """Something has been spoken to its end: more is due, or all is said."""
        if speech is not self._speech:
            return
        if not speech.spoken.is_all:
            self._expect_audio()
            return
        self._failover.settle()
        self._set_timer()
        self._end_if_over(speech)

    def _end_if_over(self, speech: Speech) -> None:
        attempt = self._failover.attempt
        is_due = attempt is None or attempt.due_at is not None
        if speech.is_taken and speech.spoken.is_all and not speech.open_answers and not is_due:
            self._speech = None
            self._finish()

    async def _push_all(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            await self.push_frame(frame)

    # -- the end -------------------------------------------------------------------------------

    async def _end_answer(self, frame: Frame) -> Member[TTSService] | None:
        if self._speech is None:
            return None
        self._ended = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_LAST_WORDS_SECS):
                await self._add(frame)
                return await self._ended
        except TimeoutError:
            logger.warning("last words were not spoken in time", processor=self.name)
            return self._asked
        finally:
            self._ended = None
            self._through.pop(frame.id, None)

    async def _end_with(self, member: Member[TTSService], frame: Frame) -> None:
        """Lets a member end with what it has to say."""
        crossing = await member.cross(frame)

        def crossed(crossing: asyncio.Future[bool]) -> None:
            ended, speech = self._ended, self._speech
            if ended is None or ended.done() or not crossing.result():
                return
            if speech is not None and not speech.spoken.is_all and speech.spoken.is_nothing:
                self._member_failed(member, "no audio for the last words")
            else:
                ended.set_result(member)

        crossing.add_done_callback(crossed)

    async def _gave_up(self) -> None:
        speech, self._speech = self._speech, None
        if speech is None:
            return
        self._skips_answer = speech.open_answers > 0
        await self._text_aggregator.reset()
        await self._push_all(speech.hand_over())
        await self._let_through()

    async def _let_through(self) -> None:
        """Passes on what nobody will pass on any more."""
        through, self._through = self._through, {}
        for frame in through.values():
            if isinstance(frame, (EndFrame, StopFrame)):
                if self._ended is not None and not self._ended.done():
                    self._ended.set_result(None)
            else:
                await self.push_frame(frame)

    async def _interrupt(self, frame: StartInterruptionFrame, direction: FrameDirection) -> None:
        await self._forget_speech()
        await super()._interrupt(frame, direction)

    async def _forget_speech(self) -> None:
        speech, self._speech = self._speech, None
        self._skips_answer = self._probe_waits = False
        await self._text_aggregator.handle_interruption()
        through, self._through = self._through, {}
        for frame in through.values():
            if not frame.survives_interruption:
                continue
            # What was given to a member survives there.
            if speech is None or speech.is_fed:
                self._survivors[frame.id] = frame
            elif isinstance(frame, (EndFrame, StopFrame)):
                await self._end_with(self._active, frame)
            else:
                await self.push_frame(frame)
