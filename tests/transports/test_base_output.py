from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from antiphon.audio.mixers.base_audio_mixer import BaseAudioMixer
from antiphon.frames.frames import (
    BotSpeakingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    ControlFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    KeypadEntry,
    MixerControlFrame,
    MixerEnableFrame,
    OutputAudioRawFrame,
    OutputDTMFFrame,
    OutputDTMFUrgentFrame,
    OutputImageRawFrame,
    SpeechOutputAudioRawFrame,
    SpriteFrame,
    StartFrame,
    StartInterruptionFrame,
    TextFrame,
    TransportMessageFrame,
    TransportMessageUrgentFrame,
    TTSAudioRawFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.transports._output import audio_lane
from antiphon.transports.base_output import BaseOutputTransport
from antiphon.transports.base_transport import TransportParams

pytestmark = pytest.mark.virtual_time

RATE = 24000
PIECE = 1920  # 40 ms


class Output(BaseOutputTransport):
    """Plays audio in real time and keeps what it is asked to do, with the time."""

    def __init__(self, *, paced: bool = True, ready: bool = True, **params: Any) -> None:
        super().__init__(TransportParams(**({"audio_out_enabled": True} | params)))
        self._paced = paced
        self._ready = ready
        self.done: list[tuple[float, str, Any]] = []
        self.fail_next = 0

    def note(self, what: str, detail: Any) -> None:
        self.done.append((asyncio.get_running_loop().time(), what, detail))

    def did(self, what: str) -> list[Any]:
        return [detail for _, done, detail in self.done if done == what]

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        if self._ready:
            await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> None:
        if self.fail_next:
            self.fail_next -= 1
            raise ConnectionError("gone")
        self.note("audio", frame)
        if self._paced:
            await asyncio.sleep(frame.num_frames / frame.sample_rate)

    async def write_video_frame(self, frame: OutputImageRawFrame) -> None:
        self.note("image", frame)

    async def send_message(
        self, frame: TransportMessageFrame | TransportMessageUrgentFrame
    ) -> None:
        self.note("message", frame.message)

    async def write_dtmf(self, frame: OutputDTMFFrame | OutputDTMFUrgentFrame) -> None:
        self.note("dtmf", frame.button.value)

    async def register_audio_destination(self, destination: str) -> None:
        self.note("audio destination", destination)

    async def register_video_destination(self, destination: str) -> None:
        self.note("video destination", destination)


def tts(secs: float, *, rate: int = RATE, destination: str | None = None) -> TTSAudioRawFrame:
    ramp = (np.arange(round(secs * rate)) % 30000).astype("<i2")
    frame = TTSAudioRawFrame(ramp.tobytes(), rate, 1)
    frame.transport_destination = destination
    return frame


def timed(text: str, secs: float) -> TextFrame:
    frame = TextFrame(text)
    frame.pts = round(secs * 1e9)
    return frame


def texts(frames: Iterable[Frame]) -> list[str]:
    return [frame.text for frame in frames if isinstance(frame, TextFrame)]


class Nap(ControlFrame):
    """A control frame that survives an interruption, as StopFrame does."""

    survives_interruption = True


async def test_audio_is_cut_in_pieces_and_a_remainder_is_never_padded(bench: Any) -> None:
    out = Output()
    b = bench(out)
    sent = [tts(0.05), tts(0.05), tts(0.03)]
    await b.run(lambda b: b.down(*sent))
    written = out.did("audio")
    assert [len(frame.audio) for frame in written] == [PIECE] * 3
    whole = b"".join(frame.audio for frame in sent)
    assert b"".join(frame.audio for frame in written) == whole[: 3 * PIECE]
    assert {type(frame) for frame in written} == {TTSAudioRawFrame}
    assert not {frame.id for frame in written} & {frame.id for frame in sent}


async def test_pieces_are_pushed_downstream_before_they_are_written(bench: Any) -> None:
    out = Output()
    b = bench(out)
    await b.run(lambda b: b.down(tts(0.08)))
    pushed = [frame for _, frame in b.below.of(TTSAudioRawFrame)]
    assert [frame.id for frame in pushed] == [frame.id for frame in out.did("audio")]
    for (pushed_at, _), (written_at, _, _) in zip(
        b.below.of(TTSAudioRawFrame), out.done, strict=True
    ):
        assert pushed_at <= written_at


async def test_audio_of_another_rate_is_resampled(bench: Any) -> None:
    out = Output()
    b = bench(out)
    await b.run(lambda b: b.down(tts(0.4, rate=16000)))
    assert len(out.did("audio")) == 10
    assert {frame.sample_rate for frame in out.did("audio")} == {RATE}


async def test_a_piece_lasts_as_long_as_the_parameter_says(bench: Any) -> None:
    out = Output(audio_out_10ms_chunks=2, audio_out_sample_rate=8000)
    b = bench(out)
    await b.run(lambda b: b.down(tts(0.1, rate=8000)))
    assert [len(frame.audio) for frame in out.did("audio")] == [320] * 5


async def test_the_end_waits_until_the_audio_was_played(bench: Any) -> None:
    out = Output()
    b = bench(out)
    await b.run(lambda b: b.down(tts(1.0), TextFrame("after")))
    (first_at, _), *_ = b.below.of(TTSAudioRawFrame)
    ((text_at, _),) = b.below.of(TextFrame)
    ((end_at, _),) = b.below.of(EndFrame)
    assert text_at - first_at == pytest.approx(1.0, abs=0.001)
    assert end_at >= text_at
    # No silence of 0.35 s passed: the bot never counted as silent.
    assert not b.below.of(BotStoppedSpeakingFrame)


async def test_bot_speaking_frames_go_both_ways(bench: Any) -> None:
    out = Output()
    b = bench(out)

    async def script(b: Any) -> None:
        await b.down(tts(1.0))
        await asyncio.sleep(2.0)

    await b.run(script)
    for capture in (b.above, b.below):
        ((started_at, _),) = capture.of(BotStartedSpeakingFrame)
        ((stopped_at, _),) = capture.of(BotStoppedSpeakingFrame)
        assert stopped_at - started_at == pytest.approx(1.35, abs=0.002)
        assert len(capture.of(BotSpeakingFrame)) == 5
    assert b.above.names(FrameDirection.UPSTREAM)[1:3] == ["BotStartedSpeaking", "BotSpeaking"]
    names = b.below.names()
    assert names.index("BotStartedSpeaking") < names.index("TTSAudioRaw")


async def test_only_speech_makes_the_bot_speak(bench: Any) -> None:
    out = Output()
    b = bench(out)

    async def script(b: Any) -> None:
        await b.down(OutputAudioRawFrame(tts(0.08).audio, RATE, 1))
        await b.down(SpeechOutputAudioRawFrame(bytes(2 * PIECE), RATE, 1))
        await asyncio.sleep(0.5)
        assert not b.below.of(BotStartedSpeakingFrame)
        await b.down(SpeechOutputAudioRawFrame(tts(0.08).audio, RATE, 1))
        # A stream that goes on in silence does not keep the bot speaking.
        await b.down(SpeechOutputAudioRawFrame(bytes(20 * PIECE), RATE, 1))
        await asyncio.sleep(1.0)

    await b.run(script)
    ((started_at, _),) = b.below.of(BotStartedSpeakingFrame)
    ((stopped_at, _),) = b.below.of(BotStoppedSpeakingFrame)
    assert stopped_at - started_at == pytest.approx(0.08 + 0.35, abs=0.05)


async def test_an_interruption_drops_what_was_not_played(bench: Any) -> None:
    out = Output()
    b = bench(out)

    async def script(b: Any) -> None:
        await b.down(tts(2.0), TextFrame("lost"))
        await asyncio.sleep(0.5)
        await b.down(StartInterruptionFrame())
        await asyncio.sleep(1.0)
        await b.down(tts(0.04), TextFrame("kept"))

    await b.run(script)
    assert len(out.did("audio")) == 13 + 1
    assert texts(b.below.frames()) == ["kept"]
    names = b.below.names()
    assert names.index("StartInterruption") < names.index("BotStoppedSpeaking")
    ((interrupted_at, _),) = b.below.of(StartInterruptionFrame)
    ((stopped_at, _),) = b.above.of(BotStoppedSpeakingFrame)
    assert stopped_at - interrupted_at < 0.01
    # The new answer begins with its own first sample.
    assert out.did("audio")[-1].audio == tts(0.04).audio


async def test_without_interruptions_the_bot_speaks_on(bench: Any) -> None:
    out = Output()
    b = bench(out, allow_interruptions=False)

    async def script(b: Any) -> None:
        await b.down(tts(0.4), TextFrame("kept"), StartInterruptionFrame())
        await asyncio.sleep(1.0)

    await b.run(script)
    assert len(out.did("audio")) == 10
    assert texts(b.below.frames()) == ["kept"]


async def test_a_waiting_end_outlives_an_interruption(bench: Any) -> None:
    out = Output()
    b = bench(out)

    loop = asyncio.get_running_loop()
    began_at = loop.time()

    async def interrupting(b: Any) -> None:
        await b.down(tts(5.0), Nap())
        await b.task.queue_frame(EndFrame())
        await asyncio.sleep(0.5)
        # The task's own queue waits for the EndFrame now.
        await b.above.push_frame(StartInterruptionFrame())

    await b.run(interrupting, end=False)
    assert loop.time() - began_at < 2.0
    assert b.below.names()[-2:] == ["Nap", "End"]
    assert len(out.did("audio")) < 20


async def test_urgent_messages_and_keys_do_not_wait_for_audio(bench: Any) -> None:
    out = Output()
    b = bench(out)
    await b.run(
        lambda b: b.down(
            tts(0.4),
            TransportMessageFrame("in turn"),
            OutputDTMFFrame(KeypadEntry.ONE),
            TransportMessageUrgentFrame("at once"),
            OutputDTMFUrgentFrame(KeypadEntry.TWO),
        )
    )
    assert out.did("message") == ["at once", "in turn"]
    assert out.did("dtmf") == ["2", "1"]
    # Those in turn go on downstream, urgent ones have reached their aim.
    assert [n for n in b.below.names() if "Message" in n or "DTMF" in n] == [
        "TransportMessage",
        "OutputDTMF",
    ]


async def test_destinations_have_senders_of_their_own(bench: Any) -> None:
    out = Output(audio_out_destinations=["a"], video_out_destinations=["a", "v"])
    b = bench(out)
    unknown = TextFrame("nowhere")
    unknown.transport_destination = "x"
    await b.run(
        lambda b: b.down(tts(0.4), tts(0.4, destination="a"), tts(0.4, destination="x"), unknown)
    )
    assert out.did("audio destination") == ["a"]
    assert out.did("video destination") == ["a", "v"]
    by_destination = [frame.transport_destination for frame in out.did("audio")]
    assert by_destination.count(None) == by_destination.count("a") == 10
    assert "x" not in by_destination
    assert texts(b.below.frames()) == []
    # Both play at the same time.
    assert out.done[-1][0] - out.done[0][0] < 0.6
    started = [frame.transport_destination for _, frame in b.below.of(BotStartedSpeakingFrame)]
    assert sorted(started, key=str) == [None, "a"]


async def test_audio_is_dropped_if_disabled(bench: Any) -> None:
    out = Output(audio_out_enabled=False)
    b = bench(out)
    await b.run(lambda b: b.down(tts(0.4), TextFrame("hello")))
    assert out.did("audio") == []
    assert texts(b.below.frames()) == ["hello"]


async def test_the_end_passes_a_transport_that_never_got_ready(bench: Any) -> None:
    out = Output(ready=False)
    b = bench(out)
    await b.run(lambda b: b.down(tts(0.4), Nap()))
    assert b.below.names() == ["Start", "Nap", "End"]
    assert out.statistics.frames_dropped == 1


async def test_readiness_is_told_upstream(bench: Any) -> None:
    b = bench(Output())
    await b.run(lambda b: b.down())
    assert b.above.names(FrameDirection.UPSTREAM) == ["OutputTransportReady"]


async def test_timed_frames_wait_for_the_clock(bench: Any) -> None:
    b = bench(Output())
    began_at = asyncio.get_running_loop().time()
    await b.run(lambda b: b.down(timed("late", 0.4), timed("early", 0.2), TextFrame("now")))
    assert texts(b.below.frames()) == ["now", "early", "late"]
    at = [round(seen - began_at, 2) for seen, _ in b.below.of(TextFrame)]
    assert at[1:] == [pytest.approx(0.2, abs=0.01), pytest.approx(0.4, abs=0.01)]


async def test_an_interruption_drops_timed_frames(bench: Any) -> None:
    b = bench(Output())

    async def script(b: Any) -> None:
        await b.down(timed("lost", 0.4), StartInterruptionFrame(), timed("kept", 0.5))

    await b.run(script)
    assert texts(b.below.frames()) == ["kept"]


async def test_a_long_answer_waits_for_room(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_lane, "_QUEUE_FRAMES", 10)
    out = Output()
    b = bench(out)
    await b.run(lambda b: b.down(tts(4.0), TextFrame("end")))
    assert len(out.did("audio")) == 100
    assert texts(b.below.frames()) == ["end"]


async def test_a_full_queue_gives_way_to_an_interruption(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_lane, "_QUEUE_FRAMES", 10)
    out = Output()
    b = bench(out)

    async def script(b: Any) -> None:
        await b.down(tts(4.0), TextFrame("lost"), StartInterruptionFrame(), TextFrame("kept"))

    await b.run(script)
    assert texts(b.below.frames()) == ["kept"]
    assert len(out.did("audio")) == 1


async def test_a_failing_connection_is_reported_once_and_the_end_comes(bench: Any) -> None:
    out = Output()
    out.fail_next = 5
    b = bench(out)
    await b.run(lambda b: b.down(tts(0.4)))
    assert len(out.did("audio")) == 5
    assert len(b.above.of(ErrorFrame)) == 1
    assert b.below.names()[-1] == "End"


async def test_cancelling_ends_at_once(bench: Any) -> None:
    out = Output()
    b = bench(out)

    async def script(b: Any) -> None:
        await b.down(tts(10.0))
        await b.task.cancel()

    began_at = asyncio.get_running_loop().time()
    await b.run(script, end=False)
    assert asyncio.get_running_loop().time() - began_at < 0.5
    assert b.below.names()[-1] == "Cancel"


async def test_send_audio_and_send_image(bench: Any) -> None:
    out = Output(video_out_enabled=True, video_out_width=2, video_out_height=2)
    b = bench(out)

    async def script(_: Any) -> None:
        await out.send_audio(tts(0.04))
        await out.send_image(image())
        await asyncio.sleep(0.1)

    await b.run(script)
    assert len(out.did("audio")) == 1
    assert out.did("image")


class Hum(BaseAudioMixer):
    """Puts a constant into every sample."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def start(self, sample_rate: int) -> None:
        self.calls.append(f"start {sample_rate}")

    async def stop(self) -> None:
        self.calls.append("stop")

    async def process_frame(self, frame: MixerControlFrame) -> None:
        self.calls.append(type(frame).__name__)

    async def mix(self, audio: bytes) -> bytes:
        return (np.frombuffer(audio, "<i2") + 1).astype("<i2").tobytes()


@pytest.mark.parametrize("paced", [True, False])
async def test_a_mixer_makes_a_constant_stream(bench: Any, paced: bool) -> None:
    hum = Hum()
    out = Output(paced=paced, audio_out_mixer=hum)
    b = bench(out)

    async def script(b: Any) -> None:
        await asyncio.sleep(0.5)
        await b.down(tts(0.2), MixerEnableFrame(enable=True))
        await asyncio.sleep(1.0)

    await b.run(script)
    # 1.5 s of sound; what does not set the pace itself may be 0.1 s and a piece ahead.
    assert 37 <= len(out.did("audio")) <= 44
    speech = [frame for frame in out.did("audio") if isinstance(frame, TTSAudioRawFrame)]
    expected = (np.frombuffer(tts(0.2).audio, "<i2") + 1).astype("<i2").tobytes()
    assert b"".join(frame.audio for frame in speech) == expected
    assert hum.calls == [f"start {RATE}", "MixerEnableFrame", "stop"]
    assert len(b.below.of(BotStoppedSpeakingFrame)) == 1


async def test_mixers_of_several_destinations(bench: Any) -> None:
    hum = Hum()
    out = Output(audio_out_destinations=["a"], audio_out_mixer={"a": hum})
    b = bench(out)
    await b.run(lambda b: b.down(tts(0.04), tts(0.04, destination="a")))
    plain = [f for f in out.did("audio") if f.transport_destination is None]
    assert [frame.audio for frame in plain] == [tts(0.04).audio]
    assert any(
        f.transport_destination == "a" and f.audio[:2] == b"\x01\0" for f in out.did("audio")
    )


def image(size: tuple[int, int] = (2, 2), shade: int = 0) -> OutputImageRawFrame:
    return OutputImageRawFrame(bytes([shade]) * (size[0] * size[1] * 3), size, "RGB")


VIDEO: dict[str, Any] = {"video_out_enabled": True, "video_out_width": 2, "video_out_height": 2}


async def test_a_still_image_is_repeated_at_the_frame_rate(bench: Any) -> None:
    out = Output(video_out_framerate=10, **VIDEO)
    b = bench(out)

    async def script(b: Any) -> None:
        await b.down(image(shade=1))
        await asyncio.sleep(0.95)
        await b.down(SpriteFrame([image(shade=2), image(shade=3)]))
        await asyncio.sleep(0.4)

    await b.run(script)
    shades = [frame.image[0] for frame in out.did("image")]
    assert shades[:10] == [1] * 10
    assert shades[10:14] == [2, 3, 2, 3]
    assert "OutputImageRaw" not in b.below.names()


async def test_live_images_are_shown_once_in_order(bench: Any) -> None:
    out = Output(video_out_is_live=True, video_out_framerate=10, **VIDEO)
    b = bench(out)

    async def script(b: Any) -> None:
        await b.down(*(image(shade=n) for n in range(5)))
        await asyncio.sleep(1.0)

    await b.run(script)
    assert [frame.image[0] for frame in out.did("image")] == [0, 1, 2, 3, 4]
    times = [at for at, what, _ in out.done if what == "image"]
    assert times[-1] - times[0] == pytest.approx(0.4, abs=0.01)


async def test_images_are_scaled_to_the_size_of_the_video(bench: Any) -> None:
    pytest.importorskip("PIL")
    out = Output(**VIDEO)
    b = bench(out)

    async def script(b: Any) -> None:
        await b.down(image(size=(4, 4), shade=7))
        await asyncio.sleep(0.05)

    await b.run(script)
    assert out.did("image")[0].size == (2, 2)
    assert out.did("image")[0].image == bytes([7]) * 12
