"""Pictures of curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.curves import Curve, Point

COLOURS = ("#b3423a", "#2a7f62", "#3b5b92", "#8a6d1f")
MARKERS = ("s", "o", "^", "D")
# Above this all lateness is alike.
TOP_MS, BOTTOM_MS = 1000.0, 0.05


def draw_curves(
    path: Path, title: str, curves: Sequence[Curve], machine: Mapping[str, Any]
) -> bool:
    """Draws lateness and CPU by the number of sessions.

    Returns:
        False if there is nothing to draw, or nothing to draw it with.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    if not curves:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(2, 2, figsize=(12, 8.5), layout="constrained")
    panels = [
        ("median lateness (p50)", lambda point: point.p50_ms),
        ("lateness of the 99th of 100 frames (p99)", lambda point: point.p99_ms),
        ("lateness of the 999th of 1,000 frames (p99.9)", lambda point: point.p999_ms),
    ]
    for axes, (name, figure_of) in zip(grid.flat, panels, strict=False):
        _lines(axes, curves, lambda point, of=figure_of: min(max(of(point), BOTTOM_MS), TOP_MS))
        axes.axhline(curves[0].limit_ms, color="black", linewidth=1, linestyle="--")
        axes.set_yscale("log")
        axes.set_ylim(BOTTOM_MS, TOP_MS * 1.15)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(name, fontsize=10)
        axes.set_ylabel("lateness (ms)")
    grid[0, 0].annotate(
        f"{curves[0].limit_ms:g} ms", (0.02, curves[0].limit_ms), (0, 3), va="bottom", fontsize=8,
        xycoords=("axes fraction", "data"), textcoords="offset points",
    )  # fmt: skip
    below = grid[1, 1]
    _lines(below, curves, lambda point: point.cpu_cores)
    below.axhline(machine["cores"], color="black", linewidth=1, linestyle="--")
    below.set_ylim(0, machine["cores"] * 1.15)
    below.set_title(f"processor time (the machine has {machine['cores']} cores)", fontsize=10)
    below.set_ylabel("CPU of all processes measured (cores)")
    most = max(point.sessions for curve in curves for point in curve.points)
    ticks = [1 << power for power in range(most.bit_length())]
    for axes in grid.flat:
        axes.set_xscale("log", base=2)
        axes.set_xlim(0.9, most * 1.25)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("sessions at once")
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=1)
    figure.suptitle(
        f"{title}\n{machine['time'][:16]}, {machine['cpu']}, {machine['cores']} cores,"
        f" load {machine['load'][0]} before, modules"
        f" {'compiled' if machine['compiled'] else 'not compiled'}",
        fontsize=10,
    )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def label_of(curve: Curve) -> str:
    """A contestant and where it breaks, for a legend."""
    best = curve.best.sessions if curve.best else 0
    if curve.broke_at:
        return f"{curve.contestant}: {best} in time, {curve.broke_at} not"
    return f"{curve.contestant}: {best} in time, no break found"


def _lines(axes: Any, curves: Sequence[Curve], figure_of: Any) -> None:
    for number, curve in enumerate(curves):
        points: list[Point] = curve.ordered()
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        counts = [point.sessions for point in points]
        figures = [figure_of(point) for point in points]
        axes.plot(counts, figures, color=colour, marker=marker, markersize=4, label=label_of(curve))
        # What broke is hollow.
        late = [at for at, point in enumerate(points) if not curve.is_good(point)]
        axes.plot(
            [counts[at] for at in late],
            [figures[at] for at in late],
            color=colour, marker=marker, markersize=7, markerfacecolor="white", linestyle="",
        )  # fmt: skip
