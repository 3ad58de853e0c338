"""The flood benchmark: its SYNs, its pace, what it drops, its arithmetic; and both ends for a moment, every reply checked."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpserve.dataplane.jit import JIT, unit
from mpserve.dataplane.layout import BURST
from mpserve.dataplane.memory import allocate, read_bytes, unregister
from mpserve.testing.segment import Segment, parse_tcp
from mpserve.testing.stack import Stack

sys.path.append(str(Path(__file__).parents[2]))  # for `import benchmarks`, which isn't installed

from benchmarks.flood import report  # noqa: E402
from benchmarks.flood.drop import DROP, put_between  # noqa: E402
from benchmarks.flood.offer import Offer  # noqa: E402
from benchmarks.flood.pace import PACE, next_due, pace_at, rest  # noqa: E402
from benchmarks.flood.syns import LINUX_OPTIONS, MSS, Syns, syns_at, write_syn  # noqa: E402

CLIENT_MAC = b"\x02\x00\x00\x00\x00\x01"


@unit("flood_test_syn")
def put_syn(syns, frame):
    """`write_syn` by address."""
    return write_syn(syns_at(syns), frame)


@unit("flood_test_rest")
def put_to_rest(pace, client):
    """`rest` by address."""
    rest(pace_at(pace), client)
    return 0


@unit("flood_test_due")
def due(pace, now):
    """`next_due` by address."""
    return next_due(pace_at(pace), now)


@pytest.fixture
def stack() -> Iterator[Stack]:
    made = Stack(syn_backlog=8)
    yield made
    made.close()


def flood_frames(stack: Stack, count: int) -> list[bytes]:
    syns, room = Syns(CLIENT_MAC, stack.wire.mac, stack.ip, seed=7), allocate(np.uint8, 128)
    frames = [read_bytes(room.ctypes.data, put_syn(syns.address, room.ctypes.data)) for _ in range(count)]
    unregister(room.ctypes.data)
    return frames


def test_every_syn_is_one_that_the_stack_answers(stack: Stack) -> None:
    frames = flood_frames(stack, 200)
    for frame in frames:
        assert stack.wire.deliver(frame)
    stack.settle()
    counters = stack.core.counters
    assert stack.counter("syns_received") == 200
    assert stack.counter("syn_cookies_sent") == stack.counter("backlog_full") == 192
    assert not any(counters[name] for name in counters.dtype.names if name.startswith("drop_"))
    assert len(stack.wire.collect()) == 200


def test_syns_differ_and_half_of_them_have_options(stack: Stack) -> None:
    segments = [parse_tcp(frame) for frame in flood_frames(stack, 200)]  # which checks the sums
    found = [segment for segment in segments if segment is not None]
    assert len({s.source for s in found}) == len({s.seq for s in found}) == 200
    assert len({s.sport for s in found}) > 150
    assert all(128 <= int(s.source.partition(".")[0]) < 192 for s in found)
    full = [s for s in found if len(s.options) == len(LINUX_OPTIONS)]
    assert 60 < len(full) < 140 and all(s.options == MSS for s in found if s not in full)
    assert len({s.option(8) for s in full}) == len(full)
    assert {(s.mss(), s.window_scale(), s.option(4)) for s in full} == {(1460, 7, b"")}


def test_resting_clients_go_on_in_turn_and_not_too_soon() -> None:
    paces, ring = allocate(PACE, 1), allocate(np.int64, 4)
    pace: Any = paces[0]
    pace.ring, pace.rows, pace.interval = ring.ctypes.data, 4, 10
    for client in (101, 102, 103):
        put_to_rest(paces.ctypes.data, client)
    assert [due(paces.ctypes.data, now) for now in (1000, 1000, 1005, 1010, 1010, 1200)] == [101, 102, 103, 0, 0, 0]
    put_to_rest(paces.ctypes.data, 104)
    assert due(paces.ctypes.data, 1200) == 104
    for array in (paces, ring):
        unregister(array.ctypes.data)


def test_a_pace_makes_up_for_a_little_and_no_more() -> None:
    paces, ring = allocate(PACE, 1), allocate(np.int64, 32)
    pace: Any = paces[0]
    pace.ring, pace.rows, pace.interval, pace.next_at = ring.ctypes.data, 32, 10, 1000
    for client in range(1, 31):
        put_to_rest(paces.ctypes.data, client)
    assert sum(due(paces.ctypes.data, 100_000) > 0 for _ in range(30)) == 9, "8 turns of the past, and this one"
    for array in (paces, ring):
        unregister(array.ctypes.data)


def syn_of(port: int, stack: Stack) -> bytes:
    segment = Segment(port, stack.port, seq=port, flags="S", options=MSS, source="10.9.0.1", destination=stack.ip)
    return segment.frame(stack.wire.mac, CLIENT_MAC)


def test_dropping_leaves_the_others_in_order_and_gives_the_mbufs_back(stack: Stack) -> None:
    drop = np.zeros(1, DROP)
    put_between(stack.core, drop)
    flood = flood_frames(stack, 3 * BURST)
    honest = [syn_of(port, stack) for port in (3000, 3001, 3002)]
    drop["dropping"] = 1
    before = stack.wire.mbufs_free
    for frame in [*flood[:40], honest[0], flood[40], honest[1], *flood[41:], honest[2]]:
        assert stack.wire.deliver(frame)
    stack.settle()
    answers = [parse_tcp(frame) for frame in stack.wire.collect()]
    assert [answer.dport for answer in answers if answer] == [3000, 3001, 3002]
    assert drop["dropped"][0] == len(flood) and stack.counter("rx_frames") == 3
    assert stack.wire.mbufs_free + int(stack.core.record.spare_count) == before
    drop["dropping"] = 0
    assert stack.wire.deliver(flood[0])
    stack.settle()
    assert stack.counter("rx_frames") == 4
    unregister(drop.ctypes.data)


def sample(offer: str, dropping: int, **figures: Any) -> report.Sample:
    counted = dict.fromkeys(
        "backlog_full syn_cookies_sent syn_cookies_taken syn_cookies_wrong drop_control_full".split(), 0
    )
    server: dict[str, Any] = counted | {
        "busy_cycles": figures.pop("cycles", 0),
        "syns_received": figures.pop("syns", 0),
    }
    fixed: dict[str, Any] = {
        "seconds": 1.0,
        "tsc_hz": 1e6,
        "syns_lost": 0,
        "honest_lost": 0,
        "honest_due": 100,
        "attempts": 10,
    }
    fixed |= {"unanswered": 0, "opened": 10, "p99_us": 1.0, "generator_busy": 0.5, "requests": 100, "syns_due": 0}
    fixed |= {"offer": offer, "round": 0, "drop": {"dropping": dropping}, "server": server}
    return fixed | figures | {"requests_per_second": figures.get("requests", 100)}


def test_what_the_core_takes_is_judged_by_what_it_loses_beyond_the_machines_own() -> None:
    offers = ("0:50:1", "4:50:1", "8:50:1", "16:50:1")
    lost = {"4:50:1": (20, 20), "8:50:1": (10, 9), "16:50:1": (50, 5)}  # SYNs, before the stack and dropped
    samples = []
    for offer in offers:
        for dropping in (0, 1):
            syns_lost = lost.get(offer, (0, 0))[dropping]
            samples.append(sample(offer, dropping, cycles=5000, syns=10, syns_due=900, syns_lost=syns_lost))
    assert report.highest_taken(report.trials(samples)) == Offer(8, 50, 1)


def test_a_syn_costs_what_the_core_does_beyond_the_requests() -> None:
    samples = [sample("0:50:1", dropping, cycles=5000, syns=10) for dropping in (0, 1)]
    samples += [sample("4:50:1", 0, cycles=44_500, syns=410, requests=90), sample("4:50:1", 1, requests=100)]
    (trial,) = report.trials(samples)[Offer(4, 50, 1)]
    assert trial.cycles_a_syn == (44_500 - 90 * 50) / 400
    assert trial.kept == 0.9
    assert any("90 % of the requests/s are kept" in line for line in report.verdict({trial.offer: [trial]}))


def test_nothing_is_said_of_a_core_that_takes_nothing() -> None:
    assert report.verdict({})[0].startswith("the core takes no offer")


@pytest.mark.dpdk
@pytest.mark.skipif(not JIT, reason="a device's functions are called by compiled code")
def test_under_a_flood_every_request_is_answered_and_every_new_connection_gets_in() -> None:
    pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)
    from benchmarks.flood.__main__ import measure, parse_offers

    offers = parse_offers("0,8", "4", requests=2000, opens=300)
    settings = {"clients": 20, "openers": 8, "seconds": 0.05, "warm-up": 0.05, "least": 500, "verify": True}
    samples = measure(offers, settings)
    assert [s["offer"] for s in samples[::2]] == ["0:2000:300", "8:2000:300", "0:0:300", "4:0:300"]
    for each in samples:
        flooded = not each["offer"].startswith("0:")
        assert each["failures"] == each["resets"] == each["unanswered"] == 0
        assert each["requests"] >= 500 and each["opened"] >= 8
        assert (each["syns_due"] > 0) == flooded
        assert (each["drop"]["dropped"] > 0) == (flooded and bool(each["drop"]["dropping"]))
        assert each["server"]["syn_cookies_wrong"] == 0
    last = samples[-2]["server"]  # 2000 SYNs, and more: the backlog is full
    assert last["syn_cookies_sent"] == last["backlog_full"] > 0 and last["syn_cookies_taken"] > 0
