"""Frames at the door: what is dropped and by which counter, large and chained mbufs, ICMP echo.

Truncations, lies and random frames are in test_hostile_frames.py.
"""

import struct

import pytest
from peer import MAC, Peer, pattern

from mpserve.dataplane.events import Command
from mpserve.testing.segment import (
    address,
    echo_request,
    ethernet_frame,
    internet_checksum,
    ipv4_packet,
)

PEER, HOST = "10.9.0.1", "10.9.0.2"


def test_a_frame_for_another_mac_is_not_ours(stack):
    stack.give(echo_request(PEER, HOST, b"\x02\0\0\0\0\x99", MAC))
    assert stack.counter("drop_not_ours") == 1


@pytest.mark.parametrize(
    "source",
    ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "10.9.0.255", HOST],
)
def test_martians(stack, source):
    stack.give(echo_request(source, HOST, stack.wire.mac, MAC))
    assert (stack.counter("drop_ip_martian"), stack.other_frames) == (1, [])


def test_unicast_ip_in_a_broadcast_frame_is_a_martian(stack):
    stack.give(echo_request(PEER, HOST, b"\xff" * 6, MAC))
    assert stack.counter("drop_ip_martian") == 1


def test_other_protocols_types_and_addresses(stack):
    mac = stack.wire.mac
    stack.give(
        ethernet_frame(mac, MAC, 0x86DD, bytes(40)),
        ethernet_frame(mac, MAC, 0x0800, ipv4_packet(PEER, HOST, 17, bytes(20))),
        ethernet_frame(mac, MAC, 0x0800, ipv4_packet(PEER, "10.9.0.3", 6, bytes(20))),
    )
    counters = ("drop_ethertype", "drop_ip_protocol", "drop_ip_not_ours")
    assert [stack.counter(name) for name in counters] == [1, 1, 1]


def test_ip_options_are_skipped(stack):
    peer = Peer(stack).establish()
    segment = peer.segment("A", data=b"behind options")
    packet = ipv4_packet(PEER, HOST, 6, segment.packed(), options=b"\x01" * 8)
    stack.give(ethernet_frame(stack.wire.mac, MAC, 0x0800, packet))
    assert peer.take() == b"behind options"


def test_padding_behind_a_short_packet_is_not_text(stack):
    peer = Peer(stack).establish()
    stack.give(peer.frame(data=b"x") + bytes(20))
    assert peer.take() == b"x"


def test_echo(stack):
    stack.give(echo_request(PEER, HOST, stack.wire.mac, MAC, data=b"ping" * 100))
    (reply,) = stack.other_frames
    assert reply[:6] == MAC and reply[26:30] == address(HOST) and reply[30:34] == address(PEER)
    assert internet_checksum(reply[34:]) == 0
    assert reply[34:36] == b"\0\0" and reply[38:] == struct.pack("!HH", 7, 1) + b"ping" * 100


@pytest.mark.parametrize("at, value, counter", [(34, 0, "drop_icmp_malformed"), (40, 9, "drop_icmp_malformed")])
def test_an_icmp_message_with_a_wrong_checksum(stack, at, value, counter):
    frame = bytearray(echo_request(PEER, HOST, stack.wire.mac, MAC))
    frame[at] = value
    stack.give(bytes(frame))
    assert (stack.counter(counter), stack.other_frames) == (1, [])


def test_other_icmp_messages_are_not_answered(stack):
    message = struct.pack("!BBHHH", 13, 0, 0, 7, 1)
    message = message[:2] + struct.pack("!H", internet_checksum(message)) + message[4:]
    stack.give(ethernet_frame(stack.wire.mac, MAC, 0x0800, ipv4_packet(PEER, HOST, 1, message)))
    assert (stack.counter("drop_icmp_type"), stack.other_frames) == (1, [])


def test_echoes_beyond_the_blocks_are_dropped(make_stack):
    stack = make_stack(blocks=16)
    for _ in range(20):
        stack.wire.deliver(echo_request(PEER, HOST, stack.wire.mac, MAC))
    stack.run(0)
    assert (len(stack.other_frames), stack.counter("drop_no_block")) == (16, 4)


def test_what_the_device_does_not_take_leaves_later(stack):
    peer = Peer(stack).establish()
    stack.wire._wire.tx_rows = 2
    stack.command(Command.WRITE, peer.handle, pattern(5 * 1460))
    frames = []
    for _ in range(4):
        stack.turn()
        frames += stack.wire.collect()
    assert b"".join(frame[54:] for frame in frames) == pattern(5 * 1460)
    assert stack.counter("tx_retried") > 0


def test_an_echo_too_large_for_a_frame_is_dropped(stack):
    stack.wire.deliver(echo_request(PEER, HOST, stack.wire.mac, MAC, data=bytes(3000)))
    stack.run(0)
    assert stack.counter("drop_oversize") == 1


