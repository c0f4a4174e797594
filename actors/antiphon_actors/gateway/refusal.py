"""What a gateway says to whom it does not serve."""

from __future__ import annotations

import math

from starlette.responses import JSONResponse


class Refusal(Exception):
    """A request is not served; raised by whoever finds out, and answered in one place.

    Attributes:
        status: HTTP status.
        info: What is wrong, in a few words.
        detail: What the caller can do about it.
        retry_after_secs: When the same request may succeed; None if it will not.
    """

    def __init__(
        self, status: int, info: str, detail: str, retry_after_secs: float | None = None
    ) -> None:
        super().__init__(info)
        self.status = status
        self.info = info
        self.detail = detail
        self.retry_after_secs = retry_after_secs

    def response(self) -> JSONResponse:
        """The answer; client SDKs show `info` or `detail`."""
        headers = {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.retry_after_secs is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_secs)))
        return JSONResponse(
            {"info": self.info, "detail": self.detail}, self.status, headers=headers
        )
