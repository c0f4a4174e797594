"""The WebSocket at the end of a caller's line, against what Starlette and FastAPI document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import fastapi
import pytest
from starlette.websockets import WebSocketDisconnect, WebSocketState

from antiphon.runner.utils import parse_telephony_websocket
from antiphon.transports.network._caller_messages import ResumableWebSocket
from antiphon_actors.channels import ChannelError, ChannelRefused, Delivery
from antiphon_actors.session.caller_websocket import CallerRequest, CallerWebSocket
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.line import Kind, Line, Message

WAIT_SECS = 5.0


class Gateway:
    """The gateway's end of a line."""

    def __init__(self, endpoint: Endpoint, name: str = "line") -> None:
        self.line = Line(name, endpoint, self)
        self.line.listen()
        self.opened = asyncio.Event()
        self.got: list[Message] = []
        self.deliveries: list[Delivery] = []
        self.takes = True
        self.lost: Exception | None = None
        self._numbers = 0

    def line_opened(self) -> None:
        self.opened.set()

    def line_message(self, message: Message, delivery: Delivery) -> None:
        self.got.append(message)
        self.deliveries.append(delivery)
        if self.takes:
            delivery.done()

    def line_lost(self, error: Exception) -> None:
        self.lost = error

    async def say(self, data: str | bytes) -> None:
        kind = Kind.TEXT if isinstance(data, str) else Kind.BYTES
        self._numbers += 1
        raw = data.encode() if isinstance(data, str) else data
        await self.line.send(Message(kind, self._numbers, raw).pack())

    async def leave(self, code: int, reason: str = "") -> None:
        await self.line.send(Message.closed(code, reason).pack())


class Pair:
    """A bot's WebSocket and the gateway it is connected to."""

    def __init__(self, gateway: Gateway, websocket: CallerWebSocket, endpoint: Endpoint) -> None:
        self.gateway = gateway
        self.websocket = websocket
        self.endpoint = endpoint


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    here, there = Endpoint("bot"), Endpoint("gateway")
    await here.start(f"unix://{tmp_path}/bot.sock")
    await there.start(f"unix://{tmp_path}/gateway.sock")
    request = CallerRequest(
        "line",
        there.uri,
        path="/ws/eliza",
        path_params={"app": "eliza"},
        query=b"room=7",
        headers=[(b"x-mine", b"yes"), (b"cookie", b"a=b")],
        client=("10.0.0.9", 4711),
        server=("bots.example.com", 443),
        scheme="wss",
    )
    gateway = Gateway(there)
    websocket = CallerWebSocket(request, here, resumed=False)
    await websocket.connect()
    await gateway.opened.wait()
    yield Pair(gateway, websocket, here)
    websocket._line.abort()
    gateway.line.abort()
    await here.aclose()
    await there.aclose()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_SECS):
        while not condition():  # noqa: ASYNC110 - for what tells nobody of itself
            await asyncio.sleep(0.001)


# -- as documented ---------------------------------------------------------------------------


async def test_it_is_a_websocket_of_fastapi_that_was_accepted(pair: Pair) -> None:
    websocket = pair.websocket
    assert isinstance(websocket, fastapi.WebSocket)
    assert isinstance(websocket, ResumableWebSocket)
    assert websocket.client_state is WebSocketState.CONNECTED
    assert websocket.application_state is WebSocketState.CONNECTED
    await websocket.accept()
    await websocket.accept(subprotocol="audio")
    assert str(websocket.url) == "wss://bots.example.com/ws/eliza?room=7"
    assert dict(websocket.query_params) == {"room": "7"}
    assert websocket.path_params == {"app": "eliza"}
    assert websocket.headers["X-Mine"] == "yes"
    assert websocket.cookies == {"a": "b"}
    assert websocket.client == ("10.0.0.9", 4711)
    with pytest.raises(RuntimeError):
        await websocket.send_denial_response(fastapi.responses.JSONResponse({}))


async def test_every_way_to_receive(pair: Pair) -> None:
    for message in ("a", b"b", '{"c": 1}', b'{"d": 2}', "e"):
        await pair.gateway.say(message)
    websocket = pair.websocket
    assert await websocket.receive_text() == "a"
    assert await websocket.receive_bytes() == b"b"
    assert await websocket.receive_json() == {"c": 1}
    assert await websocket.receive_json(mode="binary") == {"d": 2}
    assert await websocket.receive() == {"type": "websocket.receive", "text": "e"}
    assert websocket.received == 5


