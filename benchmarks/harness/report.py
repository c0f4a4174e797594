"""What a run looks like: tables on the terminal, JSON, a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.results import Bar, Result, all_bars, format_figure

GOOD, BAD = "#2a7f62", "#b3423a"


def figures_table(result: Result) -> Table:
    """The figures of one scenario, one contestant a line."""
    title = f"{result.title} ({result.seconds:.0f} s)"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("contestant", no_wrap=True)
    metrics = result.metrics()
    for metric in metrics:
        table.add_column(metric, justify="right")
    for row in result.rows:
        table.add_row(
            row.contestant,
            *(format_figure(row.value(m)) if m in row.rounds else "" for m in metrics),
        )
    return table


def curves_table(result: Result) -> Table:
    """The points of every curve of one scenario."""
    table = Table(title="By the number of sessions", title_justify="left", title_style="bold")
    table.add_column("contestant", no_wrap=True)
    for name in ("sessions", "p50 ms", "p99 ms", "p99.9 ms", "CPU cores", "others' cores", "lost"):
        table.add_column(name, justify="right")
    for curve in result.curves:
        for at, point in enumerate(curve.ordered()):
            figures = (point.p50_ms, point.p99_ms, point.p999_ms, point.cpu_cores)
            table.add_row(
                "" if at else curve.contestant,
                str(point.sessions),
                *(format_figure(figure) for figure in figures),
                format_figure(point.other_cores),
                str(point.lost),
                style="" if curve.is_good(point) else "red",
            )
        table.add_section()
    return table


def bars_table(results: Sequence[Result]) -> Table:
    """Every bar: the figure, what it has to be, and whether it is."""
    table = Table(title="Bars", title_justify="left", title_style="bold")
    for name in ("what", "figures", "value", "bar", ""):
        table.add_column(name, justify="right" if name in ("value", "bar") else "left")
    for _, bar in all_bars(results):
        table.add_row(
            bar.text,
            bar.detail,
            format_value(bar, bar.value),
            f"{'≥' if bar.kind == 'at least' else '≤'} {format_value(bar, bar.limit)}",
            "met" if bar.met else "not met",
            style="green" if bar.met else "red",
        )
    return table


def format_value(bar: Bar, value: float) -> str:
    """A figure of a bar with its unit; ratios below one as fractions."""
    if bar.unit == "x":
        return f"1/{1 / value:.3g}" if 0 < value < 0.7 else f"{value:.3g}x"
    return f"{format_figure(value)} {bar.unit}"


def show(results: Sequence[Result], machine: Mapping[str, Any], console: Console) -> None:
    """Prints a run."""
    for result in results:
        if result.rows:
            console.print(figures_table(result))
        else:
            console.print(f"{result.title}: nothing measured", style="bold", markup=False)
        if result.curves:
            console.print(curves_table(result))
        for note in result.notes:
            console.print(f"  {note}", style="yellow", markup=False, highlight=False)
    if all_bars(results):
        console.print(bars_table(results))
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, load"
        f" {machine['load'][0]} before and {machine['load_after'][0]} after,"
        f" Linux {machine['kernel']}, Python {machine['python']}, {versions},"
        f" modules {'compiled' if machine['compiled'] else 'not compiled'}",
        markup=False,
        highlight=False,
    )


def write_json(
    path: Path, results: Sequence[Result], machine: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Writes every figure of every round."""
    plain = {
        "machine": machine,
        "options": options,
        "scenarios": {result.name: result.to_plain() for result in results},
    }
    path.write_text(json.dumps(plain, indent=2) + "\n")


def draw(path: Path, results: Sequence[Result], machine: Mapping[str, Any]) -> bool:
    """Draws how far each bar is from its limit.

    Returns:
        False if there is nothing to draw, or nothing to draw it with.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    bars = [bar for _, bar in all_bars(results)]
    if not bars:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 1.4 + 0.42 * len(bars)), layout="constrained")
    for index, bar in enumerate(bars):
        room = min(max(bar.headroom, 0.01), 100.0)
        axes.barh(index, room - 1, left=1, color=GOOD if bar.met else BAD, height=0.6)
        text = f"{format_value(bar, bar.value)}  (bar {format_value(bar, bar.limit)})"
        axes.annotate(
            text,
            (room, index),
            xytext=(4 if room >= 1 else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if room >= 1 else "right",
            fontsize=8,
        )
    axes.set_xscale("log")
    rooms = [min(max(bar.headroom, 0.01), 100.0) for bar in bars]
    axes.set_xlim(min(0.3, min(rooms) / 6), max(3.0, max(rooms) * 6))
    axes.set_yticks(range(len(bars)), [bar.text for bar in bars], fontsize=9)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times better than the bar (1 = just met)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Antiphon, {machine['time'][:16]}, {machine['cpu']}, {machine['cores']} cores", fontsize=10
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return True
