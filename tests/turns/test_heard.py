"""The conversation holds what the user has heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from tests.turns.conftest import Bot, Run, locally

from antiphon.frames.frames import Frame, TTSAudioRawFrame, TTSStartedFrame, TTSStoppedFrame
from antiphon.processors.heard_text import words_within
from antiphon.services.tts_service import TTSService
from antiphon.testing import FakeTTSService, FakeWordTTSService
from antiphon.transports._output.heard import HeardText

pytestmark = pytest.mark.virtual_time

FIRST = "First of all there is a long sentence with many words in it."
SECOND = "Then there is another one."
BYTES_PER_SEC = 24000 * 2
BYTES_PER_CHARACTER = BYTES_PER_SEC * 20 // 1000
QUESTION = ("speak", 1.0)


class AheadTTS(TTSService):
    """Sends its audio from a task of its own, behind the text, as over a websocket."""

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        yield TTSStartedFrame()
        self.create_task(self._send(text), "send")
        yield None

    async def _send(self, text: str) -> None:
        await asyncio.sleep(0.1)
        for _ in text:
            await self.push_frame(
                TTSAudioRawFrame(b"\1\1" * (BYTES_PER_CHARACTER // 2), self.sample_rate, 1)
            )
        await self.push_frame(TTSStoppedFrame())


@pytest.mark.parametrize("make", [FakeTTSService, FakeWordTTSService, AheadTTS])
async def test_an_answer_that_was_played_is_stored_whole(make: type[TTSService], run: Run) -> None:
    bot = Bot(make(), [f"{FIRST} {SECOND}"])
    await bot.talk(run, QUESTION, ("wait", 8.0))
    assert bot.said() == [f"{FIRST} {SECOND}"]


@pytest.mark.parametrize("make", [FakeTTSService, FakeWordTTSService, AheadTTS])
async def test_an_interrupted_answer_ends_where_it_was_cut(
    make: type[TTSService], run: Run
) -> None:
    bot = Bot(make(), [FIRST, "Yes."])
    await bot.talk(run, QUESTION, ("wait", 1.5), QUESTION, ("wait", 4.0))
    first, second = bot.said()
    heard = bot.tape.cuts[-1] / (BYTES_PER_CHARACTER * len(FIRST))
    assert 0.2 < heard < 0.9
    assert second == "Yes."
    whole = words_within(FIRST, heard)
    if make is FakeWordTTSService:  # has the word that is being spoken, too
        assert first.startswith(whole)
        assert len(first.split()) - len(whole.split()) in (0, 1)
    else:
        assert first == whole


async def test_sentences_before_the_cut_are_kept() -> None:
    bot = Bot(FakeTTSService(), [f"{SECOND} {FIRST}", "Yes."])
    await bot.talk(locally, QUESTION, ("wait", 1.8), QUESTION, ("wait", 4.0))
    said, _ = bot.said()
    assert said.startswith(f"{SECOND} First")
    assert said != f"{SECOND} {FIRST}"


async def test_an_answer_nobody_heard_is_not_in_the_conversation() -> None:
    bot = Bot(SlowTTS(), [FIRST, "Yes."])
    await bot.talk(locally, QUESTION, ("wait", 1.0), QUESTION, ("wait", 4.0))
    assert bot.said() == ["Yes."]


class SlowTTS(AheadTTS):
    """Takes long to begin with long texts."""

    async def _send(self, text: str) -> None:
        await asyncio.sleep(10.0 if text == FIRST else 0.1)
        await super()._send(text)


def test_words_are_whole() -> None:
    assert words_within("one two three", 0.0) == ""
    assert words_within("one two three", 0.5) == "one"
    assert words_within("one two three", 0.6) == "one two"
    assert words_within("one two three", 1.0) == "one two three"


async def test_a_text_whose_audio_is_not_complete_is_measured_by_its_length() -> None:
    heard = HeardText(bytes_per_sec=1000)
    heard.begins("a" * 14 + " " + "b" * 15)  # two seconds
    heard.received(1200)
    heard.played(1000)
    assert heard.cut().heard == "a" * 14
    assert heard.cut().heard == ""


async def test_texts_that_were_passed_on_are_not_heard_twice() -> None:
    heard = HeardText(bytes_per_sec=1000)
    heard.begins("one.")
    heard.received(100)
    heard.told("one.")
    heard.received(100)  # a service that does not say where a text begins
    heard.told("two.")
    heard.played(100)
    heard.passed_on()
    heard.played(100)
    assert heard.cut().heard == "two."


async def test_a_text_without_any_audio_was_not_heard() -> None:
    heard = HeardText(bytes_per_sec=1000)
    heard.told("one.")
    heard.passed_on()
    assert heard.cut().ahead_heard == ""
