"""`sock.to_socket()` over a real device: bulk each way, TLS, a process, asyncio. MPSERVE_BULK_BYTES makes the bulk shorter."""

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server, serving

from mpserve.testing import streams

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

BYTES = int(os.environ.get("MPSERVE_BULK_BYTES", 1 << 30))
HANDLER = f"{Path(__file__).with_name('regular.py')}:Regular"
ADDRESS = ("10.31.3.2", 9000)
SECONDS = 120.0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own making for 10.31.3.2, in one file."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test -addext subjectAltName=IP:{ADDRESS[0]}"
    subprocess.run([*command.split(), "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@pytest.fixture(scope="module")
def server(world: int, certificate: Path) -> Iterator[Server]:
    arguments = ("--ip", f"{ADDRESS[0]}/24", "--listen", ":9000", "--set", f"certificate={certificate}")
    with serving("run", HANDLER, "--device", "veth", *arguments) as server:
        yield server
        assert "Traceback" not in server.log, server.log


def connect(word: bytes) -> socket.socket:
    connection = socket.create_connection(ADDRESS, SECONDS)
    connection.sendall(word + b"\n")
    return connection


def read_to_the_end(connection: socket.socket | ssl.SSLSocket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_a_worker_that_never_sleeps(world: int) -> None:
    """It looks at the regular sockets between its polls."""
    arguments = ("--ip", f"{ADDRESS[0]}/24", "--listen", ":9000", "--busy-poll")
    with serving("run", HANDLER, "--device", "veth", *arguments) as server:
        length = BYTES >> 4
        for move in (streams.put, streams.get):
            assert move(ADDRESS, length) == (length, streams.crc_of(length)), server.log


@pytest.mark.parametrize("move", [streams.put, streams.get])
def test_bulk(server: Server, move) -> None:  # type: ignore[no-untyped-def]
    assert move(ADDRESS, BYTES) == (BYTES, streams.crc_of(BYTES)), server.log


def test_a_process_reads_and_writes_it(server: Server) -> None:
    with connect(b"cat") as connection:
        for number in range(100):
            connection.sendall(b"%d " % number * 1000)
        connection.shutdown(socket.SHUT_WR)
        assert read_to_the_end(connection) == b"".join(b"%d " % number * 1000 for number in range(100))


def test_asyncio(server: Server) -> None:
    with connect(b"loop") as connection:
        connection.sendall(b"some words " * 10_000)
        connection.shutdown(socket.SHUT_WR)
        assert read_to_the_end(connection) == b"SOME WORDS " * 10_000


def test_tls(server: Server, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=f"{certificate}.crt")
    with connect(b"tls") as plain, context.wrap_socket(plain, server_hostname=ADDRESS[0]) as connection:
        for _ in range(100):
            connection.sendall(b"some words " * 1000)
            got = b""
            while len(got) < 11_000:
                got += connection.recv(1 << 16)
            assert got == b"SOME WORDS " * 1000
        assert connection.unwrap().recv(100) == b""
