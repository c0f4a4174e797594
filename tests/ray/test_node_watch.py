from __future__ import annotations

from antiphon_actors.node_watch import NodeWatch


def test_a_silent_node_is_lost_once() -> None:
    watch = NodeWatch(silent_secs=2.0)
    watch.joined("a", 0.0)
    watch.joined("b", 0.0)
    watch.heard("a", 1.5)
    assert watch.lost(1.9) == []
    assert watch.lost(2.0) == ["b"]
    assert watch.lost(2.0) == []
    assert watch.nodes == ["a"]
    watch.heard("b", 3.0)
    watch.used("b", 3.0)
    assert watch.nodes == ["a"]
    assert watch.lost(3.5) == ["a"]


def test_a_node_that_nobody_uses_is_given_up() -> None:
    watch = NodeWatch(idle_secs=300.0)
    watch.joined("a", 0.0)
    watch.joined("b", 0.0)
    watch.used("a", 100.0)
    assert watch.idle(299.0) == []
    assert watch.idle(300.0) == ["b"]
    assert watch.idle(399.0) == []
    assert watch.idle(400.0) == ["a"]


def test_one_that_has_left_is_neither() -> None:
    watch = NodeWatch()
    watch.joined("a", 0.0)
    watch.left("a")
    assert watch.lost(1e9) == watch.idle(1e9) == []