def test_an_echo_that_finds_no_mbuf_gives_its_block_back(stack):
    wire = stack.wire
    wire.deliver(echo_request(PEER, HOST, wire.mac, MAC))
    held = [wire._pop() for _ in range(wire.mbufs_free)]
    free = int(stack.core.record.free_block_count)
    stack.run(0)
    assert (stack.counter("mbuf_shortage"), stack.core.record.free_block_count) == (1, free)
    for mbuf in held:
        wire._arrays["free_list"][wire._wire.free_count] = mbuf
        wire._wire.free_count += 1


@pytest.mark.parametrize("segments", [1, 2, 3, 7, 40])
def test_large_frames_in_chained_mbufs(stack, segments):
    """A local peer's GSO frame, or LRO: as long as IPv4 allows, in any number of mbufs."""
    peer = Peer(stack).establish()
    data = pattern(60_000)
    assert stack.wire.deliver(peer.frame("PA", data=data), segments)
    stack.run(0)
    assert peer.take() == data


def test_a_chain_too_long_for_the_stack_is_dropped(stack):
    stack.wire.deliver(bytes(140_000), 70)
    stack.run(0)
    assert stack.counter("drop_oversize") == 1


def test_unfinished_checksums_are_taken_where_the_device_says_so(make_stack):
    for says_so in (0, 1):
        stack = make_stack()
        peer = Peer(stack).establish()
        stack.core.record.unfinished_checksums = says_so
        segment = peer.segment("A", data=b"from the kernel next door")
        pseudo = address(PEER) + address(HOST) + struct.pack("!BBH", 0, 6, 20 + len(segment.payload))
        packet = ipv4_packet(PEER, HOST, 6, segment.packed(checksum=internet_checksum(pseudo) ^ 0xFFFF))
        stack.give(ethernet_frame(stack.wire.mac, MAC, 0x0800, packet))
        assert bool(peer.take()) == bool(says_so)
        assert (stack.counter("checksum_unfinished"), stack.counter("drop_tcp_checksum")) == (says_so, 1 - says_so)
        assert peer.tcb.rcv_nxt == (peer.iss + 1 + says_so * len(segment.payload)) % 2**32


LIES = ["02010101", "02000101", "020505b4", "03040700", "01010102", "080a0000", "03030702"]


@pytest.mark.parametrize("options", LIES)
def test_options_that_lie_about_their_length(stack, options):
    peer = Peer(stack)
    peer.send(0, flags="S", options=bytes.fromhex(options))
    peer.nothing()
    assert stack.counter("drop_tcp_options") == 1


@pytest.mark.parametrize(
    "options", [b"\x01\x01\x01\x00\xff\xff\xff\xff", b"\x04\x02\x08\x0a" + bytes(8) + b"\x01\x01\x01\x00"]
)
def test_unknown_options_and_what_follows_the_end_are_skipped(stack, options):
    peer = Peer(stack)
    peer.send(0, flags="S", options=options)
    peer.recv(flags="SA", mss=1460, scale=None)


def test_a_flood_of_controls_is_bounded(make_stack):
    """300 segments for nobody in one turn: as many RSTs as there is room for, the rest counted."""
    stack = make_stack()
    peer = Peer(stack, to_port=9)
    for _ in range(300):
        stack.wire.deliver(peer.frame("A", ack=5))
    stack.run(0)
    assert len(peer.inbox) + stack.counter("drop_control_full") == 300


def test_controls_that_a_full_device_has_no_room_for_are_counted(make_stack):
    stack = make_stack()
    peer = Peer(stack, to_port=9)
    rows, stack.wire._wire.tx_rows = int(stack.wire._wire.tx_rows), 0
    for _ in range(11):
        for _ in range(100):
            stack.wire.deliver(peer.frame("A", ack=5))
        stack.turn()
        stack.turn()
    stack.wire._wire.tx_rows = rows
    stack.run(0)
    assert stack.counter("rsts_sent") == 1100
    assert len(peer.inbox) + stack.counter("drop_control_unsent") == 1100
    assert len(peer.inbox) == 1024, "what waits for the device, and no more"


def test_recorded_frames_are_both_directions(stack):
    import numpy as np

    from mpserve.dataplane.memory import allocate, unregister

    ring = allocate(np.uint8, 4096)
    record = stack.core.record
    record.record_bytes, record.record = len(ring), ring.ctypes.data
    peer = Peer(stack).establish()
    first, length = int(ring[:8].view("<i8")[0]), int(ring[8:16].view("<i8")[0])
    assert (first, length) == (stack.start, 54 + 8)
    for _ in range(200):
        peer.ask(Command.WRITE, bytes(500))
        peer.inbox.clear()
    assert stack.counter("recorded_lost") > 0
    assert record.record_head <= 4096
    record.record_tail = record.record_head
    stack.give(echo_request(PEER, HOST, stack.wire.mac, MAC, data=bytes(500)))
    assert record.record_head > 4096, "the ring goes on at its start"
    record.record = 0
    unregister(ring.ctypes.data)
