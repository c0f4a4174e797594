"""Small helpers for whoever starts bots: telephony handshakes, clients of transports, SDP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from loguru import logger

_HANDSHAKE_MESSAGES = 2
"""Within so many messages every provider says what the call is."""

_HANDSHAKE_TIMEOUT_SECS = 15.0

_REFUSED_FINGERPRINTS = ("sha-384", "sha-512")


class TextWebSocket(Protocol):
    """What is needed of a WebSocket; FastAPI's has it."""

    def iter_text(self) -> AsyncIterator[str]:
        """The text messages as they arrive."""


async def parse_telephony_websocket(websocket: TextWebSocket) -> tuple[str, dict[str, Any]]:
    """Finds out from its first messages which provider a call comes from, and which call it is.

    Messages after the one that says so are left for the transport.

    Args:
        websocket: An accepted connection.

    Returns:
        ``"twilio"``, ``"telnyx"``, ``"plivo"`` or ``"unknown"``, and the call's data: ``stream_id``
        and ``call_id``; for Telnyx ``stream_id``, ``call_control_id`` and ``outbound_encoding``;
        empty for an unknown one.

    Raises:
        ValueError: The connection ended or stayed silent before that, or sent no JSON.
    """
    messages = websocket.iter_text()
    try:
        async with asyncio.timeout(_HANDSHAKE_TIMEOUT_SECS):
            for _ in range(_HANDSHAKE_MESSAGES):
                found = _recognise(_object(await anext(messages)))
                if found is not None:
                    logger.debug("telephony provider recognised", provider=found[0])
                    return found
    except StopAsyncIteration as error:
        raise ValueError("the telephony connection ended before it said what it is") from error
    except TimeoutError as error:
        raise ValueError("the telephony connection did not say in time what it is") from error
    logger.warning("the telephony provider is none of those that are known")
    return "unknown", {}


def _object(text: str) -> Mapping[str, Any]:
    try:
        message = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError("the telephony connection sent something that is not JSON") from error
    return message if isinstance(message, dict) else {}


def _recognise(message: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    start = message.get("start")
    if message.get("event") != "start" or not isinstance(start, dict):
        return None
    if "streamSid" in start and "callSid" in start:
        return "twilio", {"stream_id": start["streamSid"], "call_id": start["callSid"]}
    if "stream_id" in message and "call_control_id" in start:
        media = start.get("media_format")
        return "telnyx", {
            "stream_id": message["stream_id"],
            "call_control_id": start["call_control_id"],
            "outbound_encoding": media.get("encoding") if isinstance(media, dict) else None,
        }
    if "streamId" in start and "callId" in start:
        return "plivo", {"stream_id": start["streamId"], "call_id": start["callId"]}
    return None


def get_transport_client_id(transport: Any, client: Any) -> str:
    """The id of a client that a transport announced.

    Args:
        transport: The transport.
        client: What its ``on_client_connected`` handler was given: a peer connection of
            SmallWebRTC, or a participant of Daily.

    Returns:
        ``pc_id`` or the participant's id; empty for a client of another kind.
    """
    if hasattr(client, "pc_id"):
        return str(client.pc_id)
    if isinstance(client, Mapping) and "id" in client:
        return str(client["id"])
    logger.warning("clients of this transport have no id", transport=str(transport))
    return ""


async def maybe_capture_participant_camera(transport: Any, client: Any, framerate: int = 0) -> None:
    """Asks for the pictures of a participant's camera, if the transport can capture them.

    Args:
        transport: The transport.
        client: The participant.
        framerate: Pictures a second; 0 leaves it to the transport.
    """
    await _maybe_capture(transport, client, framerate, "camera")


async def maybe_capture_participant_screen(transport: Any, client: Any, framerate: int = 0) -> None:
    """Asks for the pictures of a participant's screen, if the transport can capture them.

    Args:
        transport: The transport.
        client: The participant.
        framerate: Pictures a second; 0 leaves it to the transport.
    """
    await _maybe_capture(transport, client, framerate, "screenVideo")


async def _maybe_capture(transport: Any, client: Any, framerate: int, source: str) -> None:
    capture = getattr(transport, "capture_participant_video", None)
    if capture is None or not isinstance(client, Mapping) or "id" not in client:
        return
    await capture(client["id"], framerate=framerate, video_source=source)


def smallwebrtc_sdp_munging(sdp: str, host: str) -> str:
    """Cuts a session description down to what small devices (ESP32) can handle.

    Args:
        sdp: The description.
        host: Address of this machine as the device reaches it.

    Returns:
        The description with candidates of this address only, and without the fingerprints
        SHA-384 and SHA-512.
    """
    lines = [line for line in sdp.splitlines() if _for_small_devices(line, host)]
    return "\r\n".join(lines) + "\r\n"


def _for_small_devices(line: str, host: str) -> bool:
    if line.startswith("a=candidate"):
        # a=candidate:<foundation> <component> <transport> <priority> <address> ... (RFC 8839);
        # "raddr" marks the ones that are not the address itself.
        fields = line.split()
        return len(fields) > 4 and fields[4] == host and "raddr" not in fields
    if line.startswith("a=fingerprint:"):
        return not line.removeprefix("a=fingerprint:").lower().startswith(_REFUSED_FINGERPRINTS)
    return True
