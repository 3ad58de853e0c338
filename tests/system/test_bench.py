"""`mpserve bench` as it is used: over a veth beside a server on kernel sockets, over memif, and interrupted."""

import glob
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpserve.dataplane.bpf_probe import why_no_af_xdp

pytestmark = [
    pytest.mark.root,
    pytest.mark.dpdk,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
]
needs_af_xdp = pytest.mark.skipif(bool(why_no_af_xdp()), reason="needs af_xdp")
BENCH = [sys.executable, "-m", "mpserve.cli", "bench"]
QUICK = ["--rounds", "1", "--seconds", "0.2"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BENCH, *arguments], capture_output=True, text=True, timeout=120, check=False)


def left_behind() -> list[str]:
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    return [name for name in namespaces if name.startswith("mpbench")] + glob.glob("/tmp/mpserve-bench-*")


@needs_af_xdp
def test_http_over_a_veth_beside_a_server_on_kernel_sockets(world: int, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = run("http", "--connections", "4", "--servers", "http,asyncio", "--json", str(file), *QUICK)
    assert done.returncode == 0, done.stderr
    assert "mpserve http" in done.stdout and "asyncio Protocol" in done.stdout
    samples = json.loads(file.read_text())["samples"]
    assert [sample["server"] for sample in samples] == ["http", "asyncio"]
    for sample in samples:
        assert sample["requests"] > 100 and sample["failures"] == sample["refused"] == 0
        assert 0 < sample["generator_busy"] <= 1 and sample["cycles"] > 500
    assert left_behind() == []


@needs_af_xdp
def test_connections_for_one_request_each(world: int, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = run("oneshot", "--connections", "8", "--servers", "http,asyncio", "--json", str(file), *QUICK)
    assert done.returncode == 0, done.stderr
    assert "the generator ends each connection first" in done.stdout
    for sample in json.loads(file.read_text())["samples"]:
        assert sample["failures"] == 0 and abs(sample["opened"] - sample["requests"]) <= 16


def test_echo_and_raw_frames_over_memif(world: int, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = run("echo", "--connections", "4", "--servers", "compiled,python", "--json", str(file), *QUICK)
    assert done.returncode == 0, done.stderr
    assert all(s["failures"] == 0 and s["requests"] > 100 for s in json.loads(file.read_text())["samples"])
    done = run("raw", *QUICK)
    assert done.returncode == 0 and "raw frames" in done.stdout
    assert left_behind() == []


def test_several_cores_in_one_process_and_as_workers_on_a_veth(world: int, tmp_path: Path) -> None:
    file = tmp_path / "cores.json"
    for name in ("accept", "deliver"):
        done = run("cores", "--only", name, "--rounds", "1", "--seconds", "0.02", "--json", str(file))
        assert done.returncode == 0, done.stderr
    assert "2, at once" not in done.stdout and "at home, %" in done.stdout
    found = json.loads(file.read_text())
    assert list(found) == ["accept", "deliver"]
    accepted, delivered = (found[name]["samples"] for name in found)
    assert len(accepted) == 10 and all(s["requests"] > 64 and s["failures"] == 0 for s in accepted)
    assert [(s["deliver"], s["connections_opened"]) for s in delivered] == [(True, 500)] * 2 + [(False, 500)] * 2
    assert left_behind() == []


@needs_af_xdp
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_and_keeps_what_was_measured(
    world: int, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "figures.json"
    arguments = ["http", "--connections", "4", "--servers", "http,asyncio", "--json", str(file), "--rounds", "9"]
    process = subprocess.Popen(
        [*BENCH, *arguments, "--seconds", "0.2"], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.5)  # somewhere in the next server
        os.kill(process.pid, number)
        assert process.wait(30) == 130
    finally:
        process.kill()
    assert json.loads(file.read_text())["samples"]
    assert left_behind() == []
    held = subprocess.run(["pgrep", "-f", "mpserve.apps.load.process"], capture_output=True, text=True, check=False)
    assert held.stdout == ""
