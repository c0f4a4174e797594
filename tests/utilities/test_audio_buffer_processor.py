"""Recording a conversation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.audio.audio_buffer_processor import AudioBufferProcessor
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

RATE = 24_000  # the pipeline's default output rate


def pcm(value: int, secs: float, rate: int = RATE) -> bytes:
    return np.full(round(secs * rate), value, "<i2").tobytes()


def user(value: int, secs: float) -> Frame:
    return InputAudioRawFrame(pcm(value, secs), RATE, 1)


def bot(value: int, secs: float) -> Frame:
    return OutputAudioRawFrame(pcm(value, secs), RATE, 1)


Events = list[tuple[str, tuple[Any, ...]]]


async def record(frames: list[Frame], *, send_end_frame: bool = True, **kwargs: Any) -> Events:
    processor = AudioBufferProcessor(**kwargs)
    events: Events = []
    for name in (
        "on_audio_data",
        "on_track_audio_data",
        "on_user_turn_audio_data",
        "on_bot_turn_audio_data",
    ):

        async def handler(source: Any, *args: Any, name: str = name) -> None:
            assert source is processor
            events.append((name, args))

        processor.add_event_handler(name, handler)
    await processor.start_recording()
    sent: list[Frame] = []
    for frame in frames:
        sent += [frame, SleepFrame(0.001)]
    await run_test(processor, frames_to_send=sent, send_end_frame=send_end_frame)
    assert not processor.has_audio()
    return events


def samples(audio: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    assert isinstance(audio, bytes)
    return np.frombuffer(audio, "<i2")


async def test_mono_is_both_mixed_and_tracks_are_equally_long() -> None:
    events = await record([user(100, 0.2), bot(10, 0.1)])
    (first, mixed), (second, tracks) = events
    assert (first, second) == ("on_audio_data", "on_track_audio_data")
    assert mixed[1:] == (RATE, 1)
    assert list(np.unique(samples(mixed[0]))) == [100, 110]
    assert tracks[2:] == (RATE, 1)
    assert len(tracks[0]) == len(tracks[1]) == len(pcm(0, 0.2))
    assert samples(tracks[1])[-1] == 0


async def test_stereo_has_the_user_on_the_left() -> None:
    ((_, stereo), _) = await record([user(100, 0.2), bot(10, 0.1)], num_channels=2)
    assert stereo[1:] == (RATE, 2)
    left, right = samples(stereo[0]).reshape(-1, 2).T
    assert (left == 100).all()
    assert list(right[[0, -1]]) == [10, 0]


async def test_one_speaker_is_a_recording_too_and_cancelling_ends_it() -> None:
    frames = [user(100, 0.1), CancelFrame()]
    events = await record(frames, send_end_frame=False)
    assert [name for name, _ in events] == ["on_audio_data", "on_track_audio_data"]
    assert events[0][1][0] == pcm(100, 0.1)


async def test_a_piece_is_handed_over_each_time_the_size_is_reached() -> None:
    size = len(pcm(0, 0.2))
    frames = [user(1, 0.1), bot(2, 0.1), user(1, 0.1), user(1, 0.1)]
    events = await record(frames, buffer_size=size)
    tracks = [args for name, args in events if name == "on_track_audio_data"]
    assert [(len(track[0]), len(track[1])) for track in tracks] == [
        (size, size),
        (size // 2, size // 2),
    ]


async def test_gaps_become_silence_and_the_tracks_stay_in_step() -> None:
    frames: list[Frame] = []
    for number in range(30):
        frames += [user(1, 0.1), SleepFrame(0.099)]
        if number == 19:
            frames += [bot(2, 0.5)]
    events = await record(frames)
    _, (user_audio, bot_audio, _, _) = events[1]
    assert (samples(user_audio) == 1).all()
    assert len(user_audio) == len(pcm(0, 3.0))
    spoken = np.flatnonzero(samples(bot_audio)) / RATE
    assert spoken[0] == pytest.approx(2.0, abs=0.05)
    assert spoken[-1] == pytest.approx(2.5, abs=0.05)


async def test_audio_is_resampled() -> None:
    frames: list[Frame] = [InputAudioRawFrame(pcm(1000, 0.5, 16_000), 16_000, 1), bot(1000, 0.5)]
    ((_, mixed), _) = await record(frames, sample_rate=8000)
    assert mixed[1] == 8000
    assert len(mixed[0]) == pytest.approx(2 * 4000, rel=0.05)


async def test_turns() -> None:
    frames: list[Frame] = [user(9, 2.0), UserStartedSpeakingFrame(), user(1, 0.2)]
    frames += [UserStoppedSpeakingFrame(), user(9, 0.1), bot(8, 0.1), BotStartedSpeakingFrame()]
    frames += [bot(2, 0.3), BotStoppedSpeakingFrame(), BotStartedSpeakingFrame(), bot(3, 0.1)]
    events = await record(frames, enable_turn_audio=True)
    turns = [(name, *args) for name, args in events if "turn" in name]
    assert turns == [
        ("on_user_turn_audio_data", pcm(9, 1.0) + pcm(1, 0.2), RATE, 1),
        ("on_bot_turn_audio_data", pcm(2, 0.3), RATE, 1),
        ("on_bot_turn_audio_data", pcm(3, 0.1), RATE, 1),
    ]


async def test_nothing_is_recorded_before_start_recording() -> None:
    processor = AudioBufferProcessor(sample_rate=8000)
    assert (processor.sample_rate, processor.num_channels) == (8000, 1)
    await run_test(
        processor,
        frames_to_send=[user(1, 0.1), bot(1, 0.1)],
        expected_down_frames=[InputAudioRawFrame, OutputAudioRawFrame],
    )
    assert processor.merge_audio_buffers() == b""


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="num_channels"):
        AudioBufferProcessor(num_channels=3)
    with pytest.warns(DeprecationWarning, match="user_continuous_stream"):
        AudioBufferProcessor(user_continuous_stream=True)
