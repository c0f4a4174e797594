"""Frames that carry images, and the request for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from antiphon.frames._base import DataFrame, SystemFrame, format_pts


@dataclass
class ImageRawFrame:
    """A raw image.

    Attributes:
        image: The pixels, in the layout that `format` says.
        size: Width and height in pixels.
        format: "RGB", "RGBA", "JPEG", ...; None if unknown.
    """

    image: bytes
    size: tuple[int, int]
    format: str | None


@dataclass
class OutputImageRawFrame(DataFrame, ImageRawFrame):
    """An image for the output transport to show.

    With several video tracks, `transport_destination` names the one to show it on.
    """

    def __str__(self) -> str:
        return f"{self.name}(pts: {format_pts(self.pts)}, size: {self.size}, format: {self.format})"


@dataclass
class URLImageRawFrame(OutputImageRawFrame):
    """An image for the output transport that can also be fetched from an address.

    Attributes:
        url: Where the service that made the image keeps it.
    """

    url: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.name}(pts: {format_pts(self.pts)}, url: {self.url}, "
            f"size: {self.size}, format: {self.format})"
        )


@dataclass
class SpriteFrame(DataFrame):
    """An animation for the output transport to play at its video frame rate.

    Attributes:
        images: The pictures in order.
    """

    images: list[OutputImageRawFrame]

    def __str__(self) -> str:
        return f"{self.name}(pts: {format_pts(self.pts)}, size: {len(self.images)})"


@dataclass
class UserImageRequestFrame(SystemFrame):
    """Asks the input transport for an image of a user.

    Attributes:
        user_id: Whose image is wanted.
        context: What the asker wants to find again in the answer.
        function_name: The function the language model called to ask, if it did.
        tool_call_id: The id of that call.
        video_source: Which of the user's video sources to take.
    """

    user_id: str
    context: Any | None = None
    function_name: str | None = None
    tool_call_id: str | None = None
    video_source: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.name}(user: {self.user_id}, video_source: {self.video_source}, "
            f"function: {self.function_name}, request: {self.tool_call_id})"
        )


@dataclass
class InputImageRawFrame(SystemFrame, ImageRawFrame):
    """An image from the input transport.

    With several video tracks, `transport_source` names the one it came from.
    """

    def __str__(self) -> str:
        return (
            f"{self.name}(pts: {format_pts(self.pts)}, source: {self.transport_source}, "
            f"size: {self.size}, format: {self.format})"
        )


@dataclass
class UserImageRawFrame(InputImageRawFrame):
    """An image of one particular user.

    Attributes:
        user_id: Whose image it is.
        request: The request that it answers, if any.
    """

    user_id: str = ""
    request: UserImageRequestFrame | None = None

    def __str__(self) -> str:
        return (
            f"{self.name}(pts: {format_pts(self.pts)}, user: {self.user_id}, "
            f"source: {self.transport_source}, size: {self.size}, format: {self.format}, "
            f"request: {self.request})"
        )


@dataclass
class VisionImageRawFrame(InputImageRawFrame):
    """An image together with a question about it, for a vision service.

    Attributes:
        text: The question.
    """

    text: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.name}(pts: {format_pts(self.pts)}, text: [{self.text}], "
            f"size: {self.size}, format: {self.format})"
        )
