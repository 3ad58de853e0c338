"""The checks of RFC 9293 section 3.10.7.4, one by one, in the states that they apply to."""

import pytest
from peer import MSS_1460, SCALE_7, SYNCHRONIZED, Peer

from mpserve.dataplane.events import Command, Event, Reason
from mpserve.dataplane.tcp.state import State

WINDOW = 8192


@pytest.fixture
def stack(make_stack):
    return make_stack(rcvbuf_bytes=WINDOW)


def close_the_window(peer):
    """Pause, and fill the window that is open."""
    peer.ask(Command.PAUSE)
    while peer.room:
        peer.send(0, data=b"x" * min(peer.room, 1460))
    return peer.drain(50_000)[-1]["window"]


# -- first, the sequence number


@pytest.mark.parametrize("state", SYNCHRONIZED)
@pytest.mark.parametrize("where", ["before", "after"])
def test_outside_the_window_is_acked_and_dropped(stack, state, where):
    peer = Peer(stack).reach(state)
    expected = peer.snd_nxt
    peer.send(0, seq=expected - 4 if where == "before" else expected + peer.room, ack=1, data=b"late")
    peer.recv(0, flags="A", ack=expected)
    assert peer.state == state
    assert peer.take() == b""
    assert stack.counter("drop_duplicate" if where == "before" else "drop_out_of_window") == 1


def test_the_last_byte_of_the_window_is_kept_and_the_next_is_not(stack):
    peer = Peer(stack).establish()
    peer.send(0, seq=1 + WINDOW - 1, data=b"xyz")
    peer.recv(0, flags="A", ack=1)
    assert stack.counter("out_of_order") == 1
    assert [int(b.end) for b in stack.core.arrays["blocks"] if b.end] == [1], "trimmed to the window"


def test_the_front_that_was_received_is_trimmed(stack):
    peer = Peer(stack).establish()
    peer.send(0, data=b"abcd")
    peer.send(0, seq=3, data=b"cdef")
    assert peer.take() == b"abcdef"


def test_a_fin_beyond_the_window_is_trimmed(stack):
    peer = Peer(stack).establish()
    close_the_window(peer)
    peer.send(0, flags="FA")
    peer.recv(0, flags="A", ack=1 + WINDOW, window=0)
    assert peer.state == State.ESTABLISHED


def test_the_ack_of_text_in_a_closed_window_counts(stack):
    peer = Peer(stack).establish()
    peer.write(b"reply")
    peer.recv(0, length=5)
    assert close_the_window(peer) == 0
    peer.send(0, data=b"x", ack=6)
    peer.recv(0, flags="A", ack=1 + WINDOW, window=0)
    assert peer.tcb.snd_queued == 0
    assert stack.counter("drop_window_overrun") == 1


def test_an_ack_at_the_closed_window_is_taken(stack):
    peer = Peer(stack).establish()
    peer.write(b"reply")
    peer.recv(0, length=5)
    close_the_window(peer)
    peer.send(0, ack=6)
    peer.nothing()
    assert peer.tcb.snd_queued == 0


def test_a_keepalive_is_answered(stack):
    peer = Peer(stack).establish()
    peer.send(0, seq=0)
    peer.recv(0, flags="A", seq=1, ack=1)


# -- second, RST


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_a_rst_at_rcv_nxt_ends_the_connection(stack, state):
    peer = Peer(stack).reach(state)
    peer.send(0, flags="R")
    peer.nothing()
    assert peer.state == State.CLOSED
    assert peer.closed_reason() == Reason.RESET


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_a_rst_elsewhere_in_the_window_gets_a_challenge_ack(stack, state):
    peer = Peer(stack).reach(state)
    peer.inbox.clear()
    peer.send(0, flags="R", seq=peer.snd_nxt + 1)
    peer.recv(0, flags="A")
    assert peer.state == state
    assert stack.counter("challenge_acks") == 1


@pytest.mark.parametrize("offset", [-1, WINDOW])
def test_a_rst_outside_the_window_is_dropped(stack, offset):
    peer = Peer(stack).establish()
    peer.send(0, flags="R", seq=1 + offset)
    peer.nothing()
    assert peer.state == State.ESTABLISHED
    assert stack.counter("drop_out_of_window") == 1


def test_a_rst_is_not_trimmed_into_place(stack):
    """A RST whose text covers rcv_nxt does not begin there: a blind attacker would need one guess where it has 1460."""
    peer = Peer(stack).establish()
    peer.send(0, flags="R", seq=1 - 700, data=bytes(1460))
    assert peer.state == State.ESTABLISHED
    peer.recv(0, flags="A", ack=1)


def test_a_rst_into_a_closed_window_is_taken_at_rcv_nxt_only(stack):
    peer = Peer(stack).establish()
    close_the_window(peer)
    peer.send(0, flags="R", seq=WINDOW)
    assert peer.state == State.ESTABLISHED
    peer.send(0, flags="R", seq=1 + WINDOW)
    assert peer.closed_reason() == Reason.RESET


@pytest.mark.parametrize("closed", [False, True])
def test_a_rst_may_have_text(stack, closed):
    """RFC 9293 section 3.5.3; into a closed window too (section 3.10.7.4: RSTs are processed all the same)."""
    peer = Peer(stack).establish()
    if closed:
        assert close_the_window(peer) == 0
    peer.send(stack.at(), flags="R", data=b"out of memory")
    assert peer.closed_reason() == Reason.RESET
    assert b"memory" not in peer.take()