async def test_every_way_to_send(pair: Pair) -> None:
    websocket = pair.websocket
    await websocket.send_text("a")
    await websocket.send_bytes(b"b")
    await websocket.send_json({"c": 1})
    await websocket.send_json({"d": 2}, mode="binary")
    await websocket.send({"type": "websocket.send", "text": "e"})
    await until(lambda: len(pair.gateway.got) == 5)
    assert [(message.kind, message.data) for message in pair.gateway.got] == [
        (Kind.TEXT, b"a"),
        (Kind.BYTES, b"b"),
        (Kind.TEXT, b'{"c":1}'),
        (Kind.BYTES, b'{"d":2}'),
        (Kind.TEXT, b"e"),
    ]


async def test_iterators_end_when_the_caller_leaves(pair: Pair) -> None:
    await pair.gateway.say("a")
    await pair.gateway.say("b")
    await pair.gateway.leave(1001)
    assert [text async for text in pair.websocket.iter_text()] == ["a", "b"]
    assert pair.websocket.client_state is WebSocketState.DISCONNECTED
    with pytest.raises(RuntimeError):
        await pair.websocket.receive()


async def test_a_caller_who_leaves_is_told_with_code_and_reason(pair: Pair) -> None:
    await pair.gateway.leave(4001, "enough")
    with pytest.raises(WebSocketDisconnect) as error:
        await pair.websocket.receive_bytes()
    assert (error.value.code, error.value.reason) == (4001, "enough")


async def test_whoever_only_sends_notices_too(pair: Pair) -> None:
    await pair.gateway.leave(1001)

    async def pour() -> None:
        while True:
            await pair.websocket.send_text("x")
            await asyncio.sleep(0)

    with pytest.raises(WebSocketDisconnect) as error:
        await asyncio.wait_for(pour(), WAIT_SECS)
    assert error.value.code == 1006
    assert pair.websocket.application_state is WebSocketState.DISCONNECTED


async def test_the_bot_hangs_up(pair: Pair) -> None:
    await pair.websocket.close(4002, "bye")
    await until(lambda: pair.gateway.got)
    assert pair.gateway.got[0].code_and_reason == (4002, "bye")
    with pytest.raises(RuntimeError):
        await pair.websocket.send_text("late")
    message = await pair.websocket.receive()
    assert (message["type"], message["code"]) == ("websocket.disconnect", 4002)


async def test_the_handshake_of_a_telephone_call_is_read_from_it(pair: Pair) -> None:
    start = {"event": "start", "start": {"streamSid": "s", "callSid": "c"}}
    await pair.gateway.say(json.dumps({"event": "connected"}))
    await pair.gateway.say(json.dumps(start))
    await pair.gateway.say("media")
    found = await parse_telephony_websocket(pair.websocket)
    assert found == ("twilio", {"stream_id": "s", "call_id": "c"})
    pair.websocket.end_prologue()
    await until(lambda: pair.gateway.got)
    assert pair.gateway.got == [Message(Kind.PROLOGUE, 2)]


# -- flow --------------------------------------------------------------------------------------


async def test_a_caller_who_takes_nothing_holds_the_bot_back(pair: Pair) -> None:
    pair.gateway.takes = False
    sending = asyncio.create_task(_send_many(pair.websocket))
    await until(lambda: len(pair.gateway.got) == 256)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(pair.gateway.got) == 256
    assert not sending.done()
    pair.gateway.takes = True
    for delivery in pair.gateway.deliveries:
        delivery.done()
    await asyncio.wait_for(sending, WAIT_SECS)


async def test_what_overtakes_is_not_held_back(pair: Pair) -> None:
    pair.gateway.takes = False
    sending = asyncio.create_task(_send_many(pair.websocket))
    await until(lambda: len(pair.gateway.got) == 256)
    pair.websocket.commit(3)
    pair.websocket.commit(2)
    await until(lambda: len(pair.gateway.got) == 257)
    assert pair.gateway.got[-1] == Message(Kind.COMMITTED, 3)
    sending.cancel()
    await asyncio.wait({sending})


async def test_a_bot_that_takes_nothing_holds_the_gateway_back(pair: Pair) -> None:
    saying = asyncio.create_task(_say_many(pair.gateway))
    await until(lambda: len(pair.websocket._waiting) == 256)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(pair.websocket._waiting) == 256
    assert not saying.done()
    for _ in range(300):
        await pair.websocket.receive()
    await asyncio.wait_for(saying, WAIT_SECS)


