"""The audio a smart-turn model is given, and the silence that overrules it."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from antiphon.audio.turn.base_turn_analyzer import EndOfTurnState
from antiphon.audio.turn.smart_turn.base_smart_turn import (
    BaseSmartTurn,
    SmartTurnParams,
    SmartTurnTimeoutException,
)
from antiphon.metrics.metrics import SmartTurnMetricsData

RATE = 16000
COMPLETE, INCOMPLETE = EndOfTurnState.COMPLETE, EndOfTurnState.INCOMPLETE


class ScriptedTurn(BaseSmartTurn):
    """Keeps what it is asked about, and answers what it is told."""

    def __init__(self, *, complete: bool = True, **params: float) -> None:
        super().__init__(params=SmartTurnParams(**params))
        self.set_sample_rate(RATE)
        self.complete = complete
        self.error: Exception | None = None
        self.meanwhile: Callable[[], object] | None = None
        self.asked: list[npt.NDArray[np.float32]] = []

    async def _predict_endpoint(self, audio_array: npt.NDArray[np.float32]) -> dict[str, Any]:
        self.asked.append(audio_array)
        await asyncio.sleep(0)
        if self.meanwhile:
            self.meanwhile()
        if self.error:
            raise self.error
        return {
            "prediction": int(self.complete),
            "probability": 0.9 if self.complete else 0.2,
            "metrics": {"inference_time": 0.01, "total_time": 0.02},
        }

    def under_way(self) -> bool:
        return self.speech_triggered

    def feed(self, pieces: int, speech: bool, value: int = 0) -> list[EndOfTurnState]:
        """Pieces of 20 ms: of the value given, else 16384 for speech and 0 for silence."""
        samples = np.full(320, value or (16384 if speech else 0), "<i2").tobytes()
        return [self.append_audio(samples, speech) for _ in range(pieces)]


def test_documented_defaults() -> None:
    params = SmartTurnParams()
    assert (params.stop_secs, params.pre_speech_ms, params.max_duration_secs) == (3.0, 0.0, 8.0)


async def test_the_model_hears_the_speech_and_the_pause_after_it() -> None:
    turn = ScriptedTurn()
    turn.feed(20, speech=False)
    assert not turn.under_way()
    turn.feed(10, speech=True)
    assert turn.under_way()
    turn.feed(5, speech=False)
    state, metrics = await turn.analyze_end_of_turn()
    assert state is COMPLETE
    assert not turn.under_way()
    [audio] = turn.asked
    assert audio.dtype == np.float32
    assert audio.tolist() == [0.5] * 3200 + [0.0] * 1600
    assert isinstance(metrics, SmartTurnMetricsData)
    assert metrics.is_complete
    assert (metrics.probability, metrics.inference_time_ms) == (0.9, 10.0)
    assert metrics.server_total_time_ms == 20.0
    assert metrics.e2e_processing_time_ms >= 0.0


async def test_audio_before_the_speech_is_heard_too() -> None:
    turn = ScriptedTurn(pre_speech_ms=50)
    turn.feed(20, speech=False, value=8192)
    turn.feed(1, speech=True)
    await turn.analyze_end_of_turn()
    assert turn.asked[0].tolist() == [0.25] * 800 + [0.5] * 320


async def test_of_long_speech_the_end_is_heard() -> None:
    turn = ScriptedTurn(max_duration_secs=0.1)
    turn.feed(50, speech=True)
    turn.feed(1, speech=False)
    await turn.analyze_end_of_turn()
    assert turn.asked[0].tolist() == [0.5] * 1280 + [0.0] * 320


async def test_an_incomplete_turn_ends_by_silence() -> None:
    turn = ScriptedTurn(complete=False, stop_secs=1.0)
    turn.feed(5, speech=True)
    turn.feed(10, speech=False)
    state, metrics = await turn.analyze_end_of_turn()
    assert state is INCOMPLETE
    assert metrics is not None
    assert turn.under_way()
    # The silence counts from the verdict.
    assert turn.feed(50, speech=False) == [INCOMPLETE] * 49 + [COMPLETE]
    assert not turn.under_way()
    assert turn.feed(100, speech=False) == [INCOMPLETE] * 100


async def test_speech_after_an_incomplete_verdict_is_judged_by_itself() -> None:
    turn = ScriptedTurn(complete=False, stop_secs=1.0)
    turn.feed(5, speech=True)
    await turn.analyze_end_of_turn()
    turn.feed(40, speech=False)
    turn.feed(7, speech=True)
    assert turn.feed(49, speech=False) == [INCOMPLETE] * 49
    await turn.analyze_end_of_turn()
    assert len(turn.asked[1]) == (7 + 49) * 320


async def test_without_speech_the_model_is_not_asked() -> None:
    turn = ScriptedTurn()
    turn.feed(10, speech=False)
    assert await turn.analyze_end_of_turn() == (INCOMPLETE, None)
    turn.feed(10, speech=True)
    turn.clear()
    assert not turn.under_way()
    assert await turn.analyze_end_of_turn() == (INCOMPLETE, None)
    assert turn.asked == []


async def test_a_model_that_takes_too_long_counts_as_complete() -> None:
    turn = ScriptedTurn()
    turn.error = SmartTurnTimeoutException("no answer")
    turn.feed(10, speech=True)
    assert await turn.analyze_end_of_turn() == (COMPLETE, None)
    assert not turn.under_way()


async def test_a_model_that_fails_leaves_the_turn_to_the_silence() -> None:
    turn = ScriptedTurn(stop_secs=0.1)
    turn.error = ConnectionError("gone")
    turn.feed(10, speech=True)
    with pytest.raises(ConnectionError):
        await turn.analyze_end_of_turn()
    assert turn.feed(5, speech=False)[-1] is COMPLETE


async def test_speech_during_the_verdict_opens_the_next_turn() -> None:
    turn = ScriptedTurn()
    turn.meanwhile = lambda: turn.feed(2, speech=True)
    turn.feed(10, speech=True)
    assert (await turn.analyze_end_of_turn())[0] is COMPLETE
    assert turn.under_way()
    turn.meanwhile = None
    await turn.analyze_end_of_turn()
    assert len(turn.asked[1]) == 640


async def test_clear_during_the_verdict_holds() -> None:
    turn = ScriptedTurn(complete=False)
    turn.meanwhile = turn.clear
    turn.feed(10, speech=True)
    assert (await turn.analyze_end_of_turn())[0] is INCOMPLETE
    assert not turn.under_way()


def test_the_sample_rate_must_be_known() -> None:
    class Unset(ScriptedTurn):
        def set_sample_rate(self, sample_rate: int) -> None:
            self.wanted = sample_rate

    with pytest.raises(RuntimeError, match="set_sample_rate"):
        Unset().append_audio(bytes(640), True)
