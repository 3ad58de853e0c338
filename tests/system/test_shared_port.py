"""Devices that one process opens for several workers: they attach, move frames on their own queues, are killed and replaced."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpserve.dataplane import flow_hash, shared_port
from mpserve.dataplane.device import parse_device
from mpserve.dataplane.device_arguments import pools
from mpserve.dataplane.errors import DeviceError
from mpserve.dataplane.shared_port import PortLost, SharedPort, open_shared_port

pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)
from pydpdk import runtime  # noqa: E402

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

ECHO = [sys.executable, "-m", "mpserve.dataplane.device_echo"]
CLIENT = [sys.executable, str(Path(__file__).parent / "memif_client.py")]
FRAMES = 20  # what the client sends on each queue


class Worker:
    """A frame echo that is attached to one queue of a shared port."""

    def __init__(self, device: str, queue: int, file_prefix: str, *more: str) -> None:
        words = [*ECHO, device, "--made", "--queue", str(queue), "--queues", "2", "--file-prefix", file_prefix, *more]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/")
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """How many frames it saw."""
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=10)
        assert self.process.returncode == 0
        return int(said.split()[0].removeprefix("frames="))


StartWorker = Callable[..., Worker]


@contextlib.contextmanager
def shared(device: str) -> Iterator[tuple[SharedPort, StartWorker]]:
    """The port, and what starts a worker on a queue of it. Workers that live at the end are killed."""
    file_prefix = f"mpst{uuid.uuid4().hex[:8]}"
    started: list[Worker] = []

    def start(queue: int, *more: str) -> Worker:
        started.append(Worker(device, queue, file_prefix, *more))
        return started[-1]

    with open_shared_port(parse_device(device), 2, file_prefix=file_prefix, block_bytes=1 << 20) as port:
        try:
            yield port, start
        finally:
            for worker in started:
                if worker.process.poll() is None:
                    worker.kill()
    if port.process.returncode == -signal.SIGKILL:
        runtime.remove_files(file_prefix)  # what a server removes at its end
    assert not os.path.exists(f"/var/run/dpdk/{file_prefix}")


def test_workers_on_a_ring_are_killed_and_replaced(hugetlbfs: Path) -> None:
    """Each circulates frames as fast as it can, so that the kill hits it in the middle of that."""
    with shared("ring") as (port, start):
        workers = [start(0, "--send", "5"), start(1, "--send", "5")]
        for turn in range(6):
            time.sleep(0.05)
            workers[turn % 2].kill()
            port.renew(turn % 2)
            workers[turn % 2] = start(turn % 2, "--send", "5")
        time.sleep(0.2)
        assert min(worker.end() for worker in workers) > 1000


@contextlib.contextmanager
def memif_client(path: Path, queues: int) -> Iterator["subprocess.Popen[str]"]:
    client = subprocess.Popen(
        [*CLIENT, str(path), str(queues)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert client.stdout is not None and client.stdout.readline() == "ready\n"
        yield client
    finally:
        client.kill()
        client.communicate()
        runtime.remove_files(f"mpst{client.pid}")


def exchange(client: "subprocess.Popen[str]", tag: str) -> dict[str, list[int]]:
    """See memif_client.py."""
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(tag + "\n")
    client.stdin.flush()
    found: dict[str, list[int]] = json.loads(client.stdout.readline())
    return found


BOTH = {"right": [FRAMES, FRAMES], "wrong": [0, 0]}


def warm(client: "subprocess.Popen[str]") -> None:
    """A worker maps the peer's memory at its first look; what was sent before waits in the ring."""
    for _ in range(20):
        if exchange(client, "warm")["right"] == [FRAMES, FRAMES]:
            return
    raise AssertionError("the workers do not answer")


def test_workers_on_a_memif_are_killed_and_replaced_and_so_is_the_peer(hugetlbfs: Path, tmp_path: Path) -> None:
    path = tmp_path / "wire"
    with shared(f"memif:{path}") as (port, start):
        workers = [start(0), start(1)]
        with memif_client(path, 2) as client:
            warm(client)
            assert exchange(client, "first") == BOTH
            workers[0].kill()
            assert exchange(client, "lost") == {"right": [0, FRAMES], "wrong": [0, 0]}
            port.renew(0)
            workers[0] = start(0)
            warm(client)  # it answers what has waited for it, too
            assert exchange(client, "second") == BOTH
        with memif_client(path, 2) as client:
            warm(client)
            assert exchange(client, "another peer") == BOTH
        assert min(worker.end() for worker in workers) >= 2 * FRAMES


def test_a_peer_with_fewer_queues_is_refused(hugetlbfs: Path, tmp_path: Path) -> None:
    path = tmp_path / "wire"
    with shared(f"memif:{path}") as (port, _), memif_client(path, 1):
        with pytest.raises(DeviceError, match="the peer has 1 queue and 2 workers need one each: give it 2, or name 1"):
            port.hear()
        assert port.process.wait(10) == 2


