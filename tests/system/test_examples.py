"""Every example as its first lines say to start it, over a veth and over kernel sockets, with the kernel's sockets for clients.

What they do at length is tested in virtual time (`tests/examples`); `megapipe_echo.py` and `fastapi_app.py`, which are programs of
their own, in `test_channel.py` and `test_asyncio.py`.
"""

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from server import MPSERVE, serving

pytestmark = [pytest.mark.root, pytest.mark.dpdk]
EXAMPLES = Path(__file__).parents[2] / "examples"
PORT, UPSTREAM = 7, 7070


class Client:
    """A connection that says lines and hears them."""

    def __init__(self, address: str) -> None:
        self._sock = socket.create_connection((address, PORT), 20)
        self._lines = self._sock.makefile("rb")

    def say(self, line: bytes) -> None:
        self._sock.sendall(line + b"\n")

    def hear(self) -> bytes:
        return self._lines.readline().rstrip(b"\n")

    def ask(self, line: bytes) -> bytes:
        self.say(line)
        return self.hear()

    def rest(self) -> bytes:
        """What comes until the other side ends."""
        return self._lines.read()

    def say_all(self, data: bytes) -> None:
        """Bytes as they are, and the end of them."""
        self._sock.sendall(data)
        self.end()

    def end(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._lines.close()
        self._sock.close()


@dataclass(frozen=True)
class Device:
    """A `--device` and its settings, where it is reached, and where the kernel is reached from it."""

    arguments: tuple[str, ...]
    address: str
    kernel: str

    @contextlib.contextmanager
    def serving(self, example: str, *options: str) -> Iterator[Callable[[], Client]]:
        """An example with its options; what it yields connects to it."""
        settings = [word for option in options for word in ("--set", option)]
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                serving("run", str(EXAMPLES / example), *self.arguments, "--listen", f":{PORT}", *settings)
            )
            yield lambda: stack.enter_context(contextlib.closing(Client(self.address)))


VETH = Device(("--device", "veth", "--ip", "10.31.11.2/24"), "10.31.11.2", "10.31.11.1")
KERNEL = Device(("--device", "kernel"), "127.0.0.1", "127.0.0.1")
on_both = pytest.mark.parametrize("device", [VETH, KERNEL], ids=["veth", "kernel"])


@on_both
def test_echo(world: int, device: Device) -> None:
    with device.serving("echo.py:Echo", "longest_line=5000") as connect:
        client = connect()
        assert client.ask(b"hello") == b"1: hello" and client.ask(b"x" * 4900) == b"2: " + b"x" * 4900
        client.end()
        assert client.rest() == b"2 lines, 4907 bytes\n"


def test_compiled_echo(world: int) -> None:
    with VETH.serving("compiled_echo.py:CompiledEcho", "greeting=hello") as connect:
        client = connect()
        assert client.ask(b" world") == b"hello world"


def test_compiled_echo_is_refused_over_kernel_sockets(world: int) -> None:
    command = [*MPSERVE, "run", str(EXAMPLES / "compiled_echo.py:CompiledEcho"), *KERNEL.arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "kernel sockets have none: take another --device" in done.stderr


@on_both
def test_line_server(world: int, device: Device) -> None:
    with device.serving("line_server.py:LineServer") as connect:
        client = connect()
        assert client.ask(b"echo some words") == b"some words" and client.ask(b"count") == b"2"
        assert client.ask(b"quit") == b"bye" and client.rest() == b""


@on_both
def test_kv_store(world: int, device: Device) -> None:
    with device.serving("kv_store.py:KeyValueStore", "most_keys=1") as connect:
        one, two = connect(), connect()
        assert one.ask(b"set key some value") == b"ok" and two.ask(b"get key") == b"value some value"
        assert two.ask(b"set other x") == b"error: full" and one.ask(b"del key") == b"ok"
        one.say(b"\n".join(b"get %d" % number for number in range(1000)))
        assert [one.hear() for _ in range(1000)] == [b"none"] * 1000


@on_both
def test_chat(world: int, device: Device) -> None:
    with device.serving("chat.py:Chat") as connect:
        ada, bob = connect(), connect()
        assert ada.hear() == bob.hear() == b"What is your name?"
        assert ada.ask(b"Ada") == b"0 others are here."
        assert bob.ask(b"Bob") == b"1 others are here."
        assert ada.hear() == b"* Bob comes in"
        bob.say(b"good morning")
        assert ada.hear() == b"Bob: good morning"
        bob.end()
        assert ada.hear() == b"* Bob leaves"


@on_both
def test_proxy(world: int, device: Device) -> None:
    """Its upstream is a kernel's socket: over the veth, the other end of the pair."""
    data = bytes(range(256)) * 4000
    with device.serving("proxy.py:Proxy", f"upstream={device.kernel}:{UPSTREAM}") as connect:
        with socket.create_server(("", UPSTREAM)) as server:
            threading.Thread(target=echo_one, args=(server,), daemon=True).start()
            client = connect()
            sender = threading.Thread(target=client.say_all, args=(data,))
            sender.start()
            assert client.rest() == data
            sender.join()


def echo_one(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


@on_both
def test_static_files(world: int, device: Device, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8000
    (tmp_path / "file").write_bytes(data)
    with device.serving("static_files.py:StaticFiles", f"root={tmp_path}") as connect:
        client = connect()
        client.say(b"GET /file HTTP/1.0\r\n\r")
        head, _, body = client.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 OK\r\n") and body == data
        lost = connect()
        assert lost.ask(b"GET /../etc/passwd HTTP/1.0\r\n\r") == b"HTTP/1.0 404 Not Found\r"
