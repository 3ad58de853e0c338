"""ARP both ways (RFC 826), ageing (RFC 1122 section 2.3.2.1), and where frames go meanwhile."""

import pytest
from peer import MAC, Peer, TestedStack

from mpserve.dataplane.neighbor import MOST_REQUESTS
from mpserve.testing.segment import arp_reply, arp_request

OTHER_MAC = b"\x02\x00\x00\x00\x00\x77"
MINUTE = 60_000_000


def sent(stack: TestedStack) -> list[tuple[int, bytes, str, str]]:
    """(operation, Ethernet destination, sender, target) of the ARP packets that have left."""
    frames, stack.other_frames = stack.other_frames, []
    dotted = [
        (f, ".".join(map(str, f[28:32])), ".".join(map(str, f[38:42]))) for f in frames if f[12:14] == b"\x08\x06"
    ]
    return [(f[21], f[:6], sender, target) for f, sender, target in dotted]


def destination_of(stack: TestedStack, peer: Peer) -> bytes:
    """Where a frame to the peer goes now."""
    peer.write(b"x")
    peer.recv(data=b"x")
    return stack.last_frame[:6]


def test_a_request_for_our_address_is_answered(stack):
    stack.give(arp_request(MAC, "10.9.0.1", "10.9.0.2"))
    assert sent(stack) == [(2, MAC, "10.9.0.2", "10.9.0.1")]
    assert stack.counter("arp_replies_sent") == 1


def test_a_request_for_another_address_is_not(stack):
    stack.give(arp_request(MAC, "10.9.0.1", "10.9.0.3"))
    assert sent(stack) == []


def test_an_arp_probe_is_answered_and_not_learned(stack):
    stack.give(arp_request(MAC, "0.0.0.0", "10.9.0.2"))
    assert [packet[0] for packet in sent(stack)] == [2]
    assert not stack.core.arrays["neighbors"].address.any()


def test_nobody_teaches_us_our_own_address_or_one_beyond_the_link(stack):
    stack.give(arp_request(MAC, "10.9.0.2", "10.9.0.2"), arp_request(MAC, "192.0.2.1", "10.9.0.2"))
    assert not stack.core.arrays["neighbors"].address.any()


@pytest.mark.parametrize("length", range(14, 42))
def test_a_short_arp_packet_is_malformed(stack, length):
    stack.give(arp_request(MAC, "10.9.0.1", "10.9.0.2")[:length])
    assert sent(stack) == []
    assert stack.counter("drop_arp_malformed") == 1


@pytest.mark.parametrize("at, value", [(14, 9), (16, 9), (18, 8), (19, 16), (22, 0xFF)])
def test_other_hardware_protocols_lengths_and_group_senders_are_malformed(stack, at, value):
    frame = bytearray(arp_request(MAC, "10.9.0.1", "10.9.0.2"))
    frame[at] = value
    stack.give(bytes(frame))
    assert stack.counter("drop_arp_malformed") == 1


def test_a_sender_without_a_mac_is_malformed(stack):
    """It would be answered to nobody, and make a known neighbour an unknown one."""
    Peer(stack).establish()
    stack.give(arp_reply(bytes(6), "10.9.0.1", stack.wire.mac, stack.ip), arp_request(bytes(6), "10.9.0.1", "10.9.0.2"))
    assert sent(stack) == []
    assert stack.counter("drop_arp_malformed") == 2
    neighbors = stack.core.arrays["neighbors"]
    assert neighbors.mac[neighbors.address != 0].tolist() == [int.from_bytes(MAC, "big")]


def test_after_a_minute_the_neighbour_is_asked_for_and_meanwhile_used(stack):
    peer = Peer(stack).establish()
    stack.run(MINUTE + 10)
    peer.write(b"x")
    peer.recv(data=b"x")
    assert sent(stack) == [(1, b"\xff" * 6, "10.9.0.2", "10.9.0.1")]
    stack.give(arp_reply(OTHER_MAC, "10.9.0.1", stack.wire.mac, "10.9.0.2"))
    peer.send(stack.at())
    assert destination_of(stack, peer) == OTHER_MAC
    assert sent(stack) == []


def test_a_neighbour_that_never_answers_is_given_up_and_comes_back(stack):
    peer = Peer(stack).establish()
    stack.run(MINUTE + 10)
    peer.write(b"x")
    peer.drain(stack.at() + 20_000_000)
    assert stack.counter("drop_unresolved") > 0
    assert len(sent(stack)) >= 4
    stack.give(arp_reply(OTHER_MAC, "10.9.0.1", stack.wire.mac, "10.9.0.2"))
    peer.recv(stack.at() + MINUTE, data=b"x")


def test_requests_are_a_second_apart(stack):
    peer = Peer(stack).establish()
    stack.run(MINUTE + 10)
    for _ in range(5):
        peer.write(b"x")
    assert len(sent(stack)) == 1


def test_a_gratuitous_arp_moves_a_known_neighbour(stack):
    peer = Peer(stack).establish()
    stack.give(arp_request(OTHER_MAC, "10.9.0.1", "10.9.0.1"))
    assert destination_of(stack, peer) == OTHER_MAC


