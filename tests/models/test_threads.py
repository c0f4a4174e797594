from __future__ import annotations

import pytest

from antiphon.models.threads import cpu_threads


@pytest.mark.parametrize(
    ("wanted", "told", "threads"),
    [(3, "2", 3), (0, "2", 2), (0, None, 7), (0, "", 7), (0, "0", 7), (0, "2,1", 7)],
)
def test_threads(
    wanted: int, told: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert cpu_threads(wanted) == threads
