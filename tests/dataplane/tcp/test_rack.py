"""RACK-TLP, RFC 8985: losses told by time, reordering borne with, lost tails probed."""

import struct

import pytest
from peer import MSS_1460, SACK_PERMITTED, SCALE_7, TICK, Peer, acks, pattern, timestamps

from mpserve.dataplane.events import Command
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.rack import LEAST_PROBE_US

MSS = 1460
OPTIONS = MSS_1460 + SACK_PERMITTED + SCALE_7
RTT = 20_000
PTO = 2 * RTT + LEAST_PROBE_US
BIG = 400_000


def seqs(peer, at_us=None):
    """(Segments that have left, in segments; without those that carry nothing.)"""
    return [(seen["seq"] - 1) // MSS for seen in peer.drain(at_us) if seen["length"]]


@pytest.fixture
def stack(make_stack):
    return make_stack(congestion="newreno", sndbuf_bytes=1 << 20)


@pytest.fixture
def peer(stack):
    """A peer 20 ms away, to which ten segments left at `peer.left`."""
    peer = Peer(stack)
    peer.send(0, flags="S", options=OPTIONS)
    peer.recv(0)
    peer.send(RTT)
    peer.left = RTT
    return peer


def write_segments(peer, count):
    peer.write(pattern(count * MSS))


def test_a_retransmission_that_was_lost_is_found_by_what_was_sent_after_it(stack, peer):
    write_segments(peer, 200)
    assert seqs(peer) == list(range(10))
    acks(peer, 2 * RTT, 0, (1, 10))
    again = seqs(peer)
    assert again[0] == 0 and again[1:] == [10, 11, 12, 13]
    acks(peer, 3 * RTT, 0, (1, 12))
    assert seqs(peer)[0] == 0
    assert stack.counter("timeouts") == 0


def test_a_loss_in_the_middle_of_a_recovery_is_found_too(stack, peer):
    write_segments(peer, 200)
    seqs(peer)
    acks(peer, 2 * RTT, 0, (1, 10))
    assert seqs(peer) == [0, 10, 11, 12, 13]
    acks(peer, 3 * RTT, 10, (11, 14))  # 10 was lost, after recovery had begun
    assert 10 in seqs(peer)


def test_a_single_report_waits_for_the_reordering_window(stack, peer):
    write_segments(peer, 10)
    seqs(peer)
    acks(peer, 2 * RTT, 0, (1, 2))
    assert seqs(peer) == [], "one later segment may have overtaken it"
    assert seqs(peer, 2 * RTT + RTT // 4 - 1) == []
    assert seqs(peer, 2 * RTT + RTT // 4 + TICK) == [0]
    assert stack.counter("fast_retransmits") == 1


def test_the_end_of_a_window_lost_with_its_beginning_needs_no_timeout(stack, peer):
    """RFC 6675's NextSeg rules 3 and 4 would guess at it. The retransmission of the beginning tells: it was sent later."""
    write_segments(peer, 10)
    seqs(peer)
    acks(peer, 2 * RTT, 0, (1, 8))
    assert seqs(peer) == [0], "no guess at 8 and 9"
    acks(peer, 3 * RTT, 8)
    assert seqs(peer) == [8, 9]
    acks(peer, 4 * RTT, 10)
    assert seqs(peer, 10 * RTT) == []
    assert (stack.counter("timeouts"), stack.counter("fast_retransmits")) == (0, 1)


def test_what_comes_within_the_window_was_only_reordered(stack, peer):
    write_segments(peer, 10)
    seqs(peer)
    acks(peer, 2 * RTT, 0, (1, 2))
    acks(peer, 2 * RTT + 1000, 2)
    assert seqs(peer, 3 * RTT) == []
    assert stack.counter("fast_retransmits") == 0
    assert int(peer.tcb["flags"]) & flags.REORDERED


def test_on_a_path_that_reorders_three_reports_are_no_proof(stack, peer):
    write_segments(peer, 200)
    seqs(peer)
    acks(peer, 2 * RTT, 0, (1, 2))
    acks(peer, 2 * RTT, 2)
    left = stack.at()
    flight = seqs(peer)
    assert flight == list(range(10, 14))
    acks(peer, left + RTT, 2, (3, 9))
    assert 2 not in seqs(peer)
    assert 2 in seqs(peer, left + RTT + RTT // 4 + TICK)


def test_a_duplicate_report_widens_the_window(stack, peer):
    write_segments(peer, 200)
    seqs(peer)
    acks(peer, 2 * RTT, 0, (1, 10))
    seqs(peer)
    steps = int(peer.conn.reo_steps)
    acks(peer, 3 * RTT, 12, (0, 1))
    assert peer.conn.reo_steps == steps + 1 and stack.counter("dsacks_received") == 1
    acks(peer, 3 * RTT, 12, (0, 1))
    assert peer.conn.reo_steps == steps + 1, "once a round trip"


def test_an_ack_of_the_first_transmission_says_nothing_of_the_second(stack, peer):
    """The answer to a retransmission can't come sooner than the least round-trip time."""
    write_segments(peer, 200)
    seqs(peer)
    acks(peer, 2 * RTT, 0, (1, 10))
    assert seqs(peer)[0] == 0
    end = int(peer.conn.rack_end)
    acks(peer, 2 * RTT + 100, 10)
    assert peer.conn.rack_end == end


@pytest.mark.parametrize("echoes_the_second", [False, True])
def test_timestamps_tell_which_transmission_is_answered(stack, echoes_the_second):
    peer = Peer(stack)
    peer.send(0, flags="S", options=OPTIONS + timestamps(1))
    peer.recv(0)
    peer.send(RTT, options=timestamps(2))
    peer.write(pattern(100_000))
    first = [peer.recv() for _ in range(10)][0]
    option = b"\x01\x01\x05\x0a" + struct.pack("!II", first.seq + 1448, first.seq + 5 * 1448)
    peer.send(3 * RTT, ack=1, options=timestamps(3, clock(first)) + option)
    again = peer.recv()
    assert again.seq == first.seq and clock(again) != clock(first)
    end = int(peer.conn.rack_end)
    peer.drain(6 * RTT)
    peer.send(6 * RTT, ack=1 + 1448, options=timestamps(4, clock(again if echoes_the_second else first)))
    assert (int(peer.conn.rack_sent_at) == 3 * RTT + stack.start) == echoes_the_second
    assert (int(peer.conn.rack_end) == end) != echoes_the_second


def clock(segment):
    """The timestamp that a segment of the stack carries."""
    return int.from_bytes(segment.option(8)[:4], "big")


def test_a_lost_tail_is_probed_after_two_round_trips(stack, peer):
    write_segments(peer, 5)
    left = stack.at()
    assert seqs(peer) == [0, 1, 2, 3, 4]
    assert seqs(peer, left + PTO - 1) == []
    assert seqs(peer, left + PTO + TICK) == [4]
    assert (stack.counter("tail_loss_probes"), stack.counter("timeouts")) == (1, 0)


def test_the_answer_to_the_probe_begins_recovery(stack, peer):
    write_segments(peer, 5)
    seqs(peer)
    acks(peer, 2 * RTT, 2)
    probed = seqs(peer, 5 * RTT)
    assert probed == [4]
    acks(peer, 6 * RTT, 2, (4, 5))
    assert seqs(peer, 6 * RTT + RTT // 4 + TICK) == [2, 3]
    assert stack.counter("timeouts") == 0


def test_an_answer_right_behind_the_probe_is_one_to_the_first_transmission(stack, peer):
    """It can't be the probe's, for no round trip is so short: the handshake's was longer."""
    write_segments(peer, 4)
    seqs(peer)
    assert seqs(peer, peer.left + PTO + TICK) == [3]
    answered = peer.received_at + RTT // 10
    acks(peer, answered, 0, (3, 4))
    assert seqs(peer, answered + RTT) == []
    assert stack.counter("fast_retransmits") == 0


def test_the_probe_is_the_last_segment_also_if_there_is_new_data(stack, peer):
    """Its duplicate is acknowledged at once; a new segment would wait for a delayed ACK."""
    write_segments(peer, 200)
    assert seqs(peer) == list(range(10))
    assert seqs(peer, RTT + PTO + TICK) == [9]


def test_a_fin_is_probed_too(stack, peer):
    peer.write(pattern(2 * MSS))
    peer.drain()
    peer.ask(Command.SHUTDOWN)
    peer.recv(flags="FA", seq=1 + 2 * MSS)
    probe = peer.recv(RTT + PTO + TICK)
    assert "F" in probe.flags and stack.counter("tail_loss_probes") == 1


def test_a_lone_segment_waits_for_the_rto(stack, peer):
    """The peer may delay its ACK for 200 ms, which leaves no time for a probe."""
    write_segments(peer, 1)
    seqs(peer)
    assert seqs(peer, 2 * RTT + 200_000) == [0]
    assert (stack.counter("tail_loss_probes"), stack.counter("timeouts")) == (0, 1)


def test_a_loss_that_the_probe_repaired_costs_window(stack, peer):
    write_segments(peer, 5)
    seqs(peer)
    assert seqs(peer, 4 * RTT) == [4]
    cwnd = int(peer.tcb.cwnd)
    acks(peer, 5 * RTT, 5)
    peer.write(pattern(MSS))
    seqs(peer)
    acks(peer, 6 * RTT, 6)
    assert peer.tcb.cwnd < cwnd


def test_a_probe_in_vain_costs_nothing(stack, peer):
    write_segments(peer, 5)
    seqs(peer)
    assert seqs(peer, 4 * RTT) == [4]
    acks(peer, 5 * RTT, 5)
    acks(peer, 5 * RTT, 5, (4, 5))  # both copies have arrived: D-SACK
    cwnd = int(peer.tcb.cwnd)
    peer.write(pattern(MSS))
    seqs(peer)
    acks(peer, 6 * RTT, 6)
    assert peer.tcb.cwnd >= cwnd


def test_without_sack_there_is_no_probe(stack):
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460)
    peer.recv(0)
    peer.send(RTT)
    write_segments(peer, 5)
    assert seqs(peer) == [0, 1, 2, 3, 4]
    assert seqs(peer, RTT + 199_000) == []


def test_one_probe_then_the_rto(stack, peer):
    write_segments(peer, 5)
    seqs(peer)
    assert seqs(peer, 4 * RTT) == [4]
    assert seqs(peer, RTT + PTO + 199_000) == []
    assert seqs(peer, RTT + PTO + 210_000) == [0]
    assert stack.counter("timeouts") == 1


def test_ranges_run_out_and_everything_still_arrives(stack, peer):
    """Where no range is left to tell segments apart, less is known, and nothing is lost."""
    record = stack.core.record
    held, record.free_sent_count = int(record.free_sent_count), int(record.connections) - int(record.senders)
    missing = held - int(record.free_sent_count)
    write_segments(peer, 100)
    arrived: set[int] = set()
    lost: set[int] = set()
    acked = 0
    while acked < 100:
        for n in seqs(peer, stack.at() + RTT) or seqs(peer, stack.at() + 3_000_000):
            (arrived if n % 7 or n in lost else lost).add(n)  # each seventh is lost the first time
        while acked in arrived:
            acked += 1
        more = sorted(n for n in arrived if n > acked)[:3]
        acks(peer, stack.at(), acked, *((n, n + 1) for n in more))
    record.free_sent_count += missing
    assert peer.tcb.sacked == 0 and peer.tcb.lost == 0
    assert stack.leaks() == []