def test_beyond_the_link_without_a_gateway_frames_go_back_the_way_they_came(stack):
    peer = Peer(stack, ip="192.0.2.7").establish()
    stack.run(10 * MINUTE)
    peer.write(b"x")
    peer.recv(data=b"x")
    assert sent(stack) == []


def test_more_neighbours_than_places(make_stack):
    """An evicted neighbour is asked for again; its connections go on meanwhile."""
    stack = make_stack(neighbors=4)
    peers = [Peer(stack, ip=f"10.9.0.{n}").establish() for n in range(10, 18)]
    for peer in peers:
        peer.write(b"x")
        peer.recv(data=b"x")
    assert {target for _, _, _, target in sent(stack)} <= {peer.ip for peer in peers}


# -- under pressure


def known(stack: TestedStack) -> set[str]:
    addresses = stack.core.arrays["neighbors"].address
    return {".".join(map(str, int(address & 0xFFFFFFFF).to_bytes(4, "big"))) for address in addresses if address}


def test_a_flood_of_requests_takes_no_place_that_is_needed(make_stack):
    """More senders than there are places, all of whom ask for us: they are answered, and nobody is forgotten for them."""
    stack = make_stack(neighbors=16)
    honest = [Peer(stack, ip=f"10.9.0.{n}").establish() for n in range(10, 14)]
    for n in range(300):
        sender = f"10.9.0.{20 + n % 200}"
        stack.give(arp_request(OTHER_MAC, sender, "10.9.0.2"))
        peer = honest[n % 4]
        assert destination_of(stack, peer) == MAC
        peer.send(stack.at())
    assert {peer.ip for peer in honest} < known(stack) and len(known(stack)) <= 16
    assert (stack.counter("neighbors_evicted"), stack.counter("arp_replies_sent")) == (0, 300)
    assert stack.counter("arp_requests_sent") == 0


def test_a_flood_of_requests_takes_no_place_that_is_asked_for(make_stack):
    stack = make_stack(neighbors=4)
    peer = Peer(stack).establish()
    stack.run(MINUTE + 10)
    for n in range(20, 60):
        stack.give(arp_request(OTHER_MAC, f"10.9.0.{n}", "10.9.0.2"))
    sent(stack)
    peer.write(b"x")
    assert sent(stack) == [(1, b"\xff" * 6, "10.9.0.2", peer.ip)]
    for n in range(60, 100):
        stack.give(arp_request(OTHER_MAC, f"10.9.0.{n}", "10.9.0.2"))
    stack.give(arp_reply(MAC, peer.ip, stack.wire.mac, "10.9.0.2"))
    assert peer.ip in known(stack)


def test_places_that_nobody_needs_any_more_are_given_away(make_stack):
    stack = make_stack(neighbors=4)
    Peer(stack).establish()
    for n in range(20, 30):
        stack.give(arp_request(OTHER_MAC, f"10.9.0.{n}", "10.9.0.2"))
    before = known(stack)
    stack.run(MINUTE + 10)
    stack.give(arp_request(OTHER_MAC, "10.9.0.99", "10.9.0.2"))
    assert len(before) == 4 and "10.9.0.99" in known(stack) - before
    assert stack.counter("neighbors_evicted") == 1


def test_an_answer_to_nothing_teaches_nothing(stack):
    stack.give(arp_reply(OTHER_MAC, "10.9.0.1", stack.wire.mac, "10.9.0.2"))
    assert known(stack) == set()


def test_a_flood_of_connections_evicts_and_honest_ones_go_on(make_stack):
    """A handshake each takes places: whoever loses its own is asked for again, and served meanwhile by what its frames tell."""
    stack = make_stack(neighbors=8, max_connections=512, blocks=2048)
    stack.answer_arp = None
    honest = [Peer(stack, ip=f"10.9.0.{n}").establish() for n in range(10, 14)]
    for n in range(240):
        Peer(stack, ip=f"10.9.0.{15 + n}").establish()
        peer = honest[n % 4]
        assert destination_of(stack, peer) == MAC
        peer.send(stack.at())
    assert len(known(stack)) <= 8
    assert stack.counter("neighbors_evicted") >= 240 - 8


def test_arp_requests_are_so_many_a_second(make_stack):
    """However often places change hands."""
    stack = make_stack(neighbors=4, max_connections=512, blocks=2048)
    peers = [Peer(stack, ip=f"10.9.0.{n}").establish() for n in range(10, 60)]
    for _ in range(8):
        for peer in peers:
            peer.write(b"x")
            peer.recv(data=b"x")
            peer.send(stack.at())
    assert stack.at() < 1 << 20
    assert len(sent(stack)) == stack.counter("arp_requests_sent") == MOST_REQUESTS
    assert stack.counter("arp_requests_held") > 0
    stack.run(2 << 20)
    peers[0].write(b"x")
    peers[0].recv(data=b"x")
    assert len(sent(stack)) == 1, "the next second has its own"
