"""Events: their order for each handle, payload in the arena, batches, the handler's timeout."""

from peer import TICK, Peer, pattern

from mpserve.dataplane.events import Command, Event
from mpserve.dataplane.tcp.state import State


def test_segments_of_one_burst_become_one_read(stack):
    peer = Peer(stack).establish()
    peer.burst(0, *[dict(data=pattern(100, 100 * n)) for n in range(5)])
    assert [len(event.data) for event in peer.events[1:]] == [500]


def test_two_connections_in_turn_become_reads_in_turn(stack):
    a, b = Peer(stack).establish(), Peer(stack).establish()
    stack.give(a.frame(data=b"a1"), b.frame(data=b"b1"), a.frame(data=b"a2"), a.frame(data=b"a3"))
    assert [event.data for event in stack.events[2:]] == [b"a1", b"b1", b"a2a3"]


def test_a_batch_is_bounded_and_the_rest_comes_next(make_stack):
    stack = make_stack(event_batch=4, blocks=64)
    peers = [Peer(stack).establish() for _ in range(30)]
    for _ in range(3):
        for peer in peers:
            stack.wire.deliver(peer.frame(data=b"x"))
    sizes = []
    while events := stack.turn():
        sizes.append(len(events))
        stack._take(events)
    assert max(sizes) <= 4 + 32
    assert [peer.take() for peer in peers] == [b"xxx"] * 30


def test_data_eof_and_closed_in_one_batch_are_in_order(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.SHUTDOWN)
    peer.recv(flags="FA")
    stack.give(peer.frame("A", data=b"end"), peer.frame("FA"))
    assert peer.kinds() == [Event.ACCEPT, Event.READ, Event.EOF, Event.CLOSED]


def test_a_rst_behind_data_comes_behind_it(stack):
    peer = Peer(stack).establish()
    stack.give(peer.frame("A", data=b"end"), peer.frame("R"))
    assert peer.kinds() == [Event.ACCEPT, Event.READ, Event.CLOSED]


def test_the_timeout_counts_from_the_last_data(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.TIMEOUT, 500_000)
    peer.send(400_000, data=b"x")
    peer.drain(900_000 - 1)
    assert Event.TIMEOUT not in peer.kinds()
    peer.drain(900_000 + TICK)
    assert peer.kinds() == [Event.TIMEOUT]
    peer.drain(1_400_000 + 2 * TICK)
    assert peer.kinds() == [Event.TIMEOUT], "again, until it is set to 0"
    peer.ask(Command.TIMEOUT, 0)
    peer.drain(5_000_000)
    assert peer.kinds() == []


def test_an_ack_alone_does_not_put_the_timeout_off(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.TIMEOUT, 500_000)
    peer.send(400_000)
    stack.run(500_000 + TICK)
    assert peer.kinds() == [Event.ACCEPT, Event.TIMEOUT]


def test_a_closed_handle_has_no_timeout(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.TIMEOUT, 500_000)
    peer.ask(Command.CLOSE)
    peer.drain(1_000_000)
    assert peer.kinds() == [Event.ACCEPT]
    assert peer.state == State.FIN_WAIT_1


def test_a_batch_of_reads_keeps_the_payload_of_each(stack):
    peers = [Peer(stack).establish() for _ in range(8)]
    stack.give(*[peer.frame(data=pattern(1460, 7 * n)) for n, peer in enumerate(peers)])
    assert [peer.take() for peer in peers] == [pattern(1460, 7 * n) for n in range(8)]
