from __future__ import annotations

import asyncio
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.audio.vad.vad_analyzer import VADParams
from antiphon.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    StartInterruptionFrame,
    StopFrame,
    TTSAudioRawFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.testing.fake_vad import FakeVADAnalyzer
from antiphon.transports.file import FileClient, FileTransport, FileTransportParams

pytestmark = pytest.mark.virtual_time

IN_RATE = 16000
OUT_RATE = 24000


def tone(secs: float, *, rate: int = IN_RATE, hz: int = 400) -> np.ndarray:
    return (10000 * np.sin(2 * np.pi * hz * np.arange(round(secs * rate)) / rate)).astype("<i2")


def silence(secs: float) -> np.ndarray:
    return np.zeros(round(secs * IN_RATE), "<i2")


def caller(path: Path, *parts: np.ndarray, rate: int = IN_RATE) -> Path:
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate)
        wav.writeframes(np.concatenate(parts).tobytes())
    return path


def recording(path: Path) -> np.ndarray:
    """Samples of a recording, one column per channel."""
    with wave.open(str(path)) as wav:
        assert (wav.getframerate(), wav.getsampwidth()) == (OUT_RATE, 2)
        samples = np.frombuffer(wav.readframes(wav.getnframes()), "<i2")
        return samples.reshape(-1, wav.getnchannels())


def sounds(samples: np.ndarray) -> list[tuple[float, float]]:
    """Where there is sound, in seconds; pauses under 50 ms are no pauses."""
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 500)
    if len(loud) == 0:
        return []
    gaps = np.flatnonzero(np.diff(loud) > 0.05 * OUT_RATE)
    starts = [loud[0], *loud[gaps + 1]]
    ends = [*loud[gaps], loud[-1]]
    return [(s / OUT_RATE, e / OUT_RATE) for s, e in zip(starts, ends, strict=True)]


def near(*pairs: tuple[float, float]) -> Any:
    return [pytest.approx(pair, abs=0.03) for pair in pairs]


class Answers(FrameProcessor):
    """Says a tone of a given length each time the user has spoken."""

    def __init__(self, *secs: float) -> None:
        super().__init__()
        self._secs = list(secs)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, UserStoppedSpeakingFrame) and self._secs:
            answer = tone(self._secs.pop(0), rate=OUT_RATE, hz=800)
            await self.push_frame(TTSAudioRawFrame(answer.tobytes(), OUT_RATE, 1))


