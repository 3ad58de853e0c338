"""Frames that lie: truncated at every length, wrong checksums, impossible options, fragments. Dropped, counted, survived.

Run with NUMBA_DISABLE_JIT=1, each frame is a memory region of its own, so that a read beyond its end is an IndexError.
"""

import random
import struct

import pytest

from mpserve.testing.segment import Segment, arp_request, echo_request, ethernet_frame, internet_checksum, ipv4_packet
from mpserve.testing.stack import Stack

PEER, PEER_MAC, HOST = "10.9.0.1", b"\x02\0\0\0\0\x09", "10.9.0.2"


@pytest.fixture(scope="module")
def stack():
    made = Stack()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def at_rest(stack):
    """Whatever a frame was, no block, slot or mbuf is lost by it."""
    before = _resources(stack)
    yield
    stack.settle()
    stack.wire.collect()
    assert _resources(stack) == before


def _resources(stack):
    record = stack.core.record
    wire = stack.wire.mbufs_free + int(record.spare_count)
    return int(record.free_block_count), int(record.free_slot_count), wire


def syn(options=b"\x02\x04\x05\xb4\x01\x03\x03\x07", **fields):
    segment = Segment(5555, 7, 1000, 0, "S", options=options, source=PEER, destination=HOST, **fields)
    return segment.packed()


def frame_of(tcp, **ip):
    return ethernet_frame(b"\x02\0\0\0\0\x02", PEER_MAC, 0x0800, ipv4_packet(PEER, HOST, 6, tcp, **ip))


def drops(stack):
    names = [n for n in stack.core.counters.dtype.names if n.startswith("drop_")]
    return {n: stack.counter(n) for n in names if stack.counter(n)}


def feed(stack, *frames):
    """Deliver frames; the drop counters that moved, and the frames that came back."""
    before = drops(stack)
    for frame in frames:
        assert stack.wire.deliver(frame)
    assert stack.settle() == []
    after = drops(stack)
    return {n: after[n] - before.get(n, 0) for n in after if after[n] != before.get(n, 0)}, stack.wire.collect()


def whole_frames(stack):
    data = Segment(5556, 7, 1, 1, "PA", payload=b"payload", source=PEER, destination=HOST)
    return {
        "segment": data.frame(stack.wire.mac, PEER_MAC),
        "syn with options": frame_of(syn()),
        "arp": arp_request(PEER_MAC, PEER, HOST),
        "echo request": echo_request(PEER, HOST, stack.wire.mac, PEER_MAC),
    }


@pytest.mark.parametrize("kind", ["segment", "syn with options", "arp", "echo request"])
def test_a_frame_truncated_at_any_length_is_dropped_and_counted(stack, kind):
    whole = whole_frames(stack)[kind]
    for length in range(len(whole)):
        moved, answers = feed(stack, whole[:length])
        assert sum(moved.values()) == 1, (length, moved)
        assert answers == []


@pytest.mark.parametrize("position", range(14, 54))
def test_any_flipped_header_byte_is_dropped(stack, position):
    frame = bytearray(frame_of(syn(options=b"")))
    frame[position] ^= 0x55
    moved, answers = feed(stack, bytes(frame))
    assert sum(moved.values()) == 1 and answers == []


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (frame_of(syn())[:12] + b"\x86\xdd" + frame_of(syn())[14:], "drop_ethertype"),
        (b"\x02\0\0\0\0\x77" + frame_of(syn())[6:], "drop_not_ours"),
        (frame_of(syn(), fragment=0x2000), "drop_ip_malformed"),
        (frame_of(syn(), fragment=0x1FFF), "drop_ip_malformed"),
        (frame_of(b""), "drop_tcp_malformed"),
        (frame_of(syn()[:19]), "drop_tcp_malformed"),
        (b"\xff" * 6 + frame_of(syn())[6:], "drop_ip_martian"),
    ],
)
def test_each_lie_has_its_counter(stack, frame, counter):
    moved, answers = feed(stack, frame)
    assert moved == {counter: 1} and answers == []


@pytest.mark.parametrize("source", ["10.9.0.2", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "10.9.0.255"])
def test_sources_that_no_host_has(stack, source):
    packet = ipv4_packet(source, HOST, 6, Segment(1, 7, 1, 0, "S", source=source, destination=HOST).packed())
    moved, answers = feed(stack, ethernet_frame(stack.wire.mac, PEER_MAC, 0x0800, packet))
    assert moved == {"drop_ip_martian": 1} and answers == []


