"""Several workers on each kind of device, with a kernel's clients: who served what, what was steered, that nothing is lost."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from namespaces import borrowed_pair, inside
from server import Server, eventually, serving

from mpserve.dataplane.bpf_probe import why_no_af_xdp

CORES = sorted(os.sched_getaffinity(0))[:2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.dpdk,
    pytest.mark.skipif(len(CORES) < 2, reason="needs two cores"),
]
needs_af_xdp = pytest.mark.skipif(bool(why_no_af_xdp()), reason="needs af_xdp")
IP = "10.31.11.2"
TOLD = f"{os.path.dirname(__file__)}/told.py:Told"
CONNECTIONS = 200
ROUNDS = 5
DEVICES = [
    pytest.param("veth", marks=needs_af_xdp),
    "tap",
    "veth,driver=af_packet",
    "af_packet:mpstmany",
]


@contextlib.contextmanager
def two_workers(device: str, *more: str) -> Iterator[Server]:
    """Told on both cores; this thread is where its clients are."""
    with contextlib.ExitStack() as stack:
        pair = None
        if ":" in device:
            pair = stack.enter_context(borrowed_pair("mpstmany", "mpstpeer", "10.31.11.1/24"))
        cores = ",".join(map(str, CORES))
        settings = ("--device", device, "--ip", f"{IP}/24", "--cores", cores, *more)
        server = stack.enter_context(serving("run", TOLD, *settings))
        if pair is not None:
            stack.enter_context(inside(pair))
        yield server


def ask(sock: socket.socket, word: bytes) -> bytes:
    sock.sendall(word + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        more = sock.recv(1000)
        if not more:
            raise ConnectionResetError("closed")
        answer += more
    return answer[:-1]


def core_of(sock: socket.socket) -> int:
    return int(ask(sock, b"who").split()[0])


def close(server: Server, socks: list[socket.socket]) -> None:
    """Close connections, and wait until the server has seen their ends: no later server at its address hears of them."""
    for sock in socks:
        sock.close()
    eventually(
        lambda: sum(row["connections_closed"] for row in server.all_counters(2)) == len(socks), "an end is missing"
    )


@pytest.mark.parametrize("device", DEVICES)
def test_both_cores_serve_and_no_reply_is_wrong(world: int, device: str) -> None:
    with two_workers(device) as server:
        socks = [socket.create_connection((IP, 7), 10) for _ in range(CONNECTIONS)]
        first = [core_of(sock) for sock in socks]
        for _ in range(ROUNDS):
            assert [core_of(sock) for sock in socks] == first
        close(server, socks)
        rows = server.all_counters(2)
        print(f"\n{device}: where 200 connections and their frames landed")
        for core, row in zip(CORES, rows, strict=True):
            names = ("connections_accepted", "rx_frames", "steered_out", "steered_in", "drop_steer_full")
            print(f"core {core}: " + ", ".join(f"{name} {row[name]}" for name in names))
        accepted = [row["connections_accepted"] for row in rows]
        assert accepted == [first.count(core) for core in CORES] and min(accepted) >= CONNECTIONS // 10
        assert sum(row["steered_out"] for row in rows) == sum(row["steered_in"] for row in rows)
        assert sum(row["drop_steer_full"] for row in rows) == 0
        assert sum(row["rsts_sent"] for row in rows) == 0


@needs_af_xdp
def test_what_cores_are_compared_with_serves_as_well(world: int) -> None:
    """One accept queue for both cores, and a descriptor for each connection."""
    limits = ("--limit", "accept=shared", "--limit", "handles=fd", "--max-connections", "512")
    with two_workers("veth", *limits) as server:
        socks = [socket.create_connection((IP, 7), 10) for _ in range(60)]
        first = [core_of(sock) for sock in socks]
        assert [core_of(sock) for sock in socks] == first
        eventually(lambda: len(server.workers) == 2, "a worker is missing", server=server)
        held = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in server.workers)
        close(server, socks)
        rows = server.all_counters(2)
        assert [row["connections_accepted"] for row in rows] == [first.count(core) for core in CORES]
        assert sum(row["rsts_sent"] for row in rows) == 0
        left = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in server.workers)
        assert held - left == 60


@needs_af_xdp
def test_a_busy_core_hands_new_connections_on(world: int) -> None:
    """Connections to one core keep it busy; new ones then go to the other, also those that arrive at the busy one."""
    with two_workers("veth", "--rebalance") as server:
        socks = [socket.create_connection((IP, 7), 10) for _ in range(40)]
        busy = [sock for sock in socks if core_of(sock) == CORES[0]][:4]
        stop = threading.Event()

        def burn(sock: socket.socket) -> None:
            while not stop.is_set():
                assert ask(sock, b"burn") == b"burnt"

        threads = [threading.Thread(target=burn, args=(sock,)) for sock in busy]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: _handed_on(server, socks) > 0, "nothing was handed on", 20, server)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert {core_of(sock) for sock in busy} == {CORES[0]}
        close(server, socks)
        assert sum(row["rsts_sent"] for row in server.all_counters(2)) == 0


def _handed_on(server: Server, socks: list[socket.socket]) -> int:
    """How many new connections the first core has given to the other, one more opened."""
    socks.append(socket.create_connection((IP, 7), 10))
    return int(server.all_counters(2)[0]["steered_new"])


@pytest.mark.parametrize("device", DEVICES)
def test_only_one_core_accepts(world: int, device: str) -> None:
    """SYNs that arrive at the other go through the global table, and what follows them."""
    with two_workers(device, "--listen", f":7@{CORES[1]}") as server:
        socks = [socket.create_connection((IP, 7), 10) for _ in range(60)]
        for _ in range(ROUNDS):
            assert {core_of(sock) for sock in socks} == {CORES[1]}
        close(server, socks)
        outside, accepting = server.all_counters(2)
        assert accepting["connections_accepted"] == 60 and outside["connections_accepted"] == 0
        assert outside["steered_new"] >= 10 and outside["steered_out"] > outside["steered_new"]
        assert outside["rsts_sent"] == accepting["rsts_sent"] == 0


@pytest.mark.parametrize("device", DEVICES[:3])
def test_connections_while_a_worker_is_dead_and_comes_back(world: int, device: str) -> None:
    """SYNs on a dead worker's queue are lost or served by another; sent again, each is served."""
    with two_workers(device) as server:
        eventually(lambda: len(server.workers) == 2, "a worker is missing", server=server)
        time.sleep(2.1)  # more than what counts as a quick failure
        os.kill(server.workers[1], signal.SIGKILL)
        served: list[int] = []

        def connect() -> None:
            with socket.create_connection((IP, 7), 20) as sock:
                sock.settimeout(20)
                served.append(core_of(sock))

        threads = [threading.Thread(target=connect) for _ in range(40)]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join()
        assert len(served) == 40
        eventually(lambda: server.log.count("serves again after") == 1, "no successor", 30, server)


