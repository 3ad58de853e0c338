"""The supervisor with several stub workers: each has a life of its own, and the others never notice. Needs no root."""

import dataclasses
import os
import re
import signal
import time
from pathlib import Path

import pytest
from test_server import HERE, Program, Stub, is_alive, program, wait_until

from mpserve.dataplane.device import DRIVERS
from mpserve.dataplane.errors import SetupError
from mpserve.framework import server as server_module
from mpserve.framework.cores import shorten
from mpserve.framework.server import Server

CORES = sorted(os.sched_getaffinity(0))[:2]
SEVERAL = f"cores={','.join(map(str, CORES))}"
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


def serving(server: Program) -> list[int]:
    """The workers, in the order of their cores, once there is a spare too."""
    assert f", cores {shorten(CORES)}" in server.until("Stub on")
    server.until("serving")
    wait_until(lambda: len(server.children()) == len(CORES) + 1, "no spare process")
    return sorted(server.children())[: len(CORES)]


def test_one_start_line_when_all_serve_and_one_spare() -> None:
    with program("", SEVERAL) as server:
        workers = serving(server)
        time.sleep(0.2)
        assert len(server.children()) == len(workers) + 1
        server.process.terminate()
        status, out, err = server.end()
        assert (status, out) == (0, "")
        assert err.count("stub worker drains") == len(CORES)
        assert not server.segments()


def test_one_that_dies_is_replaced_and_the_others_never_notice() -> None:
    with program("", SEVERAL, "quick=0") as server:
        first, second = serving(server)
        victim = second
        for _ in range(5):
            before = set(server.children())
            os.kill(victim, signal.SIGKILL)
            assert f"worker {victim} on core {CORES[1]} died: SIGKILL" in server.until_error("died")
            again = server.until_error("serves again")
            found = re.search(rf"worker (\d+) on core {CORES[1]} serves again", again)
            assert found is not None
            victim = int(found[1])
            assert victim in before, "it was not the spare that took its place"
            wait_until(lambda: len(server.children()) == len(CORES) + 1, "no new spare process")
        assert is_alive(first)
        server.process.terminate()
        assert server.end()[0] == 0


def test_two_that_die_at_once_are_both_replaced() -> None:
    with program("", SEVERAL, "quick=0") as server:
        workers = serving(server)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        again = server.until_error("serves again") + server.until_error("serves again")
        assert all(f"on core {core} serves again" in again for core in CORES)
        wait_until(lambda: len(server.children()) == len(CORES) + 1, "no new spare process")
        server.process.terminate()
        assert server.end()[0] == 0


def test_quick_failures_are_counted_for_each_worker() -> None:
    """Two of one and two of the other end nothing."""
    with program("", SEVERAL) as server:
        workers = dict(zip(CORES, serving(server), strict=True))
        for _ in range(2):
            for core in CORES:
                os.kill(workers[core], signal.SIGKILL)
                found = re.search(rf"worker (\d+) on core {core} serves", server.until_error("serves again"))
                assert found is not None
                workers[core] = int(found[1])
        os.kill(workers[CORES[0]], signal.SIGKILL)
        status, _, err = server.end()
        assert status == 1
        last = f"mpserve: the worker on core {CORES[0]} died 3 times in a row, the last time by SIGKILL"
        assert err.strip().splitlines()[-1] == last
        assert not is_alive(workers[CORES[1]])


@pytest.mark.parametrize(
    ("act", "status", "words"),
    [
        ("fail@1", 1, f"the worker on core {CORES[-1]} died 3 times in a row, the last time by exit status 1"),
        ("refuse@1", 2, "the worker has no such device: plug one in"),
    ],
)
def test_what_one_can_not_do_ends_all(act: str, status: int, words: str) -> None:
    with program(act, SEVERAL) as server:
        ended, out, err = server.end()
        assert (ended, "serving" in out) == (status, False)
        assert words in err.strip().splitlines()[-1]
        assert not server.segments()


def test_one_that_does_not_stop_is_killed_and_the_others_drain() -> None:
    with program("stubborn@0", SEVERAL) as server:
        workers = serving(server)
        server.process.terminate()
        status, _, err = server.end()
        assert status == 0
        assert err.count("stub worker drains") == 1
        assert f"worker {workers[0]} on core {CORES[0]} has not stopped in 1 s: killed" in err


def test_a_second_signal_is_immediate() -> None:
    with program("stubborn", SEVERAL) as server:
        children = serving(server)
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGTERM)
        status, _, err = server.end()
        assert (status, "has not stopped" in err) == (0, False)
        assert not any(map(is_alive, children))


def test_all_end_with_their_supervisor() -> None:
    with program("", SEVERAL) as server:
        serving(server)
        children = server.children()
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(map(is_alive, children)), "a worker outlived its supervisor")


def test_the_stack_is_compiled_once(tmp_path: Path) -> None:
    with program("", SEVERAL, STUB_CACHE=str(tmp_path / "cache")) as server:
        assert "compiling first (0 of 2 done" in server.until_error("first")
        serving(server)
        server.process.terminate()
        status, _, err = server.end()
        assert (status, err.count("compiling first")) == (0, 0)


def test_counters_of_all_by_core_go_on_in_successors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stub counts its starts where the first counter is."""
    monkeypatch.setattr(Server, "program", (str(HERE / "stub_worker.py"),))
    monkeypatch.setattr(server_module, "choose_cores", lambda *_: CORES)
    monkeypatch.setattr(
        server_module.Server, "_make_link", lambda self: server_module.Link(self.spec, description="none")
    )
    monkeypatch.setattr("mpserve.framework.supervisor.QUICK_SECONDS", 0)
    monkeypatch.setitem(DRIVERS, "ring", dataclasses.replace(DRIVERS["ring"], several="each"))  # nothing is opened
    server = Server(Stub, device="ring", say=lambda _: None, grace_seconds=1.0)
    with pytest.raises(SetupError, match="between start"):
        server.stats()
    with server:
        assert [row["core"] for row in server.stats()] == CORES
        assert [row["messages_posted"] for row in server.stats()] == [1, 1]
        assert {"turns", "rx_frames", "handler_errors"} <= server.stats()[1].keys()
        os.kill(server.worker_pids[1], signal.SIGKILL)
        wait_until(lambda: server.restarts == 1, "no successor serves")
        assert [row["messages_posted"] for row in server.stats()] == [1, 2]
    with pytest.raises(SetupError, match="between start"):
        server.stats()
