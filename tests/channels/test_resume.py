"""Streams that outlive their receivers: what a successor gets, over every transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon_actors.channels import ChannelError, Delivery, Limits, Link, OutStream
from antiphon_actors.channels.in_stream import origin_of
from antiphon_actors.channels.retained import MAX_FRAMES, Retained, Sent
from antiphon_actors.channels.testing import WAIT_SECS, Node, RecordingReceiver, until

# Acknowledged at once: what is safe is known without waiting.
PROMPT = Limits(ack_delay_secs=0.0)
KEY = b"edge"


@pytest.fixture(params=["inproc", "unix", "tls"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "tls":
        credentials = request.getfixturevalue("credentials")
        request.getfixturevalue("monkeypatch").setattr(Node, "default_credentials", credentials)
        return "tls://127.0.0.1:0"
    return f"inproc://{tmp_path.name}" if request.param == "inproc" else f"unix://{tmp_path}/far"


class Successors:
    """A sender, and one receiving process after another."""

    def __init__(self, uri: str, limits: Limits, stack: AsyncExitStack) -> None:
        self.near = Node("near", limits)
        self._uri = uri
        self._limits = limits
        self._stack = stack
        self._count = 0
        self.far = self.near
        self.link: Link

    async def next_process(self, **acceptance: Any) -> Link:
        """Starts another receiving process; those before it go on living."""
        self._count += 1
        far = self.far = Node(f"far {self._count}", self._limits)
        far.acceptance = acceptance
        far.auto_done = False
        await self._stack.enter_async_context(far.hub)
        uri = self._uri if self._uri.startswith("tls") else f"{self._uri}{self._count}"
        self.link = await self.near.hub.connect(await far.hub.listen(uri), deadline_secs=WAIT_SECS)
        return self.link

    async def lose(self, stream: OutStream) -> None:
        """The receiving process dies."""
        self.far.hub.abort()
        await until(lambda: stream.detached)

    @property
    def receiver(self) -> RecordingReceiver:
        return self.far.receivers[KEY]

    def seen(self) -> list[tuple[bool, int, bytes]]:
        """What the present process has got, without what was taken back."""
        return [(d.urgent, d.seq, d.payload) for d in self.receiver.deliveries if d.payload]


@asynccontextmanager
async def successors(uri: str, limits: Limits = PROMPT) -> AsyncIterator[Successors]:
    async with AsyncExitStack() as stack:
        made = Successors(uri, limits, stack)
        await stack.enter_async_context(made.near.hub)
        await made.next_process()
        yield made


def delivery(receiver: RecordingReceiver, payload: bytes) -> Delivery:
    return next(d for d in receiver.deliveries if d.payload == payload)


async def test_a_successor_gets_what_was_not_processed_and_what_came_meanwhile(uri: str) -> None:
    async with successors(uri) as actors:
        stream = await actors.link.open_stream(KEY, retain=True)
        for payload in (b"1", b"2", b"3"):
            stream.send_nowait(payload)
        stream.send_nowait(b"u1", urgent=True)
        await actors.receiver.received(4)
        delivery(actors.receiver, b"1").done()
        await until(lambda: stream.safe == (1, 0))
        await actors.lose(stream)
        stream.send_nowait(b"4")
        stream.send_nowait(b"u2", urgent=True)
        assert not stream.flushed
        await (await actors.next_process()).resume_stream(stream, KEY)
        await actors.receiver.received(5)
        seen = actors.seen()
        assert [entry for entry in seen if not entry[0]] == [
            (False, 2, b"2"),
            (False, 3, b"3"),
            (False, 4, b"4"),
        ]
        assert [entry for entry in seen if entry[0]] == [(True, 1, b"u1"), (True, 2, b"u2")]
        actors.receiver.finish()
        await stream.drain()
        await until(lambda: stream.safe == (4, 2))
        assert stream.flushed


async def test_what_is_held_is_given_again_although_it_was_processed(uri: str) -> None:
    async with successors(uri) as actors:
        stream = await actors.link.open_stream(KEY, retain=True)
        for payload in (b"1", b"2", b"3"):
            stream.send_nowait(payload)
        await actors.receiver.received(3)
        delivery(actors.receiver, b"2").hold()
        actors.receiver.finish()
        await stream.drain()
        # Its credit is back, and so is that of those behind it; they are not safe.
        assert stream.statistics().in_flight_frames == 0
        await until(lambda: stream.safe == (1, 0))
        await actors.lose(stream)
        await (await actors.next_process()).resume_stream(stream, KEY)
        await actors.receiver.received(2)
        assert actors.seen() == [(False, 2, b"2"), (False, 3, b"3")]


async def test_a_hold_that_is_released_lets_go(uri: str) -> None:
    async with successors(uri) as actors:
        stream = await actors.link.open_stream(KEY, retain=True)
        stream.send_nowait(b"1")
        await actors.receiver.received(1)
        held = actors.receiver.deliveries[0]
        held.hold()
        held.hold()
        waiting = asyncio.ensure_future(held.safe())
        held.done()
        held.release()
        await stream.drain()
        assert stream.safe == (0, 0)
        assert not waiting.done()
        held.release()
        await until(lambda: stream.safe == (1, 0))
        await asyncio.wait_for(waiting, WAIT_SECS)
        assert stream.statistics().retained == 0


async def test_nothing_is_safe_before_what_came_of_it(uri: str) -> None:
    async with successors(uri) as actors:
        settled = False
        await actors.next_process(mark=lambda: "mark", passed=lambda mark: settled)
        stream = await actors.link.open_stream(KEY, retain=True)
        stream.send_nowait(b"1")
        await actors.receiver.received(1)
        actors.receiver.finish()
        await stream.drain()
        assert stream.safe == (0, 0)
        settled = True
        await until(lambda: stream.safe == (1, 0))


async def test_the_successor_of_a_sender_goes_on_with_its_numbers(uri: str) -> None:
    async with successors(uri) as actors:
        link = await actors.next_process(ordered=5, urgent=7, greeting=b"seen before", slot=3)
        stream = await link.open_stream(KEY, retain=True)
        assert stream.greeting == b"seen before"
        stream.send_nowait(b"6")
        stream.send_nowait(b"u8", urgent=True, cause=99)
        await actors.receiver.received(2)
        assert set(actors.seen()) == {(False, 6, b"6"), (True, 8, b"u8")}
        ordered, urgent = delivery(actors.receiver, b"6"), delivery(actors.receiver, b"u8")
        assert (ordered.cause, urgent.cause) == (0, 99)
        assert ordered.origin != urgent.origin
        assert ordered.origin >> 48 == 3
        # What came of the first frame has its name, what came as the second another.
        assert urgent.origin == 99
        assert origin_of(99, 1) not in (0, 99, origin_of(99, 2), origin_of(98, 1))
        actors.receiver.finish()
        await until(lambda: stream.safe == (6, 8))


async def test_what_an_interruption_drops_is_not_given_again(uri: str) -> None:
    async with successors(uri) as actors:
        stream = await actors.link.open_stream(KEY, retain=True)
        stream.send_nowait(b"old", tag=False)
        stream.send_nowait(b"end", tag=True)
        await actors.receiver.received(2)
        stream.drop_pending(lambda tag: tag is True)
        stream.send_nowait(b"interruption", urgent=True)
        stream.send_nowait(b"new", tag=False)
        await actors.lose(stream)
        await (await actors.next_process()).resume_stream(stream, KEY)
        await actors.receiver.received(4)
        assert [entry for entry in actors.seen() if not entry[0]] == [
            (False, 2, b"end"),
            (False, 3, b"new"),
        ]
        taken_back = [d for d in actors.receiver.deliveries if not d.payload]
        assert [(d.urgent, d.seq) for d in taken_back] == [(False, 1)]
        actors.receiver.finish()
        await stream.drain()


async def test_senders_wait_for_a_successor(uri: str) -> None:
    async with successors(uri, Limits(window_frames=4, ack_delay_secs=0.0)) as actors:
        stream = await actors.link.open_stream(KEY, retain=True)
        for number in range(4):
            stream.send_nowait(b"%d" % number)
        waiting = asyncio.ensure_future(stream.send(b"4"))
        await actors.receiver.received(4)
        await actors.lose(stream)
        await asyncio.sleep(0)
        assert not waiting.done()
        await (await actors.next_process()).resume_stream(stream, KEY)
        await actors.receiver.received(4)
        assert not waiting.done()
        actors.receiver.finish()
        await asyncio.wait_for(waiting, WAIT_SECS)
        await actors.receiver.received(5)
        assert [payload for _, _, payload in actors.seen()] == [b"%d" % n for n in range(5)]


async def test_more_than_a_window_is_given_again_within_the_window(uri: str) -> None:
    async with successors(uri, Limits(window_frames=4, ack_delay_secs=0.0)) as actors:
        stream = await actors.link.open_stream(KEY, retain=True)
        for number in range(10):
            await stream.send(b"%d" % number)
            await actors.receiver.received(number + 1)
            actors.receiver.deliveries[-1].hold()
            actors.receiver.deliveries[-1].done()
        await stream.drain()
        await actors.lose(stream)
        await (await actors.next_process()).resume_stream(stream, KEY)
        receiver = actors.receiver
        for number in range(10):
            await receiver.received(number + 1)
            assert sum(d._open for d in receiver.deliveries) <= 4
            receiver.deliveries[number].done()
        assert [seq for _, seq, _ in actors.seen()] == list(range(1, 11))


async def test_a_refused_resumption_waits_for_the_next(uri: str) -> None:
    async with successors(uri) as actors:
        stream = await actors.link.open_stream(KEY, retain=True)
        stream.send_nowait(b"1")
        await actors.receiver.received(1)
        await actors.lose(stream)
        link = await actors.next_process()
        actors.far.refuse = "not here"
        with pytest.raises(ChannelError, match="not here"):
            await link.resume_stream(stream, KEY)
        assert stream.detached
        assert stream.error is None
        await (await actors.next_process()).resume_stream(stream, KEY)
        await actors.receiver.received(1)
        assert actors.seen() == [(False, 1, b"1")]
        with pytest.raises(ValueError, match="has a link"):
            await actors.link.resume_stream(stream, KEY)


async def test_a_stream_that_is_given_up_lets_its_senders_go(uri: str) -> None:
    async with successors(uri, Limits(window_frames=1)) as actors:
        stream = await actors.link.open_stream(KEY, retain=True)
        stream.send_nowait(b"1")
        waiting = asyncio.ensure_future(stream.send(b"2"))
        await actors.receiver.received(1)
        await actors.lose(stream)
        stream.abort()
        with pytest.raises(ChannelError, match="aborted"):
            await asyncio.wait_for(waiting, WAIT_SECS)
        with pytest.raises(ChannelError, match="aborted"):
            stream.send_nowait(b"3", urgent=True)


async def test_a_stream_that_keeps_nothing_ends_with_its_link(uri: str) -> None:
    async with successors(uri) as actors:
        stream = await actors.link.open_stream(KEY)
        actors.far.hub.abort()
        await until(lambda: stream.error is not None)
        assert not stream.detached


def test_the_oldest_is_forgotten_when_too_much_is_kept() -> None:
    kept = Retained()
    for number in range(MAX_FRAMES + 10):
        sent = Sent(b"x", urgent=False, tag=None, sent_ns=0, cause=0, ordinal=0)
        sent.seq = number + 1
        kept.add(sent)
    assert kept.forgotten == 10
    assert kept.ordered == 10
    assert kept.take_all()[0].seq == 11


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.booleans()),
        st.tuples(st.just("done"), st.integers(0, 30)),
        st.tuples(st.just("hold"), st.integers(0, 30)),
        st.tuples(st.just("release"), st.integers(0, 30)),
        st.tuples(st.just("interrupt"), st.just(0)),
        st.tuples(st.sampled_from(["die", "resume"]), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_happens_every_frame_is_processed_or_dropped_on_purpose(
    steps: list[tuple[str, Any]],
) -> None:
    asyncio.run(run_steps(steps))


async def run_steps(steps: list[tuple[str, Any]]) -> None:
    """A frame keeps its number over all processes; each gets those not safe before, without a gap."""
    limits = Limits(window_frames=3, ack_delay_secs=0.0)
    async with successors(f"inproc://steps-{id(steps)}-", limits) as actors:
        stream = await actors.link.open_stream(KEY, retain=True)
        given: set[bytes] = set()
        may_be_dropped: set[bytes] = set()
        numbers: dict[tuple[bool, int], bytes] = {}
        waiting: list[asyncio.Future[None]] = []
        held: list[Delivery] = []
        before = {False: 0, True: 0}

        def look() -> None:
            """Checks what the present process has got so far."""
            last = dict(before)
            for each in actors.receiver.deliveries:
                last[each.urgent] += 1
                assert each.seq == last[each.urgent]
                known = numbers.setdefault((each.urgent, each.seq), each.payload)
                assert each.payload == known or (not each.payload and known in may_be_dropped)

        for step, value in [*steps, ("die", 0), ("resume", 0)]:
            alive = not stream.detached
            unprocessed = [d for d in actors.receiver.deliveries if d._open and alive]
            if step == "send":
                payload = b"%d" % len(given)
                given.add(payload)
                send = stream.send(payload, urgent=bool(value), tag=payload)
                waiting.append(asyncio.ensure_future(send))
            elif step == "done" and unprocessed:
                unprocessed[value % len(unprocessed)].done()
            elif step == "hold" and unprocessed:
                held.append(unprocessed[value % len(unprocessed)])
                held[-1].hold()
            elif step == "release" and held:
                held.pop(value % len(held)).release()
            elif step == "interrupt":
                may_be_dropped |= given
                stream.drop_pending(lambda tag: False)
            elif step == "die" and alive:
                await settle()
                look()
                await actors.lose(stream)
                held.clear()
            elif step == "resume" and not alive:
                before = dict(zip((False, True), stream.safe, strict=True))
                await (await actors.next_process()).resume_stream(stream, KEY)
            await settle()
            look()
        while not stream._idle:
            actors.receiver.finish()
            await settle()
        look()
        assert all(future.done() for future in waiting)
        assert given <= set(numbers.values()) | may_be_dropped


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)
