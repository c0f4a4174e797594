"""What every transport must do, seen through hubs and links."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from antiphon_actors.channels import (
    CallDeadlineExceeded,
    ChannelBroken,
    ChannelBusy,
    ChannelClosed,
    ChannelError,
    ChannelRefused,
    Delivery,
    EndOfChannel,
    Limits,
    Link,
    RemoteCallError,
)
from antiphon_actors.channels.testing import WAIT_SECS, Node, linked, until


def numbered(count: int, size: int = 8) -> list[bytes]:
    return [number.to_bytes(8, "big").ljust(size, b".") for number in range(count)]


async def test_order_holds_per_lane(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        stream = await link.open_stream(b"key")
        frames = numbered(500)
        for number, frame in enumerate(frames):
            await stream.send(frame, urgent=number % 3 == 0)
        await stream.drain()
        receiver = far.receivers[b"key"]
        assert receiver.payloads(urgent=True) == frames[::3]
        assert receiver.payloads(urgent=False) == [f for n, f in enumerate(frames) if n % 3]
        assert [d.seq for d in receiver.deliveries if d.urgent] == list(range(1, 168))
        assert all(delivery.sent_ns > 0 for delivery in receiver.deliveries)
        assert stream.unacknowledged() == []


async def test_urgent_overtakes_a_full_ordered_lane(uri: str) -> None:
    async with linked(uri, near=Limits(window_frames=4)) as (_, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        frames = numbered(5)
        taken = [stream.send_nowait(frame) for frame in frames]
        assert taken == [True] * 4 + [False]
        waiting = asyncio.ensure_future(stream.send(frames[4]))
        receiver = far.receivers[b"key"]
        await receiver.received(4)
        assert stream.send_nowait(b"now", urgent=True)
        await receiver.received(5)
        assert receiver.payloads() == [*frames[:4], b"now"]
        assert not waiting.done()
        receiver.deliveries[0].done()
        await waiting
        await receiver.received(6)
        assert receiver.payloads(urgent=False) == frames


async def test_urgent_overtakes_ordered_frames_behind_a_full_socket(uri: str) -> None:
    # A window wider than any buffer: the socket, not the credits, holds the frames back.
    limits = Limits(window_frames=1000, window_bytes=64 << 20)
    async with linked(uri, near=limits, far=limits) as (_, far, link):
        stream = await link.open_stream(b"key")
        wire = far.hub.links[0].wire
        wire.pause_reading()
        frames = numbered(100, 50_000)
        for frame in frames:
            assert stream.send_nowait(frame)
        await asyncio.sleep(0)
        queued = stream.statistics().queued
        assert queued > 50
        stream.send_nowait(b"now", urgent=True)
        wire.resume_reading()
        receiver = far.receivers[b"key"]
        await receiver.received(101)
        assert receiver.payloads(urgent=False) == frames
        assert receiver.payloads().index(b"now") <= 100 - queued
        assert link.statistics().pauses >= 1


async def test_a_slow_consumer_bounds_memory(uri: str) -> None:
    limits = Limits(window_frames=1000, window_bytes=10_000)
    async with linked(uri, far=limits) as (_, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        frames = numbered(50, 1000)

        async def produce() -> None:
            for frame in frames:
                await stream.send(frame)

        producer = asyncio.ensure_future(produce())
        receiver = far.receivers[b"key"]
        most = 0
        while len(receiver.deliveries) < 50:
            pending = [d for d in receiver.deliveries if not finished(d)]
            most = max(most, len(pending))
            if pending:
                pending[0].done()
            await asyncio.sleep(0)
        await producer
        assert most <= 10
        assert stream.statistics().in_flight_bytes <= 10_000
        receiver.finish()
        await stream.drain()


def finished(delivery: Delivery) -> bool:
    return not delivery._open


async def test_one_frame_larger_than_the_window_passes_alone(uri: str) -> None:
    async with linked(uri, near=Limits(window_bytes=1000)) as (_, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        assert stream.send_nowait(b"x" * 5000)
        assert not stream.send_nowait(b"y")
        await far.receivers[b"key"].received(1)
        far.receivers[b"key"].finish()
        await stream.send(b"y")
        await far.receivers[b"key"].received(2)


async def test_large_payloads_arrive_whole_on_both_lanes(uri: str) -> None:
    limits = Limits(max_record_bytes=4 << 20)
    async with linked(uri, near=limits) as (_, far, link):
        stream = await link.open_stream(b"key")
        large = bytes(range(256)) * (12 << 10)
        await stream.send(large)
        await stream.send(large, urgent=True)
        await stream.drain()
        assert far.receivers[b"key"].payloads() == [large, large]
        with pytest.raises(ValueError, match="exceeds the limit"):
            await stream.send(bytes(5 << 20))


async def test_dropping_what_has_not_left(uri: str) -> None:
    async with linked(uri, near=Limits(window_frames=2)) as (_, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        assert stream.send_nowait(b"0", tag="data")
        assert stream.send_nowait(b"1", tag="data")
        sending = [
            asyncio.ensure_future(stream.send(payload, tag=tag))
            for payload, tag in [(b"2", "data"), (b"3", "end"), (b"4", "data")]
        ]
        await asyncio.sleep(0)
        assert stream.drop_pending(lambda tag: tag == "end") == 2
        await asyncio.sleep(0)
        assert [task.done() for task in sending] == [True, False, True]
        receiver = far.receivers[b"key"]
        await receiver.received(2)
        receiver.auto_done = True
        receiver.finish()
        await asyncio.gather(*sending)
        await stream.drain()
        assert receiver.payloads() == [b"0", b"1", b"3"]
        assert stream.statistics().dropped == 2


async def test_dropping_frames_that_wait_for_the_socket_leaves_no_gap(uri: str) -> None:
    limits = Limits(window_frames=1000, window_bytes=64 << 20)
    async with linked(uri, near=limits, far=limits) as (_, far, link):
        stream = await link.open_stream(b"key")
        wire = far.hub.links[0].wire
        wire.pause_reading()
        frames = numbered(100, 50_000)
        for number, frame in enumerate(frames):
            stream.send_nowait(frame, tag=number)
        await asyncio.sleep(0)
        queued = stream.statistics().queued
        assert stream.drop_pending(lambda number: number == 99) == queued - 1
        wire.resume_reading()
        await stream.drain()
        assert far.receivers[b"key"].payloads() == [*frames[: 100 - queued], frames[99]]


# No ping falls into what a test counts.
NO_BEATS = 1000.0


async def test_acks_are_cumulative(uri: str) -> None:
    limits = Limits(window_frames=64, ack_delay_secs=0.005, heartbeat_period_secs=NO_BEATS)
    async with linked(uri, near=limits, far=limits) as (_, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        for frame in numbered(64):
            assert stream.send_nowait(frame)
        receiver = far.receivers[b"key"]
        await receiver.received(64)
        before = link.statistics().records_received
        for delivery in reversed(receiver.deliveries[1:]):
            delivery.done()  # out of order: nothing can be reported yet
        await asyncio.sleep(0.02)
        assert stream.statistics().acked == 0
        assert link.statistics().records_received == before
        receiver.deliveries[0].done()
        receiver.deliveries[0].done()  # a second time does nothing
        await until(lambda: stream.statistics().acked == 64)
        assert link.statistics().records_received == before + 1


async def test_acks_are_coalesced(uri: str) -> None:
    # Nothing is acknowledged for its age, so only quarters of the window are.
    limits = Limits(window_frames=64, ack_delay_secs=NO_BEATS, heartbeat_period_secs=NO_BEATS)
    async with linked(uri, near=limits, far=limits) as (_, _far, link):
        stream = await link.open_stream(b"key")
        before = link.statistics().records_received
        for frame in numbered(64):
            assert stream.send_nowait(frame)
        await stream.drain()
        assert link.statistics().records_received <= before + 4


async def test_frames_of_one_turn_leave_in_few_writes(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        stream = await link.open_stream(b"key")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        before = link.statistics().writes
        for frame in numbered(50):
            stream.send_nowait(frame)
        await far.receivers[b"key"].received(50)
        if link.wire.gathers_writes:
            return  # the transport's business
        assert link.statistics().writes <= before + 2


async def test_cancelled_send_is_all_or_nothing_and_lets_others_pass(uri: str) -> None:
    async with linked(uri, near=Limits(window_frames=1)) as (_, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        await stream.send(b"0")
        first = asyncio.ensure_future(stream.send(b"1"))
        second = asyncio.ensure_future(stream.send(b"2"))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert stream.statistics().waiting == 1
        receiver = far.receivers[b"key"]
        await receiver.received(1)
        receiver.auto_done = True
        receiver.finish()
        await second
        await stream.drain()
        assert receiver.payloads() == [b"0", b"2"]


async def test_closing_a_stream_delivers_the_rest(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        stream = await link.open_stream(b"key")
        for frame in numbered(20):
            stream.send_nowait(frame)
        await stream.aclose()
        receiver = far.receivers[b"key"]
        assert len(receiver.deliveries) == 20
        assert receiver.ended
        assert receiver.reason is None
        with pytest.raises(ChannelClosed):
            stream.send_nowait(b"late")
        await stream.aclose()
        assert link.statistics().out_streams == 0
        assert far.hub.links[0].statistics().in_streams == 0


async def test_aborting_a_stream_tells_the_receiver(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        stream = await link.open_stream(b"key")
        stream.abort()
        await until(lambda: far.receivers[b"key"].ended)
        assert isinstance(far.receivers[b"key"].reason, ChannelBroken)
        with pytest.raises(ChannelClosed):
            await stream.send(b"late")


async def test_the_receiver_can_stop_a_stream(uri: str) -> None:
    async with linked(uri, near=Limits(window_frames=1)) as (_, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        stream.send_nowait(b"0")
        waiting = asyncio.ensure_future(stream.send(b"1"))
        await far.receivers[b"key"].received(1)
        assert far.hub.links[0].stop_stream(far.receivers[b"key"], "enough")
        with pytest.raises(EndOfChannel, match="enough"):
            await waiting
        far.receivers[b"key"].finish()
        assert not far.receivers[b"key"].ended
        assert [sent.payload for _, sent in stream.unacknowledged()] == [b"0"]
        assert link.state.value == "open"


async def test_a_receiver_that_raises_ends_its_stream_only(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        bad, good = await link.open_stream(b"bad"), await link.open_stream(b"good")

        def broken(delivery: Delivery) -> None:
            raise LookupError("no such session")

        far.receivers[b"bad"].deliver = broken  # type: ignore[method-assign]
        bad.send_nowait(b"x")
        await until(lambda: bad.error is not None)
        assert isinstance(bad.error, EndOfChannel)
        assert isinstance(far.receivers[b"bad"].reason, LookupError)
        await good.send(b"y")
        await good.drain()


async def test_too_many_unprocessed_urgent_frames_end_their_stream(uri: str) -> None:
    async with linked(uri, near=Limits(urgent_frames=10)) as (_, far, link):
        far.auto_done = False
        stuck, other = await link.open_stream(b"stuck"), await link.open_stream(b"other")
        for _ in range(10):
            stuck.send_nowait(b"x", urgent=True)
        with pytest.raises(ChannelBusy, match="does not read"):
            stuck.send_nowait(b"x", urgent=True)
        await until(lambda: far.receivers[b"stuck"].ended)
        await other.send(b"y")
        await far.receivers[b"other"].received(1)


async def test_a_peer_that_does_not_read_loses_the_link(uri: str) -> None:
    limits = Limits(max_pending_bytes=1 << 20, urgent_bytes=64 << 20, urgent_frames=10_000)
    async with linked(uri, near=limits, far=limits) as (near, far, link):
        stream = await link.open_stream(b"key")
        far.hub.links[0].wire.pause_reading()
        while not link.closed.is_set():
            stream.send_nowait(b"x" * 10_000, urgent=True)
        with pytest.raises(ChannelBusy, match="does not read"):
            stream.send_nowait(b"x", urgent=True)
        assert link.closed.is_set()
        assert near.hub.statistics().overflows == 1
        far.hub.links[0].wire.resume_reading()


async def test_a_refused_stream_says_why(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        far.refuse = "no such session"
        with pytest.raises(ChannelRefused, match="no such session"):
            await link.open_stream(b"key")
        far.refuse = None
        stream = await link.open_stream(b"key")
        await stream.send(b"x")
        await stream.drain()
        with pytest.raises(ValueError, match="key"):
            await link.open_stream(b"k" * 2000)


async def test_streams_of_a_link_are_bounded(uri: str) -> None:
    async with linked(uri, far=Limits(max_streams=2)) as (_, _far, link):
        streams = [await link.open_stream(b"1"), await link.open_stream(b"2")]
        with pytest.raises(ChannelBusy):
            await link.open_stream(b"3")
        await streams[0].aclose()
        await link.open_stream(b"3")


async def test_calls_answer(uri: str) -> None:
    async with linked(uri) as (near, far, link):

        async def echo(link: Link, body: bytes) -> bytes:
            await asyncio.sleep(0)
            return body + body

        far.handlers["echo"] = near.handlers["echo"] = echo
        answers = await asyncio.gather(
            *(link.call("echo", frame, deadline_secs=WAIT_SECS) for frame in numbered(50)),
            *(
                far.hub.links[0].call("echo", frame, deadline_secs=WAIT_SECS)
                for frame in numbered(50)
            ),
        )
        assert answers == [frame + frame for frame in numbered(50)] * 2
        link.notify("hello", b"there")
        await until(lambda: far.notifications == [("hello", b"there")])


async def test_exceptions_of_a_handler_travel(uri: str) -> None:
    class Overloaded(Exception):
        def __init__(self) -> None:
            super().__init__("too much \udc80")
            self.retry_after = 1.5
            self.socket = object()

    async with linked(uri) as (_, far, link):

        async def fail(link: Link, body: bytes) -> bytes:
            raise Overloaded

        far.handlers["fail"] = fail
        with pytest.raises(RemoteCallError) as caught:
            await link.call("fail", b"", deadline_secs=WAIT_SECS)
        assert caught.value.type_name == "Overloaded"
        assert caught.value.message == "too much ?"
        assert caught.value.data == {"retry_after": 1.5}
        with pytest.raises(RemoteCallError, match="KeyError"):
            await link.call("unknown", b"", deadline_secs=WAIT_SECS)
        assert far.hub.statistics().tasks == 0


async def hanging(far: Node) -> tuple[asyncio.Event, asyncio.Event]:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(link: Link, body: bytes) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    far.handlers["hang"] = hang
    return begun, cancelled


async def test_cancelling_a_call_cancels_its_handler(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        begun, cancelled = await hanging(far)
        call = asyncio.ensure_future(link.call("hang", b"", deadline_secs=None))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(cancelled.wait(), WAIT_SECS)
        await until(lambda: far.hub.statistics().tasks == 0)
        assert link.statistics().calls.waiting == 0


async def test_the_deadline_of_a_call(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        _, cancelled = await hanging(far)
        with pytest.raises(CallDeadlineExceeded):
            await link.call("hang", b"", deadline_secs=0.01)
        await asyncio.wait_for(cancelled.wait(), WAIT_SECS)


async def test_losing_the_link_ends_calls_on_both_sides(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        begun, cancelled = await hanging(far)
        call = asyncio.ensure_future(link.call("hang", b"", deadline_secs=None))
        await begun.wait()
        far.hub.links[0].wire.abort()
        with pytest.raises(ChannelBroken):
            await call
        await asyncio.wait_for(cancelled.wait(), WAIT_SECS)
        with pytest.raises(ChannelBroken):
            await link.call("hang", b"", deadline_secs=None)


async def test_calls_are_bounded(uri: str) -> None:
    async with linked(uri, far=Limits(max_calls=2)) as (_, far, link):
        begun, _ = await hanging(far)
        calls = [asyncio.ensure_future(link.call("hang", b"", deadline_secs=None)) for _ in "12"]
        await begun.wait()
        with pytest.raises(ChannelBusy):
            await link.call("hang", b"", deadline_secs=None)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_losing_the_link_reaches_everybody(uri: str) -> None:
    async with linked(uri, near=Limits(window_frames=1)) as (near, far, link):
        far.auto_done = False
        stream = await link.open_stream(b"key")
        told: list[ChannelError] = []
        link.add_closed_callback(lambda link, reason: told.append(reason))
        stream.send_nowait(b"0")
        waiting = asyncio.ensure_future(stream.send(b"1"))
        draining = asyncio.ensure_future(stream.drain())
        await far.receivers[b"key"].received(1)
        far.hub.links[0].wire.abort()
        await asyncio.wait_for(link.closed.wait(), WAIT_SECS)
        for task in (waiting, draining):
            with pytest.raises(ChannelBroken):
                await task
        assert [type(reason) for reason in told] == [ChannelBroken]
        link.add_closed_callback(lambda link, reason: told.append(reason))
        await until(lambda: len(told) == 2)
        await until(lambda: far.receivers[b"key"].ended)
        assert [sent.payload for _, sent in stream.unacknowledged()] == [b"0"]
        assert near.hub.links == ()
        with pytest.raises(ChannelBroken):
            await link.open_stream(b"other")


async def test_a_graceful_close_says_goodbye(uri: str) -> None:
    async with linked(uri) as (near, far, link):
        stream = await link.open_stream(b"key")
        for frame in numbered(30):
            stream.send_nowait(frame)
        back = far.hub.links[0]
        await link.aclose()
        await asyncio.wait_for(back.closed.wait(), WAIT_SECS)
        assert isinstance(link.close_reason, ChannelClosed)
        assert isinstance(back.close_reason, EndOfChannel)
        assert far.receivers[b"key"].payloads() == numbered(30)
        assert isinstance(far.receivers[b"key"].reason, EndOfChannel)
        await link.aclose()
        again = await near.hub.connect(far.hub.facts.uris[0], deadline_secs=WAIT_SECS)
        assert again is not link


async def test_both_ends_agree_on_the_limits(uri: str) -> None:
    near, far = Limits(window_frames=8, max_calls=3), Limits(window_frames=100, window_bytes=500)
    async with linked(uri, near=near, far=far) as (_, far_node, link):
        back = far_node.hub.links[0]
        assert link.limits.offer() == back.limits.offer()
        assert link.limits.window_frames == 8
        assert link.limits.window_bytes == 500
        assert link.limits.max_calls == 3
        assert (link.peer.name, back.peer.name) == ("far", "near")
        assert link.peer.uris == far_node.hub.facts.uris


async def test_one_link_for_many_callers(uri: str) -> None:
    async with linked(uri) as (near, far, link):
        uri = far.hub.facts.uris[0]
        links = await asyncio.gather(
            *(near.hub.connect(uri, deadline_secs=WAIT_SECS) for _ in range(5))
        )
        assert set(links) == {link}


async def settle(nodes: list[Node]) -> None:
    await until(lambda: all(len(node.hub.statistics().links) == 1 for node in nodes))


@pytest.mark.parametrize("round_", range(4))
async def test_both_sides_dial_at_once(uri: str, other_uri: str, round_: int) -> None:
    one, two = Node("one"), Node("two")
    async with one.hub, two.hub:
        uri_one, uri_two = await one.hub.listen(uri), await two.hub.listen(other_uri)
        dials = [
            one.hub.connect(uri_two, deadline_secs=WAIT_SECS),
            two.hub.connect(uri_one, deadline_secs=WAIT_SECS),
        ]
        # The first to be scheduled varies, and with it who is ahead.
        done = await asyncio.gather(*(dials if round_ % 2 else reversed(dials)))
        here, there = done if round_ % 2 else reversed(done)
        await settle([one, two])
        assert one.hub.links == (here,)
        assert two.hub.links == (there,)
        stream, back = await here.open_stream(b"a"), await there.open_stream(b"b")
        await stream.send(b"x")
        await back.send(b"y")
        await asyncio.gather(stream.drain(), back.drain())
        assert await one.hub.connect(uri_two, deadline_secs=WAIT_SECS) is here
        assert await two.hub.connect(uri_one, deadline_secs=WAIT_SECS) is there


async def test_the_accepted_link_is_used_for_calling_back(uri: str, other_uri: str) -> None:
    one, two = Node("one"), Node("two")
    async with one.hub, two.hub:
        uri_one = await one.hub.listen(uri)
        await two.hub.listen(other_uri)
        there = await two.hub.connect(uri_one, deadline_secs=WAIT_SECS)
        await settle([one, two])
        here = await one.hub.connect(there_uri(two), deadline_secs=WAIT_SECS)
        assert one.hub.links == (here,)
        assert not here.dialled
        assert two.hub.links == (there,)


def there_uri(node: Node) -> str:
    return node.hub.facts.uris[0]


async def test_a_hub_can_dial_itself(uri: str) -> None:
    node = Node("self")
    async with node.hub:
        link = await node.hub.connect(await node.hub.listen(uri), deadline_secs=WAIT_SECS)
        stream = await link.open_stream(b"key")
        await stream.send(b"x")
        await stream.drain()
        assert await node.hub.connect(there_uri(node), deadline_secs=WAIT_SECS) is link


async def test_nobody_listens(uri: str) -> None:
    node = Node("alone")
    async with node.hub:
        with pytest.raises(ChannelBroken, match="nobody listens"):
            await node.hub.connect(uri, deadline_secs=WAIT_SECS)
    with pytest.raises(ChannelClosed):
        await node.hub.connect(uri, deadline_secs=WAIT_SECS)


async def test_an_address_is_taken_once(uri: str) -> None:
    one, two = Node("one"), Node("two")
    async with one.hub, two.hub:
        await one.hub.listen(uri)
        with pytest.raises(ChannelBusy):
            await two.hub.listen(uri)
    three = Node("three")
    async with three.hub:
        await three.hub.listen(uri)


async def test_closing_a_hub_cancels_dials_and_handlers(uri: str) -> None:
    one, two = Node("one"), Node("two")
    async with two.hub:
        bound = await two.hub.listen(uri)
        async with one.hub:
            link = await one.hub.connect(bound, deadline_secs=WAIT_SECS)
            begun, cancelled = await hanging(one)
            await until(lambda: len(two.hub.links) == 1)
            call = asyncio.ensure_future(two.hub.links[0].call("hang", b"", deadline_secs=None))
            await begun.wait()
        assert cancelled.is_set()
        assert link.closed.is_set()
        with pytest.raises(EndOfChannel):
            await call
        assert one.hub.statistics().tasks == 0


@pytest.mark.parametrize("steps", range(8))
async def test_cancelling_connect_and_open_at_any_step_ends_in_time(uri: str, steps: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        one, two = Node("one"), Node("two")
        await stack.enter_async_context(two.hub)
        await stack.enter_async_context(one.hub)
        bound = await two.hub.listen(uri)

        async def use() -> None:
            link = await one.hub.connect(bound, deadline_secs=WAIT_SECS)
            stream = await link.open_stream(b"key")
            await stream.send(b"x")
            await stream.drain()
            await stream.aclose()

        task = asyncio.ensure_future(use())
        for _ in range(steps * 2):
            await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(WAIT_SECS):
            await asyncio.wait([task])


async def test_abort_ends_everything_at_once(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        begun, cancelled = await hanging(far)
        call = asyncio.ensure_future(link.call("hang", b"", deadline_secs=None))
        await begun.wait()
        far.hub.abort()
        with pytest.raises(ChannelError):
            await call
        await asyncio.wait_for(cancelled.wait(), WAIT_SECS)
