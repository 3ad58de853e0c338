"""The real commands over a veth, each test in a network namespace of its own: serve, restart, stop, clean up."""

import contextlib
import glob
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

MPSERVE = [sys.executable, "-m", "mpserve.cli"]
PATIENCE = 300.0  # a first start compiles the stack
ADDRESS = "10.9.0.2"
ECHO = """
import mpserve

class Echo(mpserve.Handler):
    greeting: str = "hello"
    def on_accept(self, sock):
        print("accepted", flush=True)
        sock.write(self.greeting.encode() + b"\\n")
    def on_data(self, sock, data):
        if data.startswith(b"crash"):
            raise ValueError("crashed as asked")
        sock.write(data)

if __name__ == "__main__":
    mpserve.run(Echo, options={"greeting": "from main"}, listen=":9")
"""
_numbers = itertools.count()


def can_serve() -> str:
    """Why these tests can't run here, "" if they can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "needs root and iproute2, for network namespaces"
    if subprocess.run(["ip", "netns", "add", "mpstprobe"], capture_output=True, check=False).returncode:
        return "needs the right to make network namespaces"
    subprocess.run(["ip", "netns", "delete", "mpstprobe"], check=True)
    try:
        import pydpdk
    except ImportError as error:
        return f"needs the pydpdk extension: {error}"
    return "" if pydpdk else "needs pydpdk"


pytestmark = [pytest.mark.root, pytest.mark.dpdk, pytest.mark.skipif(bool(can_serve()), reason=can_serve())]


class World:
    """A network namespace, and what runs in it."""

    def __init__(self, folder: Path) -> None:
        self.name = f"mpst{os.getpid()}x{next(_numbers)}"
        self.folder = folder
        self.servers: list[Served] = []
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str, text: str = "") -> str:
        done = subprocess.run(self.command(*words), input=text.encode(), capture_output=True, timeout=60, check=False)
        return done.stdout.decode()

    def serve(self, *words: str, program: list[str] = MPSERVE) -> "Served":
        """On one core: what several workers do is tested elsewhere."""
        if program == MPSERVE and "--cores" not in words:
            words = (*words, "--cores", str(min(os.sched_getaffinity(0))))
        self.servers.append(Served(self.command(*program, *words), self.folder))
        return self.servers[-1]

    def interfaces(self) -> set[str]:
        return {line.split(":")[1].strip().partition("@")[0] for line in self.run("ip", "-o", "link").splitlines()}

    def say(self, text: str, port: int = 7) -> str:
        """What the server answers to `text` until it closes or is silent."""
        program = (
            "import socket, sys\n"
            f"s = socket.create_connection(('{ADDRESS}', {port}), 5)\n"
            "s.sendall(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR)\n"
            "while data := s.recv(4096): sys.stdout.buffer.write(data)\n"
        )
        return self.run(sys.executable, "-c", program, text=text)

    def remove(self) -> None:
        for served in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(served.pid, signal.SIGKILL)
            served.process.wait()
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


class Served:
    """A server's process and what it prints."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.errors = folder / f"stderr{next(_numbers)}"
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        self.pid = self.process.pid

    def until(self, words: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if words in line:
                return line.strip()
        raise AssertionError(f"it ended without {words!r}: {self.errors.read_text()}")

    def until_error(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while words not in self.errors.read_text():
            assert time.monotonic() < deadline and self.process.poll() is None, self.errors.read_text()
            time.sleep(0.02)

    def children(self) -> list[int]:
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def worker(self) -> int:
        """The child that has DPDK's port open: the one whose runtime lock or sockets a spare doesn't have."""
        return min(self.children())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Signal it as a terminal would, the whole group; its stderr. It must leave with status 0 and nothing behind."""
        children = self.children()
        os.killpg(self.pid, number)
        assert self.process.wait(60) == 0, self.errors.read_text()
        assert [pid for pid in children if os.path.exists(f"/proc/{pid}")] == []
        assert self.left() == []
        return self.errors.read_text()

    def left(self) -> list[str]:
        places = ("/dev/shm", "/var/run/dpdk", "/dev/hugepages")
        return [path for place in places for path in glob.glob(f"{place}/mpserve-{self.pid}-*")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "echo.py").write_text(ECHO)
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_http_serves_and_a_signal_leaves_nothing(world: World, number: signal.Signals) -> None:
    (world.folder / "index.html").write_text("hello from a file\n")
    served = world.serve("http", "--root", ".")
    assert "Http on veth" in served.until("veth")
    assert served.until("serving") == f"serving http://{ADDRESS}/"
    page = world.say("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 80)
    assert page.startswith("HTTP/1.1 200 OK\r\n")
    assert page.endswith("hello from a file\n")
    assert len(world.interfaces()) == 3
    assert "Traceback" not in served.stop(number)
    assert world.interfaces() == {"lo"}


def test_run_with_options_from_flags_and_file(world: World) -> None:
    (world.folder / "mpserve.toml").write_text('[server]\nlisten = [":7", ":8"]\n[handler]\ngreeting = "from file"\n')
    served = world.serve("run", "echo.py:Echo")
    assert served.until("serving") == f"serving tcp://{ADDRESS}:7"
    assert served.until("serving") == f"serving tcp://{ADDRESS}:8"
    assert world.say("abc", 8) == "from file\nabc"
    assert served.until("accepted"), "what a handler prints is seen"
    served.stop()
    served = world.serve("run", "echo.py", "--set", "greeting=from flag", "--record", "all.pcap")
    served.until("serving")
    assert world.say("abc") == "from flag\nabc"
    served.stop()
    recorded = (world.folder / "all.pcap").read_bytes()
    assert recorded[:4] == b"\xd4\xc3\xb2\xa1"
    assert b"from flag\n" in recorded


def test_run_from_a_program(world: World) -> None:
    served = world.serve(program=[sys.executable, "echo.py"])
    assert served.until("serving") == f"serving tcp://{ADDRESS}:9"
    assert world.say("abc", 9) == "from main\nabc"
    served.stop()


def test_memcached_and_echo(world: World) -> None:
    served = world.serve("memcached", "-m", "16")
    assert served.until("serving") == f"serving tcp://{ADDRESS}:11211"
    assert world.say("set a 0 0 1\r\nx\r\nget a\r\n", 11211) == "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"
    served.stop()
    served = world.serve("echo", "--listen", ":7000")
    served.until("serving")
    assert world.say("abc", 7000) == "abc"
    served.stop()


def test_an_exception_in_a_callback_is_logged_and_the_server_lives(world: World) -> None:
    served = world.serve("run", "echo.py:Echo")
    served.until("serving")
    world.say("crash")
    assert world.say("abc") == "hello\nabc"
    said = served.stop()
    assert "ValueError: crashed as asked" in said
    assert "echo.py" in said


def test_a_killed_worker_is_replaced(world: World) -> None:
    served = world.serve("echo")
    served.until("serving")
    for _ in range(2):
        time.sleep(2.1)  # longer than what counts as a quick failure
        worker = served.worker()
        os.kill(worker, signal.SIGKILL)
        served.until_error(f"worker {worker} on core {min(os.sched_getaffinity(0))} died: SIGKILL")
        deadline = time.monotonic() + 30
        while world.say("abc") != "abc":
            assert time.monotonic() < deadline, served.errors.read_text()
    assert "serves again after" in served.stop()
    assert world.interfaces() == {"lo"}


def test_what_a_crashed_server_left_is_removed_at_the_next_start(world: World) -> None:
    crashed = world.serve("echo")
    crashed.until("serving")
    children = crashed.children()
    os.kill(crashed.pid, signal.SIGKILL)
    crashed.process.wait()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}") for pid in children):
        assert time.monotonic() < deadline, "a worker outlived its supervisor"
        time.sleep(0.05)
    assert len(world.interfaces()) == 3
    served = world.serve("echo")
    served.until("serving")
    assert world.say("abc") == "abc"
    assert len(world.interfaces()) == 3
    assert crashed.left() == []
    served.stop()
    assert world.interfaces() == {"lo"}


def test_publish_relays_a_kernel_socket(world: World) -> None:
    served = world.serve("http", "--publish", "127.0.0.1:8080")
    assert served.until("127.0.0.1") == "serving http://127.0.0.1:8080/"
    program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/', timeout=5).status)"
    assert world.run("env", "-u", "http_proxy", sys.executable, "-c", program).strip() == "200"
    served.stop()
    assert world.interfaces() == {"lo"}


def test_a_second_server_at_the_same_address_is_refused(world: World) -> None:
    served = world.serve("echo")
    served.until("serving")
    second = world.serve("echo")
    assert second.process.wait(60) == 2
    assert f"--ip {ADDRESS}/24 is in use" in second.errors.read_text()
    assert world.say("abc") == "abc"
    served.stop()
