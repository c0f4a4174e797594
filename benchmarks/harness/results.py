"""What a scenario found out: rows of figures, and the bars they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.harness.curves import Curve
from benchmarks.harness.statistics import median, paired_ratio


@dataclass
class Row:
    """The figures of one contestant.

    Attributes:
        contestant: Its name.
        rounds: For each metric (its name ends with the unit), the figure of each round.
    """

    contestant: str
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, metric: str, value: float) -> None:
        """Adds the figure of one round."""
        self.rounds.setdefault(metric, []).append(value)

    def value(self, metric: str) -> float:
        """The median over the rounds."""
        return median(self.rounds[metric])


@dataclass(frozen=True)
class Bar:
    """A figure and what it has to be.

    Attributes:
        text: What is compared.
        value: The figure, or the ratio of ours to theirs.
        limit: What it is held against.
        kind: Whether it has to be at least or at most that.
        unit: ``x`` for a ratio, else the unit of the figure.
        detail: The two figures of a ratio, for people.
    """

    text: str
    value: float
    limit: float
    kind: Literal["at least", "at most"]
    unit: str = "x"
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is what it has to be."""
        return self.value >= self.limit if self.kind == "at least" else self.value <= self.limit

    @property
    def headroom(self) -> float:
        """How many times better than the limit; below 1 the bar is missed."""
        if self.kind == "at least":
            return self.value / self.limit
        return self.limit / self.value if self.value > 0 else float("inf")


@dataclass
class Result:
    """What one scenario found out.

    Attributes:
        name: Of the scenario.
        title: For people.
        rows: The contestants, in the order they were measured.
        bars: Comparisons that have a limit.
        curves: Figures by the number of sessions.
        notes: What was skipped and why, and what the figures depend on.
        seconds: How long it took.
    """

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self, contestant: str) -> Row:
        """The row of a contestant, made at its first use."""
        for row in self.rows:
            if row.contestant == contestant:
                return row
        self.rows.append(Row(contestant))
        return self.rows[-1]

    def has(self, contestant: str) -> bool:
        """Whether a contestant was measured."""
        return any(row.contestant == contestant for row in self.rows)

    def metrics(self) -> list[str]:
        """Every metric, in the order of its first use."""
        return list(dict.fromkeys(metric for row in self.rows for metric in row.rounds))

    def compare(
        self,
        text: str,
        ours: str,
        theirs: str,
        metric: str,
        limit: float,
        kind: Literal["at least", "at most"],
        *,
        theirs_metric: str | None = None,
    ) -> None:
        """Adds a bar for the ratio of two contestants, if both were measured."""
        if not self.has(ours) or not self.has(theirs):
            missing = theirs if self.has(ours) else ours
            self.notes.append(f"no ratio for '{text}': {missing} was not measured")
            return
        mine, other = self.row(ours), self.row(theirs)
        other_metric = theirs_metric or metric
        ratio = paired_ratio(mine.rounds[metric], other.rounds[other_metric])
        detail = f"{format_figure(mine.value(metric))} / {format_figure(other.value(other_metric))}"
        self.bars.append(Bar(text, ratio, limit, kind, detail=f"{detail} {unit_of(metric)}"))

    def limit(
        self,
        text: str,
        contestant: str,
        metric: str,
        limit: float,
        kind: Literal["at least", "at most"],
    ) -> None:
        """Adds a bar for a figure itself."""
        if self.has(contestant):
            value = self.row(contestant).value(metric)
            self.bars.append(Bar(text, value, limit, kind, unit_of(metric)))

    def to_plain(self) -> dict[str, Any]:
        """For JSON: every round of every figure, and the bars."""
        return {
            "title": self.title,
            "seconds": round(self.seconds, 1),
            "rows": [
                {
                    "contestant": row.contestant,
                    "medians": {metric: row.value(metric) for metric in row.rounds},
                    "rounds": row.rounds,
                }
                for row in self.rows
            ],
            "bars": [
                {
                    "text": bar.text,
                    "value": bar.value,
                    "limit": bar.limit,
                    "kind": bar.kind,
                    "unit": bar.unit,
                    "detail": bar.detail,
                    "met": bar.met,
                }
                for bar in self.bars
            ],
            "curves": {curve.contestant: curve.to_plain() for curve in self.curves},
            "notes": self.notes,
        }


def unit_of(metric: str) -> str:
    """The last word of a metric's name."""
    return metric.rsplit(" ", 1)[-1]


def format_figure(value: float) -> str:
    """A figure with three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def all_bars(results: Sequence[Result]) -> list[tuple[Result, Bar]]:
    """Every bar with its scenario."""
    return [(result, bar) for result in results for bar in result.bars]
