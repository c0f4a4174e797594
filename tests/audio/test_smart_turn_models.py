"""Smart-turn models behind HTTP and in this process."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import sys
import threading
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import pytest
from aiohttp import web

from antiphon.audio.turn.base_turn_analyzer import EndOfTurnState
from antiphon.audio.turn.smart_turn.base_smart_turn import BaseSmartTurn, SmartTurnParams
from antiphon.audio.turn.smart_turn.fal_smart_turn import FalSmartTurnAnalyzer
from antiphon.audio.turn.smart_turn.http_smart_turn import HttpSmartTurnAnalyzer
from antiphon.audio.turn.smart_turn.local_coreml_smart_turn import LocalCoreMLSmartTurnAnalyzer
from antiphon.audio.turn.smart_turn.local_smart_turn import LocalSmartTurnAnalyzer
from antiphon.audio.turn.smart_turn.local_smart_turn import LocalSmartTurnAnalyzerV2 as Documented
from antiphon.audio.turn.smart_turn.local_smart_turn_v2 import LocalSmartTurnAnalyzerV2
from antiphon.errors import ConfigError, ServiceError
from antiphon.metrics.metrics import SmartTurnMetricsData

COMPLETE, INCOMPLETE = EndOfTurnState.COMPLETE, EndOfTurnState.INCOMPLETE
FAKES = Path(__file__).with_name("fake_torch.py")


def speak(turn: BaseSmartTurn, level: int = 16384, secs: float = 1.0) -> None:
    samples = np.full(round(turn.sample_rate * secs), level, "<i2").tobytes()
    turn.append_audio(samples, True)


class TurnServer:
    """Answers as the hosted model does, and keeps what it was sent."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: Any = {
            "prediction": 1,
            "probability": 0.75,
            "metrics": {"inference_time": 0.02, "total_time": 0.03},
        }
        self.status = 200
        self.hold: asyncio.Event | None = None
        self.headers: list[dict[str, str]] = []
        self.audio: list[npt.NDArray[np.float32]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        self.audio.append(np.load(io.BytesIO(await request.read()), allow_pickle=False))
        if self.hold is not None:
            await self.hold.wait()
        if isinstance(self.answer, str):
            return web.Response(text=self.answer, status=self.status)
        return web.json_response(self.answer, status=self.status)


@pytest.fixture
async def server() -> AsyncIterator[TurnServer]:
    turn_server = TurnServer()
    app = web.Application()
    app.router.add_post("/raw", turn_server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    turn_server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/raw"
    yield turn_server
    if turn_server.hold is not None:
        turn_server.hold.set()
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


async def test_the_server_is_sent_the_speech_and_its_verdict_counts(
    server: TurnServer, session: aiohttp.ClientSession
) -> None:
    turn = FalSmartTurnAnalyzer(
        aiohttp_session=session, url=server.url, api_key="k", sample_rate=16000
    )
    turn.set_sample_rate(8000)
    speak(turn)

    state, metrics = await turn.analyze_end_of_turn()

    assert state is COMPLETE
    assert isinstance(metrics, SmartTurnMetricsData)
    assert metrics.is_complete
    assert metrics.probability == 0.75
    assert metrics.inference_time_ms == pytest.approx(20)
    assert metrics.server_total_time_ms == pytest.approx(30)
    assert metrics.e2e_processing_time_ms > 0
    (headers,) = server.headers
    assert headers["Authorization"] == "Key k"
    assert headers["Content-Type"] == "application/octet-stream"
    (audio,) = server.audio
    assert audio.dtype == np.float32
    assert audio.shape == (16000,)
    assert audio[100] == 0.5


async def test_other_rates_are_converted(
    server: TurnServer, session: aiohttp.ClientSession
) -> None:
    server.answer = {"prediction": 0, "probability": 0.1}
    turn = HttpSmartTurnAnalyzer(url=server.url, aiohttp_session=session, headers={"X-A": "b"})
    turn.set_sample_rate(8000)
    speak(turn)

    state, metrics = await turn.analyze_end_of_turn()

    assert state is INCOMPLETE
    assert isinstance(metrics, SmartTurnMetricsData)
    assert not metrics.is_complete
    assert server.audio[0].shape == (16000,)
    assert server.headers[0]["X-A"] == "b"
    assert "Authorization" not in server.headers[0]


async def test_no_answer_in_time_ends_the_turn(
    server: TurnServer, session: aiohttp.ClientSession
) -> None:
    server.hold = asyncio.Event()
    turn = FalSmartTurnAnalyzer(
        aiohttp_session=session, url=server.url, params=SmartTurnParams(stop_secs=0.1)
    )
    turn.set_sample_rate(16000)
    speak(turn)
    assert await turn.analyze_end_of_turn() == (COMPLETE, None)


@pytest.mark.parametrize(
    ("status", "answer", "problem"),
    [
        (500, {}, "status 500"),
        (401, {}, "status 401"),
        (200, "no JSON", "cannot be used"),
        (200, {"prediction": 1}, "no prediction and probability"),
        (200, [1], "no prediction and probability"),
        (200, "x" * 100_000, "too long"),
    ],
)
async def test_a_server_that_fails_is_an_error_and_the_turn_goes_on(
    server: TurnServer, session: aiohttp.ClientSession, status: int, answer: Any, problem: str
) -> None:
    server.status, server.answer = status, answer
    turn = FalSmartTurnAnalyzer(aiohttp_session=session, url=server.url, api_key="secret")
    turn.set_sample_rate(16000)
    speak(turn)
    with pytest.raises(ServiceError, match=problem) as caught:
        await turn.analyze_end_of_turn()
    assert "secret" not in str(caught.value)
    assert turn.speech_triggered


async def test_a_server_that_is_not_there_is_an_error(session: aiohttp.ClientSession) -> None:
    turn = FalSmartTurnAnalyzer(aiohttp_session=session, url="http://127.0.0.1:1/raw")
    turn.set_sample_rate(16000)
    speak(turn)
    with pytest.raises(ServiceError, match="cannot be used"):
        await turn.analyze_end_of_turn()


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="URL"):
        FalSmartTurnAnalyzer(aiohttp_session=None, url="fal.run/x")  # type: ignore[arg-type]


# -- models in this process --------------------------------------------------------------------


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """PyTorch, Transformers and coremltools as stand-ins."""
    spec = importlib.util.spec_from_file_location("fake_torch", FAKES)
    assert spec is not None
    assert spec.loader is not None
    fakes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fakes)
    for name, module in fakes.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return fakes


