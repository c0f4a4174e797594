"""The demonstration: the same conversation as a job over actors, and in one process."""

from __future__ import annotations

import json
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.cli.support import EXAMPLES, CommandLine, Result, transcript, words_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SCRIPT: list[dict[str, Any]] = json.loads((EXAMPLES / "caller.json").read_text())["sentences"]
SILENCE = 100  # of 32768
MAX_LAG_SECS = 1.5
"""An idle machine understands a sentence 0.3 to 0.5 s after its end was detected."""


@dataclass(frozen=True)
class Conversation:
    """One run of the demonstration."""

    result: Result
    out: Path
    left_behind: list[str]

    def needs_real_time(self) -> None:
        """Skips where other work kept the machine from hearing what was said as it was said."""
        lag, stopped = 0.0, 0.0
        for event in self.events:
            if event["kind"] == "user_stopped":
                stopped = event["secs"]
            elif event["kind"] == "user_said":
                lag = max(lag, event["secs"] - stopped)
        if lag > MAX_LAG_SECS:
            pytest.skip(f"too busy a machine: what was said was understood {lag:.1f} s later")

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened, in order."""
        events: list[dict[str, Any]] = json.loads((self.out / "timeline.json").read_text())[
            "events"
        ]
        return events

    def recording(self) -> tuple[NDArray[np.int16], int]:
        """Samples of shape (samples, 2), and their rate in Hz."""
        with wave.open(str(self.out / "conversation.wav")) as file:
            assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return samples.reshape(-1, 2), file.getframerate()


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Conversation]]:
    """Over actors and in one process, side by side: each lasts as long as the caller speaks."""
    lines = [CommandLine(), CommandLine()]
    outs = [tmp_path_factory.mktemp(name) for name in ("actors", "local")]
    # Beside the source tree: the demonstration works from any directory.
    arguments = [["demo", "--out", str(outs[0])], ["demo", "--local", "--out", str(outs[1])]]
    over_actors = lines[0].start(*arguments[0])
    # The start of a cluster takes all of the machine; a conversation takes little.
    over_actors.wait_for("caller:", 90)
    results = [lines[1].run(*arguments[1], secs=150), over_actors.wait(150)][::-1]
    yield [
        Conversation(result, out, line.left_behind())
        for result, out, line in zip(results, outs, lines, strict=True)
    ]
    for line in lines:
        line.close()


def test_it_ends_well_and_leaves_nothing(conversations: list[Conversation]) -> None:
    for conversation in conversations:
        assert conversation.result.code == 0, conversation.result
        assert conversation.result.errors == []
        assert conversation.left_behind == []
        # The EndFrame has crossed the pipeline.
        assert "the pipeline has ended" in conversation.result.out


def test_it_takes_less_than_a_minute_and_a_half(conversations: list[Conversation]) -> None:
    for conversation in conversations:
        conversation.needs_real_time()
        assert conversation.result.secs < 90


def test_every_word_of_the_caller_is_heard(conversations: list[Conversation]) -> None:
    for conversation in conversations:
        heard = words_of(transcript(conversation.result.out), "caller")
        assert heard == [sentence["text"] for sentence in SCRIPT]


def test_both_ways_give_the_same_transcript(conversations: list[Conversation]) -> None:
    for conversation in conversations:
        conversation.needs_real_time()
    actors, local = (transcript(conversation.result.out) for conversation in conversations)
    assert actors == local
    assert len(words_of(actors, "bot")) == len(SCRIPT)


def test_one_answer_is_cut_short(conversations: list[Conversation]) -> None:
    for conversation in conversations:
        conversation.needs_real_time()
    assert [c.result.out.count("the caller cuts in") for c in conversations] == [1, 1]


def test_it_shows_where_processors_ran_and_what_it_cost(conversations: list[Conversation]) -> None:
    actors, local = (conversation.result.out for conversation in conversations)
    for name in ("PocketSphinxSTTService#0", "ElizaLLMService#0", "EspeakTTSService#0"):
        (row,) = [line for line in actors.splitlines() if line.strip().startswith(name)]
        assert "actor " in row
        assert "pid " in row
    assert "supervisor, pid" in actors
    assert "this process, pid" in local
    for text in (actors, local):
        assert "Turn latency" in text
        assert "p99" in text
    for conversation in conversations:
        assert (conversation.out / "timeline.png").read_bytes()[:4] == b"\x89PNG"


def test_the_recording_has_both_and_the_bot_falls_silent(
    conversations: list[Conversation],
) -> None:
    (cut,) = [sentence for sentence in SCRIPT if sentence["interrupts"]]
    for conversation in conversations:
        conversation.needs_real_time()
        samples, rate = conversation.recording()

        def loudest(channel: int, begin: float, end: float) -> int:
            piece = samples[round(begin * rate) : round(end * rate), channel]  # noqa: B023
            return int(np.abs(piece.astype(np.int32)).max())

        caller, bot = 0, 1
        for sentence in SCRIPT:
            assert loudest(caller, sentence["start"], sentence["end"]) > 10 * SILENCE
        # The bot spoke when the caller cut in, and soon after that no more.
        assert loudest(bot, cut["start"] - 0.5, cut["start"]) > 10 * SILENCE
        assert loudest(bot, cut["start"] + 1.0, cut["end"]) < SILENCE
        _assert_cut_short(conversation.events)


def _assert_cut_short(events: list[dict[str, Any]]) -> None:
    """The interrupted answer was longer than what was heard of it."""
    letters_per_sec: list[float] = []
    began, text, interrupted = 0.0, "", False
    heard: list[tuple[float, str, bool]] = []
    for event in events:
        if event["kind"] == "bot_started":
            began = event["secs"]
        elif event["kind"] == "bot_says":
            text = event["text"]
        elif event["kind"] == "interruption":
            interrupted = True
        elif event["kind"] == "bot_stopped":
            heard.append((event["secs"] - began, text, interrupted))
            interrupted = False
    letters_per_sec = [len(text) / secs for secs, text, cut in heard if not cut]
    ((secs, text, _),) = [answer for answer in heard if answer[2]]
    assert len(text) / max(letters_per_sec) > secs + 0.5
