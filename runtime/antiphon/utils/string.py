"""Where sentences end, and where tagged stretches of text begin and end.

The rules need no data files. They look at the punctuation of many scripts, at abbreviations and
numbers before a period, and at the word after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from antiphon.utils.text.abbreviations import (
    BEFORE_NUMBER,
    INNER,
    MAYBE_LAST,
    MONTHS,
    STARTERS,
    TITLES,
)

SENTENCE_ENDING_PUNCTUATION: frozenset[str] = frozenset(
    ".!?;"  # Latin, Cyrillic, Greek, Hebrew, Georgian, Korean and others
    "。！？；．｡"  # Chinese, Japanese
    "।॥"  # Devanagari, Bengali and other Indic scripts
    "؟؛۔؏"  # Arabic, Persian, Urdu
    "։՜՞"  # Armenian
    "።፧፨"  # Ethiopic
    "၊။"  # Myanmar
    "។៕"  # Khmer
    "໌"  # Lao
    "།༎"  # Tibetan
)

# Marks of scripts that put no space between sentences: the next letter may follow at once.
_TIGHT = frozenset("。！？；．｡।॥።፧፨၊။។៕")
_CLOSERS = frozenset("\"')]}”’»›」』）】》〉］")
_OPENERS = "\"'([{“‘«‹「『（【《〈［¿¡<"
_ENTITY = re.compile(r"&#?\w{1,31};$")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_NUMBER = re.compile(r"[^\w]*\d[\d.,:/%-]*")
_NEXT_WORD = re.compile(r"\S+")

StartEndTags = tuple[str, str]


def replace_match(text: str, match: re.Match[str], old: str, new: str) -> str:
    """Replaces ``old`` by ``new``, only within the stretch that a pattern matched."""
    inside = match.group(0).replace(old, new)
    return text[: match.start()] + inside + text[match.end() :]


def match_endofsentence(text: str, *, partial: bool = False) -> int:
    """Finds the end of the first sentence.

    Args:
        text: Text that begins with a sentence.
        partial: Whether the text breaks off anywhere, as between two tokens of a language model. A
            period at the very end then does not count after a number or an abbreviation ("$29.",
            "Mr."), because the next token tells what it is. Otherwise the end of the text is taken
            for the end of what was to be said.

    Returns:
        Index behind the first sentence's last mark (closing quotes included), or 0 if the text holds
        no complete sentence. White space after the sentence is not part of it.
    """
    end = len(text.rstrip())
    position = 0
    has_content = False
    while position < end:
        mark = text[position]
        if mark not in SENTENCE_ENDING_PUNCTUATION:
            has_content = has_content or not (mark.isspace() or mark in _CLOSERS)
            position += 1
            continue
        last = _end_of_marks(text, position, end)
        # A mark left over from the sentence before ("?" then "!") is no sentence.
        if has_content and _ends_sentence(text, position, last, end, partial):
            return last
        position = last
    return 0


def _end_of_marks(text: str, start: int, end: int) -> int:
    """Index behind a run of ending marks, spaced dots (". . .") and the closing quotes after it."""
    position = start
    while position < end:
        if text[position] in SENTENCE_ENDING_PUNCTUATION:
            position += 1
        elif text[position : position + 2] == " .":
            position += 2
        else:
            break
    while position < end and text[position] in _CLOSERS:
        position += 1
    return position


def _ends_sentence(text: str, start: int, last: int, end: int, partial: bool) -> bool:
    """Whether the marks between two indices end a sentence."""
    mark = text[start]
    at_end = last == end
    if mark in _TIGHT:
        # "3．14" in full width is a number like any other.
        return at_end or not (mark == "．" and text[last].isdigit())
    if not at_end and not text[last].isspace():
        return False
    if mark == ";" and _ENTITY.search(text[:last]):
        return False

    before = _word_before(text, start)
    following = _NEXT_WORD.search(text, last)
    after = following.group().lstrip(_OPENERS) if following else ""
    # The last word of unfinished text may still grow.
    open_ended = following is None or (partial and following.end() == len(text))

    quoted = text[last - 1] in _CLOSERS
    if mark != "." or last - start > 1:
        if after and after[0].islower():
            dots = text[start:last].startswith("..")
            return not quoted and not dots
        return True
    if following is None:
        return not partial or not _depends_on_next(before)
    return _period_ends(text, start, before, after, open_ended=open_ended)


def _word_before(text: str, end: int) -> str:
    """The word that touches an index from the left, without opening quotes and brackets."""
    start = end
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    return text[start:end].lstrip(_OPENERS)


def _depends_on_next(before: str) -> bool:
    """Whether only the next word can tell what the period after this word means."""
    word = before.lower()
    if word == "no":  # far more often an answer than "No. 7"
        return False
    return (
        word in TITLES
        or word in INNER
        or word in BEFORE_NUMBER
        or word in MAYBE_LAST
        or len(word) == 1
        or _DOTTED.fullmatch(word) is not None
        or _NUMBER.fullmatch(word) is not None
    )


def _period_ends(text: str, start: int, before: str, after: str, *, open_ended: bool) -> bool:
    """Whether a single period between two words ends a sentence."""
    word = before.lower()
    starts_new = not after[:1].islower()
    if word in TITLES or word in INNER:
        return False
    if word in BEFORE_NUMBER or word.endswith("str"):  # "Hauptstr. 7"
        return not after[:1].isdigit()
    if _NUMBER.fullmatch(word):
        lead = text[: start - len(before)].rstrip(" ")
        is_list_marker = word.isdigit() and (not lead.strip() or lead[-1] in ":\n")
        is_ordinal = word.isdigit() and after.rstrip(".,").lower() in MONTHS
        if open_ended and not is_ordinal:
            is_ordinal = word.isdigit() and any(m.startswith(after.lower()) for m in MONTHS)
        return starts_new and not is_list_marker and not is_ordinal
    if word in MAYBE_LAST and len(word) > 1:
        return starts_new
    if _DOTTED.fullmatch(word) or (len(word) == 1 and word.isalpha()):
        # An initial or an acronym: a name may follow.
        return starts_new and not open_ended and after.rstrip(",.!?;:").lower() in STARTERS
    return True


def parse_start_end_tags(
    text: str,
    tags: Sequence[StartEndTags],
    current_tag: StartEndTags | None,
    current_tag_index: int,
) -> tuple[StartEndTags | None, int]:
    """Follows start and end tags through text that grows.

    Args:
        text: All the text so far.
        tags: Pairs of a start tag and an end tag. Inside a pair only its end tag counts.
        current_tag: The pair that is open, as the last call returned it.
        current_tag_index: Where to go on looking, as the last call returned it.

    Returns:
        The pair that is open at the end of the text, or None, and the index for the next call.
    """
    index = position = current_tag_index
    while True:
        if current_tag is not None:
            found = text.find(current_tag[1], position)
            if found < 0:
                return current_tag, index
            position = found + len(current_tag[1])
            current_tag = None
            # What may be the first half of a tag is looked at again.
            index = len(text) - _unfinished(text[position:], [start for start, _ in tags])
        else:
            starts = [(at, tag) for tag in tags if (at := text.find(tag[0], position)) >= 0]
            if not starts:
                return None, index
            found, current_tag = min(starts, key=lambda start: (start[0], -len(start[1][0])))
            position = found + len(current_tag[0])
            index = len(text) - _unfinished(text[position:], [current_tag[1]])


def _unfinished(text: str, tags: Sequence[str]) -> int:
    """Length of the longest end of the text that could grow into one of the tags."""
    return max(
        (
            length
            for tag in tags
            for length in range(1, min(len(tag), len(text) + 1))
            if text.endswith(tag[:length])
        ),
        default=0,
    )
