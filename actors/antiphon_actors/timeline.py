"""Draws who spoke when."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Span = tuple[float, float]

_LANES = (("caller", "user_started", "user_stopped"), ("bot", "bot_started", "bot_stopped"))
_COLOURS = {"caller": "#2b6cb0", "bot": "#dd6b20"}
_INTERRUPTION = "#c53030"

_WIDTH_INCHES = 14.0
# Of the picture's width, what the axis has; measured, as is the width of a letter of the font.
_AXIS_SHARE = 0.95
_LETTER_INCHES = 0.072
_FONT_POINTS = 8
_MAX_LINES = 4


def spans(events: Sequence[Mapping[str, Any]], begin: str, end: str, until: float) -> list[Span]:
    """Times between begin and end events; one without an end lasts until ``until``."""
    found: list[Span] = []
    started: float | None = None
    for event in events:
        if event["kind"] == begin and started is None:
            started = event["secs"]
        elif event["kind"] == end and started is not None:
            found.append((started, event["secs"]))
            started = None
    if started is not None:
        found.append((started, until))
    return found


def captions(
    events: Sequence[Mapping[str, Any]], caller: Sequence[Span], bot: Sequence[Span]
) -> dict[str, list[tuple[float, str]]]:
    """What was said, each with the beginning of the speech it belongs to.

    What the caller said is known after it, what the bot is going to say before it.
    """
    texts: dict[tuple[str, float], list[str]] = {}
    for event in events:
        secs = event["secs"]
        if event["kind"] == "user_said":
            start = max((span[0] for span in caller if span[0] <= secs), default=secs)
            texts.setdefault(("caller", start), []).append(event["text"])
        elif event["kind"] == "bot_says":
            start = min((span[0] for span in bot if span[1] >= secs), default=secs)
            texts.setdefault(("bot", start), []).append(event["text"])
    return {
        lane: sorted((start, " ".join(said)) for (who, start), said in texts.items() if who == lane)
        for lane in ("caller", "bot")
    }


def draw_timeline(conversation: Mapping[str, Any], path: Path) -> None:
    """Draws a conversation to a PNG file.

    Args:
        conversation: What ConversationObserver.to_plain() gave.
        path: The file.
    """
    # Slow to import, and needed by nothing else.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    events = conversation["events"]
    last = max((event["secs"] for event in events), default=1.0)
    lanes = {who: spans(events, begin, end, last) for who, begin, end in _LANES}
    # The caller's speech ended before its end was detected.
    lanes["caller"] = [
        (start, max(start, stop - conversation["vad_stop_secs"])) for start, stop in lanes["caller"]
    ]
    begin = max(0.0, min((start for lane in lanes.values() for start, _ in lane), default=0.0) - 1)
    until = last + 1

    figure = Figure(figsize=(_WIDTH_INCHES, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for height, (who, lane) in enumerate(lanes.items()):
        bars = [(start, stop - start) for start, stop in lane]
        axes.broken_barh(bars, (height - 0.2, 0.4), color=_COLOURS[who], label=who)
    letters_per_sec = _WIDTH_INCHES * _AXIS_SHARE / (until - begin) / _LETTER_INCHES
    for who, said in captions(events, lanes["caller"], lanes["bot"]).items():
        nexts = [*(start for start, _ in said), until][1:]
        for (start, text), end in zip(said, nexts, strict=True):
            axes.text(
                start,
                -0.26 if who == "caller" else 1.26,
                wrapped(text, int((end - start) * letters_per_sec) - 1),
                fontsize=_FONT_POINTS,
                ha="left",
                va="top" if who == "caller" else "bottom",
                parse_math=False,  # people speak of dollars
            )
    cuts = [event["secs"] for event in events if event["kind"] == "interruption"]
    for number, secs in enumerate(cuts):
        label = "the caller cuts in" if number == 0 else "_repeated"
        axes.vlines(secs, -0.2, 1.2, _INTERRUPTION, "--", linewidth=1.5, label=label)
    axes.set_yticks([0, 1], list(lanes))
    axes.set_ylim(-0.9, 1.9)
    axes.set_xlim(begin, until)
    axes.set_xlabel("seconds since the start of the pipeline")
    axes.set_title("Who spoke when", loc="left")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def wrapped(text: str, width: int) -> str:
    """A text in lines of a width, cut off where it has too many."""
    lines = textwrap.wrap(text, max(width, 8), max_lines=_MAX_LINES, placeholder=" …")
    return "\n".join(lines)
