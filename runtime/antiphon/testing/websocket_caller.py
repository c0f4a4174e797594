"""A caller over a real WebSocket, who speaks as a test tells it to and writes down what it hears.

It behaves as the client SDKs do: protobuf messages, 16 kHz mono in pieces of 16 ms, an open line
between two utterances, and a player that plays all it is sent in order::

    async with dial("ws://127.0.0.1:7860/ws/bot?token=KEY") as caller:
        await caller.speak("hello.wav")
        answer = await caller.hear()
        assert caller.longest_gap(answer.began_at, answer.ended_at) < 0.2
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon.frames.protobufs import frames_pb2
from antiphon.transports._file.wav import Samples, load_mono

INPUT_RATE = 16_000
"""Hz of what the caller says."""

OUTPUT_RATE = 24_000
"""Hz of what the caller hears: clients play everything at this rate."""

_PIECE = 256
_PIECE_SECS = _PIECE / INPUT_RATE
_ANSWER_DEADLINE_SECS = 600.0
_HANG_UP_DEADLINE_SECS = 2.0


@dataclass(frozen=True, slots=True)
class Heard:
    """A piece of the bot's audio, on the event loop's clock.

    Attributes:
        arrived_at: When it came.
        plays_at: When the caller hears it: behind what came before.
        samples: int16 mono at `OUTPUT_RATE`.
    """

    arrived_at: float
    plays_at: float
    samples: Samples

    @property
    def ends_at(self) -> float:
        """When the caller has heard it."""
        return self.plays_at + len(self.samples) / OUTPUT_RATE


@dataclass(frozen=True, slots=True)
class Answer:
    """A stretch of the bot's audio between two silences, on the event loop's clock.

    Attributes:
        began_at: When the caller began to hear it.
        ended_at: When the caller had heard it.
    """

    began_at: float
    ended_at: float


class WebSocketCaller:
    """Somebody on the line; made by ``dial()``.

    Attributes:
        heard: What the bot said, piece by piece.
        messages: What the bot sent beside audio, and when it came.
        spoke_until: When the last utterance ended, on the event loop's clock; 0 before the first.
    """

    # Everything is kept: it is bounded by the test.

    def __init__(self, connection: ClientConnection) -> None:
        """Makes a caller; use ``dial()``."""
        self._connection = connection
        self._speech: deque[Samples] = deque()
        self._silent = asyncio.Event()
        self._silent.set()
        self._news = asyncio.Event()
        self._answered_until = 0.0
        self.heard: list[Heard] = []
        self.messages: list[tuple[float, Any]] = []
        self.spoke_until = 0.0

    # -- talking -------------------------------------------------------------------------------

    async def speak(self, what: str | Path | Samples) -> None:
        """Says something; returns when it has been said.

        Args:
            what: A WAV file, or samples at `INPUT_RATE`.

        Raises:
            AssertionError: The line is closed.
            ConfigError: The file cannot be read.
        """
        if not isinstance(what, np.ndarray):
            what = await asyncio.to_thread(load_mono, Path(what), INPUT_RATE, tell=False)
        pieces = np.array_split(what, range(_PIECE, len(what), _PIECE))
        self._silent.clear()
        self._speech.extend(pieces)
        await self._until(self._silent.is_set, len(what) / INPUT_RATE + 5.0, "cannot speak")

    async def wait(self, secs: float) -> None:
        """Says nothing for a while."""
        await asyncio.sleep(secs)

    async def send_message(self, message: Any) -> None:
        """Sends what JSON can express, as an application message."""
        proto = frames_pb2.Frame(message=frames_pb2.MessageFrame(data=json.dumps(message)))
        await self._connection.send(proto.SerializeToString())

    async def get_ready(self, *, within_secs: float = 30.0) -> None:
        """Says that the client is ready (RTVI), and waits for the bot to say the same.

        Raises:
            AssertionError: It does not in time.
        """
        data = {"version": "1.0.0", "about": {"library": "antiphon.testing"}}
        await self.send_message(
            {"label": "rtvi-ai", "type": "client-ready", "id": "ready", "data": data}
        )
        await self.receive("bot-ready", within_secs=within_secs)

    async def hang_up(self) -> None:
        """Leaves as the client SDKs do: without a code."""
        with suppress(ConnectionClosed):
            await self._connection.close()

    # -- listening -----------------------------------------------------------------------------

    async def hear(self, *, within_secs: float = 30.0, quiet_secs: float = 0.8) -> Answer:
        """Waits for the bot's next answer and hears it to its end.

        Args:
            within_secs: How long the bot may take to begin.
            quiet_secs: After so long without audio it has finished.

        Raises:
            AssertionError: It does not begin in time, does not stop, or hangs up before it begins.
        """
        known = self._answered_until
        begun: Callable[[], bool] = lambda: bool(self.heard) and self.heard[-1].ends_at > known  # noqa: E731
        await self._until(begun, within_secs, "the bot does not answer")
        first = next(piece for piece in self.heard if piece.ends_at > known)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _ANSWER_DEADLINE_SECS
        while (left := self.heard[-1].ends_at + quiet_secs - loop.time()) > 0:
            assert loop.time() < deadline, "the bot does not stop speaking"
            await self._wait_for_news(left)
        self._answered_until = self.heard[-1].ends_at
        return Answer(first.plays_at, self._answered_until)

    async def receive(self, kind: str, *, within_secs: float = 30.0) -> Mapping[str, Any]:
        """Waits for a message of a type; at once if it has come before.

        Raises:
            AssertionError: None comes in time.
        """

        def found() -> list[Mapping[str, Any]]:
            messages = [message for _, message in self.messages if isinstance(message, dict)]
            return [message for message in messages if message.get("type") == kind]

        await self._until(lambda: bool(found()), within_secs, f"there is no {kind}")
        return found()[-1]

    async def wait_closed(self, *, within_secs: float = 30.0) -> tuple[int | None, str | None]:
        """Waits until the line is closed; code and reason.

        Raises:
            AssertionError: It is not in time.
        """
        try:
            async with asyncio.timeout(within_secs):
                await self._connection.wait_closed()
        except TimeoutError:
            raise AssertionError(f"the line is not closed within {within_secs} s") from None
        return self._connection.close_code, self._connection.close_reason

    # -- looking back --------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the line is closed."""
        return self._connection.close_code is not None

    @property
    def transcript(self) -> list[tuple[str, str]]:
        """What was said, as the bot understood and spoke it: role and text (RTVI)."""
        kinds = {"user-transcription": "user", "bot-tts-text": "assistant"}
        found = []
        for _, message in self.messages:
            if isinstance(message, dict) and message.get("type") in kinds:
                data = message.get("data", {})
                if data.get("final", True):
                    found.append((kinds[message["type"]], str(data.get("text", "")).strip()))
        return found

    def gaps(self, at_least_secs: float = 0.0) -> list[tuple[float, float]]:
        """Silences between two pieces of the bot's audio: when each began, and its length."""
        found = []
        for before, after in zip(self.heard, self.heard[1:], strict=False):
            secs = after.plays_at - before.ends_at
            if secs > 0 and secs >= at_least_secs:
                found.append((before.ends_at, secs))
        return found

    def longest_gap(self, since: float = 0.0, until: float = float("inf")) -> float:
        """Seconds of the longest silence that begins within a time, on the event loop's clock."""
        return max((secs for at, secs in self.gaps() if since <= at < until), default=0.0)

    def recording(self) -> Samples:
        """The bot as the caller heard it, from the first piece on: int16 mono at `OUTPUT_RATE`."""
        if not self.heard:
            return np.zeros(0, np.int16)
        began_at = self.heard[0].plays_at
        recorded = np.zeros(round((self.heard[-1].ends_at - began_at) * OUTPUT_RATE) + 1, np.int16)
        for piece in self.heard:
            at = round((piece.plays_at - began_at) * OUTPUT_RATE)
            room = recorded[at : at + len(piece.samples)]
            room[:] = piece.samples[: len(room)]
        return recorded

    # -- inside --------------------------------------------------------------------------------

    async def _until(self, done: Callable[[], bool], within_secs: float, failure: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_secs
        while not done():
            if self.closed:
                code, reason = self._connection.close_code, self._connection.close_reason
                raise AssertionError(f"{failure}: the line is closed ({code} {reason})")
            left = deadline - loop.time()
            assert left > 0, f"{failure} within {within_secs} s"
            await self._wait_for_news(left)

    async def _wait_for_news(self, secs: float) -> None:
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(secs):
                await self._news.wait()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for data in self._connection:
                if not isinstance(data, bytes):
                    continue
                proto = frames_pb2.Frame.FromString(data)
                kind, now = proto.WhichOneof("frame"), loop.time()
                if kind == "audio":
                    plays_at = max(now, self.heard[-1].ends_at if self.heard else 0.0)
                    samples = np.frombuffer(proto.audio.audio, "<i2").astype(np.int16)
                    self.heard.append(Heard(now, plays_at, samples))
                elif kind == "message":
                    self.messages.append((now, json.loads(proto.message.data)))
                self._news.set()
        except ConnectionClosed:
            pass  # `closed` tells
        finally:
            self._news.set()

    async def _send_line(self) -> None:
        """Sends a piece each 16 ms: of what is to be said, else of silence."""
        loop = asyncio.get_running_loop()
        silence = np.zeros(_PIECE, np.int16)
        next_at = loop.time()
        with suppress(ConnectionClosed):
            while True:
                piece = self._speech.popleft() if self._speech else silence
                audio = frames_pb2.AudioRawFrame(
                    audio=piece.astype("<i2").tobytes(), sample_rate=INPUT_RATE, num_channels=1
                )
                await self._connection.send(frames_pb2.Frame(audio=audio).SerializeToString())
                # Counted from the beginning, so that delays do not add up.
                next_at += _PIECE_SECS
                await asyncio.sleep(max(0.0, next_at - loop.time()))
                if not self._speech and not self._silent.is_set():
                    self.spoke_until = loop.time()
                    self._silent.set()
                    self._news.set()


@asynccontextmanager
async def dial(
    url: str, *, headers: Mapping[str, str] | None = None
) -> AsyncIterator[WebSocketCaller]:
    """Calls a bot; at the end of the block the caller hangs up.

    Args:
        url: Of the WebSocket, with its token.
        headers: Further headers of the request.

    Raises:
        InvalidStatus: The caller is not let in (of the package ``websockets``).
        OSError: Nobody listens there.
    """
    async with connect(
        url,
        additional_headers=dict(headers or {}),
        max_size=None,
        close_timeout=_HANG_UP_DEADLINE_SECS,
    ) as connection:
        caller = WebSocketCaller(connection)
        tasks = {
            asyncio.create_task(caller._listen(), name="caller listens"),
            asyncio.create_task(caller._send_line(), name="caller's line"),
        }
        try:
            yield caller
            await caller.hang_up()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
