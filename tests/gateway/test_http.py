"""The gateway's pages: who may see them, what they answer, what never shows up in a log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.fernet import Fernet
from loguru import logger
from tests.gateway.conftest import KEY, Serve, app_named, heard, hung_up, request, until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from antiphon.errors import ConfigError
from antiphon.runner.types import WebSocketRunnerArguments
from antiphon_actors.gateway import access
from antiphon_actors.gateway.http import make_application
from antiphon_actors.gateway.server import GatewayServer
from antiphon_actors.gateway.settings import AppSpec, GatewaySettings


async def test_health_is_for_everybody_and_tells_of_draining(serve: Serve) -> None:
    async with serve() as line:
        assert (await request(line.address, "GET", "/health"))[::2] == (200, {"status": "ok"})
        line.gateway.drain()
        found = await request(line.address, "GET", "/health")
        assert found[::2] == (503, {"status": "draining"})


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"Authorization": f"Bearer {KEY}"}, "", 200),
        ({"Authorization": f"bearer {KEY}"}, "", 200),
        ({"X_API_Key": KEY}, "", 200),
        ({}, f"?token={KEY}", 200),
        ({}, "", 401),
        ({"X_API_Key": KEY[:-1]}, "", 401),
        ({"Authorization": f"Basic {KEY}"}, "", 401),
        ({"Authorization": "Bearer \xe9"}, "", 401),
    ],
)
async def test_the_status_is_for_who_has_the_key(
    serve: Serve, headers: dict[str, str], query: str, status: int
) -> None:
    async with serve() as line:
        found, answer, body = await request(line.address, "GET", f"/status{query}", **headers)
        assert found == status
        if status == 200:
            assert {app["name"] for app in body["apps"]} == {"echo", "other"}
        else:
            assert body["info"] == "no valid API key"
            assert "token=KEY" in body["detail"]
            assert answer["www-authenticate"] == "Bearer"


async def test_without_a_key_everybody_may_come_in(serve: Serve) -> None:
    async with serve(key_hash="") as line:
        assert (await request(line.address, "GET", "/status"))[0] == 200
        client = await connect(f"ws://{line.address}/ws/echo")
        await client.close()


# -- connect -------------------------------------------------------------------------------------


async def test_connect_tells_where_to_call_and_what_was_asked_reaches_the_bot(serve: Serve) -> None:
    bodies: list[Any] = []

    async def look(arguments: WebSocketRunnerArguments) -> None:
        bodies.append(arguments.body)
        await arguments.websocket.send_text("seen")

    async with serve() as line:
        line.processes.bot = look
        status, headers, body = await request(
            line.address, "POST", "/connect/echo", b'{"table": 7}', X_API_Key=KEY
        )
        assert status == 200
        assert headers["cache-control"] == "no-store"
        assert list(body) == ["ws_url"]  # the SDKs take any other key for an error
        url = urlsplit(body["ws_url"])
        assert (url.scheme, url.netloc, url.path) == ("ws", line.address, "/ws/echo")
        assert KEY not in body["ws_url"]
        client = await connect(body["ws_url"])
        assert await heard(client) == "seen"
        await hung_up(client)
        assert bodies == [{"table": 7}]


@pytest.mark.parametrize("letter", ["x", "ü", "\u2028", '"'])
async def test_the_largest_body_fits_in_the_url(serve: Serve, letter: str) -> None:
    async with serve() as line:
        limit = line.gateway.settings.max_body_bytes
        text = letter * ((limit - 10) // len(json.dumps(letter, ensure_ascii=False)[1:-1].encode()))
        body = json.dumps({"a": text}, ensure_ascii=False).encode()
        assert limit - 20 < len(body) <= limit
        _, _, answer = await request(line.address, "POST", "/connect/echo", body, X_API_Key=KEY)
        await (await connect(answer["ws_url"])).close()


async def test_an_sdk_sends_no_body_at_all(serve: Serve) -> None:
    async with serve() as line:
        line.gateway.set_apps([app_named("only")])
        status, _, body = await request(
            line.address, "POST", "/connect", X_API_Key=KEY, Content_Type="application/json"
        )
        assert status == 200
        assert "/ws/only?" in body["ws_url"]


@pytest.mark.parametrize(
    ("path", "body", "status", "info"),
    [
        ("/connect/nobody", b"", 404, "no such bot"),
        ("/connect", b"", 404, "no such bot"),
        ("/connect/echo", b"{", 400, "not JSON"),
        ("/connect/echo", b"[]", 400, "not a JSON object"),
        ("/connect/echo", b"[" * 4_000, 400, "not JSON"),
        ("/connect/echo", b'"' + b"x" * 5_000, 413, "request too large"),
        ("/nowhere", b"", 404, "no such page"),
        ("/status", b"", 405, "wrong method"),
    ],
)
async def test_errors_are_json_that_the_sdks_can_show(
    serve: Serve, path: str, body: bytes, status: int, info: str
) -> None:
    async with serve() as line:
        found, _, answer = await request(line.address, "POST", path, body, X_API_Key=KEY)
        assert (found, answer["info"]) == (status, info)
        assert answer["detail"]


async def test_connect_needs_the_key(serve: Serve) -> None:
    async with serve() as line:
        assert (await request(line.address, "POST", "/connect/echo"))[0] == 401


async def test_a_ticket_is_for_one_bot_and_a_minute(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as line:
        _, _, body = await request(line.address, "POST", "/connect/echo", X_API_Key=KEY)
        with pytest.raises(InvalidStatus):
            await connect(body["ws_url"].replace("/ws/echo", "/ws/other"))
        monkeypatch.setattr(access, "TICKET_SECS", -1)
        with pytest.raises(InvalidStatus):
            await connect(body["ws_url"])


async def test_a_forged_ticket_is_none(serve: Serve) -> None:
    async with serve() as line:
        plain = json.dumps({"app": "echo", "body": {}}).encode()
        forged = Fernet(Fernet.generate_key()).encrypt(plain).decode()
        with pytest.raises(InvalidStatus):
            await connect(line.url(token=forged))


async def test_behind_a_proxy_callers_are_told_its_address(serve: Serve) -> None:
    async with serve(public_url="https://bots.example.com/voice/") as line:
        _, _, body = await request(line.address, "POST", "/connect/echo", X_API_Key=KEY)
        assert body["ws_url"].startswith("wss://bots.example.com/voice/ws/echo?token=")


async def test_a_page_of_another_origin_may_ask(serve: Serve) -> None:
    async with serve() as line:
        status, headers, _ = await request(
            line.address,
            "OPTIONS",
            "/connect/echo",
            Origin="https://page.example",
            Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="content-type,authorization",
        )
        assert status == 200
        assert headers["access-control-allow-origin"] == "*"
        assert "POST" in headers["access-control-allow-methods"]
        assert "authorization" in headers["access-control-allow-headers"]
        # Errors can be read by the page, too.
        status, headers, _ = await request(
            line.address, "POST", "/connect/echo", Origin="https://page.example"
        )
        assert (status, headers["access-control-allow-origin"]) == (401, "*")


async def test_origins_can_be_named(serve: Serve) -> None:
    async with serve(cors_origins=("https://mine.example",)) as line:
        _, headers, _ = await request(
            line.address, "GET", "/health", Origin="https://other.example"
        )
        assert "access-control-allow-origin" not in headers


# -- secrets, addresses ----------------------------------------------------------------------------


@pytest.fixture
def all_logs(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    caplog.set_level(logging.DEBUG)
    found: list[str] = []
    sink = logger.add(lambda message: found.append(str(message.record)), level="TRACE")
    yield found
    logger.remove(sink)


async def test_no_key_and_no_word_gets_into_a_log(
    serve: Serve, all_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as line:
        client = await line.call()
        await client.send("my secret words")
        await heard(client)
        await client.close()
        with pytest.raises(InvalidStatus):
            await connect(line.url(token="a-wrong-key-of-mine"))
        _, _, body = await request(
            line.address,
            "POST",
            "/connect/echo",
            b'{"a": "my wish"}',
            Authorization=f"Bearer {KEY}",
        )
        ticket = parse_qs(urlsplit(body["ws_url"]).query)["token"][0]
        await (await connect(body["ws_url"])).close()
        await until(lambda: not line.gateway.status()["sessions"])
        shown = json.dumps(line.gateway.status())
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("websockets.client")]
    for text in [*all_logs, *ours, shown]:
        for secret in (KEY, "secret words", "a-wrong-key-of-mine", "my wish", ticket):
            assert secret not in text


async def test_a_port_that_is_taken_is_one_message(serve: Serve) -> None:
    async with serve() as line:
        port = line.server.address[1]
        other = GatewayServer(make_application(line.gateway), GatewaySettings(port=port))
        with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1:{port}"):
            await other.start()
        await other.aclose()


async def test_a_request_body_that_does_not_come_is_not_waited_for(serve: Serve) -> None:
    async with serve(handshake_secs=0.05) as line:
        host, port = line.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /connect/echo HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n"
        writer.write(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert b" 408 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


def test_a_key_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 16 characters"):
        access.hash_key("short")
    assert len(access.new_key()) >= 40
    assert access.new_key() != access.new_key()


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a/b", "x" * 65, "ü"])
def test_a_bot_needs_a_name_for_urls(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name"):
        app_named(name)


def test_a_bot_keeps_its_form_in_the_registry() -> None:
    app = app_named("my-bot.v2")
    assert AppSpec.from_json(app.to_json()) == app
    assert len(app.version) == 12
    other = AppSpec(app.name, app.bot_file, placement="fused")
    assert other.version != app.version
    assert other.kind != app.kind


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"name": "a", "bot_file": null, "placement": null, "log_level": "INFO"}'],
)
def test_a_damaged_registry_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError):
        AppSpec.from_json(text)


def test_a_registry_cannot_name_modes_of_its_own() -> None:
    plain = json.loads(app_named("a").to_json())
    for change in ({"placement": "elsewhere"}, {"bot_file": {**plain["bot_file"], "pipecat": "x"}}):
        with pytest.raises(ConfigError, match="unknown"):
            AppSpec.from_json(json.dumps({**plain, **change}))
