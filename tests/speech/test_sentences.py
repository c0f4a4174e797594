import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.utils.string import (
    SENTENCE_ENDING_PUNCTUATION,
    match_endofsentence,
    parse_start_end_tags,
)
from antiphon.utils.text.simple_text_aggregator import SimpleTextAggregator

COMPLETE = [
    "We close at nine.",
    "We close at nine!",
    "Do you close at nine?",
    "We close at nine;",
    "We close at nine...",
    "We close at nine. . .",
    "You met Mr. and Mrs. Garcia.",
    "You met Mr. and Mrs.",
    "He works for the U.S. Army.",
    "N.A.S.A. and the E.S.A.",
    "NASA and ESA.",
    "Dial 555-123-4567.",
    "Dial 112.",
    "Write to ann.lee@example.org or to desk@example.org.",
    "Write to spell(ann.lee@example.org).",
    "Write to <spell>ann.lee@example.org</spell>.",
    "Pi is about 3.14159.",
    "That is 6.02e23.",
    "It costs $29.95.",
    "We meet at 7:30 p.m.",
    "Some fruit, e.g. apples, is cheap.",
    "Version 2.0.1 is out.",
    "Wir treffen uns am 3. Juli 2024.",
    'He said "stop."',
    "Is it?!",
    "See https://example.org/a?b=c.d for more.",
    "No. 7 is alive.",
]

INCOMPLETE = [
    "",
    "   ",
    "We close",
    "We close at nine,",
    "We close at nine, ",
    "Ok, Mr. Garcia it",
    "Dr. Weber, I presume ",
    "Prof. Weber, I presume ",
    "erstens, zweitens und 3",
    "Heute ist der 3",
    "He went to the U.S",
    "Write to ann.lee@example.org and desk@example.org",
    "Pi is about 3.14159",
    "Fish &amp; chips",
    "Fish &amp;",
    "你好，",
    "مرحبا،",
    "!",
    ". . .",
    ' "',
]

BY_LANGUAGE = {
    "ar": ["كيف حالك؟", "أهلا بكم؛"],
    "ur": ["یہ کتاب ہے۔"],
    "zh": ["早上好。", "早上好！", "吃饭了吗？", "先坐下；"],
    "ja": ["おはよう。", "元気？", "すごい！"],
    "ko": ["반갑습니다.", "안녕。", "괜찮아요？"],
    "hi": ["नमस्ते।", "आप कैसे हैं？", "वाह！"],
    "bn": ["ধন্যবাদ।"],
    "ta": ["நன்றி।"],
    "th": ["ขอบคุณ।"],
    "my": ["ဟုတ်ကဲ့။", "ဟုတ်ကဲ့၊"],
    "km": ["សួស្តី។"],
    "hy": ["Բարեւ։", "Ինչու՞", "Ուռա՜"],
    "am": ["እሺ።", "ለምን፧"],
    "es": ["¿Qué tal?", "Buenos días."],
    "de": ["Guten Tag.", "Er wohnt in der Hauptstr. 7."],
    "ru": ["Спасибо.", "Как дела?"],
    "el": ["Καλημέρα."],
    "he": ["תודה."],
    "ka": ["გმადლობთ."],
}

FIRST_OF_MORE = [
    ("We close at nine. Come early", "We close at nine."),
    ("Hello there! How are you?", "Hello there!"),
    ("Is it? yes", "Is it?"),
    ("One; two; three", "One;"),
    ("Dr. Weber is in. Go ahead.", "Dr. Weber is in."),
    ("I met J. R. R. Tolkien. He wrote.", "I met J. R. R. Tolkien."),
    ("Bread, milk, etc. are cheap. Buy.", "Bread, milk, etc. are cheap."),
    ("Bread, milk, etc. Buy them.", "Bread, milk, etc."),
    ("He left the U.S. The rest stayed.", "He left the U.S."),
    ("Go with plan B. It works.", "Go with plan B."),
    ("We open at 9 a.m. Come early.", "We open at 9 a.m."),
    ("We open at 9 a.m. on Sundays. Come.", "We open at 9 a.m. on Sundays."),
    ("It costs $29. That is cheap.", "It costs $29."),
    ("It costs $29.95. That is cheap.", "It costs $29.95."),
    ("1. Wash it. 2. Dry it.", "1. Wash it."),
    ("Do this: 1. Wash it. 2. Dry it.", "Do this: 1. Wash it."),
    ("Am 3. Juli. Danach nicht.", "Am 3. Juli."),
    ("Tiere, z.B. Hunde, mag er. Ja.", "Tiere, z.B. Hunde, mag er."),
    ('"Stop!" she said. He went.', '"Stop!" she said.'),
    ("Well... maybe so. Or not.", "Well... maybe so."),
    ("Well... Maybe so.", "Well..."),
    ("No. I do not.", "No."),
    ("(He left.) She stayed.", "(He left.)"),
    ("早上好。你吃了吗？", "早上好。"),
    ("नमस्ते। आप कैसे हैं？", "नमस्ते।"),
    ("Ինչպե՞ս եք։ Լավ։", "Ինչպե՞ս եք։"),
    ("First.\nSecond.", "First."),
]


@pytest.mark.parametrize("text", COMPLETE)
def test_a_sentence_ends_where_its_text_ends(text: str) -> None:
    assert match_endofsentence(text) == len(text)


@pytest.mark.parametrize("text", INCOMPLETE)
def test_unfinished_text_has_no_sentence(text: str) -> None:
    assert match_endofsentence(text) == 0


@pytest.mark.parametrize("text", [text for sentences in BY_LANGUAGE.values() for text in sentences])
def test_sentences_end_in_many_scripts(text: str) -> None:
    assert match_endofsentence(text) == len(text)


