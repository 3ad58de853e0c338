"""Timestamps and PAWS (RFC 7323), and what TIME_WAIT makes of them (RFC 6191)."""

import struct

import pytest
from peer import MSS_1460, SCALE_7, Peer, pattern, timestamps

from mpserve.dataplane.events import Command
from mpserve.dataplane.tcp.state import State

SECOND = 1_000_000


def both(segment):
    """(value, echo) of a segment's timestamps option, None if it has none."""
    option = segment.option(8)
    return struct.unpack("!II", option) if option else None


@pytest.fixture
def peer(stack):
    """ESTABLISHED, its last timestamp 100."""
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460 + SCALE_7 + timestamps(100))
    peer.syn_ack = peer.recv(0, flags="SA", mss=1460, scale=3)
    peer.send(0, flags="A", options=timestamps(100, both(peer.syn_ack)[0]))
    return peer


def test_a_syn_ack_echoes_the_timestamp_of_the_syn(peer):
    assert both(peer.syn_ack)[1] == 100


def test_without_an_offer_no_segment_carries_them(stack):
    peer = Peer(stack).establish()
    peer.write(b"data")
    assert both(peer.recv()) is None


def test_every_segment_carries_them_and_the_segment_size_makes_room(peer):
    peer.write(pattern(3000))
    segments = [peer.recv() for _ in range(3)]
    assert [len(s.payload) for s in segments] == [1448, 1448, 104]
    assert {both(s)[1] for s in segments} == {100}
    assert b"".join(s.payload for s in segments) == pattern(3000)


def test_our_clock_runs_in_units_of_1024_us(peer):
    peer.write(b"a")
    first = both(peer.recv())[0]
    peer.send(102_400, ack=2, options=timestamps(101))
    peer.write(b"b")
    assert (both(peer.recv())[0] - first) & 0xFFFFFFFF == 100


def test_our_clock_starts_elsewhere_for_each_connection(stack, peer):
    other = Peer(stack)
    other.send(0, flags="S", options=MSS_1460 + timestamps(1))
    assert both(other.recv())[0] != both(peer.syn_ack)[0]


def test_our_clock_does_not_tell_the_hash_of_the_flow_table(stack):
    """Whoever knew where flows stand in the table could put all of its own in one place."""
    for _ in range(4):
        peer = Peer(stack).establish(MSS_1460 + timestamps(5))
        peer.write(b"x")
        value = struct.unpack("!I", peer.recv(data=b"x").option(8)[:4])[0]
        assert (value - int(peer.conn.hash)) & 0xFFFFFFFF != stack.now >> 10


def test_the_timestamp_of_the_segment_that_is_acknowledged_is_echoed(peer):
    """RFC 7323 section 4.3: of two segments before one ACK, the earlier one's."""
    peer.burst(1000, {"data": b"a", "options": timestamps(110)}, {"data": b"b", "options": timestamps(120)})
    assert both(peer.recv(100_000, flags="A", ack=3))[1] == 110
    peer.send(100_000, data=b"c", options=timestamps(130))
    assert both(peer.recv(200_000, flags="A", ack=4))[1] == 130


def test_a_segment_beyond_a_hole_does_not_move_what_is_echoed(peer):
    peer.send(1000, seq=2, data=b"b", options=timestamps(200))
    assert both(peer.recv(1000, ack=1))[1] == 100


def test_paws_drops_an_old_segment_and_answers_it(stack, peer):
    peer.send(1000, data=b"new", options=timestamps(200))
    peer.recv(100_000, ack=4)
    assert peer.take() == b"new"
    peer.send(100_000, seq=4, data=b"old", options=timestamps(199))
    assert both(peer.recv(100_000, flags="A", ack=4))[1] == 200
    assert peer.take() == b"" and stack.counter("drop_paws") == 1


def test_paws_lets_wrapped_values_through(peer):
    peer.send(1000, data=b"a", options=timestamps(0x7FFF_FFFF))
    peer.send(100_000, data=b"b", options=timestamps(0xFFFF_FFF0))
    peer.send(200_000, data=b"c", options=timestamps(5))
    assert peer.take() == b"abc"


def test_paws_believes_anything_after_24_days(peer):
    peer.send(1000, data=b"a", options=timestamps(200))
    peer.conn.ts_recent_at -= 25 * 24 * 3600 * SECOND
    peer.send(2000, data=b"b", options=timestamps(199))
    assert peer.take() == b"ab"


def test_a_rst_needs_no_new_timestamp(peer):
    peer.send(1000, flags="R", options=timestamps(1))
    assert peer.state == State.CLOSED


def test_a_segment_without_the_option_is_dropped(stack, peer):
    """RFC 7323 section 3.2: once negotiated, it is on every segment but RSTs."""
    peer.send(1000, data=b"lost")
    peer.nothing(100_000)
    assert peer.take() == b"" and stack.counter("drop_no_timestamp") == 1


@pytest.mark.parametrize("length", [9, 11])
def test_a_wrong_length_is_malformed(stack, peer, length):
    peer.send(1000, data=b"x", options=b"\x08" + bytes([length]) + bytes(length - 2))
    assert peer.take() == b"" and stack.counter("drop_tcp_options") == 1


def test_a_syn_newer_by_timestamp_opens_a_time_wait_anew(stack, peer):
    """RFC 6191: its sequence number is older, its timestamp newer."""
    peer.ask(Command.CLOSE)
    peer.recv(1000, flags="FA")
    peer.send(2000, flags="FA", options=timestamps(150))
    assert both(peer.recv(2000, flags="A", ack=2))[1] in (100, 150)
    assert peer.state == State.TIME_WAIT
    peer.send(3000, flags="S", seq=-100_000, ack=0, options=MSS_1460 + timestamps(140))
    assert peer.state == State.TIME_WAIT
    peer.drain()
    peer.send(4000, flags="S", seq=-100_000, ack=0, options=MSS_1460 + timestamps(151))
    assert peer.state == State.SYN_RECEIVED
