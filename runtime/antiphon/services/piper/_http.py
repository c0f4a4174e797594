"""Text to speech over the HTTP server that comes with Piper."""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from antiphon.errors import ServiceError
from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from antiphon.services.tts_service import TTSService

if TYPE_CHECKING:
    import aiohttp

_CONNECT_SECS = 10.0
# The server answers when it has made all of the audio.
_READ_SECS = 60.0
# Where newer servers speak; older ones do so at the root.
_PATH = "/synthesize"
_ELSEWHERE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_MAX_HEADER_BYTES = 4096
_SAMPLE_BYTES = 2
_PCM = 1


class PiperTTSService(TTSService):
    """Speaks with Piper's HTTP server (``python -m piper.http_server -m VOICE``), a request a text.

    A voice that is set has to be one that the server has; else it speaks with its own.
    """

    def __init__(
        self,
        *,
        base_url: str,
        aiohttp_session: aiohttp.ClientSession | None = None,
        sample_rate: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            base_url: Address of the server. If it does not speak there, ``/synthesize`` is tried.
            aiohttp_session: Makes the requests, and stays the caller's. Left out, the service makes
                one of its own when it is needed; only then can it run in another process.
            sample_rate: Rate in Hz of audio that comes without saying it; the pipeline's output rate if
                left out. A WAV file, which Piper sends, says it.
            **kwargs: Passed on to ``TTSService``.
        """
        super().__init__(sample_rate=sample_rate, **kwargs)
        # The first that speaks is the only one from then on.
        self._addresses = list(dict.fromkeys((base_url, urljoin(base_url, _PATH))))
        self._given_session = aiohttp_session
        self._own_session: aiohttp.ClientSession | None = None
        self.set_model_name("piper")

    def can_generate_metrics(self) -> bool:
        """Whether this service reports metrics: it does."""
        return True

    async def stop(self, frame: EndFrame) -> None:
        """Closes the service's own connections."""
        await super().stop(frame)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Closes the service's own connections."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """Closes the service's own connections."""
        await self._close()
        await super().cleanup()

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Speaks a text. If this is closed early, so is the request.

        Args:
            text: A sentence or so.

        Yields:
            TTSStartedFrame and TTSAudioRawFrames of half a second, or an ErrorFrame if the request
            failed; TTSStoppedFrame.
        """
        started = False
        await self.start_ttfb_metrics()
        await self.start_tts_usage_metrics(text)
        try:
            async with self._response(text) as response, aclosing(self._audio(response)) as pieces:
                async for audio, rate in pieces:
                    if not started:
                        started = True
                        await self.stop_ttfb_metrics()
                        yield TTSStartedFrame()
                    yield TTSAudioRawFrame(audio, rate, 1)
        except ServiceError as error:
            yield ErrorFrame(str(error))
        finally:
            await self.stop_ttfb_metrics()
        yield TTSStoppedFrame()

    @asynccontextmanager
    async def _response(self, text: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Asks the server.

        Raises:
            ServiceError: It refused, failed, or cannot be reached.
        """
        import aiohttp

        body = {"text": text} | ({"voice": self._voice_id} if self._voice_id else {})
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_SECS, sock_read=_READ_SECS
        )
        status = None
        try:
            for address in self._addresses:
                async with self._session().post(address, json=body, timeout=timeout) as response:
                    status = response.status
                    if status == HTTPStatus.OK:
                        self._addresses = [address]
                        yield response
                        return
                if status not in _ELSEWHERE:
                    break
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise ServiceError(
                f"Piper's server cannot be reached ({type(error).__name__}): check base_url, and "
                "whether it runs",
                retryable=True,
                provider="piper",
            ) from error
        raise ServiceError(
            f"Piper's server did not speak (status: {status})"
            + (": check base_url" if status in _ELSEWHERE else ""),
            retryable=(status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR,
            provider="piper",
            status=status,
        )

    async def _audio(
        self, response: aiohttp.ClientResponse
    ) -> AsyncGenerator[tuple[bytes, int], None]:
        """Yields the audio in pieces of half a second, each with its rate in Hz."""
        rate: int | None = None
        size = 0
        waiting = b""
        async for received in response.content.iter_any():
            waiting += received
            if rate is None:
                if (found := _read_header(waiting, self.sample_rate)) is None:
                    continue
                rate, begin = found
                waiting = waiting[begin:]
                size = rate // 2 * _SAMPLE_BYTES
            while len(waiting) >= size:
                yield waiting[:size], rate
                waiting = waiting[size:]
        whole = len(waiting) // _SAMPLE_BYTES * _SAMPLE_BYTES
        if rate is not None and whole:
            yield waiting[:whole], rate

    def _session(self) -> aiohttp.ClientSession:
        if self._given_session is not None:
            return self._given_session
        if self._own_session is None:
            import aiohttp

            self._own_session = aiohttp.ClientSession()
        return self._own_session

    async def _close(self) -> None:
        session, self._own_session = self._own_session, None
        if session is not None:
            await session.close()


def _read_header(data: bytes, unknown_rate: int) -> tuple[int, int] | None:
    """Reads the beginning of a WAV file, or of audio alone.

    Args:
        data: What has come so far.
        unknown_rate: Rate in Hz of audio alone.

    Returns:
        The rate and where the audio begins; None if that is still to come.

    Raises:
        ServiceError: It is a WAV file of another kind than Piper's.
    """
    if not b"RIFF".startswith(data[:4]):
        return unknown_rate, 0
    rate, position = unknown_rate, 12
    while position + 8 <= len(data):
        kind = data[position : position + 4]
        (size,) = struct.unpack_from("<I", data, position + 4)
        position += 8
        if kind == b"data":
            return rate, position
        if kind == b"fmt " and position + 16 <= len(data):
            coding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, position)
            if (coding, channels, bits) != (_PCM, 1, 8 * _SAMPLE_BYTES):
                raise ServiceError("Piper's server sent no mono audio of 16 bits", provider="piper")
        position += size + size % 2
    if len(data) > _MAX_HEADER_BYTES:
        raise ServiceError("Piper's server sent a WAV file without audio", provider="piper")
    return None
