"""Each device serves real clients: curl, ab, wrk, nc, Python's sockets. The borrowed ones face a kernel peer in a namespace
of its own with its default offloads on, so that frames above the MTU and unfinished checksums arrive."""

import contextlib
import hashlib
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import borrowed_pair, inside
from server import Server, serving

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

IP = "10.31.1.2"
URL = f"http://{IP}/"
DEVICES = ["veth", "veth,driver=af_packet", "tap", "af_packet:mpstweb", "af_xdp:mpstweb"]
FILE = hashlib.shake_256(b"a file").digest(3_000_000)


def run(*words: str, text: bytes | None = None) -> bytes:
    if shutil.which(words[0]) is None:
        pytest.skip(f"needs {words[0]}")
    done = subprocess.run(words, input=text, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (words, done.stdout[-500:], done.stderr[-500:])
    return done.stdout


@contextlib.contextmanager
def http_on(device: str, root: Path) -> Iterator[Server]:
    """`mpserve http` on a device; this thread is where its clients are."""
    with contextlib.ExitStack() as stack:
        pair = None
        if ":" in device:
            pair = stack.enter_context(borrowed_pair("mpstweb", "mpstpeer", "10.31.1.1/24"))
        server = stack.enter_context(serving("http", "--device", device, "--ip", f"{IP}/24", "--root", str(root)))
        if pair is not None:
            stack.enter_context(inside(pair))
        yield server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    (folder / "file").write_bytes(FILE)
    (folder / "index.html").write_text("hello\n")
    return folder


@pytest.fixture(scope="module", params=DEVICES)
def http(request: pytest.FixtureRequest, world: int, root: Path) -> Iterator[Server]:
    with http_on(request.param, root) as server:
        yield server


def test_curl(http: Server) -> None:
    assert http.urls == [URL]
    assert run("curl", "-sS", URL) == b"hello\n"
    assert hashlib.sha256(run("curl", "-sS", URL + "file")).digest() == hashlib.sha256(FILE).digest()


def test_an_upload_is_answered(http: Server) -> None:
    """Frames above the MTU come in: a body of 1 MB, refused as a file server does, on a connection that lives on."""
    said = run(
        "curl", "-sS", "-w", "%{http_code} ", "-o", "/dev/null", "--data-binary", "@-", URL, text=FILE[:1_000_000]
    )
    assert said == b"405 "
    assert http.counters["drop_tcp_checksum"] == http.counters["drop_oversize"] == 0
    assert run("curl", "-sS", URL) == b"hello\n"


def test_ab_with_and_without_keep_alive(http: Server) -> None:
    for more in ([], ["-k"]):
        said = run("ab", "-q", "-n", "300", "-c", "10", "-s", "20", *more, URL).decode()
        assert re.search(r"Complete requests:\s+300\n", said) and re.search(r"Failed requests:\s+0\n", said), said


def test_wrk(http: Server) -> None:
    before = http.counters["connections_accepted"]
    said = run("wrk", "-t1", "-c16", "-d1s", "--timeout", "10", URL).decode()
    assert "Socket errors" not in said and "Non-2xx" not in said, said
    assert float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]) > 0  # type: ignore[index]
    assert http.counters["connections_accepted"] - before in (16, 17)  # wrk opens one to try


def test_nc(http: Server) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    said = run("nc", "-w", "20", IP, "80", text=request)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n") and said.endswith(b"\r\n\r\nhello\n")


def test_sockets_pipelined_half_closed_and_byte_by_byte(http: Server) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((IP, 80), 20) as connection:
        connection.sendall(request * 50)
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").read().count(b"hello\n") == 50
    with socket.create_connection((IP, 80), 20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            connection.send(bytes([byte]))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_port_where_nobody_listens_resets(http: Server) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((IP, 81), 20)
    assert http.counters["drop_no_listener"] > 0


def echo_request(size: int, sequence: int) -> bytes:
    """An ICMP echo request with `size` bytes of data, its checksum right."""
    message = struct.pack(">BBHHH", 8, 0, 0, 7, sequence) + FILE[: size & ~1]
    words = sum(struct.unpack(f">{len(message) // 2}H", message))
    words = (words & 0xFFFF) + (words >> 16)
    return message[:2] + struct.pack(">H", ~(words + (words >> 16)) & 0xFFFF) + message[4:]


def test_ping_of_every_size_that_fits_a_frame(http: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pinger:
        pinger.settimeout(20)
        for sequence, size in enumerate((0, 56, 1472)):
            request = echo_request(size, sequence)
            pinger.sendto(request, (IP, 0))
            reply = pinger.recv(2048)[20:]
            assert reply[0] == 0 and reply[4:] == request[4:]


def test_what_a_kernel_with_its_offloads_on_leaves_was_there_and_was_accepted(http: Server) -> None:
    """Last of the file, with what the tests above have brought."""
    counters = http.counters
    borrowed = "mpstweb" in http.said
    assert (counters["checksum_unfinished"] > 0) == borrowed
    assert counters["drop_tcp_checksum"] == counters["drop_oversize"] == counters["drop_tcp_malformed"] == 0
    assert http.log == ""
