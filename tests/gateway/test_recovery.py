"""The caller's connection outlives the process behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from loguru import logger
from tests.gateway.conftest import Process, Serve, heard, hung_up, patience, until

from antiphon.runner.types import WebSocketRunnerArguments
from antiphon_actors.errors import NoActorError

pytestmark = pytest.mark.chaos


class Diary:
    """A bot that answers with who it is, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.ended: list[str] = []
        self.commits = False

    async def __call__(self, arguments: WebSocketRunnerArguments) -> None:
        number, told, websocket = len(self.told), list[str](), arguments.websocket
        self.told.append(told)
        try:
            async for text in websocket.iter_text():
                told.append(text)
                if self.commits:
                    websocket.commit(websocket.received)
                await websocket.send_text(f"{number} resumed={websocket.resumed} {text}")
            self.ended.append(f"{number} told")
        except asyncio.CancelledError:
            self.ended.append(f"{number} cancelled")
            raise


def kill(process: Process) -> None:
    process.die()


def cut_off(process: Process) -> None:
    process.cut_off()


@pytest.mark.parametrize("fault", [kill, cut_off])
async def test_the_same_connection_goes_on_with_another_process(serve: Serve, fault: Any) -> None:
    diary = Diary()
    async with serve() as line:
        line.processes.bot = diary
        client = await line.call()
        await client.send("one")
        assert await heard(client) == "0 resumed=False one"
        first = await line.process(0)
        first.sockets[0].end_prologue()
        first.sockets[0].commit(1)
        await client.send("two")
        assert await heard(client) == "0 resumed=False two"

        fault(first)
        await client.send("three")
        # "one" was the prologue, "two" was never committed: the new process is told again.
        for text in ("one", "two", "three"):
            assert await heard(client) == f"1 resumed=True {text}"
        second = await line.process(1)
        assert second.specs[0].session_id == first.specs[0].session_id
        assert (second.specs[0].resume, second.specs[0].attempt) == (True, 1)
        assert line.processes.avoided == [set(), {"process0"}]
        session = await line.running()
        assert session["resumed"] == 1
        # The old one is fenced, and its bot does not believe that its caller has left.
        await until(lambda: not first.running)
        assert first.cancelled == []
        assert diary.ended == ["0 cancelled"]
        assert line.processes.held == [second.specs[0].run_id]
        await client.close()
        await until(lambda: diary.ended == ["0 cancelled", "1 told"])


async def test_what_was_committed_is_not_said_again(serve: Serve) -> None:
    diary = Diary()
    async with serve() as line:
        line.processes.bot = diary
        client = await line.call()
        first = await line.process(0)
        first.sockets[0].end_prologue()
        for text in ("one", "two", "three"):
            await client.send(text)
            await heard(client)
        first.sockets[0].commit(2)
        await until(lambda: line.gateway.status()["sessions"][0]["kept_bytes"] < 20)
        first.die()
        assert await heard(client) == "1 resumed=True three"
        assert diary.told == [["one", "two", "three"], ["three"]]
        await client.close()


async def test_what_is_said_meanwhile_is_kept(serve: Serve) -> None:
    diary = Diary()
    diary.commits = True
    async with serve() as line:
        line.processes.bot = diary
        client = await line.call()
        first = await line.process(0)
        first.sockets[0].end_prologue()
        line.processes.may_grant.clear()
        first.die()
        await until(lambda: line.gateway.status()["sessions"][0]["state"] == "resuming")
        for number in range(100):
            await client.send(str(number))
        await until(lambda: line.gateway.status()["sessions"][0]["received"] == 100)
        line.processes.may_grant.set()
        for number in range(100):
            assert await heard(client) == f"1 resumed=True {number}"
        await until(lambda: line.gateway.status()["sessions"][0]["kept_bytes"] == 0)
        await client.close()


async def test_of_too_much_meanwhile_the_newest_is_kept_and_the_rest_counted(serve: Serve) -> None:
    diary = Diary()
    async with serve(kept_bytes=10_000) as line:
        line.processes.bot = diary
        client = await line.call()
        first = await line.process(0)
        line.processes.may_grant.clear()
        first.die()
        await until(lambda: line.gateway.status()["sessions"][0]["state"] == "resuming")
        for number in range(100):
            await client.send(f"{number:03}" + "." * 988)
        await until(lambda: line.gateway.status()["sessions"][0]["received"] == 100)
        assert line.gateway.status()["sessions"][0]["dropped"] == 90
        line.processes.may_grant.set()
        await until(lambda: len(diary.told[-1]) == 10)
        assert [text[:3] for text in diary.told[1]] == [f"{n:03}" for n in range(90, 100)]
        await client.close()