class Listener(FrameProcessor):
    """Notes when audio arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[float, bytes]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.heard.append((asyncio.get_running_loop().time(), frame.audio))
        await self.push_frame(frame, direction)


class Talk:
    """A transport in a pipeline that ends when the caller hangs up."""

    def __init__(self, transport: FileTransport, *between: FrameProcessor, make: Any) -> None:
        self.events: list[tuple[float, str, FileClient]] = []
        self.listener = Listener()
        self.bench = make(transport.input(), self.listener, *between, transport.output())

        @transport.event_handler("on_client_connected")
        async def on_connected(_: FileTransport, client: FileClient) -> None:
            self.events.append((asyncio.get_running_loop().time(), "connected", client))

        @transport.event_handler("on_client_disconnected")
        async def on_disconnected(_: FileTransport, client: FileClient) -> None:
            self.events.append((asyncio.get_running_loop().time(), "disconnected", client))
            await self.bench.task.queue_frame(EndFrame())

    async def run(self) -> None:
        async def nothing(_: Any) -> None:
            return

        await self.bench.run(nothing, end=False)

    @property
    def heard(self) -> bytes:
        return b"".join(audio for _, audio in self.listener.heard)


def vad() -> FakeVADAnalyzer:
    return FakeVADAnalyzer(params=VADParams(start_secs=0.1, stop_secs=0.3, min_volume=0.0))


async def test_plays_at_the_speed_of_speech_without_drift(tmp_path: Path, bench: Any) -> None:
    samples = tone(2.01)
    transport = FileTransport(caller(tmp_path / "in.wav", samples))
    talk = Talk(transport, make=bench)
    await talk.run()
    ((connected_at, _, client), (disconnected_at, _, _)) = talk.events
    assert client == FileClient(tmp_path / "in.wav", 2.01)
    assert talk.heard == samples.tobytes()
    for number, (at, audio) in enumerate(talk.listener.heard):
        spoken = min(number * 0.02 + 0.02, 2.01)
        assert at - connected_at == pytest.approx(spoken, abs=1e-4)
        assert len(audio) == (640 if number < 100 else 320)
    assert disconnected_at - connected_at == pytest.approx(2.01, abs=0.001)


async def test_silence_follows_until_the_caller_hangs_up(tmp_path: Path, bench: Any) -> None:
    params = FileTransportParams(tail_secs=1.5)
    transport = FileTransport(caller(tmp_path / "in.wav", tone(0.5)), params=params)
    talk = Talk(transport, make=bench)
    await talk.run()
    assert talk.heard == tone(0.5).tobytes() + silence(1.5).tobytes()
    assert talk.events[1][0] - talk.events[0][0] == pytest.approx(2.0, abs=0.001)


async def test_as_fast_as_possible_keeps_every_sample(tmp_path: Path, bench: Any) -> None:
    samples = np.concatenate([tone(20.0), silence(10.0)])
    params = FileTransportParams(realtime=False, tail_secs=0.5)
    transport = FileTransport(caller(tmp_path / "in.wav", samples), params=params)
    talk = Talk(transport, make=bench)
    await talk.run()
    assert talk.heard == samples.tobytes() + silence(0.5).tobytes()
    assert talk.events[1][0] - talk.events[0][0] == pytest.approx(0.5, abs=0.01)


async def test_another_rate_is_converted(tmp_path: Path, bench: Any) -> None:
    transport = FileTransport(caller(tmp_path / "in.wav", tone(1.0, rate=8000), rate=8000))
    talk = Talk(transport, make=bench)
    await talk.run()
    assert len(talk.heard) == 2 * IN_RATE


async def test_records_the_bot_where_it_spoke(tmp_path: Path, bench: Any) -> None:
    path = caller(tmp_path / "in.wav", silence(0.5), tone(1.0), silence(2.5), tone(1.0))
    params = FileTransportParams(vad_analyzer=vad(), tail_secs=2.0)
    transport = FileTransport(path, tmp_path / "out.wav", params)
    talk = Talk(transport, Answers(1.0, 0.8), make=bench)
    await talk.run()
    bot = recording(tmp_path / "out.wav")
    # The user has stopped 0.3 s after the last sound.
    assert sounds(bot[:, 0]) == near((1.8, 2.8), (5.3, 6.1))
    assert bot.shape == (pytest.approx(7.0 * OUT_RATE, abs=0.05 * OUT_RATE), 1)


async def test_stereo_has_both_on_one_time_line(tmp_path: Path, bench: Any) -> None:
    path = caller(tmp_path / "in.wav", silence(0.5), tone(1.0), silence(2.5), tone(1.0))
    params = FileTransportParams(vad_analyzer=vad(), tail_secs=2.0, layout="stereo")
    transport = FileTransport(path, tmp_path / "out.wav", params)
    talk = Talk(transport, Answers(1.0, 0.8), make=bench)
    await talk.run()
    both = recording(tmp_path / "out.wav")
    assert sounds(both[:, 0]) == near((0.5, 1.5), (4.0, 5.0))
    assert sounds(both[:, 1]) == near((1.8, 2.8), (5.3, 6.1))


async def test_an_interrupted_answer_ends_where_it_was_interrupted(
    tmp_path: Path, bench: Any
) -> None:
    path = caller(tmp_path / "in.wav", tone(1.0), silence(1.0), tone(0.5), silence(0.5))
    params = FileTransportParams(vad_analyzer=vad(), tail_secs=1.5)
    transport = FileTransport(path, tmp_path / "out.wav", params)
    talk = Talk(transport, Answers(5.0, 0.5), make=bench)
    await talk.run()
    # The second sentence begins at 2.0 s and counts from 2.1 s on.
    assert sounds(recording(tmp_path / "out.wav")[:, 0]) == near((1.3, 2.1), (2.8, 3.3))


async def test_the_end_waits_for_the_last_word(tmp_path: Path, bench: Any) -> None:
    path = caller(tmp_path / "in.wav", tone(0.5), silence(0.5))
    transport = FileTransport(path, tmp_path / "out.wav", FileTransportParams(vad_analyzer=vad()))
    talk = Talk(transport, Answers(2.0), make=bench)
    await talk.run()
    assert sounds(recording(tmp_path / "out.wav")[:, 0]) == near((0.8, 2.8))


async def test_the_recording_is_whole_after_a_cancellation(tmp_path: Path, bench: Any) -> None:
    path = caller(tmp_path / "in.wav", tone(0.5), silence(10.0))
    params = FileTransportParams(vad_analyzer=vad(), layout="stereo")
    transport = FileTransport(path, tmp_path / "out.wav", params)
    talk = Talk(transport, Answers(5.0), make=bench)

    async def script(b: Any) -> None:
        await asyncio.sleep(2.0)
        await b.task.cancel()

    await talk.bench.run(script, end=False)
    both = recording(tmp_path / "out.wav")
    assert sounds(both[:, 0]) == near((0.0, 0.5))
    assert sounds(both[:, 1]) == near((0.8, 2.0))


@pytest.mark.leaks("tasks", reason="a stopped task keeps its own source and sink")
async def test_a_stopped_pipeline_plays_the_file_again(tmp_path: Path, bench: Any) -> None:
    path = caller(tmp_path / "in.wav", tone(0.5), silence(2.5))
    transport = FileTransport(path, tmp_path / "out.wav", FileTransportParams(vad_analyzer=vad()))
    talk = Talk(transport, Answers(1.5, 0.5), make=bench)

    async def script(b: Any) -> None:
        await asyncio.sleep(1.3)
        await b.task.queue_frame(StopFrame())
        await asyncio.sleep(0.2)
        # A StopFrame that waits behind the audio outlives this.
        await b.above.push_frame(StartInterruptionFrame())

    began_at = asyncio.get_running_loop().time()
    await talk.bench.run(script, end=False)
    assert asyncio.get_running_loop().time() - began_at < 1.7
    talk.bench.renew()
    await talk.run()
    assert sounds(recording(tmp_path / "out.wav")[:, 0]) == near((0.8, 1.3))
    assert [what for _, what, _ in talk.events] == ["connected", "connected", "disconnected"]


async def test_in_fast_mode_the_recording_has_no_gaps(tmp_path: Path, bench: Any) -> None:
    path = caller(tmp_path / "in.wav", tone(1.0), silence(1.0), tone(1.0), silence(1.0))
    params = FileTransportParams(realtime=False, vad_analyzer=vad(), layout="stereo", tail_secs=0.2)
    transport = FileTransport(path, tmp_path / "out.wav", params)
    talk = Talk(transport, Answers(1.0, 0.8), make=lambda *p: bench(*p, allow_interruptions=False))
    await talk.run()
    both = recording(tmp_path / "out.wav")
    assert sounds(both[:, 0]) == near((0.0, 1.0), (2.0, 3.0))
    assert sounds(both[:, 1]) == near((0.0, 1.8))
    assert len(both) == pytest.approx(4.2 * OUT_RATE, abs=10)


async def test_a_file_that_cannot_be_played_ends_the_pipeline_with_the_reason(
    tmp_path: Path, bench: Any
) -> None:
    transport = FileTransport(tmp_path / "missing.wav")
    talk = Talk(transport, make=bench)
    await talk.run()
    errors = [frame for _, frame in talk.bench.above.of(ErrorFrame)]
    assert isinstance(errors[0], ErrorFrame)
    assert errors[0].fatal
    assert "missing.wav" in errors[0].error
    assert talk.events == []


async def test_a_recording_alone_begins_with_the_pipeline(tmp_path: Path, bench: Any) -> None:
    transport = FileTransport("unused.wav", tmp_path / "out.wav")
    b = bench(transport.output())

    async def script(b: Any) -> None:
        await asyncio.sleep(1.0)
        await b.down(TTSAudioRawFrame(tone(0.4, rate=OUT_RATE).tobytes(), OUT_RATE, 1))

    await b.run(script)
    assert sounds(recording(tmp_path / "out.wav")[:, 0]) == near((1.0, 1.4))


async def test_the_caller_speaks_even_if_the_output_never_gets_ready(
    tmp_path: Path, bench: Any
) -> None:
    transport = FileTransport(caller(tmp_path / "in.wav", tone(0.5)))
    transport.output()
    listener = Listener()
    b = bench(transport.input(), listener)

    async def script(_: Any) -> None:
        await asyncio.sleep(31.0)

    await b.run(script)
    assert len(listener.heard) == 25


def test_construction_opens_nothing(tmp_path: Path) -> None:
    transport = FileTransport(tmp_path / "missing.wav", tmp_path / "out.wav")
    assert transport.input() is transport.input()
    assert transport.output() is transport.output()
    assert not (tmp_path / "out.wav").exists()
