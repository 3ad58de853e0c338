"""The benchmark of several cores: each experiment for a moment, every reply checked, and its arithmetic; no timing is asserted."""

import os
import socket
from typing import Any

import pytest

from mpserve.dataplane import flow_hash
from mpserve.dataplane.jit import JIT

pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)

from mpserve.cli.bench.cores import accepts, cycles, deliver, rebalance  # noqa: E402
from mpserve.cli.bench.cores.network import PEER_IP, SERVER_IP  # noqa: E402
from mpserve.cli.bench.cores.skewed_client import percentile, ports_to  # noqa: E402

MOMENT = 0.01  # seconds
CPUS = len(os.sched_getaffinity(0))
by_compiled_code = pytest.mark.skipif(not JIT, reason="the rig's loop is compiled code")
needs_two_workers = pytest.mark.skipif(os.geteuid() != 0 or CPUS < 2, reason="needs root, and two CPUs")
pytestmark = pytest.mark.dpdk


@by_compiled_code
@pytest.mark.parametrize("plan", cycles.PLANS)
def test_every_plan_answers_every_request_and_steers_nothing(plan: str) -> None:
    if cycles.PLANS[plan].at_once and CPUS < 2:
        pytest.skip("each core has a CPU of its own")
    sample = cycles.run(plan, 8, MOMENT, verify=True)
    assert sample["requests"] > 8 and sample["failures"] == sample["resets"] == 0
    assert sample["busy_cycles"] > 0 and sample["cycles"] == sample["busy_cycles"] / sample["requests"]
    assert sample["steered_out"] == 0 and sample["rx_frames"] >= sample["requests"] - 8


@by_compiled_code
@pytest.mark.parametrize("kind", accepts.KINDS)
def test_every_kind_of_accepting_serves_every_connection(kind: str) -> None:
    at_once = accepts.KINDS[kind].at_once
    if at_once and CPUS < 2:
        pytest.skip("each core has a CPU of its own")
    sample = accepts.run(kind, 8, MOMENT, verify=True)
    assert sample["requests"] > 8 and sample["failures"] == sample["resets"] == 0
    assert sample["connections_accepted"] > 8 and sample["steered_new"] == 0
    assert "shared" in kind or sample["steered_out"] == 0
    if not at_once:  # where threads don't count from the same instant, and chance says who takes what
        assert abs(sample["connections_accepted"] - sample["requests"]) <= 8
        assert "shared" not in kind or 0.1 < sample["steered_out"] / sample["rx_frames"] < 0.9


def test_growth_is_over_the_plan_beside_in_the_same_round() -> None:
    costs = {(0, "alone"): 100, (0, "joined"): 104, (1, "alone"): 200, (1, "joined"): 202, (2, "joined"): 999}
    samples: list[dict[str, Any]] = [
        {"round": number, "plan": plan, "connections": 64, "cycles": cost} for (number, plan), cost in costs.items()
    ]
    found = cycles.growth(samples, "joined", 64)
    assert found is not None and (found.low, found.high) == (pytest.approx(0.01), pytest.approx(0.04))
    assert cycles.growth(samples, "joined-at-once", 64) is None
    assert cycles.verdict(samples) == ["64 connections: +2.5 %, within 5 %"]
    samples[1]["cycles"] = 120
    assert cycles.verdict(samples) == ["64 connections: +10.5 %, MORE than 5 %"]


def test_frames_at_home_are_those_that_nobody_sent_on() -> None:
    stats = [
        {"core": 0, "rx_frames": 110, "steered_out": 12, "steered_arp": 2},
        {"core": 1, "rx_frames": 50, "steered_out": 20, "steered_arp": 0},
    ]
    rows = deliver._rows([dict.fromkeys(deliver.COUNTED, 0) | row for row in stats])
    assert [(row["away"], row["got"]) for row in rows] == [(10, 20), (20, 10)]
    assert [deliver.home(row) for row in rows] == [100 / 120, 30 / 40]


def test_ports_are_those_whose_frames_come_to_the_queue() -> None:
    server = (SERVER_IP, 7)
    first = [port for port, _ in zip(ports_to(0, 2, PEER_IP, server), range(50), strict=False)]
    other = [port for port, _ in zip(ports_to(1, 2, PEER_IP, server), range(50), strict=False)]
    assert not set(first) & set(other) and min(first + other) == 1024
    here, there = socket.inet_aton(PEER_IP), socket.inet_aton(SERVER_IP)
    assert {flow_hash.queue_of(here, there, port, 7, 2) for port in first} == {0}
    assert {flow_hash.queue_of(here, there, port, 7, 2) for port in other} == {1}


def test_a_percentile_is_of_what_there_is() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 3.0 and percentile([1.0, 2.0], 99) == 2.0
    assert str(percentile([], 50)) == "nan"


def test_moved_is_what_the_other_core_accepted() -> None:
    sample = {"workers": [{"connections_accepted": 75}, {"connections_accepted": 25}]}
    assert rebalance.moved(sample) == 0.25


@pytest.mark.root
@by_compiled_code
@needs_two_workers
@pytest.mark.parametrize("on", [True, False])
def test_replies_come_home_if_the_port_was_chosen_for_that(on: bool) -> None:
    rows = deliver.run(on, 40, after=0.5)
    assert [row["connections_opened"] for row in rows] == [40, 40]
    shares = [deliver.home(row) for row in rows]
    assert all(share == 1 for share in shares) if on else all(0.1 < share < 0.9 for share in shares)


@pytest.mark.root
@by_compiled_code
@needs_two_workers
@pytest.mark.parametrize("on", [True, False])
def test_a_skewed_load_arrives_on_one_core_and_stays_there_unless_it_is_rebalanced(on: bool) -> None:
    sample = rebalance.run(on, 500, 1000, warm_up=0.7, seconds=0.5, patience=10.0)
    assert sample["due"] > 0 and sample["failed"] == sample["unanswered"] == 0
    first, second = sample["workers"]
    assert first["connections_accepted"] > 0
    assert second["steered_new"] == 0 and (second["connections_accepted"] > 0) == (rebalance.moved(sample) > 0) == on
    assert len(rebalance.rows([{"round": 0, "rebalance": on} | sample])) == 1
