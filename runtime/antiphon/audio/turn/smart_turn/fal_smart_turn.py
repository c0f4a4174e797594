"""Smart turn by Fal's hosted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from antiphon.audio.turn.smart_turn.http_smart_turn import HttpSmartTurnAnalyzer

if TYPE_CHECKING:
    import aiohttp


class FalSmartTurnAnalyzer(HttpSmartTurnAnalyzer):
    """Asks Fal, or a deployment of one's own, whether the turn is over."""

    def __init__(
        self,
        *,
        aiohttp_session: aiohttp.ClientSession,
        url: str = "https://fal.run/fal-ai/smart-turn/raw",
        api_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Keeps the settings.

        Args:
            aiohttp_session: Makes the requests; it stays the caller's to close.
            url: Fal's model, or another deployment.
            api_key: Fal's key; another deployment may need none.
            **kwargs: ``sample_rate`` and ``params`` of ``BaseSmartTurn``.
        """
        headers = {"Authorization": f"Key {api_key}"} if api_key else None
        super().__init__(url=url, aiohttp_session=aiohttp_session, headers=headers, **kwargs)
