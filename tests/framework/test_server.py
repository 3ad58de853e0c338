"""The supervisor with stub workers: start, restart, failure, draining, and nothing left behind. Needs no root."""

import contextlib
import glob
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpserve.dataplane.errors import SetupError
from mpserve.framework.load import find_handler
from mpserve.framework.server import Server

HERE = Path(__file__).parent
Stub = find_handler(f"{HERE / 'stub_server.py'}:Stub")
PATIENCE = 20.0
FIRST_CORE = min(os.sched_getaffinity(0))


class Program:
    """A stub server in a process of its own, and what it says."""

    def __init__(self, act: str, *words: str, **environment: str) -> None:
        command = [sys.executable, str(HERE / "stub_server.py"), act, *words]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment, start_new_session=True
        )
        self.pid = self.process.pid

    def until(self, words: str) -> str:
        """Read stdout up to the line with `words`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if words in line:
                return line
        raise AssertionError(f"it never said {words!r}")

    def until_error(self, words: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if words in line:
                return line
        raise AssertionError(f"it never said {words!r}")

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def children(self) -> list[int]:
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def segments(self) -> list[str]:
        return glob.glob(f"/dev/shm/mpserve-{self.pid}-*")


@contextlib.contextmanager
def program(act: str, *words: str, **environment: str) -> Iterator[Program]:
    made = Program(act, *words, **environment)
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(made.pid, signal.SIGKILL)
        made.process.wait()


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition, what: str) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_the_worker_and_leaves_nothing(number: signal.Signals) -> None:
    with program("") as server:
        assert "Stub on ring, 10.9.0.2/24, 02:00:00:00:00:01, core" in server.until("Stub on")
        assert server.until("serving") == "serving tcp://10.9.0.2:7\n"
        assert len(server.segments()) == 1
        children = server.children()
        server.process.send_signal(number)
        status, _, err = server.end()
        assert status == 0
        assert "stub worker drains" in err
        assert not server.segments()
        assert not any(map(is_alive, children))


def test_a_worker_that_is_killed_is_replaced_and_the_reason_logged() -> None:
    with program("", "quick=0") as server:
        server.until("serving")
        wait_until(lambda: len(server.children()) == 2, "no spare process")
        worker = min(server.children())
        os.kill(worker, signal.SIGKILL)
        assert f"worker {worker} on core {FIRST_CORE} died: SIGKILL" in server.until_error("died")
        assert re.search(rf"worker \d+ on core {FIRST_CORE} serves again after \d", server.until_error("again"))
        server.process.terminate()
        assert server.end()[0] == 0


def test_three_quick_failures_end_the_server() -> None:
    with program("fail") as server:
        status, out, err = server.end()
        assert status == 1
        assert "serving" not in out
        reason = "exit status 1: RuntimeError: on_start went wrong"
        last = f"mpserve: the worker on core {FIRST_CORE} died 3 times in a row, the last time by {reason}"
        assert err.strip().splitlines()[-1] == last
        assert err.count("stub worker on ring") == 3
        assert not server.segments()


def test_quick_deaths_after_serving_count_too() -> None:
    with program("die later") as server:
        status, _, err = server.end()
        assert status == 1
        assert err.count("died: exit status 3") == 3


def test_a_worker_that_lived_long_enough_is_replaced_again_and_again() -> None:
    with program("die later", "quick=0.1") as server:
        for _ in range(4):
            server.until_error("serves again")
        server.process.terminate()
        assert server.end()[0] == 0


def test_what_the_worker_refuses_is_one_line_and_status_2() -> None:
    with program("refuse") as server:
        status, out, err = server.end()
        assert (status, out) == (2, "")
        assert err.strip().splitlines()[-1] == "mpserve: the worker has no such device: plug one in"
        assert not server.segments()


def test_what_a_later_worker_is_refused_is_tried_again_before_giving_up() -> None:
    with program("refuse later") as server:
        status, out, err = server.end()
        assert status == 1
        assert "serving" in out
        assert "the last time by the worker has no such device: plug one in" in err.splitlines()[-1]


def test_a_worker_that_does_not_stop_is_killed_after_the_grace_period() -> None:
    with program("stubborn") as server:
        server.until("serving")
        server.process.terminate()
        status, _, err = server.end()
        assert status == 0
        assert "has not stopped in 1 s: killed" in err


def test_a_second_signal_is_immediate() -> None:
    with program("stubborn") as server:
        server.until("serving")
        children = server.children()
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGTERM)
        status, _, err = server.end()
        assert status == 0
        assert "has not stopped" not in err
        assert not any(map(is_alive, children))


def test_workers_die_with_their_supervisor_and_the_next_start_cleans_up() -> None:
    with program("") as server:
        server.until("serving")
        wait_until(lambda: len(server.children()) == 2, "no spare process")
        children = server.children()
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(map(is_alive, children)), "a worker outlived its supervisor")
        assert len(server.segments()) == 1
        with program("") as successor:
            successor.until("serving")
            assert not server.segments()
            successor.process.terminate()
            assert successor.end()[0] == 0


def test_compiling_comes_first_with_progress(tmp_path: Path) -> None:
    with program("", STUB_CACHE=str(tmp_path / "cache")) as server:
        assert "2 units" in server.until_error("compiling the TCP stack")
        assert "compiling first (0 of 2 done" in server.until_error("first")
        assert "compiling second (1 of 2 done" in server.until_error("second")
        server.until("serving")
        server.process.terminate()
        assert server.end()[0] == 0


def test_a_signal_while_compiling_stops_at_once(tmp_path: Path) -> None:
    with program("", STUB_CACHE=str(tmp_path / "cache"), STUB_COMPILE_SECONDS="60") as server:
        server.until_error("compiling first")
        children = server.children()
        server.process.send_signal(signal.SIGINT)
        assert server.end()[0] == 0
        assert not any(map(is_alive, children))


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "program", (str(HERE / "stub_worker.py"),))


@pytest.mark.usefixtures("stubbed")
def test_as_a_context_manager() -> None:
    said: list[str] = []
    with Server(Stub, listen=":70", device="ring", say=said.append, grace_seconds=1.0) as server:
        assert said[-1] == "serving tcp://10.9.0.2:70"
        assert server.urls == ["tcp://10.9.0.2:70"]
        assert [is_alive(pid) for pid in server.worker_pids] == [True]
    assert not any(map(is_alive, server.worker_pids))
    assert not glob.glob(f"/dev/shm/mpserve-{os.getpid()}-*")


@pytest.mark.usefixtures("stubbed")
def test_start_raises_what_the_worker_refuses() -> None:
    with pytest.raises(SetupError, match="plug one in"):
        Server(Stub, options={"act": "refuse"}, device="ring").start()


@pytest.mark.usefixtures("stubbed")
def test_urls() -> None:
    assert Server("mpserve.apps.http:Http", device="ring").urls == ["http://10.9.0.2/"]
    assert Server("mpserve.apps.http:Http", listen=":8080", device="ring").urls == ["http://10.9.0.2:8080/"]


def test_settings_are_checked_before_anything_starts() -> None:
    with pytest.raises(SetupError, match="did you mean listen"):
        Server(Stub, listn=":7", device="ring")
    with pytest.raises(SetupError, match="no option 'greeting'"):
        Server(Stub, options={"greeting": "hi"}, device="ring")
