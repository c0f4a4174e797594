"""Events and their handlers."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.utils.base_object import BaseObject

pytestmark = pytest.mark.virtual_time


class Bell(BaseObject):
    def __init__(self) -> None:
        super().__init__()
        self._register_event_handler("on_ring")

    async def ring(self, *args: object) -> None:
        await self._call_event_handler("on_ring", *args)


async def test_handlers_run_one_after_the_other_in_the_order_they_were_added() -> None:
    bell, heard = Bell(), list[str]()

    @bell.event_handler("on_ring")
    async def first(emitter: Bell, word: str) -> None:
        assert emitter is bell
        await asyncio.sleep(1.0)
        heard.append(f"first {word}")

    @bell.event_handler("on_ring")
    def second(emitter: Bell, word: str) -> None:
        heard.append(f"second {word}")

    async def third(emitter: Bell, word: str) -> None:
        heard.append(f"third {word}")

    bell.add_event_handler("on_ring", third)
    await bell.ring("a")
    assert heard == []  # the emitter does not wait
    await bell.cleanup()
    assert heard == ["first a", "second a", "third a"]
    second(bell, "b")  # the decorator returns the function itself
    assert heard[-1] == "second b"


async def test_each_emission_has_its_own_background_task() -> None:
    bell, heard = Bell(), list[float]()

    @bell.event_handler("on_ring")
    async def slow(_: Bell, secs: float) -> None:
        await asyncio.sleep(secs)
        heard.append(secs)

    await bell.ring(2.0)
    await bell.ring(1.0)
    await bell.cleanup()
    assert heard == [1.0, 2.0]


async def test_an_exception_ends_the_rest_of_that_emission_only() -> None:
    bell, heard = Bell(), list[str]()
    bell.add_event_handler("on_ring", lambda _, word: heard.append(word))

    @bell.event_handler("on_ring")
    def fails(_: Bell, word: str) -> None:
        if word == "bad":
            raise ValueError(word)

    bell.add_event_handler("on_ring", lambda _, word: heard.append(word))
    await bell.ring("bad")
    await bell.ring("good")
    await bell.cleanup()
    assert sorted(heard) == ["bad", "good", "good"]


async def test_an_unknown_event_is_no_error() -> None:
    bell = Bell()

    @bell.event_handler("on_knock")
    def never(_: Bell) -> None:
        raise AssertionError

    await bell._call_event_handler("on_knock")
    await bell.cleanup()


async def test_a_handler_may_clean_up_the_object_it_handles() -> None:
    bell, done = Bell(), list[bool]()

    @bell.event_handler("on_ring")
    async def handler(emitter: Bell) -> None:
        await emitter.cleanup()
        done.append(True)

    await bell.ring()
    await bell.cleanup()
    assert done == [True]
