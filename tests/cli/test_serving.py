"""``antiphon serve`` and ``deploy``, as a user and a caller see them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import SharedCluster
from tests.cli.support import EXAMPLES, CommandLine, Running

from antiphon.testing import WebSocketCaller, dial
from antiphon.testing.websocket_caller import INPUT_RATE
from antiphon.transports.file import read_wav

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]

BOT = EXAMPLES / "websocket_bot.py"
KEY = "a-key-that-nobody-guesses"
END_SECS = 8.0


def address_in(running: Running) -> str:
    running.wait_for("ws://")
    found = re.search(r"ws://([\d.]+:\d+)/", running.out)
    assert found is not None
    return found.group(1)


def status_of(address: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{address}/status", headers={"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def sentence(number: int) -> Any:
    """One sentence of the recorded caller: int16 at the rate of a caller's line."""
    told = json.loads((EXAMPLES / "caller.json").read_text())["sentences"][number]
    wav = read_wav(EXAMPLES / "caller.wav")
    assert wav.sample_rate == INPUT_RATE
    start, end = (round(told[name] * INPUT_RATE) for name in ("start", "end"))
    return wav.samples[start:end, 0]


@pytest.fixture
def served(antiphon: CommandLine) -> Iterator[Running]:
    running = antiphon.start("serve", BOT, "--port", "0", "--api-key", KEY)
    yield running
    running.signal()
    done = running.wait(END_SECS)
    assert done.code == 130
    assert done.errors == ["error: interrupted (SIGINT)"]
    assert "Traceback" not in done.err
    assert KEY not in done.out + done.err


async def until_told(caller: WebSocketCaller, role: str, words: str) -> None:
    async with asyncio.timeout(30):
        while not any(r == role and words in text for r, text in caller.transcript):
            await caller.wait(0.02)


async def test_a_caller_talks_with_a_bot_and_goes_on_when_its_process_dies(
    served: Running,
) -> None:
    address = await asyncio.to_thread(address_in, served)
    async with dial(f"ws://{address}/ws/websocket_bot?token={KEY}") as caller:
        await caller.get_ready()
        greeting = await caller.hear()
        assert caller.longest_gap(greeting.began_at, greeting.ended_at - 0.01) < 0.5
        await caller.speak(sentence(0))
        await until_told(caller, "user", "hello there")
        await caller.hear()
        assert [role for role, _ in caller.transcript][:3] == ["assistant", "user", "assistant"]

        (session,) = (await asyncio.to_thread(status_of, address))["sessions"]
        pid = int(session["supervisor"].split("pid ")[1].split(",")[0])
        os.kill(pid, signal.SIGKILL)
        await caller.speak(sentence(1))
        await until_told(caller, "user", "my boss is always angry")
        await caller.hear()
        assert not caller.closed
        # Nobody is greeted twice, and nothing that was answered is answered again.
        said = [text for role, text in caller.transcript if role == "user"]
        assert said == ["hello there", "i feel sad about my job because my boss is always angry"]
        assert sum("Hello. How are you" in text for _, text in caller.transcript) == 1
        status = await asyncio.to_thread(status_of, address)
        assert status["sessions"][0]["resumed"] == 1


def test_a_key_is_made_and_shown_once(antiphon: CommandLine, tmp_path: Path) -> None:
    bot = tmp_path / "My Bot.py"
    bot.write_text("async def bot(runner_args):\n    print('called', flush=True)\n")
    running = antiphon.start("serve", bot, "--port", "0")
    address = address_in(running)
    running.wait_for("API key")
    found = re.search(r"API key, shown this once: (\S{40,})", running.out)
    assert found is not None
    assert f"ws://{address}/ws/my-bot" in running.out

    async def call() -> tuple[int | None, str | None]:
        async with dial(f"ws://{address}/ws/my-bot", headers={"X-API-Key": found[1]}) as caller:
            return await caller.wait_closed()

    assert asyncio.run(call()) == (1000, "")
    running.wait_for("called")
    running.signal()
    assert running.wait(END_SECS).code == 130


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "cannot listen at 127.0.0.1:70000"),
        (["--api-key", "short"], "at least 16 characters"),
        (["--no-api-key", "--host", "0.0.0.0"], "--no-api-key is for the loopback address"),
        (["--name", "No Name"], "'No Name' is no name for a bot"),
        (["--public-url", "bots.example.com"], "--public-url bots.example.com: give a URL"),
        (["--placement", "somewhere"], "--placement somewhere: choose one of"),
        (["--log-level", "loud"], "--log-level loud: choose one of"),
    ],
)
def test_what_cannot_be_served_is_one_message(
    antiphon: CommandLine, options: list[str], message: str
) -> None:
    done = antiphon.run("serve", BOT, *options)
    assert done.code == 1
    (error,) = done.errors
    assert message in error
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", [["deploy", BOT, "--name", "x"], ["undeploy", "x"], ["status"]])
def test_without_a_cluster_there_is_nothing_to_deploy_on(
    antiphon: CommandLine, command: list[Any]
) -> None:
    done = antiphon.run(*command)
    assert done.code == 1
    (error,) = done.errors
    assert "RAY_ADDRESS is not set" in error


def test_a_bot_is_deployed_shown_and_taken_off(
    antiphon: CommandLine, shared_cluster: SharedCluster
) -> None:
    antiphon.environment.update(shared_cluster.environment)
    antiphon.environment["ANTIPHON_API_KEY"] = KEY
    done = antiphon.run("deploy", BOT, "--name", "eliza", "--port", "0")
    assert done.code == 0, done.err
    found = re.search(r"eliza (\w{12}): ws://(127.0.0.1:\d+)/ws/eliza", done.out)
    assert found is not None
    assert KEY not in done.out + done.err
    version, address = found.groups()

    async def call() -> str:
        async with dial(f"ws://{address}/ws/eliza?token={KEY}") as caller:
            await caller.get_ready()
            await caller.hear()
            shown = await asyncio.to_thread(antiphon.start("status").wait)
            assert shown.code == 0, shown.err
            return shown.out

    shown = asyncio.run(call())
    assert address in shown
    assert re.search(rf"eliza\s+{version}\s+1", shown)
    assert re.search(r"session-\w+\s+eliza \w+\s+running\s+actor", shown)

    missing = antiphon.run("undeploy", "nobody")
    assert missing.errors == ["error: nobody is not deployed here; deployed: eliza"]
    gone = antiphon.run("undeploy", "eliza", "--grace-secs", "5")
    assert gone.code == 0, gone.err
    assert gone.out == "eliza is taken off: it was the last, so the gateways have ended\n"
    deadline = time.monotonic() + 5.0
    while shared_cluster.actors() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shared_cluster.actors() == []
