"""Two stacks of ours on one cable: whatever the cable does, what arrives is a prefix of what was sent, and in the end all of it."""

import zlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mpserve.dataplane.events import Command, Reason
from mpserve.dataplane.jit import JIT
from mpserve.testing.pair import End, Pair
from mpserve.testing.streams import crc_of, stream

pytestmark = pytest.mark.skipif(
    not JIT, reason="too slow as plain Python, and a channel's payload is in no known region"
)

SMALL = dict(max_connections=4, syn_backlog=4, accept_queue=4, time_wait=4, neighbors=4, blocks=4096)
ROUND_TRIP = 0.1
FULL = "delay=50ms,rate=1gbit"
LONGEST_SECONDS = 600

shares = st.floats(0, 0.2)
wires = st.fixed_dictionaries(
    {
        "loss": shares,
        "reorder": shares,
        "hold": st.sampled_from(["50us", "1ms", "20ms"]),
        "duplicate": shares,
        "corrupt": st.floats(0, 0.05),
        "delay": st.sampled_from(["0us", "300us", "20ms"]),
        "seed": st.integers(0, 1000),
    }
)


def spelled(wire: dict[str, object]) -> str:
    """A wire as `--impair` takes it: an option of something that isn't there is left out."""
    if not wire["reorder"]:
        wire = {name: value for name, value in wire.items() if name != "hold"}
    return ",".join(
        f"{name}={value:.6f}" if isinstance(value, float) else f"{name}={value}" for name, value in wire.items()
    )


def run(pair: Pair, lengths: dict[End, int]) -> None:
    """Until both ends have seen the other's FIN; what had arrived at every step was the beginning of what was sent."""
    arrivals = {end: [(0, 0)] for end in lengths}
    while not (pair.client.eof and pair.server.eof):
        pair.step()
        for end, seen in arrivals.items():
            if end.received != seen[-1][0]:
                seen.append((end.received, end.crc))
        assert pair.elapsed < LONGEST_SECONDS, [(end.received, end.reason) for end in lengths]
        if not pair.client.handle and pair.client.reason == Reason.UNREACHABLE:
            pair.client.reason = None  # four ARP requests in a row have been lost, as they may
            pair.connect()
        assert pair.client.reason in (None, Reason.FINISHED)
    for end, length in lengths.items():
        assert (end.received, end.crc) == (length, crc_of(length))
        for count, crc in arrivals[end][:: max(len(arrivals[end]) // 8, 1)]:
            assert crc == zlib.crc32(_beginning(length, count))


def _beginning(length: int, count: int) -> bytes:
    return b"".join(stream(length))[:count]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(wires, st.integers(0, 400_000), st.integers(0, 400_000), st.sampled_from(["cubic", "newreno"]))
@example(
    {"loss": 0.2, "reorder": 0.2, "hold": "1ms", "duplicate": 0.2, "corrupt": 0.05, "delay": "300us", "seed": 1},
    1,
    0,
    "cubic",
)
def test_both_streams_arrive_whole_over_any_wire(wire, up, down, congestion):
    pair = Pair(spelled(wire), congestion=congestion, retries=20, syn_ack_retries=10, **SMALL)
    try:
        pair.connect()
        pair.client.send(up)
        pair.server.send(down)
        run(pair, {pair.server: up, pair.client: down})
    finally:
        pair.close()


def test_one_flow_fills_a_gigabit_over_100_ms():
    """956 Mbit/s of payload are what 1 Gbit/s carries in frames of 1514 bytes; slow start gets there in two seconds."""
    pair = Pair(FULL, quantum_us=200, mbufs=1 << 16, max_connections=4, blocks=1 << 16)
    length = 250_000_000
    pair.connect()
    pair.client.send(length)
    at_two_seconds = 0
    while not pair.server.eof:
        pair.step()
        if not at_two_seconds and pair.elapsed >= 2:
            at_two_seconds, since = pair.server.received, pair.elapsed
    seconds = pair.elapsed - since
    assert (pair.server.received, pair.server.crc) == (length, crc_of(length))
    assert (length - at_two_seconds) * 8 / seconds > 0.94e9
    assert int(pair.stacks[0].core.counters.retransmits) == 0
    pair.close()


@pytest.mark.parametrize("pause", [0, 1_000_000])
def test_a_reply_of_8_kb_takes_one_round_trip(pause):
    """RFC 6928's window takes it whole, also after a pause: what Linux needs too."""
    pair = Pair(f"delay={ROUND_TRIP / 2}s", **SMALL)
    pair.connect()
    while not (pair.client.handle and pair.server.handle):
        pair.step()
    for _ in range(10):
        resume_at = pair.now + pause
        while pair.now < resume_at:
            pair.step()
        asked, pair.client.received, pair.server.received = pair.now, 0, 0
        pair.client.stack.command(Command.WRITE, pair.client.handle, b"GET")
        pair.settle()
        while not pair.server.received:
            pair.advance()
            pair.settle()
        pair.server.stack.command(Command.WRITE, pair.server.handle, bytes(8192))
        pair.settle()
        while pair.client.received < 8192:
            pair.advance()
            pair.settle()
        assert (pair.now - asked) / 1e6 < 1.05 * ROUND_TRIP
    pair.close()
