"""Timeouts, backing off and giving up (RFC 6298), and what is sent again."""

import pytest
from peer import MAC, TICK, Peer, pattern

from mpserve.dataplane.events import Command, Event, Reason
from mpserve.dataplane.tcp.state import State
from mpserve.testing.segment import arp_reply

MSS = 1460


def test_the_rto_doubles_until_the_connection_is_given_up(make_stack):
    stack = make_stack(retries=4)
    peer = Peer(stack).establish()
    peer.write(b"hello")
    peer.recv(0, flags="PA", data=b"hello")
    for wait in (200_000, 400_000, 800_000, 1_600_000):
        due = peer.received_at + wait
        peer.nothing(due - 1)
        peer.recv(due + TICK, flags="PA", seq=1, data=b"hello")
    peer.nothing(peer.received_at + 3_200_000 - 1)
    peer.recv(peer.received_at + 3_200_000 + TICK, flags="RA", seq=6)
    assert peer.closed_reason() == Reason.TIMED_OUT
    assert (stack.counter("timeouts"), stack.counter("retransmits")) == (4, 4)
    assert stack.counter("connections_timed_out") == 1


def test_by_default_a_peer_is_given_up_after_more_than_100_seconds(stack):
    """RFC 9293 section 3.8.3, R2."""
    stack.answer_arp = "*"
    peer = Peer(stack).establish()
    peer.write(b"x")
    peer.drain(100_000_000)
    assert peer.state == State.ESTABLISHED
    peer.drain(300_000_000)
    assert peer.closed_reason() == Reason.TIMED_OUT


def test_the_rto_never_exceeds_a_minute(make_stack):
    stack = make_stack(retries=12)
    stack.answer_arp = "*"
    peer = Peer(stack).establish()
    peer.write(b"x")
    peer.recv(0)
    for _ in range(10):
        before = peer.received_at
        peer.recv(before + 60_000_000 + TICK)
    assert 60_000_000 <= peer.received_at - before <= 60_000_000 + TICK
    assert peer.tcb.rto_us == 60_000_000


