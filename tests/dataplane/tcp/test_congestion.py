"""Slow start, congestion avoidance, fast retransmit and NewReno recovery (RFC 5681, 6582, 3042, 6928)."""

import pytest
from peer import TICK, Peer, pattern

from mpserve.dataplane.tcp.state import State

MSS = 1460
SECOND = 1_000_000
BIG = 200_000


@pytest.fixture
def stack(make_stack):
    return make_stack(congestion="newreno")


@pytest.fixture
def peer(stack):
    peer = Peer(stack).establish()
    peer.write(pattern(BIG))
    return peer


def seqs(peer, at_us=None):
    """The numbers of the segments that have left, in segments from the first byte."""
    return [(seen["seq"] - 1) // MSS for seen in peer.drain(at_us)]


def test_the_initial_window_is_ten_segments(peer):
    assert seqs(peer) == list(range(10))


@pytest.mark.parametrize("mss, segments", [(536, 10), (1460, 10), (8960, 2)])
def test_the_initial_window_of_other_segment_sizes(make_stack, mss, segments):
    stack = make_stack(mtu=9000)
    peer = Peer(stack).establish(b"\x02\x04" + mss.to_bytes(2, "big") + b"\x01\x03\x03\x07")
    peer.write(pattern(BIG))
    sent = peer.drain()
    assert [seen["length"] for seen in sent] == [mss] * segments
    assert b"".join(seen["data"] for seen in sent) == pattern(mss * segments)


def test_slow_start_adds_a_segment_for_each_acked(peer):
    seqs(peer)
    for acked in range(1, 11):
        peer.send(1000, ack=1 + acked * MSS)
        assert len(seqs(peer)) == 2
    assert peer.tcb.cwnd == 20 * MSS


def test_one_ack_of_many_doubles_the_window_all_the_same(peer):
    seqs(peer)
    peer.send(1000, ack=1 + 10 * MSS)
    assert peer.tcb.cwnd == 20 * MSS
    assert len(seqs(peer)) == 20


def test_slow_start_after_a_timeout_adds_two_segments_an_ack_at_most(peer):
    """RFC 3465: what is acknowledged then may all have arrived before."""
    seqs(peer)
    assert set(seqs(peer, SECOND)) == {0}
    assert peer.tcb.cwnd == MSS
    peer.send(SECOND, ack=1 + 9 * MSS)
    assert peer.tcb.cwnd == 3 * MSS


def test_slow_start_ends_at_ssthresh(peer):
    seqs(peer)
    peer.tcb.ssthresh = 15 * MSS
    peer.send(1000, ack=1 + 10 * MSS)
    assert peer.tcb.cwnd == 15 * MSS


def test_congestion_avoidance_adds_a_segment_a_window(peer):
    seqs(peer)
    peer.tcb.ssthresh = 10 * MSS
    for acked in range(1, 11):
        peer.send(1000, ack=1 + acked * MSS)
    assert 10 * MSS + 9 * MSS // 10 - 100 < peer.tcb.cwnd <= 11 * MSS


def test_three_duplicates_resend_the_first_segment(peer, stack):
    """Also in the first flight of the connection, where nothing was ever lost before."""
    assert len(seqs(peer)) == 10
    for _ in range(2):
        peer.send(1000, ack=1)
    assert seqs(peer) == [10, 11], "limited transmit"
    peer.send(1000, ack=1)
    assert seqs(peer) == [0]
    assert stack.counter("fast_retransmits") == 1
    assert peer.tcb.ssthresh == 5 * MSS, "what limited transmit has sent does not count (RFC 5681 section 3.2)"


def test_full_recovery(peer):
    seqs(peer)
    for _ in range(3):
        peer.send(1000, ack=1)
    seqs(peer)
    peer.send(2000, ack=1 + 12 * MSS)
    assert peer.tcb.cwnd <= 6 * MSS
    assert seqs(peer)[0] == 12


def test_a_partial_ack_resends_the_next_hole(peer, stack):
    """NewReno: segments 0 and 5 are lost, and no timeout is needed."""
    seqs(peer)
    for _ in range(8):
        peer.send(1000, ack=1)
    assert 0 in seqs(peer)
    peer.send(2000, ack=1 + 5 * MSS)
    assert 5 in seqs(peer)
    peer.send(3000, ack=1 + 12 * MSS)
    assert 5 not in seqs(peer)
    assert stack.counter("timeouts") == 0


def test_duplicates_inflate_the_window_in_recovery(peer):
    seqs(peer)
    for _ in range(3):
        peer.send(1000, ack=1)
    seqs(peer)
    cwnd = int(peer.tcb.cwnd)
    peer.send(1000, ack=1)
    assert peer.tcb.cwnd == cwnd + MSS


def test_a_second_loss_right_after_recovery_is_found_too(peer, stack):
    seqs(peer)
    for _ in range(3):
        peer.send(1000, ack=1)
    seqs(peer)
    recovered = (int(peer.tcb.recover) - peer.stack_iss) % 2**32
    peer.send(2000, ack=recovered)
    assert seqs(peer) == [12, 13]
    for _ in range(3):
        peer.send(3000, ack=recovered)
    assert stack.counter("fast_retransmits") == 2


def test_duplicates_with_data_or_another_window_do_not_count(peer, stack):
    seqs(peer)
    for n in range(4):
        peer.send(1000, ack=1, data=b"x")
        peer.send(1000, ack=1, window=60_000 + n)
    assert stack.counter("fast_retransmits") == 0


def test_a_timeout_leaves_one_segment(peer, stack):
    seqs(peer)
    peer.recv(200_000 + TICK, seq=1, length=MSS)
    peer.nothing()
    assert (peer.tcb.cwnd, peer.tcb.ssthresh) == (MSS, 5 * MSS)


def test_duplicates_of_a_flight_before_the_timeout_do_not_resend(peer, stack):
    seqs(peer)
    peer.recv(200_000 + TICK, seq=1)
    for _ in range(5):
        peer.send(stack.at(), ack=1)
    assert stack.counter("fast_retransmits") == 0


def test_the_window_of_a_lossless_transfer_is_bounded_by_the_peer(stack):
    peer = Peer(stack, window=20 * MSS).establish(b"\x02\x04\x05\xb4")
    peer.write(pattern(BIG))
    acked = 0
    while acked < BIG:
        flight = peer.drain(stack.at() + 1000)
        assert sum(seen["length"] for seen in flight) <= 20 * MSS
        acked += sum(seen["length"] for seen in flight)
        peer.send(stack.at())
    assert peer.state == State.ESTABLISHED
