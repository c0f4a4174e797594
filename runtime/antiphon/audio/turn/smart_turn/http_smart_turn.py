"""Smart turn by a model behind HTTP."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from antiphon.audio.turn.smart_turn._audio import Samples, for_model
from antiphon.audio.turn.smart_turn.base_smart_turn import BaseSmartTurn, SmartTurnTimeoutException
from antiphon.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    import aiohttp

_MAX_ANSWER_BYTES = 64 * 1024


class HttpSmartTurnAnalyzer(BaseSmartTurn):
    """Sends the speech to a server and takes its verdict.

    The body of a request is a NumPy file (``.npy``) of float32 samples at 16 kHz; the answer is
    JSON with ``prediction``, ``probability`` and optionally ``metrics``. A server that fails is an
    error at that pause; the turn goes on, and silence ends it.
    """

    def __init__(
        self,
        *,
        url: str,
        aiohttp_session: aiohttp.ClientSession,
        headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keeps the settings.

        Args:
            url: Where to send the speech.
            aiohttp_session: Makes the requests; it stays the caller's to close.
            headers: Added to every request.
            **kwargs: ``sample_rate`` and ``params`` of ``BaseSmartTurn``.

        Raises:
            ConfigError: The URL is none.
        """
        super().__init__(**kwargs)
        if not str(url).startswith(("http://", "https://")):
            raise ConfigError(f"{type(self).__name__}: not an HTTP URL: {url!r}")
        self._url = url
        self._session = aiohttp_session
        self._headers = {"Content-Type": "application/octet-stream", **(headers or {})}

    async def _predict_endpoint(self, audio_array: Samples) -> dict[str, Any]:
        """Asks the server.

        Raises:
            SmartTurnTimeoutException: No answer within ``stop_secs``.
            ServiceError: The server refuses, cannot be reached, or answers something else.
        """
        import aiohttp

        body = io.BytesIO()
        np.save(body, for_model(audio_array, self.sample_rate), allow_pickle=False)
        timeout = aiohttp.ClientTimeout(total=self._params.stop_secs)
        try:
            async with self._session.post(
                self._url, data=body.getvalue(), headers=self._headers, timeout=timeout
            ) as response:
                if response.status != 200:
                    raise ServiceError(
                        f"the smart-turn server answered with status {response.status}",
                        retryable=response.status >= 500,
                        provider=type(self).__name__,
                        status=response.status,
                    )
                answer = await _read_json(response)
        except TimeoutError as error:
            raise SmartTurnTimeoutException(
                f"no verdict within {self._params.stop_secs:g} s"
            ) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise ServiceError(
                f"the smart-turn server cannot be used: {type(error).__name__}: {error}",
                retryable=True,
                provider=type(self).__name__,
            ) from error
        return _verdict(answer, type(self).__name__)


async def _read_json(response: aiohttp.ClientResponse) -> Any:
    import json

    # Read as text: some servers call their JSON by another type.
    text = await response.content.read(_MAX_ANSWER_BYTES + 1)
    while not response.content.at_eof() and len(text) <= _MAX_ANSWER_BYTES:
        text += await response.content.read(_MAX_ANSWER_BYTES)
    if len(text) > _MAX_ANSWER_BYTES:
        raise ValueError("the answer is too long")
    return json.loads(text)


def _verdict(answer: Any, provider: str) -> dict[str, Any]:
    try:
        metrics = answer.get("metrics") or {}
        return {
            "prediction": int(answer["prediction"]),
            "probability": float(answer["probability"]),
            "metrics": {
                "inference_time": float(metrics.get("inference_time", 0.0)),
                "total_time": float(metrics.get("total_time", 0.0)),
            },
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ServiceError(
            "the smart-turn server's answer has no prediction and probability", provider=provider
        ) from error
