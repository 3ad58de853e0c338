"""Two real workers on the queues of one veth: both serve, one that is killed takes only its own connections, nothing is left."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from server import Server, eventually, serving

from mpserve.dataplane.bpf_probe import why_no_af_xdp
from mpserve.dataplane.layout import COUNTER_NAMES
from mpserve.framework.counters import add_up

IP = "10.31.9.2"
CORES = sorted(os.sched_getaffinity(0))[:2]
SETTINGS = ("--ip", f"{IP}/24", "--cores", ",".join(map(str, CORES)))
TARGET = f"{os.path.dirname(__file__)}/told.py:Told"
pytestmark = [
    pytest.mark.root,
    pytest.mark.dpdk,
    pytest.mark.skipif(len(CORES) < 2, reason="needs two cores"),
    pytest.mark.skipif(bool(why_no_af_xdp()), reason="needs a device with several queues, af_xdp"),
]


class Peer:
    """A connection, and which worker it came to."""

    def __init__(self) -> None:
        self.sock = socket.create_connection((IP, 7), 3)
        self.sock.settimeout(20)
        core, pid = self.ask(b"who").split()
        self.core, self.pid = int(core), int(pid)

    def ask(self, word: bytes) -> bytes:
        """A line for a line. Raises ConnectionError if the connection is over."""
        self.sock.sendall(word + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            more = self.sock.recv(1000)
            if not more:
                raise ConnectionResetError("closed")
            answer += more
        return answer[:-1]


def connect(core: int, other_than: int = 0) -> Peer:
    """A connection to the worker on a core, but not to a certain process."""
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline, f"no connection comes to core {core}"
        try:
            peer = Peer()
        except OSError:
            time.sleep(0.02)
            continue
        if peer.core == core and peer.pid != other_than:
            return peer


@pytest.fixture(scope="module")
def server(world: int) -> Iterator[Server]:
    with serving("run", TARGET, *SETTINGS) as made:
        yield made


def test_both_serve_and_count_for_themselves(server: Server) -> None:
    assert f", cores {CORES[0]}" in server.said
    assert sorted(server.workers) == sorted(connect(core).pid for core in CORES)
    rows = server.all_counters(2)
    assert all(row["connections_accepted"] >= 1 for row in rows)
    assert add_up(rows)["turns"] == sum(row["turns"] for row in rows) and len(rows[0]) == len(COUNTER_NAMES)


def test_messages_between_cores(server: Server) -> None:
    first, second = map(connect, CORES)
    assert first.ask(b"post") == b"True"
    for peer in (first, second):
        eventually(lambda peer=peer: peer.ask(b"told") == b"%d" % first.core, "a message was lost", 20, server)


def test_one_that_is_killed_again_and_again_takes_only_its_own_connections(server: Server) -> None:
    stays, victim = map(connect, CORES)
    wanted = b"%d %d" % (stays.core, stays.pid)
    stop, answers = threading.Event(), [0]

    def load() -> None:
        while not stop.is_set() and stays.ask(b"who") == wanted:
            answers[0] += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(3):
            before = answers[0]
            time.sleep(2.1)  # more than what counts as a quick failure
            os.kill(victim.pid, signal.SIGKILL)
            victim = connect(victim.core, victim.pid)
            assert answers[0] > before
    finally:
        stop.set()
        thread.join()
    assert stays.ask(b"who") == wanted, "the other worker was replaced too"
    assert server.all_counters(2)[1]["connections_accepted"] >= 4, "a successor does not count on"
    assert server.log.count("serves again after") == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(world: int, number: int) -> None:
    with serving("run", TARGET, "--ip", "10.31.10.2/24", "--cores", SETTINGS[-1]) as made:
        assert len(made.workers) == 2
        made.stop(number)
