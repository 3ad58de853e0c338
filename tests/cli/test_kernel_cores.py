"""Several real workers over kernel sockets: they share the ports, and nothing else. Needs neither DPDK nor root."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_kernel_device import free_port, serving, start

from mpserve.framework.cores import name_cores

CORES = sorted(os.sched_getaffinity(0))[:2]
GIVEN = ("--cores", ",".join(map(str, CORES)))
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
HANDLER = r"""
import json, os
import mpserve

class Cores(mpserve.Handler):
    def on_start(self, worker):
        self.worker, self.got, self.asker = worker, [], None

    def on_data(self, sock, data):
        word, _, rest = data.decode().partition(" ")
        getattr(self, word)(sock, rest)

    def who(self, sock, rest):
        sock.write(b"%d %d\n" % (self.worker.core, os.getpid()))

    def stats(self, sock, rest):
        sock.write(json.dumps(self.worker.all_stats).encode() + b"\n")

    def fail(self, sock, rest):
        raise ValueError("as asked")

    def post(self, sock, rest):
        core, count, size = map(int, rest.split())
        results = {self.worker.post(core, b"%d " % n + bytes(size)) for n in range(count)}
        sock.write(str(sorted(results)).encode() + b"\n")

    def received(self, sock, rest):
        sock.write(json.dumps(self.got).encode() + b"\n")
        self.got = []

    def on_message(self, source, data):
        self.got.append((source, int(data.split()[0]), len(data)))

class Greets(Cores):
    def on_start(self, worker):
        super().on_start(worker)
        worker.post(mpserve.ALL, b"0")

class Coroutines(mpserve.Handler):
    def on_start(self, worker):
        self.worker, self.got = worker, []

    async def handle(self, stream):
        while data := await stream.read(100):
            if data == b"post":
                self.worker.post(mpserve.ALL, b"hello")
            stream.write(b"%d %d" % (self.worker.core, len(self.got)))

    def on_message(self, source, data):
        self.got.append(data)
"""


class Peer:
    """A connection, and which worker it came to."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 30)
        core, pid = self.ask(b"who").split()
        self.core, self.pid = int(core), int(pid)

    def ask(self, data: bytes) -> bytes:
        """Its answer, a line. Raises ConnectionError if the connection is over."""
        self.sock.sendall(data)
        answer = b""
        while not answer.endswith(b"\n"):
            more = self.sock.recv(1 << 20)
            if not more:
                raise ConnectionResetError("closed")
            answer += more
        return answer[:-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "upper.py").write_text(HANDLER)
    return tmp_path


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    number = free_port()
    with serving(folder, "--listen", f"127.0.0.1:{number}", *GIVEN, target="Cores") as said:
        assert f"stack, {name_cores(CORES)}" in said[0]
        yield number


def one_of_each(port: int) -> list[Peer]:
    """A connection to each worker, in the order of their cores."""
    found: dict[int, Peer] = {}
    for _ in range(200):
        peer = Peer(port)
        found.setdefault(peer.core, peer)
        if len(found) == len(CORES):
            return [found[core] for core in CORES]
    raise AssertionError(f"of 200 connections all came to {list(found)}")


def until_received(peer: Peer, count: int) -> list[list[int]]:
    """What its worker got from others, when that is so many."""
    got: list[list[int]] = []
    deadline = time.monotonic() + 30
    while len(got) < count:
        got += json.loads(peer.ask(b"received"))
        assert time.monotonic() < deadline, len(got)
    return got


def test_both_serve_each_on_its_core(port: int) -> None:
    first, second = one_of_each(port)
    assert first.pid != second.pid
    assert [os.sched_getaffinity(peer.pid) for peer in (first, second)] == [{core} for core in CORES]


def test_messages_between_cores(port: int) -> None:
    first, second = one_of_each(port)
    assert first.ask(b"post %d 500 100" % second.core) == b"[True]"
    assert until_received(second, 500) == [[first.core, n, 101 + len(str(n))] for n in range(500)]
    assert second.ask(b"post %d 3 1000000" % first.core) == b"[True]"
    assert until_received(first, 3) == [[second.core, n, 1_000_002] for n in range(3)]
    assert second.ask(b"post -1 1 0") == b"[True]"
    assert until_received(first, 1) == until_received(second, 1) == [[second.core, 0, 2]]
    rows = {row["core"]: row for row in json.loads(first.ask(b"stats"))}
    assert [rows[peer.core]["messages_posted"] for peer in (first, second)] == [500, 4]
    assert [rows[peer.core]["messages_delivered"] for peer in (first, second)] == [4, 500]


def test_more_than_waits_for_one_worker_is_refused_and_counted(port: int) -> None:
    first, second = one_of_each(port)
    os.kill(second.pid, signal.SIGSTOP)
    assert first.ask(b"post %d 30 1000000" % second.core) == b"[False, True]"
    assert first.ask(b"who").split()[1] == b"%d" % first.pid  # it was not held up
    os.kill(second.pid, signal.SIGCONT)
    deadline = time.monotonic() + 30
    while True:
        rows = json.loads(first.ask(b"stats"))
        total = {name: sum(row[name] for row in rows) for name in rows[0]}
        if total["messages_delivered"] + total["messages_dropped"] == 30:
            break
        assert time.monotonic() < deadline, total
    assert total["messages_dropped"] > 0


