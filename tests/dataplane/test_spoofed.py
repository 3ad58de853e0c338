"""Frames that only an attacker sends: dropped at the door, each by its counter, without an answer that could be aimed at others."""

import pytest
from peer import MAC, SYNCHRONIZED, Peer, TestedStack

from mpserve.dataplane.tcp.state import State
from mpserve.testing.segment import Segment, address, ethernet_frame, ipv4_packet

PEER, HOST = "10.9.0.1", "10.9.0.2"
BROADCAST = b"\xff" * 6


def tcp(
    flags: str = "S", source: str = PEER, to: str = HOST, sport: int = 5555, dport: int = 7, options: bytes = b""
) -> bytes:
    return Segment(sport, dport, 1000, 0, flags, options=options, source=source, destination=to).packed()


def packet(stack: TestedStack, source: str = PEER, to: str = HOST, mac: bytes | None = None, **fields: object) -> bytes:
    """The frame of a segment, a SYN for the listener if nothing else is said."""
    ip = ipv4_packet(source, to, 6, tcp(source=source, to=to, **fields))  # type: ignore[arg-type]
    return ethernet_frame(mac or stack.wire.mac, MAC, 0x0800, ip)


def outcome(stack: TestedStack, *frames: bytes) -> dict[str, int]:
    """What was dropped of these frames, none of which may have an answer or leave anything behind."""
    stack.give(*frames)
    assert stack.other_frames == [], "answered"
    assert stack.counter("syns_received") == 0
    names = [name for name in stack.core.counters.dtype.names if name.startswith("drop_")]
    return {name: stack.counter(name) for name in names if stack.counter(name)}


def test_land(stack):
    """A segment from ourselves, port and all, that would be answered to ourselves for ever (RFC 1122 section 3.2.1.3)."""
    assert outcome(stack, packet(stack, source=HOST, sport=7), packet(stack, source=HOST)) == {"drop_ip_martian": 2}


@pytest.mark.parametrize(
    "source",
    [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "10.9.0.255",
    ],
)
def test_sources_that_no_host_has(stack, source):
    assert outcome(stack, packet(stack, source=source)) == {"drop_ip_martian": 1}


def test_the_last_address_of_a_link_of_two_is_a_host(make_stack):
    """RFC 3021: a /31 has no broadcast address."""
    stack = make_stack(prefix_length=31)
    peer = Peer(stack, ip="10.9.0.3")
    peer.send(0, flags="S")
    peer.recv(flags="SA")


@pytest.mark.parametrize("to", ["255.255.255.255", "10.9.0.255", "10.9.0.0", "224.0.0.1", "0.0.0.0", "127.0.0.1"])
@pytest.mark.parametrize("group", [BROADCAST, b"\x01\x00\x5e\x00\x00\x01", None])
def test_tcp_to_many_or_nobody(stack, to, group):
    """RFC 9293 section 3.9.2.3: a SYN to a broadcast or multicast address is dropped without a word."""
    assert outcome(stack, packet(stack, to=to, mac=group)) == {"drop_ip_not_ours": 1}


@pytest.mark.parametrize("group", [BROADCAST, b"\x01\x00\x5e\x00\x00\x01"])
def test_tcp_to_us_in_a_frame_to_many(stack, group):
    assert outcome(stack, packet(stack, mac=group)) == {"drop_ip_martian": 1}


@pytest.mark.parametrize("group", [BROADCAST, b"\x01\x00\x5e\x00\x00\x01", b"\x03\x00\x00\x00\x00\x01"])
def test_a_frame_from_many(stack, group):
    """It would be answered to all of them."""
    frame = packet(stack)
    assert outcome(stack, frame[:6] + group + frame[12:]) == {"drop_source_group": 1}


@pytest.mark.parametrize("flags", ["S", "A", "SA", "F", "R"])
@pytest.mark.parametrize("ports", [{"sport": 0}, {"dport": 0}, {"sport": 0, "dport": 0}])
def test_port_zero(stack, flags, ports):
    assert outcome(stack, packet(stack, flags=flags, **ports)) == {"drop_tcp_port_zero": 1}


@pytest.mark.parametrize("flags", ["SF", "SFP", "SR", "SRA", "SFRPAU", ""])
@pytest.mark.parametrize("port", [7, 9])
def test_flags_that_no_tcp_sends(stack, flags, port):
    """With a listener and without: a scanner learns nothing."""
    assert outcome(stack, packet(stack, flags=flags, dport=port)) == {"drop_tcp_flags": 1}


@pytest.mark.parametrize("state", [State.SYN_RECEIVED, *SYNCHRONIZED, State.TIME_WAIT])
@pytest.mark.parametrize("flags", ["SF", "SRA", ""])
def test_flags_that_no_tcp_sends_change_no_connection(stack, state, flags):
    peer = Peer(stack).reach(state)
    peer.send(stack.at(), flags=flags)
    peer.nothing()
    assert (peer.state, stack.counter("drop_tcp_flags")) == (state, 1)


LSRR, SSRR = 131, 137


def with_options(stack: TestedStack, options: bytes) -> bytes:
    return ethernet_frame(stack.wire.mac, MAC, 0x0800, ipv4_packet(PEER, HOST, 6, tcp(), options=options))


@pytest.mark.parametrize("kind", [LSRR, SSRR])
@pytest.mark.parametrize("before", [b"", b"\x01", b"\x07\x03\x04"])
def test_a_source_route_is_refused(stack, kind, before):
    """RFC 7126 sections 4.3 and 4.4, wherever it stands; one that is used up included."""
    route = bytes([kind, 7, 8]) + address("10.9.0.9")
    options = (before + route).ljust(12, b"\0")
    assert outcome(stack, with_options(stack, options)) == {"drop_ip_options": 1}


@pytest.mark.parametrize(
    "options", [b"\x07\x00\x04\x00", b"\x07\x01\x04\x00", b"\x07\x05\x04\x00", b"\x01\x01\x01\x07", b"\x83\x09\x04\x00"]
)
def test_ip_options_that_lie_about_their_length(stack, options):
    assert outcome(stack, with_options(stack, options)) == {"drop_ip_malformed": 1}


@pytest.mark.parametrize(
    "options",
    [
        b"\x07\x07\x04" + bytes(5),  # record route
        b"\x44\x0c\x05\x00" + bytes(8),  # timestamp
        b"\x94\x04\x00\x00",  # router alert
        b"\x00\x83\x07\x04",  # nothing counts behind the end
        b"\x01" * 40,
    ],
)
def test_other_ip_options_are_skipped(stack, options):
    stack.give(with_options(stack, options))
    assert stack.counter("syns_received") == 1
    stack.other_frames.clear()


def test_a_source_route_in_a_fragment(stack):
    route = bytes([LSRR, 7, 4]) + address("10.9.0.9") + b"\0"
    ip = ipv4_packet(PEER, HOST, 6, bytes(800), 0x2000, route)
    assert outcome(stack, ethernet_frame(stack.wire.mac, MAC, 0x0800, ip)) == {"drop_ip_options": 1}


@pytest.mark.parametrize(
    "options", [b"\x02\x00\x05\xb4", b"\x02\x03\x05\x01", b"\x08\x0b" + bytes(10), b"\x05\x09" + bytes(10)]
)
def test_tcp_options_that_lie_about_their_length(stack, options):
    assert outcome(stack, packet(stack, options=options)) == {"drop_tcp_options": 1}
