"""How a stream becomes segments, and what their headers hold (RFC 9293 sections 3.1, 3.2, 3.7)."""

import struct

import pytest
from peer import MSS_1460, SACK_PERMITTED, SCALE_7, Peer, pattern, timestamps

from mpserve.dataplane.events import Command, Reason
from mpserve.dataplane.tcp.state import State

MSS = 1460
ALL = MSS_1460 + SCALE_7 + SACK_PERMITTED
UNKNOWN = b"\xfd\x06\xab\xcd\x00\x01"  # an experimental option (RFC 6994)


# -- PSH


def test_psh_marks_the_end_of_what_is_queued(stack):
    """Section 3.9.1.2: three writes are one push."""
    peer = Peer(stack).establish()
    for _ in range(3):
        stack.command(Command.WRITE, peer.handle, bytes(1000))
    assert [(seen["length"], seen["flags"]) for seen in peer.drain()] == [(MSS, "A"), (MSS, "A"), (80, "PA")]


def test_a_segment_that_the_window_cut_short_has_no_psh(stack):
    peer = Peer(stack, window=1000).establish(MSS_1460)
    peer.write(bytes(1500))
    peer.recv(0, flags="A", length=1000)
    peer.send(1000)
    peer.recv(1000, flags="PA", length=500)


def test_without_psh_data_is_delivered_all_the_same(stack):
    peer = Peer(stack).establish()
    peer.send(0, flags="A", data=b"no push")
    assert peer.take() == b"no push"


# -- sizes


@pytest.mark.parametrize("length", [*range(1, 18), MSS - 1, MSS])
def test_a_segment_of_any_length_has_a_right_checksum(stack, length):
    peer = Peer(stack).establish()
    peer.write(pattern(length))
    segment = peer.recv(0, length=length)
    assert segment.packed()[16:18] == stack.last_frame[50:52], "as computed by other means"


@pytest.mark.parametrize("window, scale", [(0x8000, 0), (0xFFFF, 0), (0xFFFF, 14)])
def test_a_window_is_never_negative(stack, window, scale):
    """Section 3.1: the field is unsigned; scaled it takes 30 bits."""
    peer = Peer(stack, window=window).establish(MSS_1460 + b"\x01\x03\x03" + bytes([scale]))
    assert peer.tcb.snd_wnd == window << scale
    peer.write(bytes(20 * MSS))
    assert sum(seen["length"] for seen in peer.drain()) == 10 * MSS


@pytest.mark.parametrize("mtu, offered", [(1500, 1460), (9000, 8960), (576, 536)])
@pytest.mark.parametrize("options", [b"", MSS_1460 + SCALE_7])
def test_each_syn_ack_offers_what_the_mtu_allows(make_stack, mtu, offered, options):
    """Section 3.7.1: always, and without regard to options."""
    peer = Peer(make_stack(mtu=mtu))
    peer.send(0, flags="S", options=options)
    peer.recv(0, flags="SA", mss=offered)


def test_the_effective_segment_is_the_smaller_of_both_without_options(make_stack):
    """Section 3.7.1, Eff.snd.MSS: the peer's size, our own MTU, and 12 bytes of timestamps."""
    for mtu, offered, length in ((1500, 9000, 1448), (9000, 1460, 1448), (9000, 4000, 3988)):
        peer = Peer(make_stack(mtu=mtu)).establish(b"\x02\x04" + struct.pack("!H", offered) + timestamps(1))
        peer.send(peer.stack.at(), options=timestamps(2))
        peer.write(bytes(20_000))
        left = peer.drain()
        assert {seen["length"] for seen in left[:-1]} == {length}


# -- options that we send


