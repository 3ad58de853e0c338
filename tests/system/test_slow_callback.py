"""While a callback sleeps, TCP goes on: data is acknowledged, lost segments leave again, keepalives are answered."""

import array
import fcntl
import socket
import termios
import time
from pathlib import Path

import pytest
from server import eventually, serving

import mpserve

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

ADDRESS = ("10.31.6.2", 7)
SETTINGS = ("--device", "veth", "--ip", "10.31.6.2/24", "--listen", ":7")
SLEEP_SECONDS = 5.0
REPLY = bytes(range(256)) * 800  # less than a send buffer


class Sleeper(mpserve.Handler):
    """`sleep` sleeps soon, in a callback; `reply` is answered at length; the rest is counted and told at the end."""

    def on_start(self, worker):  # type: ignore[no-untyped-def]
        self.worker = worker

    def on_data(self, sock, data):  # type: ignore[no-untyped-def]
        if data == b"sleep":
            self.worker.call_later(0.05, self.oversleep, sock)
        elif data == b"reply":
            sock.write(REPLY)
        else:
            sock.cookie = (sock.cookie or 0) + len(data)

    def oversleep(self, sock):  # type: ignore[no-untyped-def]
        time.sleep(SLEEP_SECONDS)
        sock.write(b"awake")

    def on_eof(self, sock):  # type: ignore[no-untyped-def]
        sock.write(str(sock.cookie).encode())
        sock.close()


def unacknowledged(connection: socket.socket) -> int:
    """Bytes that the kernel has sent, or will, and that the peer has not acknowledged."""
    count = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, count)
    return count[0]


def test_tcp_goes_on_while_a_callback_sleeps(world: int) -> None:
    impair = ("--impair", "tx.loss=10%,seed=5")
    with serving("run", f"{Path(__file__)}:Sleeper", *SETTINGS, *impair) as server:
        bed, sender, receiver, idle = (socket.create_connection(ADDRESS, 20) for _ in range(4))
        for name, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
            idle.setsockopt(socket.IPPROTO_TCP, name, value)
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        before = server.counters
        receiver.sendall(b"reply")
        bed.sendall(b"sleep")
        assert receiver.recv(1, socket.MSG_PEEK)
        eventually(lambda: server.counters["standby_turns"] > before["standby_turns"], "nobody stands by", 20, server)
        sender.sendall(bytes(100_000))
        eventually(lambda: unacknowledged(sender) == 0, "what was sent is not acknowledged", 4, server)
        received = b""
        while len(received) < len(REPLY):
            received += receiver.recv(1 << 20)
        assert received == REPLY
        bed.setblocking(False)
        with pytest.raises(BlockingIOError):  # still asleep: all this was the standby's
            bed.recv(10)
        bed.settimeout(20)
        assert bed.recv(10) == b"awake"
        assert server.counters["retransmits"] > before["retransmits"]
        sender.shutdown(socket.SHUT_WR)
        sender.settimeout(20)
        assert sender.recv(100) == b"100000"
        idle.setblocking(False)
        with pytest.raises(BlockingIOError):  # neither closed nor reset: its keepalives were answered
            idle.recv(1)
        assert "a callback has run for over 0.1 s" in server.wait_for_log("a callback")
        assert ", in oversleep" in server.log
        for connection in (bed, sender, receiver, idle):
            connection.close()
