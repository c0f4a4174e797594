"""What a service did, as plain data: it becomes a span where the bot program runs.

Only that process has the exporter, and only there it is known which turn was under way. So a service
in another process needs no OpenTelemetry: it reports what it did and when, and home makes the span.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_TEXT_CHARS = 100_000
"""A longer text in an attribute is cut: a span must fit into a message between processes."""

AttributeValue = str | bool | int | float


@dataclass
class ServiceSpan:
    """One operation of a service.

    It has the two methods of OpenTelemetry's spans that set attributes, so that the functions in
    ``service_attributes`` work on both.

    Attributes:
        name: ``stt``, ``llm`` or ``tts``, or what a decorator was told.
        start_ns: When it began, nanoseconds on the pipeline's clock.
        end_ns: When it ended; 0 before that.
        attributes: Its attributes.
        error: What it failed with; empty if it did not.
    """

    name: str
    start_ns: int
    end_ns: int = 0
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    error: str = ""

    def set_attribute(self, key: str, value: Any) -> None:
        """Sets an attribute; a value that is not plain is written as text, None is left out."""
        if value is None:
            return
        if not isinstance(value, (str, bool, int, float)):
            value = str(value)
        self.attributes[key] = value[:MAX_TEXT_CHARS] if isinstance(value, str) else value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Sets several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def to_plain(self) -> list[Any]:
        """The span as plain data."""
        return [self.name, self.start_ns, self.end_ns, dict(self.attributes), self.error]

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> ServiceSpan:
        """The inverse of to_plain().

        Raises:
            ValueError: If it is none.
        """
        kinds = (str, int, int, dict, str)
        if len(plain) != len(kinds) or not all(map(isinstance, plain, kinds)):
            raise ValueError("malformed span")
        name, start_ns, end_ns, attributes, error = plain
        span = cls(name, start_ns, end_ns, error=error)
        span.set_attributes({str(key): value for key, value in attributes.items()})
        return span
