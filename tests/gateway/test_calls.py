"""Calls through a gateway: admission, conversation, and every way to the end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from tests.gateway.conftest import KEY, WAIT_SECS, Serve, heard, hung_up, patience, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from antiphon.runner.types import WebSocketRunnerArguments
from antiphon_actors.errors import NoActorError


async def refused(url: str, **options: Any) -> tuple[int, dict[str, str], str]:
    """Calls and is not let in: status, headers and body of the answer."""
    with pytest.raises(InvalidStatus) as error:
        await connect(url, **options)
    response = error.value.response
    return response.status_code, dict(response.headers), (response.body or b"").decode()


async def test_a_caller_talks_with_a_bot(serve: Serve) -> None:
    async with serve() as line:
        client = await line.call()
        for text in ("one", "two", "ü" * 5000):
            await client.send(text)
            assert await heard(client) == text
        (session,) = line.gateway.status()["sessions"]
        assert (session["app"], session["state"], session["received"]) == ("echo", "running", 3)
        await client.close()
        await until(lambda: not line.gateway.status()["sessions"])
        assert line.gateway.status()["counts"] == {"ended": 1, "resumed": 0}


async def test_the_bot_sees_the_request_without_credentials(serve: Serve) -> None:
    seen: list[Any] = []

    async def look(arguments: WebSocketRunnerArguments) -> None:
        websocket = arguments.websocket
        await websocket.accept()
        seen.append(dict(websocket.query_params))
        seen.append(websocket.headers.get("x-mine"))
        seen.append(websocket.headers.get("authorization"))
        seen.append(websocket.url.path)
        seen.append(websocket.client.host)
        seen.append(websocket.path_params)
        await websocket.send_bytes(b"seen")

    async with serve() as line:
        line.processes.bot = look
        headers = {"Authorization": f"Bearer {KEY}", "X-Mine": "yes"}
        client = await connect(f"{line.url(token='')}&room=7", additional_headers=headers)
        assert await heard(client) == b"seen"
        assert await hung_up(client) == (1000, "")
    assert seen == [{"room": "7"}, "yes", None, "/ws/echo", "127.0.0.1", {"app": "echo"}]


# -- who is not let in -------------------------------------------------------------------------


async def test_without_the_key_nobody_is_let_in(serve: Serve) -> None:
    async with serve() as line:
        for token in ("", "wrong", KEY + "x"):
            status, headers, body = await refused(line.url(token=token))
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert "no valid API key" in body
            assert not token or token not in body
        assert line.processes.all == []
        assert line.gateway.status()["counts"] == {"refused": 3}


async def test_an_unknown_bot_is_not_there(serve: Serve) -> None:
    async with serve() as line:
        status, _, body = await refused(line.url("nobody"))
        assert status == 404
        assert "echo, other" in body


async def test_there_is_nothing_elsewhere(serve: Serve) -> None:
    async with serve() as line:
        status, _, body = await refused(f"ws://{line.address}/elsewhere?token={KEY}")
        assert status == 404
        assert "no such page" in body


async def test_a_full_cluster_says_when_to_come_back(serve: Serve) -> None:
    async with serve() as line:
        line.processes.refusal = NoActorError("the node is full", True, 2.5)
        status, headers, body = await refused(line.url())
        assert (status, headers["retry-after"]) == (503, "3")
        assert '"info":"overloaded"' in body
        line.processes.refusal = NoActorError("actors do not start: out of memory")
        status, headers, body = await refused(line.url())
        assert status == 503
        assert "retry-after" not in headers
        assert "out of memory" in body


async def test_a_gateway_takes_so_many_sessions(serve: Serve) -> None:
    async with serve(max_sessions=1) as line:
        client = await line.call()
        status, headers, _ = await refused(line.url())
        assert status == 503
        assert "retry-after" in headers
        await client.close()
        await until(lambda: not line.gateway.status()["sessions"])
        again = await line.call()
        await again.close()


async def test_a_gateway_that_is_drained_takes_none_and_keeps_its_own(serve: Serve) -> None:
    async with serve() as line:
        client = await line.call()
        await client.send("before")
        assert await heard(client) == "before"
        assert line.gateway.drain() == 1
        status, _, body = await refused(line.url())
        assert status == 503
        assert '"info":"draining"' in body
        await client.send("still here")
        assert await heard(client) == "still here"
        await client.close()


async def test_nobody_is_accepted_before_there_is_a_place(serve: Serve) -> None:
    async with serve() as line:
        line.processes.may_grant.clear()
        calling = asyncio.create_task(line.call())
        await until(lambda: line.processes.avoided)
        assert not calling.done()
        line.processes.may_grant.set()
        client = await calling
        await client.close()


async def test_a_caller_who_gives_up_before_that_holds_nothing(serve: Serve) -> None:
    async with serve() as line:
        line.processes.may_grant.clear()
        calling = asyncio.create_task(line.call())
        await until(lambda: line.processes.avoided)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await until(lambda: not line.gateway.status()["sessions"])
        assert line.processes.held == []


async def test_who_would_have_to_wait_too_long_is_refused(serve: Serve) -> None:
    async with serve(patience=patience(admission_secs=0.05)) as line:
        line.processes.may_grant.clear()
        status, headers, _ = await refused(line.url())
        assert (status, headers["retry-after"]) == (503, "1")


# -- the end -----------------------------------------------------------------------------------


async def test_the_bot_hangs_up_with_its_own_code(serve: Serve) -> None:
    async def bye(arguments: WebSocketRunnerArguments) -> None:
        await arguments.websocket.send_text("bye")
        await arguments.websocket.close(4001, "enough")

    async with serve() as line:
        line.processes.bot = bye
        client = await line.call()
        assert await heard(client) == "bye"
        assert await hung_up(client) == (4001, "enough")


async def test_a_code_that_cannot_be_sent_is_not(serve: Serve) -> None:
    async def bye(arguments: WebSocketRunnerArguments) -> None:
        await arguments.websocket.close(1006, "ü" * 100)

    async with serve() as line:
        line.processes.bot = bye
        client = await line.call()
        assert await hung_up(client) == (1000, "ü" * 61)


async def test_a_bot_that_fails_is_no_riddle_to_the_caller(serve: Serve) -> None:
    async def fail(arguments: WebSocketRunnerArguments) -> None:
        await arguments.websocket.send_text("oh")
        raise ValueError("secret words")

    async with serve() as line:
        line.processes.bot = fail
        client = await line.call()
        assert await heard(client) == "oh"
        assert await hung_up(client) == (1011, "the bot failed")


async def test_a_caller_who_hangs_up_ends_the_bot(serve: Serve) -> None:
    codes: list[int] = []

    async def listen(arguments: WebSocketRunnerArguments) -> None:
        while True:
            message = await arguments.websocket.receive()
            if message["type"] == "websocket.disconnect":
                codes.append(message["code"])
                return

    async with serve() as line:
        line.processes.bot = listen
        client = await line.call()
        await line.running()
        await client.send("hello")
        await client.close(4000, "enough")
        await until(lambda: not line.gateway.status()["sessions"])
    assert codes == [4000]


@pytest.mark.parametrize("obeys", [True, False])
async def test_a_bot_that_does_not_notice_is_ended_all_the_same(serve: Serve, obeys: bool) -> None:
    async def deaf(arguments: WebSocketRunnerArguments) -> None:
        await asyncio.Event().wait()

    limits = patience(grace_secs=0.05, cancel_secs=0.05)
    async with serve(patience=limits) as line:
        line.processes.bot = deaf
        client = await line.call()
        process = await line.process(0)
        process.stuck = not obeys
        await client.close()
        await until(lambda: not line.gateway.status()["sessions"])
        await until(lambda: process.cancelled)
        if not obeys:
            await until(lambda: line.processes.killed == [process.name])


async def test_a_gateway_that_ends_says_so(serve: Serve) -> None:
    async with serve() as line:
        client = await line.call()
        await client.send("x")
        await heard(client)
    assert await hung_up(client) == (1001, "the gateway is shutting down")


async def test_a_silent_session_is_ended(serve: Serve) -> None:
    async with serve(idle_secs=0.1) as line:
        client = await line.call()
        assert await hung_up(client) == (1001, "nobody said anything")


# -- who is slow, or asks too much ---------------------------------------------------------------


async def test_a_bot_that_takes_nothing_does_not_fill_the_gateway(serve: Serve) -> None:
    async def deaf(arguments: WebSocketRunnerArguments) -> None:
        await asyncio.Event().wait()

    async with serve(kept_bytes=200_000, patience=patience(grace_secs=0.05)) as line:
        line.processes.bot = deaf
        client = await line.call()
        with pytest.raises(ConnectionClosed):  # noqa: PT012 - which of them fails is open
            for _ in range(100_000):
                await client.send(bytes(10_000))
                (session,) = line.gateway.status()["sessions"] or [{"kept_bytes": 0}]
                assert session["kept_bytes"] <= 200_000
            await client.wait_closed()
        assert await hung_up(client) == (1013, "the bot does not keep up")


async def test_a_caller_who_takes_nothing_slows_the_bot_and_is_cut_off(serve: Serve) -> None:
    sent = 0

    async def pour(arguments: WebSocketRunnerArguments) -> None:
        nonlocal sent
        while True:
            await arguments.websocket.send_bytes(bytes(50_000))
            sent += 1

    async with serve(send_secs=0.3, patience=patience(grace_secs=0.05)) as line:
        line.processes.bot = pour
        client = await line.call(max_queue=1, max_size=None)
        client.transport.pause_reading()
        await until(lambda: line.gateway.status()["counts"].get("ended"))
        # Kernel, server, window: some megabytes, and no more however long it goes on.
        assert sent * 50_000 < 32 << 20
        client.transport.abort()


async def test_a_message_that_is_too_large_ends_the_call(serve: Serve) -> None:
    async with serve(max_message_bytes=1000) as line:
        client = await line.call()
        await client.send(bytes(1001))
        code, _ = await hung_up(client)
        assert code == 1009


async def test_who_does_not_say_what_it_wants_is_cut_off(serve: Serve) -> None:
    async with serve(handshake_secs=0.05) as line:
        host, port = line.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\n")
        async with asyncio.timeout(WAIT_SECS):
            assert await reader.read() == b""
        writer.close()
        # Who has said it is not.
        client = await line.call()
        await asyncio.sleep(0.1)
        await client.send("still here")
        assert await heard(client) == "still here"
        await client.close()


async def test_there_is_a_limit_to_connections(serve: Serve) -> None:
    async with serve(max_connections=2) as line:
        host, port = line.address.split(":")
        open_ones = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(WAIT_SECS):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        for each in [writer, *(writer for _, writer in open_ones)]:
            each.close()
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()
