"""`sock.to_socket()`: what a regular socket carries across, in virtual time; over devices: `tests/system/test_to_socket.py`."""

import gc
import os
import socket

import pytest

import mpserve
from mpserve.dataplane.completions import Reason

pytestmark = pytest.mark.on_kernel_sockets


class Keep(mpserve.Handler):
    """Keeps its socket, and notes every callback."""

    def __init__(self):
        self.seen, self.worker = [], None

    def on_start(self, worker):
        self.worker = worker

    def on_accept(self, sock):
        self.sock = sock

    def on_connect(self, sock):
        self.seen.append("connect")

    def on_data(self, sock, data):
        self.seen.append(data)

    def on_eof(self, sock):
        self.seen.append("eof")

    def on_writable(self, sock):
        self.seen.append("writable")

    def on_timeout(self, sock):
        self.seen.append("timeout")

    def on_close(self, sock, reason):
        self.seen.append(reason)


@pytest.fixture
def handler():
    return Keep()


@pytest.fixture
def host(mpserve_host, handler):
    return mpserve_host(handler, sndbuf_bytes=65_536, sndbuf_max_bytes=0, rcvbuf_bytes=65_536, rcvbuf_max_bytes=0)


@pytest.fixture
def client(host):
    return host.connect()


@pytest.fixture
def regular(client, handler):
    with handler.sock.to_socket() as regular:
        regular.setblocking(False)
        yield regular


PATIENCE = 20  # times, 50 ms apart, that nothing comes


def read_all(regular, host):
    """What can be read now, with the host going on behind it."""
    data, waited = bytearray(), 0
    while True:
        host.settle()
        try:
            part = regular.recv(1 << 16)
        except BlockingIOError:
            if waited == PATIENCE:
                return bytes(data), False
            host.advance(0.05)
            waited += 1
            continue
        if not part:
            return bytes(data), True
        data += part
        waited = 0


def write_all(regular, host, data):
    """How many bytes are taken before it blocks for good."""
    taken = waited = 0
    while taken < len(data):
        host.settle()
        try:
            taken += regular.send(data[taken : taken + (1 << 16)])
            waited = 0
        except BlockingIOError:
            if waited == 3:
                break
            host.advance(0.05)
            waited += 1
    return taken


def test_bytes_go_both_ways(host, client, handler, regular):
    client.send(b"question")
    host.settle()
    assert regular.recv(100) == b"question"
    regular.send(b"answer")
    host.settle()
    assert client.recv() == b"answer"
    assert handler.seen == []
    assert isinstance(regular, socket.socket) and regular.family == socket.AF_UNIX
    assert handler.sock.peername == client.local


def test_what_the_handler_had_read_comes_first(host, client, handler):
    client.send(b"two")
    regular = handler.sock.to_socket(b"one ")
    host.settle()
    assert regular.recv(100) == b"one two"
    regular.close()


def test_what_the_handler_wrote_goes_first(host, client, handler):
    big = os.urandom(150_000)
    assert handler.sock.write(big) is False
    regular = handler.sock.to_socket()
    regular.send(b" and more")
    host.advance(1.0)
    assert client.recv() == big + b" and more"
    assert handler.seen == []
    regular.close()


def test_the_peer_s_end_and_then_the_user_s(host, client, handler, regular):
    client.send(b"last")
    client.close()
    host.settle()
    assert regular.recv(100) == b"last" and regular.recv(100) == b""
    regular.send(b"reply")
    host.settle()
    assert client.recv() == b"reply" and not client.eof
    regular.shutdown(socket.SHUT_WR)
    host.settle()
    assert client.eof and handler.seen == [Reason.FINISHED]


def test_the_user_s_end_and_then_the_peer_s(host, client, handler, regular):
    regular.send(b"last")
    regular.shutdown(socket.SHUT_WR)
    host.settle()
    assert client.recv() == b"last" and client.eof
    client.send(b"reply")
    client.close()
    host.settle()
    assert regular.recv(100) == b"reply" and regular.recv(100) == b""
    assert handler.seen == [Reason.FINISHED]


def test_an_end_that_the_handler_was_told_of(host, client, handler):
    client.close()
    host.settle()
    regular = handler.sock.to_socket()
    assert regular.recv(100) == b""
    regular.send(b"bye")
    regular.close()
    host.settle()
    assert client.recv() == b"bye" and client.eof and handler.seen == ["eof", Reason.FINISHED]


def test_close_sends_what_was_written_and_drops_what_comes(host, client, handler, regular):
    client.send(b"unread")
    host.settle()
    regular.send(b"written")
    regular.close()
    host.settle()
    assert client.recv() == b"written" and client.eof and not client.was_reset
    client.send(b"into the void")
    client.close()
    host.settle()
    assert handler.seen == [Reason.FINISHED]


def test_close_after_a_half_close(host, client, handler, regular):
    regular.shutdown(socket.SHUT_WR)
    host.settle()
    assert client.eof and handler.sock.closed is False
    regular.close()
    host.settle()
    assert handler.sock.closed


