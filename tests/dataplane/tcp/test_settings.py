"""Socket options: each for its effect on the wire. `tests/framework/test_socket_options.py` has their names and refusals."""

import pytest
from peer import MSS_1460, SACK_PERMITTED, SCALE_7, TICK, Peer, pattern

from mpserve.dataplane.events import Command, Event, Reason
from mpserve.dataplane.tcp.settings import VALUE_BITS, Option
from mpserve.dataplane.tcp.state import State
from mpserve.testing.stack import listen

MSS = 1460
SECOND = 1_000_000


def put(peer, option, value):
    peer.ask(Command.SET, option << VALUE_BITS | value & ((1 << VALUE_BITS) - 1))


@pytest.fixture
def peer(stack):
    return Peer(stack).establish(MSS_1460 + SCALE_7 + SACK_PERMITTED)


def lengths(peer, at_us=None):
    return [seen["length"] for seen in peer.drain(at_us) if seen["length"]]


def test_without_nagle_every_write_leaves_at_once(peer):
    for _ in range(3):
        peer.write(b"abc")
    assert lengths(peer) == [3, 3, 3]


def test_nagle_holds_short_segments_while_anything_is_unacknowledged(stack, peer):
    put(peer, Option.NODELAY, 0)
    for _ in range(3):
        peer.write(b"abc")
    assert lengths(peer) == [3]
    peer.send(1000)
    assert lengths(peer) == [6]
    peer.send(2000)
    peer.write(pattern(MSS + 5))
    assert lengths(peer) == [MSS], "a full segment leaves, what is left of the write waits"


def test_nodelay_lets_what_waits_go(peer):
    put(peer, Option.NODELAY, 0)
    peer.write(b"abc")
    peer.write(b"def")
    assert lengths(peer) == [3]
    put(peer, Option.NODELAY, 1)
    peer.write(b"g")
    assert lengths(peer) == [4]


def test_a_fin_lets_what_nagle_holds_go(peer):
    put(peer, Option.NODELAY, 0)
    peer.write(b"abc")
    peer.write(b"def")
    assert lengths(peer) == [3]
    peer.ask(Command.SHUTDOWN)
    assert [(s["data"], s["flags"]) for s in peer.drain()] == [(b"def", "PA"), (b"", "FA")]


def test_quickack(stack, peer):
    put(peer, Option.QUICKACK, 1)
    peer.send(1000, data=b"x")
    peer.recv(1000, ack=2, length=0)
    put(peer, Option.QUICKACK, 0)
    peer.send(2000, data=b"y")
    peer.nothing(3000)


def keepalive(peer, idle=10, interval=2, count=3):
    for option, value in (
        ("KEEPIDLE", idle * 1000),
        ("KEEPINTVL", interval * 1000),
        ("KEEPCNT", count),
        ("KEEPALIVE", 1),
    ):
        put(peer, Option[option], value)


def test_keepalive_gives_a_silent_peer_up(stack, peer):
    keepalive(peer)
    due = stack.at() + 10 * SECOND
    peer.nothing(due - 1)
    for _ in range(3):
        peer.recv(due + TICK, flags="A", seq=0, length=0)
        due = peer.received_at + 2 * SECOND
        peer.nothing(due - 1)
    peer.recv(due + TICK, flags="RA")
    assert peer.closed_reason() == Reason.TIMED_OUT
    assert stack.counter("keepalive_probes") == 3


def test_keepalive_leaves_a_peer_that_answers_alone(stack, peer):
    keepalive(peer)
    for _ in range(5):
        peer.recv(stack.at() + 10 * SECOND + TICK, seq=0)
        peer.send(stack.at())
    assert peer.state == State.ESTABLISHED


def test_one_answer_of_three_keeps_a_connection(stack, peer):
    """RFC 9293 section 3.8.4: ACKs get lost."""
    keepalive(peer)
    for _ in range(3):
        for _ in range(3):
            peer.recv(stack.at() + 10 * SECOND + TICK, seq=0)
        peer.send(stack.at())
    assert peer.state == State.ESTABLISHED


