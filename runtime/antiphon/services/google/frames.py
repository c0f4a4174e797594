"""Frames of Google's services."""

from __future__ import annotations

from dataclasses import dataclass, field

from antiphon.frames.codec import register_type
from antiphon.frames.frames import DataFrame


@register_type
@dataclass
class LLMSearchResult:
    """A passage of the answer that a source supports.

    Attributes:
        text: The passage.
        confidence: How sure the search is of it, 0 to 1; one value for each source of the passage.
    """

    text: str
    confidence: list[float] = field(default_factory=list)


@register_type
@dataclass
class LLMSearchOrigin:
    """A source that was found.

    Attributes:
        site_uri: Where it is.
        site_title: What it is called.
        results: The passages that it supports.
    """

    site_uri: str | None = None
    site_title: str | None = None
    results: list[LLMSearchResult] = field(default_factory=list)


@dataclass
class LLMSearchResponseFrame(DataFrame):
    """What a language model found by searching the web.

    Attributes:
        search_result: The answer as a whole.
        rendered_content: HTML with suggested searches, which has to be shown with the answer.
        origins: The sources.
    """

    search_result: str | None = None
    rendered_content: str | None = None
    origins: list[LLMSearchOrigin] = field(default_factory=list)
