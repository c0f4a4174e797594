from __future__ import annotations

import asyncio

import pytest

from antiphon_actors.channels import ChannelBroken, Limits
from antiphon_actors.channels.heartbeat import Beat, Heartbeat
from antiphon_actors.channels.testing import linked, until

LIMITS = Limits(heartbeat_period_secs=0.5, heartbeat_dead_secs=3)


def beating() -> Heartbeat:
    return Heartbeat(period_secs=0.5, dead_secs=3, now_secs=100.0)


def test_silence_is_counted_and_ends_with_any_record() -> None:
    heart = beating()
    beats = [heart.tick(100 + 0.5 * n, heard=False) for n in range(1, 6)]
    assert beats == [Beat.PING] * 5
    assert heart.silent_secs == pytest.approx(2.5)
    assert heart.tick(103, heard=True) is Beat.PING
    assert heart.silent_secs == 0
    assert [heart.tick(103 + 0.5 * n, heard=False) for n in range(1, 7)][-1] is Beat.DEAD


def test_a_stall_of_our_own_is_not_the_peers_silence() -> None:
    heart = beating()
    assert heart.tick(160, heard=False) is Beat.PING
    assert heart.silent_secs == pytest.approx(0.75)


def test_round_trips_are_smoothed() -> None:
    heart = beating()
    heart.pong(0.008)
    heart.pong(0.016)
    assert heart.rtt_secs == pytest.approx(0.009)
    assert heart.last_rtt_secs == 0.016


@pytest.mark.virtual_time
async def test_an_idle_link_lives_and_knows_its_round_trip() -> None:
    async with linked("inproc://idle", near=LIMITS, far=LIMITS) as (_, far, link):
        await asyncio.sleep(60)
        assert link.close_reason is None
        assert far.hub.links[0].close_reason is None
        assert link.statistics().rtt_secs is not None
        assert link.statistics().silent_secs < 1


@pytest.mark.virtual_time
async def test_a_peer_busy_for_less_than_the_dead_time_lives() -> None:
    async with linked("inproc://busy", near=LIMITS, far=LIMITS) as (_, far, link):
        far.hub.links[0].wire.pause_reading()
        await asyncio.sleep(2.4)
        assert link.close_reason is None
        far.hub.links[0].wire.resume_reading()
        await asyncio.sleep(10)
        assert link.close_reason is None


@pytest.mark.virtual_time
async def test_a_frozen_peer_is_dead_after_the_dead_time() -> None:
    async with linked("inproc://frozen", near=LIMITS, far=LIMITS) as (near, far, link):
        back = far.hub.links[0]
        near.hub._tick = lambda: None  # type: ignore[method-assign]
        began = asyncio.get_running_loop().time()
        # Neither reads nor beats any more, as under SIGSTOP.
        link.wire.pause_reading()
        back._outbox.pause()
        await asyncio.sleep(1)
        assert not back.closed.is_set()
        await back.closed.wait()
        assert isinstance(back.close_reason, ChannelBroken)
        assert 3 <= asyncio.get_running_loop().time() - began < 4.1
        await until(lambda: link.closed.is_set())
        assert far.hub.statistics().broken == 1
