"""D-SACK (RFC 2883): the duplicates that we report, and going back to the window before a recovery in vain."""

import pytest
from peer import MSS_1460, SACK_PERMITTED, SCALE_7, Peer, acks, blocks, pattern

MSS = 1460
OPTIONS = MSS_1460 + SACK_PERMITTED + SCALE_7


def seqs(peer, at_us=None):
    """The segments that have left, by number."""
    return [(seen["seq"] - 1) // MSS for seen in peer.drain(at_us)]


# -- what we report


@pytest.fixture
def receiver(stack):
    """A peer that sends."""
    return Peer(stack).establish(OPTIONS)


def reported(receiver, seq, length=10):
    """The blocks of the ACK that `length` bytes at `seq` get."""
    receiver.drain()
    receiver.send(receiver.stack.at() + 1000, seq=seq, data=b"x" * length)
    return blocks(receiver, receiver.recv())


def test_a_duplicate_is_reported_first_and_once(receiver):
    reported(receiver, 31)
    receiver.send(3000, seq=1, data=b"x" * 10)
    assert reported(receiver, 1) == [(1, 11), (31, 41)]
    assert reported(receiver, 51) == [(51, 61), (31, 41)]


def test_only_the_part_that_came_twice_is_reported(receiver):
    receiver.send(1000, seq=1, data=b"x" * 10)
    reported(receiver, 31)
    assert reported(receiver, 6) == [(6, 11), (31, 41)]
    assert len(receiver.take()) == 15


def test_a_duplicate_beyond_a_hole_is_followed_by_the_block_that_holds_it(receiver):
    """Section 4.2."""
    reported(receiver, 31, 20)
    reported(receiver, 71)
    assert reported(receiver, 36) == [(36, 46), (31, 51), (71, 81)]


def test_a_keepalive_is_no_duplicate(receiver):
    receiver.send(1000, seq=1, data=b"x" * 10)
    receiver.drain(60_000)
    receiver.send(70_000, seq=10)
    assert receiver.recv(70_000, ack=11).option(5) is None


def test_a_peer_without_sack_gets_no_report_of_a_duplicate(stack):
    peer = Peer(stack).establish()
    peer.send(0, data=b"x" * 10)
    peer.drain(50_000)
    peer.send(60_000, seq=1, data=b"x" * 10)
    assert peer.recv(60_000, ack=11).options == b""
    peer.nothing(200_000)


# -- what the peer's reports undo


@pytest.fixture
def sender(stack):
    """A peer to which ten segments are on their way, the first of them late: its recovery has begun."""
    peer = Peer(stack).establish(OPTIONS)
    peer.write(pattern(60 * MSS))
    assert seqs(peer) == list(range(10))
    peer.before = int(peer.tcb.cwnd), int(peer.tcb.ssthresh)
    acks(peer, 1000, 0, (1, 10))
    assert seqs(peer)[0] == 0 and peer.tcb.cwnd == 7 * MSS
    return peer


def test_a_recovery_in_vain_is_undone(sender):
    """All that was sent again had arrived: the window is what it was before, and CUBIC's curve too (RFC 9438 section 4.9.2)."""
    acks(sender, 2000, 10)
    assert sender.tcb.cwnd < sender.before[0]
    acks(sender, 3000, 10, (0, 1))
    assert sender.tcb.cwnd >= sender.before[0] and sender.tcb.ssthresh == sender.before[1]
    assert sender.conn.w_max == 0 and sender.conn.epoch_at == 0


def test_it_ends_when_the_duplicate_is_reported_with_the_acknowledgment(sender):
    acks(sender, 2000, 10, (0, 1))
    assert sender.tcb.cwnd >= sender.before[0] and sender.tcb.ssthresh == sender.before[1]


def test_a_recovery_that_was_needed_in_part_is_not_undone(stack):
    peer = Peer(stack).establish(OPTIONS)
    peer.write(pattern(60 * MSS))
    seqs(peer)
    acks(peer, 1000, 0, (2, 10))
    assert seqs(peer)[:2] == [0, 1]
    acks(peer, 2000, 10)
    acks(peer, 3000, 10, (1, 2))
    assert peer.tcb.ssthresh == 7 * MSS, "the first was lost indeed"


def test_a_duplicate_of_earlier_data_undoes_nothing(sender):
    acks(sender, 2000, 10)
    seqs(sender)
    acks(sender, 3000, 10, (11, 17))
    assert seqs(sender)[0] == 10
    ssthresh = int(sender.tcb.ssthresh)
    acks(sender, 4000, 17, (3, 4))
    assert sender.tcb.ssthresh == ssthresh


def test_after_a_timeout_there_is_nothing_to_go_back_to(stack, sender):
    seqs(sender, 400_000)
    assert stack.counter("timeouts") == 1
    ssthresh = int(sender.tcb.ssthresh)
    acks(sender, 410_000, 10, (0, 1))
    assert sender.tcb.ssthresh == ssthresh and sender.tcb.cwnd < sender.before[0]


# -- what a loss is measured by


@pytest.mark.parametrize("acked, reports", [(0, (1, 10)), (5, (6, 10)), (8, (9, 10))])
def test_the_flight_before_the_ack_that_shows_the_loss_counts(make_stack, acked, reports):
    """RFC 5681 (4) means FlightSize when segments were lost; the ACK that tells of it may leave next to nothing in flight."""
    stack = make_stack(congestion="newreno")
    peer = Peer(stack)
    peer.send(0, flags="S", options=OPTIONS)
    peer.recv(0)
    peer.send(20_000)
    peer.write(pattern(10 * MSS))
    assert seqs(peer) == list(range(10))
    acks(peer, 40_000, acked, reports)
    peer.drain(50_000)
    assert stack.counter("fast_retransmits") == 1 and peer.tcb.ssthresh == 5 * MSS
