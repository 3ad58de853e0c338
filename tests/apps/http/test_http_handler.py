"""The HTTP handlers on the real stack in virtual time."""

import os
from pathlib import Path
from typing import Any

import pytest

from mpserve.apps.http import FixedReply, Http
from mpserve.dataplane.errors import SetupError

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def ask(host: Any, client: Any, request: bytes) -> bytes:
    client.send(request)
    host.settle()
    reply: bytes = client.recv()
    return reply


def body(reply: bytes) -> bytes:
    return reply.partition(b"\r\n\r\n")[2]


def test_the_hello_page(mpserve_host: Any) -> None:
    host = mpserve_host(Http(), port=80)
    client = host.connect()
    reply = ask(host, client, GET)
    assert reply.startswith(b"HTTP/1.1 200 OK\r\nServer: mpserve\r\nDate: ")
    assert b"It works." in reply
    assert ask(host, client, GET) == reply or b"It works." in reply
    assert ask(host, client, GET.replace(b"/ ", b"/x ")).startswith(b"HTTP/1.1 404 ")
    head = ask(host, client, GET.replace(b"GET", b"HEAD"))
    assert head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n")


def test_the_second_time_comes_from_ready_replies_until_the_second_is_over(mpserve_host: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(b"old")
    handler = Http(root=str(tmp_path))
    host = mpserve_host(handler)
    client = host.connect()
    assert body(ask(host, client, GET)) == b"old"
    assert GET in handler.ready
    (tmp_path / "index.html").write_bytes(b"new")
    host.advance(1.1)
    assert not handler.ready
    assert body(ask(host, client, GET)) == b"new"
    host.advance(1.1)
    assert not handler.clearing  # an idle server sets no timers


def test_pipelined_and_split(mpserve_host: Any) -> None:
    host = mpserve_host(Http())
    client = host.connect()
    for i in range(0, len(GET * 3), 7):
        client.send((GET * 3)[i : i + 7])
        host.settle()
    assert client.recv().count(b"HTTP/1.1 200 OK") == 3
    assert ask(host, client, GET * 500).count(b"HTTP/1.1 200 OK") == 500


def test_a_large_file_is_sent_whole_in_order(mpserve_host: Any, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "big").write_bytes(data)
    handler = Http(root=str(tmp_path))
    host = mpserve_host(handler)
    client = host.connect()
    client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" + b"GET /big HTTP/1.1\r\nHost: a\r\nRange: bytes=-5\r\n\r\n")
    client.close()
    host.advance(5.0)
    reply = client.recv()
    assert body(reply)[: len(data)] == data
    assert body(reply[len(data) :]).endswith(data[-5:])
    assert client.eof
    assert host.stats["handler_errors"] == 0


def test_connection_close(mpserve_host: Any) -> None:
    host = mpserve_host(Http())
    client = host.connect()
    reply = ask(host, client, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"Connection: close" in reply and client.eof and not client.was_reset
    client.close()
    host.advance(1.0)
    assert client.closed and not client.was_reset


def test_what_comes_after_a_refusal_draws_no_reset(mpserve_host: Any) -> None:
    """A client that still sends its body must be able to read why it was refused."""
    host = mpserve_host(Http())
    client = host.connect()
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
    host.settle()
    client.send(b"x" * 100_000)
    host.settle()
    assert client.recv().startswith(b"HTTP/1.1 413 ") and client.eof and not client.was_reset


def test_request_then_half_close(mpserve_host: Any) -> None:
    host = mpserve_host(Http())
    client = host.connect()
    client.send(GET)
    client.close()
    host.settle()
    assert client.recv().startswith(b"HTTP/1.1 200 ") and client.eof


def test_timeouts(mpserve_host: Any) -> None:
    host = mpserve_host(Http(header_timeout=2.0, keepalive_timeout=5.0))
    silent, slow, kept = host.connect(), host.connect(), host.connect()
    slow.send(b"GET ")
    ask(host, kept, GET)
    host.advance(1.5)
    slow.send(b"/")  # a byte now and then doesn't help
    host.advance(0.8)
    assert silent.eof and silent.recv() == b""
    assert slow.eof and slow.recv().startswith(b"HTTP/1.1 408 ")
    ask(host, kept, GET)
    host.advance(4.0)
    assert not kept.eof
    host.advance(4.0)
    assert kept.eof


def test_a_connection_kept_busy_from_ready_replies_lives(mpserve_host: Any) -> None:
    handler = Http(header_timeout=2.0, keepalive_timeout=3.0)
    host = mpserve_host(handler)
    first, client = host.connect(), host.connect()
    for _ in range(20):
        ask(host, first, GET)
        assert ask(host, client, GET).startswith(b"HTTP/1.1 200 ")
        host.advance(0.5)
    host.advance(6.0)
    assert client.eof


def test_a_reset_in_the_middle_of_a_file_closes_it(mpserve_host: Any, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(5_000_000))
    host = mpserve_host(Http(root=str(tmp_path)))
    before = len(os.listdir("/proc/self/fd"))
    client = host.connect(window=0)
    client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    host.settle()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    client.reset()
    host.settle()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_peer_that_does_not_read_is_given_up(mpserve_host: Any, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(5_000_000))
    host = mpserve_host(Http(root=str(tmp_path), send_timeout=3.0))
    before = len(os.listdir("/proc/self/fd"))
    client = host.connect(window=0)
    client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    host.advance(2.0)
    assert not client.was_reset
    host.advance(2.0)
    assert client.was_reset
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_root_that_is_none() -> None:
    with pytest.raises(SetupError, match="'/nowhere' is not a directory"):
        Http(root="/nowhere")


@pytest.mark.parametrize("count", [1, 3])
def test_fixed_reply(mpserve_host: Any, count: int) -> None:
    host = mpserve_host(FixedReply())
    client = host.connect()
    reply = ask(host, client, GET * count)
    assert reply.count(b"HTTP/1.1 200 OK\r\n") == count
    assert len(body(reply.rpartition(b"HTTP/1.1")[2])) == 64
    reply = ask(host, client, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert b"Connection: close" in reply and client.eof
