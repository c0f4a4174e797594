"""Arguments of runners, and helpers that need no network transport."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antiphon.runner import utils
from antiphon.runner.types import (
    DailyRunnerArguments,
    RunnerArguments,
    SmallWebRTCRunnerArguments,
    WebSocketRunnerArguments,
)
from antiphon.runner.utils import (
    get_transport_client_id,
    maybe_capture_participant_camera,
    maybe_capture_participant_screen,
    parse_telephony_websocket,
    smallwebrtc_sdp_munging,
)


def test_each_kind_of_session_has_its_arguments() -> None:
    connection = object()
    daily = DailyRunnerArguments("https://x.daily.co/room", "token", body={"a": 1})
    assert (daily.room_url, daily.token, daily.body) == (
        "https://x.daily.co/room",
        "token",
        {"a": 1},
    )
    assert DailyRunnerArguments(room_url="r").token is None
    websocket = WebSocketRunnerArguments(websocket=connection)
    webrtc = SmallWebRTCRunnerArguments(webrtc_connection=connection, session_id="s")
    assert websocket.websocket is webrtc.webrtc_connection is connection
    assert webrtc.session_id == "s"
    for arguments in (daily, websocket, webrtc):
        assert isinstance(arguments, RunnerArguments)
        assert not arguments.handle_sigint


class Socket:
    """Sends what it is given, and remembers what was not read."""

    def __init__(self, *messages: Any) -> None:
        self.left = [m if isinstance(m, str) else json.dumps(m) for m in messages]

    async def iter_text(self) -> AsyncIterator[str]:
        while self.left:
            yield self.left.pop(0)


CONNECTED = {"event": "connected", "protocol": "Call"}
MEDIA = {"event": "media", "media": {"payload": ""}}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [CONNECTED, {"event": "start", "start": {"streamSid": "MZ1", "callSid": "CA1"}}, MEDIA],
            ("twilio", {"stream_id": "MZ1", "call_id": "CA1"}),
        ),
        (
            [
                CONNECTED,
                {
                    "event": "start",
                    "stream_id": "s",
                    "start": {"call_control_id": "c", "media_format": {"encoding": "PCMU"}},
                },
                MEDIA,
            ],
            ("telnyx", {"stream_id": "s", "call_control_id": "c", "outbound_encoding": "PCMU"}),
        ),
        (
            [{"event": "start", "start": {"streamId": "s", "callId": "c"}}, MEDIA],
            ("plivo", {"stream_id": "s", "call_id": "c"}),
        ),
        ([CONNECTED, [1], MEDIA], ("unknown", {})),
    ],
)
async def test_telephony_providers_are_told_apart(messages: list[Any], expected: Any) -> None:
    socket = Socket(*messages)
    assert await parse_telephony_websocket(socket) == expected
    # Audio is left for the transport.
    assert socket.left == [json.dumps(MEDIA)]


@pytest.mark.parametrize(
    ("messages", "problem"), [([], "ended before"), ([CONNECTED], "ended"), (["{"], "not JSON")]
)
async def test_a_handshake_that_fails_is_a_clear_error(messages: list[Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        await parse_telephony_websocket(Socket(*messages))


@pytest.mark.virtual_time
async def test_a_silent_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    class Silent(Socket):
        async def iter_text(self) -> AsyncIterator[str]:
            await asyncio.sleep(3600)
            yield ""

    with pytest.raises(ValueError, match="in time"):
        await parse_telephony_websocket(Silent())
    assert utils._HANDSHAKE_TIMEOUT_SECS < 3600


class Peer:
    pc_id = "SmallWebRTC#1"


class Room:
    def __init__(self) -> None:
        self.captured: list[Any] = []

    async def capture_participant_video(
        self, participant_id: str, framerate: int = 30, video_source: str = "camera"
    ) -> None:
        self.captured.append((participant_id, framerate, video_source))


async def test_clients_of_transports() -> None:
    room = Room()
    participant = {"id": "p1"}
    assert get_transport_client_id(room, participant) == "p1"
    assert get_transport_client_id(object(), Peer()) == "SmallWebRTC#1"
    assert get_transport_client_id(object(), object()) == ""

    await maybe_capture_participant_camera(room, participant, framerate=30)
    await maybe_capture_participant_screen(room, participant)
    await maybe_capture_participant_camera(object(), participant)
    await maybe_capture_participant_camera(room, Peer())
    assert room.captured == [("p1", 30, "camera"), ("p1", 0, "screenVideo")]


def test_session_descriptions_for_small_devices() -> None:
    lines = [
        "v=0",
        "a=fingerprint:sha-256 AA",
        "a=fingerprint:sha-384 BB",
        "a=fingerprint:SHA-512 CC",
        "a=candidate:1 1 udp 2130706431 192.168.1.10 50000 typ host",
        "a=candidate:2 1 udp 2130706431 172.17.0.1 50000 typ host",
        "a=candidate:3 1 udp 1 192.168.1.10 5 typ srflx raddr 10.0.0.1 rport 6",
        "a=candidate",
        "a=end-of-candidates",
    ]
    assert smallwebrtc_sdp_munging("\n".join(lines), "192.168.1.10").split("\r\n") == [
        "v=0",
        "a=fingerprint:sha-256 AA",
        "a=candidate:1 1 udp 2130706431 192.168.1.10 50000 typ host",
        "a=end-of-candidates",
        "",
    ]
