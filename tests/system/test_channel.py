"""`mpserve.Channel` alone over a real veth, and the MegaPipe example."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from server import eventually

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

ROOT = Path(__file__).parents[2]

# In a process of its own: an EAL is started once a process.
PROGRAM = """
import os, socket, sys
import mpserve
from mpserve import Kind

kernel, far = socket.socketpair()
with mpserve.Channel(device="veth", ip="10.31.9.2/24") as channel:
    listener = channel.register(channel.listen(("10.31.9.2", 7)), "listener")
    channel.accept(listener, 2)
    file = channel.register(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), "file")
    pipe = channel.register(kernel, "kernel")
    channel.read(pipe, 100)
    assert channel.dispatch(0.2) == []
    print("ready", flush=True)
    out = None
    while True:
        for event in channel.dispatch():
            print(event.kind.name, event.cookie, event.result, flush=True)
            if event.kind == Kind.ACCEPT:
                handle = channel.register(event.endpoint, "in")
                channel.setsockopt(handle, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                channel.read(handle, 1000)
                if out is None:
                    out = channel.connect((event.endpoint.peername[0], int(sys.argv[2])), "out")
                    channel.read(out, 1000)
            elif event.kind == Kind.CONNECT:
                assert event.result == 0
                channel.writev(out, [b"hello ", b"kernel"])
            elif event.cookie == "in" and event.kind == Kind.READ:
                if event.result <= 0:
                    channel.close(event.handle)
                elif event.data == b"quit":
                    sys.exit(0)
                else:
                    inside = event.handle
                    far.send(event.data)
            elif event.cookie == "kernel" and event.kind == Kind.READ:
                channel.write(file, event.data, offset=0)
                channel.read(pipe, 100)
            elif event.cookie == "file" and event.kind == Kind.WRITE:
                channel.read(file, 100, offset=0)
            elif event.cookie == "file":
                channel.write(inside, b"from the file: " + event.data)
                channel.read(inside, 1000)
            elif event.cookie == "out" and event.kind == Kind.READ:
                channel.disconnect(out)
"""


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, cwd="/")


def read_until(process: "subprocess.Popen[str]", word: str) -> list[str]:
    """Lines up to the one that begins with a word."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith(word):
            return lines
    raise AssertionError(f"it ended: {lines}")


def send_all(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def test_every_kind_of_endpoint(world: int, tmp_path: Path) -> None:
    """Accepted and asked-for connections, a kernel socket and a file in one channel on a veth."""
    before = links()
    with socket.create_server(("0.0.0.0", 0)) as server:
        process = start("-c", PROGRAM, str(tmp_path / "file"), str(server.getsockname()[1]))
        try:
            read_until(process, "ready")
            with socket.create_connection(("10.31.9.2", 7), 30) as client:
                ours, _ = server.accept()
                with ours:
                    ours.settimeout(30)
                    assert ours.recv(100) == b"hello kernel"
                    ours.send(b"thanks")
                    assert ours.recv(100) == b"", "disconnect sends FIN"
                client.sendall(b"a line")
                assert client.recv(100) == b"from the file: a line"
                client.sendall(b"quit")
                assert client.recv(100) == b"", "destroy closes"
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
    assert links() == before


REGULAR = """
import threading
import mpserve

def serve(regular):
    with regular, regular.makefile("rb") as lines:
        for line in lines:
            regular.sendall(line.upper())

with mpserve.Channel(device="veth", ip="10.31.9.2/24") as channel:
    listener = channel.register(channel.listen(("", 7)))
    channel.accept(listener, 100, regular=True)
    channel.flush()
    print("ready", flush=True)
    while True:
        for event in channel.dispatch():
            threading.Thread(target=serve, args=(event.endpoint,), daemon=True).start()
"""


def test_regular_sockets_served_by_threads(world: int) -> None:
    process = start("-c", REGULAR)
    data = b"".join(b"line %d\n" % number for number in range(20_000))
    try:
        read_until(process, "ready")
        clients = [socket.create_connection(("10.31.9.2", 7), 30) for _ in range(3)]
        for client in clients:
            threading.Thread(target=send_all, args=(client, data), daemon=True).start()
        for client in clients:
            with client, client.makefile("rb") as replies:
                assert replies.read() == data.upper()
    finally:
        process.kill()
        process.wait()


def test_the_example(world: int) -> None:
    process = start(str(ROOT / "examples" / "megapipe_echo.py"), "--ip", "10.31.9.2/24")
    try:
        read_until(process, "serving tcp://10.31.9.2:7")
        data = bytes(range(256)) * 20_000
        with socket.create_connection(("10.31.9.2", 7), 30) as client:
            sender = threading.Thread(target=send_all, args=(client, data))
            sender.start()
            got = bytearray()
            while part := client.recv(65_536):
                got += part
            sender.join()
        assert got == data
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not [name for name in links() if name.startswith("mps")], "the veth is left", 5)
