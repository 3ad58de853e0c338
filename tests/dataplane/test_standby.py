"""Turns while Python is away: TCP goes on, the events wait, in virtual time."""

import pytest
from peer import MSS_1460, SCALE_7, Peer, pattern

from mpserve.dataplane.core import ipv4
from mpserve.dataplane.events import Command, Event, Reason
from mpserve.dataplane.layout import V4_MAPPED
from mpserve.dataplane.sharing import PYTHON
from mpserve.dataplane.standby import standby_turn
from mpserve.dataplane.tcp.connect import connect
from mpserve.dataplane.tcp.state import State

MSS = 1460


def away(stack, *frames):
    """These frames arrive while Python is away; what leaves."""
    for frame in frames:
        stack.wire.deliver(frame)
    assert standby_turn(stack.core.address) == 1
    stack.core.check()
    return stack.wire.collect()


def let_pass(stack, microseconds):
    """Time passes, and the standby turns every millisecond; how many frames leave."""
    left = []
    for _ in range(microseconds // 1000):
        stack.now += 1000
        left += away(stack)
    return left


@pytest.fixture
def peer(stack):
    return Peer(stack).establish()


def test_data_is_acknowledged_and_delivered_later(stack, peer):
    frames = [peer.frame(data=pattern(MSS)), peer.frame(data=pattern(MSS))]
    assert len(away(stack, *frames)) == 1
    assert peer.events[1:] == [] and stack.core.record.event_count == 0
    stack.run(stack.at())
    assert peer.take() == pattern(MSS) * 2


def test_the_window_closes_at_last_and_opens_again(make_stack):
    stack = make_stack(rcvbuf_bytes=8192)
    peer = Peer(stack).establish()
    data = pattern(8192)
    for start in range(0, 8192, 1024):
        away(stack, peer.frame(data=data[start : start + 1024]))
    let_pass(stack, 100_000)
    assert peer.room == 0
    stack.run(stack.at())
    assert peer.take() == data
    assert peer.room > 0


def test_what_is_lost_is_sent_again(stack, peer):
    peer.write(pattern(1000))
    peer.drain()
    before = stack.counter("retransmits")
    assert let_pass(stack, 2_000_000)
    assert stack.counter("retransmits") > before


def test_a_connection_is_accepted_later(stack):
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460 + SCALE_7)
    peer.recv(0, flags="SA")
    away(stack, peer.frame(flags="A"), peer.frame(data=b"hello"))
    assert peer.handle == 0
    stack.run(stack.at())
    assert [event.kind for event in peer.events] == [Event.ACCEPT, Event.READ]
    assert peer.take() == b"hello"


def test_a_connect_is_completed_later(stack):
    stack.give(Peer(stack).establish().frame())  # its host's MAC is known now
    handle = connect(stack.core.address, V4_MAPPED | ipv4("10.9.0.1"), 99, 5000)
    peer = Peer(stack, port=99, to_port=5000)
    peer.handle = handle
    peer.recv(flags="S")
    away(stack, peer.frame(flags="SA", seq=0, ack=1, options=MSS_1460), peer.frame(data=b"x"))
    assert peer.events == []
    stack.run(stack.at())
    assert [(event.kind, event.a) for event in peer.events][0] == (Event.CONNECT, 0)
    assert peer.take() == b"x"


def test_an_end_is_told_later_and_its_slot_not_given_away(stack, peer):
    slot = peer.slot
    away(stack, peer.frame(flags="RA"))
    other = Peer(stack)
    away(stack, other.frame(flags="S", options=MSS_1460))
    peer.ask(Command.WRITE, b"into nothing")
    assert peer.closed_reason() == Reason.RESET
    assert peer.state == State.CLOSED
    assert stack.counter("stale_commands") == 0, slot


def test_a_core_that_python_turns_is_left_alone(stack):
    stack.core.record.owner = PYTHON
    assert standby_turn(stack.core.address) == 0
    stack.core.record.owner = 0
