"""A listener's end: what was on its way to it gets a RST or is forgotten, and its number serves another."""

import pytest
from peer import Peer

from mpserve.dataplane.events import Command, Event
from mpserve.dataplane.tcp.state import State
from mpserve.testing.stack import listen


def waiting_stack(make_stack, **settings):
    """A stack whose channel accepts nothing by itself."""
    stack = make_stack(**settings)
    stack.core.arrays["listeners"][0].accepts = 0
    return stack


def test_who_waits_is_reset(make_stack):
    stack = waiting_stack(make_stack)
    peers = [Peer(stack).establish() for _ in range(2)]
    stack.ask(Command.STOP_LISTENING, 0, 0)
    for peer in peers:
        peer.recv(flags="RA")
    assert stack.events == [], "the channel has never heard of them"


def test_who_is_accepted_stays(make_stack):
    stack = make_stack()
    peer = Peer(stack).establish()
    stack.ask(Command.STOP_LISTENING, 0, 0)
    peer.nothing()
    peer.send(0, data=b"still here")
    assert peer.kinds() == [Event.ACCEPT, Event.READ]


def test_new_ones_are_refused(stack):
    stack.ask(Command.STOP_LISTENING, 0, 0)
    peer = Peer(stack)
    peer.send(0, flags="S")
    peer.recv(flags="RA")


def test_a_handshake_begun_is_forgotten(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    stack.ask(Command.STOP_LISTENING, 0, 0)
    peer.send(0)
    peer.recv(flags="R")
    assert stack.events == []


def test_one_that_waits_for_data_is_reset(make_stack):
    stack = waiting_stack(make_stack)
    stack.core.arrays["listeners"][0].defer_ms = 5000
    peer = Peer(stack).establish()
    stack.ask(Command.STOP_LISTENING, 0, 0)
    peer.recv(flags="RA")
    assert stack.events == []


def test_one_that_ended_while_it_waited_gives_its_slot_back(make_stack):
    stack = waiting_stack(make_stack, max_connections=1)
    Peer(stack).establish().send(0, flags="R")
    stack.ask(Command.STOP_LISTENING, 0, 0)
    listen(stack.core, 7)
    assert Peer(stack).establish().state == State.ESTABLISHED


def test_the_number_serves_another(make_stack):
    stack = waiting_stack(make_stack)
    Peer(stack).establish()
    early = Peer(stack).reach(State.SYN_RECEIVED)
    stack.ask(Command.STOP_LISTENING, 0, 0)
    assert listen(stack.core, 7, accepts=5) == 0
    early.send(0)
    early.recv(flags="R")
    assert Peer(stack).establish().kinds() == [Event.ACCEPT]


@pytest.mark.parametrize("number", [5, 64, 1 << 40, -1])
def test_none_there_to_end(stack, number):
    stack.ask(Command.STOP_LISTENING, number, 0)
    assert stack.counter("stale_commands") == 1
