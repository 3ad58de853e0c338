"""CUBIC (RFC 9438), and when a window may grow at all (RFC 5681 section 4.1, RFC 7661)."""

import pytest
from peer import MSS_1460, SACK_PERMITTED, SCALE_7, Peer, pattern

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.limits import Limits

MSS = 1460
RTT = 100_000


@pytest.fixture
def stack(make_stack):
    return make_stack(blocks=8192, sndbuf_bytes=1 << 23, rcvbuf_bytes=1 << 20)


@pytest.fixture
def peer(stack):
    """A bulk transfer whose round trip takes 100 ms, the first window under way."""
    peer = Peer(stack, window=65535)
    peer.send(0, flags="S", options=MSS_1460 + SACK_PERMITTED + SCALE_7)
    stack.run(RTT)
    peer.recv(RTT)
    peer.send(RTT)
    peer.write(pattern(1 << 20))
    peer.round = 1
    return peer


def round_trip(peer):
    """All that is under way arrives and is acknowledged segment by segment, 100 ms later; the window after that, in segments."""
    sent = peer.drain()
    peer.round += 1
    first = min(s["seq"] for s in sent)
    end = max(s["seq"] + s["length"] for s in sent)
    for ack in range(first + MSS, end + 1, MSS):
        peer.send(peer.round * RTT, ack=min(ack, end))
    if peer.tcb.snd_queued < 1 << 19:
        peer.write(pattern(1 << 19))
    return int(peer.tcb.cwnd) / MSS


def lose(peer):
    """The first segment under way is lost; reported, sent again, acknowledged."""
    sent = peer.drain()
    first, end = min(s["seq"] for s in sent), max(s["seq"] + s["length"] for s in sent)
    peer.round += 1
    base = peer.stack_iss
    block = b"".join(((base + n) & 0xFFFFFFFF).to_bytes(4, "big") for n in (first + MSS, end))
    peer.send(peer.round * RTT, ack=first, options=b"\x01\x01\x05\x0a" + block)
    peer.round += 1
    again = peer.drain()
    peer.send(peer.round * RTT, ack=max(s["seq"] + s["length"] for s in again))
    return int(peer.tcb.cwnd) / MSS


def test_a_loss_leaves_seven_tenths(peer):
    before = [round_trip(peer) for _ in range(3)][-1]
    after = lose(peer)
    assert after == pytest.approx(0.7 * before, abs=1)
    assert peer.conn.w_max == pytest.approx(before, rel=0.01)


def test_the_window_returns_to_where_it_was_lost_slows_there_and_then_hurries(peer):
    """Section 4.2: concave up to W_max, around which it hardly moves, convex beyond; K seconds from the loss to W_max."""
    before = [round_trip(peer) for _ in range(4)][-1]
    lose(peer)
    expected_k = ((before - 0.7 * before) / 0.4) ** (1 / 3)
    windows = [round_trip(peer) for _ in range(round(2 * expected_k * 10))]
    reached = next(i for i, window in enumerate(windows) if window >= 0.97 * before)
    assert reached / 10 < expected_k + 0.2
    steps = [b - a for a, b in zip(windows, windows[1:], strict=False)]
    assert min(steps) >= 0 and peer.conn.k == pytest.approx(expected_k, rel=0.1)


def test_a_second_loss_below_the_last_maximum_gives_way(peer):
    """Section 4.7, fast convergence."""
    for _ in range(4):
        before = round_trip(peer)
    lose(peer)
    second = round_trip(peer)
    assert second < before
    lose(peer)
    assert peer.conn.w_max == pytest.approx(second * 1.7 / 2, rel=0.05)


def test_a_short_round_trip_is_no_slower_than_reno(stack, peer):
    """Section 4.3: with little to gain from the cubic curve, a segment a round trip or about half of one."""
    [round_trip(peer) for _ in range(2)]
    lose(peer)
    peer.conn.k, peer.conn.w_max = 0.0, 1.0  # a curve that has nothing to say
    first, second = round_trip(peer), round_trip(peer)
    assert second - first > 0.3


def test_a_window_that_is_not_used_does_not_grow(stack):
    peer = Peer(stack).establish()
    for i in range(20):
        peer.write(b"x" * 100)
        peer.send(1000 * i, ack=peer.drain()[-1]["seq"] + 100)
    assert peer.tcb.cwnd == 10 * MSS


def test_after_a_pause_an_initial_window_goes_out_at_once(stack):
    peer = Peer(stack).establish()
    for at in range(1000, 5000, 1000):
        peer.write(pattern(int(peer.tcb.cwnd)))
        for seen in peer.drain():
            peer.send(at, ack=seen["seq"] + seen["length"])
    assert peer.tcb.cwnd > 30 * MSS and peer.tcb.snd_queued == 0
    stack.run(100_000)
    peer.write(b"x")  # well within the retransmission timeout: no pause
    peer.send(100_000, ack=peer.drain()[-1]["seq"] + 1)
    assert peer.tcb.cwnd > 30 * MSS
    stack.run(1_000_000)
    peer.write(pattern(40 * MSS))
    assert [seen["length"] for seen in peer.drain()] == [MSS] * 10


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(SetupError, match="congestion = 'vegas': there are cubic and newreno"):
        Limits(congestion="vegas")
