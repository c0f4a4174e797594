"""A record of every frame in a file, one JSON object a line."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections import deque
from enum import Enum
from pathlib import Path
from typing import IO, Any

from loguru import logger

from antiphon.observers.base_observer import BaseObserver, FramePushed

# The pipeline is never slowed down by a disk: what does not fit is dropped, and counted.
_BUFFER_LINES = 10_000
_BATCH_LINES = 1_000
_CLOSE_TIMEOUT_SECS = 5.0
# A frame may hold a structure that contains itself.
_MAX_DEPTH = 5


class FileObserver(BaseObserver):
    """Writes one line of JSON for each hop of each frame.

    A line has the keys ``time_ns`` (the pipeline's clock), ``frame`` (its type), ``id``,
    ``source``, ``destination``, ``direction`` and ``fields``. In ``fields`` are numbers, flags and
    enumerations; of bytes and, unless ``include_text``, of text only the length is written, as
    ``{"bytes": n}`` and ``{"chars": n}``, so that the file holds nothing that anyone said.

    Writing happens in a thread and in batches. If the disk is slower than the pipeline for long,
    the newest lines are dropped; the line that follows a gap is ``{"dropped": n}``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        include_text: bool = False,
        append: bool = False,
        **kwargs: Any,
    ) -> None:
        """Makes an observer; the file is opened with the first frame.

        Args:
            path: Where to write; the folder must exist.
            include_text: Whether texts are written as they are. They hold what people said.
            append: Whether to keep what the file holds already.
            **kwargs: For the base class.
        """
        super().__init__(**kwargs)
        self._path = Path(path)
        self._include_text = include_text
        self._mode = "a" if append else "w"
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._dropped_total = 0
        self._failed = False
        self._writer: asyncio.Task[None] | None = None
        self._file: IO[str] | None = None

    @property
    def dropped(self) -> int:
        """How many lines were not written because the disk was too slow or failed."""
        return self._dropped_total

    async def on_push_frame(self, data: FramePushed) -> None:
        """Notes the hop; it is written soon."""
        if self._failed or len(self._lines) >= _BUFFER_LINES:
            self._dropped += 1
            self._dropped_total += 1
            return
        if self._dropped:
            self._lines.append(json.dumps({"dropped": self._dropped}))
            self._dropped = 0
        self._lines.append(self._encode(data))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name=f"{self.name}::write")

    async def cleanup(self) -> None:
        """Writes what is left and closes the file; gives up after five seconds.

        If it is cancelled, lines that were not yet handed to the disk are lost.
        """
        if self._writer is not None:
            _, late = await asyncio.wait([self._writer], timeout=_CLOSE_TIMEOUT_SECS)
            if late:
                self._writer.cancel()
                logger.warning("frame log not complete: the disk is too slow", observer=self.name)
            self._writer = None
        file, self._file = self._file, None
        if file is not None:
            await asyncio.to_thread(file.close)
            self._mode = "a"
        await super().cleanup()

    async def _write(self) -> None:
        """Writes batches until nothing is left; one such task runs at a time."""
        while self._lines and not self._failed:
            batch = [self._lines.popleft() for _ in range(min(len(self._lines), _BATCH_LINES))]
            try:
                await asyncio.to_thread(self._write_batch, batch)
            except OSError as error:
                self._failed = True
                self._dropped_total += len(batch) + len(self._lines)
                self._lines.clear()
                logger.error(
                    "frame log stopped: the file cannot be written",
                    observer=self.name,
                    path=str(self._path),
                    error=str(error),
                )

    def _write_batch(self, batch: list[str]) -> None:
        if self._file is None:
            self._file = self._path.open(self._mode, encoding="utf-8")
        self._file.write("\n".join(batch) + "\n")
        self._file.flush()

    def _encode(self, data: FramePushed) -> str:
        frame = data.frame
        fields = {
            field.name: value
            for field in dataclasses.fields(frame)
            if field.name not in ("id", "name")
            and (value := self._plain(getattr(frame, field.name, None))) is not None
        }
        return json.dumps(
            {
                "time_ns": data.timestamp,
                "frame": type(frame).__name__,
                "id": frame.id,
                "source": str(data.source),
                "destination": str(data.destination),
                "direction": data.direction.name.lower(),
                "fields": fields,
            },
            ensure_ascii=False,
        )

    def _plain(self, value: object, depth: int = 0) -> object:
        """A value as JSON can hold it, or None for what is empty or cannot be written."""
        if depth > _MAX_DEPTH:
            return None
        match value:
            case Enum():
                return value.name
            case bool() | int() | float():
                return value
            case bytes() | bytearray() | memoryview():
                return {"bytes": len(value)}
            case str():
                return value if self._include_text else {"chars": len(value)}
            case list() | tuple() | set() | frozenset():
                return [self._plain(item, depth + 1) for item in value] if value else None
            case dict():
                # The keys of a user's mapping can be personal, too.
                if not self._include_text:
                    return {"entries": len(value)} if value else None
                return {
                    str(key): self._plain(item, depth + 1) for key, item in value.items()
                } or None
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {
                field.name: self._plain(getattr(value, field.name, None), depth + 1)
                for field in dataclasses.fields(value)
            }
        return None
