"""Windows both ways: delayed ACKs, closing and opening, probes, silly windows, slow readers (RFC 9293 section 3.8.6)."""

import pytest
from peer import MSS_1460, SCALE_7, TICK, Peer, pattern

from mpserve.dataplane.events import Command, Event, Reason
from mpserve.dataplane.tcp.state import State

MSS = 1460
DELAY = 40_000


# -- acknowledging


def test_an_ack_waits_40_ms(stack):
    peer = Peer(stack).establish()
    peer.send(0, data=b"x")
    peer.nothing(DELAY - 1)
    peer.recv(DELAY + TICK, flags="A", ack=2)
    assert stack.counter("acks_delayed") == 1


def test_more_data_does_not_put_the_ack_off_again(stack):
    peer = Peer(stack).establish()
    for at in (0, 15_000, 30_000):
        peer.send(at, data=b"x")
    peer.recv(DELAY + TICK, flags="A", ack=4)


def test_the_second_full_segment_is_acked_at_once(stack):
    peer = Peer(stack).establish()
    peer.send(0, flags="PA", data=bytes(MSS))
    peer.nothing()
    peer.send(1000, data=bytes(MSS))
    peer.recv(1000, flags="A", ack=1 + 2 * MSS)


def test_a_full_segment_that_is_not_the_last_is_acked_at_once_after_a_pause(stack):
    """Its sender has more and waits: the ACK before was lost, or its window is a single segment."""
    peer = Peer(stack).establish()
    peer.send(0, flags="PA", data=bytes(MSS))
    peer.recv(DELAY + TICK, flags="A", ack=1 + MSS)
    peer.send(100_000, data=bytes(MSS))
    peer.recv(100_000, flags="A", ack=1 + 2 * MSS)
    peer.send(100_500, data=bytes(MSS))
    peer.nothing(110_000)


def test_ten_segments_in_a_burst_get_one_ack(stack):
    peer = Peer(stack).establish()
    peer.burst(0, *[dict(data=bytes(MSS)) for _ in range(10)])
    peer.recv(0, flags="A", ack=1 + 10 * MSS)
    peer.nothing(100_000)


def test_where_frames_are_lost_a_burst_gets_an_ack_for_every_second_segment(stack):
    """So that the loss of one doesn't stop the peer. All have the same right edge of the window."""
    peer = Peer(stack).establish()
    peer.send(0, data=b"x")
    peer.send(0, seq=1, data=b"x")  # a duplicate tells of the path
    peer.drain()
    peer.burst(1000, *[dict(data=bytes(MSS)) for _ in range(10)])
    acks = [peer.recv(1000, flags="A", ack=2 + n * MSS) for n in (2, 4, 6, 8, 10)]
    edges = {(ack.ack - peer.iss) % 2**32 + (ack.window << int(peer.tcb.rcv_scale)) for ack in acks}
    assert max(edges) - min(edges) < 1 << int(peer.tcb.rcv_scale)
    peer.nothing(100_000)
    peer.burst(1_100_000, *[dict(data=bytes(MSS)) for _ in range(10)])
    peer.recv(1_100_000, flags="A", ack=2 + 20 * MSS)
    peer.nothing(1_200_000)


def test_where_frames_are_lost_a_full_segment_is_acked_at_once(stack):
    peer = Peer(stack).establish()
    peer.send(0, data=b"x")
    peer.send(0, seq=1, data=b"x")
    peer.drain(100_000)
    peer.send(100_000, flags="PA", data=bytes(MSS))
    peer.recv(100_000, flags="A", ack=2 + MSS)


def test_each_delay_counts_from_its_own_data(stack):
    peer = Peer(stack).establish()
    peer.send(0, data=b"x")
    peer.recv(DELAY + TICK, ack=2)
    peer.send(60_000, data=b"y")
    peer.nothing(60_000 + DELAY - 1)
    peer.recv(60_000 + DELAY + TICK, ack=3)