async def test_a_process_that_is_stuck_is_killed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon_actors.gateway.session.FENCE_DEADLINE_SECS", 0.05)
    diary = Diary()
    async with serve() as line:
        line.processes.bot = diary
        client = await line.call()
        first = await line.process(0)
        first.stuck = True
        first.cut_off()
        await client.send("hello")
        assert await heard(client) == "1 resumed=True hello"
        await until(lambda: line.processes.killed == ["process0"])
        await client.close()


async def test_a_process_can_hand_a_session_over(serve: Serve) -> None:
    diary = Diary()
    diary.commits = True
    async with serve(patience=patience(restarts=1)) as line:
        line.processes.bot = diary
        client = await line.call()
        for number in range(3):
            process = await line.process(number)
            process.sockets[0].end_prologue()
            await client.send(f"hello {number}")
            assert await heard(client) == f"{number} resumed={number > 0} hello {number}"
            await until(lambda: line.gateway.status()["sessions"][0]["kept_bytes"] == 0)
            (run_id,) = process.running
            await process.hand_over(run_id)
            await client.send("meanwhile")
            assert await heard(client) == f"{number + 1} resumed=True meanwhile"
            assert process.abandoned == process.cancelled == []
        assert line.gateway.status()["counts"] == {}
        await client.close()


async def test_a_session_without_a_checkpoint_is_lost_at_once(serve: Serve) -> None:
    async def lose(arguments: WebSocketRunnerArguments) -> None:
        if arguments.websocket.resumed:
            line.processes.all[-1].lost = "there is no checkpoint of it"
            raise RuntimeError("not resumed")
        await asyncio.Event().wait()

    async with serve() as line:
        line.processes.bot = lose
        client = await line.call()
        first = await line.process(0)
        first.die()
        assert await hung_up(client) == (1012, "the session was lost")
        await until(lambda: line.gateway.status()["losses"])
        assert line.gateway.status()["losses"][0]["reason"] == "there is no checkpoint of it"
        assert len(line.processes.all) == 2


async def test_another_attempt_is_made_when_there_is_no_room(serve: Serve) -> None:
    async with serve(patience=patience(retry_secs=0.01)) as line:
        line.processes.bot = Diary()
        client = await line.call()
        first = await line.process(0)
        line.processes.refusal = NoActorError("full", True)
        first.die()
        await until(lambda: len(line.processes.avoided) == 3)
        line.processes.refusal = None
        await client.send("hello")
        assert await heard(client) == "1 resumed=True hello"
        await client.close()


async def test_a_session_that_cannot_go_on_is_lost_and_never_silently(serve: Serve) -> None:
    logged: list[str] = []
    sink = logger.add(lambda message: logged.append(message.record["message"]), level="ERROR")
    async with serve(patience=patience(retry_secs=0.01, resume_attempts=2)) as line:
        client = await line.call()
        first = await line.process(0)
        line.processes.refusal = NoActorError("the node is full", True)
        first.die()
        assert await hung_up(client) == (1012, "the session was lost")
        await until(lambda: not line.gateway.status()["sessions"])
        (loss,) = line.gateway.status()["losses"]
        assert loss["reason"] == "the node is full"
        assert line.gateway.status()["counts"] == {"lost": 1, "resumed": 0}
    logger.remove(sink)
    assert logged == ["session lost"]


async def test_a_bot_that_kills_each_process_is_given_up(serve: Serve) -> None:
    async with serve(patience=patience(restarts=2)) as line:
        line.processes.bot = Diary()
        client = await line.call()
        for number in range(3):
            process = await line.process(number)
            await client.send("x")
            await heard(client)
            process.die()
        code, _ = await hung_up(client)
        assert code == 1012
        assert len(line.processes.all) == 3


async def test_a_caller_who_leaves_meanwhile_leaves_nothing(serve: Serve) -> None:
    async with serve() as line:
        client = await line.call()
        first = await line.process(0)
        line.processes.may_grant.clear()
        first.die()
        await until(lambda: line.gateway.status()["sessions"][0]["state"] == "resuming")
        await client.close()
        await until(lambda: not line.gateway.status()["sessions"])
        line.processes.may_grant.set()
        await until(lambda: line.processes.held == [])


async def test_a_gateway_that_vanishes_ends_its_sessions_everywhere(serve: Serve) -> None:
    diary = Diary()
    async with serve() as line:
        line.processes.bot = diary
        client = await line.call()
        first = await line.process(0)
        line.gateway._around.endpoint.abort()
        await until(lambda: not first.running)
        assert diary.ended == ["0 cancelled"]
        client.transport.abort()
