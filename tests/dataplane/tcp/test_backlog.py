"""The SYN backlog, the accept queue and the connection table: how they fill, and what happens when they are full."""

from peer import TICK, Peer

from mpserve.dataplane.events import Command, Event
from mpserve.dataplane.tcp.state import State
from mpserve.testing.stack import listen


def waiting_stack(make_stack, **settings):
    """A stack whose channel accepts nothing by itself."""
    stack = make_stack(**settings)
    stack.core.arrays["listeners"][0].accepts = 0
    return stack


def test_a_full_backlog_remembers_no_more(make_stack):
    stack = make_stack(syn_backlog=2)
    peers = [Peer(stack) for _ in range(3)]
    for peer in peers:
        peer.send(0, flags="S")
    assert [peer.state for peer in peers] == [State.SYN_RECEIVED, State.SYN_RECEIVED, State.CLOSED]
    assert stack.counter("backlog_full") == 1
    peers[0].recv(flags="SA")
    peers[0].send(0)
    peers[2].send(0, flags="S", seq=0)
    assert peers[2].state == State.SYN_RECEIVED


def test_every_syn_ack_is_sent_again_however_many_are_due_at_once(make_stack):
    """More than there are control frames in a turn."""
    stack = make_stack(syn_backlog=600)
    peers = [Peer(stack) for _ in range(600)]
    for number in range(0, 600, 100):
        stack.give(*(peer.frame("S") for peer in peers[number : number + 100]))
    for peer in peers:
        peer.recv(flags="SA")
    stack.run(1_000_000 + 6 * TICK)
    assert [len(peer.inbox) for peer in peers] == [1] * 600
    assert (stack.counter("syn_acks_resent"), stack.counter("drop_control_full")) == (600, 0)


def test_an_accept_takes_the_oldest_that_waits(make_stack):
    stack = waiting_stack(make_stack)
    peers = [Peer(stack).establish() for _ in range(3)]
    assert stack.events == []
    stack.ask(Command.ACCEPT, 0, 2)
    assert [(e.kind, e.handle, e.b) for e in stack.events] == [
        (Event.ACCEPT, peers[0].handle, 2),
        (Event.ACCEPT, peers[1].handle, 1),
    ]
    stack.ask(Command.ACCEPT, 0, 2)
    assert stack.events[-1].handle == peers[2].handle
    later = Peer(stack).establish()
    assert stack.events[-1].handle == later.handle, "one accept was left over"


def test_data_waits_with_its_connection(make_stack):
    stack = waiting_stack(make_stack)
    peer = Peer(stack).establish()
    peer.send(0, flags="FA", data=b"early")
    assert stack.events == []
    stack.ask(Command.ACCEPT, 0, 1)
    assert peer.events[1].data == b"early"
    assert peer.kinds() == [Event.ACCEPT, Event.READ, Event.EOF]


def test_a_full_accept_queue_leaves_the_handshake_open(make_stack):
    stack = waiting_stack(make_stack, accept_queue=1)
    Peer(stack).establish()
    second = Peer(stack).reach(State.SYN_RECEIVED)
    second.send(0)
    assert second.state == State.SYN_RECEIVED
    assert stack.counter("drop_accept_full") == 1
    stack.ask(Command.ACCEPT, 0, 1)
    second.recv(1_000_000 + TICK, flags="SA")
    second.send(stack.at())
    stack.ask(Command.ACCEPT, 0, 1)
    assert second.state == State.ESTABLISHED


def test_who_gave_up_while_waiting_is_not_accepted(make_stack):
    stack = waiting_stack(make_stack)
    gone, there = Peer(stack).establish(), Peer(stack).establish()
    gone.send(0, flags="R")
    stack.ask(Command.ACCEPT, 0, 1)
    assert [event.handle for event in stack.events] == [there.handle]


def test_a_slot_that_ended_in_its_first_life_waits_safely_in_its_second(make_stack):
    """Listed for events when its slot was released, a connection in the accept queue must not be ended by that listing."""
    stack = make_stack(max_connections=1)
    listen(stack.core, 80, accepts=0)
    first = Peer(stack).reach(State.FIN_WAIT_2)
    first.ask(Command.PAUSE)
    first.send(0, flags="FA", data=b"unread")
    second = Peer(stack, to_port=80).reach(State.SYN_RECEIVED)
    stack.command(Command.RESUME, first.handle)
    assert [event.kind for event in stack.turn()] == [Event.READ, Event.EOF, Event.CLOSED]
    stack.wire.deliver(second.frame("A"))
    stack.wire.deliver(second.frame("R"))
    stack.run(0)
    assert [event.kind for event in stack.events[1:]] == []
    stack.ask(Command.ACCEPT, 1, 1)
    stack.run(0)
    assert stack.core.record.free_slot_count == 1


def test_a_full_connection_table_leaves_the_handshake_open(make_stack):
    stack = make_stack(max_connections=2)
    Peer(stack).establish(), Peer(stack).establish()
    third = Peer(stack).reach(State.SYN_RECEIVED)
    third.send(0)
    assert (third.state, stack.counter("drop_connections_full")) == (State.SYN_RECEIVED, 1)


def test_more_accepts_than_a_batch_holds(make_stack):
    stack = waiting_stack(make_stack, accept_queue=32, event_batch=4)
    peers = [Peer(stack).establish() for _ in range(30)]
    stack.command(Command.ACCEPT, 0, 25)
    largest = 0
    while events := stack.turn():
        largest = max(largest, len(events))
        stack._take(events)
    assert [event.handle for event in stack.events] == [peer.handle for peer in peers[:25]]
    assert largest == 4
    stack.ask(Command.ACCEPT, 0, 10)
    assert len(stack.events) == 30


def test_accepts_of_a_listener_that_is_not_there_are_counted(stack):
    for number in (-1, 5, 64, 1 << 40):
        stack.ask(Command.ACCEPT, number, 1)
    assert stack.counter("stale_commands") == 4