def test_the_documented_import_path_has_the_second_model_too() -> None:
    assert Documented is LocalSmartTurnAnalyzerV2


@pytest.mark.parametrize(
    "make",
    [
        lambda: LocalSmartTurnAnalyzer(smart_turn_model_path="x"),
        lambda: LocalSmartTurnAnalyzerV2(),
        lambda: LocalCoreMLSmartTurnAnalyzer(smart_turn_model_path="x"),
    ],
)
def test_a_missing_package_is_named(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs .*local-smart-turn"):
        make()


async def test_the_first_model_hears_800_frames(packages: Any) -> None:
    turn = LocalSmartTurnAnalyzer(smart_turn_model_path="")
    assert packages.PreTrained.loaded_from == []
    turn.set_sample_rate(16000)
    speak(turn, 32767)

    state, metrics = await turn.analyze_end_of_turn()

    assert packages.PreTrained.loaded_from == ["pipecat-ai/smart-turn"]
    assert state is COMPLETE
    assert isinstance(metrics, SmartTurnMetricsData)
    assert metrics.probability == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-3)
    assert metrics.inference_time_ms > 0

    speak(turn, 100)
    state, _ = await turn.analyze_end_of_turn()
    assert state is INCOMPLETE
    await turn.disconnect_model()


async def test_the_second_model_attends_to_what_was_heard_only(packages: Any) -> None:
    turn = LocalSmartTurnAnalyzerV2(smart_turn_model_path="my/model")
    turn.set_sample_rate(8000)
    speak(turn, 16384, secs=2)

    state, metrics = await turn.analyze_end_of_turn()

    assert packages.PreTrained.loaded_from == ["my/model"]
    assert isinstance(metrics, SmartTurnMetricsData)
    # 0.5 in each of the 8 features, through the three layers of 0.01; the padding does not count.
    expected = 0.5 * 8 * 0.01 * 256 * 0.01 * 64 * 0.01
    assert metrics.probability == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-3)
    assert state is COMPLETE
    await turn.disconnect_model()


