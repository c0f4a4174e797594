from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import codec
from benchmarks.harness.curves import Curve, Effort, Point, explore
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.plots import draw_curves, label_of
from benchmarks.harness.report import curves_table, write_json
from benchmarks.harness.results import Result

FULL = Effort(most=64, factor=2, refinements=3, secs=60)


def point(sessions: int, p99_ms: float) -> Point:
    return Point(sessions, p99_ms / 4, p99_ms, p99_ms * 2)


class Machine:
    """Measures as told, and notes what it was asked."""

    def __init__(
        self, p99_ms: Callable[[int, int], float], most: int = 1000, other_cores: float = 0.0
    ) -> None:
        self.p99_ms = p99_ms
        self.other_cores = other_cores
        self.most = most
        self.asked: list[int] = []

    async def __call__(self, sessions: int, again: bool) -> Point | None:
        assert again == (self.asked[-1:] == [sessions])
        self.asked.append(sessions)
        if sessions > self.most:
            return None
        p99_ms = self.p99_ms(sessions, self.asked.count(sessions))
        return replace(point(sessions, p99_ms), other_cores=self.other_cores)


async def explored(machine: Machine, effort: Effort = FULL) -> Curve:
    curve = Curve("ours", 20.0)
    await explore(curve, machine, effort)
    return curve


def counts(curve: Curve) -> Sequence[int]:
    return [each.sessions for each in curve.points]


async def test_the_number_grows_until_it_breaks_and_the_doubt_is_halved() -> None:
    curve = await explored(Machine(lambda sessions, _: 1.0 if sessions <= 21 else math.inf))
    assert counts(curve) == [1, 2, 4, 8, 16, 32, 24, 20, 22]
    assert curve.best is not None
    assert (curve.best.sessions, curve.broke_at, curve.ended) == (20, 22, "")
    assert [each.sessions for each in curve.ordered()] == sorted(counts(curve))


async def test_what_is_late_once_has_another_chance() -> None:
    machine = Machine(lambda sessions, turn: 90.0 if sessions == 4 and turn == 1 else 1.0)
    curve = await explored(machine, Effort(most=8, factor=2, refinements=3, secs=60))
    assert machine.asked == [1, 2, 4, 4, 8]
    assert counts(curve) == [1, 2, 4, 8]
    assert curve.broke_at == 0
    assert curve.ended == "the search ends at 8 sessions"


async def test_the_better_of_two_bad_ones_counts() -> None:
    curve = await explored(Machine(lambda _, turn: 50.0 if turn == 2 else 80.0))
    assert [each.p99_ms for each in curve.points] == [50.0]
    assert curve.best is None
    assert curve.broke_at == 1


@pytest.mark.parametrize(("other_cores", "attempts"), [(0.1, 2), (1.5, 3)])
async def test_who_was_disturbed_has_one_chance_more(other_cores: float, attempts: int) -> None:
    machine = Machine(lambda *_: 50.0, other_cores=other_cores)
    await explored(machine)
    assert machine.asked == [1] * attempts


async def test_sessions_that_cannot_be_had_end_the_search() -> None:
    curve = await explored(Machine(lambda *_: 1.0, most=5))
    assert counts(curve) == [1, 2, 4]
    assert curve.ended == "8 sessions cannot be had"


async def test_the_search_ends_when_its_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def slow(*_: int) -> float:
        nonlocal now
        now += 40.0
        return 1.0

    curve = await explored(Machine(slow))
    assert counts(curve) == [1, 2]
    assert curve.ended == "the time ends at 2 sessions"
    assert label_of(curve) == "ours: 2 in time, no break found"


def test_good_ones_beyond_a_bad_one_do_not_count() -> None:
    curve = Curve("ours", 20.0, [point(1, 1), point(2, 30), point(4, 19)])
    assert curve.best is not None
    assert curve.best.sessions == 1
    assert label_of(curve) == "ours: 1 in time, 2 not"


@pytest.mark.leaks("fds", reason="matplotlib keeps the files of its fonts open")
def test_curves_are_written_shown_and_drawn(tmp_path: Path) -> None:
    result = Result("x", "X")
    assert not draw_curves(tmp_path / "x.png", "X", result.curves, {})
    lost = Point(4, 1.0, math.inf, math.inf, 1.5, 0.1, lost=3)
    result.curves.append(Curve("ours", 20.0, [point(1, 1), lost, point(2, 8)]))
    machine = {**describe_machine(), "load_after": [0.0]}
    write_json(tmp_path / "results.json", [result], machine, {})
    text = (tmp_path / "results.json").read_text()
    # No browser reads infinities.
    assert "Infinity" not in text
    written = json.loads(text)["scenarios"]["x"]["curves"]["ours"]
    assert written["breaks_at_sessions"] == 4
    assert [each["sessions"] for each in written["points"]] == [1, 2, 4]
    assert written["points"][2]["p99_ms"] is None
    assert curves_table(result).row_count == 3
    pytest.importorskip("matplotlib")
    assert draw_curves(tmp_path / "x.png", "X", result.curves, machine)
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_libraries_are_held_against_the_codec(capsys: pytest.CaptureFixture[str]) -> None:
    first = next(codec.libraries())
    assert isinstance(first, codec.Library)
    assert first.name == "msgpack"
    # The codec rests on this: whatever it has a way of its own for is left to it.
    assert all(first.asked(value) for value in codec.ODD.values())
    assert not first.asked(["plain", 1])
    codec.measure_libraries(1)
    codec.measure_short_way(1)
    assert "other bytes" not in capsys.readouterr().out


def test_a_library_that_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    names = [found if isinstance(found, str) else found.name for found in codec.libraries()]
    assert names == [
        "msgpack",
        "ormsgpack is not installed: left out",
        "msgspec is not installed: left out",
    ]