def test_once_on_keepalive_waits_two_hours_by_default(stack, peer):
    stack.answer_arp = "*"
    put(peer, Option.KEEPALIVE, 1)
    peer.nothing(7200 * SECOND - 1)
    peer.recv(7200 * SECOND + TICK, seq=0, length=0)
    for _ in range(8):
        before = peer.received_at
        peer.recv(before + 75 * SECOND + TICK, seq=0, length=0)
        assert peer.received_at >= before + 75 * SECOND
    peer.recv(peer.received_at + 76 * SECOND, flags="RA")


def test_what_arrives_puts_the_probe_off(stack, peer):
    keepalive(peer)
    peer.send(9 * SECOND, data=b"x")
    peer.recv(10 * SECOND)
    peer.nothing(18 * SECOND)
    peer.recv(19 * SECOND + TICK, seq=0)


def test_keepalive_is_off_by_default_and_can_be_turned_off(stack, peer):
    peer.nothing(3 * 3600 * SECOND)
    keepalive(peer)
    put(peer, Option.KEEPALIVE, 0)
    peer.nothing(4 * 3600 * SECOND)


def test_keepalive_probes_are_not_sent_while_data_waits_for_its_ack(stack, peer):
    keepalive(peer, idle=1)
    peer.write(b"x")
    assert {s["seq"] for s in peer.drain(8 * SECOND)} == {1}
    assert stack.counter("keepalive_probes") == 0


def test_the_user_timeout(stack, peer):
    put(peer, Option.USER_TIMEOUT, 5000)
    peer.write(b"x")
    peer.recv(0)
    peer.drain(5 * SECOND - 1)
    assert peer.state == State.ESTABLISHED
    peer.drain(5 * SECOND + 2 * TICK)
    assert peer.closed_reason() == Reason.TIMED_OUT


def test_the_user_timeout_may_also_be_longer_than_the_retransmissions_last(make_stack):
    """RFC 9293 section 3.8.3: an application sets R2 for a connection, to infinity if it likes."""
    stack = make_stack(retries=2)
    stack.answer_arp = "*"
    stack.core.record.rto_max_us = SECOND
    peer = Peer(stack).establish()
    put(peer, Option.USER_TIMEOUT, 300_000)
    peer.write(b"x")
    while stack.at() < 298 * SECOND:
        peer.recv(stack.at() + 2 * SECOND, data=b"x")
    assert peer.state == State.ESTABLISHED and stack.counter("timeouts") > 256
    peer.drain(301 * SECOND)
    assert peer.closed_reason() == Reason.TIMED_OUT


def test_progress_restarts_the_user_timeout(stack, peer):
    put(peer, Option.USER_TIMEOUT, 5000)
    peer.write(pattern(2 * MSS))
    peer.drain(4 * SECOND)
    peer.send(4 * SECOND, ack=1 + MSS)
    peer.drain(8 * SECOND)
    assert peer.state == State.ESTABLISHED


