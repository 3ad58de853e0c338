"""Whatever a wire does to a stream on its way, the channel gets the stream."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer import MSS_1460, SACK_PERMITTED, Peer, TestedStack, pattern

from mpserve.dataplane.events import Command, Event
from mpserve.dataplane.jit import JIT
from mpserve.dataplane.tcp.state import State

SELDOM = settings(
    max_examples=150 if JIT else 25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_out_of_order_is_kept_and_delivered_in_order(stack):
    peer = Peer(stack).establish()
    peer.send(0, seq=5, data=b"efgh")
    peer.recv(flags="A", ack=1)
    peer.send(0, seq=9, data=b"ijkl")
    peer.recv(flags="A", ack=1)
    assert peer.take() == b""
    peer.send(0, seq=1, data=b"abcd")
    peer.recv(flags="A", ack=13)
    assert peer.take() == b"abcdefghijkl"
    assert stack.counter("out_of_order") == 2


def test_overlaps_and_duplicates_are_delivered_once(stack):
    peer = Peer(stack).establish()
    for seq, data in ((4, b"defg"), (6, b"fghij"), (4, b"de"), (4, b"defg"), (1, b"abcde"), (1, b"abc")):
        peer.send(0, seq=seq, data=data)
    assert peer.take() == b"abcdefghij"


@pytest.mark.parametrize("data", [b"", b"def"])
@pytest.mark.parametrize("sack", [b"", SACK_PERMITTED])
def test_a_fin_behind_a_gap_is_kept(stack, data, sack):
    """RFC 9293 section 3.10.7.4: so that the peer need not send it again; SACK tells of it as of data."""
    peer = Peer(stack).establish(MSS_1460 + sack)
    end = 4 + len(data)
    peer.send(0, flags="FA", seq=4, data=data)
    reported = peer.recv(0, flags="A", ack=1).option(5)
    edges = struct.pack("!II", peer.iss + 4 & 0xFFFFFFFF, peer.iss + end + 1 & 0xFFFFFFFF)
    assert reported == (edges if sack else None)
    assert peer.kinds() == [Event.ACCEPT]
    peer.send(0, seq=1, data=b"abc")
    peer.recv(0, flags="A", ack=end + 1)
    assert peer.take() == b"abc" + data and peer.kinds() == [Event.EOF]
    assert peer.state == State.CLOSE_WAIT


def test_a_kept_fin_that_comes_again(stack):
    peer = Peer(stack).establish(MSS_1460 + SACK_PERMITTED)
    for _ in range(3):
        peer.send(0, flags="FA", seq=4)
        peer.recv(0, flags="A", ack=1)
    peer.send(0, flags="FA", seq=1, data=b"abc")
    peer.recv(0, flags="A", ack=5)
    peer.send(0, flags="FA", seq=4)
    peer.recv(0, flags="A", ack=5)
    peer.nothing()
    assert peer.take() == b"abc" and peer.kinds() == [Event.ACCEPT, Event.EOF]


@pytest.mark.parametrize("seqs", [(4, 8, 1), (8, 4, 1), (4, 6, 1, 11), (6, 3, 1)])
def test_fins_that_contradict_each_other_deliver_no_byte_that_was_not_sent(stack, seqs):
    """A peer that names two ends, or sends text beyond its own."""
    peer = Peer(stack).establish(MSS_1460 + SACK_PERMITTED)
    for seq in seqs[:2]:
        peer.send(0, flags="FA", seq=seq)
    for seq in seqs[2:]:
        peer.send(0, seq=seq, data=b"x" * 10)
    assert peer.take() == b"x" * 10 * len(seqs[2:])


def test_a_gap_filled_shows_the_next_gap(stack):
    peer = Peer(stack).establish()
    for seq in (3, 7):
        peer.send(0, seq=seq, data=b"xx")
    peer.drain()
    peer.send(0, seq=1, data=b"xx")
    peer.recv(ack=5)


def test_the_same_segment_again_takes_no_second_block(stack):
    peer = Peer(stack).establish()
    for _ in range(20):
        peer.send(0, seq=100, data=b"x" * 500)
    assert peer.conn.ooo_blocks == 1


def test_kept_segments_are_bounded(make_stack):
    stack = make_stack(rcvbuf_bytes=2048, blocks=64)
    peer = Peer(stack).establish()
    for seq in range(3, 100, 2):
        peer.send(0, seq=seq, data=b"x")
    assert peer.conn.ooo_blocks == 20
    assert stack.counter("drop_ooo_full") > 0
    peer.send(0, seq=1, data=bytes(100))
    assert len(peer.take()) == 100


def test_without_blocks_out_of_order_is_dropped_and_in_order_goes_on(make_stack):
    stack = make_stack(blocks=16)
    hog = Peer(stack, window=0).establish(MSS_1460)
    hog.write(bytes(16 * 2048))
    peer = Peer(stack).establish()
    peer.send(0, seq=5, data=b"late")
    peer.send(0, seq=1, data=b"soon")
    assert (peer.take(), stack.counter("drop_no_block")) == (b"soon", 1)
    peer.ask(Command.PAUSE)
    peer.send(0, seq=5, flags="FA", data=b"late")
    peer.drain()
    assert (int(peer.tcb.rcv_nxt) - peer.iss) % 2**32 == 5, "what found no room is not acknowledged"
    assert peer.state == State.ESTABLISHED
    hog.ask(Command.ABORT)
    peer.ask(Command.RESUME)
    peer.send(0, seq=5, flags="FA", data=b"late")
    peer.recv(ack=10)
    assert peer.take() == b"late"


def test_more_than_the_arena_goes_to_blocks(make_stack):
    stack = make_stack(rcvbuf_bytes=1 << 22, blocks=4096)
    record = stack.core.record
    record.arena_bytes = 10_000
    peer = Peer(stack).establish()
    peer.burst(0, *[dict(data=pattern(1460, 1460 * n)) for n in range(20)])
    assert peer.take() == pattern(20 * 1460)
    peer.send(0, flags="FA", data=b"end")
    assert peer.kinds() == [Event.ACCEPT, Event.READ, Event.EOF]


def test_read_once_survives_a_full_arena(make_stack):
    stack = make_stack()
    stack.core.record.arena_bytes = 3000
    full, other = Peer(stack).establish(), Peer(stack).establish()
    for peer in (full, other):
        peer.ask(Command.PAUSE)
    full.send(0, data=bytes(1460))
    full.send(0, data=bytes(1460))
    full.send(0, data=bytes(1460))
    other.send(0, data=b"other")
    stack.command(Command.READ_ONCE, full.handle)
    other.ask(Command.READ_ONCE)
    assert (len(full.take()), other.take()) == (3000, b"other")


pieces = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 1460)), min_size=1, max_size=25)


@SELDOM
@given(pieces, st.randoms(use_true_random=False), st.booleans())
def test_any_split_order_and_duplication_gives_the_stream(parts, random, pausing):
    """Random pieces, then the whole in order in random splits (so that everything arrives), shuffled a little."""
    stack = TestedStack(rcvbuf_bytes=8192)
    peer = Peer(stack).establish()
    data = pattern(3000 + 1460)
    cuts = sorted(random.sample(range(1, len(data)), 6))
    whole = [(a, b - a) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    random.shuffle(whole)
    got = b""
    for start, length in [*parts, *whole, *sorted(whole)]:
        for offset in range(0, length, 1460):
            at = start + offset
            peer.send(0, seq=1 + at, data=data[at : min(at + 1460, start + length)])
        if pausing:
            peer.ask(random.choice([Command.PAUSE, Command.RESUME, Command.READ_ONCE]))
        got += peer.take()
    peer.ask(Command.RESUME)
    peer.send(0, flags="FA", seq=1 + len(data))
    got += peer.take()
    assert got == data
    assert peer.kinds()[-1] == Event.EOF
    assert peer.conn.ooo_blocks == 0
    assert stack.leaks() == []
    stack.close()
