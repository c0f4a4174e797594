"""What users and actors of models write to each other, and what they make of anything else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.conftest import Connect, Farm, RemoteModels
from tests.models.stand_ins import WAIT_SECS, Counting, Shouting, until

from antiphon.errors import DeadlineExceededError, OverloadedError, ServiceError
from antiphon.frames.codec import CodecError
from antiphon.models.model import ModelSpec
from antiphon_actors.channels import ChannelRefused, Link
from antiphon_actors.models import wire
from antiphon_actors.models.wire import Kind, Load, Malformed, Member, Members
from antiphon_actors.session.endpoint import Endpoint

SHOUTING = ModelSpec(Shouting, {"mark": "!"})


@pytest.mark.parametrize(
    "value", [None, True, 1.5, "text", b"bytes", 7, 2**70, [1, (2, "x")], {"a": {1, 2}}]
)
def test_values_come_back_as_they_were(value: Any) -> None:
    found = wire.read_value(*wire.write_value(value))
    assert found == value
    assert type(found) is type(value)


def test_arrays_come_back() -> None:
    found = wire.read_value(*wire.write_value(np.arange(4, dtype=np.float32)))
    assert found.dtype == np.float32
    assert found.tolist() == [0, 1, 2, 3]


def test_what_cannot_travel_is_refused() -> None:
    with pytest.raises(CodecError):
        wire.write_value(object())


@pytest.mark.parametrize(
    ("error", "found", "text"),
    [
        (OverloadedError("full", retry_after=0.5), OverloadedError, "full"),
        (DeadlineExceededError("late"), DeadlineExceededError, "late"),
        (ServiceError("broken", retryable=True), ServiceError, "broken"),
        (LookupError("odd"), ServiceError, "odd"),
    ],
)
def test_errors_travel_as_what_they_are(
    error: Exception, found: type[ServiceError], text: str
) -> None:
    record = wire.read_record(
        wire.write_answers(Load(0.0, 0.0, 0), [wire.write_answer(3, error, None)])
    )
    number, status, *rest = wire.check_answer(wire.fields(record, float, float, int, list)[3][0])
    assert number == 3
    there = wire.read_error("Model", status, rest)
    assert type(there) is found
    assert str(there) == text
    if isinstance(error, ServiceError):
        assert isinstance(there, ServiceError)
        assert (there.retryable, there.retry_after) == (error.retryable, error.retry_after)


def test_members_travel() -> None:
    members = (Member("a1", "unix:///x"), Member("b2", "unix:///y"))
    said = Members(7, True, 40, members)
    assert wire.read_members(wire.read_record(wire.write_members(said))) == said


@given(st.binary(max_size=64))
def test_whatever_comes_is_a_record_or_malformed(data: bytes) -> None:
    try:
        record = wire.read_record(data)
    except Malformed:
        return
    for read in (wire.request_fields, wire.read_members, wire.check_answer):
        try:
            read(record)
        except Malformed:
            continue


@pytest.mark.parametrize(
    ("how", "what"), [(0, 7), (0, [1]), (1, "text"), (2, b""), ("0", b""), (None, None)]
)
def test_values_written_in_other_ways_are_refused(how: Any, what: Any) -> None:
    with pytest.raises(Malformed):
        wire.read_value(how, what)


# --- strangers ------------------------------------------------------------------------------------


class Stranger:
    """Writes what it likes to a host."""

    def __init__(self, endpoint: Endpoint, link: Link) -> None:
        self.link = link
        self.records: list[list[Any]] = []
        self.ended = asyncio.Event()
        endpoint.serve(wire.ANSWERS, lambda _link, _number: self)

    async def send(self, *records: Any) -> None:
        stream = await self.link.open_stream(wire.stream_key(wire.REQUESTS, 1))
        for record in records:
            payload = record if isinstance(record, bytes) else msgpack.packb(record)
            stream.send_nowait(payload, urgent=True)

    def deliver(self, delivery: Any) -> None:
        self.records.append(msgpack.unpackb(delivery.payload))
        delivery.done()

    def closed(self, reason: Exception | None) -> None:
        self.ended.set()


REQUEST = [Kind.REQUEST, 1, 0, 5.0, 0, "a"]


@pytest.mark.parametrize(
    "records",
    [
        [b"\xc1"],
        [b""],
        [[]],
        ["text"],
        [["one"]],
        [[99]],
        [[Kind.ANSWERS, 0.0, 0.0, 0, []]],
        [[Kind.REQUEST]],
        [[Kind.REQUEST, "1", 0, 5.0, 0, "a"]],
        [[Kind.REQUEST, 1, 0, 5, 0, "a"]],
        [[Kind.REQUEST, 1, 0, 5.0, 1, b"\xc1"]],
        [[Kind.REQUEST, 1, 0, 5.0, 0, {"a": 1}]],
        [[Kind.REQUEST, 1, 3, 5.0, 0, "a"]],
        [[Kind.OPEN, 0, 0, None, 0, None]],
        [[Kind.OPEN, 1, 0, None, 0, None], [Kind.OPEN, 1, 0, None, 0, None]],
        [[Kind.OPEN, 1]],
        [[Kind.CLOSE]],
        [[Kind.CANCEL, None]],
    ],
)
async def test_a_user_that_writes_nonsense_loses_its_stream_and_nobody_else_anything(
    farm: Farm, connect: Connect, tmp_path: Path, records: list[Any]
) -> None:
    name = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    endpoint = Endpoint("stranger")
    await endpoint.start(f"unix://{tmp_path}/stranger/s.sock")
    try:
        stranger = Stranger(endpoint, await endpoint.link(farm.hosts[name].uri))
        await stranger.send(*records)
        async with asyncio.timeout(WAIT_SECS):
            await stranger.ended.wait()
        await until(lambda: len(farm.hosts[name]._users) == 1)
        assert await client.request("still here", deadline_secs=WAIT_SECS) == "STILL HERE!"
    finally:
        await endpoint.aclose()


async def test_a_request_that_comes_twice_ends_its_user(farm: Farm, tmp_path: Path) -> None:
    name = await farm.add(SHOUTING)
    farm.model(name).gate.clear()
    endpoint = Endpoint("stranger")
    await endpoint.start(f"unix://{tmp_path}/stranger/s.sock")
    try:
        stranger = Stranger(endpoint, await endpoint.link(farm.hosts[name].uri))
        await stranger.send(REQUEST, REQUEST)
        async with asyncio.timeout(WAIT_SECS):
            await stranger.ended.wait()
        farm.model(name).gate.set()
        await until(lambda: not farm.hosts[name].runner.unanswered)
    finally:
        await endpoint.aclose()


async def test_records_of_what_is_over_are_no_fault(farm: Farm, tmp_path: Path) -> None:
    name = await farm.add(SHOUTING)
    endpoint = Endpoint("stranger")
    await endpoint.start(f"unix://{tmp_path}/stranger/s.sock")
    try:
        stranger = Stranger(endpoint, await endpoint.link(farm.hosts[name].uri))
        await stranger.send([Kind.CANCEL, 77], [Kind.CLOSE, 5], REQUEST)
        await until(lambda: any(record[0] == Kind.ANSWERS for record in stranger.records))
        (answers,) = [record for record in stranger.records if record[0] == Kind.ANSWERS]
        assert answers[4] == [[1, 0, 0, "A!"]]
    finally:
        await endpoint.aclose()


async def test_answers_that_nobody_expects_are_refused(
    farm: Farm, models: RemoteModels, tmp_path: Path
) -> None:
    await farm.add(SHOUTING)
    client = await models.connect(SHOUTING)
    (expected,) = models._streams._expected
    endpoint = Endpoint("stranger")
    await endpoint.start(f"unix://{tmp_path}/stranger/s.sock")
    try:
        link = await endpoint.link(models._endpoint.uri)
        for number in (expected, 999):
            with pytest.raises(ChannelRefused, match="nobody expects these answers"):
                await link.open_stream(wire.stream_key(wire.ANSWERS, number))
        with pytest.raises(ChannelRefused, match="nothing here takes streams of kind 'odd'"):
            await link.open_stream(wire.stream_key("odd", 1))
    finally:
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize(
    "record",
    [
        b"\xc1",
        [Kind.REQUEST, 1, 0, 5.0, 0, "a"],
        [Kind.ANSWERS, 0.0, 0.0, 0, [[1]]],
        [Kind.ANSWERS, 0.0, 0.0, 0, [[1, 0, 0]]],
        [Kind.ANSWERS, 0.0, 0.0, 0, [[1, 9, "?"]]],
        [Kind.ANSWERS, 0.0, 0.0, 0, [[1, 0, 7, "?"]]],
        [Kind.MEMBERS, 1, False, 40, [["id"]]],
    ],
)
async def test_an_actor_that_writes_nonsense_counts_as_lost(
    farm: Farm, connect: Connect, record: Any
) -> None:
    name = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    model = farm.model(name)
    model.gate.clear()
    asked = asyncio.ensure_future(client.request("a", deadline_secs=WAIT_SECS))
    await until(lambda: model.batches)
    await farm.add(SHOUTING)
    (user,) = farm.hosts[name]._users
    payload = record if isinstance(record, bytes) else msgpack.packb(record)
    assert user.answers is not None
    farm.offered.remove(name)
    user.answers.send_nowait(payload, urgent=True)
    assert await asked == "A!"
    assert client.statistics()["actors_lost"] == 1
    model.gate.set()


async def test_a_state_that_an_actor_cannot_read_fails_its_session_alone(
    farm: Farm, connect: Connect
) -> None:
    spec = ModelSpec(Counting)
    name = await farm.add(spec)
    client = await connect(spec)
    session = client.open_session(5)
    assert await session.request(1, deadline_secs=WAIT_SECS) == 6
    fresh = client.open_session(100)
    second = await farm.add(spec)

    def refuse(exported: Any) -> Any:
        raise ValueError("written by a newer model")

    farm.model(second).import_state = refuse
    farm.kill(name)
    asked = [session.request(2, deadline_secs=WAIT_SECS), fresh.request(1, deadline_secs=WAIT_SECS)]
    bad, good = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(bad, ServiceError)
    assert "written by a newer model" in str(bad)
    assert good == 101
