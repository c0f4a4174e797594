"""Objects that stay at home while references of them travel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.session.conftest import Stay

from antiphon.frames import codec
from antiphon.frames.frames import ErrorFrame
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameProcessor
from antiphon_actors.session import references
from antiphon_actors.session.edge import RemoteProcessor
from antiphon_actors.session.references import (
    RemoteFunction,
    RemoteObject,
    SessionReferences,
    UnknownReference,
)


class Process:
    """One process of a session, as its references see it."""

    def __init__(self, name: str) -> None:
        self.process = name
        self.processors: dict[int, FrameProcessor] = {}
        self.invoked: list[tuple[Any, ...]] = []
        self.references = SessionReferences(self)

    def processor_number(self, processor: FrameProcessor) -> int | None:
        return next((pid for pid, each in self.processors.items() if each is processor), None)

    def processor(self, pid: int, name: str) -> FrameProcessor:
        return self.processors.setdefault(pid, RemoteProcessor(name=name))

    async def invoke(self, *call: Any) -> Any:
        self.invoked.append(call)


def travel(value: Any, source: Process, destination: Process) -> Any:
    return codec.decode_value(codec.encode_value(value, source.references), destination.references)


@pytest.fixture
def home() -> Process:
    return Process("home")


@pytest.fixture
def away() -> Process:
    return Process("away")


def test_an_object_comes_back_as_itself(home: Process, away: Process) -> None:
    live, function, stay = object(), lambda: None, Stay()
    home.processors[7] = stay
    there = travel([live, function, stay], home, away)
    assert [type(each) for each in there] == [RemoteObject, RemoteFunction, RemoteProcessor]
    assert there[2].name == stay.name
    assert "of another process" in repr(there[0])
    back = travel(there, away, home)
    assert back[0] is live
    assert back[1] is function
    assert back[2] is stay


def test_an_object_by_way_of_a_third_process(home: Process, away: Process) -> None:
    third = Process("third")
    live = object()
    assert travel(travel(travel(live, home, away), away, third), third, home) is live


async def test_a_function_is_carried_out_where_it_belongs(home: Process, away: Process) -> None:
    there = travel(print, home, away)
    await there("x", end="")
    [(process, number, args, kwargs)] = away.invoked
    assert (process, args, kwargs) == ("home", ("x",), {"end": ""})
    assert home.references.function(number) is print


def test_the_conversation_is_a_copy_there_and_itself_here(home: Process, away: Process) -> None:
    context = OpenAILLMContext([{"role": "user", "content": "Hello."}])
    there = travel(OpenAILLMContextFrame(context), home, away)
    assert there.context is not context
    assert there.context.messages == context.messages
    there.context.add_message({"role": "user", "content": "lost"})
    assert travel(there, away, home).context is context
    assert len(context.messages) == 1


def test_an_error_names_the_processor_itself(home: Process, away: Process) -> None:
    stub = RemoteProcessor(name="x")
    stay = Stay()
    home.processors[3], away.processors[3] = stay, stub
    assert travel(ErrorFrame("oh", processor=stub), away, home).processor is stay


def test_what_is_no_longer_kept_is_reported(home: Process, away: Process) -> None:
    there = travel(object(), home, away)
    home.references.clear()
    with pytest.raises(codec.CodecError, match="no object number 1"):
        travel(there, away, home)
    with pytest.raises(UnknownReference):
        home.references.kept(1)


def test_something_else_than_a_function_is_not_called(home: Process) -> None:
    home.references.refer(object())
    with pytest.raises(UnknownReference, match="no function"):
        home.references.function(1)


def test_handlers_outlive_what_passes_by(
    home: Process, away: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "KEPT_OBJECTS", 10)

    def handler() -> None:
        """Registered long ago."""

    used, unused = object(), object()
    with home.references.lasting():
        home.references.refer(handler)
    used_there = travel(used, home, away)
    unused_there = travel(unused, home, away)
    for _ in range(50):
        travel(object(), home, away)
        assert travel(used_there, away, home) is used
    assert home.references.function(1) is handler
    with pytest.raises(codec.CodecError):
        travel(unused_there, away, home)
    assert len(home.references._kept) == 10
    assert len(home.references._numbers) == 11


@settings(deadline=None)
@given(ops=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=120))
def test_the_table_is_bounded_and_never_mistakes_an_object(ops: list[tuple[int, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "KEPT_OBJECTS", 8)
        home = Process("home")
        objects: dict[int, Any] = {}
        numbers: dict[int, int] = {}
        lasting: set[int] = set()
        for which, keeps in ops:
            live = objects.setdefault(which, object())
            block: contextlib.AbstractContextManager[None] = (
                home.references.lasting() if keeps else contextlib.nullcontext()
            )
            with block:
                reference = home.references.refer(live)
            assert isinstance(reference, list)
            numbers[which] = reference[2]
            if keeps:
                lasting.add(which)
            assert home.references.resolve(reference) is live
        for which, number in numbers.items():
            try:
                assert home.references.kept(number) is objects[which]
            except UnknownReference:
                assert which not in lasting
        assert len(home.references._kept) <= 8


def hostile() -> Iterator[object]:
    yield from (None, 1, "p", [], ["p"], ["p", "x", "y"], ["p", 1, 2], ["c", "away", 1])
    yield from (["f", 1, 1, "x"], ["o", "away", "1", "x"], ["x", "away", 1, "x"], {"f": 1})


@pytest.mark.parametrize("reference", list(hostile()))
def test_what_is_no_reference_is_refused(reference: object, home: Process) -> None:
    with pytest.raises(ValueError, match="not a reference"):
        home.references.resolve(reference)


@pytest.mark.parametrize("plain", [None, 5, "x", {"messages": 3}, []])
def test_a_conversation_that_is_none_is_an_error_of_the_codec(plain: object, home: Process) -> None:
    forged = codec.encode_value(RemoteObject("x", 1, "y"), _Forger(["c", "away", 1, plain]))
    with contextlib.suppress(codec.CodecError):
        codec.decode_value(forged, home.references)


class _Forger:
    def __init__(self, reference: object) -> None:
        self._reference = reference

    def claims(self, obj: object) -> bool:
        return isinstance(obj, RemoteObject)

    def refer(self, obj: object) -> object:
        return self._reference

    def resolve(self, ref: object) -> object:
        raise NotImplementedError