async def test_the_coreml_model_is_found_in_its_folder(packages: Any) -> None:
    with pytest.raises(ConfigError, match="folder"):
        LocalCoreMLSmartTurnAnalyzer(smart_turn_model_path="")
    turn = LocalCoreMLSmartTurnAnalyzer(smart_turn_model_path="/models/smart-turn")
    turn.set_sample_rate(16000)
    speak(turn, 100)

    state, metrics = await turn.analyze_end_of_turn()

    assert packages.CoreMLModel.opened == [
        "/models/smart-turn/coreml/smart_turn_classifier.mlpackage"
    ]
    assert state is INCOMPLETE
    assert isinstance(metrics, SmartTurnMetricsData)
    assert metrics.probability == pytest.approx(1 / (1 + np.exp(0.5)), abs=1e-2)
    await turn.disconnect_model()


async def test_a_model_that_cannot_be_loaded_is_an_error_at_every_pause(packages: Any) -> None:
    turn = LocalSmartTurnAnalyzerV2(smart_turn_model_path="broken")
    turn.set_sample_rate(16000)
    for _ in range(2):
        speak(turn)
        with pytest.raises(ServiceError, match="no such model"):
            await turn.analyze_end_of_turn()
    assert turn.speech_triggered


def test_without_an_event_loop_the_model_is_loaded_at_the_first_pause(packages: Any) -> None:
    turn = LocalSmartTurnAnalyzer(smart_turn_model_path="x")
    turn.set_sample_rate(16000)
    assert packages.PreTrained.loaded_from == []

    async def judge() -> EndOfTurnState:
        state, _ = await turn.analyze_end_of_turn()
        await turn.disconnect_model()
        return state

    for _ in range(2):
        speak(turn, 32767)
        assert asyncio.run(judge()) is COMPLETE


async def test_sessions_share_a_model_and_are_judged_together(packages: Any) -> None:
    turns = [LocalSmartTurnAnalyzer(smart_turn_model_path="x") for _ in range(4)]
    for turn in turns:
        turn.set_sample_rate(16000)
        await turn.connect_model()
    await turns[0]._connection()
    model = (await turns[1]._connection()).backend.model  # type: ignore[attr-defined]
    sizes: list[int] = []
    judge = model._judge

    def count(pieces: Any) -> Any:
        sizes.append(len(pieces))
        return judge(pieces)

    model._judge = count
    for turn, level in zip(turns, (32767, 100, 32767, 100), strict=True):
        speak(turn, level)
    found = await asyncio.gather(*(turn.analyze_end_of_turn() for turn in turns))
    assert [state for state, _ in found] == [COMPLETE, INCOMPLETE, COMPLETE, INCOMPLETE]
    assert sizes == [4]
    assert packages.PreTrained.loaded_from == ["x"]
    for turn in turns:
        await turn.disconnect_model()
        await turn.disconnect_model()


async def test_a_verdict_that_comes_too_late_ends_the_turn(packages: Any) -> None:
    turn = LocalSmartTurnAnalyzer(smart_turn_model_path="x", params=SmartTurnParams(stop_secs=0.2))
    turn.set_sample_rate(16000)
    await turn.connect_model()
    model = (await turn._connection()).backend.model  # type: ignore[attr-defined]
    go_on = threading.Event()
    model._judge = lambda pieces: [float(go_on.wait(20)) for _ in pieces]
    speak(turn)
    assert await turn.analyze_end_of_turn() == (COMPLETE, None)
    go_on.set()
    await turn.disconnect_model()
