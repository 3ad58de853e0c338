"""Whole servers whose workers share a device that a process of its own holds, which is killed here, and so is everybody else.

The clients of a memif are in `memif_peer.py`. On a ring there are none: it is its process's own, and what is sent comes back,
which a stack drops as coming from itself.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server, eventually, serving

pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)
from pydpdk import runtime  # noqa: E402

CORES = sorted(os.sched_getaffinity(0))[:2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.dpdk,
    pytest.mark.skipif(len(CORES) < 2, reason="needs two cores"),
]
HERE = Path(__file__).parent
IP = "10.31.12.2"
CONNECTIONS = 200
ROUNDS = 5
TOLD = f"{HERE}/told.py:Told"
SETTINGS = ("--ip", f"{IP}/24", "--cores", ",".join(map(str, CORES)), "--limit", "blocks=4096")


class Peer:
    """The far end of a memif; see memif_peer.py for what it can do."""

    def __init__(self, server: Server, path: Path, queues: int = 2) -> None:
        words = [sys.executable, str(HERE / "memif_peer.py"), str(path), str(queues), IP, server.mac]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def _order(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def connect(self, count: int, place: str, port: int = 7) -> None:
        assert self._order(connect=count, port=port, place=place)["open"] >= count

    def who(self) -> list[tuple[int, int]]:
        """The core and pid that each connection's worker names, (-1, 0) where it was reset; a reply comes on its core's queue."""
        answer = self._order(ask="who")
        found = [(int(line.split()[0]), int(line.split()[1])) if line else (-1, 0) for line in answer["lines"]]
        assert all(core < 0 or CORES[queue] == core for (core, _), queue in zip(found, answer["queues"], strict=True))
        return found

    def close(self) -> None:
        assert self._order(close=True)["open"] == 0


@contextlib.contextmanager
def at_far_end(server: Server, path: Path, queues: int = 2) -> Iterator[Peer]:
    peer = Peer(server, path, queues)
    try:
        yield peer
    finally:
        peer.process.kill()
        peer.process.communicate()
        runtime.remove_files(f"mpst{peer.process.pid}")


@contextlib.contextmanager
def sharing(device: str, *more: str, target: str = TOLD, urls: int = 1) -> Iterator[Server]:
    """A server of two workers on a device that they share, with one process that holds it."""
    with serving("run", target, "--device", device, *SETTINGS, *more, urls=urls) as server:
        assert server.keeper not in server.workers and len(server.workers) == 2
        yield server


@pytest.fixture
def path(hugetlbfs: Path, tmp_path: Path) -> Iterator[Path]:
    """A memif's socket, which must not be left."""
    yield tmp_path / "wire"
    assert not (tmp_path / "wire").exists()


def changes(server: Server, before: list[dict[str, int]], name: str) -> list[int]:
    return [row[name] - old[name] for row, old in zip(server.all_counters(2), before, strict=True)]


SHOWN = (
    "connections_accepted rx_frames steered_out steered_in steered_new steered_arp drop_steer_full rsts_sent".split()
)


def serve_and_count(server: Server, peer: Peer, place: str, count: int, port: int = 7) -> dict[str, list[int]]:
    """Connections whose frames are placed that way, each asked again and again: what each core counted of it."""
    before = server.all_counters(2)
    peer.connect(count, place, port)
    first = peer.who()
    for _ in range(ROUNDS):
        assert peer.who() == first
    peer.close()
    eventually(lambda: sum(changes(server, before, "connections_closed")) == count, "an end is missing", server=server)
    found = {name: changes(server, before, name) for name in SHOWN}
    print(f"\n{count} connections to port {port}, placed by {place}:")
    for index, core in enumerate(CORES):
        print(f"core {core}: " + ", ".join(f"{name} {values[index]}" for name, values in found.items()))
    assert [core for core, _ in first].count(CORES[0]) == found["connections_accepted"][0]
    assert sum(found["connections_accepted"]) == len(first) == count
    assert sum(found["steered_out"]) == sum(found["steered_in"])
    assert found["drop_steer_full"] == found["rsts_sent"] == [0, 0]
    return found


