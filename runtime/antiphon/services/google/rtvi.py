"""RTVI messages about Google's search results."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from antiphon.observers.base_observer import FramePushed
from antiphon.processors.frameworks.rtvi import RTVIObserver, RTVIObserverParams, RTVIProcessor
from antiphon.services.google.frames import LLMSearchOrigin, LLMSearchResponseFrame


class RTVISearchResponseMessageData(BaseModel):
    """Data of ``bot-llm-search-response``.

    Attributes:
        search_result: The answer as a whole.
        rendered_content: HTML with suggested searches.
        origins: The sources.
    """

    search_result: str | None
    rendered_content: str | None
    origins: list[LLMSearchOrigin]


class RTVIBotLLMSearchResponseMessage(BaseModel):
    """``bot-llm-search-response``: what the language model found by searching."""

    label: Literal["rtvi-ai"] = "rtvi-ai"
    type: Literal["bot-llm-search-response"] = "bot-llm-search-response"
    data: RTVISearchResponseMessageData


class GoogleRTVIObserver(RTVIObserver):
    """An ``RTVIObserver`` that also tells the client what was found by searching."""

    def __init__(
        self, rtvi: RTVIProcessor, *, params: RTVIObserverParams | None = None, **kwargs: Any
    ) -> None:
        """Makes an observer.

        Args:
            rtvi: What sends the messages.
            params: What the client is told of; everything if None.
            **kwargs: Passed to the base.
        """
        super().__init__(rtvi, params=params, **kwargs)

    async def on_push_frame(self, data: FramePushed) -> None:
        """Sends what a frame means to the client, once."""
        await super().on_push_frame(data)
        if isinstance(data.frame, LLMSearchResponseFrame) and self._is_new(data.frame):
            await self._handle_llm_search_response_frame(data.frame)

    async def _handle_llm_search_response_frame(self, frame: LLMSearchResponseFrame) -> None:
        message = RTVIBotLLMSearchResponseMessage(
            data=RTVISearchResponseMessageData(
                search_result=frame.search_result,
                rendered_content=frame.rendered_content,
                origins=frame.origins,
            )
        )
        await self.push_transport_message_urgent(message)
