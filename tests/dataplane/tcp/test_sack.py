"""Selective acknowledgment: what our ACKs report (RFC 2018), and loss recovery by the peer's reports (RFC 6675)."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer import MSS_1460, SACK_PERMITTED, SCALE_7, Peer, acks, blocks, pattern, timestamps

from mpserve.dataplane.tcp.sent import SACKED
from mpserve.dataplane.tcp.state import State

MSS = 1460
OPTIONS = MSS_1460 + SACK_PERMITTED + SCALE_7
BIG = 200_000


def seqs(peer, at_us=None):
    return [(seen["seq"] - 1) // MSS for seen in peer.drain(at_us)]


@pytest.fixture
def stack(make_stack):
    return make_stack(congestion="newreno")


@pytest.fixture
def receiver(stack):
    """A peer that sends."""
    return Peer(stack).establish(OPTIONS)


@pytest.fixture
def sender(stack):
    """A peer to which ten segments are on their way."""
    peer = Peer(stack).establish(OPTIONS)
    peer.write(pattern(BIG))
    assert seqs(peer) == list(range(10))
    return peer


# -- what we report


def test_the_syn_ack_permits_it_only_if_the_syn_does(stack):
    peer, other = Peer(stack), Peer(stack)
    peer.send(0, flags="S", options=OPTIONS)
    assert peer.recv(0).option(4) == b""
    other.send(0, flags="S", options=MSS_1460)
    assert other.recv(0).option(4) is None


def test_nothing_is_reported_that_was_not_permitted(stack):
    peer = Peer(stack).establish()
    peer.send(1000, seq=11, data=b"x" * 10)
    assert blocks(peer, peer.recv(1000, ack=1)) == []


def test_the_newest_block_comes_first(receiver):
    expected = {}
    for start in (11, 51, 31):
        receiver.send(1000, seq=start, data=b"x" * 10)
        expected[start] = blocks(receiver, receiver.recv(1000, ack=1))
    assert expected[11] == [(11, 21)]
    assert expected[51] == [(51, 61), (11, 21)]
    assert expected[31] == [(31, 41), (51, 61), (11, 21)]


def test_blocks_are_repeated_in_the_order_of_their_last_report(receiver):
    """RFC 2018 section 4: each is told of several times. A block that grows comes first again, filled gaps leave the others."""
    for start in (11, 31, 51, 71, 91):
        receiver.send(1000, seq=start, data=b"x" * 10)
        newest = receiver.recv(1000, ack=1)
    assert blocks(receiver, newest) == [(91, 101), (71, 81), (51, 61), (31, 41)]
    receiver.send(1000, seq=41, data=b"x" * 5)
    assert blocks(receiver, receiver.recv(1000)) == [(31, 46), (91, 101), (71, 81), (51, 61)]
    receiver.send(1000, seq=1, data=b"x" * 10)
    assert blocks(receiver, receiver.recv(1000, ack=21)) == [(31, 46), (91, 101), (71, 81), (51, 61)]
    receiver.send(1000, seq=46, data=b"x" * 5)
    assert blocks(receiver, receiver.recv(1000)) == [(31, 61), (91, 101), (71, 81)]


@pytest.mark.parametrize(
    "start, length, reported",
    [
        (11, 20, [(11, 31), (11, 31)]),  # the same again
        (15, 5, [(15, 20), (11, 31)]),
        (1, 20, [(11, 21)]),  # it fills the gap and goes on
        (5, 10, [(11, 15), (5, 31)]),
        (25, 10, [(25, 31), (11, 35)]),
        (5, 40, [(11, 31), (5, 45)]),
        (31, 5, [(11, 36)]),  # it only touches
    ],
)
def test_what_comes_twice_is_reported_once_even_in_part(receiver, start, length, reported):
    """D-SACK, RFC 2883 sections 4.1 and 4.2."""
    receiver.send(1000, seq=11, data=b"x" * 20)
    receiver.recv(1000)
    receiver.send(1000, seq=start, data=b"x" * length)
    assert blocks(receiver, receiver.recv(1000)) == reported
    receiver.send(1000, seq=61, data=b"x")
    assert blocks(receiver, receiver.recv(1000))[0] == (61, 62)


def test_a_fin_that_comes_twice_is_reported(receiver):
    receiver.send(1000, flags="FA", seq=1)
    receiver.recv(1000, ack=2)
    receiver.send(1000, flags="FA", seq=1)
    assert blocks(receiver, receiver.recv(1000, ack=2)) == [(1, 2)]


def test_blocks_that_touch_are_one(receiver):
    for start in (11, 31, 21):
        receiver.send(1000, seq=start, data=b"x" * 10)
    segments = [receiver.recv(1000, ack=1) for _ in range(3)]
    assert blocks(receiver, segments[-1]) == [(11, 41)]


@pytest.mark.parametrize("stamps, most", [(b"", 4), (timestamps(1), 3)])
def test_there_are_as_many_blocks_as_fit(stack, stamps, most):
    peer = Peer(stack)
    peer.send(0, flags="S", options=OPTIONS + stamps)
    peer.recv(0)
    peer.send(0, options=stamps)
    for start in range(11, 171, 20):
        peer.send(1000, seq=start, data=b"x" * 10, options=stamps)
    last = [peer.recv(1000, ack=1) for _ in range(8)][-1]
    assert blocks(peer, last) == [(151, 161), (131, 141), (111, 121), (91, 101)][:most]


def test_a_filled_hole_ends_the_report(receiver):
    receiver.send(1000, seq=11, data=b"x" * 10)
    receiver.recv(1000, ack=1)
    receiver.send(1000, seq=1, data=b"y" * 10)
    assert blocks(receiver, receiver.recv(1000, ack=21)) == []
    assert receiver.take() == b"y" * 10 + b"x" * 10


def test_an_ack_that_travels_with_data_is_followed_by_its_report(receiver):
    receiver.stack.run(1000)
    receiver.stack.wire.deliver(receiver.frame(seq=11, data=b"x" * 10))
    receiver.write(b"reply")
    sent = [receiver.recv(1000), receiver.recv(1000)]
    assert [s.payload for s in sent] == [b"reply", b""]
    assert blocks(receiver, sent[1]) == [(11, 21)]


# -- what the peer reports


def test_three_reports_send_the_hole_again_once(stack):
    sender = Peer(stack).reach(State.SYN_RECEIVED, OPTIONS)
    sender.send(1000)  # a handshake that took a while: a quarter of it is given to reordering
    sender.write(pattern(BIG))
    assert seqs(sender) == list(range(10))
    for last in (2, 3):
        acks(sender, 2000, 0, (1, last))
        assert seqs(sender) == [8 + last]  # limited transmit (RFC 3042)
    acks(sender, 2000, 0, (1, 4))
    assert seqs(sender)[0] == 0
    acks(sender, 2000, 0, (1, 5))
    assert 0 not in seqs(sender)
    assert stack.counter("fast_retransmits") == 1


def test_one_report_of_enough_bytes_begins_recovery(sender):
    acks(sender, 1000, 0, (1, 4))
    assert seqs(sender)[0] == 0


def test_every_hole_is_sent_again_in_one_round_trip(sender):
    """NewReno would need a round trip for each."""
    acks(sender, 1000, 0, (1, 2), (3, 4), (5, 10))
    assert seqs(sender)[:3] == [0, 2, 4]


def test_what_was_reported_is_not_sent_again(stack, sender):
    acks(sender, 1000, 1, (2, 10))
    sent = seqs(sender)
    assert sent[0] == 1 and not set(sent) & set(range(2, 10))
    acks(sender, 2000, 10)
    assert stack.counter("timeouts") == 0 and min(seqs(sender)) >= 10


def test_recovery_ends_with_all_that_was_out_acknowledged(sender):
    acks(sender, 1000, 0, (1, 10))
    assert sender.tcb.cwnd == sender.tcb.ssthresh == 5 * MSS
    new = seqs(sender)
    assert new[0] == 0
    acks(sender, 2000, max(new) + 1)
    acks(sender, 3000, 0)
    assert sender.tcb.cwnd == 5 * MSS


def test_the_window_halves_once_for_many_holes(sender):
    acks(sender, 1000, 0, (1, 2), (3, 4), (5, 6))
    acks(sender, 1000, 0, (7, 10), (1, 2), (3, 4), (5, 6))
    assert sender.tcb.ssthresh == 5 * MSS


def test_a_retransmission_that_was_lost_too_waits_for_the_timer_if_nothing_else_arrives(stack, sender):
    acks(sender, 1000, 0, (1, 10))
    seqs(sender)
    sent = seqs(sender, 400_000)
    assert sent[0] == 0 and stack.counter("timeouts") == 1


def test_after_a_timeout_reports_are_forgotten_and_new_ones_spare_segments(stack, sender):
    """RFC 2018 section 8: a receiver may renege."""
    acks(sender, 1000, 0, (5, 6))
    seqs(sender)
    assert seqs(sender, 400_000)[0] == 0
    assert sender.tcb.sacked == 0
    acks(sender, 410_000, 1, (2, 6))
    assert seqs(sender) == [1, 6]


@pytest.mark.parametrize("ranges", [[(30, 40)], [(5, 5)], [(6, 5)], [(-1, 3)]])
def test_reports_of_what_was_not_sent_are_refused(stack, sender, ranges):
    acks(sender, 1000, 0, *ranges)
    assert stack.counter("sacks_refused") == 1 and sender.tcb.sacked == 0


@pytest.mark.parametrize("length", [2, 3, 9, 11, 17])
def test_a_wrong_length_is_malformed(stack, sender, length):
    sender.send(1000, ack=1, options=(b"\x05" + bytes([length]) + bytes(length - 2)).ljust(20, b"\0"))
    assert stack.counter("drop_tcp_options") == 1


def test_reports_join_and_split_ranges(stack, sender):
    """Whatever the order, the scoreboard is what was reported, as disjoint ranges in order."""
    acks(sender, 1000, 0, (8, 9), (2, 3), (5, 6))
    acks(sender, 1000, 0, (3, 5))
    assert scoreboard(sender) == [(2, 6), (8, 9)]
    acks(sender, 1000, 0, (1, 10))
    assert scoreboard(sender) == [(1, 10)]
    acks(sender, 1000, 4, (5, 6))
    assert scoreboard(sender) == [(4, 10)]
    acks(sender, 1000, 10)
    assert scoreboard(sender) == [] and sender.tcb.sacked == 0


RANGE = st.tuples(st.integers(0, 9), st.integers(1, 10)).filter(lambda pair: pair[0] < pair[1])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reports=st.lists(st.lists(RANGE, min_size=1, max_size=4), max_size=8))
def test_the_scoreboard_is_the_union_of_the_reports(make_stack, reports):
    peer = Peer(make_stack()).establish(OPTIONS)
    peer.write(pattern(BIG))
    peer.drain()
    known = set()
    for ranges in reports:
        acks(peer, 1000, 0, *ranges)
        peer.drain()
        known |= {number for first, last in ranges for number in range(first, last)}
        assert {n for first, last in scoreboard(peer) for n in range(first, last)} == known
        ends = [end for pair in scoreboard(peer) for end in pair]
        assert ends == sorted(set(ends)), "ranges touch or are out of order"


def scoreboard(peer):
    """The ranges that the stack holds as reported, in segments."""
    found, at, total = [], int(peer.tcb.sent_head), 0
    edge = int(peer.tcb.snd_una)
    while at >= 0:
        entry = peer.stack.core.arrays["sents"][at]
        assert entry.start == edge, "ranges leave no gap"
        edge = int(entry.end)
        if entry.marks & SACKED:
            found.append(tuple(((int(n) - peer.stack_iss - 1) & 0xFFFFFFFF) // MSS for n in (entry.start, entry.end)))
            total += int(entry.end) - int(entry.start) & 0xFFFFFFFF
        at = int(entry.next)
    assert edge == peer.tcb.snd_nxt and total == peer.tcb.sacked
    return found


def test_a_closed_connection_gives_its_ranges_back(stack, sender):
    acks(sender, 1000, 0, (2, 3), (5, 6))
    sender.send(1000, flags="R")
    assert stack.leaks() == []