def test_both_cores_serve_a_memif_and_no_reply_is_wrong(path: Path) -> None:
    """A peer that keeps a flow on a queue, one that doesn't, and one that sends all on the first, to a port of the other core."""
    listen = ("--listen", ":7", "--listen", f":8@{CORES[1]}")
    with sharing(f"memif:{path}", *listen, urls=2) as server, at_far_end(server, path) as peer:
        kept = serve_and_count(server, peer, "hash", CONNECTIONS)
        assert kept["connections_accepted"] == [CONNECTIONS // 2] * 2 and kept["steered_out"] == [0, 0]
        moved = serve_and_count(server, peer, "wander", CONNECTIONS)
        assert min(moved["connections_accepted"]) >= CONNECTIONS // 10
        assert min(moved["steered_out"]) > CONNECTIONS
        one = serve_and_count(server, peer, "first", CONNECTIONS, 8)
        assert one["connections_accepted"] == [0, CONNECTIONS] and one["steered_new"] == [CONNECTIONS, 0]
        assert one["rx_frames"][1] == 0 and one["steered_out"][0] > CONNECTIONS * ROUNDS


def test_a_worker_killed_on_a_shared_memif(path: Path) -> None:
    """The other one's connections never notice, its own are reset by its successor, which serves the same queue."""
    with sharing(f"memif:{path}") as server, at_far_end(server, path) as peer:
        peer.connect(40, "hash")
        before = peer.who()
        unharmed = [worker for worker in before if worker[0] == CORES[0]]
        (victim,) = {pid for core, pid in before if core == CORES[1]}
        os.kill(victim, signal.SIGKILL)
        server.wait_for_log("serves again after")
        after = peer.who()
        assert [found for found in after if found[0] >= 0] == unharmed and after.count((-1, 0)) == 20
        peer.connect(20, "hash")
        pids = {core: {pid for at, pid in peer.who() if at == core} for core in CORES}
        assert pids[CORES[0]] == {pid for _, pid in unharmed}
        assert len(pids[CORES[1]]) == 1 and victim not in pids[CORES[1]]
        peer.close()
        print("\n" + server.wait_for_log("serves again after"))


def test_a_ring_is_served_and_a_killed_worker_replaced(hugetlbfs: Path) -> None:
    """A signal to all processes, as service managers send it, ends them as one to the supervisor does."""
    with sharing("ring") as server:
        killed = server.workers[1]
        os.kill(killed, signal.SIGKILL)
        server.wait_for_log("serves again after")
        assert len(server.workers) == 2 and killed not in server.workers
        os.kill(server.keeper, signal.SIGTERM)
        server.stop(signal.SIGTERM)


ORDERLY = """
import os, pathlib
import mpserve

class Orderly(mpserve.Handler):
    def on_stop(self):
        pathlib.Path(__file__).with_name(f"{os.getpid()}.stopped").touch()
"""


@pytest.fixture
def orderly(tmp_path: Path) -> Path:
    """A program whose workers leave a file each when they stop in order."""
    (tmp_path / "orderly.py").write_text(ORDERLY)
    return tmp_path / "orderly.py"


def stopped_in_order(orderly: Path) -> int:
    return len(list(orderly.parent.glob("*.stopped")))


def ends_in_order(server: Server, orderly: Path, status: int, words: str) -> None:
    """By itself, with these words in one line of mpserve's own, its workers having stopped by themselves, and nothing left."""
    assert server.process.wait(20) == status, server.log
    said = [line for line in server.log.splitlines() if line.startswith("mpserve: ")]
    assert len(said) == 1 and re.search(words, said[0]), server.log
    assert stopped_in_order(orderly) == 2 and "Traceback" not in server.log
    assert server.left() == []


def test_the_server_ends_in_order_when_the_process_that_holds_the_device_is_killed(path: Path, orderly: Path) -> None:
    with sharing(f"memif:{path}", target=str(orderly)) as server:
        os.kill(server.keeper, signal.SIGKILL)
        ends_in_order(server, orderly, 1, r"the process that holds it died \(SIGKILL\): start the server again")


def test_a_peer_with_too_few_queues_ends_the_server(path: Path, orderly: Path) -> None:
    with sharing(f"memif:{path}", target=str(orderly)) as server, at_far_end(server, path, queues=1):
        ends_in_order(server, orderly, 2, "the peer has 1 queue and 2 workers need one each")


def test_all_end_with_the_supervisor_and_nothing_is_left_but_the_counters(
    hugetlbfs: Path, path: Path, orderly: Path
) -> None:
    """Those go at the next start, as they do after any crash."""
    with sharing(f"memif:{path}", target=str(orderly)) as server, at_far_end(server, path):
        assert len(list(hugetlbfs.iterdir())) > 30  # of 2 MiB each
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait()
        eventually(lambda: not server.processes, "somebody outlives the supervisor", 20, server)
        assert stopped_in_order(orderly) == 2
        (left,) = server.left()
        assert re.fullmatch(rf"/dev/shm/mpserve-{server.pid}-.*-counters", left)
        os.unlink(left)
