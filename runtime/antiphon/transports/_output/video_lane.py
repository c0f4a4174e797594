"""Images, shown at the frame rate of the transport."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from loguru import logger

from antiphon.errors import ConfigError
from antiphon.frames.frames import ErrorFrame, OutputImageRawFrame, SpriteFrame
from antiphon.transports.base_transport import TransportParams

if TYPE_CHECKING:
    from antiphon.transports.base_output import BaseOutputTransport

# Live images that may wait: beyond that the oldest are dropped, so that a film that comes too fast
# does not fall behind the sound.
_LIVE_QUEUE_SECS = 2


class VideoLane:
    """Shows one image after the other.

    A live lane shows each image once, in order. Any other lane shows the newest image, or the
    images of the newest sprite in turn, again and again.
    """

    def __init__(self, transport: BaseOutputTransport, params: TransportParams) -> None:
        """Makes a lane that is not running.

        Args:
            transport: Writes the images.
            params: Size and rate.
        """
        self._transport = transport
        self._params = params
        rate = max(1, params.video_out_framerate)
        self._period_secs = 1.0 / rate
        self._live: deque[OutputImageRawFrame] = deque(maxlen=_LIVE_QUEUE_SECS * rate)
        self._cycle: Iterator[OutputImageRawFrame] | None = None
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to show images."""
        if self._task is None and self._params.video_out_enabled:
            self._task = self._transport.create_task(self._run(), "video")

    def show(self, frame: OutputImageRawFrame | SpriteFrame) -> None:
        """Takes an image or a sprite."""
        images = frame.images if isinstance(frame, SpriteFrame) else [frame]
        if not self._params.video_out_enabled or not images:
            return
        if self._params.video_out_is_live:
            too_many = len(self._live) + len(images) - (self._live.maxlen or 0)
            self._transport.statistics.frames_dropped += max(0, too_many)
            self._live.extend(images)
        else:
            self._cycle = itertools.cycle(images)
        self._added.set()

    async def abort(self) -> None:
        """Ends at once."""
        task, self._task = self._task, None
        if task is not None:
            await self._transport.cancel_task(task)

    async def interrupt(self) -> None:
        """Drops the live images that wait; a still image or sprite stays."""
        running = self._task is not None
        await self.abort()
        self._live.clear()
        if running:
            self.start()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        failing = False
        while True:
            image = self._next_image()
            if image is None:
                self._added.clear()
                await self._added.wait()
                next_at = loop.time()
                continue
            try:
                await self._transport.write_video_frame(await self._fitted(image))
                failing = False
            except Exception as error:  # noqa: BLE001 - reported, and the stream goes on
                if not failing:
                    logger.opt(exception=error).error(
                        "image not written", processor=self._transport.name
                    )
                    await self._transport.push_error(ErrorFrame(error=f"image: {error}"))
                failing = True
            # An absolute schedule, restarted when it cannot be kept: never a burst to catch up.
            next_at = max(next_at + self._period_secs, loop.time())
            await asyncio.sleep(next_at - loop.time())
            self._transport.reset_watchdog()

    def _next_image(self) -> OutputImageRawFrame | None:
        if self._params.video_out_is_live:
            return self._live.popleft() if self._live else None
        return next(self._cycle) if self._cycle is not None else None

    async def _fitted(self, frame: OutputImageRawFrame) -> OutputImageRawFrame:
        """The image in the size of the transport's video."""
        size = (self._params.video_out_width, self._params.video_out_height)
        if frame.size == size or frame.format is None:
            return frame
        logger.debug("image scaled", processor=self._transport.name, given=frame.size, wanted=size)
        image = await asyncio.to_thread(_scaled, frame.image, frame.size, frame.format, size)
        fitted = OutputImageRawFrame(image=image, size=size, format=frame.format)
        fitted.transport_destination = frame.transport_destination
        fitted.pts = frame.pts
        return fitted


def _scaled(pixels: bytes, size: tuple[int, int], mode: str, wanted: tuple[int, int]) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError(
            f"an image of {size[0]}x{size[1]} pixels does not fit the transport's "
            f"{wanted[0]}x{wanted[1]}, and scaling it needs the package Pillow: install it, or set "
            "video_out_width and video_out_height"
        ) from error
    return Image.frombytes(mode, size, pixels).resize(wanted).tobytes()
