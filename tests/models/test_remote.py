"""Models in other processes: what a user sees is what it sees of a model in its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tests.models.conftest import Connect, Farm, RemoteModels
from tests.models.stand_ins import WAIT_SECS, Counting, Shouting, until

from antiphon.errors import DeadlineExceededError, OverloadedError, ServiceError
from antiphon.models.batching import Limits
from antiphon.models.client import ModelClient
from antiphon.models.model import ModelSpec
from antiphon_actors.models.wire import Member

SHOUTING = ModelSpec(Shouting, {"mark": "!"})
COUNTING = ModelSpec(Counting)


async def ask(client: Any, payload: Any, deadline_secs: float = WAIT_SECS) -> Any:
    return await client.request(payload, deadline_secs=deadline_secs)


def asking(client: Any, *payloads: Any) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(ask(client, payload)) for payload in payloads]


# --- as in the process itself ---------------------------------------------------------------------


async def test_a_model_answers(farm: Farm, connect: Connect) -> None:
    await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    assert await ask(client, "good evening") == "GOOD EVENING!"
    assert await ask(client, b"\x00\xff") == b"\x00\xff"
    assert await ask(client, None) is None
    assert await ask(client, {"a": [1, (2, 3.5)]}) == {"a": [1, (2, 3.5)]}


@pytest.mark.parametrize("samples", [160, 200_000])
async def test_arrays_travel_whatever_their_size(
    farm: Farm, connect: Connect, samples: int
) -> None:
    await farm.add(SHOUTING)
    audio = np.arange(samples, dtype=np.int16)
    answer = await ask(await connect(SHOUTING), audio)
    assert answer.dtype == np.int16
    assert np.array_equal(answer, audio)


async def test_users_of_a_process_share_a_connection(farm: Farm, connect: Connect) -> None:
    name = await farm.add(SHOUTING)
    one, two = await asyncio.gather(connect(SHOUTING), connect(SHOUTING))
    assert list(await asyncio.gather(ask(one, "a"), ask(two, "b"))) == ["A!", "B!"]
    assert farm.hosts[name].statistics()["users"] == 1
    assert len(farm.searches) == 1
    await one.aclose()
    assert await ask(two, "c") == "C!"


async def test_what_comes_together_is_one_batch_and_one_record(
    farm: Farm, connect: Connect
) -> None:
    name = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    model = farm.model(name)
    model.gate.clear()
    asked = asking(client, "first", "a", "b", "c")
    await until(lambda: farm.hosts[name].runner.unanswered == 4)
    model.gate.set()
    assert await asyncio.gather(*asked) == ["FIRST!", "A!", "B!", "C!"]
    assert model.batches == [["first", "a", "b", "c"]]


async def test_sessions_keep_their_state(farm: Farm, connect: Connect) -> None:
    await farm.add(COUNTING)
    client = await connect(COUNTING)
    one, two = client.open_session(), client.open_session(100)
    assert await asyncio.gather(*asking(one, 1, 2, 3), *asking(two, 1, 2)) == [1, 3, 6, 101, 103]
    one.close()
    with pytest.raises(ServiceError, match="closed"):
        await ask(one, 1)


async def test_failures_travel(farm: Farm, connect: Connect) -> None:
    await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    with pytest.raises(ServiceError, match="Shouting failed: LookupError: cannot shout that"):
        await ask(client, "fail")
    with pytest.raises(ServiceError, match="cannot shout at all"):
        await ask(client, "fail all")
    with pytest.raises(ServiceError, match=r"Shouting: a .*cannot travel"):
        await ask(client, object())
    assert await ask(client, "on") == "ON!"


async def test_a_result_that_cannot_travel_is_a_failure(farm: Farm, connect: Connect) -> None:
    name = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    farm.model(name)._answer = lambda item: object()
    with pytest.raises(ServiceError, match="cannot travel"):
        await ask(client, "a")


async def test_deadlines(farm: Farm, connect: Connect) -> None:
    name = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    model = farm.model(name)
    model.gate.clear()
    running = asking(client, "running")
    await until(lambda: model.batches)
    with pytest.raises(DeadlineExceededError):
        await ask(client, "never begun", 0.02)
    await until(lambda: farm.hosts[name].runner.unanswered == 1)
    model.gate.set()
    assert await running[0] == "RUNNING!"
    assert model.batches == [["running"]]


async def test_cancelled_requests_leave_the_actors_queue(farm: Farm, connect: Connect) -> None:
    name = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    model, host = farm.model(name), farm.hosts[name]
    model.gate.clear()
    (running,) = asking(client, "running")
    await until(lambda: model.batches)
    waiting, stays = asking(client, "waiting", "stays")
    await until(lambda: host.runner.unanswered == 3)
    waiting.cancel()
    await until(lambda: host.runner.unanswered == 2)
    running.cancel()
    await until(lambda: host.runner.counts.cancelled == 2)
    model.gate.set()
    assert await stays == "STAYS!"
    assert model.batches == [["running"], ["stays"]]


async def test_the_time_on_the_way_is_counted_apart(farm: Farm, connect: Connect) -> None:
    name = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    await asyncio.gather(*asking(client, "a", "b"))
    counted = farm.hosts[name].statistics()
    assert counted["transport"]["count"] == counted["queue"]["count"] == 2
    assert 0 < counted["transport"]["max_ms"] < 1000
    assert client.statistics()["round_trip"]["count"] == 2


# --- several actors -------------------------------------------------------------------------------


async def test_requests_go_to_the_least_busy_actor(farm: Farm, connect: Connect) -> None:
    one, two = await farm.add(SHOUTING), await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    farm.model(one).gate.clear()
    farm.model(two).gate.clear()
    asked = asking(client, *(str(number) for number in range(8)))
    await until(lambda: farm.hosts[one].runner.unanswered == 4)
    await until(lambda: farm.hosts[two].runner.unanswered == 4)
    farm.model(two).gate.set()
    farm.model(one).gate.set()
    await asyncio.gather(*asked)


async def test_sessions_spread_and_stay(farm: Farm, connect: Connect) -> None:
    one, two = await farm.add(COUNTING), await farm.add(COUNTING)
    client = await connect(COUNTING)
    sessions = [client.open_session(number) for number in range(4)]
    for _ in range(3):
        for session in sessions:
            await ask(session, 1)
    seen = [{options for options, _ in farm.model(name).seen} for name in (one, two)]
    assert [len(each) for each in seen] == [2, 2]
    assert not seen[0] & seen[1]


async def test_an_actor_that_refuses_is_spared_and_the_other_asked(
    farm: Farm, connect: Connect
) -> None:
    one = await farm.add(SHOUTING)
    await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    farm.hosts[one].runner._batcher.limits = Limits(max_batch=4, max_queued=0)
    assert await asyncio.gather(*asking(client, *"abcd")) == ["A!", "B!", "C!", "D!"]
    assert not farm.model(one).batches
    assert farm.hosts[one].runner.counts.refused >= 1


async def test_too_much_to_do_is_refused_by_the_actor_and_then_at_home(
    farm: Farm, connect: Connect
) -> None:
    name = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    await ask(client, 0.2)  # so that it is known to be slow
    model, host = farm.model(name), farm.hosts[name]
    model.gate.clear()
    asked = asking(client, "first")
    await until(lambda: len(model.batches) == 2)
    asked += asking(client, *(str(number) for number in range(17)))
    await until(lambda: host.runner.counts.refused)
    with pytest.raises(OverloadedError) as caught:
        await ask(client, "more")
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0
    assert host.runner.counts.refused == 1  # the second one was not even asked
    model.gate.set()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_new_actors_are_used_when_the_others_tell_of_them(
    farm: Farm, connect: Connect
) -> None:
    one = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    two = await farm.add(SHOUTING)
    farm.tell_members()
    await until(lambda: client.statistics()["actors"] == 2)
    farm.model(one).gate.clear()
    asked = asking(client, "a", "b")
    await until(lambda: farm.model(two).batches)
    farm.model(one).gate.set()
    await asyncio.gather(*asked)
    assert len(farm.searches) == 1


# --- actors that leave ----------------------------------------------------------------------------


async def test_sessions_move_off_an_actor_that_leaves_with_their_state(
    farm: Farm, connect: Connect
) -> None:
    one = await farm.add(COUNTING)
    client = await connect(COUNTING)
    session = client.open_session(10)
    assert await ask(session, 1) == 11
    two = await farm.add(COUNTING)
    farm.tell_members(leaving=[one])
    await until(lambda: not farm.hosts[one].report().sessions)
    assert await ask(session, 2) == 13
    assert farm.model(two).seen == [(10, 2)]
    assert client.statistics()["moved"] == 1


async def test_what_an_actor_has_is_answered_before_its_session_moves(
    farm: Farm, connect: Connect
) -> None:
    one = await farm.add(COUNTING)
    client = await connect(COUNTING)
    session = client.open_session()
    slow = farm.model(one)
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()
    run_batch = slow.run_batch

    def wait(items: Any) -> Any:
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(WAIT_SECS)
        return run_batch(items)

    slow.run_batch = wait
    asked = asking(session, 1, 2)
    await until(lambda: farm.hosts[one].runner.unanswered == 2)
    two = await farm.add(COUNTING)
    farm.tell_members(leaving=[one])
    await until(lambda: farm.hosts[two]._users)
    asked += asking(session, 3)
    go_on.set()
    assert await asyncio.gather(*asked) == [1, 3, 6]
    assert slow.seen == [(None, 1), (None, 2)]
    assert farm.model(two).seen == [(None, 3)]


async def test_an_actor_that_has_left_may_end_without_a_word(
    farm: Farm, connect: Connect, models: RemoteModels
) -> None:
    one = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    await ask(client, "a")
    two = await farm.add(SHOUTING)
    farm.tell_members(leaving=[one])
    await until(lambda: farm.hosts[two]._users)
    farm.kill(one)
    assert await ask(client, "b") == "B!"
    assert client.statistics()["actors_lost"] == 0
    assert not models.backends[0]._lost


# --- actors that die ------------------------------------------------------------------------------


async def test_what_a_dead_actor_has_not_answered_is_repeated_elsewhere(
    farm: Farm, connect: Connect
) -> None:
    one = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    farm.model(one).gate.clear()
    asked = asking(client, *"abcdef")
    await until(lambda: farm.hosts[one].runner.unanswered == 6)
    model = farm.model(one)
    two = await farm.add(SHOUTING)
    farm.kill(one)
    assert await asyncio.gather(*asked) == [f"{each.upper()}!" for each in "abcdef"]
    assert farm.searches == [[], [one]]
    assert [each for batch in farm.model(two).batches for each in batch] == list("abcdef")
    counted = client.statistics()
    assert (counted["actors_lost"], counted["repeated"]) == (1, 6)
    model.gate.set()


async def test_sessions_go_on_from_their_last_answer(farm: Farm, connect: Connect) -> None:
    one = await farm.add(COUNTING)
    client = await connect(COUNTING)
    sessions = [client.open_session(1000 * number) for number in range(8)]
    for number in range(1, 5):
        await asyncio.gather(*(ask(session, number) for session in sessions))
    asked = [future for session in sessions for future in asking(session, 5, 6)]
    await asyncio.sleep(0)  # they are on their way, done or not
    await farm.add(COUNTING)
    farm.kill(one)
    answers = await asyncio.gather(*asked)
    assert answers == [1000 * number + total for number in range(8) for total in (15, 21)]
    assert [await ask(session, 7) for session in sessions] == [
        1000 * number + 28 for number in range(8)
    ]


async def test_requests_wait_for_an_actor_that_is_being_started(
    farm: Farm, connect: Connect
) -> None:
    one = await farm.add(COUNTING)
    client = await connect(COUNTING)
    session = client.open_session()
    assert await ask(session, 1) == 1
    farm.may_answer.clear()
    farm.kill(one)
    asked = asking(session, 2, 3)
    await until(lambda: len(farm.searches) == 2)
    assert client.statistics()["queued"] == 2
    asked[0].cancel()
    await asyncio.sleep(0)
    await farm.add(COUNTING)
    farm.may_answer.set()
    assert await asked[1] == 4
    assert await ask(session, 4) == 8


async def test_without_actors_requests_fail_with_the_reason_and_are_tried_later(
    farm: Farm, connect: Connect, models: RemoteModels
) -> None:
    one = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    farm.refusal = ServiceError("no GPU is free", retryable=True)
    farm.kill(one)
    with pytest.raises(ServiceError, match="no GPU is free"):
        await ask(client, "a")
    searches = len(farm.searches)
    with pytest.raises(ServiceError, match="no GPU is free"):
        await ask(client, "b")
    assert len(farm.searches) == searches  # not so soon again
    models.backends[0]._pause_until = 0.0
    farm.refusal = None
    await farm.add(SHOUTING)
    assert await ask(client, "c") == "C!"


async def test_a_process_without_actors_lets_only_so_many_wait(
    farm: Farm, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon_actors.models.remote.MAX_WAITING", 2)
    one = await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    farm.may_answer.clear()
    farm.kill(one)
    waiting = asking(client, "a", "b")
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="2 requests wait for Shouting"):
        await ask(client, "c")
    await farm.add(SHOUTING)
    farm.may_answer.set()
    assert await asyncio.gather(*waiting) == ["A!", "B!"]


async def test_a_model_that_cannot_be_had_is_an_error_of_connecting(
    farm: Farm, models: RemoteModels
) -> None:
    with pytest.raises(ServiceError, match="there is no actor for Shouting"):
        await models.connect(SHOUTING)
    await farm.add(SHOUTING)
    farm.hosts["actor0"].abort()
    with pytest.raises(ServiceError, match="no actor of Shouting can be reached: actor0"):
        await models.connect(SHOUTING)
    farm.hosts.clear()


async def test_an_actor_that_has_ended_since_it_was_named_is_asked_for_again(
    farm: Farm, models: RemoteModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = await farm.add(SHOUTING)
    members = farm.members

    async def named_too_early(spec: ModelSpec, avoid: Sequence[str]) -> Sequence[Member]:
        named = await members(spec, avoid)
        if not avoid:
            farm.kill(gone)
            await farm.add(SHOUTING)
        return named

    monkeypatch.setattr(farm, "members", named_too_early)
    client = await models.connect(SHOUTING)
    assert await ask(client, "hello") == "HELLO!"
    assert farm.searches == [[], [gone]]
    await client.aclose()


async def test_a_request_that_kills_its_actors_is_given_up(farm: Farm, connect: Connect) -> None:
    await farm.add(SHOUTING)
    client = await connect(SHOUTING)
    farm.model("actor0").gate.clear()
    asked = asyncio.ensure_future(ask(client, "deadly"))
    models = []
    for number in range(3):
        name = f"actor{number}"
        await until(lambda name=name: farm.hosts[name].runner.unanswered == 1)  # type: ignore[misc]
        await farm.add(SHOUTING)
        farm.model(f"actor{number + 1}").gate.clear()
        models += [farm.model(name)]
        farm.kill(name)
    with pytest.raises(ServiceError, match="3 actors were lost that had the request"):
        await asked
    for model in [*models, farm.model("actor3")]:
        model.gate.set()


async def test_a_user_that_goes_frees_what_it_has(farm: Farm, models: RemoteModels) -> None:
    name = await farm.add(COUNTING)
    client: ModelClient = await models.connect(COUNTING)
    session = client.open_session()
    await ask(session, 1)
    assert farm.hosts[name].runner.counts.sessions == 1
    await client.aclose()
    await until(lambda: not farm.hosts[name].report().sessions)


async def test_a_users_death_frees_what_it_has(farm: Farm, models: RemoteModels) -> None:
    name = await farm.add(SHOUTING)
    client = await models.connect(SHOUTING)
    model, host = farm.model(name), farm.hosts[name]
    model.gate.clear()
    asked = asking(client, "a")
    await until(lambda: model.batches)
    asked += asking(client, *"bc")
    await until(lambda: host.runner.unanswered == 3)
    models._endpoint.abort()
    await until(lambda: host.runner.unanswered == 1)
    model.gate.set()
    await until(lambda: not host._users and not host.runner.unanswered)
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await client.aclose()
