"""Pattern pairs, skipped tags, and the Markdown filter."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.utils.text.base_text_aggregator import BaseTextAggregator
from antiphon.utils.text.markdown_text_filter import MarkdownTextFilter
from antiphon.utils.text.pattern_pair_aggregator import PatternMatch, PatternPairAggregator
from antiphon.utils.text.skip_tags_aggregator import SkipTagsAggregator

VOICES = "<voice>Ann</voice> Hello there. <voice>\nBob.\n</voice>How are you? Fine"


async def feed(aggregator: BaseTextAggregator, *texts: str) -> list[str]:
    """The sentences, and what is left."""
    sentences = [await aggregator.aggregate(text) for text in texts]
    return [*(sentence for sentence in sentences if sentence), aggregator.text]


def tokens(text: str) -> list[str]:
    """Cuts a text anywhere, always in the same way."""
    cut = random.Random(len(text))
    found = []
    while text:
        size = cut.randint(1, 4)
        found.append(text[:size])
        text = text[size:]
    return found


async def test_pairs_are_handled_and_taken_out_however_the_text_is_cut() -> None:
    for texts in (tokens(VOICES), list(VOICES)):
        found: list[Any] = []
        aggregator = PatternPairAggregator().add_pattern_pair("voice", "<voice>", "</voice>")
        aggregator.on_pattern_match("voice", found.append)
        sentences = await feed(aggregator, *texts)
        assert [match.content for match in found] == ["Ann", "\nBob.\n"]
        assert "".join(sentences) == " Hello there. How are you? Fine"
        assert sentences[0] == " Hello there."


async def test_a_kept_pair_is_handled_once() -> None:
    found: list[str] = []

    async def handler(match: PatternMatch) -> None:
        found.append(f"{match.pattern_id} {match.full_match} {match.content}")

    aggregator = PatternPairAggregator().add_pattern_pair("k", "[", "]", remove_match=False)
    assert aggregator.on_pattern_match("k", handler) is aggregator
    assert await feed(aggregator, "An [b] old", " car", ". Every [f]", " one") == [
        "An [b] old car.",
        " Every [f] one",
    ]
    assert found == ["k [b] b", "k [f] f"]
    assert str(PatternMatch("k", "[b]", "b")) == "PatternMatch(id=k, content=b)"


async def test_an_open_pair_holds_everything_back() -> None:
    aggregator = PatternPairAggregator().add_pattern_pair("a", "<a>", "</a>")
    assert await feed(aggregator, "One <a> two. ", "Three. ") == ["One <a> two. Three. "]
    await aggregator.handle_interruption()
    assert await feed(aggregator, "Four. ", "Five") == ["Four.", " Five"]


async def test_pairs_come_in_the_order_of_the_text_and_do_not_nest() -> None:
    found: list[str] = []
    aggregator = PatternPairAggregator()
    for name in ("b", "a"):
        aggregator.add_pattern_pair(name, f"<{name}>", f"</{name}>")
        aggregator.on_pattern_match(name, lambda match: found.append(match.full_match))
    await feed(aggregator, "<a>1<b>2</b></a> <b>3</b> ok.")
    assert found == ["<a>1<b>2</b></a>", "<b>3</b>"]


async def test_a_handler_that_fails_silences_nothing() -> None:
    def fail(match: PatternMatch) -> None:
        raise RuntimeError("no")

    aggregator = PatternPairAggregator().add_pattern_pair("a", "<a>", "</a>")
    aggregator.on_pattern_match("a", fail)
    assert await feed(aggregator, "Well <a>x</a>then. ", "Go") == ["Well then.", " Go"]
    with pytest.raises(ValueError, match="empty"):
        aggregator.add_pattern_pair("b", "", ">")


async def test_text_between_tags_stays_together() -> None:
    text = "Write to <spell>a. b! c@d.org</spell>. Or <code>x. y</code> call. Bye"
    aggregator = SkipTagsAggregator([("<spell>", "</spell>"), ("<code>", "</code>")])
    assert await feed(aggregator, *tokens(text)) == [
        "Write to <spell>a. b! c@d.org</spell>.",
        " Or <code>x. y</code> call.",
        " Bye",
    ]
    assert await feed(SkipTagsAggregator([]), "One. ", "Two") == ["One.", " Two"]


async def test_an_open_tag_is_forgotten_with_the_interruption() -> None:
    aggregator = SkipTagsAggregator([("<s>", "</s>")])
    assert await feed(aggregator, "All <s>bad. ", "Can. ") == ["All <s>bad. Can. "]
    await aggregator.handle_interruption()
    assert await feed(aggregator, "Done. ", "Else") == ["Done.", " Else"]


@pytest.mark.parametrize(
    ("markdown", "spoken"),
    [
        ("This is **important**.", "This is important."),
        ("*emphasized* and ***both*** __too__ _it_", "emphasized and both too it"),
        ("## Section\nText", "Section\nText"),
        ("Say `code` now", "Say code now"),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("<em>text</em> &amp; &lt;b&gt;&nbsp;x", "text & <b> x"),
        ("Stop!!!!!!! Really????", "Stop! Really?"),
        ("Well.......", "Well..."),
        ("1. One\n2. Two", "1. One\n2. Two"),
        ("- one\n* two\n  + three", "one\ntwo\nthree"),
        ("> quoted\n>> twice", "quoted\ntwice"),
        ("See [the page](https://example.org/a_b). ![x](y.png)", "See the page. "),
        ("Go to https://example.org/a_b_c", "Go to example.org/a_b_c"),
        ("a\n---\nb", "a\n\nb"),
        ("~~gone~~", "gone"),
        ("  white  space \n", "  white  space \n"),
        ("half **bold", "half bold"),
        ("half** of it", "half of it"),
        # No markup.
        ("snake_case_name and 2*3*4, 5 * 6 * 7", "snake_case_name and 2*3*4, 5 * 6 * 7"),
        ("a < b and c > d, -5 degrees, $1000000", "a < b and c > d, -5 degrees, $1000000"),
        ("Wait... what", "Wait... what"),
        ("| A | B |\n|---|:-:|\n| 1 | 2 |\nEnd", " A B \n 1 2 \nEnd"),
    ],
)
async def test_markdown_becomes_speech(markdown: str, spoken: str) -> None:
    assert await MarkdownTextFilter().filter(markdown) == spoken


async def test_code_is_left_out_over_several_pieces() -> None:
    code = MarkdownTextFilter(MarkdownTextFilter.InputParams(filter_code=True))
    texts = ("Look: ```python", "x = 1", "``` done. And ```y``` too.", "```open")
    assert [(await code.filter(text)).split() for text in texts] == [
        ["Look:"],
        [],
        ["done.", "And", "too."],
        [],
    ]
    await code.handle_interruption()
    await code.reset_interruption()
    assert await code.filter("Next.") == "Next."


async def test_tables_are_left_out() -> None:
    tables = MarkdownTextFilter(MarkdownTextFilter.InputParams(filter_tables=True))
    assert await tables.filter("So:\n| A | B |\n|--|--|\n| 1 | 2 |\nDone.") == "So:\nDone."


async def test_settings_change_while_it_runs() -> None:
    markdown = MarkdownTextFilter()
    await markdown.update_settings({"enable_text_filter": False, "unknown": 1})
    assert await markdown.filter("**x**") == "**x**"
    await markdown.update_settings({"enable_text_filter": True})
    assert await markdown.filter("**x**") == "x"


@given(st.text(alphabet="ab1 *_`#|<>&-~[]()!.\n", max_size=60))
async def test_any_text_is_filtered_and_words_stay(text: str) -> None:
    filtered = await MarkdownTextFilter().filter(f"{text}\n\nlast")
    assert filtered.endswith("last")