@needs_af_xdp
def test_a_worker_killed_again_and_again_under_load(world: int) -> None:
    """Connections of the other are unharmed, peers of the dead get a RST, memory does not grow."""
    kills = int(os.environ.get("MPSERVE_KILLS", "3"))
    with two_workers("veth") as server:
        socks = [socket.create_connection((IP, 7), 20) for _ in range(40)]
        mine = [sock for sock in socks if core_of(sock) == CORES[0]]
        stop, answers = threading.Event(), [0]

        def load() -> None:
            while not stop.is_set():
                answers[0] += all(core_of(sock) == CORES[0] for sock in mine)

        thread = threading.Thread(target=load)
        thread.start()
        grown: list[int] = []
        try:
            for number in range(kills):
                time.sleep(2.1)
                victims = victims_of(server, CORES[1], 8)
                before = answers[0]
                os.kill(worker_on(server, CORES[1]), signal.SIGKILL)
                eventually(lambda n=number: server.log.count("serves again after") == n + 1, "no successor", 30, server)
                for sock in victims:
                    with pytest.raises(ConnectionResetError):
                        ask(sock, b"who")
                    sock.close()
                eventually(lambda b=before: answers[0] > b, "the other core stands still", 10, server)
                grown.append(sum(resident(pid) for pid in server.processes))
        finally:
            stop.set()
            thread.join()
        print(f"\n{kills} kills, resident MiB of all processes: {[size >> 20 for size in grown]}")
        assert all(core_of(sock) == CORES[0] for sock in mine)
        assert grown[-1] < 1.15 * grown[0]


def worker_on(server: Server, core: int) -> int:
    with socket.create_connection((IP, 7), 20) as sock:
        while True:
            answer = ask(sock, b"who").split()
            if int(answer[0]) == core:
                return int(answer[1])
            sock.close()
            sock = socket.create_connection((IP, 7), 20)  # noqa: PLW2901


def victims_of(server: Server, core: int, count: int) -> list[socket.socket]:
    """So many connections to the worker on a core."""
    found: list[socket.socket] = []
    while len(found) < count:
        sock = socket.create_connection((IP, 7), 20)
        sock.settimeout(20)
        if core_of(sock) == core:
            found.append(sock)
        else:
            sock.close()
    return found


def resident(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0
