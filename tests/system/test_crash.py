"""Workers and supervisors that are killed: serving again at once, and nothing left behind, now or at the next start."""

import os
import signal
import socket
import time
from collections.abc import Callable

import pytest
from namespaces import borrowed_pair, inside
from server import Server, eventually, serving

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

IP = "10.31.4.2"
SETTINGS = ("--ip", f"{IP}/24")


def echoes(seconds: float = 0.1) -> bool:
    """Whether a new connection is served within so many seconds."""
    try:
        with socket.create_connection((IP, 7), seconds) as connection:
            connection.sendall(b"abc")
            return connection.recv(3) == b"abc"
    except OSError:
        return False


def kill_worker(server: Server) -> float:
    """Kill it; seconds until a new connection is served."""
    killed = server.worker
    os.kill(killed, signal.SIGKILL)
    since = time.monotonic()
    eventually(echoes, "no new worker serves", 60, server)
    assert server.worker != killed
    return time.monotonic() - since


def wait_for_spare(server: Server) -> None:
    """The supervisor has a process in reserve again, which has loaded what it needs."""
    eventually(lambda: len(server.processes) == 3, "no spare process is started", 30, server)
    spare = next(pid for pid in server.processes if pid not in (server.pid, server.worker))
    eventually(lambda: _sleeps(spare), "the spare process does not come to rest", 60, server)


def _sleeps(pid: int) -> bool:
    """Whether a process has done nothing for a while."""

    def used() -> str:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0] + fields[11] + fields[12]

    before = used()
    time.sleep(1.5)  # a new spare lets the worker begin in peace, for a second
    return before == used() and before[0] == "S"


@pytest.mark.parametrize(("device", "times"), [("veth", 2), ("tap", 1)])
def test_a_killed_worker_is_replaced(world: int, device: str, times: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Peers of the dead one get a reset at their next segment."""
    with serving("echo", "--device", device, *SETTINGS) as server:
        for turn in range(times):
            if turn:
                time.sleep(2.1)  # more than what counts as a quick failure
            wait_for_spare(server)
            with socket.create_connection((IP, 7), 20) as orphan:
                orphan.sendall(b"abc")
                assert orphan.recv(3) == b"abc"
                seconds = kill_worker(server)
                with capsys.disabled():
                    said = server.log.splitlines()[-1].partition("serves again ")[2]
                    print(f"\n{device}: serving again {seconds:.2f} s after SIGKILL; the supervisor says {said}")
                orphan.settimeout(20)
                with pytest.raises(ConnectionResetError):
                    while True:
                        orphan.sendall(b"def")
                        orphan.recv(3)
        assert "died: SIGKILL" in server.log and "serves again after" in server.log


def test_a_worker_killed_on_a_borrowed_interface(world: int) -> None:
    """The program of its AF_XDP socket goes with it; the next one attaches its own."""
    with borrowed_pair("mpstcrash", "mpstpeer", "10.31.4.1/24") as pair:
        with serving("echo", "--device", "af_xdp:mpstcrash", *SETTINGS) as server, inside(pair):
            wait_for_spare(server)
            kill_worker(server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_connections_and_leaves_nothing(world: int, number: signal.Signals) -> None:
    with serving("echo", *SETTINGS, stop=number) as server:
        connection = socket.create_connection((IP, 7), 20)
        connection.sendall(b"abc")
        assert connection.recv(3) == b"abc"
        server.stop(number)
        # It was closed, or is reset; the interface may be gone before either arrives.
        connection.close()


def interrupt_group(server: Server) -> None:
    os.killpg(server.pid, signal.SIGINT)


def interrupt_twice(server: Server) -> None:
    os.kill(server.pid, signal.SIGINT)
    os.kill(server.pid, signal.SIGINT)


@pytest.mark.parametrize("interrupt", [interrupt_group, interrupt_twice])
def test_ctrl_c_at_a_terminal(world: int, interrupt: Callable[[Server], None]) -> None:
    """It reaches the whole group; a hurried user sends it twice."""
    with serving("echo", *SETTINGS) as server:
        assert echoes(20)
        interrupt(server)
        assert server.process.wait(30) == 0, server.log
        assert "Traceback" not in server.log
        assert server.left() == []


@pytest.mark.parametrize("device", ["veth", "tap"])
def test_what_a_crash_leaves_is_removed_at_the_next_start(world: int, device: str) -> None:
    """Supervisor and workers killed at once: neither can clean up."""
    with serving("echo", "--device", device, *SETTINGS) as crashed:
        crashed.kill()
        assert crashed.left() != []
        with serving("echo", "--device", device, *SETTINGS):
            assert crashed.left() != [] and all("interface" in what for what in crashed.left())
            assert echoes(20)
        assert crashed.left() == []


def test_workers_end_with_their_supervisor(world: int) -> None:
    with serving("echo", *SETTINGS) as server:
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait()
        eventually(lambda: not server.processes, "a worker outlives its supervisor", 20, server)
        with serving("echo", *SETTINGS):
            assert echoes(20)
        assert server.left() == []


def test_hugepages_are_given_back(world: int) -> None:
    pages, free = (f"/sys/kernel/mm/hugepages/hugepages-2048kB/{name}_hugepages" for name in ("nr", "free"))

    def count(path: str) -> int:
        with open(path) as file:
            return int(file.read())

    def reserve(wanted: int) -> None:
        with open(pages, "w") as file:
            file.write(str(wanted))

    if not os.path.exists(pages):
        pytest.skip("this kernel has no hugepages of 2 MiB")
    before = count(pages)
    reserve(before + 200)
    try:
        available = count(free)
        if available < 150:
            pytest.skip(f"no 150 hugepages to be had: {available}")
        with serving("echo", "--hugepages", "on", *SETTINGS) as server:
            assert echoes(20)
            taken = available - count(free)
            server.stop()
        assert taken > 0
        eventually(lambda: count(free) == available, "hugepages stay in use", 10, server)
        with serving("echo", "--hugepages", "on", *SETTINGS) as server:
            server.kill()
        eventually(lambda: count(free) == available, "hugepages stay in use after a crash", 10, server)
    finally:
        reserve(before)
