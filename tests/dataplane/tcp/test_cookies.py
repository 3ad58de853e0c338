"""SYN cookies (RFC 4987): what a full backlog does not remember comes back with the peer's ACK."""

import struct

import pytest
from peer import MSS_1460, SACK_PERMITTED, SCALE_7, Peer, timestamps

from mpserve.dataplane.events import Command
from mpserve.dataplane.tcp.state import State

SECOND = 1_000_000


@pytest.fixture
def full(make_stack):
    """A stack with no room for another SYN."""
    stack = make_stack(syn_backlog=1)
    Peer(stack).reach(State.SYN_RECEIVED)
    return stack


def offer(stack, options=MSS_1460):
    """A peer that was given a cookie, and the SYN-ACK that it came in."""
    peer = Peer(stack)
    peer.send(stack.at(), flags="S", options=options)
    return peer, peer.recv(flags="SA", ack=1)


def test_the_handshake_completes_and_data_flows(full):
    peer, _ = offer(full)
    assert peer.state == State.CLOSED, "nothing is kept"
    peer.send(0, data=b"hello")
    assert peer.state == State.ESTABLISHED and peer.take() == b"hello"
    peer.write(b"reply")
    peer.recv(data=b"reply", seq=1, ack=6)
    assert full.counter("syn_cookies_sent") == full.counter("syn_cookies_taken") == 1


@pytest.mark.parametrize(
    ("offered", "kept"), [(100, 64), (536, 536), (1300, 1220), (1452, 1440), (1460, 1460), (9000, 1460)]
)
def test_the_segment_size_is_one_of_eight(full, offered, kept):
    peer, _ = offer(full, b"\x02\x04" + struct.pack("!H", offered))
    peer.send(0)
    assert peer.tcb.mss == kept


@pytest.mark.parametrize(
    "options, scale", [(b"", 0), (SCALE_7, 7), (b"\x01\x03\x03\x00", 0), (b"\x01\x03\x03\x0e", 14)]
)
@pytest.mark.parametrize("sack", [b"", SACK_PERMITTED])
def test_timestamps_remember_scale_and_sack(full, options, scale, sack):
    peer, syn_ack = offer(full, MSS_1460 + sack + options + timestamps(77))
    value, echo = struct.unpack("!II", syn_ack.option(8))
    assert echo == 77
    assert (syn_ack.window_scale() is not None) == bool(options) and (syn_ack.option(4) is not None) == bool(sack)
    peer.send(0, options=timestamps(78, value), window=1000)
    assert peer.tcb.snd_scale == scale and peer.tcb.snd_wnd == 1000 << scale
    assert bool(peer.tcb.rcv_scale) == bool(options)
    peer.send(0, seq=11, data=b"x", options=timestamps(79, value))
    assert (peer.recv(0, ack=1).option(5) is not None) == bool(sack)


def test_our_timestamps_never_go_back(full):
    for at in range(0, 200_000, 7_000):
        full.run(at)
        peer, syn_ack = offer(full, MSS_1460 + SCALE_7 + timestamps(77))
        value = struct.unpack("!I", syn_ack.option(8)[:4])[0]
        peer.send(at, options=timestamps(78, value))
        peer.write(b"x")
        later = struct.unpack("!I", peer.recv(data=b"x").option(8)[:4])[0]
        assert 0 <= (later - value) & 0xFFFFFFFF < 32


def test_without_timestamps_nothing_else_is_promised(full):
    peer, syn_ack = offer(full, MSS_1460 + SACK_PERMITTED + SCALE_7)
    assert syn_ack.window_scale() is None and syn_ack.option(4) is None and syn_ack.mss() == 1460
    peer.send(0, window=1000)
    assert peer.tcb.snd_wnd == 1000 and peer.tcb.rcv_scale == 0


@pytest.mark.parametrize("where", ["ack", "seq", "time"])
def test_a_wrong_cookie_is_answered_with_a_rst(full, where):
    peer, _ = offer(full)
    if where == "time":
        full.run(180 * SECOND)
        Peer(full).reach(State.SYN_RECEIVED)
        offer(full)  # cookies are in use again
        full.run(181 * SECOND)
    peer.send(full.at(), ack=2 if where == "ack" else 1, seq=2 if where == "seq" else 1)
    assert peer.state == State.CLOSED
    assert "R" in peer.recv().flags
    assert full.counter("syn_cookies_wrong") == 1


def test_a_cookie_of_the_period_before_is_good(full):
    full.run(60 * SECOND)
    Peer(full).reach(State.SYN_RECEIVED)
    peer, _ = offer(full)
    peer.send(80 * SECOND)
    assert peer.state == State.ESTABLISHED


def test_another_flow_cannot_use_it(full):
    peer, syn_ack = offer(full)
    thief = Peer(full, iss=peer.iss)
    thief.stack_iss = syn_ack.seq
    thief.send(0, seq=1, ack=1)
    assert thief.state == State.CLOSED and full.counter("syn_cookies_wrong") == 1


def test_a_cookie_is_good_again_once_its_connection_is_over(full):
    """Nothing remembers that it was used: if our RST is lost, the peer's next segment makes another connection."""
    peer, _ = offer(full)
    peer.send(0, data=b"hello")
    first = peer.handle
    assert peer.take() == b"hello"
    peer.ask(Command.ABORT)
    assert "R" in peer.drain()[-1]["flags"]
    peer.send(SECOND, seq=1, ack=1, data=b"hello")
    assert peer.state == State.ESTABLISHED and peer.handle != first and peer.take() == b"hello"
    assert full.counter("connections_accepted") == full.counter("syn_cookies_taken") == 2


def test_no_cookie_is_looked_for_where_none_was_given(stack):
    peer = Peer(stack)
    peer.send(0, seq=1, ack=1)
    assert "R" in peer.recv().flags
    assert stack.counter("syn_cookies_wrong") == 0
