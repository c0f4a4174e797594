"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from antiphon_actors.placement.plan import Plan
from antiphon_actors.report import SessionReport


def plan_table(plan: Plan, path: str) -> Table:
    """Where each processor would go, and why."""
    table = Table(
        title=f"Plan of {escape(Path(path).name)}: placement {plan.placement.preset}",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("processor", overflow="fold")
    table.add_column("place")
    table.add_column("why", overflow="fold")
    for placed in plan.workers:
        table.add_row(escape(placed.processor.name), escape(placed.place), escape(placed.why))
    return table


def session_table(report: SessionReport) -> Table:
    """Where each processor ran, why, and how its frames travelled."""
    table = Table(
        title=f"Processors of {escape(report.session_id)}",
        caption="in, out: frames. p50, p99: ms from a neighbour's push to the start of processing.",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("processor", overflow="fold", min_width=16)
    table.add_column("ran in", overflow="fold", min_width=16)
    table.add_column("why there", overflow="fold", min_width=14)
    for column in ("in", "out", "p50", "p99"):
        table.add_column(column, justify="right", no_wrap=True)
    for processor in report.processors:
        statistics = processor.statistics
        table.add_row(
            escape(processor.name),
            escape(processor.where),
            escape(processor.why),
            str(statistics.frames_in),
            str(statistics.frames_out),
            _ms(statistics.hop.quantile_ms(0.5)),
            _ms(statistics.hop.quantile_ms(0.99)),
        )
    return table


def gateway_tables(statuses: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The gateways, the bots they have, and the calls that run."""
    gateways = Table(title="Gateways", box=box.SIMPLE_HEAD)
    for column in ("node", "address", "state"):
        gateways.add_column(column)
    for column in ("calls", "ended", "resumed", "lost", "refused"):
        gateways.add_column(column, justify="right")
    calls = Table(title="Calls", box=box.SIMPLE_HEAD)
    for column in ("call", "bot", "state", "runs in"):
        calls.add_column(column, overflow="fold")
    for column in ("seconds", "resumed"):
        calls.add_column(column, justify="right")
    apps: dict[tuple[str, str], int] = {}
    for status in statuses:
        node = str(status["node_id"])[:8]
        if "error" in status:
            gateways.add_row(node, "", escape(status["error"]))
            continue
        counts = status["counts"]
        gateways.add_row(
            node,
            status["address"],
            "draining" if status["draining"] else "open",
            str(len(status["sessions"])),
            *(str(counts.get(name, 0)) for name in ("ended", "resumed", "lost", "refused")),
        )
        for app in status["apps"]:
            apps.setdefault((app["name"], app["version"]), 0)
        for call in status["sessions"]:
            key = (call["app"], call["version"])
            apps[key] = apps.get(key, 0) + 1
            calls.add_row(
                call["session_id"],
                escape(f"{call['app']} {call['version']}"),
                call["state"],
                escape(call["supervisor"]),
                f"{call['secs']:.0f}",
                str(call["resumed"]),
            )
    bots = Table(title="Bots", box=box.SIMPLE_HEAD)
    for column in ("bot", "version"):
        bots.add_column(column)
    bots.add_column("calls", justify="right")
    for (name, version), count in sorted(apps.items()):
        bots.add_row(name, version, str(count))
    return [gateways, bots, calls]


def latency_table(latencies: Sequence[Mapping[str, Any]]) -> Table:
    """How long the caller waited for each answer."""
    table = Table(
        title="Turn latency: end of the caller's speech to the bot's first audio",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("turn", justify="right")
    table.add_column("speech ended at", justify="right")
    table.add_column("first audio after", justify="right")
    table.add_column("of that, after detection", justify="right")
    for number, latency in enumerate(latencies, 1):
        table.add_row(
            str(number),
            f"{latency['user_stopped_secs']:.2f} s",
            f"{latency['from_speech_secs']:.2f} s",
            f"{latency['from_detection_secs']:.2f} s",
        )
    return table


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