async def _send_many(websocket: CallerWebSocket) -> None:
    for _ in range(300):
        await websocket.send_bytes(b"x")


async def _say_many(gateway: Gateway) -> None:
    for _ in range(300):
        await gateway.say(b"x")


# -- the end -----------------------------------------------------------------------------------


async def test_a_bot_that_ends_says_everything_first(pair: Pair) -> None:
    await pair.websocket.send_text("last words")
    await pair.websocket.finish(1000, "")
    texts = [message for message in pair.gateway.got if message.kind is not Kind.FINISHED]
    assert [message.kind for message in texts] == [Kind.TEXT, Kind.CLOSED]
    assert pair.gateway.lost is None  # that was no loss
    await until(lambda: pair.gateway.line._out is not None and pair.gateway.line._out.error)
    with pytest.raises(ChannelError):
        await pair.gateway.say("late")


async def test_a_bot_that_hung_up_itself_does_not_do_so_twice(pair: Pair) -> None:
    await pair.websocket.close(4002, "bye")
    await pair.websocket.finish(1000, "")
    closed = [message for message in pair.gateway.got if message.kind is Kind.CLOSED]
    assert [message.code_and_reason for message in closed] == [(4002, "bye")]


async def test_a_gateway_that_is_gone_ends_the_session_but_not_as_a_hang_up(pair: Pair) -> None:
    lost: list[str] = []
    pair.websocket.call_when_lost(lambda: lost.append("lost"))
    receiving = asyncio.create_task(pair.websocket.receive())
    await asyncio.sleep(0)
    pair.gateway.line.abort()
    await until(lambda: lost)
    # The caller has not left, as far as is known: who waits is to be cancelled.
    await pair.websocket.send_text("to nobody")
    await pair.websocket.close()
    assert not receiving.done()
    receiving.cancel()
    await asyncio.wait({receiving})
    late: list[str] = []
    pair.websocket.call_when_lost(lambda: late.append("lost"))
    assert late == ["lost"]
    await pair.websocket.finish(1000, "")


async def test_a_session_that_goes_on_elsewhere_lets_go_of_the_caller(pair: Pair) -> None:
    await pair.websocket.send_text("said here")
    await pair.gateway.say("not taken here")
    await until(lambda: pair.websocket._waiting)
    await pair.websocket.let_go()
    # What the bot's end does now is not for the caller.
    await pair.websocket.send_text("to nobody")
    await pair.websocket.close()
    await pair.websocket.finish(1000, "")
    assert [message.data for message in pair.gateway.got] == [b"said here"]
    assert pair.gateway.lost is None
    assert pair.websocket.received == 0


async def test_what_an_earlier_process_has_saved_is_not_delivered(pair: Pair) -> None:
    for text in ("prologue", "saved", "saved too", "new"):
        await pair.gateway.say(text)
    assert await pair.websocket.receive_text() == "prologue"
    pair.websocket.commit(3)
    assert pair.websocket.received == 3
    assert await pair.websocket.receive_text() == "new"
    assert pair.websocket.received == 4


async def test_nobody_waits_for_this_session(tmp_path: Path, pair: Pair) -> None:
    stranger = CallerWebSocket(
        CallerRequest("another", pair.websocket._uri), pair.endpoint, resumed=False
    )
    with pytest.raises(ChannelRefused, match="line another is not here"):
        await stranger.connect()


async def test_a_line_is_taken_once(pair: Pair) -> None:
    with pytest.raises(ChannelError, match="already here"):
        await CallerWebSocket(
            CallerRequest("line", pair.websocket._uri), pair.endpoint, resumed=False
        ).connect()
    # The first is not disturbed by that.
    await pair.gateway.say("still here")
    assert await pair.websocket.receive_text() == "still here"


@pytest.mark.parametrize("payload", [b"", b"\x00" * 8, b"\xff" + bytes(8)])
async def test_a_malformed_message_breaks_the_line(pair: Pair, payload: bytes) -> None:
    lost: list[str] = []
    pair.websocket.call_when_lost(lambda: lost.append("lost"))
    await pair.gateway.line.send(payload)
    await until(lambda: lost)
    await until(lambda: pair.gateway.lost)