GREEDY = """
import ctypes, signal, sys, time
from pydpdk.extension import lib
from mpserve.dataplane.device import open_device, parse_device
device = open_device(parse_device(sys.argv[1]), queue=0, queues=2, file_prefix=sys.argv[2])
taken = 0
while lib.pydpdk_alloc(device.pool):
    taken += 1
for _ in range(3):
    device.look_after()
    time.sleep(0.01)
eal = next(line.split()[-1] for line in open("/proc/self/maps") if "librte_eal" in line)
heap = (ctypes.c_size_t * 5)()  # struct rte_malloc_socket_stats; the last is what is allocated, in bytes
ctypes.CDLL(eal).rte_malloc_get_socket_stats(0, heap)
print(taken, heap[4], flush=True)
signal.pause()
"""


@pytest.mark.parametrize("device", ["memif:{}/wire", "ring"])
def test_every_mbuf_that_a_killed_worker_held_comes_back(hugetlbfs: Path, tmp_path: Path, device: str) -> None:
    """And all the memory but what describes the port to it."""
    device, file_prefix = device.format(tmp_path), "mpstgreedy"
    taken, allocated = [], []
    with open_shared_port(parse_device(device), 2, file_prefix=file_prefix) as port:
        for _ in range(3):
            words = [sys.executable, "-c", GREEDY, device, file_prefix]
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/") as greedy:
                assert greedy.stdout is not None
                words = greedy.stdout.readline().split()
                greedy.kill()
            taken.append(int(words[0]))
            allocated.append(int(words[1]))
            port.renew(0)
    assert taken == [pools(parse_device(device)).mbufs] * 3
    assert allocated[2] - allocated[0] <= 2 * 3072


def test_a_process_that_does_not_answer_is_killed(hugetlbfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_port, "ANSWER_SECONDS", 0.2)
    with shared("ring") as (port, _):
        port.process.send_signal(signal.SIGSTOP)
        with pytest.raises(PortLost, match=r"--device ring: the process that holds it is silent for 0\.2 s"):
            port.renew(0)
        assert port.process.returncode == -signal.SIGKILL


def test_one_that_is_killed_is_noticed_and_its_socket_removed(hugetlbfs: Path, tmp_path: Path) -> None:
    with shared(f"memif:{tmp_path}/wire") as (port, start):
        worker = start(0)
        port.process.kill()
        with pytest.raises(PortLost, match=r"the process that holds it died \(SIGKILL\): start the server again"):
            port.attend()
        worker.end()
    assert os.listdir(tmp_path) == ["huge"]


ATTACHED = """
import sys
import pydpdk
from mpserve.dataplane.device import open_device, parse_device
device = open_device(parse_device(sys.argv[1]), queue=1, queues=3, file_prefix=sys.argv[2], block_bytes=4096)
print(device.queue, device.rss_key.hex(), *device.rss_table, len(device.blocks))
device.redirect({0: 2, 127: 1})
print(*pydpdk.ports()[0].reta())
device.close()
"""


def test_a_nic_spreads_flows_by_our_key_and_the_workers_know_it(hugetlbfs: Path) -> None:
    """On net_null, which keeps a key and a redirection table and spreads nothing."""
    device, file_prefix = "vdev:net_null0", "mpstnic"
    with open_shared_port(parse_device(device), 3, file_prefix=file_prefix, block_bytes=4096) as port:
        for _ in range(2):
            words = [sys.executable, "-c", ATTACHED, device, file_prefix]
            done = subprocess.run(words, capture_output=True, text=True, cwd="/", check=False)
            assert done.returncode == 0, done.stderr
            said, redirected = done.stdout.splitlines()
            queue, key, *table, size = said.split()
            assert queue == "1" and bytes.fromhex(key) == flow_hash.KEY and int(size) >= 4096
            assert [int(entry) for entry in table] == flow_hash.table(3)
            assert [int(entry) for entry in redirected.split()] == [2, *flow_hash.table(3)[1:127], 1]
            port.renew(1)


def test_more_queues_than_the_device_has(hugetlbfs: Path) -> None:
    with pytest.raises(DeviceError, match="--device ring serves 16 workers, not 17"):
        open_shared_port(parse_device("ring"), 17, file_prefix="mpst")


def test_what_dpdk_refuses_is_one_line_and_leaves_nothing(hugetlbfs: Path) -> None:
    with pytest.raises(DeviceError, match="pci:0000:ff:1f.7") as caught:
        open_shared_port(parse_device("pci:0000:ff:1f.7"), 2, file_prefix="mpstpci")
    assert "\n" not in str(caught.value)
    assert not os.path.exists("/var/run/dpdk/mpstpci")


def test_without_hugepages_it_says_what_to_type() -> None:
    with pytest.raises(DeviceError, match="with several workers needs .* type (sysctl vm.nr_hugepages=|mkdir)"):
        open_shared_port(parse_device("ring"), 16, file_prefix="mpst", block_bytes=1 << 40)


def test_the_port_ends_with_whoever_opened_it_once_its_workers_have_ended(hugetlbfs: Path) -> None:
    with shared("ring") as (port, start):
        worker = start(0)
        assert port.process.stdin is not None
        port.process.stdin.close()
        time.sleep(0.3)
        assert port.process.poll() is None
        worker.end()
        assert port.process.wait(10) == 0
