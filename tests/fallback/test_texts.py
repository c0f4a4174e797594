"""Continuations, scripts and how far they are spoken, kept audio."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.frames.frames import (
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    UserAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.heard_text import begin_text
from antiphon.services.fallback.kept_audio import KeptAudio
from antiphon.services.fallback.overlap import Continuation, without_overlap
from antiphon.services.fallback.speech import Speech
from antiphon.services.fallback.spoken import Script, SpokenText
from antiphon.utils.text.simple_text_aggregator import SimpleTextAggregator

# -- continuations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        ("The weather is", "cold.", "cold."),
        ("The weather is", "is cold.", "cold."),
        ("The weather is", "the weather IS: cold.", "cold."),
        ("The weather is", "weather is", ""),
        ("The weather is", "weather was cold.", "weather was cold."),
        ("I think that", "that is so.", "is so."),
        ("one two one two", "one two three", "three"),
        ("", "All of it.", "All of it."),
        ("All of it.", "", ""),
        ("Um -", "- yes", "yes"),
    ],
)
def test_without_overlap(before: str, after: str, new: str) -> None:
    assert without_overlap(before, after) == new


@pytest.mark.parametrize(
    ("before", "tokens", "spoken"),
    [
        ("It is", ["cold"], "It is cold"),
        ("It is ", [" cold"], "It is cold"),
        ("It is", [" cold", "."], "It is cold."),
        ("It is", [", well", "."], "It is, well."),
        ("It is", ["It", " is", " col", "d"], "It is cold"),
        ("It is", ["is", "land", " life"], "It is island life"),
        ("It is", ["It", " is"], "It is"),
    ],
)
def test_a_continuation_in_pieces(before: str, tokens: list[str], spoken: str) -> None:
    continuation = Continuation(before)
    pieces = [continuation.feed(token) for token in tokens]
    assert before + "".join(pieces) + continuation.rest() == spoken


WORDS = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=12)


@given(WORDS, WORDS, st.integers(1, 5))
def test_nothing_is_lost_but_repetitions(before: list[str], after: list[str], size: int) -> None:
    said, more = " ".join(before), " ".join(after)
    continuation = Continuation(said)
    pieces = [continuation.feed(more[at : at + size]) for at in range(0, len(more), size)]
    new = ("".join(pieces) + continuation.rest()).split()
    # What is left out is the end of what was said.
    dropped = len(after) - len(new)
    assert new == after[dropped:]
    assert dropped == 0 or before[-dropped:] == after[:dropped]
    # And it is all of it.
    assert not any(
        before[-n:] == after[:n] for n in range(dropped + 1, len(before) + 1) if n <= len(after)
    )


# -- scripts and what is spoken of them ------------------------------------------------------------


def script(*sentences: str) -> Script:
    made = Script()
    for sentence in sentences:
        made.add(sentence)
        made.end_sentence(len(made.text))
    return made


def test_words_come_in_pieces() -> None:
    made = Script()
    for piece in ("He", "llo th", "ere", ". ", "Bye"):
        made.add(piece)
    assert len(made) == 3
    assert made.between(0, 2) == "Hello there."
    assert made.end_sentence(12) == "Hello there."
    assert made.end_sentence(13) == ""  # nothing to be spoken
    assert made.last_end == 2
    assert made.text[made.start_of(2) :] == "Bye"
    assert made.start_of(3) == len(made.text)


def test_told_texts_are_found_although_filters_change_them() -> None:
    made = script("**Hello** there, it is $5. And it is so.")
    assert made.after(0, "Hello there") == 2
    assert made.after(2, "it is five dollars") == 6
    assert made.after(5, "it is so") == 9
    assert made.after(8, "so and much more than there is") == 9
    assert made.after(3, "  ") == 3


def test_a_text_that_begins_with_its_audio() -> None:
    # 15 characters a second: "One two three" is 13.
    spoken = SpokenText(script("One two three four.", " Five."))
    spoken.audio(0.5, 0.0, "One two three four.")
    assert (spoken.is_in_text, spoken.spoken, spoken.is_all) == (True, 2, False)
    spoken.audio(0.4, 0.0)
    assert spoken.spoken == 3
    assert spoken.tell("One two three four.")
    assert (spoken.is_in_text, spoken.spoken, spoken.is_all) == (False, 4, False)
    spoken.audio(9.0, 0.0, " Five.")
    assert spoken.spoken == 5
    spoken.complete()
    assert (spoken.is_in_text, spoken.spoken, spoken.is_all) == (False, 5, True)
    assert not spoken.tell(" Five.")


def test_words_with_times() -> None:
    spoken = SpokenText(script("One two three."))
    for at, word in ((10.0, "One"), (10.5, "two"), (11.0, "three.")):
        spoken.tell_word(word, at)
    assert (spoken.is_in_text, spoken.spoken) == (True, 0)
    spoken.audio(0.6, 10.0)
    assert (spoken.is_in_text, spoken.spoken) == (True, 1)
    assert (spoken.has_come(10.5), spoken.has_come(11.0)) == (True, False)
    spoken.audio(0.6, 10.1)
    # The last word may not be complete.
    assert (spoken.is_in_text, spoken.spoken) == (False, 2)
    spoken.complete()
    assert spoken.spoken == 3


def test_texts_that_are_told_ahead() -> None:
    spoken = SpokenText(script("This is the first one.", " And this one is the second."))
    assert not spoken.tell("This is the first one.")
    assert not spoken.tell(" And this one is the second.")
    assert spoken.spoken == 0
    spoken.audio(1.4, 0.0)
    assert 3 <= spoken.spoken <= 5
    spoken.complete()
    # So much audio is one of them.
    assert (spoken.spoken, spoken.is_all) == (5, False)
    spoken.audio(1.2, 0.0)
    spoken.complete()
    assert (spoken.spoken, spoken.is_all) == (11, True)


def test_who_tells_nothing_has_spoken_what_it_was_given() -> None:
    spoken = SpokenText(script("All of this sentence."))
    spoken.complete()
    assert spoken.spoken == 0
    spoken.audio(1.3, 0.0)
    spoken.complete()
    assert spoken.is_all


def test_words_that_are_told_otherwise_are_no_loss() -> None:
    spoken = SpokenText(script("It costs $ 29.95 :)", " Yes."))
    spoken.tell_word("It", 0.1)
    spoken.tell_word("costs", 0.2)
    spoken.audio(1.0, 0.0)
    spoken.complete()
    assert spoken.spoken == 5


async def speech(*frames: TextFrame | TTSSpeakFrame) -> Speech:
    made = Speech(SimpleTextAggregator())
    for frame in frames:
        await made.add(frame)
    return made


def audio(secs: float, begins: str | None = None) -> TTSAudioRawFrame:
    frame = TTSAudioRawFrame(bytes(2 * round(secs * 1000)), 1000, 1)
    if begins is not None:
        begin_text(frame, begins)
    return frame


def word(text: str, secs: float) -> TTSTextFrame:
    frame = TTSTextFrame(text)
    frame.pts = round(secs * 1e9)
    return frame


async def test_sentences_are_due_when_they_are_complete() -> None:
    made = Speech(SimpleTextAggregator())
    assert await made.add(LLMFullResponseStartFrame()) == ""
    assert await made.add(LLMTextFrame("Hello")) == ""
    assert await made.add(LLMTextFrame(" there.")) == "Hello there."
    assert await made.add(TextFrame(" :-)")) == ""
    assert (await made.add(TTSSpeakFrame("Now."))).split() == [":-)", "Now."]
    assert await made.add(LLMTextFrame("Bye")) == ""
    assert made.open_answers == 1
    assert (await made.add(LLMFullResponseEndFrame())).strip() == "Bye"
    assert made.open_answers == 0


async def test_the_rest_is_what_is_not_spoken_with_what_belongs_to_it() -> None:
    begin, end = LLMFullResponseStartFrame(), LLMFullResponseEndFrame()
    texts = [LLMTextFrame("One two"), LLMTextFrame(" three. "), LLMTextFrame("Four.")]
    made = Speech(SimpleTextAggregator())
    for frame in (begin, *texts, end):
        await made.add(frame)
    assert made.rest(lambda frame: True) == [begin, *texts, end]
    made.take_audio(audio(0.6, "One two three."), 0.0)
    told, stopped = TTSTextFrame("One two"), TTSStoppedFrame()
    made.take_other(TTSStartedFrame())
    handed = made.hand_over()
    assert [type(frame) for frame in handed] == [type(told), type(stopped)]
    assert [frame.text for frame in handed if isinstance(frame, TTSTextFrame)] == ["One two"]
    first, *rest = made.rest(lambda frame: False)
    assert first is begin  # a member has to know that an answer begins
    assert [frame.text for frame in rest if isinstance(frame, LLMTextFrame)] == ["three. ", "Four."]
    assert rest[-1] is texts[-1]
    assert made.hand_over() == []


async def test_words_go_with_their_audio() -> None:
    made = await speech(LLMTextFrame("One two three."))
    one, two, three = word("One", 5.0), word("two", 5.4), word("three.", 5.8)
    assert made.take_text(one) == ([], False)
    assert made.take_text(two) == ([], False)
    piece = audio(0.3)
    assert made.take_audio(piece, 5.0) == [piece, one]
    assert made.take_text(three) == ([], False)
    piece = audio(0.2)
    assert made.take_audio(piece, 5.1) == [piece, two]
    # The second word may have been cut: it is told already, but spoken again.
    assert made.hand_over() == []
    again, more = word("two", 5.2), word("three.", 5.6)
    made.take_audio(audio(0.2), 5.2)
    assert made.take_text(again) == ([], False)
    assert again.text == ""
    assert made.take_text(more) == ([], False)
    # Its times do not know of the audio before, which ends at 5.5.
    assert more.pts == round(5.9 * 1e9)
    assert made.complete() == [more]


# -- audio -----------------------------------------------------------------------------------------


def heard(secs: float, **kwargs: str) -> InputAudioRawFrame:
    pcm = bytes(2 * round(secs * 1000))
    return UserAudioRawFrame(pcm, 1000, 1, **kwargs) if kwargs else InputAudioRawFrame(pcm, 1000, 1)


def shown(kept: KeptAudio, *, is_speaking: bool = False) -> list[str]:
    found = []
    for frame in kept.frames(is_speaking=is_speaking):
        if isinstance(frame, InputAudioRawFrame):
            found.append(f"{len(frame.audio) / 2000:g}")
        else:
            found.append("[" if isinstance(frame, UserStartedSpeakingFrame) else "]")
            assert isinstance(frame, (UserStartedSpeakingFrame, UserStoppedSpeakingFrame))
    return found


def test_audio_is_given_again_in_larger_pieces() -> None:
    kept = KeptAudio(60.0)
    for _ in range(10):
        kept.add(heard(0.1))
    kept.start()
    kept.add(heard(0.2))
    kept.stop()
    kept.add(heard(0.1))
    assert shown(kept) == ["0.5", "0.5", "[", "0.2", "]", "0.1"]
    assert kept.stretches == 1
    kept.forget(but_secs=0.25)
    assert shown(kept) == ["0.1"]


def test_audio_of_different_people_is_not_mixed() -> None:
    kept = KeptAudio(60.0)
    for user in ("a", "a", "b"):
        kept.add(heard(0.1, user_id=user))
    frames = kept.frames(is_speaking=False)
    assert [frame.user_id for frame in frames if isinstance(frame, UserAudioRawFrame)] == ["a", "b"]


def test_speech_whose_beginning_is_forgotten_has_one() -> None:
    kept = KeptAudio(1.0)
    kept.start()
    for _ in range(15):
        kept.add(heard(0.1))
    assert kept.secs == pytest.approx(1.0)
    assert kept.dropped_secs == pytest.approx(0.5)
    assert shown(kept, is_speaking=True)[0] == "["
    kept.stop()
    assert shown(kept) == ["[", "0.5", "0.5", "]"]
    kept.add(heard(0.3))
    assert kept.forget_stretch()
    assert shown(kept) == ["0.3"]
    assert not kept.forget_stretch()
    kept.forget()
    assert shown(kept) == []
    assert kept.secs == 0.0


def test_audio_is_bounded_in_bytes_too() -> None:
    kept = KeptAudio(1e6)
    second = InputAudioRawFrame(bytes(2 * 48000), 48000, 1)
    for _ in range(40):
        kept.add(second)
    assert kept.secs == 32
