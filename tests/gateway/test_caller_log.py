"""What is kept of a caller's messages, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from antiphon_actors.gateway.caller_log import PROLOGUE_BYTES, CallerLog
from antiphon_actors.session.line import Kind, Message

HEAD = len(Message(Kind.BYTES).pack())


def log(max_bytes: int = 10_000, max_secs: float = 30.0) -> CallerLog:
    return CallerLog(max_bytes, max_secs)


def say(made: CallerLog, *texts: str, now: float = 0.0, lossy: bool = False) -> list[bool]:
    return [made.add(Kind.TEXT, text.encode(), now, lossy=lossy) for text in texts]


def rest(made: CallerLog) -> list[str]:
    """What is sent from here on."""
    found = []
    while (payload := made.next()) is not None:
        found.append(Message.unpack(payload).data.decode())
    return found


def test_messages_are_sent_once_in_order_and_numbered() -> None:
    made = log()
    say(made, "a", "b")
    assert Message.unpack(made.next() or b"") == Message(Kind.TEXT, 1, b"a")
    say(made, "c")
    assert rest(made) == ["b", "c"]
    assert made.next() is None
    assert made.last == 3


def test_another_process_gets_the_prologue_and_what_is_not_committed() -> None:
    made = log()
    say(made, "start", "a", "b", "c")
    rest(made)
    made.end_prologue(1)
    made.commit(3)
    say(made, "d")
    made.rewind()
    assert rest(made) == ["start", "c", "d"]
    made.rewind()
    assert rest(made) == ["start", "c", "d"]


def test_the_prologue_ends_once() -> None:
    made = log()
    say(made, "start", "a")
    rest(made)
    made.end_prologue(1)
    made.end_prologue(2)
    made.commit(2)
    made.rewind()
    assert rest(made) == ["start"]


def test_before_the_prologue_ends_nothing_is_committed() -> None:
    made = log()
    say(made, "start")
    rest(made)
    made.commit(1)
    made.rewind()
    assert rest(made) == ["start"]


def test_of_a_long_prologue_the_beginning_is_kept() -> None:
    made = log(max_bytes=1 << 20)
    size = PROLOGUE_BYTES // 4
    say(made, *(str(number) * size for number in range(6)))
    rest(made)
    made.end_prologue(6)
    made.rewind()
    assert [text[0] for text in rest(made)] == ["0", "1", "2"]


def test_what_was_not_sent_can_be_neither_committed_nor_prologue() -> None:
    made = log()
    say(made, "a", "b")
    made.next()
    made.end_prologue(5)
    made.commit(5)
    assert rest(made) == ["b"]


def test_the_oldest_that_were_sent_make_room() -> None:
    made = log(max_bytes=3 * (HEAD + 1))
    say(made, "a", "b", "c")
    rest(made)
    assert say(made, "d") == [True]
    assert made.forgotten == 1
    made.rewind()
    assert rest(made) == ["b", "c", "d"]


def test_what_was_not_sent_is_not_given_up_unless_that_is_wanted() -> None:
    made = log(max_bytes=3 * (HEAD + 1))
    say(made, "a", "b", "c")
    assert say(made, "d") == [False]
    assert made.last == 3
    assert say(made, "d", lossy=True) == [True]
    assert (made.dropped, made.forgotten) == (1, 0)
    assert rest(made) == ["b", "c", "d"]


def test_what_is_old_is_given_up_too() -> None:
    made = log(max_secs=30.0)
    say(made, "a", now=0.0)
    rest(made)
    say(made, "b", now=20.0)
    rest(made)
    say(made, "c", now=31.0)
    made.rewind()
    assert rest(made) == ["b", "c"]
    # What one process was sent does not stand in the way, though the next was not sent it yet.
    made.rewind()
    assert say(made, "d", now=100.0) == [True]
    assert rest(made) == ["d"]
    assert made.forgotten == 3


def test_a_process_that_takes_nothing_for_long_is_noticed() -> None:
    made = log(max_secs=30.0)
    assert say(made, "a", now=0.0) == [True]
    assert say(made, "b", now=29.0) == [True]
    assert say(made, "c", now=31.0) == [False]


@given(st.sampled_from(list(Kind)), st.integers(0, 2**64 - 1), st.binary())
def test_messages_survive_the_wire(kind: Kind, number: int, data: bytes) -> None:
    message = Message(kind, number, data)
    assert Message.unpack(message.pack()) == message


class Memory(RuleBasedStateMachine):
    """A log beside a plain list of everything that was said."""

    def __init__(self) -> None:
        super().__init__()
        self.log = CallerLog(20 * (HEAD + 1), 1e9)
        self.next_number = 1
        self.given_up = 0
        self.committed = 0
        self.prologue: list[int] | None = None
        # To the present process.
        self.sent: list[int] = []

    @rule(lossy=st.booleans())
    def say(self, lossy: bool) -> None:
        before = self.log.forgotten + self.log.dropped
        if self.log.add(Kind.BYTES, b"x", 0.0, lossy=lossy):
            self.next_number += 1
        self.given_up += self.log.forgotten + self.log.dropped - before

    @rule(count=st.integers(1, 5))
    def send(self, count: int) -> None:
        for _ in range(count):
            payload = self.log.next()
            if payload is not None:
                self.sent.append(Message.unpack(payload).number)

    @rule()
    def another_process(self) -> None:
        self.log.rewind()
        self.sent = []

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.sent))
        self.log.commit(number)
        if self.prologue is not None:
            self.committed = max(self.committed, number)

    @rule()
    def end_prologue(self) -> None:
        if self.prologue is None:
            self.prologue = list(self.sent)
        self.log.end_prologue(self.sent[-1] if self.sent else 0)

    @invariant()
    def in_order(self) -> None:
        prologue = self.prologue or []
        beyond = [number for number in self.sent if number not in prologue]
        assert beyond == sorted(set(beyond))
        assert self.log.kept_bytes <= 20 * (HEAD + 1)

    @invariant()
    def nothing_is_lost_that_was_not_counted(self) -> None:
        # What a next process would get, and what nobody needs any more, is everything.
        kept = {m.number for m in [*self.log._sent, *self.log._unsent]}
        prologue = set(self.prologue or [])
        covered = kept | prologue | set(range(1, self.committed + 1))
        missing = set(range(1, self.next_number)) - covered
        assert len(missing) <= self.given_up


TestMemory = Memory.TestCase
