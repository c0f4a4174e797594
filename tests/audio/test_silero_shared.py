"""Voice activity heard in another process: the same states, whatever happens to that process."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.models.conftest import Farm, RemoteModels, farm, models
from tests.models.stand_ins import until
from tests.transports.conftest import Bench, MakeBench, bench

from antiphon.audio.vad.silero import SHARED_MODEL, SileroVADAnalyzer
from antiphon.audio.vad.vad_analyzer import VADParams, VADState
from antiphon.errors import ServiceError
from antiphon.frames.frames import (
    InputAudioRawFrame,
    StartFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADParamsUpdateFrame,
)
from antiphon.models.batching import Limits
from antiphon.models.provider import use_models
from antiphon.transports.base_input import BaseInputTransport
from antiphon.transports.base_transport import TransportParams

__all__ = ["bench", "farm", "models"]

Samples = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def caller() -> Samples:
    """The caller of the demonstration: sentences with pauses."""
    path = Path(__file__).parents[2] / "examples" / "caller.wav"
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.fixture(autouse=True)
def _shared(models: RemoteModels) -> Iterator[None]:
    with use_models(models):
        yield


@pytest.fixture
async def actor(farm: Farm) -> str:
    return await farm.add(SHARED_MODEL)


def pieces(samples: Samples, size: int = 320) -> list[bytes]:
    return [samples[at : at + size].tobytes() for at in range(0, len(samples), size)]


def alone(samples: Samples, rate: int = 16000) -> list[VADState]:
    """The states of an analyzer that needs nobody, after each piece."""
    vad = SileroVADAnalyzer()
    vad.set_sample_rate(rate)
    return [vad.analyze_audio(piece) for piece in pieces(samples)]


async def connected(rate: int = 16000) -> SileroVADAnalyzer:
    vad = SileroVADAnalyzer()
    vad.set_sample_rate(rate)
    await vad.connect_model()
    return vad


async def test_it_hears_the_same_there(farm: Farm, actor: str, caller: Samples) -> None:
    vad = await connected()
    assert vad._network is None  # nothing was loaded for it in this process
    states = [await vad.analyze_audio_async(piece) for piece in pieces(caller)]
    assert states == alone(caller)
    assert {VADState.SPEAKING, VADState.QUIET} <= set(states)
    assert farm.hosts[actor].runner.counts.answered == len(caller) // 512
    await vad.disconnect_model()


async def test_sessions_of_both_rates_share_the_model(
    farm: Farm, actor: str, caller: Samples
) -> None:
    narrow = np.ascontiguousarray(caller[::2][:40_000])
    vads = [await connected(16000), await connected(8000), await connected(16000)]
    streams = [caller[:80_000], narrow, caller[20_000:100_000]]

    async def hear(vad: SileroVADAnalyzer, samples: Samples) -> list[VADState]:
        return [await vad.analyze_audio_async(piece) for piece in pieces(samples)]

    found = await asyncio.gather(*map(hear, vads, streams))
    expected = [alone(streams[0]), alone(narrow, 8000), alone(streams[2])]
    assert list(found) == expected
    counts = farm.hosts[actor].runner.counts
    assert counts.sessions == 3
    for vad in vads:
        await vad.disconnect_model()


async def test_a_long_piece_is_heard_window_by_window(actor: str, caller: Samples) -> None:
    vad, local = await connected(), SileroVADAnalyzer()
    local.set_sample_rate(16000)
    for piece in pieces(caller[:64_000], 5000):
        assert await vad.analyze_audio_async(piece) is local.analyze_audio(piece)
    await vad.disconnect_model()


async def test_another_actor_goes_on_where_one_dies(
    farm: Farm, actor: str, caller: Samples
) -> None:
    other = await farm.add(SHARED_MODEL)
    vads = [await connected() for _ in range(8)]
    streams = [np.roll(caller, -4000 * number)[:96_000] for number in range(8)]
    heard: list[list[VADState]] = [[] for _ in vads]

    async def hear(number: int) -> None:
        for at, piece in enumerate(pieces(streams[number])):
            heard[number].append(await vads[number].analyze_audio_async(piece))
            if number == 0 and at == 100:
                farm.kill(actor)

    await asyncio.gather(*map(hear, range(8)))
    assert heard == [alone(stream) for stream in streams]
    assert all(vad._session is not None for vad in vads)
    assert farm.hosts[other].runner.counts.sessions == 8
    for vad in vads:
        await vad.disconnect_model()


async def test_without_any_actor_left_it_goes_on_in_its_own_process(
    farm: Farm, actor: str, caller: Samples
) -> None:
    vad = await connected()
    states = []
    for at, piece in enumerate(pieces(caller)):
        states.append(await vad.analyze_audio_async(piece))
        if at == 100:
            farm.kill(actor)
    assert vad._session is None
    # It hears the last half second again, and is then as sure as it was.
    assert states == alone(caller)


async def test_an_actor_that_does_not_answer_in_time_is_done_without(
    farm: Farm, actor: str, caller: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.audio.vad.silero.ANSWER_SECS", 0.05)
    vad = await connected()
    states = []
    for at, piece in enumerate(pieces(caller[:80_000])):
        if at == 60:
            monkeypatch.setattr(farm.hosts[actor].runner, "submit", lambda request: None)
        states.append(await vad.analyze_audio_async(piece))
    assert states == alone(caller[:80_000])
    assert vad._session is None


async def test_an_actor_that_is_busy_for_a_moment_is_asked_again(
    farm: Farm, actor: str, caller: Samples
) -> None:
    vad = await connected()
    limits = farm.hosts[actor].runner._batcher.limits
    states = []
    for at, piece in enumerate(pieces(caller[:80_000])):
        if at == 60:
            farm.hosts[actor].runner._batcher.limits = Limits(max_batch=1, max_queued=0)
            loop = asyncio.get_running_loop()
            loop.call_later(0.03, setattr, farm.hosts[actor].runner._batcher, "limits", limits)
        states.append(await vad.analyze_audio_async(piece))
    assert states == alone(caller[:80_000])
    assert vad._session is not None
    assert farm.hosts[actor].runner.counts.refused > 0
    await vad.disconnect_model()


async def test_a_model_that_cannot_be_had_is_no_error(farm: Farm, caller: Samples) -> None:
    farm.refusal = ServiceError("no room")
    vad = await connected()
    states = [await vad.analyze_audio_async(piece) for piece in pieces(caller[:32_000])]
    assert states == alone(caller[:32_000])


async def test_a_window_that_is_none_is_refused_there_too(farm: Farm, actor: str) -> None:
    client = await (await _models()).connect(SHARED_MODEL)
    session, odd = client.open_session(16000), client.open_session(11025)
    with pytest.raises(ServiceError, match="512 samples at 16000 Hz, not 256"):
        await session.request(bytes(512), deadline_secs=5)
    with pytest.raises(ServiceError, match="8000 or 16000 Hz, not 11025"):
        await odd.request(bytes(1024), deadline_secs=5)
    assert 0 <= await session.request(bytes(1024), deadline_secs=5) < 0.5
    await client.aclose()


async def _models() -> Any:
    from antiphon.models.provider import model_provider

    return model_provider()


# --- in a transport -------------------------------------------------------------------------------


class Microphone(BaseInputTransport):
    """An input transport that is given its audio."""

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)


def frames(samples: Samples) -> list[InputAudioRawFrame]:
    return [InputAudioRawFrame(piece, 16000, 1) for piece in pieces(samples)]


async def speak(microphone: Microphone, bench: Bench, samples: Samples) -> None:
    """Sends audio as fast as it is taken, and waits until all has passed."""
    before = len(bench.below.of(InputAudioRawFrame))
    sent = frames(samples)
    for frame in sent:
        await microphone.push_audio_frame(frame)
    await until(lambda: len(bench.below.of(InputAudioRawFrame)) >= before + len(sent))


def passed(bench: Bench) -> list[str]:
    """What came out, with the audio between changes counted."""
    found: list[str] = []
    audio = 0
    for frame in bench.below.frames():
        if isinstance(frame, InputAudioRawFrame):
            audio += 1
        elif isinstance(frame, (UserStartedSpeakingFrame, UserStoppedSpeakingFrame)):
            found += [f"{audio} audio", type(frame).__name__]
            audio = 0
    return [*found, f"{audio} audio"]


async def heard_through(bench: Bench, microphone: Microphone, samples: Samples) -> list[str]:
    await bench.run(lambda it: speak(microphone, it, samples))
    return passed(bench)


def microphone() -> Microphone:
    return Microphone(TransportParams(audio_in_enabled=True, vad_analyzer=SileroVADAnalyzer()))


async def test_audio_and_what_is_heard_in_it_keep_their_order(
    farm: Farm, actor: str, bench: MakeBench, caller: Samples
) -> None:
    samples = caller[:160_000]
    there = microphone()
    found = await heard_through(bench(there), there, samples)
    assert farm.hosts[actor].runner.counts.answered == len(samples) // 512
    farm.refusal = ServiceError("no room")
    here = microphone()
    assert found == await heard_through(bench(here), here, samples)
    assert "UserStartedSpeakingFrame" in found
    assert "UserStoppedSpeakingFrame" in found


async def test_the_session_ends_with_the_transport(
    farm: Farm, actor: str, bench: MakeBench, caller: Samples
) -> None:
    there = microphone()

    async def script(it: Bench) -> None:
        await speak(there, it, caller[:16_000])
        assert farm.hosts[actor].runner.counts.sessions == 1

    await bench(there).run(script)
    await until(lambda: not farm.hosts[actor].runner.counts.sessions)


async def test_a_transport_that_is_cancelled_while_a_window_is_under_way_leaves_nothing(
    farm: Farm, actor: str, bench: MakeBench, caller: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = microphone()
    it = bench(there)

    async def script(it: Bench) -> None:
        held: list[Any] = []
        monkeypatch.setattr(farm.hosts[actor].runner, "submit", held.append)
        for frame in frames(caller[:3200]):
            await there.push_audio_frame(frame)
        await until(lambda: held)
        await it.task.cancel()

    await it.run(script, end=False)
    await until(lambda: not farm.hosts[actor]._users)


async def test_parameters_may_change_while_a_window_is_under_way(
    farm: Farm, actor: str, bench: MakeBench, caller: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = microphone()
    it = bench(there)
    runner = farm.hosts[actor].runner
    submit = runner.submit

    async def script(it: Bench) -> None:
        held: list[Any] = []
        monkeypatch.setattr(runner, "submit", held.append)
        for frame in frames(caller[:1600]):
            await there.push_audio_frame(frame)
        await until(lambda: held)
        params = VADParams(stop_secs=0.2)
        await it.up(VADParamsUpdateFrame(params))
        vad = there.vad_analyzer
        assert vad is not None
        assert vad.params.stop_secs == 0.2
        monkeypatch.setattr(runner, "submit", submit)
        submit(held[0])
        await speak(there, it, caller[1600:96_000])

    await it.run(script)
    assert "UserStoppedSpeakingFrame" in passed(it)
