"""Models in this process: shared by their users, freed behind the last, never in the way of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.models.stand_ins import WAIT_SECS, Counting, Shouting, until

from antiphon.errors import ConfigError, DeadlineExceededError, OverloadedError, ServiceError
from antiphon.models.client import ModelClient
from antiphon.models.local import LocalModels
from antiphon.models.model import Item, Model, ModelSpec
from antiphon.models.provider import connect_model, model_provider, runs_in_process, use_models

SPEC = ModelSpec(Shouting, {"mark": "!"})


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shouting, "loads", 0)


@pytest.fixture
async def client() -> AsyncIterator[ModelClient]:
    async with await connect_model(SPEC) as connected:
        yield connected


def model_of(client: ModelClient) -> Any:
    """The model behind a client of this process."""
    return client.backend.model  # type: ignore[attr-defined]


async def ask(client: ModelClient, payload: Any, deadline_secs: float = WAIT_SECS) -> Any:
    return await client.request(payload, deadline_secs=deadline_secs)


# --- one model for all ----------------------------------------------------------------------------


async def test_a_model_answers(client: ModelClient) -> None:
    assert runs_in_process(SPEC)
    assert await ask(client, "good evening") == "GOOD EVENING!"


async def test_users_with_the_same_settings_share_one() -> None:
    one, two, other = await asyncio.gather(
        connect_model(SPEC),
        connect_model(ModelSpec(Shouting, {"mark": "!"})),
        connect_model(ModelSpec(Shouting, {"mark": "?"})),
    )
    assert Shouting.loads == 2
    assert model_of(one) is model_of(two) is not model_of(other)
    assert await ask(other, "well") == "WELL?"
    await one.aclose()
    assert await ask(two, "still") == "STILL!"
    model = model_of(two)
    assert not model.closed
    await two.aclose()
    await two.aclose()
    await other.aclose()
    await until(lambda: model.closed)


async def test_it_is_loaded_again_for_those_who_come_later() -> None:
    for number in (1, 2):
        async with await connect_model(SPEC) as client:
            await ask(client, "hello")
        assert Shouting.loads == number


async def test_everything_runs_in_one_thread_that_is_not_the_loops(client: ModelClient) -> None:
    import threading

    await asyncio.gather(*(ask(client, str(number)) for number in range(9)))
    (thread,) = model_of(client).threads
    assert thread != threading.get_ident()


async def test_requests_that_come_together_are_batched_by_group(client: ModelClient) -> None:
    model = model_of(client)
    model.gate.clear()
    asked = [asyncio.ensure_future(ask(client, "first"))]
    await until(lambda: model.batches)
    asked += [asyncio.ensure_future(ask(client, each)) for each in ("a", b"b", "c", "d", "e", "f")]
    await asyncio.sleep(0)
    model.gate.set()
    assert await asyncio.gather(*asked) == ["FIRST!", "A!", b"b", "C!", "D!", "E!", "F!"]
    assert model.batches == [["first"], ["a", "c", "d", "e"], [b"b"], ["f"]]


async def test_the_loop_goes_on_while_the_model_works(client: ModelClient) -> None:
    model = model_of(client)
    model.gate.clear()
    asked = asyncio.ensure_future(ask(client, "slow"))
    await until(lambda: model.batches)
    await asyncio.sleep(0)
    assert not asked.done()
    model.gate.set()
    assert await asked == "SLOW!"


async def test_sessions_keep_their_state_and_their_order() -> None:
    async with await connect_model(ModelSpec(Counting)) as client:
        one, two = client.open_session(), client.open_session(100)
        numbers = [one.request(number, deadline_secs=WAIT_SECS) for number in range(1, 6)]
        assert await asyncio.gather(*numbers) == [1, 3, 6, 10, 15]
        assert await two.request(1, deadline_secs=WAIT_SECS) == 101
        assert client.statistics()["sessions"] == 2
        one.close()
        one.close()
        with pytest.raises(ServiceError, match="closed"):
            await one.request(1, deadline_secs=WAIT_SECS)
        assert client.statistics()["sessions"] == 1


# --- what goes wrong ------------------------------------------------------------------------------


async def test_a_failure_is_that_of_its_request_alone(client: ModelClient) -> None:
    model = model_of(client)
    model.gate.clear()
    first = asyncio.ensure_future(ask(client, "first"))
    await until(lambda: model.batches)
    asked = [asyncio.ensure_future(ask(client, each)) for each in ("a", "fail", "b")]
    await asyncio.sleep(0)
    model.gate.set()
    good, bad, also_good = await asyncio.gather(*asked, return_exceptions=True)
    assert (good, also_good) == ("A!", "B!")
    assert isinstance(bad, ServiceError)
    assert str(bad) == "Shouting failed: LookupError: cannot shout that"
    assert await first == "FIRST!"


async def test_a_model_that_raises_fails_its_batch_and_goes_on(client: ModelClient) -> None:
    with pytest.raises(ServiceError, match="cannot shout at all"):
        await ask(client, "fail all")
    assert await ask(client, "again") == "AGAIN!"
    assert client.statistics()["failed"] == 1


class Short(Model):
    """Loses a result."""

    def load(self) -> None:
        """Nothing to load."""

    def run_batch(self, items: Any) -> Any:
        return []


async def test_a_model_must_answer_everybody() -> None:
    async with await connect_model(ModelSpec(Short)) as client:
        with pytest.raises(ServiceError, match="0 results for a batch of 1"):
            await ask(client, "x")


@pytest.mark.parametrize(
    ("trouble", "error", "text"),
    [
        ("files", ConfigError, r"the file model\.bin is missing: fetch it"),
        ("broken", ServiceError, "Shouting cannot be loaded: LookupError: broken"),
    ],
)
async def test_a_model_that_cannot_be_loaded_says_why_to_all_and_is_tried_again(
    trouble: str, error: type[Exception], text: str
) -> None:
    spec = ModelSpec(Shouting, {"trouble": trouble})
    found = await asyncio.gather(connect_model(spec), connect_model(spec), return_exceptions=True)
    assert [type(each) for each in found] == [error, error]
    with pytest.raises(error, match=text):
        await connect_model(spec)
    assert Shouting.loads == 2


async def test_no_answer_in_time(client: ModelClient) -> None:
    model = model_of(client)
    model.gate.clear()
    with pytest.raises(DeadlineExceededError, match=r"Shouting: no answer within 0\.01 s"):
        await ask(client, "late", 0.01)
    waiting = asyncio.ensure_future(ask(client, "never begun", 0.02))
    with pytest.raises(DeadlineExceededError):
        await waiting
    model.gate.set()
    assert await ask(client, "on") == "ON!"
    assert model.batches == [["late"], ["on"]]


async def test_too_much_to_do(client: ModelClient) -> None:
    model = model_of(client)
    await ask(client, "known")
    model.gate.clear()
    asked = [asyncio.ensure_future(ask(client, "first"))]
    await until(lambda: len(model.batches) == 2)
    asked += [asyncio.ensure_future(ask(client, str(number))) for number in range(16)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="16 requests wait") as caught:
        await ask(client, "one more")
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0
    assert caught.value.retryable
    model.gate.set()
    await asyncio.gather(*asked)
    assert client.statistics()["refused"] == 1


async def test_cancelled_requests_leave_the_queue_and_those_under_way_are_marked(
    client: ModelClient,
) -> None:
    model = model_of(client)
    items: list[Item] = []
    run_batch = model.run_batch

    def keep(batch: Any) -> Any:
        items.extend(batch)
        return run_batch(batch)

    model.run_batch = keep
    model.gate.clear()
    running = asyncio.ensure_future(ask(client, "running"))
    await until(lambda: model.batches)
    waiting = asyncio.ensure_future(ask(client, "waiting"))
    stays = asyncio.ensure_future(ask(client, "stays"))
    await asyncio.sleep(0)
    for each in (running, waiting):
        each.cancel()
    assert [
        type(each) for each in await asyncio.gather(running, waiting, return_exceptions=True)
    ] == [asyncio.CancelledError] * 2
    assert items[0].cancelled
    model.gate.set()
    assert await stays == "STAYS!"
    assert model.batches == [["running"], ["stays"]]
    assert client.statistics()["cancelled"] == 2


async def test_closing_fails_what_is_asked_and_leaves_others_alone() -> None:
    one, two = await connect_model(SPEC), await connect_model(SPEC)
    model = model_of(one)
    model.gate.clear()
    asked = [asyncio.ensure_future(ask(one, each)) for each in ("a", "b")]
    other = asyncio.ensure_future(ask(two, "c"))
    await until(lambda: model.batches)
    await one.aclose()
    for each in asked:
        with pytest.raises(ServiceError, match="closed"):
            await each
    with pytest.raises(ServiceError, match="closed"):
        await ask(one, "more")
    model.gate.set()
    assert await other == "C!"
    await two.aclose()


async def test_who_gives_up_waiting_for_a_model_does_not_take_it_from_others() -> None:
    one = asyncio.ensure_future(connect_model(SPEC))
    two = asyncio.ensure_future(connect_model(SPEC))
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    client = await two
    assert await ask(client, "here") == "HERE!"
    await client.aclose()
    alone = asyncio.ensure_future(connect_model(SPEC))
    await asyncio.sleep(0)
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    assert not model_provider()._shared  # type: ignore[attr-defined]


# --- specs, the provider, counters ----------------------------------------------------------------


def test_specs_are_equal_by_their_content() -> None:
    one = ModelSpec(Shouting, {"mark": "!", "trouble": ""})
    two = ModelSpec(Shouting, {"trouble": "", "mark": "!"})
    assert one == two
    assert one.key == two.key
    assert len({one, two, ModelSpec(Counting)}) == 2
    assert one.name == "Shouting"


def test_options_are_plain_data() -> None:
    with pytest.raises(ConfigError, match="the options of a Shouting must be plain data"):
        ModelSpec(Shouting, {"mark": object()})


async def test_a_process_can_get_its_models_from_elsewhere() -> None:
    other = LocalModels()
    with use_models(other):
        assert model_provider() is other
        async with await connect_model(SPEC) as client:
            assert client._owner is other  # type: ignore[attr-defined]
    assert model_provider() is not other


def test_who_ends_first_leaves_the_others_theirs() -> None:
    usual, first, second = model_provider(), LocalModels(), LocalModels()
    one, two = use_models(first), use_models(second)
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert model_provider() is second
    two.__exit__(None, None, None)
    assert model_provider() is usual


async def test_counters(client: ModelClient) -> None:
    await asyncio.gather(*(ask(client, str(number)) for number in range(3)))
    counted = client.statistics()
    assert counted["answered"] == 3
    assert counted["queue"]["count"] == 3
    assert counted["compute"]["count"] == counted["batches"] <= 3
    assert counted["batch_size_mean"] == pytest.approx(3 / counted["batches"])
    assert counted["model"] == {"shouted": 3}
    assert counted["queued"] == 0
    assert counted["transport"]["count"] == 0


@pytest.mark.virtual_time
async def test_virtual_time_stands_still_while_a_model_works(client: ModelClient) -> None:
    started = asyncio.get_running_loop().time()
    await ask(client, 0.02, deadline_secs=1.0)
    assert asyncio.get_running_loop().time() - started < 1.0