def test_a_peer_that_does_not_read_makes_the_user_wait(host, handler):
    client = host.connect(window=0)
    regular = handler.sock.to_socket()
    regular.setblocking(False)
    data = os.urandom(8 << 20)
    taken = write_all(regular, host, data)
    assert 65_536 <= taken < 4 << 20, "a send buffer and a pair's, no more"
    assert len(client.recv()) < 100 and handler.seen == []  # window probes carry a byte
    regular.close()
    client.reset()
    host.settle()


def test_a_user_who_does_not_read_closes_the_peer_s_window(host, client, handler, regular):
    data = os.urandom(5 << 20)
    client.send(data)
    host.advance(1.0)
    assert host.stats["bytes_read"] < 3 << 20
    stopped = host.stats["bytes_read"]
    host.advance(1.0)
    assert host.stats["bytes_read"] - stopped < 65_536 * 2
    client.close()
    received, ended = read_all(regular, host)
    assert received == data and ended


def test_a_lot_each_way_at_once(host, client, handler, regular):
    data = os.urandom(2 << 20)
    client.send(data[::-1])
    received, sent = bytearray(), 0
    for _ in range(10_000):
        host.advance(0.005)
        try:
            sent += regular.send(data[sent : sent + 300_000])
        except BlockingIOError:
            pass
        try:
            received += regular.recv(100_000)
        except BlockingIOError:
            pass
        if sent == len(data) == len(received):
            break
    host.advance(1.0)
    assert received == data[::-1] and client.recv() == data and handler.seen == []


def test_a_reset_is_a_reset_if_something_is_unread(host, handler):
    client = host.connect(window=0)
    regular = handler.sock.to_socket()
    regular.setblocking(False)
    write_all(regular, host, bytes(4 << 20))
    client.reset()
    host.settle()
    assert handler.seen == [Reason.RESET]
    with pytest.raises(ConnectionResetError):
        regular.recv(1)
    regular.close()


def test_a_reset_is_an_end_otherwise(host, client, handler, regular):
    client.send(b"came before")
    client.reset()
    host.settle()
    assert handler.seen == [Reason.RESET]
    assert regular.recv(100) == b"came before" and regular.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        regular.send(b"x")


def test_what_came_before_the_end_is_kept_for_a_slow_user(host, client, handler, regular):
    data = os.urandom(500_000)
    client.send(data)
    host.advance(1.0)
    client.close()
    regular.shutdown(socket.SHUT_WR)
    received, ended = read_all(regular, host)
    assert received == data and ended and handler.seen == [Reason.FINISHED]


def test_a_paused_socket_with_a_timeout_is_taken_as_it_is(host, client, handler):
    handler.sock.set_timeout(0.5)
    handler.sock.pause()
    client.send(b"kept")
    host.settle()
    regular = handler.sock.to_socket()
    host.advance(2.0)
    assert regular.recv(100) == b"kept" and handler.seen == []
    regular.close()


def test_after_shutdown_the_user_only_reads(host, client, handler):
    handler.sock.shutdown()
    regular = handler.sock.to_socket()
    with pytest.raises(BrokenPipeError):
        regular.send(b"x")
    client.send(b"still here")
    host.settle()
    assert regular.recv(100) == b"still here"
    regular.close()


def test_the_handler_may_still_close_or_abort(host, client, handler, regular):
    client.send(b"came before")
    host.settle()
    handler.sock.abort()
    host.settle()
    assert client.was_reset and handler.seen == [Reason.ABORTED]
    assert regular.recv(100) == b"came before" and regular.recv(100) == b""


def test_once_and_not_after_the_end(host, client, handler, regular):
    with pytest.raises(mpserve.Closed, match="given to a regular socket before"):
        handler.sock.to_socket()
    handler.sock.close()
    with pytest.raises(mpserve.Closed):
        handler.sock.to_socket()


def test_before_the_connection_is_there(host, handler):
    port = host.free_port()
    accepted = host.listen(port)
    regular = handler.worker.connect((host.far, port)).to_socket()
    regular.send(b"early")
    host.advance(0.1)
    assert accepted[0].recv() == b"early" and handler.seen == []
    regular.close()


def test_a_connection_that_is_refused(host, handler):
    port = host.free_port()
    host.listen(port, accept=False)
    regular = handler.worker.connect((host.far, port)).to_socket()
    host.advance(0.1)
    assert handler.seen == [Reason.REFUSED] and regular.recv(1) == b""
    regular.close()


def test_in_a_batch(mpserve_host):
    """What comes behind the handing-over in the same batch goes to the regular socket."""

    class Batches(mpserve.Handler):
        def on_batch(self, items):
            for sock, data in items:
                self.regular = sock.to_socket(data)

    handler = Batches()
    host = mpserve_host(handler)
    client = host.connect()
    client.send(b"first")
    host.settle()
    client.send(b" second")
    host.settle()
    assert handler.regular.recv(100) == b"first second"
    handler.regular.close()


@pytest.mark.stack_only  # whose clients have none
def test_no_descriptor_is_left(mpserve_host):
    before = set(os.listdir("/proc/self/fd"))
    handler = Keep()
    host = mpserve_host(handler)
    during = len(os.listdir("/proc/self/fd"))
    for ending in ("close", "reset"):
        client = host.connect()
        regular = handler.sock.to_socket()
        getattr(client, ending)()
        host.settle()
        regular.close()
        host.settle()
    client = host.connect()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == during > len(before)
    assert host.stats["handler_errors"] == 0
