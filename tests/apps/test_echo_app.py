"""The echo application on the real stack in virtual time."""

import os
from typing import Any

from mpserve.apps.echo import Echo


def test_what_comes_in_goes_out(mpserve_host: Any) -> None:
    host = mpserve_host(Echo())
    client = host.connect()
    client.send(b"hello")
    host.settle()
    assert client.recv() == b"hello"
    client.close()
    host.settle()
    assert client.eof


def test_a_megabyte_through_a_small_buffer(mpserve_host: Any) -> None:
    host = mpserve_host(Echo(), sndbuf_bytes=65536, rcvbuf_bytes=65536)
    client, data = host.connect(), os.urandom(1 << 20)
    client.send(data)
    host.advance(2.0)
    assert client.recv() == data
    assert host.stats["handler_errors"] == 0


def test_over_a_bad_wire(mpserve_host: Any) -> None:
    host = mpserve_host(Echo(), loss=0.05, duplication=0.05, reordering=0.05, seed=3)
    client, data = host.connect(), os.urandom(100_000)
    client.send(data)
    for _ in range(60):
        host.advance(1.0)
        if len(client._received) == len(data):
            break
    assert client.recv() == data