def everything_that_leaves(stack, options):
    """Segments of all kinds to a peer that offered `options`: SYN-ACK, data, ACKs with reports, FIN, ACK of a TIME_WAIT, RST."""
    peer = Peer(stack)
    stamps = timestamps(1) if b"\x08\x0a" in options else b""
    arguments = dict(options=stamps)
    peer.send(0, flags="S", options=options)
    segments = [peer.recv(0)]
    peer.send(1000, **arguments)
    peer.write(pattern(3000))
    peer.send(2000, seq=11, data=bytes(10), **arguments)
    peer.send(2000, seq=31, data=bytes(10), **arguments)
    peer.send(2000, seq=11, data=bytes(10), **arguments)
    peer.send(3000, flags="R", seq=5)
    peer.ask(Command.SHUTDOWN)
    segments += take_all(peer)
    peer.send(4000, seq=1, ack=3002, data=bytes(50), **arguments)
    peer.send(5000, flags="FA", seq=51, ack=3002, **arguments)
    peer.send(6000, flags="FA", seq=51, ack=3002, **arguments)
    assert peer.state == State.TIME_WAIT
    segments += take_all(peer)
    other = Peer(stack)
    other.send(7000, flags="S", options=options)
    segments.append(other.recv())
    other.send(7000, **arguments)
    other.ask(Command.ABORT)
    other.send(8000, **arguments)
    return segments + take_all(other)


def take_all(peer):
    taken = [segment for _, segment in peer.inbox]
    peer.drain()
    return taken


OFFERS = [b"", MSS_1460, ALL, ALL + timestamps(1)]


@pytest.mark.parametrize("offer", OFFERS)
def test_no_segment_but_a_syn_carries_an_mss(stack, offer):
    segments = everything_that_leaves(stack, offer)
    assert {"SA", "A", "PA", "FA", "RA", "R"} <= {segment.flags for segment in segments}
    assert [segment.mss() is not None for segment in segments] == ["S" in segment.flags for segment in segments]


def test_no_segment_is_urgent(stack):
    """RFC 6093 section 5: nothing new should use it."""
    assert not any("U" in segment.flags for segment in everything_that_leaves(stack, ALL))


@pytest.mark.parametrize("offer", OFFERS)
def test_our_options_have_lengths_and_fill_whole_words(stack, offer):
    """Section 3.1: no end of list and so no padding behind one; every option but NOP tells its length."""
    for segment in everything_that_leaves(stack, offer):
        at, options = 0, segment.options
        while at < len(options):
            assert options[at] in (1, 2, 3, 4, 5, 8)
            at += 1 if options[at] == 1 else options[at + 1]
        assert at == len(options) and len(options) % 4 == 0


# -- options that we receive


def test_an_option_may_come_in_any_segment_and_unknown_ones_are_ignored(stack):
    peer = Peer(stack)
    peer.send(0, flags="S", options=UNKNOWN + MSS_1460)
    peer.recv(0, flags="SA", mss=1460)
    peer.send(1000, options=UNKNOWN)
    peer.write(b"x")
    peer.recv(1000, data=b"x")
    peer.send(2000, data=b"abc", options=UNKNOWN + MSS_1460)
    assert peer.take() == b"abc" and peer.tcb.snd_queued == 0 and peer.tcb.mss == 1460
    peer.send(3000, flags="FA", options=UNKNOWN)
    assert peer.state == State.CLOSE_WAIT
    peer.send(4000, flags="R", options=UNKNOWN)
    assert peer.closed_reason() == Reason.RESET


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_options_need_not_begin_on_a_word(stack, shift):
    nops = b"\x01" * shift
    syn = b"\x02\x04\x04\x00" + b"\x03\x03\x07" + b"\x04\x02" + timestamps(5)[2:]
    peer = Peer(stack, window=1000).establish(nops + syn)
    assert (peer.tcb.mss, peer.tcb.snd_scale) == (1024 - 12, 7)
    peer.send(0, data=b"abc", options=nops + timestamps(6)[2:])
    assert peer.take() == b"abc" and peer.tcb.ts_recent == 6
    peer.write(pattern(4 * 1012))
    assert len(peer.drain()) == 4
    base = peer.stack_iss + 1
    sack = b"\x05\x0a" + struct.pack("!II", (base + 1012) % 2**32, (base + 2024) % 2**32)
    peer.send(1000, ack=1, options=nops + sack + timestamps(7)[2:])
    assert peer.tcb.sacked == 1012


# -- addresses


def test_all_segments_come_from_the_address_of_the_first(stack):
    """Sections 3.9.1.1: the listener is of any address, the connection of the one that the SYN came to."""
    segments = everything_that_leaves(stack, ALL)
    assert {segment.source for segment in segments} == {stack.ip}
