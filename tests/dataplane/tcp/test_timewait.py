"""TIME_WAIT: how long it lasts, what it answers, when its four-tuple may be used again, what happens when it is full."""

from peer import MSS_1460, TICK, Peer

from mpserve.dataplane.tcp.state import State

TWO_MSL = 2_000_000


def test_it_lasts_two_maximum_segment_lifetimes(stack):
    peer = Peer(stack).reach(State.TIME_WAIT)
    peer.nothing(TWO_MSL - 1)
    assert peer.state == State.TIME_WAIT
    peer.nothing(TWO_MSL + TICK)
    assert peer.state == State.CLOSED
    peer.send(stack.at(), ack=2)
    peer.recv(flags="R", seq=2)


def test_a_repeated_fin_is_acked_and_restarts_the_wait(stack):
    peer = Peer(stack).reach(State.TIME_WAIT)
    peer.send(1_500_000, flags="FA", seq=1)
    peer.recv(flags="A", seq=2, ack=2)
    peer.nothing(1_500_000 + TWO_MSL - 1)
    assert peer.state == State.TIME_WAIT
    peer.nothing(1_500_000 + TWO_MSL + TICK)
    assert peer.state == State.CLOSED


def test_old_segments_get_an_ack_and_rsts_nothing(stack):
    """RFC 1337: a RST does not end the wait."""
    peer = Peer(stack).reach(State.TIME_WAIT)
    peer.send(0, seq=1, data=b"old")
    assert peer.recv(flags="A", seq=2, ack=2).window > 0
    peer.send(0, flags="R", seq=2)
    peer.send(0, seq=2)
    peer.nothing()
    assert peer.state == State.TIME_WAIT


def test_a_newer_syn_opens_the_flow_anew(stack):
    peer = Peer(stack).reach(State.TIME_WAIT)
    peer.send(0, flags="S", seq=100_000, options=MSS_1460)
    peer.recv(flags="SA", ack=100_001)
    peer.rcv_nxt = 1
    peer.send(0)
    assert peer.state == State.ESTABLISHED


def test_a_flow_opened_anew_goes_on_beyond_what_it_has_sent(stack):
    """RFC 9293 section 3.6.1 (1): a connection may have sent faster than the clock of initial sequence numbers runs."""
    peer = Peer(stack).reach(State.TIME_WAIT)
    (entry,) = peer._mine("time_waits")[:1]
    sent = (int(entry.snd_nxt) + 50_000_000) % 2**32
    stack.core.arrays["time_waits"].snd_nxt = sent
    peer.send(0, flags="S", seq=100_000, options=MSS_1460)
    assert 0 < (peer.recv(flags="SA", ack=100_001).seq - sent) % 2**32 < 1 << 20


def test_a_flow_opened_anew_long_after_follows_the_clock(make_stack):
    stack = make_stack(msl_seconds=60.0)
    peer = Peer(stack).reach(State.TIME_WAIT)
    first = peer.stack_iss
    peer.send(100_000_000, flags="S", seq=100_000, options=MSS_1460)
    assert (peer.recv(flags="SA").seq - first) % 2**32 == 25_000_000


def test_an_older_syn_gets_an_ack(stack):
    peer = Peer(stack).reach(State.TIME_WAIT)
    peer.send(0, flags="S", seq=-5000)
    peer.recv(flags="A", seq=2, ack=2)
    assert peer.state == State.TIME_WAIT


def test_the_oldest_makes_room(make_stack):
    stack = make_stack(time_wait=2)
    peers = [Peer(stack).reach(State.TIME_WAIT) for _ in range(3)]
    assert [peer.state for peer in peers] == [State.CLOSED, State.TIME_WAIT, State.TIME_WAIT]
    assert stack.counter("time_wait_evicted") == 1


def test_entries_left_and_refreshed_in_any_order_all_expire(make_stack):
    stack = make_stack(time_wait=8)
    peers = [Peer(stack).reach(State.TIME_WAIT) for _ in range(8)]
    for peer in peers[::2]:
        peer.send(1_000_000, flags="FA", seq=1)
    peers[3].send(1_000_000, flags="S", seq=70_000)
    peers[3].recv(flags="SA")
    stack.run(TWO_MSL + TICK)
    assert [p.state == State.TIME_WAIT for p in peers] == [True, False] * 4
    stack.run(1_000_000 + 2 * TWO_MSL + TICK)
    assert stack.core.record.wait_used == 0


def test_it_holds_no_slot(make_stack):
    stack = make_stack(max_connections=1)
    for _ in range(4):
        Peer(stack).reach(State.TIME_WAIT)
    assert stack.core.record.wait_used == 4
