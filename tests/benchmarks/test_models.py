"""Short forms of what `make bench-models` and `make bench-gpu` measure."""

from __future__ import annotations

import os
from typing import Any

import pytest
from benchmarks.harness.bench import Bench, Options
from benchmarks.harness.command import Scenario, run_scenarios
from benchmarks.harness.processes import descendants
from benchmarks.harness.results import Result
from benchmarks.models import gpu, silero, suite, whisper
from rich.console import Console

QUICK = Options(quick=True, rounds=1, pipecat=False, ray=False)

pytestmark = pytest.mark.timeout(180)


async def measured(scenario: Scenario) -> Result:
    (result,), failures = await run_scenarios([scenario], QUICK, Console(quiet=True))
    assert not failures
    return result


async def test_whisper_is_measured() -> None:
    result = await measured(whisper.SCENARIO)
    assert all(row.value(whisper.RATE) > 0 for row in result.rows)
    (bar,) = result.bars
    (batched, one_by_one, _) = (row.value(whisper.RATE) for row in result.rows)
    assert bar.value == pytest.approx(batched / one_by_one)
    assert bar.limit == whisper.BAR_ON_CPU


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the model and its load need a core")
async def test_a_model_of_a_process_is_measured_and_leaves_none() -> None:
    before = set(descendants(os.getpid()))
    result = await measured(silero.DIFFERENCE)
    assert result.bars
    assert all(bar.met for bar in result.bars)
    assert set(descendants(os.getpid())) <= before


async def test_texts_of_sessions_that_speak_are_timed() -> None:
    result = Result("streaming", "")
    async with Bench(QUICK) as bench:
        await gpu.measure_streaming(bench, result, device="cpu", numbers=(1,))
    (row,) = result.rows
    assert row.value("final text p50 ms") > 0


def test_the_table_has_every_row() -> None:
    names = [scenario.name for scenario in suite.SCENARIOS]
    assert len(set(names)) == len(names)
    assert set(names) >= {"whisper", "model_memory", "overload", "kill"}
    assert all(0 < scenario.deadline_secs <= 600 for scenario in suite.SCENARIOS)


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ctranslate2

    def device(count: int, problem: str = "") -> None:
        def types(_: str) -> Any:
            if problem:
                raise RuntimeError(problem)
            return {"float16"}

        monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: count)
        monkeypatch.setattr(ctranslate2, "get_supported_compute_types", types)

    device(0)
    assert gpu.main([]) == 2
    assert "error: CTranslate2 finds no NVIDIA GPU here" in capsys.readouterr().err
    device(1, "libcublas.so.12 is not found")
    assert gpu.what_lacks() == "CTranslate2 cannot use the GPU: libcublas.so.12 is not found"
    device(1)
    assert gpu.what_lacks() == ""