def test_the_user_timeout_holds_for_a_closed_window_too(make_stack):
    stack = make_stack()
    peer = Peer(stack, window=0).establish(MSS_1460)
    put(peer, Option.USER_TIMEOUT, 5000)
    peer.write(b"x")
    while stack.at() < 6 * SECOND:
        peer.drain(stack.at() + SECOND // 2)
        if peer.state == State.ESTABLISHED:
            peer.send(stack.at(), ack=1)
    assert peer.closed_reason() == Reason.TIMED_OUT


def test_linger_zero_resets(peer):
    put(peer, Option.LINGER, 0)
    peer.write(b"never read")
    peer.recv()
    peer.ask(Command.CLOSE)
    peer.recv(flags="RA")
    assert peer.kinds()[-1] == Event.CLOSED


def test_linger_waits_so_long_for_its_data(stack, peer):
    put(peer, Option.LINGER, 3000)
    peer.write(b"x")
    peer.ask(Command.CLOSE)
    seen = peer.drain(3 * SECOND - 1)
    assert all("R" not in s["flags"] for s in seen)
    assert "R" in peer.drain(3 * SECOND + TICK)[-1]["flags"]


def test_linger_off_closes_as_ever(stack, peer):
    put(peer, Option.LINGER, 0)
    put(peer, Option.LINGER, -1)
    peer.ask(Command.CLOSE)
    peer.recv(flags="FA")


def test_rcvbuf_bounds_the_window(stack, peer):
    put(peer, Option.RCVBUF, 8192)
    peer.ask(Command.PAUSE)
    at = 1000
    sent = 0
    while peer.room >= 1000 and sent < 200_000:
        peer.send(at, data=bytes(1000))
        peer.drain()
        at, sent = at + 1000, sent + 1000
    assert 65_535 - 2000 <= sent <= 65_535 + 8192, "what was offered before is taken, no more"
    peer.ask(Command.RESUME)
    peer.drain()
    assert peer.room <= 8192


def test_sndbuf_decides_when_a_writer_may_go_on(stack, peer):
    put(peer, Option.SNDBUF, 10_000)
    peer.write(pattern(30_000))
    peer.ask(Command.WANT_WRITABLE)
    acked, left = 0, 30_000
    while left > 5000:
        assert Event.WRITABLE not in [e.kind for e in peer.events]
        acked += sum(lengths(peer))
        peer.send(stack.at() + 1000, ack=1 + acked)
        left = 30_000 - acked
    assert Event.WRITABLE in [e.kind for e in peer.events]


def test_maxseg(peer):
    put(peer, Option.MAXSEG, 500)
    peer.write(pattern(1200))
    assert lengths(peer) == [500, 500, 200]


def test_congestion_control_can_be_chosen(stack, peer):
    put(peer, Option.CONGESTION, 1)
    peer.write(pattern(100_000))
    assert len(lengths(peer)) == 10
    peer.drain(SECOND // 4)
    assert peer.tcb.ssthresh == 10 * MSS // 2, "half of the flight, where CUBIC leaves seven tenths"


def ip_fields(stack):
    """(TOS, TTL) of the last frame to a peer."""
    return stack.last_frame[15], stack.last_frame[22]


def test_tos_and_ttl_of_all_that_a_connection_sends(stack, peer):
    """Data, a retransmission, an ACK, a keepalive probe, a RST; also changed on the way (RFC 9293 section 3.9.1.9)."""
    peer.write(b"x")
    peer.recv()
    assert ip_fields(stack) == (0, 64)
    put(peer, Option.TOS, 0xB8)
    put(peer, Option.TTL, 7)
    assert peer.drain(SECOND)[0]["data"] == b"x"
    assert ip_fields(stack) == (0xB8, 7)
    put(peer, Option.TOS, 0x20)
    peer.send(SECOND, ack=2, data=bytes(2 * MSS))
    peer.recv(SECOND, length=0)
    assert ip_fields(stack) == (0x20, 7)
    keepalive(peer, idle=1)
    peer.recv(3 * SECOND, seq=1, length=0)
    assert ip_fields(stack) == (0x20, 7)
    peer.ask(Command.ABORT)
    peer.recv(flags="RA")
    assert ip_fields(stack) == (0x20, 7)


def test_a_connection_that_ends_takes_its_tos_along(stack, peer):
    put(peer, Option.TOS, 0xB8)
    peer.send(1000, flags="FA")
    peer.recv(1000, ack=2)
    peer.ask(Command.ABORT)
    other = Peer(stack).establish()
    other.write(b"x")
    other.recv()
    assert ip_fields(stack) == (0, 64)


# -- listeners


def test_tos_and_ttl_of_a_listener_are_those_of_its_connections(make_stack):
    stack = make_stack(syn_backlog=1)
    listener = stack.core.arrays["listeners"][0]
    listener.tos, listener.ttl = 0x48, 9
    peer, second = Peer(stack), Peer(stack)
    for who in (peer, second):  # the second gets a cookie
        who.send(0, flags="S", options=MSS_1460)
        who.recv(0, flags="SA")
        assert ip_fields(stack) == (0x48, 9)
    assert stack.counter("syn_cookies_sent") == 1
    for who in (peer, second):
        who.send(1000)
        who.write(b"x")
        who.recv(data=b"x")
        assert ip_fields(stack) == (0x48, 9)


def test_an_accept_can_be_deferred_until_data_comes(stack):
    stack.core.arrays["listeners"][0].defer_ms = 10_000
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460)
    peer.recv(0)
    peer.send(1000)
    assert stack.events == []
    peer.send(2000, data=b"GET")
    assert [e.kind for e in stack.events] == [Event.ACCEPT, Event.READ]


def test_a_deferred_accept_does_not_wait_for_ever(stack):
    stack.core.arrays["listeners"][0].defer_ms = 10_000
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460)
    peer.recv(0)
    peer.send(1000)
    stack.run(9 * SECOND)
    assert stack.events == []
    stack.run(11 * SECOND)
    assert [e.kind for e in stack.events] == [Event.ACCEPT]


