"""The ways out: every closing sequence of RFC 9293 section 3.6, and what the channel is told."""

import pytest
from peer import SYNCHRONIZED, TICK, Peer

from mpserve.dataplane.events import Command, Event, Reason
from mpserve.dataplane.tcp.state import State

ACCEPT, READ, EOF, CLOSED = Event.ACCEPT, Event.READ, Event.EOF, Event.CLOSED


def test_close_by_this_side_first(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.CLOSE)
    peer.recv(0, flags="FA", seq=1, ack=1)
    assert peer.state == State.FIN_WAIT_1
    peer.send(0)
    assert peer.state == State.FIN_WAIT_2
    peer.send(0, flags="FA")
    peer.recv(0, flags="A", seq=2, ack=2)
    assert peer.state == State.TIME_WAIT
    assert peer.kinds() == [ACCEPT, CLOSED]


def test_close_by_the_peer_first(stack):
    peer = Peer(stack).establish()
    peer.send(0, flags="FA")
    peer.recv(0, flags="A", seq=1, ack=2)
    assert peer.state == State.CLOSE_WAIT
    peer.ask(Command.CLOSE)
    peer.recv(0, flags="FA", seq=1, ack=2)
    assert peer.state == State.LAST_ACK
    peer.send(0)
    assert peer.state == State.CLOSED
    assert peer.kinds() == [ACCEPT, EOF, CLOSED]


def test_fin_and_its_ack_in_one_segment(stack):
    peer = Peer(stack).reach(State.FIN_WAIT_1)
    peer.send(0, flags="FA")
    peer.recv(0, flags="A", seq=2, ack=2)
    assert peer.state == State.TIME_WAIT
    assert peer.kinds() == [ACCEPT, EOF, CLOSED]


def test_simultaneous_close(stack):
    peer = Peer(stack).reach(State.CLOSING)
    assert peer.state == State.CLOSING
    peer.send(0, ack=2)
    assert peer.state == State.TIME_WAIT
    assert peer.kinds() == [ACCEPT, EOF, CLOSED]


def test_shutdown_sends_fin_after_what_was_written(stack):
    peer = Peer(stack).establish()
    stack.command(Command.WRITE, peer.handle, b"bye")
    peer.ask(Command.SHUTDOWN)
    peer.recv(0, flags="PA", data=b"bye")
    peer.recv(0, flags="FA", seq=4)
    peer.send(0)
    assert peer.state == State.FIN_WAIT_2


@pytest.mark.parametrize("length", [1, 1460, 4000])
def test_after_shutdown_the_peer_may_still_send(stack, length):
    """Half-close: each ACK in FIN_WAIT_2 is a plain ACK, with no second FIN."""
    peer = Peer(stack).reach(State.FIN_WAIT_2)
    for start in range(0, length, 1460):
        peer.send(stack.at(), data=b"x" * min(1460, length - start))
    peer.recv(stack.at() + 50_000, flags="A", seq=2)
    assert len(peer.take()) == length
    assert peer.state == State.FIN_WAIT_2


def test_after_the_peers_fin_this_side_may_still_send(stack):
    peer = Peer(stack).reach(State.CLOSE_WAIT)
    peer.write(b"still here")
    peer.recv(0, flags="PA", data=b"still here", ack=2)
    peer.send(0)
    peer.ask(Command.CLOSE)
    peer.recv(0, flags="FA", seq=11)


def test_write_after_shutdown_is_ignored(stack):
    peer = Peer(stack).reach(State.FIN_WAIT_2)
    peer.write(b"too late")
    peer.nothing(5_000_000)
    assert peer.tcb.snd_queued == 0


def test_closing_twice_sends_one_fin(stack):
    peer = Peer(stack).establish()
    for op in (Command.SHUTDOWN, Command.SHUTDOWN, Command.CLOSE, Command.CLOSE):
        stack.command(op, peer.handle)
    stack.run(0)
    peer.recv(0, flags="FA", seq=1)
    peer.nothing()