def test_the_rto_follows_the_round_trip_times(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(100_000)
    assert peer.tcb.rto_us == 300_000
    peer.write(b"a")
    peer.recv()
    peer.send(stack.at() + 300_000 - 1)
    srtt = (7 * 100_000 + 299_999) // 8
    rttvar = (3 * 50_000 + 199_999) // 4
    assert (peer.tcb.srtt_us, peer.tcb.rttvar_us, peer.tcb.rto_us) == (srtt, rttvar, srtt + 4 * rttvar)


def test_the_rto_has_a_floor_of_200_ms(stack):
    peer = Peer(stack).establish()
    assert peer.tcb.rto_us == 200_000


def test_what_was_sent_twice_is_not_timed(stack):
    """Karn: an ACK could be for either copy."""
    peer = Peer(stack).establish()
    srtt = int(peer.tcb.srtt_us)
    peer.write(b"x")
    peer.recv(0)
    peer.recv(200_000 + TICK, data=b"x")
    peer.send(250_000)
    assert peer.tcb.srtt_us == srtt
    assert peer.tcb.rto_us >= 400_000, "backed off until something new is timed"
    peer.write(b"y")
    peer.recv(data=b"y")
    peer.send(stack.at() + 1000)
    assert peer.tcb.srtt_us != srtt
    assert peer.tcb.rto_us == 200_000


def test_the_next_hop_is_asked_for_again_after_three_retransmissions(stack):
    """Negative advice (RFC 9293 section 3.8.3): where the next hop has moved, a minute is too long to find it out."""
    peer = Peer(stack).establish()
    peer.write(b"x")
    for _ in range(4):
        assert stack.other_frames == []
        peer.recv(peer.received_at + 2_000_000, data=b"x")
    assert stack.last_frame[:6] == MAC
    peer.recv(peer.received_at + 2_000_000, data=b"x")
    (request,) = stack.other_frames
    assert request[12:14] == b"\x08\x06" and request[38:42] == bytes([10, 9, 0, 1])
    moved = b"\x02\x00\x00\x00\x00\x77"
    stack.give(arp_reply(moved, peer.ip, stack.wire.mac, stack.ip))
    peer.recv(peer.received_at + 4_000_000, data=b"x")
    assert stack.last_frame[:6] == moved


def test_an_answer_after_retransmissions_shows_that_the_next_hop_is_there(stack):
    """Positive advice (RFC 1122 section 2.3.2.1): a peer that answers no ARP request, but segments, is not given up."""
    peer = Peer(stack).establish()
    for _ in range(4):
        peer.write(b"x")
        for _ in range(6):
            peer.recv(stack.at() + 20_000_000, data=b"x")
        peer.send(stack.at())
        peer.write(b"y")  # its round trip resets the RTO
        peer.recv(data=b"y")
        peer.send(stack.at())
    assert len(stack.other_frames) > 4


def test_an_ack_restarts_the_timer(stack):
    peer = Peer(stack).establish()
    peer.write(pattern(2 * MSS))
    assert len(peer.drain()) == 2
    peer.send(150_000, ack=1 + MSS)
    rto = int(peer.tcb.rto_us)
    peer.nothing(150_000 + rto - 1)
    peer.recv(150_000 + rto + TICK, seq=1 + MSS)


def test_nothing_outstanding_means_no_timer(stack):
    peer = Peer(stack).establish()
    peer.write(b"x")
    peer.recv(0)
    peer.send(0)
    peer.nothing(100_000_000)
    assert stack.counter("timeouts") == 0


def test_after_a_timeout_everything_is_sent_again_from_one_segment_on(stack):
    peer = Peer(stack).establish()
    data = pattern(5 * MSS)
    peer.write(data)
    assert len(peer.drain()) == 5
    again = peer.recv(200_000 + TICK, seq=1, length=MSS)
    peer.nothing()
    got = bytearray(again.payload)
    while len(got) < len(data):
        peer.send(stack.at() + 1000, ack=1 + len(got))
        for seen in peer.drain():
            assert seen["seq"] == 1 + len(got)
            got += seen["data"]
    assert bytes(got) == data


def test_an_ack_for_the_first_flight_after_a_timeout_skips_what_arrived(stack):
    peer = Peer(stack).establish()
    peer.write(pattern(4 * MSS))
    peer.drain()
    peer.recv(200_000 + TICK, seq=1)
    peer.send(210_000, ack=1 + 3 * MSS)
    peer.recv(seq=1 + 3 * MSS, length=MSS)
    peer.send(211_000, ack=1 + 4 * MSS)
    peer.nothing(10_000_000)


def test_retransmissions_read_the_same_across_blocks(stack):
    """Segments and blocks have different sizes: each retransmission finds its bytes anew."""
    peer = Peer(stack, window=1000).establish(options=b"\x02\x04\x03\xe8")
    data = pattern(5001)
    for start in range(0, len(data), 700):
        stack.command(Command.WRITE, peer.handle, data[start : start + 700])
    got = b""
    while len(got) < len(data):
        first = peer.recv(seq=1 + len(got))
        again = peer.recv(stack.at() + 61_000_000, seq=1 + len(got))
        assert first.payload == again.payload
        got += again.payload
        peer.send(stack.at(), ack=1 + len(got))
    assert got == data


def test_progress_forgives_earlier_retries(make_stack):
    stack = make_stack(retries=3)
    peer = Peer(stack).establish()
    for _ in range(4):
        peer.write(b"x")
        for _ in range(3):
            peer.recv(stack.at() + 61_000_000, data=b"x")
        peer.send(stack.at())
    assert peer.state == State.ESTABLISHED


def test_a_data_segment_carries_the_ack(stack):
    peer = Peer(stack).establish()
    stack.run(0)
    stack.wire.deliver(peer.frame(data=b"question"))
    (event,) = stack.turn()
    stack.command(Command.WRITE, event.handle, b"answer")
    peer.recv(0, flags="PA", data=b"answer", ack=9)
    peer.send(0)
    peer.nothing(100_000)
    assert (event.kind, stack.counter("acks_delayed")) == (Event.READ, 0)


@pytest.mark.parametrize("state", [State.ESTABLISHED, State.CLOSE_WAIT])
def test_no_mbufs_means_later_not_never(stack, state):
    peer = Peer(stack).reach(state)
    wire = stack.wire
    held = [wire._pop() for _ in range(wire.mbufs_free)]
    spare, stack.core.record.spare_count = int(stack.core.record.spare_count), 0
    stack.command(Command.WRITE, peer.handle, b"data")
    for _ in range(5):
        stack.turn()
    assert stack.counter("mbuf_shortage") >= 5
    for mbuf in held:
        wire._arrays["free_list"][wire._wire.free_count] = mbuf
        wire._wire.free_count += 1
    stack.core.record.spare_count = spare
    peer.recv(0, flags="PA", data=b"data")


def test_control_segments_leave_before_acks_and_acks_before_data(stack):
    """Also where the data could have left first: its window opens before the segments to acknowledge arrive."""
    writer, reader = Peer(stack, window=0).establish(), Peer(stack).establish()
    writer.write(b"data")
    writer.window = 1000
    order: list[bytes] = []
    sort = stack._sort
    stack._sort = lambda frames: (order.extend(frames), sort(frames))[1]
    segments = [reader.frame(seq=seq, data=bytes(MSS)) for seq in (1, 1 + MSS)]
    stranger = Peer(stack)
    stack.give(writer.frame(), *segments, stranger.frame("S"))
    assert [int.from_bytes(frame[36:38], "big") for frame in order] == [stranger.port, reader.port, writer.port]