@pytest.mark.parametrize("mark", sorted(SENTENCE_ENDING_PUNCTUATION))
def test_every_mark_ends_a_sentence(mark: str) -> None:
    assert match_endofsentence(f"word{mark}") == 5


@pytest.mark.parametrize(("text", "first"), FIRST_OF_MORE)
def test_the_first_of_several_sentences_is_found(text: str, first: str) -> None:
    assert text[: match_endofsentence(text)] == first


@pytest.mark.parametrize(
    ("so_far", "more", "first"),
    [
        ("Ask Mr.", " Garcia. He knows", "Ask Mr. Garcia."),
        ("It is $29.", "95. Cheap", "It is $29.95."),
        ("It is $29.", " That is", "It is $29."),
        ("Am 3.", " Juli. Gut", "Am 3. Juli."),
        ("Fruit, e.g.", " apples. More", "Fruit, e.g. apples."),
        ("The U.S.", " Army. More", "The U.S. Army."),
        ("Version 2.", "0. More", "Version 2.0."),
    ],
)
def test_a_period_that_may_mean_something_else_waits(so_far: str, more: str, first: str) -> None:
    assert match_endofsentence(so_far, partial=True) == 0
    text = so_far + more
    assert text[: match_endofsentence(text, partial=True)] == first


@pytest.mark.parametrize("text", ["Yes.", "No.", "It works.", "Done!", "Now?", "好。"])
def test_an_unmistakable_end_does_not_wait(text: str) -> None:
    assert match_endofsentence(text, partial=True) == len(text)


@given(st.text(alphabet=" .!?;abAB19\"')。।\n&", max_size=40), st.booleans())
def test_the_end_lies_in_the_text_and_behind_something(text: str, partial: bool) -> None:
    end = match_endofsentence(text, partial=partial)
    assert 0 <= end <= len(text.rstrip())
    assert not end or text[:end].strip(" .!?;\"')。।\n")


async def _speak(tokens: list[str]) -> list[str]:
    aggregator = SimpleTextAggregator()
    sentences = [out for token in tokens if (out := await aggregator.aggregate(token))]
    if aggregator.text:
        sentences.append(aggregator.text)
    return sentences


async def test_the_aggregator_keeps_the_rest_with_its_space() -> None:
    aggregator = SimpleTextAggregator()
    assert await aggregator.aggregate("Good ") is None
    assert await aggregator.aggregate("day! How are") == "Good day!"
    assert aggregator.text == " How are"
    assert await aggregator.aggregate(" you?") == " How are you?"
    assert aggregator.text == ""
    await aggregator.aggregate("Half a")
    await aggregator.handle_interruption()
    assert aggregator.text == ""
    await aggregator.aggregate("Half a")
    await aggregator.reset()
    assert aggregator.text == ""


async def test_a_longer_piece_is_spoken_without_waiting() -> None:
    assert await SimpleTextAggregator().aggregate("It costs $29.") == "It costs $29."


async def test_tokens_give_the_same_sentences_however_they_are_cut() -> None:
    sentences = [
        "Mr. Garcia pays $29.95 on the 3rd.",
        " Is that ok?",
        " The U.S. Army says no!",
        " We open at 9 a.m. on Sunday.",
        " Bye.",
    ]
    text = "".join(sentences)
    words = text.replace(" ", "\0 ").split("\0")
    assert await _speak(words) == sentences
    randomness = random.Random(7)
    for _ in range(20):
        tokens, rest = [], text
        while rest:
            size = randomness.randint(1, 4)
            tokens.append(rest[:size])
            rest = rest[size:]
        assert await _speak(tokens) == sentences


@given(st.lists(st.text(alphabet=" .!?ab1。", max_size=6), max_size=12))
async def test_the_aggregator_loses_nothing(tokens: list[str]) -> None:
    assert "".join(await _speak(tokens)) == "".join(tokens)


A = ("<a>", "</a>")
SPELL = ("spell(", ")")


@pytest.mark.parametrize(
    ("text", "tags", "current", "index", "expected"),
    [
        ("Plain", [], None, 0, (None, 0)),
        ("Plain", [A], None, 0, (None, 0)),
        ("It is <a>red</a>!", [A], None, 0, (None, 17)),
        ("It is <a>red", [A], None, 0, (A, 12)),
        ("It is <a>red", [A], A, 12, (A, 12)),
        ("It is <a>red</a>", [A], A, 12, (None, 16)),
        ("It is spell(red", [SPELL], None, 0, (SPELL, 15)),
        ("x spell( <a> )", [A, SPELL], None, 0, (None, 14)),
        ("x </a>", [A], None, 0, (None, 0)),
        ("<a>1</a><a>2", [A], None, 0, (A, 12)),
        ("y</a> spell(q", [A, SPELL], A, 0, (SPELL, 13)),
    ],
)
def test_tags_are_followed(
    text: str,
    tags: list[tuple[str, str]],
    current: tuple[str, str] | None,
    index: int,
    expected: tuple[tuple[str, str] | None, int],
) -> None:
    assert parse_start_end_tags(text, tags, current, index) == expected


def test_tags_that_come_in_pieces_are_found() -> None:
    text = "see <a>x</a> or spell(y) now <a>z</a>"
    tag: tuple[str, str] | None = None
    index = 0
    states = []
    for end in range(1, len(text) + 1):
        tag, index = parse_start_end_tags(text[:end], [A, SPELL], tag, index)
        states.append(tag)
    assert states[-1] is None
    assert [s for s, t in zip(states, [None, *states], strict=False) if s != t and s] == [
        A,
        SPELL,
        A,
    ]
