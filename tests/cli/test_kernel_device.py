"""`--device kernel`: the real command over kernel sockets, without DPDK and without root; what it refuses."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# In a process that runs this first there is no pydpdk, no numba and no numpy.
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pydpdk", "numba", "numpy", "llvmlite"):
            raise ImportError(f"{name} is hidden")
sys.meta_path.insert(0, Hidden())
"""
ELSEWHERE = """
import os, select, selectors, socket
for name in "eventfd eventfd_write eventfd_read pidfd_open pipe2 sched_getaffinity sched_setaffinity sched_setscheduler".split():
    delattr(os, name)
for name in "TCP_QUICKACK TCP_KEEPIDLE TCP_USER_TIMEOUT TCP_CONGESTION TCP_DEFER_ACCEPT TCP_INFO".split():
    delattr(socket, name)
del select.epoll
sys.platform = "darwin"
"""
HANDLER = """
import mpserve
class Upper(mpserve.Handler):
    def on_data(self, sock, data):
        if data == b"die":
            raise SystemExit(3)
        sock.write(data.upper())
class Lower(mpserve.Handler):
    async def handle(self, stream):
        while data := await stream.read(100):
            stream.write(data.lower())
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "upper.py").write_text(HANDLER)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDE)
    return tmp_path


def start(folder: Path, *arguments: str, capable: bool = True) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    without = [] if capable else "setpriv --bounding-set=-all --inh-caps=-all --".split()
    if os.geteuid() != 0:
        without = []  # nobody else has any
    return subprocess.Popen(
        [*without, sys.executable, "-m", "mpserve.cli", *arguments],
        cwd=folder,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder / "hidden")},
    )


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, target: str = "Upper", capable: bool = True) -> Iterator[list[str]]:
    """The lines that it says until it serves."""
    process = start(folder, "run", f"upper.py:{target}", "--device", "kernel", *arguments, capable=capable)
    assert process.stdout is not None and process.stderr is not None
    try:
        said = [process.stdout.readline()]
        while said[-1] and not said[-1].startswith("serving"):
            said.append(process.stdout.readline())
        assert said[-1], process.stderr.read()
        yield said
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def ask(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(data)
        return connection.recv(100)


def test_it_serves_where_there_is_no_dpdk_and_says_what_it_is(folder: Path) -> None:
    port = free_port()
    with serving(folder, "--listen", f":{port}") as said:
        assert "Upper on kernel sockets, not the stack, core" in said[0]
        assert said[1] == f"serving tcp://127.0.0.1:{port}\n"
        assert ask(port, b"hello") == b"HELLO"


def test_coroutines(folder: Path) -> None:
    port = free_port()
    with serving(folder, "--listen", f"127.0.0.1:{port}", target="Lower"):
        assert ask(port, b"HELLO") == b"hello"


def test_it_needs_no_capability(folder: Path) -> None:
    port = free_port()
    with serving(folder, "--listen", f"127.0.0.1:{port}", capable=False):
        assert ask(port, b"hello") == b"HELLO"


def test_it_needs_nothing_that_only_linux_has(folder: Path) -> None:
    """As far as that can be tried on Linux: the names that macOS lacks are taken away."""
    with (folder / "hidden" / "sitecustomize.py").open("a") as file:
        file.write(ELSEWHERE)
    port = free_port()
    with serving(folder, "--listen", f"127.0.0.1:{port}"):
        assert ask(port, b"hello") == b"HELLO"
        assert ask(port, b"die") == b""


def test_a_worker_that_dies_is_replaced(folder: Path) -> None:
    port = free_port()
    with serving(folder, "--listen", f"127.0.0.1:{port}"):
        assert ask(port, b"die") == b""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                if ask(port, b"again") == b"AGAIN":
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--ip 10.9.0.2/24", "--device kernel has no --ip: the kernel's own addresses are served"),
        ("--gateway 10.9.0.1", "has no --gateway"),
        ("--route 10.8.0.0/16,10.9.0.1", "has no --route"),
        ("--hugepages on", "has no --hugepages"),
        ("--take-over", "has no --take-over"),
        ("--impair loss=1%", "has no --impair: no frames pass through"),
        ("--record file.pcap", "has no --record"),
        ("--publish 127.0.0.1:8080", "has no --publish: kernel sockets are reached as they are"),
        ("--limit blocks=100", "has no limit blocks: the kernel has its own; there are max_connections, "),
        ("--listen example.com:7", "example.com is no IPv4 address"),
        ("--listen 127.0.0.1:7 --listen 127.0.0.1:7", "is given twice"),
        (
            "--listen 192.0.2.1:7",
            "--listen 192.0.2.1:7: Cannot assign requested address: choose another port or address",
        ),
    ],
)
def test_what_is_refused(folder: Path, arguments: str, words: str) -> None:
    process = start(folder, "run", "upper.py:Upper", "--device", "kernel", *arguments.split())
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, len(err.splitlines())) == (2, "", 1), err
    assert words in err


def test_it_takes_no_name(folder: Path) -> None:
    process = start(folder, "run", "upper.py:Upper", "--device", "kernel:eth0")
    assert "kernel takes no name" in process.communicate(timeout=60)[1]


def test_a_compiled_handler_is_refused(folder: Path) -> None:
    (folder / "fast.py").write_text(
        "import mpserve\nclass Fast(mpserve.CompiledHandler):\n    def on_data(self, conn, data):\n        conn.write(data)\n"
    )
    (folder / "hidden" / "sitecustomize.py").unlink()  # to define one takes numba
    process = start(folder, "run", "fast.py:Fast", "--device", "kernel", "--listen", f"127.0.0.1:{free_port()}")
    assert "Fast is compiled into the stack's loop, and kernel sockets have none" in process.communicate(timeout=300)[1]
    assert process.returncode == 2
