"""Markdown into text that can be spoken."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from antiphon.utils.checks import check_instance
from antiphon.utils.text.base_text_filter import BaseTextFilter

_FENCE = "```"
# ``` and the name of a language, if a line ends behind it
_FENCE_LINE = re.compile(r"```(?:[\w+#.-]*[ \t]*\n)?")

_TABLE_RULE = re.compile(
    r"^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?[ \t]*(?:\n|$)", re.MULTILINE
)
_TABLE_LINES = re.compile(r"(?:^[ \t]*\|[^\n]*\|[ \t]*(?:\n|$))+", re.MULTILINE)

_IN_ORDER = (
    (re.compile(r"<!--.*?-->|</?[A-Za-z][^<>\n]*>", re.DOTALL), ""),
    (re.compile(r"!\[[^\]\n]*\]\([^)\n]*\)"), ""),
    (re.compile(r"\[([^\]\n]+)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"\bhttps?://"), ""),
    (re.compile(r"^[ \t]*(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$", re.MULTILINE), ""),
    (re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+", re.MULTILINE), ""),
    (re.compile(r"^(?:[ \t]*>)+[ \t]?", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*[-*+][ \t]+(?=\S)", re.MULTILINE), ""),
    (re.compile(r"~~(?=\S)(.+?)(?<=\S)~~"), r"\1"),
    (re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])(.+?)(?<=[^\s*])\1(?![\w*])"), r"\2"),
    (re.compile(r"(?<![\w_])(_{1,3})(?=[^\s_])(.+?)(?<=[^\s_])\1(?![\w_])"), r"\2"),
    # The other half comes with another piece of text, or came before.
    (re.compile(r"(?<![\w*])\*\*(?=[^\s*])|(?<=[^\s*])\*\*(?![\w*])"), ""),
    (re.compile(r"`"), ""),
    (re.compile(r"[-=_*~#]{4,}"), ""),
    (re.compile(r"([!?,;:])\1{2,}"), r"\1"),
    (re.compile(r"\.{4,}"), "..."),
    (re.compile(r"\n{3,}"), "\n\n"),
)


class MarkdownTextFilter(BaseTextFilter):
    """Takes Markdown and HTML out of text and leaves what is to be spoken.

    White space around the text stays, and so do the numbers of lists. A code block may begin in one
    piece of text and end in a later one.
    """

    class InputParams(BaseModel):
        """What to filter.

        Attributes:
            enable_text_filter: Whether to filter at all.
            filter_code: Whether to leave out blocks of code.
            filter_tables: Whether to leave out tables.
        """

        enable_text_filter: bool | None = True
        filter_code: bool | None = False
        filter_tables: bool | None = False

    def __init__(self, params: InputParams | None = None, **kwargs: Any) -> None:
        """Makes a filter.

        Args:
            params: What to filter.
            **kwargs: Ignored.
        """
        if params is not None:
            check_instance("MarkdownTextFilter(params)", params, MarkdownTextFilter.InputParams)
        self._params = params or MarkdownTextFilter.InputParams()
        self._in_code = False

    async def update_settings(self, settings: Mapping[str, Any]) -> None:
        """Changes what is filtered; the names are those of ``InputParams``."""
        known = {
            k: v for k, v in settings.items() if k in MarkdownTextFilter.InputParams.model_fields
        }
        self._params = MarkdownTextFilter.InputParams(**{**self._params.model_dump(), **known})

    async def filter(self, text: str) -> str:
        """Returns the text without its formatting."""
        if not self._params.enable_text_filter:
            return text
        text = self._without_code(text) if self._params.filter_code else _FENCE_LINE.sub("", text)
        if self._params.filter_tables:
            text = _TABLE_LINES.sub("", text)
        else:
            text = _TABLE_LINES.sub(_spoken_table, text)
        for pattern, replacement in _IN_ORDER:
            text = pattern.sub(replacement, text)
        # Last: what an entity stands for is no markup.
        return html.unescape(text).replace("\xa0", " ")

    async def handle_interruption(self) -> None:
        """Forgets the block of code that was open."""
        self._in_code = False

    async def reset_interruption(self) -> None:
        """Nothing to do: the next answer is filtered like any other."""

    def _without_code(self, text: str) -> str:
        kept = []
        for number, part in enumerate(text.split(_FENCE)):
            if number:
                self._in_code = not self._in_code
            if not self._in_code:
                kept.append(part)
        return " ".join(kept)


def _spoken_table(table: re.Match[str]) -> str:
    """The cells of a table, without its lines."""
    rows = _TABLE_RULE.sub("", table[0]).splitlines(keepends=True)
    return "".join(re.sub(r"[ \t]*\|[ \t]*", " ", row) for row in rows)
