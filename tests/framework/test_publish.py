"""The relay of --publish: bytes both ways, half-closes, resets, an end with its parent."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from mpserve.dataplane.errors import SetupError
from mpserve.framework import publish


@pytest.fixture
def far() -> Iterator[socket.socket]:
    """The listening end that the relay connects to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        yield listener


@contextlib.contextmanager
def relaying(far: socket.socket) -> Iterator[socket.socket]:
    """A connection through a relay to `far`, accepted nowhere yet."""
    with publish.listen("127.0.0.1:0") as listener:
        relay = publish.start(listener, *far.getsockname())
        try:
            with socket.create_connection(listener.getsockname(), timeout=5) as near:
                yield near
        finally:
            relay.terminate()
            relay.wait()


def send_all(near: socket.socket, blob: bytes) -> None:
    near.sendall(blob)
    near.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8080", ("127.0.0.1", 8080)), (":80", ("127.0.0.1", 80)), ("8080", ("127.0.0.1", 8080))],
)
def test_address(text: str, address: tuple[str, int]) -> None:
    assert publish.parse_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:http"])
def test_a_bad_address_says_what_to_type(text: str) -> None:
    with pytest.raises(SetupError, match="type HOST:PORT"):
        publish.parse_address(text)


def test_an_address_in_use_is_one_line(far: socket.socket) -> None:
    host, port = far.getsockname()
    with pytest.raises(SetupError, match=f"--publish {host}:{port}: .*choose another"):
        publish.listen(f"{host}:{port}")


def test_bytes_go_both_ways_and_each_way_ends_alone(far: socket.socket) -> None:
    blob = bytes(range(256)) * 20000
    with relaying(far) as near:
        there, _ = far.accept()
        there.settimeout(5)
        with there:
            sender = threading.Thread(target=send_all, args=(near, blob))
            sender.start()
            assert b"".join(iter(lambda: there.recv(65536), b"")) == blob
            sender.join()
            there.sendall(b"after your end")  # the other direction is open still
            there.shutdown(socket.SHUT_WR)
            assert near.recv(100) == b"after your end"
            assert near.recv(100) == b""


def test_a_reset_is_carried_on(far: socket.socket) -> None:
    with relaying(far) as near:
        there, _ = far.accept()
        near.sendall(b"x")
        assert there.recv(1) == b"x"
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        there.close()
        with pytest.raises(ConnectionResetError):
            near.recv(1)


def test_nobody_there_resets_the_connection(far: socket.socket) -> None:
    address = far.getsockname()
    far.close()
    with publish.listen("127.0.0.1:0") as listener:
        relay = publish.start(listener, *address)
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=5) as near,
                pytest.raises(ConnectionResetError),
            ):
                near.recv(1)
        finally:
            relay.terminate()
            relay.wait()


def test_the_relay_dies_with_its_parent(far: socket.socket) -> None:
    host, port = far.getsockname()
    code = (
        "import sys, time; from mpserve.framework import publish\n"
        "listener = publish.listen('127.0.0.1:0')\n"
        f"relay = publish.start(listener, {host!r}, {port})\n"
        "print(listener.getsockname()[1], flush=True); listener.close(); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd="/")
    assert parent.stdout is not None
    published = int(parent.stdout.readline())
    with socket.create_connection(("127.0.0.1", published), timeout=5):
        far.accept()[0].close()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.read()  # until the relay, which holds it too, is gone
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", published), timeout=5)