def test_data_after_close_is_acked_and_dropped(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.CLOSE)
    peer.recv(0, flags="FA")
    peer.send(0, data=b"unread")
    peer.recv(50_000, flags="A", ack=7)
    assert (peer.take(), stack.counter("drop_after_close")) == (b"", 1)


@pytest.mark.parametrize("flags", ["PA", "FPA"])
def test_close_with_unread_data_resets(stack, flags):
    """RFC 1122 section 4.2.2.13, RFC 2525 section 2.17: the peer shall know that data was lost."""
    peer = Peer(stack).establish()
    peer.ask(Command.PAUSE)
    peer.send(0, flags=flags, data=b"unread")
    free = int(stack.core.record.free_block_count)
    peer.ask(Command.CLOSE)
    peer.drain()
    assert peer.state == State.CLOSED and stack.counter("rsts_sent") == 1
    assert stack.core.record.free_block_count == free + 1
    assert peer.closed_reason() == Reason.ABORTED


def test_close_with_unread_data_and_last_words_sends_them(stack):
    """A RST could overtake what was written and is not acknowledged."""
    peer = Peer(stack).establish()
    peer.ask(Command.PAUSE)
    peer.send(0, data=b"unread")
    stack.command(Command.WRITE, peer.handle, b"last words")
    peer.ask(Command.CLOSE)
    peer.recv(0, flags="PA", data=b"last words")
    peer.recv(0, flags="FA")
    assert stack.counter("rsts_sent") == 0


def test_eof_comes_after_all_data_when_paused(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.PAUSE)
    peer.send(0, flags="FA", data=b"last words")
    assert peer.kinds() == [ACCEPT]
    peer.ask(Command.RESUME)
    assert peer.events[0].data == b"last words"
    assert peer.kinds() == [READ, EOF]


def test_unread_data_outlives_the_connection(stack):
    """Both FINs are done while the channel pauses: what arrived is still given, then EOF, then CLOSED."""
    peer = Peer(stack).establish()
    peer.ask(Command.PAUSE)
    peer.send(0, flags="FA", data=b"last words")
    peer.ask(Command.SHUTDOWN)
    peer.send(0, ack=2)
    assert peer.kinds() == [ACCEPT]
    peer.ask(Command.RESUME)
    assert peer.events[0].data == b"last words"
    assert peer.kinds() == [READ, EOF, CLOSED]


def test_abort_of_what_has_closed_already_sends_nothing(stack):
    """In TIME_WAIT an ABORT only forgets (RFC 9293 section 3.10.5)."""
    peer = Peer(stack).reach(State.FIN_WAIT_2)
    peer.ask(Command.PAUSE)
    peer.send(0, flags="FA", data=b"unread")
    peer.recv(0, flags="A")
    peer.ask(Command.ABORT)
    peer.nothing()
    assert peer.kinds() == [ACCEPT, CLOSED]
    assert peer.state == State.TIME_WAIT


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_abort_sends_a_rst(stack, state):
    peer = Peer(stack).reach(state)
    peer.ask(Command.ABORT)
    peer.recv(0, flags="RA")
    assert peer.state == State.CLOSED
    assert peer.closed_reason() == Reason.ABORTED
    assert stack.counter("rsts_sent") == 1


@pytest.mark.parametrize("state", [State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK])
def test_a_fin_is_sent_again(stack, state):
    peer = Peer(stack).reach(state)
    peer.recv(200_000 + TICK, flags="FA", seq=1)
    peer.recv(600_000 + 2 * TICK, flags="FA", seq=1)
    peer.send(stack.at(), ack=2)
    assert peer.state in (State.FIN_WAIT_2, State.TIME_WAIT, State.CLOSED)
    peer.nothing(stack.at() + 10_000_000)


def test_a_lost_fin_behind_data_is_sent_again_at_a_partial_ack(stack):
    peer = Peer(stack).establish()
    stack.command(Command.WRITE, peer.handle, b"x" * 1460)
    peer.ask(Command.CLOSE)
    peer.drain()
    peer.recv(200_000 + TICK, seq=1, length=1460)
    peer.send(stack.at(), ack=1461)
    peer.recv(stack.at() + 500_000, flags="FA", seq=1461)


