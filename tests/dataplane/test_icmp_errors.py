"""ICMP errors about our segments: what is believed of them, and of a forger's (RFC 1122 section 4.2.3.9, RFC 5927, RFC 1191)."""

import struct

import pytest
from peer import MAC, MSS_1460, SACK_PERMITTED, SCALE_7, SYNCHRONIZED, Peer, TestedStack, pattern, timestamps

from mpserve.dataplane.core import ipv4
from mpserve.dataplane.events import Command, Event, Reason
from mpserve.dataplane.layout import V4_MAPPED
from mpserve.dataplane.tcp.connect import connect
from mpserve.dataplane.tcp.path_mtu import MIN_PATH_MTU
from mpserve.dataplane.tcp.state import State
from mpserve.testing.segment import address, ethernet_frame, icmp_message, internet_checksum, ipv4_packet

SECOND = 1_000_000
ROUTER, HOST = "10.9.0.254", "10.9.0.2"
HOST_UNREACHABLE, PORT_UNREACHABLE, TOO_BIG = (3, 1), (3, 3), (3, 4)
SOFT = [(3, code) for code in range(16) if code != 4] + [(11, 0), (11, 1), (12, 0)]


def error(stack: TestedStack, what: tuple[int, int], quote: bytes, mtu: int = 0, to: str = HOST) -> bytes:
    """The frame of an error from a router."""
    message = icmp_message(*what, struct.pack("!HH", 0, mtu), quote)
    return ethernet_frame(stack.wire.mac, MAC, 0x0800, ipv4_packet(ROUTER, to, 1, message))


def sending(stack: TestedStack, length: int = 100, options: bytes = MSS_1460 + SCALE_7) -> tuple[Peer, bytes]:
    """A peer to whom `length` bytes are on their way, and the packet that they began in."""
    peer = Peer(stack).establish(options)
    peer.write(pattern(length))
    first = peer.inbox[0][1]
    return peer, ipv4_packet(HOST, peer.ip, 6, first.packed())


def drops(stack: TestedStack) -> dict[str, int]:
    names = [name for name in stack.core.counters.dtype.names if name.startswith("drop_")]
    return {name: stack.counter(name) for name in names if stack.counter(name)}


@pytest.mark.parametrize("what", SOFT)
def test_a_soft_error_is_counted_and_ends_nothing(stack, what):
    peer, packet = sending(stack)
    stack.give(error(stack, what, packet[:28]))
    assert stack.counter("icmp_soft_errors") == 1 and drops(stack) == {}
    assert peer.conn.soft_error == what[0] << 8 | what[1]
    peer.send(0, ack=101)
    assert peer.state == State.ESTABLISHED


@pytest.mark.parametrize("state", [state for state in SYNCHRONIZED if state != State.LAST_ACK])
def test_no_synchronized_state_is_ended_by_a_hard_error(stack, state):
    peer = Peer(stack).reach(state)
    packet = ipv4_packet(HOST, peer.ip, 6, struct.pack("!HHI", 7, peer.port, int(peer.tcb.snd_una)))
    stack.give(error(stack, PORT_UNREACHABLE, packet))
    assert peer.state == state and peer.closed_reason() is None


def test_a_timeout_tells_of_the_last_error(stack):
    peer, packet = sending(stack)
    stack.give(error(stack, HOST_UNREACHABLE, packet[:28]))
    stack.run(3_600_000_000)
    (closed,) = [event for event in peer.events if event.kind == Event.CLOSED]
    assert (closed.a, closed.b) == (Reason.TIMED_OUT, 0x0301)


def test_an_error_from_before_the_last_acknowledgment_is_not_told(stack):
    peer, packet = sending(stack)
    stack.give(error(stack, HOST_UNREACHABLE, packet[:28]))
    peer.recv()
    peer.send(0)
    peer.ask(Command.ABORT)
    (closed,) = [event for event in peer.events if event.kind == Event.CLOSED]
    assert closed.b == 0


@pytest.mark.parametrize(
    "what, ends", [((3, 2), True), ((3, 3), True), ((3, 0), False), ((3, 1), False), ((11, 3), False)]
)
def test_only_a_refusal_ends_a_connection_that_is_being_made(stack, what, ends):
    stack.answer_arp = "*"
    handle = connect(stack.core.address, V4_MAPPED | ipv4("10.9.0.1"), 80, 0)
    peer = Peer(stack, port=80, to_port=int(stack.core.arrays["conns"][handle & 0xFFFFFF].ports) & 0xFFFF)
    peer.handle = handle
    syn = peer.recv(0, flags="S")
    stack.give(error(stack, what, ipv4_packet(HOST, peer.ip, 6, syn.packed())[:28]))
    assert peer.kinds() == ([Event.CONNECT, Event.CLOSED] if ends else [])
    assert stack.counter("connections_refused") == int(ends)
    peer.recv(2 * SECOND, flags="S") if not ends else peer.nothing(2 * SECOND)


