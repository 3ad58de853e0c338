"""Between two calls of `dispatch` TCP goes on: data is acknowledged, lost segments leave again, keepalives are answered."""

import array
import fcntl
import json
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest
from server import eventually

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

ADDRESS = ("10.31.12.2", 7)
REPLY = bytes(range(256)) * 800  # less than a send buffer

# `sleep` sleeps before the next dispatch; `reply` is answered at length; the rest is counted and told at the end.
PROGRAM = """
import json, sys, time
import mpserve
from mpserve import Kind

settings = json.loads(sys.argv[1])
with mpserve.Channel(device="veth", ip="10.31.12.2/24", impair="tx.loss=10%,seed=5", **settings) as channel:
    listener = channel.register(channel.listen(("", 7)))
    channel.accept(listener, 100)
    channel.flush()
    print("ready", flush=True)
    counts = {}
    while True:
        for event in channel.dispatch():
            if event.kind == Kind.ACCEPT:
                channel.read(channel.register(event.endpoint), 1 << 20)
            if event.kind != Kind.READ:
                continue
            if event.data == b"sleep":
                before = channel.worker.stats["standby_turns"]
                print("asleep", flush=True)
                time.sleep(5)
                print(channel.worker.stats["standby_turns"] - before, flush=True)
                channel.write(event.handle, b"awake")
            elif event.data == b"reply":
                channel.write(event.handle, bytes(range(256)) * 800)
                channel.flush()
            elif event.result == 0:
                channel.write(event.handle, str(counts.get(event.handle)).encode())
                channel.close(event.handle)
            elif event.result < 0:
                print("error", event.result, flush=True)
            else:
                counts[event.handle] = counts.get(event.handle, 0) + event.result
            if event.result > 0:
                channel.read(event.handle, 1 << 20)
"""


class Program:
    """The program above, and the lines that it says."""

    def __init__(self, **settings: bool) -> None:
        command = [sys.executable, "-c", PROGRAM, json.dumps(settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/")
        assert self.line() == "ready"

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def connections(world: int) -> Iterator[list[socket.socket]]:
    """To be closed at the end."""
    made: list[socket.socket] = []
    yield made
    for connection in made:
        connection.close()


def connect(connections: list[socket.socket]) -> socket.socket:
    connections.append(socket.create_connection(ADDRESS, 20))
    return connections[-1]


def unacknowledged(connection: socket.socket) -> int:
    """Bytes that the kernel has sent, or will, and that the peer has not acknowledged."""
    count = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, count)
    return count[0]


def test_tcp_goes_on_between_two_dispatches(connections: list[socket.socket]) -> None:
    program = Program()
    try:
        bed, sender, receiver, idle = (connect(connections) for _ in range(4))
        for name, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
            idle.setsockopt(socket.IPPROTO_TCP, name, value)
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        receiver.sendall(b"reply")
        assert receiver.recv(1, socket.MSG_PEEK)
        bed.sendall(b"sleep")
        assert program.line() == "asleep"
        sender.sendall(bytes(100_000))
        eventually(lambda: unacknowledged(sender) == 0, "what was sent is not acknowledged", 4)
        received = b""
        while len(received) < len(REPLY):
            received += receiver.recv(1 << 20)
        assert received == REPLY
        bed.setblocking(False)
        with pytest.raises(BlockingIOError):  # still asleep: all this was the standby's
            bed.recv(10)
        bed.settimeout(20)
        assert int(program.line()) > 0 and bed.recv(10) == b"awake"
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(100) == b"100000"
        idle.setblocking(False)
        with pytest.raises(BlockingIOError):  # neither closed nor reset: its keepalives were answered
            idle.recv(1)
    finally:
        program.end()


def test_without_a_standby_nothing_goes_on(connections: list[socket.socket]) -> None:
    program = Program(standby=False)
    try:
        bed, sender = connect(connections), connect(connections)
        bed.sendall(b"sleep")
        assert program.line() == "asleep"
        sender.sendall(bytes(50_000))
        bed.settimeout(20)
        assert program.line() == "0" and bed.recv(10) == b"awake"
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(100) == b"50000"
    finally:
        program.end()


def test_a_channel_that_is_forgotten_ends_with_its_process(world: int) -> None:
    """Its standby is over before the memory that it turns is given back."""
    program = """
import mpserve, time
channel = mpserve.Channel(device="veth", ip="10.31.12.2/24")
channel.dispatch(0.01)
time.sleep(0.1)
assert channel.worker.stats["standby_turns"] > 0
"""
    done = subprocess.run([sys.executable, "-c", program], cwd="/", timeout=120, check=False)
    assert done.returncode == 0