# -- fourth, SYN


@pytest.mark.parametrize("flags", ["S", "SA"])
@pytest.mark.parametrize("seq", [0, 1, 100])
def test_a_syn_gets_a_challenge_ack(stack, flags, seq):
    peer = Peer(stack).establish()
    peer.send(0, flags=flags, seq=seq)
    peer.recv(0, flags="A", seq=1, ack=1)
    assert peer.state == State.ESTABLISHED


# -- fifth, ACK


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_without_ack_dropped(stack, state):
    peer = Peer(stack).reach(state)
    peer.send(0, flags="P", data=b"x")
    peer.nothing()
    assert (peer.take(), peer.state, stack.counter("drop_no_ack")) == (b"", state, 1)


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_an_ack_of_what_was_not_sent_is_answered_and_dropped(stack, state):
    peer = Peer(stack).reach(state)
    ahead = int(peer.tcb.snd_nxt) - peer.stack_iss + 1
    expected = peer.snd_nxt
    peer.send(0, ack=ahead, data=b"x")
    peer.recv(0, flags="A", ack=expected)
    assert (peer.take(), peer.state, stack.counter("drop_ack_unsent")) == (b"", state, 1)


def test_with_an_old_ack_the_text_counts(stack):
    peer = Peer(stack).establish()
    peer.write(b"abc")
    peer.recv(0)
    peer.send(0, ack=4)
    peer.send(0, ack=1, data=b"text", window=1)
    assert peer.take() == b"text"
    assert peer.tcb.snd_wnd != 1 << 7, "an old ACK does not change the window"


def test_a_reordered_window_does_not_replace_a_newer_one(stack):
    peer = Peer(stack).establish()
    peer.send(0, data=b"ab", window=500)
    peer.send(0, seq=1, data=b"a", window=100)
    assert peer.tcb.snd_wnd == 500 << 7


# -- sixth and seventh, URG and text


def test_urgent_data_is_delivered_in_line(stack):
    peer = Peer(stack).establish()
    peer.send(0, flags="UA", data=b"urgent")
    assert peer.take() == b"urgent"


def test_urgent_data_may_be_of_any_length_and_come_when_nothing_is_taken(stack):
    """RFC 9293 section 3.8.5; the flag changes nothing, so a closed window holds urgent data back like any other."""
    peer = Peer(stack).establish()
    for _ in range(20):
        peer.send(0, flags="UA", data=b"urgent" * 100)
    assert peer.take() == b"urgent" * 2000
    close_the_window(peer)
    peer.send(stack.at(), flags="UA", data=b"!")
    peer.recv(stack.at(), flags="A", window=0)
    assert peer.state == State.ESTABLISHED


def test_text_beyond_a_fin_is_dropped(stack):
    """RFC 9293: 'This should not occur, since a FIN has been received'; no READ may follow the EOF."""
    peer = Peer(stack).reach(State.CLOSE_WAIT)
    assert peer.kinds() == [Event.ACCEPT, Event.EOF]
    peer.send(0, data=b"beyond")
    assert peer.kinds() == []
    assert peer.tcb.rcv_nxt == (peer.iss + 2) % 2**32


# -- eighth, FIN


def test_a_fin_repeated_is_acked_again(stack):
    peer = Peer(stack).reach(State.CLOSE_WAIT)
    peer.send(0, flags="FA", seq=1)
    peer.recv(0, flags="A", ack=2)
    assert peer.kinds() == [Event.ACCEPT, Event.EOF]


def test_a_fin_with_a_gap_before_it_waits(stack):
    peer = Peer(stack).establish()
    peer.send(0, flags="FA", seq=4, data=b"def")
    peer.recv(0, ack=1)
    peer.send(0, seq=1, data=b"abc")
    peer.recv(0, ack=8)
    assert (peer.take(), peer.state) == (b"abcdef", State.CLOSE_WAIT)


def test_simultaneous_checks_of_a_mixed_burst(stack):
    peer = Peer(stack).establish(MSS_1460 + SCALE_7)
    peer.burst(0, dict(data=b"a"), dict(flags="R", seq=3), dict(flags="S", seq=9), dict(seq=2, data=b"b"))
    assert peer.take() == b"ab"
    peer.recv(0, flags="A", ack=3)
    peer.nothing()


# -- RFC 5961: what a blind attacker can send


def test_an_ack_older_than_any_window_is_challenged_and_dropped(stack):
    """Section 5.2: data in the window, with an acknowledgment number that was guessed."""
    peer = Peer(stack, window=1000).establish()
    limit = int(peer.tcb.max_wnd)
    peer.send(0, ack=1 - limit - 1, data=b"guess")
    peer.recv(0, flags="A", ack=1)
    assert peer.take() == b"" and stack.counter("drop_ack_too_old") == 1
    peer.send(0, seq=1, ack=1 - limit, data=b"late")
    assert peer.take() == b"late"


def test_challenge_acks_are_so_many_a_second(stack):
    """Section 7."""
    peer = Peer(stack).establish()
    for _ in range(1100):
        peer.send(0, flags="R", seq=5)
        peer.inbox.clear()
    assert stack.counter("challenge_acks") == 1000 and stack.counter("challenge_acks_held") == 100
    peer.send(1_200_000, flags="R", seq=5)
    peer.recv(1_200_000, flags="A", ack=1)
