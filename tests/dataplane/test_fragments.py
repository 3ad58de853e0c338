"""IPv4 reassembly: any split comes together, nothing that overlaps does, all of it within bounds (RFC 791, 1858, 3128, 5722)."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer import MAC, Peer, TestedStack, pattern

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.events import Command
from mpserve.dataplane.ip_records import DATAGRAMS, FRAGMENTS
from mpserve.dataplane.limits import Limits
from mpserve.testing.segment import echo_request, ethernet_frame, ipv4_packet

MORE = 0x2000
PEER, HOST = "10.9.0.1", "10.9.0.2"
SECOND = 1_000_000


def fragment(stack, payload, start=0, more=True, identification=1, protocol=6, source=PEER, options=b""):
    bits = (MORE if more else 0) | start // 8
    packet = ipv4_packet(source, HOST, protocol, payload, bits, options, identification)
    return ethernet_frame(stack.wire.mac, MAC, 0x0800, packet)


def split(stack, datagram, cuts, **fields):
    """The fragments of a datagram cut at these places."""
    edges = [0, *sorted(cuts), len(datagram)]
    return [
        fragment(stack, datagram[start:end], start, end < len(datagram), **fields)
        for start, end in zip(edges, edges[1:], strict=False)
    ]


def drops(stack: TestedStack) -> dict[str, int]:
    names = [name for name in stack.core.counters.dtype.names if name.startswith("drop_")]
    return {name: stack.counter(name) for name in names if stack.counter(name)}


def start_over(stack: TestedStack, peer: Peer) -> None:
    """The connection ends, and all that waits for its other fragments has waited long enough."""
    peer.ask(Command.ABORT)
    peer.inbox.clear()
    stack.run(stack.at() + 31 * SECOND)


def segment_of(peer: Peer, length: int) -> bytes:
    return peer.segment("PA", data=pattern(length)).packed()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_any_split_order_and_duplication_gives_the_datagram(stack, draw):
    peer = Peer(stack).establish()
    length = draw.draw(st.integers(9, 6000))
    datagram = segment_of(peer, length)
    places = list(range(24, len(datagram), 8))
    cuts = draw.draw(st.sets(st.sampled_from(places), min_size=1, max_size=40))
    frames = split(stack, datagram, cuts, identification=draw.draw(st.integers(0, 65535)))
    copies = draw.draw(st.lists(st.sampled_from(frames[:-1]), max_size=5))
    order = draw.draw(st.permutations(frames + copies))
    for sent in order:
        stack.give(sent)
    assert peer.take() == pattern(length)
    start_over(stack, peer)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_any_overlap_that_is_no_copy_drops_the_datagram(stack, draw):
    peer = Peer(stack).establish()
    datagram = segment_of(peer, 1000)
    places = list(range(24, len(datagram), 8))
    cuts = draw.draw(st.sets(st.sampled_from(places), min_size=1, max_size=8))
    frames = split(stack, datagram, cuts)
    edges = [0, *sorted(cuts), len(datagram)]
    start = draw.draw(st.sampled_from([0, *places]))
    end = draw.draw(st.sampled_from([place for place in [*places, len(datagram)] if place > start]))
    data = datagram[start:end]
    if (start, end) in zip(edges, edges[1:], strict=False):
        data = bytes(byte ^ 1 for byte in data[:-1]) + data[-1:]
        data = data if len(data) > 1 else b"\xff"
    overlap = fragment(stack, data, start, end < len(datagram))
    before, dropped = stack.counter("reassembled"), stack.counter("drop_fragment_overlap")
    order = list(frames)
    order.insert(draw.draw(st.integers(0, len(frames) - 1)), overlap)
    stack.give(*order)
    assert (stack.counter("reassembled"), peer.take()) == (before, b"")
    assert stack.counter("drop_fragment_overlap") > dropped
    start_over(stack, peer)


def test_a_reassembled_segment_has_its_checksum_verified(stack):
    peer = Peer(stack).establish()
    datagram = segment_of(peer, 1000)
    stack.give(*split(stack, datagram[:500] + bytes([datagram[500] ^ 1]) + datagram[501:], [400]))
    assert (peer.take(), drops(stack)) == (b"", {"drop_tcp_checksum": 1})


def test_options_of_the_first_header_are_skipped(stack):
    peer = Peer(stack).establish()
    datagram = segment_of(peer, 1000)
    first = fragment(stack, datagram[:400], options=b"\x01" * 40)
    stack.give(fragment(stack, datagram[400:], 400, more=False), first)
    assert peer.take() == pattern(1000)


def test_the_longest_datagram(stack):
    peer = Peer(stack).establish()
    datagram = segment_of(peer, 65_535 - 40)
    stack.give(*split(stack, datagram, range(1480, len(datagram), 1480)))
    assert len(peer.take()) == 65_535 - 40


def test_a_longer_one_is_malformed(stack):
    """The ping of death: the last fragment ends past what the length field can tell."""
    stack.give(fragment(stack, bytes(100), 65_512, more=False, protocol=1))
    assert drops(stack) == {"drop_ip_malformed": 1}


def test_a_header_that_grows_past_the_longest_datagram_never_completes(stack):
    datagram = bytes(65_512)
    first = fragment(stack, datagram[:1480], protocol=1, options=b"\x01" * 40)
    stack.give(first, *split(stack, datagram, range(1480, len(datagram), 1480), protocol=1)[1:])
    assert stack.counter("reassembled") == 0
    stack.run(31 * SECOND)
    stack.give(fragment(stack, bytes(8), 800, protocol=1))
    assert drops(stack) == {"drop_fragment_timeout": 1}


@pytest.mark.parametrize("length, more", [(0, True), (0, False), (7, True), (1479, True)])
def test_a_fragment_off_the_boundary_of_8_is_malformed(stack, length, more):
    stack.give(fragment(stack, bytes(length), 800, more))
    assert drops(stack) == {"drop_ip_malformed": 1}


def test_echo_requests_in_fragments_are_answered(stack):
    whole = echo_request(PEER, HOST, stack.wire.mac, MAC, data=bytes(1000))[34:]
    stack.give(*split(stack, whole, [8, 16, 800], protocol=1))
    (reply,) = stack.other_frames
    assert len(reply) == 34 + 8 + 1000


@pytest.mark.parametrize("length, start", [(8, 0), (16, 0), (24, 8), (800, 8), (800, 16)])
def test_tiny_fragments_that_split_a_tcp_header_are_dropped(stack, length, start):
    stack.give(fragment(stack, b"\x50" * length, start))
    assert drops(stack) == {"drop_fragment_tiny": 1}


def test_a_first_fragment_holds_the_options_too(stack):
    peer = Peer(stack)
    syn = peer.segment("S", options=b"\x02\x04\x05\xb4" + b"\x01" * 16).packed()
    stack.give(*split(stack, syn, [24]))
    assert drops(stack)["drop_fragment_tiny"] == 1
    peer.nothing()


def test_other_protocols_are_not_put_together(stack):
    stack.give(fragment(stack, bytes(800), protocol=17))
    assert (drops(stack), stack.counter("fragments_received")) == ({"drop_ip_protocol": 1}, 1)


@pytest.mark.parametrize("other", [{"identification": 2}, {"protocol": 1}, {"source": "10.9.0.3"}])
def test_fragments_of_different_datagrams_stay_apart(stack, other):
    peer = Peer(stack).establish()
    datagram = segment_of(peer, 1000)
    first, second = split(stack, datagram, [400])
    stack.give(first, fragment(stack, datagram[400:], 400, more=False, **other))
    assert (peer.take(), drops(stack)) == (b"", {})
    stack.give(second)
    assert peer.take() == pattern(1000)


def test_what_comes_of_a_dropped_datagram_is_dropped(stack):
    peer = Peer(stack).establish()
    frames = split(stack, segment_of(peer, 1000), [400, 800])
    stack.give(frames[0], fragment(stack, bytes(8), 392), *frames[1:])
    assert (peer.take(), drops(stack)) == (b"", {"drop_fragment_overlap": 3})
    stack.run(31 * SECOND)
    stack.give(*frames)
    assert peer.take() == pattern(1000), "the same identification is good again when the time is over"


@pytest.mark.parametrize(
    "first, second",
    [
        ((800, False, 800), (1600, True, 8)),  # beyond the end
        ((800, False, 800), (1600, False, 8)),  # another end
        ((1600, True, 8), (800, False, 800 - 8)),  # an end before what is there
    ],
)
def test_a_datagram_has_one_end(stack, first, second):
    for start, more, length in (first, second):
        stack.give(fragment(stack, bytes(length), start, more))
    assert drops(stack) == {"drop_fragment_overlap": 1}


def test_after_30_seconds_an_incomplete_datagram_is_dropped(stack):
    peer = Peer(stack).establish()
    first, second = split(stack, segment_of(peer, 1000), [400])
    stack.give(first)
    stack.run(30 * SECOND + 1)
    stack.give(second)
    assert (peer.take(), drops(stack)) == (b"", {"drop_fragment_timeout": 1})
    assert stack.other_frames == [], "and nothing is said of it"


def test_the_oldest_of_too_many_makes_way(stack):
    peer = Peer(stack).establish()
    first, second = split(stack, segment_of(peer, 1000), [400])
    stack.give(first)
    for number in range(DATAGRAMS):
        stack.run(stack.at() + 10)
        stack.give(fragment(stack, bytes(80), 800, identification=100 + number))
    assert drops(stack) == {"drop_fragment_full": 1}
    stack.give(second)
    assert peer.take() == b""


def test_a_datagram_in_too_many_fragments_is_dropped(stack):
    datagram = bytes(8 * (FRAGMENTS + 2))
    stack.give(*split(stack, datagram, range(8, len(datagram), 8), protocol=1))
    assert (stack.counter("drop_fragment_full"), stack.counter("reassembled")) == (1, 0)


def test_a_flood_of_random_fragments_harms_nobody(stack):
    seeded = random.Random(3)
    peer = Peer(stack).establish()
    for _ in range(400):
        start, length = 8 * seeded.randrange(8192), 8 * seeded.randrange(1, 100)
        data = seeded.randbytes(length)
        stack.give(fragment(stack, data, start, seeded.random() < 0.8, seeded.randrange(40), seeded.choice([1, 6])))
    peer.send(stack.at(), data=b"still here")
    assert peer.take() == b"still here"


def test_they_can_be_refused(make_stack):
    stack = make_stack(fragments="refuse")
    peer = Peer(stack).establish()
    stack.give(*split(stack, segment_of(peer, 1000), [400]))
    assert (peer.take(), drops(stack)) == (b"", {"drop_ip_fragment": 2})


def test_another_policy_is_refused():
    with pytest.raises(SetupError, match="fragments = 'maybe': there are reassemble and refuse"):
        Limits(fragments="maybe")