# -- the window this side offers


def test_pausing_closes_the_window_and_resuming_opens_it(make_stack):
    stack = make_stack(rcvbuf_bytes=8192)
    peer = Peer(stack).establish()
    peer.ask(Command.PAUSE)
    data = pattern(8192)
    for start in range(0, 8192, 1024):
        peer.send(0, data=data[start : start + 1024])
    assert peer.drain(DELAY + TICK)[-1]["window"] == 0
    assert peer.take() == b""
    peer.ask(Command.RESUME)
    peer.recv(flags="A", ack=8193, window=8192)
    assert peer.take() == data


@pytest.mark.parametrize("options", [MSS_1460, MSS_1460 + SCALE_7])
def test_the_window_closes_before_single_bytes(make_stack, options):
    """With a scaled window, rounding must not open it a little with each ACK: what is kept stays within rcvbuf."""
    stack = make_stack(rcvbuf_bytes=131_072)
    peer = Peer(stack).establish(options=options)
    peer.ask(Command.PAUSE)
    while peer.room > MSS:
        peer.burst(0, *[dict(data=bytes(MSS)) for _ in range(min(16, peer.room // MSS))])
    peer.send(0, data=bytes(peer.room - 25))
    for _ in range(50):
        peer.send(stack.at() + DELAY + TICK, data=b"x")
    assert peer.room == 0
    assert peer.drain(stack.at() + DELAY + TICK)[-1]["window"] == 0
    assert peer.conn.rcv_queued <= 131_072


def test_the_window_opens_by_a_segment_at_least(make_stack):
    stack = make_stack(rcvbuf_bytes=8192)
    peer = Peer(stack).establish()
    peer.ask(Command.PAUSE)
    for _ in range(8):
        peer.send(0, data=bytes(1024))
    peer.drain(DELAY + TICK)
    peer.ask(Command.READ_ONCE)
    peer.recv(flags="A", window=8192)


def test_read_once_completes_one_read(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.PAUSE)
    peer.send(0, data=b"one")
    peer.send(0, data=b"two")
    peer.ask(Command.READ_ONCE)
    assert peer.take() == b"onetwo"
    peer.send(0, data=b"three")
    assert peer.take() == b""
    peer.ask(Command.READ_ONCE)
    assert peer.take() == b"three"
    peer.ask(Command.READ_ONCE)
    peer.send(0, data=b"four")
    peer.send(0, data=b"five")
    assert peer.take() == b"four"


def test_read_once_gets_the_eof(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.PAUSE)
    peer.send(0, flags="FA")
    assert peer.kinds() == [Event.ACCEPT]
    peer.ask(Command.READ_ONCE)
    assert peer.kinds() == [Event.EOF]


# -- the window the peer offers


def test_no_more_is_sent_than_the_window_takes(stack):
    peer = Peer(stack, window=4000).establish(MSS_1460)
    peer.write(pattern(10_000))
    assert [seen["length"] for seen in peer.drain()] == [MSS, MSS], "1080 bytes more would be a silly segment"
    peer.send(1000)
    assert [seen["length"] for seen in peer.drain()] == [MSS, MSS]


@pytest.fixture
def before_a_silly_window(stack):
    """A peer that has taken all that was sent and offers 100 bytes more, of 8000 at first."""
    peer = Peer(stack, window=8000).establish(MSS_1460)
    peer.write(pattern(20_000))
    peer.silly = 1 + sum(seen["length"] for seen in peer.drain())
    peer.send(1000, ack=peer.silly, window=100)
    return peer


def test_a_silly_window_is_filled_only_when_the_timer_says_so(before_a_silly_window):
    peer = before_a_silly_window
    peer.nothing(200_999)
    peer.recv(201_000 + TICK, seq=peer.silly, length=100)
    peer.send(202_000 + TICK, window=5000)
    assert [seen["length"] for seen in peer.drain()] == [MSS] * 3


def test_half_of_the_largest_window_is_not_silly(stack):
    peer = Peer(stack, window=2000).establish(MSS_1460)
    peer.write(pattern(20_000))
    peer.recv(0, length=MSS)
    peer.send(1000, window=998)
    peer.send(1000, window=999)
    peer.nothing(1000)
    peer.send(2000, window=1000)
    peer.recv(2000, seq=1 + MSS, length=1000)


def test_data_that_a_window_let_go_is_waited_for_from_then_on(before_a_silly_window):
    """The timer ran for the window before: it must not take what has just left for lost."""
    peer = before_a_silly_window
    peer.send(190_000, window=8000)
    assert len(peer.drain()) == 5
    peer.nothing(190_000 + 199_999)
    peer.recv(190_000 + 200_000 + TICK, seq=peer.silly)


def test_a_closed_window_is_probed_for_ever_while_the_peer_answers(make_stack):
    stack = make_stack(retries=3)
    peer = Peer(stack, window=0).establish(MSS_1460)
    peer.write(b"hello")
    peer.nothing(199_999)
    waits = []
    for _ in range(9):
        before = peer.received_at
        peer.recv(before + 60_000_000 + TICK, seq=1, data=b"h")
        waits.append((peer.received_at - before) // 100_000)
        peer.send(stack.at(), ack=1)
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert stack.counter("zero_window_probes") == 9
    peer.send(stack.at(), ack=1, window=1000)
    assert b"".join(seen["data"] for seen in peer.drain()) == b"hello"


def test_a_silent_peer_behind_a_closed_window_is_given_up(make_stack):
    stack = make_stack(retries=3)
    peer = Peer(stack, window=0).establish(MSS_1460)
    peer.write(b"hello")
    peer.drain(60_000_000)
    assert peer.closed_reason() == Reason.TIMED_OUT


def test_a_peer_that_takes_the_probes_byte(stack):
    peer = Peer(stack, window=0).establish(MSS_1460)
    peer.write(b"hello")
    peer.recv(200_000 + TICK, data=b"h")
    peer.send(stack.at(), ack=2)
    peer.recv(stack.at() + 1_000_000, seq=2, data=b"e")
    peer.send(stack.at(), ack=3, window=100)
    peer.recv(flags="PA", seq=3, data=b"llo")


def test_after_probing_the_timer_starts_from_the_measured_rto(stack):
    """Not from the last probe's wait, which may be a minute."""
    peer = Peer(stack, window=0).establish(MSS_1460)
    peer.write(b"hello")
    for _ in range(5):
        peer.recv(stack.at() + 10_000_000, data=b"h")
        peer.send(stack.at(), ack=1)
    peer.send(stack.at(), ack=1, window=1000)
    peer.recv(data=b"h")
    peer.recv(data=b"ello")
    peer.recv(peer.received_at + 200_000 + TICK, data=b"h")


def test_a_fin_goes_out_into_a_closed_window(stack):
    peer = Peer(stack, window=0).establish(MSS_1460)
    peer.ask(Command.SHUTDOWN)
    peer.recv(0, flags="FA")


def test_a_window_that_shrinks_below_what_was_sent(stack):
    peer = Peer(stack).establish()
    peer.write(pattern(10 * MSS))
    peer.drain()
    peer.send(1000, ack=1 + MSS, window=0)
    peer.recv(stack.at() + 1_000_000, seq=1 + MSS, length=1)
    peer.send(stack.at(), ack=1 + MSS, window=500)
    assert peer.drain()[0]["seq"] == 1 + MSS


def test_a_window_that_shrinks_ends_nothing(make_stack):
    """RFC 9293 section 3.8.6: no new data meanwhile; the old is sent again, beyond the edge too; the zero window is probed, for
    as long as it takes."""
    stack = make_stack(retries=3)
    stack.answer_arp = "*"
    peer = Peer(stack).establish()
    peer.write(pattern(40 * MSS))
    assert len(peer.drain()) == 10
    edge = 1 + 3 * MSS
    peer.send(1000, ack=1 + MSS, window=2 * MSS >> 7)
    taken, offered, beyond = 1 + MSS, 1 + 3 * MSS, 0
    for _ in range(20):
        seen = peer.relative(peer.recv(stack.at() + 61_000_000))
        assert seen["seq"] + seen["length"] <= 1 + 10 * MSS
        beyond += seen["seq"] + seen["length"] > offered
        if seen["seq"] <= taken:
            taken = max(taken, min(seen["seq"] + seen["length"], edge))
        peer.send(stack.at(), ack=taken, window=edge - taken >> 7)
        offered = taken + (edge - taken >> 7 << 7)
    assert peer.state == State.ESTABLISHED and edge - taken < 1 << 7 and beyond
    peer.send(stack.at(), ack=taken, window=1000)
    assert peer.recv(stack.at() + 1000, seq=taken).payload == pattern(MSS, taken - 1)


def test_our_window_may_stay_closed(make_stack):
    stack = make_stack(rcvbuf_bytes=4096)
    stack.answer_arp = "*"
    peer = Peer(stack).establish()
    peer.ask(Command.PAUSE)
    while peer.room:
        peer.send(0, data=bytes(min(peer.room, MSS)))
    peer.drain(1_000_000)
    for _ in range(60):  # an hour of probes
        peer.send(stack.at() + 60_000_000, seq=4097, data=b"?")
        peer.recv(flags="A", ack=4097, window=0)
    peer.ask(Command.RESUME)
    peer.recv(flags="A", ack=4097, window=4096)


# -- writing


def test_writable_comes_when_half_the_buffer_is_free(make_stack):
    stack = make_stack(sndbuf_bytes=20_000)
    peer = Peer(stack).establish()
    stack.command(Command.WRITE, peer.handle, pattern(20_000))
    peer.ask(Command.WANT_WRITABLE)
    assert peer.kinds() == [Event.ACCEPT]
    peer.drain()
    peer.send(1000, ack=1 + 6 * MSS)
    assert peer.kinds() == []
    peer.send(1000, ack=1 + 7 * MSS)
    assert peer.kinds() == [Event.WRITABLE]
    peer.send(1000, ack=1 + 8 * MSS)
    assert peer.kinds() == []


def test_want_writable_with_room_is_told_at_once(stack):
    peer = Peer(stack).establish()
    peer.ask(Command.WANT_WRITABLE)
    assert peer.kinds() == [Event.ACCEPT, Event.WRITABLE]


def test_a_peer_that_does_not_read_is_aborted(make_stack):
    stack = make_stack(sndbuf_bytes=10_000)
    peer = Peer(stack, window=0).establish(MSS_1460)
    for _ in range(4):
        peer.write(bytes(10_000))
    assert peer.state == State.ESTABLISHED
    peer.write(b"x")
    peer.recv(0, flags="RA")
    assert peer.closed_reason() == Reason.SLOW_READER
    assert stack.counter("slow_readers") == 1


def test_without_blocks_a_write_aborts(make_stack):
    stack = make_stack(blocks=16)
    peer = Peer(stack, window=0).establish(MSS_1460)
    peer.write(bytes(16 * 2048))
    assert stack.core.record.free_block_count == 0
    peer.write(b"x")
    peer.recv(0, flags="RA")
    assert peer.closed_reason() == Reason.NO_MEMORY
    assert stack.core.record.free_block_count == 16


def test_small_writes_share_blocks(stack):
    peer = Peer(stack, window=0).establish(MSS_1460)
    free = int(stack.core.record.free_block_count)
    for _ in range(2048 // 8):
        stack.command(Command.WRITE, peer.handle, b"8 bytes.")
    stack.run(0)
    assert stack.core.record.free_block_count == free - 1


def test_an_empty_write_sends_nothing(stack):
    peer = Peer(stack).establish()
    peer.write(b"")
    peer.nothing(1_000_000)
