"""Frames for messages and keypad entries through transports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from antiphon.frames._base import ControlFrame, DataFrame, SystemFrame


class KeypadEntry(str, Enum):
    """A key of a telephone's keypad (DTMF)."""

    ONE = "1"
    TWO = "2"
    THREE = "3"
    FOUR = "4"
    FIVE = "5"
    SIX = "6"
    SEVEN = "7"
    EIGHT = "8"
    NINE = "9"
    ZERO = "0"
    POUND = "#"
    STAR = "*"


@dataclass
class DTMFFrame:
    """A key press.

    Attributes:
        button: The key.
    """

    button: KeypadEntry


@dataclass
class InputDTMFFrame(DTMFFrame, SystemFrame):
    """A key that the caller pressed."""


@dataclass
class OutputDTMFFrame(DTMFFrame, DataFrame):
    """A key for the output transport to press, in its turn behind queued audio.

    With several dial-outs, `transport_destination` names the one.
    """


@dataclass
class OutputDTMFUrgentFrame(DTMFFrame, SystemFrame):
    """A key for the output transport to press at once.

    With several dial-outs, `transport_destination` names the one.
    """


@dataclass
class TransportMessageFrame(DataFrame):
    """A message for the client, sent in its turn behind queued audio.

    Attributes:
        message: What the transport can send, usually a dictionary.
    """

    message: Any

    def __str__(self) -> str:
        return f"{self.name}(message: {self.message})"


@dataclass
class TransportMessageUrgentFrame(SystemFrame):
    """A message for the client, sent at once.

    Attributes:
        message: What the transport can send, usually a dictionary.
    """

    message: Any

    def __str__(self) -> str:
        return f"{self.name}(message: {self.message})"


@dataclass
class OutputTransportReadyFrame(ControlFrame):
    """Tells, upstream, that the output transport can take frames."""
