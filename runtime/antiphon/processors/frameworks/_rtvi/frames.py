"""The frames of RTVI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from antiphon.frames.frames import DataFrame, SystemFrame
from antiphon.processors.frameworks._rtvi.settings import RTVIActionRun


@dataclass
class RTVIActionFrame(DataFrame):
    """Makes the RTVIProcessor run an action.

    Attributes:
        rtvi_action_run: The action and its arguments.
        message_id: The client's message that the result answers; None: nobody waits for it.
    """

    rtvi_action_run: RTVIActionRun
    message_id: str | None = None


@dataclass
class RTVIClientMessageFrame(SystemFrame):
    """A ``client-message``; a processor answers it with an ``RTVIServerResponseFrame``.

    Attributes:
        msg_id: What a response refers to.
        type: The application's own type.
        data: The application's own data.
    """

    msg_id: str
    type: str
    data: Any | None = None


@dataclass
class RTVIServerResponseFrame(SystemFrame):
    """Answers a client's message; the RTVIObserver sends it.

    Attributes:
        client_msg: The message.
        data: The answer.
        error: What went wrong instead, if anything.
    """

    client_msg: RTVIClientMessageFrame
    data: Any | None = None
    error: str | None = None


@dataclass
class RTVIServerMessageFrame(SystemFrame):
    """A message of the application to the client; the RTVIObserver sends it.

    Attributes:
        data: The message: what JSON can express.
    """

    data: Any