def test_a_closed_handle_leaves_fin_wait_2_after_a_minute(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.CLOSE)
    peer.recv(0, flags="FA")
    peer.send(0)
    peer.nothing(59_900_000)
    assert peer.state == State.FIN_WAIT_2
    peer.nothing(60_000_000 + TICK)
    assert peer.state == State.CLOSED
    assert peer.closed_reason() == Reason.FINISHED


def test_an_unreachable_peer_in_fin_wait_2_gets_no_second_fin(stack):
    """Its data can't be acknowledged while nobody answers for its address; the timer that then runs must not send a FIN."""
    peer = Peer(stack).reach(State.FIN_WAIT_2)
    stack.run(70_000_000)
    for _ in range(6):
        peer.send(stack.at() + 2_000_000, data=b"x" * 3000)
    assert stack.counter("drop_unresolved") > 0
    assert "FA" not in [seen["flags"] for seen in peer.drain(stack.at() + 10_000_000)]
    assert peer.state == State.FIN_WAIT_2


def test_an_open_handle_stays_in_fin_wait_2(stack):
    peer = Peer(stack).reach(State.FIN_WAIT_2)
    peer.nothing(200_000_000)
    assert peer.state == State.FIN_WAIT_2
    peer.ask(Command.CLOSE)
    peer.nothing(261_000_000)
    assert peer.state == State.CLOSED


def test_a_closed_handle_whose_peer_never_reads_is_given_up(stack):
    """A peer that keeps its window closed, and answers every probe, can't hold an abandoned connection for ever."""
    peer = Peer(stack).establish()
    stack.command(Command.WRITE, peer.handle, b"x" * 3000)
    peer.ask(Command.CLOSE)
    peer.drain()
    peer.send(0, ack=1, window=0)
    while peer.state != State.CLOSED:
        peer.drain(stack.at() + 5_000_000)
        if stack.at() < 60_000_000:
            peer.send(stack.at(), ack=1, window=0)
    assert 60_000_000 <= stack.at() <= 65_000_000
    assert peer.closed_reason() == Reason.TIMED_OUT


def test_a_closed_handle_whose_peer_reads_slowly_is_not_given_up(stack):
    peer = Peer(stack, window=1460).establish(options=b"\x02\x04\x05\xb4")
    stack.command(Command.WRITE, peer.handle, b"x" * 7300)
    peer.ask(Command.CLOSE)
    for sent in (1, 2, 3, 4):
        peer.drain(stack.at() + 25_000_000)
        peer.send(stack.at(), ack=1 + sent * 1460)
    peer.recv(seq=1 + 4 * 1460)
    peer.recv(flags="FA")
    assert peer.state == State.FIN_WAIT_1


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_closed_is_told_once_and_the_handle_is_stale_after(stack, state):
    peer = Peer(stack).reach(state)
    peer.send(0, flags="R")
    assert peer.closed_reason() == Reason.RESET
    old = peer.handle
    for op in Command:
        if op != Command.ACCEPT:
            stack.command(op, old, 1)
    stack.run(0)
    assert stack.counter("stale_commands") == len(Command) - 1
    assert peer.closed_reason() == Reason.RESET
    peer.nothing()


def test_a_slot_comes_back_under_another_generation(make_stack):
    stack = make_stack(max_connections=1)
    handles = set()
    for _ in range(5):
        peer = Peer(stack).establish()
        handles.add(peer.handle)
        assert peer.slot == 0
        peer.send(stack.at(), flags="R")
        stack.run(stack.at())
    assert len(handles) == 5


def test_commands_in_the_batch_after_the_end_are_harmless(stack):
    """The connection ends while commands for it are on their way."""
    peer = Peer(stack).establish()
    stack.command(Command.ABORT, peer.handle)
    stack.command(Command.WRITE, peer.handle, b"x")
    peer.ask(Command.CLOSE)
    peer.recv(0, flags="RA")
    peer.nothing()
    assert peer.kinds() == [ACCEPT, CLOSED]