def test_a_source_quench_is_ignored(stack):
    peer, packet = sending(stack)
    cwnd = int(peer.tcb.cwnd)
    stack.give(error(stack, (4, 0), packet[:28]))
    assert stack.counter("icmp_source_quenches") == 1
    assert (peer.tcb.cwnd, peer.conn.soft_error) == (cwnd, 0)


@pytest.mark.parametrize(
    "offset, counted", [(-1, "drop"), (0, "taken"), (99, "taken"), (100, "drop"), (1 << 31, "drop")]
)
@pytest.mark.parametrize("what", [HOST_UNREACHABLE, TOO_BIG])
def test_only_an_error_about_data_in_flight_counts(stack, what, offset, counted):
    peer, packet = sending(stack)
    seq = (int(peer.tcb.snd_una) + offset) & 0xFFFFFFFF
    quote = packet[:2] + struct.pack("!H", 1500) + packet[4:24] + struct.pack("!I", seq)
    stack.give(error(stack, what, quote, mtu=1000))
    assert drops(stack) == ({"drop_icmp_sequence": 1} if counted == "drop" else {})
    assert (peer.tcb.mss < 1460) == (counted == "taken" and what == TOO_BIG)


def test_an_error_when_all_is_acknowledged_is_dropped(stack):
    peer, packet = sending(stack)
    peer.recv()
    peer.send(0)
    stack.give(error(stack, HOST_UNREACHABLE, packet[:28]))
    assert drops(stack) == {"drop_icmp_sequence": 1}


def test_an_error_about_no_connection_of_ours(stack):
    _, packet = sending(stack)
    other_port = packet[:22] + struct.pack("!H", 9) + packet[24:28]
    other_host = packet[:16] + address("10.9.0.77") + packet[20:28]
    stack.give(error(stack, HOST_UNREACHABLE, other_port), error(stack, HOST_UNREACHABLE, other_host))
    assert drops(stack) == {"drop_icmp_no_connection": 2}


@pytest.mark.parametrize("length", range(28))
def test_a_quote_cut_short_at_any_length(stack, length):
    _, packet = sending(stack)
    stack.give(error(stack, HOST_UNREACHABLE, packet[:length]))
    assert drops(stack) == {"drop_icmp_quote": 1}


@pytest.mark.parametrize("first", [0x44, 0x40, 0x35, 0x65, 0x46, 0x4F])
def test_a_quote_whose_header_lies(stack, first):
    _, packet = sending(stack)
    stack.give(error(stack, HOST_UNREACHABLE, bytes([first]) + packet[1:28]))
    assert drops(stack) == {"drop_icmp_quote": 1}


def test_a_quote_with_options(stack):
    """A router may have added some on the way."""
    peer, packet = sending(stack)
    quote = ipv4_packet(HOST, peer.ip, 6, packet[20:28], options=b"\x01" * 12)
    stack.give(error(stack, HOST_UNREACHABLE, quote))
    assert stack.counter("icmp_soft_errors") == 1


def test_a_quote_that_we_cannot_have_sent(stack):
    peer, packet = sending(stack)
    from_another = packet[:12] + address("10.9.0.3") + packet[16:28]
    udp = packet[:9] + b"\x11" + packet[10:28]
    icmp = packet[:9] + b"\x01" + packet[10:28]
    later_fragment = packet[:6] + b"\x00\x10" + packet[8:28]
    for quote in (from_another, udp, icmp, later_fragment):
        stack.give(error(stack, HOST_UNREACHABLE, quote))
    assert drops(stack) == {"drop_icmp_quote_not_ours": 4}
    assert peer.conn.soft_error == 0