def test_other_destinations_and_protocols(stack):
    other = ipv4_packet(PEER, "10.9.0.77", 6, syn())
    udp = ipv4_packet(PEER, HOST, 17, b"\0" * 8)
    assert feed(stack, ethernet_frame(stack.wire.mac, PEER_MAC, 0x0800, other))[0] == {"drop_ip_not_ours": 1}
    assert feed(stack, ethernet_frame(stack.wire.mac, PEER_MAC, 0x0800, udp))[0] == {"drop_ip_protocol": 1}


@pytest.mark.parametrize("total", [0, 19, 20, 39, 1500, 65535])
def test_a_total_length_that_lies(stack, total):
    packet = bytearray(ipv4_packet(PEER, HOST, 6, syn(options=b"")))
    packet[2:4] = struct.pack("!H", total)
    packet[10:12] = b"\0\0"
    packet[10:12] = struct.pack("!H", internet_checksum(bytes(packet[:20])))
    moved, answers = feed(stack, ethernet_frame(stack.wire.mac, PEER_MAC, 0x0800, bytes(packet)))
    assert sum(moved.values()) == 1 and answers == []


@pytest.mark.parametrize("words", [0, 4, 6, 15])
def test_a_data_offset_that_lies(stack, words):
    tcp = bytearray(syn(options=b""))
    tcp[12] = words << 4
    tcp[16:18] = b"\0\0"
    pseudo = bytes([10, 9, 0, 1, 10, 9, 0, 2, 0, 6]) + struct.pack("!H", len(tcp))
    tcp[16:18] = struct.pack("!H", internet_checksum(pseudo + bytes(tcp)))
    moved, answers = feed(stack, frame_of(bytes(tcp)))
    assert moved == {"drop_tcp_malformed": 1} and answers == []


@pytest.mark.parametrize(
    "options",
    [
        b"\x02\x00\x05\xb4",  # length 0
        b"\x02\x01\x05\xb4",  # length 1
        b"\x02\x05\x05\xb4",  # runs past the header
        b"\x02\x03\x05\x01",  # an MSS of one byte
        b"\x01\x01\x01\x02",  # a kind without its length
        b"\x03\x04\x07\x01",  # a window scale of two bytes
        b"\xfe\xff\x00\x00",  # an unknown option that runs past the header
    ],
)
def test_options_that_lie(stack, options):
    moved, answers = feed(stack, frame_of(syn(options=options)))
    assert moved == {"drop_tcp_options": 1} and answers == []


def test_random_bytes_behind_good_headers_never_upset_it(stack):
    seeded = random.Random(7)
    for _ in range(300):
        tcp = bytearray(seeded.randbytes(seeded.randrange(20, 80)))
        tcp[2:4] = struct.pack("!H", 7)
        tcp[13] = seeded.choice([0x10, 0x11, 0x14, 0x04, 0x01, 0x00, 0x29])  # no SYN: nothing is to be kept
        tcp[16:18] = b"\0\0"
        pseudo = bytes([10, 9, 0, 1, 10, 9, 0, 2, 0, 6]) + struct.pack("!H", len(tcp))
        tcp[16:18] = struct.pack("!H", internet_checksum(pseudo + bytes(tcp)))
        feed(stack, frame_of(bytes(tcp)))


def test_an_unfinished_checksum_is_taken_only_where_a_kernel_may_leave_one(stack):
    tcp = bytearray(Segment(5557, 9, 1, 1, "A", source=PEER, destination=HOST).packed())
    pseudo = bytes([10, 9, 0, 1, 10, 9, 0, 2, 0, 6]) + struct.pack("!H", len(tcp))
    tcp[16:18] = struct.pack("!H", internet_checksum(pseudo) ^ 0xFFFF)
    assert feed(stack, frame_of(bytes(tcp)))[0] == {"drop_tcp_checksum": 1}
    stack.core.record.unfinished_checksums = 1
    try:
        moved, answers = feed(stack, frame_of(bytes(tcp)))
        assert moved == {"drop_no_listener": 1} and len(answers) == 1  # a RST: it got past the checksum
        tcp[16] ^= 1
        assert feed(stack, frame_of(bytes(tcp)))[0] == {"drop_tcp_checksum": 1}
    finally:
        stack.core.record.unfinished_checksums = 0
