"""Clients that vanish, dawdle, flood and break off: the server goes on serving, and gets back all that it handed out."""

import contextlib
import json
import resource
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import gauged
import pytest
from namespaces import borrowed_pair, inside
from server import Server, eventually, serving

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

IP = "10.31.3.2"
MANY = 1000
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEADER_SECONDS = 4.0
LIMITS = ("retries=3", "fin_wait_seconds=1", "msl_seconds=0.25", "syn_ack_retries=1")


@pytest.fixture(scope="module")
def server(world: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An HTTP server with short timeouts on a borrowed veth; its clients, and this thread, are in the peer's namespace."""
    root = tmp_path_factory.mktemp("root")
    (root / "index.html").write_text("hello\n")
    (root / "large").write_bytes(bytes(8 << 20))
    with contextlib.ExitStack() as stack:
        pair = stack.enter_context(borrowed_pair("mpsthttp", "mpstpeer", "10.31.3.1/24"))
        settings = ["--device", "af_xdp:mpsthttp", "--ip", f"{IP}/24", "--listen", ":80", "--listen", f":{gauged.PORT}"]
        settings += [
            "--set",
            f"root={root}",
            "--set",
            f"header_timeout={HEADER_SECONDS}",
            "--set",
            "keepalive_timeout=2",
        ]
        settings += ["--set", "body_timeout=2", "--set", "send_timeout=2"]
        settings += [word for limit in LIMITS for word in ("--limit", limit)]
        server = stack.enter_context(serving("run", f"{Path(gauged.__file__)}:Gauged", *settings, urls=2))
        stack.enter_context(inside(pair))
        yield server


@pytest.fixture(autouse=True)
def everything_comes_back(server: Server) -> Iterator[None]:
    """Whatever a test did, after the timeouts nothing is in use but what asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * MANY)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # Questions asked before linger in TIME_WAIT only, which the pauses between them let expire.
    deadline = time.monotonic() + 60
    while (left := in_use()) != {"connections": 1, "sockets": 1}:
        assert time.monotonic() < deadline, (left, server.counters, server.log)
        time.sleep(0.7)
    eventually(lambda: open_connections(server) == 0, "the counters do not return to zero", 10, server)
    assert server.log == ""
    get()


def in_use() -> dict[str, int]:
    """What the core has handed out, zeros but of `connections` and `sockets` left out."""
    with socket.create_connection((IP, gauged.PORT), 20) as asking:
        found = json.loads(asking.makefile("rb").read())
    return {name: count for name, count in found.items() if count or name in ("connections", "sockets")}


def open_connections(server: Server) -> int:
    """By the counters: accepted and not ended."""
    counters = server.counters
    ended = ("connections_closed", "connections_reset", "connections_aborted", "connections_timed_out")
    return counters["connections_accepted"] - sum(counters[name] for name in ended)


def get(path: str = "/", seconds: float = 20) -> bytes:
    """Fetch a page on a connection of its own."""
    with socket.create_connection((IP, 80), seconds) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        said = connection.makefile("rb").read()
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    return said


@contextlib.contextmanager
def connections(count: int, *parts: bytes) -> Iterator[list[socket.socket]]:
    """Connections that have sent these parts of a request."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection((IP, 80), 20)) for _ in range(count)]
        for part in parts:
            for connection in opened:
                connection.sendall(part)
        yield opened


@contextlib.contextmanager
def unplugged() -> Iterator[None]:
    """The peer's link is down: what either side sends is lost."""
    subprocess.run(["ip", "link", "set", "mpstpeer", "down"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "set", "mpstpeer", "up"], check=True)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_thousand_abandoned_in_mid_request(server: Server) -> None:
    before = server.counters["connections_accepted"]
    with connections(MANY, REQUEST[:20]) as opened:
        assert server.counters["connections_accepted"] - before == MANY
        get()
        eventually(lambda: open_connections(server) == 0, "they are not given up", 30, server)
        for connection in opened:
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_thousand_whose_peer_has_vanished(server: Server) -> None:
    before = server.counters["connections_timed_out"]
    with connections(MANY, REQUEST[:20]):
        with unplugged():
            eventually(lambda: open_connections(server) == 0, "they are not given up", 60, server)
        assert server.counters["connections_timed_out"] > before
        get()


def test_a_thousand_closed_and_a_thousand_reset_in_mid_request(server: Server) -> None:
    before = server.counters["connections_reset"]
    with connections(MANY, REQUEST[:20]):
        pass
    get()
    with connections(MANY, REQUEST[:20]) as opened:
        for connection in opened:
            reset(connection)
    get()
    eventually(lambda: open_connections(server) == 0, "they are not given up", 20, server)
    assert server.counters["connections_reset"] - before == MANY


def test_slow_loris(server: Server) -> None:
    """A byte now and then does not keep a request's header alive."""
    with connections(100) as opened:
        since = time.monotonic()
        while time.monotonic() - since < HEADER_SECONDS / 2:
            for connection in opened:
                connection.send(b"G")
            time.sleep(0.1)
        get()
        while open_connections(server):
            for connection in opened:
                with contextlib.suppress(ConnectionError):
                    connection.send(b"G")
            assert time.monotonic() - since < 30, "bytes keep a header alive"
            time.sleep(0.1)


def test_resets_in_mid_transfer(server: Server) -> None:
    """Of connections that read some of a large file and go."""
    for _ in range(4):
        with connections(16, REQUEST.replace(b"/ ", b"/large ")) as opened:
            for connection in opened:
                assert connection.recv(4096)
                reset(connection)
    assert len(get("/large")) > 8 << 20


def test_readers_that_stop_reading(server: Server) -> None:
    with connections(50, REQUEST.replace(b"/ ", b"/large ")) as opened:
        get()
        assert len(get("/large")) > 8 << 20
        eventually(lambda: open_connections(server) == 0, "they are not given up", 30, server)
        for connection in opened:
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(1 << 20):
                    pass


def test_a_link_that_comes_back_in_mid_transfer(server: Server) -> None:
    with connections(1, REQUEST.replace(b"/ ", b"/large ")) as (connection,):
        got = len(connection.recv(100_000))
        with unplugged():
            time.sleep(0.3)
        reader = connection.makefile("rb")
        while got < 8 << 20:
            part = reader.read1(1 << 20)
            assert part
            got += len(part)


def syn(port: int, source: str) -> bytes:
    """A TCP segment with SYN from a port of an address, without options."""
    header = struct.pack(">HHIIBBHHH", port, 80, port * 7919, 0, 5 << 4, 2, 65535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(IP) + struct.pack(">HH", socket.IPPROTO_TCP, len(header))
    total = sum(struct.unpack(">16H", pseudo + header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:16] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[18:]


def test_a_syn_flood_is_bounded(server: Server) -> None:
    """From addresses that never answer. Whoever is connected is served on; others as soon as the backlog has expired."""
    before = server.counters

    def seen() -> int:
        return server.counters["syns_received"] - before["syns_received"] - 1  # but for the connection's own

    with connections(1) as (connection,):
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
            for i in range(5000):
                source = f"10.31.3.{10 + i % 200}"
                ip = struct.pack(
                    ">BBHHHBBH4s4s",
                    0x45,
                    0,
                    40,
                    0,
                    0,
                    64,
                    socket.IPPROTO_TCP,
                    0,
                    socket.inet_aton(source),
                    socket.inet_aton(IP),
                )
                raw.sendto(ip + syn(1024 + i, source), (IP, 0))
                if i % 250 == 249:  # a worker that has no core for a while would let the wire's ring run over
                    eventually(lambda sent=i: seen() > sent, "SYNs are lost", 10, server)
        connection.sendall(REQUEST)
        assert connection.recv(4096).endswith(b"hello\n")
    eventually(lambda: seen() >= 5000, "SYNs are lost", 10, server)
    assert server.counters["syn_cookies_sent"] > before["syn_cookies_sent"]
    assert get()
