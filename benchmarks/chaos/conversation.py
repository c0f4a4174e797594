"""A scripted caller, and what is left of a call: held against one in peace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.testing import dial
from antiphon.testing.websocket_caller import INPUT_RATE, OUTPUT_RATE, WebSocketCaller
from antiphon.transports._file.wav import Samples, load_mono
from benchmarks.programs.chaos_bot import (
    ANSWERS,
    GREETING,
    MS_PER_CHARACTER,
    SAID,
    TONES_HZ,
    WEATHER,
)

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / "examples" / "caller.wav"

# Sentences of the recording, in seconds.
_STRETCHES = ((0.6, 1.27), (22.2, 23.5), (14.2, 16.1), (22.2, 23.5))
_TONE_AMPLITUDE = 1500
_ANSWER_SECS = 12.0
_QUIET_SECS = 0.4
_POLL_SECS = 0.02
_TOLD_SECS = 15.0


def utterances() -> list[Samples]:
    """What the caller says: speech, with a tone beneath each by which the bot knows it."""
    speech = load_mono(SPEECH, INPUT_RATE, tell=False)
    found = []
    for (begin, end), hz in zip(_STRETCHES, TONES_HZ, strict=True):
        voice = speech[int(begin * INPUT_RATE) : int(end * INPUT_RATE)].astype(np.float64)
        seconds = np.arange(len(voice)) / INPUT_RATE
        mixed = 0.8 * voice + _TONE_AMPLITUDE * np.sin(2 * np.pi * hz * seconds)
        found.append(np.clip(mixed, -32768, 32767).astype(np.int16))
    return found


def seconds_of(text: str) -> float:
    """How long the bot speaks it: the sentences, without the space between them."""
    characters = len(text) - text.count(". ") - text.count("? ") - text.count("! ")
    return characters * MS_PER_CHARACTER / 1000


ANSWER_SECS = [
    seconds_of(GREETING),
    *(seconds_of(ANSWERS.get(said, WEATHER)) for said in SAID),
]
"""How long each answer is, the greeting first."""


@dataclass(slots=True)
class Turn:
    """One answer.

    Attributes:
        onset_secs: From the end of what the caller said to the first sound.
        gap_secs: Longest silence within the answer.
        audio_secs: Of sound.
    """

    onset_secs: float
    gap_secs: float
    audio_secs: float


@dataclass
class Outcome:
    """What is left of a call.

    Attributes:
        turns: The answers, the greeting first.
        messages: The conversation as the bot has it.
        marks: What came through the pipeline: number, seconds, when; None for an interruption.
        calls: Functions that were called.
        failure: What went wrong for the caller.
        spans: When each answer was due and heard, on the event loop's clock.
    """

    turns: list[Turn] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    marks: list[Any] = field(default_factory=list)
    calls: int = 0
    failure: str = ""
    spans: list[tuple[float, float]] = field(default_factory=list)

    def gap(self, peace: Outcome) -> float:
        """The longest silence that one in peace would not have had, in seconds."""
        found = [0.0]
        for turn, quiet in zip(self.turns, peace.turns, strict=False):
            found += [turn.gap_secs - quiet.gap_secs, turn.onset_secs - quiet.onset_secs]
        return max(found)

    def differences(
        self, peace: Outcome, *, exact: bool = True, overtaken: bool = False
    ) -> list[str]:
        """What is not as in peace, for people.

        Args:
            peace: The other.
            exact: Whether nothing may be said twice, and no mark be lost: not if the supervisor was.
            overtaken: Whether an answer may be cut short in the conversation, or lack: the caller, who had
                heard it, spoke on while nobody was there, and so interrupted the repetition.
        """
        found = [self.failure] if self.failure else []
        said, expected = self.messages, peace.messages
        if not exact:
            said, expected = _without_results(said), _without_results(expected)
        if len(self.turns) != len(peace.turns):
            found.append(f"{len(self.turns)} of {len(peace.turns)} answers")
        if overtaken:
            answers = [each["content"] for each in expected if _is_answer(each)]
            said = _joined(said)
            said = [
                each
                for each in said
                if not _is_answer(each) or not any(t.startswith(each["content"]) for t in answers)
            ]
            expected = [each for each in expected if not _is_answer(each)]
        if said != expected:
            found.append(f"the conversation differs: {json.dumps(self.messages)}")
        for number, (turn, quiet) in enumerate(zip(self.turns, peace.turns, strict=False)):
            more = turn.audio_secs - quiet.audio_secs
            if more < -0.06 or (exact and more > 0.06):
                found.append(f"answer {number} has {more:+.2f} s of audio")
        if exact:
            if self.calls != peace.calls:
                found.append(f"{self.calls} function calls")
            found += lost_marks(self.marks)
        return found


def _without_results(messages: Sequence[Any]) -> list[Any]:
    """A call under way when its process dies is not made again: it may have no result."""
    return [
        {**message, "content": ""} if message["role"] == "tool" else message for message in messages
    ]


def _joined(messages: Sequence[Any]) -> list[Any]:
    """A pause in an answer makes it two messages."""
    found: list[Any] = []
    for message in messages:
        if found and _is_answer(message) and _is_answer(found[-1]):
            content = f"{found[-1]['content']} {message['content']}"
            found[-1] = {**message, "content": content}
        else:
            found.append(message)
    return found


def _is_answer(message: Any) -> bool:
    return message["role"] == "assistant" and bool(message.get("content"))


def lost_marks(marks: Sequence[Any]) -> list[str]:
    """Marks that did not come once and in order; some may be missing where the caller interrupted."""
    found = []
    last, interrupted = 0, False
    for mark in marks:
        if mark is None:
            interrupted = True
            continue
        number = mark[0]
        if number <= last:
            found.append(f"mark {number} came behind mark {last}")
        elif number > last + 1 and not interrupted:
            found.append(f"marks {last + 1} to {number - 1} are lost")
        last, interrupted = max(last, number), False
    return found


class Call:
    """One call.

    Args:
        url: Where to call.
        directory: Of the call; the bot writes there.
        speech: What the caller says.
    """

    def __init__(self, url: str, directory: Path, speech: Sequence[Samples]) -> None:
        self.url = url
        self.directory = directory
        self.outcome = Outcome()
        self._speech = speech

    def pid(self, role: str) -> int | None:
        """The process that has a role in this call: of the bot's classes one, or its supervisor."""
        path = self.directory / f"{role}.pid"
        return int(path.read_text()) if path.exists() else None

    async def run(self) -> Outcome:
        """Talks, and waits for what the bot has to tell."""
        try:
            async with dial(self.url) as caller:
                await caller.get_ready()
                await self._converse(caller)
        except (AssertionError, OSError, TimeoutError) as error:
            self.outcome.failure = str(error) or repr(error)
        await self._read()
        return self.outcome

    async def stay(self, secs: float) -> Outcome:
        """Listens without a word for so long."""
        try:
            async with dial(self.url) as caller:
                await caller.get_ready()
                await caller.wait(secs)
        except (AssertionError, OSError, TimeoutError) as error:
            self.outcome.failure = str(error) or repr(error)
        await self._read()
        return self.outcome

    async def _converse(self, caller: WebSocketCaller) -> None:
        loop = asyncio.get_running_loop()
        await self._hear(caller, loop.time(), 0)
        for said in self._speech:
            await caller.wait(0.2)
            await caller.speak(said)
            await self._hear(caller, caller.spoke_until, len(self.outcome.turns))

    async def _hear(self, caller: WebSocketCaller, since: float, number: int) -> None:
        """Hears all of an answer, however long the silences in it are."""
        loop = asyncio.get_running_loop()
        # The greeting may begin before the bot says that it is ready.
        known = sum(piece.ends_at <= since for piece in caller.heard) if number else 0
        until = loop.time() + _ANSWER_SECS
        while True:
            pieces = caller.heard[known:]
            audio_secs = sum(len(piece.samples) for piece in pieces) / OUTPUT_RATE
            whole = audio_secs >= ANSWER_SECS[number] - 0.05
            if whole and loop.time() >= pieces[-1].ends_at + _QUIET_SECS:
                break
            assert not caller.closed, f"the line is closed in answer {number}"
            assert loop.time() < until, (
                f"answer {number} has {audio_secs:.2f} of {ANSWER_SECS[number]:.2f} s"
            )
            await asyncio.sleep(_POLL_SECS)
        silences = [after.plays_at - before.ends_at for before, after in pairwise(pieces)]
        onset = pieces[0].plays_at - since
        self.outcome.turns.append(Turn(onset, max([0.0, *silences]), audio_secs))
        self.outcome.spans.append((since, pieces[-1].ends_at))

    async def _read(self) -> None:
        told = self.directory / "told.json"
        try:
            async with asyncio.timeout(_TOLD_SECS):
                while not told.exists():  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(_POLL_SECS)
        except TimeoutError:
            self.outcome.failure = self.outcome.failure or "the bot did not notice the end"
            return
        data = json.loads(told.read_text())
        self.outcome.messages, self.outcome.marks = data["messages"], data["marks"]
        calls = self.directory / "calls"
        if calls.exists():
            self.outcome.calls = len(calls.read_text().splitlines())
