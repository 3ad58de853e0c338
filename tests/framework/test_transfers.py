"""Bulk data through the whole of it, over a wire that loses, doubles, damages, delays and reorders frames."""

import hashlib
import os
import random

import pytest

import mpserve

pytestmark = pytest.mark.on_kernel_sockets

BYTES = 5_000_000 if os.environ.get("NUMBA_DISABLE_JIT") != "1" else 100_000


class Sink(mpserve.Handler):
    """Takes everything, and answers with its digest at the end."""

    def on_accept(self, sock):
        sock.cookie = hashlib.sha256()

    def on_data(self, sock, data):
        sock.cookie.update(data)

    def on_eof(self, sock):
        sock.write(sock.cookie.digest())
        sock.close()


class Source(mpserve.Handler):
    """Sends everything as the peer takes it, then closes."""

    def __init__(self, data):
        self.left = memoryview(data)

    def on_accept(self, sock):
        self.on_writable(sock)

    def on_writable(self, sock):
        while self.left:
            part, self.left = self.left[:40_000], self.left[40_000:]
            if not sock.write(part):
                return
        sock.close()


FAULTS = [
    pytest.param({}, id="a clean wire"),
    pytest.param({"loss": 0.02, "duplication": 0.01, "reordering": 0.02, "seed": 5}, id="a faulty wire"),
    pytest.param(
        {"loss": 0.02, "burst": 3, "corrupt": 0.02, "delay": 0.01, "jitter": 0.004, "rate": 20_000_000, "seed": 8},
        id="a bad path",
    ),
]


def run(host, client, finished):
    received = bytearray()
    for _ in range(20_000):
        host.advance(0.05)
        received += client.recv()
        if finished():
            return bytes(received)
    raise AssertionError(f"not finished after {host.now:.0f} virtual seconds: {host.stats}")


def test_a_lot_each_way(mpserve_host):
    data = random.Random(3).randbytes(BYTES)
    host = mpserve_host(Source(data))
    client = host.connect()
    assert run(host, client, lambda: client.eof) == data
    host = mpserve_host(Sink())
    client = host.connect()
    client.send(data)
    client.close()
    assert run(host, client, lambda: client.eof) == hashlib.sha256(data).digest()
    assert host.stats["bytes_read"] == BYTES


@pytest.mark.stack_only
@pytest.mark.parametrize("faults", FAULTS)
def test_what_the_peer_sends_arrives(mpserve_host, faults):
    data = random.Random(1).randbytes(BYTES)
    host = mpserve_host(Sink(), **faults)
    client = host.connect()
    client.send(data)
    client.close()
    assert run(host, client, lambda: client.eof) == hashlib.sha256(data).digest()
    assert host.stats["bytes_read"] == BYTES
    assert bool(host.stats["out_of_order"]) == bool(faults)


@pytest.mark.stack_only
@pytest.mark.parametrize("faults", FAULTS)
def test_what_the_handler_sends_arrives(mpserve_host, faults):
    data = random.Random(2).randbytes(BYTES)
    host = mpserve_host(Source(data), **faults)
    client = host.connect()
    received = run(host, client, lambda: client.eof)
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
    assert bool(host.stats["retransmits"]) == bool(faults)