def test_a_wrong_checksum_and_a_broadcast(stack):
    peer, packet = sending(stack)
    whole = error(stack, HOST_UNREACHABLE, packet[:28])
    stack.give(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert drops(stack) == {"drop_icmp_malformed": 1}
    stack.give(error(stack, HOST_UNREACHABLE, packet[:28], to="10.9.0.255"), b"\xff" * 6 + whole[6:])
    assert drops(stack) == {"drop_icmp_malformed": 1, "drop_ip_not_ours": 1, "drop_ip_martian": 1}
    assert peer.conn.soft_error == 0


def test_no_error_is_ever_answered(stack):
    peer, packet = sending(stack)
    peer.inbox.clear()
    for kind in (3, 4, 5, 11, 12):
        for code in range(16):
            for quote in (b"", packet[:27], packet[:28], packet[:12] + bytes(16), packet):
                stack.give(error(stack, (kind, code), quote, mtu=600 if code != 4 else 10_000))
    assert stack.other_frames == [] and peer.inbox == []


# -- path MTU


@pytest.mark.parametrize("options, header", [(MSS_1460 + SCALE_7, 40), (MSS_1460 + timestamps(5), 52)])
def test_what_is_in_flight_leaves_again_in_smaller_segments(stack, options, header):
    peer, packet = sending(stack, 10_000, options)
    segments = [segment["length"] for segment in peer.drain()]
    assert max(segments) == 1500 - header
    cwnd = int(peer.tcb.cwnd)
    stack.give(error(stack, TOO_BIG, packet[:28], mtu=1200))
    again = peer.drain()
    assert {segment["length"] for segment in again[:-1]} == {1200 - header}
    assert b"".join(segment["data"] for segment in again) == pattern(10_000)
    assert (peer.tcb.cwnd, stack.counter("path_mtu_lowered")) == (cwnd, 1)
    peer.send(stack.at(), ack=10_001, options=timestamps(6, 0) if header == 52 else b"")
    peer.write(pattern(3000))
    assert max(segment["length"] for segment in peer.drain()) == 1200 - header


def test_what_did_fit_makes_duplicates_and_no_congestion(stack):
    peer, packet = sending(stack, 1460)
    for _ in range(4):
        peer.write(bytes(100))
    stack.give(error(stack, TOO_BIG, packet[:28], mtu=1200))
    cwnd = int(peer.tcb.cwnd)
    for _ in range(4):
        peer.send(stack.at(), ack=1)
    assert (stack.counter("fast_retransmits"), int(peer.tcb.ssthresh)) == (0, 0x7FFFFFFF)
    assert peer.tcb.cwnd == cwnd


def test_what_the_peer_has_reported_is_not_sent_again(stack):
    peer = Peer(stack).establish(MSS_1460 + SACK_PERMITTED)
    for length in (1460, 100):
        peer.write(pattern(length))
    packet = ipv4_packet(HOST, peer.ip, 6, peer.inbox[0][1].packed())
    peer.drain()
    blocks = struct.pack("!BBBBII", 1, 1, 5, 10, peer.stack_iss + 1461, peer.stack_iss + 1561)
    peer.send(0, ack=1, options=blocks)
    peer.inbox.clear()
    stack.give(error(stack, TOO_BIG, packet[:28], mtu=1200))
    assert [(segment["seq"], segment["length"]) for segment in peer.drain()] == [(1, 1160), (1161, 300)]


def test_each_connection_has_a_path_of_its_own(stack):
    peer, packet = sending(stack, 1460)
    other, _ = sending(stack, 1460)
    stack.give(error(stack, TOO_BIG, packet[:28], mtu=1200))
    assert (peer.tcb.mss, other.tcb.mss) == (1160, 1460)


@pytest.mark.parametrize("mtu", [1, 67, 68, 296, MIN_PATH_MTU - 1, 1500, 1501, 9000, 65535])
def test_too_small_to_be_true_or_no_smaller_than_now(stack, mtu):
    peer, packet = sending(stack, 5000)
    peer.drain()
    stack.give(error(stack, TOO_BIG, packet[:28], mtu=mtu))
    peer.nothing()
    assert (peer.tcb.mss, drops(stack)) == (1460, {"drop_icmp_mtu": 1})


def test_a_segment_that_fits_cannot_have_been_too_long(stack):
    """RFC 5927 section 7.2: no more is believed than what was sent makes likely."""
    peer, packet = sending(stack, 900)
    stack.give(error(stack, TOO_BIG, packet[:28], mtu=1000))
    assert (peer.tcb.mss, drops(stack)) == (1460, {"drop_icmp_mtu": 1})


def test_552_is_the_least(stack):
    peer, packet = sending(stack, 5000)
    stack.give(error(stack, TOO_BIG, packet[:28], mtu=MIN_PATH_MTU))
    assert peer.tcb.mss == MIN_PATH_MTU - 40


def test_a_second_message_about_the_same_flight_sends_nothing(stack):
    """RFC 1191 section 6.4: a burst of segments gives rise to many messages."""
    peer, packet = sending(stack, 5000)
    for _ in range(3):
        stack.give(error(stack, TOO_BIG, packet[:28], mtu=1200))
    assert sum(segment["length"] for segment in peer.drain()) == 10_000
    assert (stack.counter("path_mtu_lowered"), drops(stack)) == (1, {"drop_icmp_mtu": 2})


def test_an_old_router_that_tells_no_mtu_gets_the_plateaus(stack):
    peer, packet = sending(stack, 5000)
    stack.give(error(stack, TOO_BIG, packet[:28]))
    assert peer.tcb.mss == 1492 - 40
    shorter = packet[:2] + struct.pack("!H", 1492) + packet[4:28]
    stack.give(error(stack, TOO_BIG, shorter))
    assert peer.tcb.mss == 1006 - 40
    stack.give(error(stack, TOO_BIG, shorter))
    assert (peer.tcb.mss, drops(stack)) == (1006 - 40, {"drop_icmp_mtu": 1}), "508 is below what is believed"


def test_our_segments_carry_df(stack):
    peer = Peer(stack).establish()
    peer.write(b"x")
    header = stack.last_frame[14:34]
    assert header[6] & 0x40 and internet_checksum(header) == 0
