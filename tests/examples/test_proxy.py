"""examples/proxy.py: two connections joined, with half-close, back-pressure and resets carried across."""

from typing import Any

import pytest

import mpserve

pytestmark = pytest.mark.on_kernel_sockets


@pytest.fixture
def host(mpserve_host: Any, example: Any) -> Any:
    small = {f"{name}_bytes": 16_384 for name in ("sndbuf", "sndbuf_max", "rcvbuf", "rcvbuf_max")}
    handler = example("proxy.py:Proxy")(upstream="127.0.0.1:1")
    host = mpserve_host(handler, **small)
    handler.there = (host.far, host.free_port())
    return host


def test_bytes_and_fins_go_both_ways(host: Any) -> None:
    accepted = host.listen(host.handler.there[1])
    client = host.connect()
    client.send(b"question")
    client.close()
    host.settle()
    upstream = accepted[0]
    assert upstream.recv() == b"question" and upstream.eof
    upstream.send(b"answer")
    upstream.close()
    host.advance(0.01)
    assert client.recv() == b"answer" and client.eof
    assert host.stats["handler_errors"] == 0


def test_a_refused_upstream_resets_the_client(host: Any) -> None:
    host.listen(host.handler.there[1], accept=False)
    client = host.connect()
    host.settle()
    assert client.was_reset and host.stats["handler_errors"] == 0


def test_a_reset_is_carried_across(host: Any) -> None:
    accepted = host.listen(host.handler.there[1])
    client = host.connect()
    host.settle()
    accepted[0].reset()
    host.settle()
    assert client.was_reset


@pytest.mark.stack_only
def test_neither_side_is_read_faster_than_the_other_takes_it(host: Any) -> None:
    accepted = host.listen(host.handler.there[1])
    client = host.connect(window=0)
    host.settle()
    data = bytes(range(256)) * 1024
    accepted[0].send(data)
    host.advance(0.05)
    arrays = host.worker.memory.arrays
    assert client.recv() == b"" and max(arrays["conns"].rcv_queued) > 0, "the rest waits in the stack, or with the peer"
    client._window = 1 << 20
    client._say("A", client._nxt)
    host.advance(2.0)
    assert client.recv() == data and host.stats["handler_errors"] == 0


def test_the_upstream_is_checked_before_anything_is_accepted(mpserve_host: Any, example: Any) -> None:
    with pytest.raises(mpserve.SetupError, match="ADDRESS:PORT"):
        mpserve_host(example("proxy.py:Proxy")(upstream="nowhere"))
