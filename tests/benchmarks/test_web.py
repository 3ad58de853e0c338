"""The benchmark's arithmetic and text: no server is started and nothing is timed."""

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]

STAT = """cpu  30 0 30 40 0 0 0 0 0 0
cpu0 10 1 20 60 5 1 2 1 0 0
cpu1 20 0 10 30 0 0 40 0 0 0
intr 1 2 3
"""


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module(f"benchmarks.web.{name}")


def sample(server: str, load: str, number: int, **figures: float) -> dict:
    fixed = {"server_cycles_a_request": 1000.0, "client_cycles_a_request": 2000.0, "server_stolen": 0.0, "errors": 0}
    return {"server": server, "load": load, "round": number, "requests": 10, "client_busy": 0.5} | fixed | figures


def test_busy_time_is_all_but_idle_iowait_and_steal(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = module("cores", monkeypatch)
    found = cores.parse_stat(STAT)
    assert set(found) == {0, 1}
    assert (found[0].busy, found[0].softirq, found[0].steal, found[0].total) == (34, 2, 1, 100)
    assert found[1].busy == 70


def test_core_time_since_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = module("cores", monkeypatch)
    assert cores.CoreTime(9, 4, 2, 20).since(cores.CoreTime(4, 3, 2, 10)) == cores.CoreTime(5, 1, 0, 10)


def test_cycles_a_request_divide_busy_time_by_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, cores = module("loads", monkeypatch), module("cores", monkeypatch)
    monkeypatch.setattr(loads, "cycles_per_second", lambda: 2e9)
    figures = loads.core_figures("server", cores.CoreTime(busy=50, softirq=0, steal=10, total=100), requests=1000)
    assert figures == {"server_busy": 0.5, "server_cycles_a_request": 1e6, "server_stolen": 0.1}


def test_the_clients_figures_are_found_among_other_output(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = module("loads", monkeypatch)
    assert loads.parse_report('Running 1s test\nJSON {"requests": 3}\n') == {"requests": 3}
    with pytest.raises(ValueError, match="no figures"):
        loads.parse_report("wrk: connection refused")


def test_a_spread_is_the_median_with_lowest_and_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    report = module("report", monkeypatch)
    samples = [sample("a", "1", n, rate=rate) for n, rate in enumerate([3000.0, 1000.0, 2000.0])]
    found = report.spread(samples, "a", "1", "rate")
    assert found.text(1000) == "2 (1-3)"
    assert report.spread(samples, "b", "1", "rate") is None


def test_a_server_that_failed_keeps_its_row_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    report = module("report", monkeypatch)
    samples = [sample("a", "1", 0, rate=5000.0, p50_us=7), {"server": "b", "load": "1", "round": 0, "failed": "exited"}]
    rows = report.rate_table(samples, {"a": "A", "b": "B"}).splitlines()
    assert rows[2] == "| A | 5 | - | - | - | - | 7 | - |"
    assert rows[3] == "| B | - | - | - | - | - | - | - |"
    assert report.notes(samples) == ["b at 1, round 1: failed: exited"]


def test_a_machine_that_others_use_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    report = module("report", monkeypatch)
    assert "took 40% of the cores" in report.notes([], "40%")[0]
    assert report.notes([], "3%") == []


def test_the_cost_is_of_both_cores_together(monkeypatch: pytest.MonkeyPatch) -> None:
    report = module("report", monkeypatch)
    found = report.both_cores([sample("a", "64", 0, rate=1.0)], "a", "64")
    assert found.median == 3000.0


def test_the_workers_busy_cycles_are_read_from_its_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from mpserve.dataplane.layout import COUNTERS

    own_count, servers = module("own_count", monkeypatch), module("servers", monkeypatch)
    monkeypatch.setattr(own_count, "SHARED_MEMORY", tmp_path)
    counters = np.zeros(1, COUNTERS)
    counters["busy_cycles"] = 12345
    (tmp_path / "mpserve-77-1-2-counters").write_bytes(counters.tobytes() + bytes(64))
    process = SimpleNamespace(pid=77)
    ours, kernel = servers.SERVERS[0], servers.SERVERS[-1]
    assert own_count.busy_cycles_of(ours, process)() == 12345
    assert own_count.busy_cycles_of(kernel, process)() is None
    with pytest.raises(servers.ServerFailed, match="its counters are not in"):
        own_count.busy_cycles_of(ours, SimpleNamespace(pid=78))