def test_a_deferred_connection_that_ends_is_never_heard_of(stack):
    stack.core.arrays["listeners"][0].defer_ms = 10_000
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460)
    peer.recv(0)
    peer.send(1000)
    peer.send(2000, flags="R")
    assert stack.events == [] and stack.leaks() == []


def test_a_listener_may_offer_smaller_segments(stack):
    stack.core.arrays["listeners"][0].max_segment = 600
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460 + SCALE_7)
    peer.recv(0, mss=600)
    peer.send(1000)
    peer.write(pattern(1000))
    assert lengths(peer) == [600, 400]


def test_a_listener_minds_no_time_wait(stack):
    """What SO_REUSEADDR stands for: a port is listened on, and others served, while connections of it are in TIME_WAIT."""
    old = Peer(stack, to_port=80)
    number = listen(stack.core, 80)
    old.reach(State.TIME_WAIT)
    stack.core.arrays["listeners"][number].used = 0
    assert listen(stack.core, 80) == number and old.state == State.TIME_WAIT
    assert Peer(stack, to_port=80).establish().state == State.ESTABLISHED
    old.send(stack.at(), flags="S", seq=100_000, options=MSS_1460)
    old.recv(flags="SA")


# -- buffers that grow


def test_the_receive_window_grows_with_a_fast_sender(make_stack):
    stack = make_stack(blocks=16_384, rcvbuf_bytes=65_536, rcvbuf_max_bytes=65_535 << 8)
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460 + SCALE_7)
    syn_ack = peer.recv(0)
    peer.send(20_000)
    for _ in range(9):
        at = stack.at()
        for _ in range(peer.room // MSS):
            peer.send(at, data=bytes(MSS))
        peer.drain(at + 20_000)
    assert syn_ack.window_scale() == 8
    assert peer.room > 1 << 20


def test_it_does_not_grow_for_a_sender_that_the_application_holds_back(make_stack):
    stack = make_stack(blocks=16_384, rcvbuf_bytes=65_536, rcvbuf_max_bytes=65_535 << 8)
    peer = Peer(stack).establish(MSS_1460 + SCALE_7)
    peer.ask(Command.PAUSE)
    for _ in range(40):
        peer.send(stack.at() + 1000, data=bytes(MSS))
    assert peer.conn.rcvbuf == 65_536


def test_nor_while_more_than_half_of_the_blocks_are_taken(make_stack):
    stack = make_stack(blocks=64, rcvbuf_bytes=16_384, rcvbuf_max_bytes=1 << 20)
    hog = Peer(stack).establish(MSS_1460)
    hog.write(bytes(36 * 2048))
    peer = Peer(stack).establish(MSS_1460)
    for _ in range(60):
        peer.send(stack.at() + 100, data=bytes(MSS))
        peer.drain()
    assert peer.conn.rcvbuf == 16_384


def test_the_send_buffer_follows_the_congestion_window(make_stack):
    stack = make_stack(blocks=4096, sndbuf_bytes=32_768, sndbuf_max_bytes=1 << 20)
    peer = Peer(stack).establish(MSS_1460 + SCALE_7)
    peer.write(pattern(120_000))
    acked = 0
    while acked < 120_000:
        acked += sum(lengths(peer))
        peer.send(stack.at() + 10_000, ack=1 + acked)
    assert peer.conn.sndbuf > 32_768