def test_counters_of_all(port: int) -> None:
    first, second = one_of_each(port)
    with pytest.raises(ConnectionError):
        second.ask(b"fail")
    deadline = time.monotonic() + 30
    while True:
        rows = json.loads(first.ask(b"stats"))
        if rows[1]["handler_errors"] == 1:
            break
        assert time.monotonic() < deadline
    assert [row["core"] for row in rows] == CORES
    assert rows[0].keys() == rows[1].keys() and rows[0]["handler_errors"] == 0
    assert all(row["connections_accepted"] >= 1 for row in rows)


def load(peer: Peer, stop: threading.Event, answers: list[int]) -> None:
    """Ask again and again on one connection: it must be the same worker that answers, every time."""
    wanted = b"%d %d" % (peer.core, peer.pid)
    while not stop.is_set():
        if peer.ask(b"who") != wanted:
            answers.append(-1)
            return
        answers[0] += 1


def test_one_that_is_killed_again_and_again_takes_only_its_own_connections(port: int) -> None:
    stays, victim = one_of_each(port)
    stop, answers = threading.Event(), [0]
    thread = threading.Thread(target=load, args=(stays, stop, answers))
    before = answers[0]
    thread.start()
    try:
        for turn in range(3):
            os.kill(victim.pid, signal.SIGKILL)
            with pytest.raises(ConnectionError):
                victim.ask(b"who")
            victim = successor(port, victim)
            assert answers[0] > before, turn
            before = answers[0]
            time.sleep(2.1)  # more than what counts as a quick failure
    finally:
        stop.set()
        thread.join()
    assert len(answers) == 1
    rows = {row["core"]: row for row in json.loads(stays.ask(b"stats"))}
    assert rows[victim.core]["connections_accepted"] >= 3  # counted on
    assert stays.ask(b"post %d 1 0" % victim.core) == b"[True]"
    assert until_received(victim, 1) == [[stays.core, 0, 2]]


def successor(port: int, dead: Peer) -> Peer:
    """A connection to the worker that took the place of a dead one."""
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline, "nobody took its place"
        try:
            peer = Peer(port)
        except ConnectionError:
            continue
        if peer.core == dead.core and peer.pid != dead.pid:
            return peer


def test_what_is_posted_at_the_start_comes_to_those_that_start_later(folder: Path) -> None:
    number = free_port()
    with serving(folder, "--listen", f"127.0.0.1:{number}", *GIVEN, target="Greets"):
        for peer in one_of_each(number):
            assert sorted(until_received(peer, 2)) == [[core, 0, 1] for core in CORES]


def test_coroutines_get_messages_too(folder: Path) -> None:
    number = free_port()
    with serving(folder, "--listen", f"127.0.0.1:{number}", *GIVEN, target="Coroutines"):
        peers: dict[bytes, socket.socket] = {}
        while len(peers) < len(CORES):
            sock = socket.create_connection(("127.0.0.1", number), 30)
            sock.sendall(b"who")
            peers[sock.recv(100).split()[0]] = sock
        for sock in peers.values():
            sock.sendall(b"post")
            sock.recv(100)
        for core, sock in peers.items():
            deadline = time.monotonic() + 30
            answer = b""
            while answer != core + b" 2":
                assert time.monotonic() < deadline, answer
                sock.sendall(b"how many")
                answer = sock.recv(100)


def test_without_cores_there_is_one_on_each_that_is_allowed(folder: Path) -> None:
    with serving(folder, "--listen", f"127.0.0.1:{free_port()}", target="Cores") as said:
        assert said[0].rstrip().endswith(f"stack, {name_cores(sorted(os.sched_getaffinity(0)))}")


def test_a_port_of_another_server_is_refused_and_not_shared(port: int, folder: Path) -> None:
    second = start(folder, "run", "upper.py:Cores", "--device", "kernel", "--listen", f"127.0.0.1:{port}", *GIVEN)
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (2, "")
    assert f"--listen 127.0.0.1:{port}: Address already in use: choose another port or address" in err


def test_the_handler_of_the_page_counts_what_all_cores_have_seen(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cores.md").read_text()
    [block] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (folder / "upper.py").write_text(block)
    number = free_port()
    with serving(folder, "--listen", f"127.0.0.1:{number}", *GIVEN, target="Counter"):
        socks = [socket.create_connection(("127.0.0.1", number), 30) for _ in range(20)]
        for sock in socks:
            sock.sendall(b"ten bytes.")
            sock.recv(100)
        for sock in socks:  # of whichever core
            deadline, seen = time.monotonic() + 30, -1
            while seen < 200:
                assert time.monotonic() < deadline, seen
                sock.sendall(b".")
                seen = int(sock.recv(100))
